"""Kinds of checkpoints: each names the library that it takes, and no other kind is opened."""

import subprocess
import sys
from pathlib import Path

import pytest

import memsim
from memsim.selection import LAYOUTS


@pytest.mark.parametrize(
    ("name", "library", "remedy"),
    [
        ("x.pth", "torch", "pip install torch"),
        ("x.onnx", "onnx", 'pip install "memsim[files]"'),
        ("x.h5", "h5py", 'pip install "memsim[files]"'),
        ("x.keras", "h5py", 'pip install "memsim[files]"'),
        ("x.msgpack", "flax", 'pip install "memsim[files]"'),
        ("x.gguf", "gguf", 'pip install "memsim[files]"'),
        ("folder", "orbax", 'pip install "memsim[files]"'),
        ("hf:some/name", "huggingface_hub", 'pip install "memsim[files]"'),
    ],
)
def test_a_library_that_is_absent_is_named_with_what_installs_it(
    tmp_path, monkeypatch, run, name, library, remedy
):
    monkeypatch.chdir(tmp_path)
    if name == "folder":
        Path(name).mkdir()
        Path(name, "_METADATA").write_text("{}")
    elif not name.startswith("hf:"):
        Path(name).write_bytes(b"PK\x03\x04")
    for module in [m for m in sys.modules if m.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    status, printed, errors = run("report", name, "--policy", "sws")
    assert (status, printed) == (1, "")
    expected = f"`checkpoint` {name} takes {library} to be read, which is not installed: {remedy}"
    assert errors == f"memsim: {expected}"


def test_libraries_are_imported_when_such_a_file_is_opened():
    code = (
        "import sys, memsim.cli\n"
        "libraries = 'torch onnx h5py keras flax orbax gguf huggingface_hub'\n"
        "print([name for name in libraries.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_of_no_kind_lists_the_kinds(tmp_path):
    (tmp_path / "x.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"memsim reads \(\.safetensors, \.npz, \.pth, .*hf:owner"):
        memsim.open_checkpoint(tmp_path / "x.pb")


def test_a_layout_of_a_file_is_one_that_there_is(tmp_path):
    assert all("|" not in layout for layout in LAYOUTS)
    with pytest.raises(ValueError, match="`layouts` is"):
        memsim.select_by_name(layouts=["w"])
