"""Files of Flax and folders of Orbax, made by these libraries and read as they made them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_kinds import holds, numbers, program, read_as

import memsim


def tree():
    return {
        "params": {
            "Dense_0": {"kernel": jnp.asarray(numbers(20, 6)), "bias": jnp.zeros(6)},
            "Conv_0": {"kernel": jnp.asarray(numbers(3, 3, 2, 4), jnp.bfloat16)},
        },
        "step": np.int32(3),
    }


def flat(nested):
    leaves = jax.tree_util.tree_leaves_with_path(nested)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): np.asarray(x)
        for path, x in leaves
    }


def test_a_file_of_flax(tmp_path, run):
    serialization = pytest.importorskip("flax.serialization")
    made = tree()
    path = tmp_path / "x.msgpack"
    state = {**made, "opt_state": {"0": {"mu": made["params"]}}}
    path.write_bytes(serialization.to_bytes(state))
    source = memsim.open_checkpoint(path)
    assert holds(source, flat(made))
    assert read_as(source) == {"params/Dense_0/kernel": "in-out", "params/Conv_0/kernel": "in-out"}
    program(run, path, tmp_path / "held.msgpack")
    held = serialization.from_bytes(state, (tmp_path / "held.msgpack").read_bytes())
    assert jax.tree.all(jax.tree.map(np.array_equal, held["opt_state"], state["opt_state"]))
    kernel = held["params"]["Dense_0"]["kernel"]
    again = memsim.open_checkpoint(tmp_path / "held.msgpack").load("params/Dense_0/kernel")
    np.testing.assert_array_equal(kernel, again)
    assert not np.array_equal(kernel, made["params"]["Dense_0"]["kernel"])


@pytest.fixture
def orbax():
    return pytest.importorskip("orbax.checkpoint")


def test_a_folder_of_orbax(tmp_path, orbax, run):
    made = tree() | {"layers": [{"kernel": jnp.asarray(numbers(4, 5))}]}
    path = tmp_path / "saved"
    with orbax.StandardCheckpointer() as saver:
        saver.save(path, made | {"opt_state": [made["params"]]})
    source = memsim.open_checkpoint(path)
    assert holds(source, flat(made))
    assert len(read_as(source)) == 3
    program(run, path, tmp_path / "held.safetensors")
    assert set(memsim.open_checkpoint(tmp_path / "held.safetensors").tensors) == set(flat(made))
    assert run("report", path, "--policy", "sws")[0] == 0


def test_folders_of_several_steps_are_in_doubt(tmp_path, orbax):
    made = tree()
    with orbax.CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, args=orbax.args.StandardSave(made))
        manager.wait_until_finished()
        assert holds(memsim.open_checkpoint(tmp_path / "run"), flat(made))
        manager.save(2, args=orbax.args.StandardSave(made))
        manager.wait_until_finished()
    with pytest.raises(ValueError, match=r"several checkpoints of Orbax \(1, 2\); give the folder"):
        memsim.open_checkpoint(tmp_path / "run")
    assert holds(memsim.open_checkpoint(tmp_path / "run" / "2"), flat(made))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"a folder without a checkpoint of Orbax"):
        memsim.open_checkpoint(tmp_path / "empty")
