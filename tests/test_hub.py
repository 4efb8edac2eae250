"""Checkpoints of the Hugging Face hub, which `hub.py` plays."""

import json
import os
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
