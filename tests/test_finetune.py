import html
import json

import jax
import numpy as np
import PIL.Image
import pytest
import typer
from typer.testing import CliRunner

import memsim
from tests import processes
from training import finetune
from training.finetune import command, complete, learned
from training.progress import progress_bar
from training.runs import METRICS

SMALL = ("--epochs", 2, "--steps", 6, "--chips", 2, "--log-every", 2, "--save-every", 2)
STUCK = "sws+stuck:p=0.5,low=4"


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(finetune.main)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield lambda *options: CliRunner().invoke(app, [*map(str, (*SMALL, *options))])


def test_the_job_leaves_its_results(run, tmp_path):
    first = tmp_path / "a"
    result = run("--out", first)
    assert result.exit_code == 0, result.output
    assert {path.name for path in first.iterdir()} == {
        "accuracy.png", "columns.png", "writes.png", "report.html", "report.json",
        "trained.safetensors", "finetuned.safetensors", "programmed.safetensors",
        "plan.safetensors", "metrics.jsonl", "finetune.json", "checkpoints",
    }  # fmt: skip
    report = json.loads((first / "report.json").read_text())
    accuracy = report["accuracy"]
    for name in ("float", "programmed", "finetuned"):
        assert 0 <= accuracy[name] <= 1
    assert accuracy["programmed_min"] <= accuracy["programmed"] <= accuracy["programmed_max"]
    low, high = accuracy["finetuned_change_interval"]
    assert low <= accuracy["finetuned"] - accuracy["float"] <= high
    assert len(accuracy["finetuned_per_chip"]) == 2
    assert list(report["policies"]) == ["unsorted", "sws", STUCK]
    once = report["policies"][STUCK]["writes"]  # onto erased cells
    assert report["writes"]["before_finetuning"] == pytest.approx(once, rel=0.05)
    weights = memsim.open_checkpoint(first / "trained.safetensors")
    held = memsim.open_checkpoint(first / "programmed.safetensors")
    assert set(weights.tensors) == set(held.tensors)
    for name, tensor in weights.tensors.items():
        assert held.tensors[name].shape == (2, *tensor.shape)
    lines = [json.loads(line) for line in (first / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert set(lines[0]) == {"step", "loss", "expected_writes_per_weight", "learning_rate"}

    made_by = report["made_by"]
    assert made_by["command"].startswith("python -m training.finetune ")
    assert made_by["version"] == memsim.__version__
    assert made_by["options"]["--steps"] == 6
    with PIL.Image.open(first / "accuracy.png") as image:
        assert json.loads(image.text["made_by"]) == made_by
        assert "Dots of the accuracy of each chip" in image.text["Comment"]
    footer = (first / "report.html").read_text().partition("<footer>")[2]
    assert html.escape(made_by["command"]) in footer

    refused = run("--out", first)
    assert isinstance(refused.exception, FileExistsError)
    assert "report.json` exists; use --force" in str(refused.exception)


@pytest.mark.slow
def test_the_job_repeats_itself(run, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert run("--out", first).exit_code == 0
    assert run("--out", second).exit_code == 0
    for name in ("report.json", "report.html", "programmed.safetensors", METRICS):
        assert processes.figures_of(first / name) == processes.figures_of(second / name)


@pytest.mark.slow
def test_robust_weights_are_one_network_that_programs_as_reported(run, tmp_path):
    result = run("--robust", "--refresh", 3, "--clip", 3, "--write-price", 0.1, "--out", tmp_path,
                 "--stuck-at", 0.02)  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    tuned = memsim.open_checkpoint(tmp_path / "finetuned.safetensors")
    params = {name: tuned.load(name) for name in tuned.tensors}
    plan = memsim.load_plan(tmp_path / "plan.safetensors")
    held = memsim.open_checkpoint(tmp_path / "programmed.safetensors")
    writes = []
    for i, key in enumerate(jax.random.split(jax.random.key(0), 2)):  # never trained on
        chip = memsim.sample_chip(key, plan, 0.01, 0.01)
        effective, programming = memsim.program(params, plan, chip, passes=2)
        writes.append(memsim.summarize(programming, plan).writes_per_pass[1])
        for name, tensor in effective.items():
            np.testing.assert_array_equal(tensor, held.load(name)[i])
    assert report["writes"]["after_finetuning"] == np.mean(writes)
    last = json.loads((tmp_path / METRICS).read_text().splitlines()[-1])
    assert last["expected_writes_per_weight"] > 0


@pytest.mark.slow
def test_it_goes_on_from_weights_that_an_earlier_run_left(run, tmp_path):
    first, second = tmp_path / "robust", tmp_path / "each"
    assert run("--robust", "--out", first).exit_code == 0
    tuned = first / "finetuned.safetensors"
    quiet = ("--learning-rate", 1e-9, "--out", second)
    assert run("--start", tuned, *quiet).exit_code == 0
    before = memsim.open_checkpoint(tuned).load("dense/kernel")
    after = memsim.open_checkpoint(second / "finetuned.safetensors").load("dense/kernel")
    np.testing.assert_allclose(after, [before] * 2, atol=1e-6)
    refused = run("--start", tuned.parent / "programmed.safetensors", *quiet, "--force")
    assert "`start`" in str(refused.exception)
    assert "has no tensor `convs/0/bias` of shape (16,)" in str(refused.exception)


@pytest.mark.slow
def test_chips_take_turns_in_groups_and_have_plans_of_their_own(run, tmp_path):
    options = ("--refresh", 4, "--policy", "matched:faults=avoid", "--crossbars", 1)
    for at_once in (1, 2):
        out = tmp_path / str(at_once)
        result = run("--chips-at-once", at_once, *options, "--out", out)
        assert result.exit_code == 0, result.output
    tuned = [memsim.open_checkpoint(tmp_path / f"{n}/finetuned.safetensors") for n in (1, 2)]
    start = memsim.open_checkpoint(tmp_path / "1/trained.safetensors")
    for name in tuned[0].tensors:  # in one vmap sums may be taken in another order
        alone, paired = (of.load(name) - start.load(name) for of in tuned)
        moved = np.linalg.norm(alone)
        assert np.linalg.norm(alone - paired) < 0.01 * moved
        assert np.linalg.norm(alone[0] - alone[1]) > 0.02 * moved  # each for its own chip
    plans = [memsim.load_plan(tmp_path / f"1/plan-{chip}.safetensors") for chip in range(2)]
    places = [plan.layers["dense/kernel"].placement.positions for plan in plans]
    assert np.any(places[0] != places[1])


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(run, tmp_path):
    out = tmp_path / "runs"
    result = run("--dry-run", "--robust", "--refresh", 2, "--out", out)
    assert result.exit_code == 0, result.output
    for text in ("digits CNN", STUCK, "another chip every step", "0 to 6 of 64", "every 2 steps"):
        assert text in result.output
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "resnet20", "--weights", "w", "--data", "d"], "`--train-data` is missing"),
        (["--train-data", "t.npz"], "the digits have none"),
        (["--warmup", 6], "`--warmup` is 6; it ends before the 6 `--steps` do"),
        (["--robust", "--policy", "matched:faults=avoid"], "needs to know its chip"),
        (["--policy", "sorted"], "`policy` is 'sorted'"),
        (["--policy", "flip-n-write"], "fine-tuning takes unsorted, sws, sws-layer, matched"),
        (["--robust", "--chips-at-once", 2], "`--chips-at-once` goes with a network for each chip"),
        (["--start", "nothing.safetensors"], "`--start` nothing.safetensors is not a file"),
        (["--policy", "sws+stuck:p=0.5,low=9"], "more than the 8 `bits`"),
    ],
)
def test_wrong_options_are_refused_before_any_work(run, tmp_path, options, message):
    result = run(*options, "--out", tmp_path / "out")
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not (tmp_path / "out" / "finetune.json").exists()


def test_statistics_are_not_learned():
    params = {
        "conv.weight": np.ones((2, 2), np.float32), "bn.running_mean": np.ones(2, np.float32),
        "bn.running_var": np.ones(2, np.float32), "bn.num_batches_tracked": np.int64(3),
    }  # fmt: skip
    some = learned(params)
    assert [name for name, leaf in some.items() if leaf is not None] == ["conv.weight"]
    doubled = complete(jax.tree.map(lambda x: 2 * x, some), params)
    assert doubled["conv.weight"].max() == 2
    assert doubled["bn.running_var"] is params["bn.running_var"]


@pytest.mark.slow
def test_weights_are_tuned_as_their_cells_are_read(run, tmp_path):
    read = ("--robust", "--cells", "pcm", "--seconds", 3600)
    assert "pcm cells after 3600 s" in run(*read, "--dry-run", "--out", tmp_path).output
    result = run(*read, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    held = memsim.open_checkpoint(tmp_path / "programmed.safetensors")
    kernel = held.load("dense/kernel")
    assert len(np.unique(kernel)) > 2**8  # off the grid of codes
    assert np.any(kernel[0] != kernel[1])


@pytest.mark.slow
def test_a_real_network_is_tuned_on_its_images(run, assets, tmp_path):
    result = run("--assets", assets, "--limit", 100, "--test-batch", 100, "--batch", 8, "--steps",
                 2, "--chips", 1, "--policy", "sws+stuck:p=0.25,low=4", "--crossbars", 1,
                 "--out", tmp_path)  # fmt: skip
    assert result.exit_code == 0, result.output
    accuracy = json.loads((tmp_path / "report.json").read_text())["accuracy"]
    assert accuracy["float"] > 0.85 > accuracy["programmed"]
    tuned = memsim.open_checkpoint(tmp_path / "finetuned.safetensors")
    assert "bn1.running_mean" not in tuned.tensors  # as it was
    assert tuned.tensors["bn1.weight"].shape == (1, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "kills"),
    [
        ("robust", 2),
        ("robust", 10),
        ("each", 10),
    ],
)
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, mode, kills):
    steps = 12
    options = ("--epochs", 1, "--steps", steps, "--chips", 2, "--log-every", 1, "--save-every", 1,
               "--refresh", 4, *(["--robust"] if mode == "robust" else []))  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(out):
        return processes.start("training.finetune", (*options, "--out", out))

    def count():
        saved = (path.name for path in (killed / "checkpoints").glob("[0-9]*"))
        return max((int(name) for name in saved if name.isdecimal()), default=0)

    processes.finish(start(whole))
    killed_at = processes.kill(lambda: start(killed), killed, count, kills, moment=1.0)
    assert kills < 10 or any(0 < done < steps for done in killed_at)
    processes.finish(start(killed))
    names = ("report.json", "finetuned.safetensors", "programmed.safetensors", METRICS)
    for name in (*names, "plan.safetensors" if mode == "robust" else "plan-1.safetensors"):
        assert processes.figures_of(whole / name) == processes.figures_of(killed / name)


@pytest.mark.slow
def test_a_run_with_other_options_is_refused(run, tmp_path):
    assert run("--out", tmp_path).exit_code == 0
    (tmp_path / "report.json").unlink()  # as if it had been killed just before its end
    refused = run("--out", tmp_path, "--seed", 1)
    assert isinstance(refused.exception, ValueError)
    assert "holds a job with seed 0, not 1; go on with the same options" in str(refused.exception)
    going_on = run("--dry-run", "--out", tmp_path)
    assert "6 to 6 of 64" in going_on.output
    whole = (tmp_path / "finetuned.safetensors").read_bytes()
    assert run("--out", tmp_path).exit_code == 0
    assert (tmp_path / "finetuned.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_run_that_starts_afresh_and_is_killed_can_go_on(run, tmp_path, monkeypatch):
    assert run("--out", tmp_path).exit_code == 0

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "fine_tune", killed)
        run("--out", tmp_path, "--seed", 1, "--force")
    assert not (tmp_path / "report.json").exists()
    assert run("--out", tmp_path, "--seed", 1).exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["settings"]["seed"] == 1


@pytest.mark.slow
def test_a_run_on_other_weights_of_the_same_name_is_refused(run, tmp_path):
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out"
    assert run("--out", out).exit_code == 0
    tensors = memsim.open_checkpoint(out / "trained.safetensors")
    tensors = {name: tensors.load(name) for name in tensors.tensors}
    memsim.save_tensors(weights, tensors)
    assert run("--weights", weights, "--out", out, "--force").exit_code == 0
    (out / "report.json").unlink()
    memsim.save_tensors(weights, tensors | {"dense/bias": tensors["dense/bias"] + 1}, force=True)
    refused = run("--weights", weights, "--out", out)
    assert "holds a job with weights_sha256" in str(refused.exception)


def test_a_notebook_keeps_no_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with progress_bar() as bar:
        assert list(bar.track(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
