import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from typer.testing import CliRunner

import memsim
from training.data import digits, shifted_batches
from training.finetune import main
from training.models import CNN
from training.models.cnn import convolve_patches
from training.progress import progress_bar
from training.steps import TrainState, stuck_aware_step


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, images):
        hidden = images
        for i, channels in enumerate((16, 32, 64)):
            hidden = linen.Conv(channels, (3, 3), strides=1 if i == 0 else 2, name=f"conv{i}")(
                hidden
            )
            hidden = linen.relu(hidden)
        return linen.Dense(10, name="dense")(hidden.reshape(hidden.shape[0], -1))


def test_the_same_step_serves_nnx_and_linen():
    graph, nnx_params = nnx.split(CNN(nnx.Rngs(0)), nnx.Param)
    convs = {f"conv{i}": nnx_params["convs"][i] for i in range(3)}
    layers = convs | {"dense": nnx_params["dense"]}
    linen_params = {
        name: {kind: layer[kind].get_value() for kind in ("kernel", "bias")}
        for name, layer in layers.items()
    }
    models = {
        "nnx": (nnx_params, lambda params, images: nnx.merge(graph, params)(images)),
        "linen": (linen_params, lambda params, x: LinenCNN().apply({"params": params}, x)),
    }
    config = memsim.CrossbarConfig(crossbars=16)
    images, labels = next(shifted_batches(digits(), 32, seed=0))
    optimizer = optax.sgd(0.1)
    results = {}
    for name, (params, apply) in models.items():
        plan = memsim.plan(params, config, memsim.Policy.sws(low_columns=5, reprogram=0.25))
        chip = memsim.sample_chip(jax.random.key(0), plan, 0.005, 0.005)
        step = jax.jit(functools.partial(stuck_aware_step, apply=apply, optimizer=optimizer))
        state, losses = TrainState(params, optimizer.init(params)), []
        for _ in range(2):
            state, loss = step(state, plan, chip, images, labels)
            losses.append(loss)
        held, _ = memsim.program(state.params, plan, chip)
        results[name] = losses, jax.tree.leaves(state.params), jax.tree.leaves(held)
    for of_nnx, of_linen in zip(results["nnx"], results["linen"], strict=True):
        for a, b in zip(of_nnx, of_linen, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
    assert results["nnx"][0][1] < results["nnx"][0][0]


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
def test_patches_times_a_matrix_is_a_convolution(key, strides):
    images = jax.random.normal(key, (3, 8, 7, 4))
    kernel = jax.random.normal(key, (3, 3, 4, 5))
    dimensions = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        images, kernel, strides, "SAME", dimension_numbers=dimensions
    )
    actual = convolve_patches(images, kernel, strides, "SAME", dimension_numbers=dimensions)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def run():
    import typer

    app = typer.Typer()
    app.command()(main)
    small = ["--epochs", "2", "--steps", "6", "--chips", "2"]
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield lambda *options: CliRunner().invoke(app, [*small, *map(str, options)])


def test_the_job_leaves_its_results_and_repeats_itself(run, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    result = run("--out", first)
    assert result.exit_code == 0, result.output
    assert {path.name for path in first.iterdir()} == {
        "accuracy.png", "columns.png", "writes.png", "report.html", "report.json",
        "trained.safetensors", "finetuned.safetensors", "programmed.safetensors",
    }  # fmt: skip
    report = json.loads((first / "report.json").read_text())
    accuracy = report["accuracy"]
    for name in ("float", "programmed", "finetuned", "finetuned_fresh_draws"):
        assert 0 <= accuracy[name] <= 1
    assert accuracy["programmed_min"] <= accuracy["programmed"] <= accuracy["programmed_max"]
    assert len(accuracy["finetuned_per_chip"]) == 2
    stuck = "+stuck:p=0.25,low=5"
    assert list(report["policies"]) == ["unsorted", "sws", f"sws{stuck}", f"sws-layer{stuck}"]
    assert report["policies"][f"sws{stuck}"]["writes"] == round(
        report["writes"]["before_finetuning"]
    )
    weights = memsim.open_checkpoint(first / "trained.safetensors")
    held = memsim.open_checkpoint(first / "programmed.safetensors")
    assert set(weights.tensors) == set(held.tensors)
    for name, tensor in weights.tensors.items():
        assert held.tensors[name].shape == (2, *tensor.shape)

    assert run("--out", second).exit_code == 0
    for name in ("report.json", "report.html", "programmed.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()

    refused = run("--out", first)
    assert isinstance(refused.exception, FileExistsError)
    assert "report.json` exists; use --force" in str(refused.exception)


def test_the_loss_sees_what_the_chip_holds(key):
    params = {"dense": {"kernel": jax.random.normal(key, (30, 4))}}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=16), memsim.Policy.unsorted())
    every_cell = jnp.full((1, 16), 255, jnp.uint8)
    dead = memsim.with_faults(key, every_cell, jnp.zeros_like(every_cell))
    optimizer = optax.sgd(1.0)
    state = TrainState(params, optimizer.init(params))
    images, labels = jnp.ones((5, 30)), jnp.zeros(5, jnp.int32)
    _, loss = stuck_aware_step(
        state, plan, dead, images, labels,
        apply=lambda p, x: x @ p["dense"]["kernel"], optimizer=optimizer,
    )  # fmt: skip
    np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)  # all weights held are 0


def test_a_notebook_keeps_no_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with progress_bar() as bar:
        assert list(bar.track(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
