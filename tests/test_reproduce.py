import json

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
import typer
from typer.testing import CliRunner

import memsim
from memsim import plot
from training.reproduce import list_policies, main
from training.tasks import open_task


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(main)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield lambda *options: CliRunner().invoke(app, [*map(str, options)])


def test_policies_are_those_published_and_our_own():
    blind = [
        "unsorted", "flip-n-write", "flip-n-write:flags=section", "aras",
        "sws", "sws+stuck:p=0.5,low=3", "sws+stuck:p=0.25,low=3",
        "sws-layer", "sws-layer+stuck:p=0.5,low=3", "sws-layer+stuck:p=0.25,low=3",
        "matched", "matched:tolerance=1", "matched:tolerance=1,correction=none",
    ]  # fmt: skip
    assert list(list_policies([0.5, 0.25], [3], [1])) == blind
    assert list(list_policies([0.5, 0.25], [3], [1], avoid=True)) == [
        *blind, "matched:faults=avoid", "matched:tolerance=1,faults=avoid",
    ]  # fmt: skip


@pytest.mark.slow
def test_stuck_cells_are_those_of_each_chip(run, tmp_path):
    result = run("--out", tmp_path, "--chips", 2, "--p", 0.5, "--low", 1, "--tolerance", 1,
                 "--stuck-at", 0.1)  # fmt: skip
    assert result.exit_code == 0, result.output
    policies = json.loads((tmp_path / "reproduce.json").read_text())["policies"]
    assert all(entry["chips"] == 2 for entry in policies.values())
    blind, avoiding = policies["matched"], policies["matched:faults=avoid"]
    assert blind["accuracy"] < 0.9 < 0.97 < avoiding["accuracy"]
    assert policies["unsorted"]["reduction"] == 1
    assert avoiding["reduction"] > policies["sws"]["reduction"]


@pytest.mark.slow
def test_each_policy_under_each_way_of_writing(run, tmp_path, digits_weights):
    texts = ["success:set=0.9,reset=0.9", "write-verify:controller=blind"]
    result = run(
        "--out", tmp_path, "--chips", 2, "--weights", digits_weights, "--passes", 2,
        "--policy", "unsorted", "--policy", "matched",
        *(part for text in texts for part in ("--writing", text)),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "reproduce.json").read_text())
    policies = document["policies"]
    assert list(policies) == [f"{p} {text}" for p in ("unsorted", "matched") for text in texts]
    often, rarely = (policies[f"unsorted {text}"] for text in texts)
    assert often["chips"] == 2
    assert often["wrong_share"] > rarely["wrong_share"] > 0
    assert often["accuracy"] < rarely["accuracy"]
    # a controller that reads leaves fewer cells wrong where fewer are written
    assert policies[f"matched {texts[0]}"]["wrong_share"] < 0.5 * often["wrong_share"]
    # pulses of write-verify are counted one by one
    assert rarely["pulses"] > 3 * (rarely["set_pulses"] + rarely["reset_pulses"])
    assert rarely["write_seconds"] is None
    assert (tmp_path / "accuracy_against_pulses.png").is_file()
    assert "wrong" in result.output


def test_with_hardware_an_inference_is_traced_and_priced(run, tmp_path, digits_weights):
    result = run(
        "--out", tmp_path, "--weights", digits_weights, "--policy", "matched",
        "--hardware", "published", "--chips", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "reproduce.json").read_text())
    # each pixel of a convolution's output is an input vector
    positions = json.loads((tmp_path / "positions.json").read_text())
    assert positions == document["positions"]
    assert sorted(positions.values())[0] == 1
    assert len(positions) == len(document["policies"]["matched"]["layers"])
    joules = document["policies"]["matched"]["inference"]["joules"]
    of_pass = document["policies"]["matched"]["pass"]["joules"]
    assert all(joules[part] == of_pass[part] for part in ("pulses", "index", "data"))
    assert joules["arrays"] > 0
    assert "hardware: published" in result.output
    # `memsim report` takes the file
    report = CliRunner().invoke(
        memsim.cli.app, ["report", str(digits_weights), "--positions", f"{tmp_path}/positions.json"]
    )
    assert report.exit_code == 0, report.output


@pytest.mark.slow
def test_without_arguments_it_is_the_digits_cnn(run, tmp_path):
    result = run("--out", tmp_path, "--chips", 3, "--p", 0.25, "--low", 5, "--crossbars", 16,
                 "--tolerance", 12)  # fmt: skip
    assert result.exit_code == 0, result.output
    charts = ("accuracy_against_reduction", "reduction_against_index_bits")
    assert {path.name for path in tmp_path.iterdir()} == {
        "reproduce.json", "report.html", *(f"{x}.{kind}" for x in charts for kind in ("png", "pdf"))
    }  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    for text in ("Accuracy and reduction", "Reduction and its price", "float network"):
        assert text in page
    assert "<th>accuracy</th>" in page
    assert "most written" not in page  # not counted here
    report = json.loads((tmp_path / "reproduce.json").read_text())
    assert report["float_accuracy"] > 0.97
    assert report["settings"]["images"] == 500
    policies = report["policies"]
    for entry in policies.values():
        assert f"<td>{100 * entry['accuracy']:.2f} %</td>" in page
    assert list(policies) == list(list_policies([0.25], [5], [12]))
    near = policies["matched:tolerance=12"]
    assert near["reduction"] > policies["matched"]["reduction"] > policies["sws"]["reduction"]
    assert near["accuracy"] != policies["unsorted"]["accuracy"]
    for placement in ("sws", "sws-layer", "matched"):
        assert policies[placement]["accuracy"] == policies["unsorted"]["accuracy"]
    for placement in ("sws", "sws-layer"):
        stuck = policies[f"{placement}+stuck:p=0.25,low=5"]
        assert stuck["reduction"] > policies[placement]["reduction"] > 1
        assert stuck["chips"] == 3
        assert stuck["accuracy"] < policies[placement]["accuracy"] - 0.01
        low, high = stuck["accuracy_change_interval"]
        assert low < stuck["accuracy_change"] < high
        assert stuck["write_joules"] < policies["unsorted"]["write_joules"]
        assert stuck["write_seconds"] < policies["unsorted"]["write_seconds"]
    # long names may be folded
    for text in ("digits CNN: float network 9", "sws-layer+stuck:", "low=5", "NO", "µJ"):
        assert text in result.output
    refused = run("--out", tmp_path)
    assert "reproduce.json` exists; use --force" in str(refused.exception)
    (tmp_path / "reproduce.json").unlink()  # another run's page
    refused = run("--out", tmp_path)
    assert "report.html` exists; use --force" in str(refused.exception)
    assert (tmp_path / "report.html").read_text() == page


@pytest.mark.slow
def test_resnet20_on_real_images(run, assets, tmp_path):
    options = ["--limit", 250, "--chips", 2, "--p", 0.5, "--low", 3, "--batch", 100]
    result = run("--assets", assets, "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "reproduce.json").read_text())
    assert report["settings"]["images"] == 250
    assert report["settings"]["preprocessing"]["size"] == 32
    assert len(report["digital"]) == 77
    policies = report["policies"]
    tensors = memsim.open_checkpoint(assets / "resnet20_cifar10.safetensors")
    names = {name: memsim.Policy.parse(name) for name in ("unsorted", "sws", "sws-layer")}
    counted = memsim.compare(tensors, memsim.CrossbarConfig(), names)
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
        low, high = policies[name]["accuracy_change_interval"]
        assert low < change < high


def test_data_of_more_classes_than_logits_are_refused(assets, tmp_path):
    np.savez(
        tmp_path / "data.npz", image=np.zeros((2, 32, 32, 3), np.uint8), label=np.array([3, 10])
    )
    weights = assets / "resnet20_cifar10.safetensors"
    with pytest.raises(ValueError, match="has 11 classes, but .* tells 10 apart"):  # noqa: RUF043
        open_task("resnet20", str(weights), str(tmp_path / "data.npz"))
    with tfds.testing.mock_data(num_examples=2), pytest.raises(ValueError, match="has 100 classes"):
        open_task("resnet20", str(weights), "cifar100")
    with tfds.testing.mock_data(num_examples=3):
        task = open_task("resnet20", str(weights), "cifar10", limit=2, batch=1)
    assert task.rounds == 2
    assert [len(labels) for _, labels in task.batches()] == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "resnet50"], "--weights, --data missing; a network takes"),
        (["--model", "resnet50", "--assets", "."], "brings its own model, weights and data"),
        (["--limit", 3], "go with `--data`; the digits have none"),
        (["--low", 12], "`low` is 12, more than the 8 `bits`"),
        (["--p", 2], "`p` is 2.0; a probability"),
    ],
)
def test_wrong_options_are_refused_before_any_work(run, tmp_path, options, message):
    result = run(*options, "--out", tmp_path / "out")
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_chart_shows_the_accuracy_and_its_change():
    policies = {
        name: memsim.Policy.parse(name)
        for name in (
            "unsorted", "sws", "sws+stuck:p=0.5,low=3", "sws+stuck:p=0.5,low=1",
            "sws+stuck:p=0.5,low=3,draws=fixed", "sws-layer", "matched:tolerance=2", "matched",
        )
    }  # fmt: skip
    weights = {"kernel": np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)}
    summaries = memsim.compare(weights, memsim.CrossbarConfig(), policies).policies
    change = {name: (-i / 100, -(i + 1) / 100, -(i - 2) / 100) for i, name in enumerate(policies)}
    figure = plot.accuracy_against_reduction(policies, summaries, change, 0.9)
    (axes,) = figure.axes
    lines = {container.get_label(): container for container in axes.containers}

    def priced(label, *names):
        net = sorted(f"{summaries[name].net_reduction:.2f}x" for name in names)
        return label.format(net=" to ".join(dict.fromkeys([net[0], net[-1]])))

    stucked = ["sws", "sws+stuck:p=0.5,low=1", "sws+stuck:p=0.5,low=3"]
    fixed = ["sws", "sws+stuck:p=0.5,low=3,draws=fixed"]
    matched = ["matched", "matched:tolerance=2"]
    expected = {
        "unsorted (0.0 index bits, net energy 1.00x)": ["unsorted"],
        priced("sws, p = 0.5 (9.0 index bits, net energy {net})", *stucked): stucked,
        priced("sws, p = 0.5, fixed (9.0 index bits, net energy {net})", *fixed): fixed,
        priced("sws-layer (12.0 index bits, net energy {net}, not analog-valid)", "sws-layer"): [
            "sws-layer"
        ],
        priced("matched (9.0 index bits, net energy {net})", *matched): matched,
    }
    assert set(lines) == set(expected)
    for label, names in expected.items():
        line, _, (bars,) = lines[label]
        reductions = [float(x) for x in line.get_xdata()]
        np.testing.assert_allclose(reductions, [summaries[name].reduction for name in names])
        middle = np.array([90 + 100 * change[name][0] for name in names])
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), middle)
        ends = [[float(y) for _, y in segment] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, np.stack([middle - 1, middle + 2], axis=1))
