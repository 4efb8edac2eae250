"""Checkpoints of the Hugging Face hub, which `hub.py` plays."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_kinds import numbers
from hub import Hub, running

import memsim

OPEN = """
import sys, memsim
for name in sys.argv[1:]:
    try:
        print(sorted(memsim.open_checkpoint(name).tensors))
    except (OSError, ValueError) as error:
        print(error)
"""


def test_weights_of_the_hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    files, tensors = {}, {"a.weight": numbers(4, 5), "b.weight": numbers(5, 3)}
    memsim.save_tensors(tmp_path / "whole.safetensors", tensors)
    whole = (tmp_path / "whole.safetensors").read_bytes()
    files["/some/plain/resolve/main/model.safetensors"] = whole
    files["/some/other/resolve/main/deep/own.safetensors"] = whole
    for name, tensor in tensors.items():
        memsim.save_tensors(tmp_path / "part.safetensors", {name: tensor}, force=True)
        content = (tmp_path / "part.safetensors").read_bytes()
        files[f"/some/shards/resolve/main/{name[0]}.safetensors"] = content
    weight_map = {name: f"{name[0]}.safetensors" for name in tensors}
    index = "resolve/main/model.safetensors.index.json"
    files[f"/some/shards/{index}"] = json.dumps({"weight_map": weight_map}).encode()
    hostile = {"weight_map": {"a.weight": "../../../../etc/passwd"}}
    files[f"/some/hostile/{index}"] = json.dumps(hostile).encode()
    with running(tmp_path / "home") as address:
        Hub.files = files
        done = subprocess.run(
            [sys.executable, "-c", OPEN, "hf:some/plain", "hf:some/shards", "hf:some/hostile",
             "hf:some/other/deep/own.safetensors", "hf:some/missing", "hf:../x", "hf:a",
             "hf:a/b/.."],
            env=os.environ | address, capture_output=True, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
    found = done.stdout.splitlines()
    assert found[0] == found[1] == found[3] == str(sorted(tensors)), done.stderr
    assert "names the shard '../../../../etc/passwd', not a plain file name" in found[2]
    assert "hf:some/missing: the Hugging Face hub did not give model.safetensors or" in found[4]
    for line in found[5:]:
        assert "names no repository; give hf:owner/name, or hf:owner/name/FILE" in line


def test_the_pages_commands_fetch_the_weights_of_the_tables(tmp_path):
    """`hf download` of a file to a folder, as the hub's own tool does it."""
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists():
        pytest.skip("hf is part of huggingface_hub: pip install huggingface_hub")
    page = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"(?m)^hf (download .*)", page)]
    assert len(commands) == 2
    memsim.save_tensors(tmp_path / "x.safetensors", {"a.weight": numbers(4, 5)})
    content = (tmp_path / "x.safetensors").read_bytes()
    with running(tmp_path / "home") as address:
        Hub.files = {f"/{name}/resolve/main/{file}": content for _, name, file, *_ in commands}
        quiet = {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for command in commands:
            subprocess.run(
                [hf, *command], env=os.environ | address | quiet, cwd=tmp_path, check=True,
                capture_output=True,
            )  # fmt: skip
            assert (tmp_path / command[-1] / command[2]).read_bytes() == content
