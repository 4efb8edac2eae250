import json
import os
import pickle

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import memsim
from memsim.files.writing import write_whole


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((5, 21), np.float32),
        "b.weight": rng.standard_normal((4, 3, 3, 3)).astype(ml_dtypes.bfloat16),
        "c.weight": rng.standard_normal((6, 4)).astype(np.float16),
        "a.bias": np.zeros(5, np.float32),
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_tensors_come_back_with_names_shapes_and_dtypes(tmp_path, tensors, suffix):
    path = tmp_path / f"x{suffix}"
    memsim.save_tensors(path, tensors)
    source = memsim.open_checkpoint(path)
    assert set(source.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert source.tensors[name].shape == tensor.shape
        assert source.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(source.load(name), tensor)


def test_a_transposed_view_is_saved_as_it_reads(tmp_path):
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    memsim.save_tensors(tmp_path / "x.safetensors", {"w": view})
    np.testing.assert_array_equal(
        memsim.open_checkpoint(tmp_path / "x.safetensors").load("w"), view
    )


def test_a_sharded_checkpoint_opens_by_its_index(tmp_path, tensors):
    names = list(tensors)
    for i, part in enumerate((names[:2], names[2:])):
        safetensors.numpy.save_file({n: tensors[n] for n in part}, tmp_path / f"{i}.safetensors")
    weight_map = {name: f"{i // 2}.safetensors" for i, name in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    source = memsim.open_checkpoint(index)
    assert set(source.tensors) == set(names)
    np.testing.assert_array_equal(source.load("c.weight"), tensors["c.weight"])

    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names the shard 1\.safetensors, missing"):
        memsim.open_checkpoint(index)
    index.write_text(json.dumps({"weight_map": {"a": "../0.safetensors"}}))
    with pytest.raises(ValueError, match="not a plain file name"):
        memsim.open_checkpoint(index)
    for text in ("[]", "{}", "no json", '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(ValueError, match="not the index of a sharded checkpoint"):
            memsim.open_checkpoint(index)


def test_what_is_no_checkpoint_is_refused(tmp_path, tensors):
    with pytest.raises(FileNotFoundError, match=r"`checkpoint` .*none\.safetensors is not a file"):
        memsim.open_checkpoint(tmp_path / "none.safetensors")
    whole = tmp_path / "whole.safetensors"
    memsim.save_tensors(whole, tensors)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cut\.safetensors is truncated"):
        memsim.open_checkpoint(cut)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        memsim.open_checkpoint(text)
    other = tmp_path / "weights.pt"
    other.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"not a checkpoint that memsim reads \(.safetensors"):
        memsim.open_checkpoint(other)
    cut_npz = tmp_path / "cut.npz"
    np.savez(cut_npz, w=np.ones((30, 30)))
    cut_npz.write_bytes(cut_npz.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or not an npz"):
        memsim.open_checkpoint(cut_npz)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("plain", [True, False], ids=["a bare pickle", "an object array"])
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, plain):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.npz"
    if plain:
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        np.savez(path, w=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="holds pickled objects, which memsim never unpickles"):
        memsim.open_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_an_output_that_exists_needs_force(tmp_path):
    path = tmp_path / "x.npz"
    memsim.save_tensors(path, {"w": np.ones(2)})
    with pytest.raises(FileExistsError, match=r"x\.npz` exists; use --force"):
        memsim.save_tensors(path, {"w": np.zeros(2)})
    memsim.save_tensors(path, {"w": np.zeros(2)}, force=True)
    assert memsim.open_checkpoint(path).load("w").sum() == 0


def test_an_output_needs_a_folder_that_can_be_written(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none` is not a folder; make it first"):
        memsim.save_tensors(tmp_path / "none" / "x.npz", {})
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        memsim.save_tensors(tmp_path, {})
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root
    with pytest.raises(PermissionError, match="cannot be written; choose another folder"):
        memsim.save_tensors(tmp_path / "x.npz", {})


def test_a_broken_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("new, but")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_whole(path, half, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "old"
