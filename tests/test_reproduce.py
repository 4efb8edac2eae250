import json

import jax
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import memsim
from training.reproduce import grid, main, open_task


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(main)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield lambda *options: CliRunner().invoke(app, [*map(str, options)])


def test_policies_are_three_placements_and_two_with_bit_stucking():
    assert list(grid([0.5, 0.25], [3])) == [
        "unsorted", "sws", "sws+stuck:p=0.5,low=3", "sws+stuck:p=0.25,low=3",
        "sws-layer", "sws-layer+stuck:p=0.5,low=3", "sws-layer+stuck:p=0.25,low=3",
    ]  # fmt: skip


def test_without_arguments_it_is_the_digits_cnn(run, tmp_path):
    result = run("--out", tmp_path, "--chips", 3, "--p", 0.25, "--low", 5, "--crossbars", 16)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "reproduce.json", "accuracy_against_reduction.png", "accuracy_against_reduction.pdf",
    }  # fmt: skip
    report = json.loads((tmp_path / "reproduce.json").read_text())
    assert report["float_accuracy"] > 0.97
    assert report["images"] == 500
    policies = report["policies"]
    assert list(policies) == list(grid([0.25], [5]))
    for placement in ("sws", "sws-layer"):
        assert policies[placement]["accuracy"] == policies["unsorted"]["accuracy"]
        stuck = policies[f"{placement}+stuck:p=0.25,low=5"]
        assert stuck["reduction"] > policies[placement]["reduction"] > 1
        assert stuck["chips"] == 3
        assert stuck["accuracy"] < policies[placement]["accuracy"] - 0.01
        low, high = stuck["accuracy_interval"]
        assert low < stuck["accuracy"] < high
        assert stuck["write_joules"] < policies["unsorted"]["write_joules"]
        assert stuck["write_seconds"] < policies["unsorted"]["write_seconds"]
    for text in ("digits CNN: float network 9", "sws-layer+stuck:p=0.25,low=5", "NO", "µJ"):
        assert text in result.output
    refused = run("--out", tmp_path)
    assert "reproduce.json` exists; use --force" in str(refused.exception)


def test_resnet20_on_real_images(run, assets, tmp_path):
    options = ["--images", 250, "--chips", 2, "--p", 0.5, "--low", 3, "--batch", 100]
    result = run("--assets", assets, "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "reproduce.json").read_text())
    assert report["images"] == 250
    assert len(report["digital"]) == 77
    policies = report["policies"]
    tensors = memsim.open_checkpoint(assets / "resnet20_cifar10.safetensors")
    names = {name: memsim.Policy.parse(name) for name in ("unsorted", "sws", "sws-layer")}
    counted = memsim.compare(tensors.tensors, memsim.CrossbarConfig(), names, load=tensors.load)
    for name, summary in counted.policies.items():
        assert policies[name]["writes"] == summary.writes  # as `memsim report` on the same file


@pytest.mark.slow
def test_bit_stucking_of_resnet20_agrees_with_an_independent_count(run, assets, tmp_path):
    assert run("--assets", assets, "--out", tmp_path, "--chips", 8).exit_code == 0
    report = json.loads((tmp_path / "reproduce.json").read_text())
    float_accuracy, policies = report["float_accuracy"], report["policies"]
    assert abs(2000 * float_accuracy - 1842) <= 2
    assert abs(policies["unsorted"]["accuracy"] - float_accuracy) < 0.005
    for name, reduction, change in (
        ("sws+stuck:p=0.5,low=3", 2.45, -0.032),
        ("sws-layer+stuck:p=0.5,low=2", 4.6, -0.006),
        ("sws-layer+stuck:p=0.25,low=3", 6.8, -0.034),
    ):
        assert abs(policies[name]["reduction"] / reduction - 1) < 0.01
        low, high = policies[name]["accuracy_interval"]
        assert low < float_accuracy + change < high


def test_data_of_more_classes_than_logits_are_refused(assets, tmp_path):
    np.savez(
        tmp_path / "data.npz", image=np.zeros((2, 32, 32, 3), np.uint8), label=np.array([3, 10])
    )
    weights = assets / "resnet20_cifar10.safetensors"
    with pytest.raises(ValueError, match="has 11 classes, but .* tells 10 apart"):  # noqa: RUF043
        open_task("resnet20", str(weights), str(tmp_path / "data.npz"))


def test_a_network_takes_model_weights_and_data(run, tmp_path):
    result = run("--model", "resnet50", "--out", tmp_path)
    assert "--weights, --data missing; a network takes" in str(result.exception)
