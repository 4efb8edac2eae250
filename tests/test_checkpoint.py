import json
import os
import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import memsim
from memsim.files.writing import write_whole

CONFIG = memsim.CrossbarConfig(rows=8, crossbars=3)


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
    if suffix == ".npz":  # npz knows no bfloat16
        tensors["b.weight"] = tensors["b.weight"].astype(np.float64)
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


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("crossbars", [1, 3, None])
@pytest.mark.parametrize("policy", ["unsorted", "sws+stuck:p=0.3,low=2,draws=fixed", "sws-layer"])
def test_a_plan_and_a_chip_survive_their_files(tmp_path, tensors, key, crossbars, policy):
    config = memsim.CrossbarConfig(rows=8, crossbars=crossbars, scale_per="output")
    plan = memsim.plan(tensors, config, memsim.Policy.parse(policy))
    chip = memsim.sample_chip(key, plan, 0.1, 0.05)
    memsim.save_plan(tmp_path / "p", plan)
    memsim.save_chip(tmp_path / "c", chip, config)
    loaded_plan = memsim.load_plan(tmp_path / "p")
    loaded_chip = memsim.load_chip(tmp_path / "c", config)
    assert jax.tree.structure(loaded_plan) == jax.tree.structure(plan)
    assert equal(loaded_plan, plan)
    assert equal(loaded_chip._replace(key=0), chip._replace(key=0))
    assert jnp.array_equal(jax.random.key_data(loaded_chip.key), jax.random.key_data(chip.key))


def test_a_file_of_another_kind_is_no_plan_and_no_chip(tmp_path, tensors, key):
    plan = memsim.plan(tensors, CONFIG, memsim.policies.Unsorted())
    chip = memsim.sample_chip(key, plan)
    memsim.save_plan(tmp_path / "plan", plan)
    memsim.save_chip(tmp_path / "chip", chip, CONFIG)
    with pytest.raises(ValueError, match=r"`plan` .*chip was not saved by memsim as a plan"):
        memsim.load_plan(tmp_path / "chip")
    with pytest.raises(ValueError, match=r"`chip` .*plan was not saved by memsim as a chip"):
        memsim.load_chip(tmp_path / "plan", CONFIG)
    with pytest.raises(FileNotFoundError, match=r"`plan` .*none is not a file"):
        memsim.load_plan(tmp_path / "none")
    (tmp_path / "cut").write_bytes((tmp_path / "plan").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"`plan` .*cut is truncated or no plan file"):
        memsim.load_plan(tmp_path / "cut")
    with pytest.raises(ValueError, match="program it with the config that it was made for"):
        memsim.load_chip(tmp_path / "chip", memsim.CrossbarConfig(rows=8, bits=6, crossbars=3))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    "config",
    [CONFIG, memsim.CrossbarConfig(rows=8, crossbars=3, cell_bits=2, bits=7)],
    ids=["1-bit cells", "2-bit cells"],
)
def test_a_fault_map_survives_its_file(tmp_path, tensors, key, suffix, config):
    plan = memsim.plan(tensors, config, memsim.policies.Unsorted())
    chip = memsim.sample_chip(key, plan, 0.1, 0.05)
    path = tmp_path / f"map{suffix}"
    memsim.save_faults(path, chip, config)
    low, high = memsim.load_faults(path)
    assert low.shape == (3, 8, config.columns)
    assert low.any()
    assert high.any()
    again = memsim.with_faults(
        key, memsim.fault_words(low, 3, config), memsim.fault_words(high, 3, config)
    )
    assert equal(again._replace(key=0), chip._replace(key=0))
    assert jnp.array_equal(jax.random.key_data(again.key), jax.random.key_data(chip.key))


def test_a_bad_fault_map_is_refused(tmp_path):
    cells = np.zeros((1, 8, 8), bool)
    path = tmp_path / "map.npz"
    np.savez(path, stuck_at_0=cells)
    with pytest.raises(ValueError, match=r"holds \['stuck_at_0'\]; a fault map holds"):
        memsim.load_faults(path)
    np.savez(path, stuck_at_0=cells, stuck_at_1=cells + 2.0)
    with pytest.raises(ValueError, match="both must be bool"):
        memsim.load_faults(path)
    np.savez(path, stuck_at_0=~cells, stuck_at_1=~cells)
    with pytest.raises(ValueError, match="64 cells stuck at both 0 and 1"):
        memsim.load_faults(path)
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\), but this chip is \(3, 8, 8\)"):
        memsim.fault_words(cells, 3, CONFIG)
