"""Files of chips and fault maps, and of plans with the chips that they are for."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors

import memsim

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
    assert low.shape == (3, 8, config.cells_per_word)
    assert low.any()
    assert high.any()
    again = memsim.with_faults(
        key, memsim.chip.fault_words(low, 3, config), memsim.chip.fault_words(high, 3, config)
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
        memsim.chip.fault_words(cells, 3, CONFIG)


WIDE = memsim.CrossbarConfig(rows=8, crossbars=3, cell_bits=2)


@pytest.fixture(scope="module")
def chip_file(tmp_path_factory):
    """Tensors and description of the file of a chip with stuck cells of two bits."""
    rng = np.random.default_rng(0)
    weights = {"a.weight": rng.standard_normal((5, 21), np.float32)}
    plan = memsim.plan(weights, WIDE, memsim.policies.Unsorted())
    chip = memsim.sample_chip(jax.random.key(0), plan, 0.1, 0.1)
    path = tmp_path_factory.mktemp("chips") / "chip"
    memsim.save_chip(path, memsim.program(weights, plan, chip)[1].chip, WIDE)
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["memsim.chip"])
        return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118


def refused(tmp_path, tensors, description):
    """Whether loading says in one clear error that this is no chip."""
    metadata = {"memsim.chip": json.dumps(description)}
    memsim.save_tensors(tmp_path / "chip", tensors, metadata=metadata, force=True)
    with pytest.raises(ValueError, match=r"`chip` .*chip (is no whole chip|does not fit|has )"):
        memsim.load_chip(tmp_path / "chip", WIDE)


def test_every_tensor_of_a_chip_is_checked(tmp_path, chip_file):
    tensors, description = chip_file
    stuck = tensors["stuck_at_0"] | tensors["stuck_at_1"]
    outside = {
        "passes": [np.int32(-1)],
        "state": [tensors["state"] ^ stuck, tensors["state"] | tensors["stuck_at_0"]],
        # a part of a cell; cells stuck at both levels; another stuck cell than the state has
        "stuck_at_0": [tensors["stuck_at_0"] | 1, stuck, np.full_like(stuck, 255)],
        "stuck_at_1": [tensors["stuck_at_1"] & 0x55, stuck, np.full_like(stuck, 255)],
        "key": [tensors["key"].astype(np.int32)],
    }
    for name, array in tensors.items():
        broken = [array[None], array.astype(np.int64), array.astype(np.float32), *outside[name]]
        if array.ndim:
            broken += [array[:-1], array[:0], np.concatenate([array, array])]
        if array.ndim == 2:
            broken += [array[:, :-1], array.T.copy(), array.astype(np.uint16)]
        for i, other in enumerate(broken):
            print(name, i)  # noqa: T201 - tells which one was accepted
            refused(tmp_path, {**tensors, name: np.asarray(other)}, description)
        refused(tmp_path, {n: x for n, x in tensors.items() if n != name}, description)
        refused(tmp_path, {**tensors, f"{name}.more": array}, description)


def test_every_word_of_the_description_of_a_chip_is_checked(tmp_path, chip_file):
    tensors, description = chip_file
    for name in ("key", "cells"):
        refused(tmp_path, tensors, {n: x for n, x in description.items() if n != name})
    for name in description:
        for value in (None, -1, 1.5, "x", [], {}, True, [1], ["x"], [True]):
            print(name, value)  # noqa: T201
            refused(tmp_path, tensors, {**description, name: value})
    refused(tmp_path, tensors, {**description, "more": 1})


def test_a_chip_that_could_not_be_loaded_is_not_saved(tmp_path, tensors, key):
    plan = memsim.plan(tensors, CONFIG, memsim.policies.Unsorted())
    chips = jax.vmap(lambda k: memsim.sample_chip(k, plan))(jax.random.split(key, 2))
    for chip in (chips, memsim.sample_chip(key, plan)._replace(passes=jnp.int32(-1))):
        with pytest.raises(ValueError, match="`chip` cannot be saved"):
            memsim.save_chip(tmp_path / "chip", chip, CONFIG)
    other = memsim.CrossbarConfig(rows=4, crossbars=3)
    with pytest.raises(ValueError, match=r"`chip` cannot be saved: .*\[3, 4\] is needed"):
        memsim.save_chip(tmp_path / "chip", memsim.sample_chip(key, plan), other)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_kind_survive(tmp_path, tensors, impl):
    plan = memsim.plan(tensors, CONFIG, memsim.policies.Unsorted())
    chip = memsim.sample_chip(jax.random.key(3, impl=impl), plan)
    memsim.save_chip(tmp_path / "chip", chip, CONFIG)
    loaded = memsim.load_chip(tmp_path / "chip", CONFIG)
    assert jax.random.key_impl(loaded.key) == jax.random.key_impl(chip.key)
    assert jnp.array_equal(jax.random.key_data(loaded.key), jax.random.key_data(chip.key))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_every_part_of_a_fault_map_is_checked(tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    low = np.zeros((2, 3, 4), bool)
    low[0, 0, 0] = True
    maps = {"stuck_at_0": low, "stuck_at_1": ~low}
    for dtype in (bool, np.uint8, np.int64, np.float32):
        memsim.save_tensors(path, {n: x.astype(dtype) for n, x in maps.items()}, force=True)
        for found, given in zip(memsim.load_faults(path), maps.values(), strict=True):
            assert found.dtype == bool
            np.testing.assert_array_equal(found, given)
    for name, array in maps.items():
        number = array.astype(np.float32)
        bad = [array[0], array[None], array[:, :2], array[:0], array | True, number * 2, number - 1,
               np.full_like(number, np.nan), np.full_like(number, np.inf), number + 0j]  # fmt: skip
        for other in bad:
            memsim.save_tensors(path, {**maps, name: other}, force=True)
            with pytest.raises(ValueError, match="`faults`"):
                memsim.load_faults(path)
        for others in ({name: array}, {**maps, "more": array}):
            memsim.save_tensors(path, others, force=True)
            with pytest.raises(ValueError, match="a fault map holds"):
                memsim.load_faults(path)
