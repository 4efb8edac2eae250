"""Jobs on language models: perplexity takes the place of accuracy."""

import json

import jax
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import memsim
from memsim import plot
from tests import oracles
from training import finetune, reproduce, sweep
from training.data.text import cut_windows, read_bytes, read_text
from training.evaluation import make_test
from training.models.gpt import GPTSizes
from training.models.language import make_small_gpt
from training.progress import progress_bar
from training.scoring import ACCURACY, PERPLEXITY
from training.tasks import Texts, measure_float, open_language_task, small_gpt_task

TINY = GPTSizes(vocabulary=256, context=16, width=16, depth=1, heads=2, inner=32)


def runner(main):
    app = typer.Typer()
    app.command()(main)

    def run(*options):
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
            return CliRunner().invoke(app, [*map(str, options)])

    return run


@pytest.fixture
def tiny(tmp_path):
    """Options of a GPT of bytes that has learned nothing, on a text of its own."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    memsim.save_tensors(folder / "tiny.safetensors", make_small_gpt(0, TINY).tensors)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_head": 2}))
    (folder / "text.txt").write_text(read_text("help")[:8000])
    return ("--model", "gpt2", "--weights", folder / "tiny.safetensors",
            "--data", folder / "text.txt")  # fmt: skip


def test_the_perplexity_of_windows_is_that_of_the_definition(tiny):
    task = open_language_task("gpt2", str(tiny[3]), Texts(data=str(tiny[5]), limit=7, batch=3))
    assert task.rounds == 3
    (losses,) = make_test(task.apply, task.score)([task.params], task.batches())
    tokens = read_bytes(read_text(str(tiny[5])))
    inputs, _ = cut_windows(tokens, 16)
    logits = np.asarray(task.apply(task.params, inputs[:7]), np.float64)
    expected = oracles.window_losses(logits.tolist(), tokens.tolist())
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    perplexity = float(np.exp(np.mean(expected)))
    count, measured, _ = measure_float(task)
    assert (count, measured) == (7, pytest.approx(perplexity))
    assert PERPLEXITY.interval(losses).mean == pytest.approx(perplexity)
    ratio = PERPLEXITY.compare(np.stack([losses + 0.5, losses]), losses)
    assert PERPLEXITY.changed(perplexity, ratio.mean) == pytest.approx(perplexity * np.exp(0.25))


def test_training_windows_are_of_the_part_that_is_not_tested(tiny):
    task = open_language_task("gpt2", str(tiny[3]), Texts(data=str(tiny[5])))
    learned, held_out = (read_text(str(tiny[5]), part).encode() for part in ("train", "test"))
    inputs, after = next(task.training(5, 0, 0))
    for window, targets in zip(inputs, after, strict=True):
        assert bytes(window.astype(np.uint8)) in learned
        np.testing.assert_array_equal(window[1:], targets[:-1])
    tested = np.concatenate([batch for batch, _ in task.batches()]).astype(np.uint8).tobytes()
    assert held_out.startswith(tested)


def test_scores_are_read_as_people_read_them():
    assert ACCURACY.text(0.5, 2) == "50.00 %"
    assert ACCURACY.change_text(-0.012, 1) == "-1.2"
    assert PERPLEXITY.text(4.2041, 2) == "4.204"
    assert PERPLEXITY.change_text(1.0117, 2) == "+1.17 %"
    assert PERPLEXITY.change_text(25.379, 2) == "25.38x"


@pytest.mark.slow
def test_policies_are_compared_by_perplexity(tiny, tmp_path):
    out = tmp_path / "out"
    result = runner(reproduce.main)(
        *tiny, "--limit", 20, "--columns", 32, "--policy", "unsorted", "--policy",
        "matched:tolerance=3", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads((out / "reproduce.json").read_text())
    low, high = document["float_perplexity_interval"]
    assert low < document["float_perplexity"] < high
    assert document["settings"]["windows"] == 20
    assert document["settings"]["window"] == 16
    assert "float_accuracy" not in document
    for entry in document["policies"].values():
        ratio, (low, high) = entry["perplexity_ratio"], entry["perplexity_ratio_interval"]
        assert low <= ratio <= high
        assert entry["perplexity"] == pytest.approx(document["float_perplexity"] * ratio)
    exact, near = (abs(e["perplexity_ratio"] - 1) for e in document["policies"].values())
    assert exact < 0.002
    assert near < 0.05
    assert "20 windows" in " ".join(result.output.split())
    assert len(document["digital"]) == 2 + 6 + 4
    page = (out / "report.html").read_text()
    assert "<th>perplexity</th>" in page
    assert "<h2>Perplexity</h2>" in page
    assert "Perplexity and reduction" in page
    assert (out / "perplexity_against_reduction.png").is_file()


@pytest.mark.slow
def test_a_language_model_is_tuned_for_its_chips(tiny, tmp_path):
    out = tmp_path / "out"
    result = runner(finetune.main)(
        *tiny, "--limit", 20, "--steps", 30, "--chips", 1, "--crossbars", 1, "--policy", "unsorted",
        "--stuck-at", 0.05, "--no-distill", "--batch", 16, "--learning-rate", 1e-2, "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    found = report["perplexity"]
    assert found["finetuned"] < 0.5 * found["programmed"]
    low, high = found["finetuned_change_interval"]
    assert low < found["finetuned"] / found["float"] < high < 1
    assert (out / "perplexity.png").is_file()
    assert "Perplexity on 1 chip" in result.output
    plan = runner(finetune.main)(*tiny, "--dry-run", "--out", out, "--force")
    assert "of 64 windows each" in plan.output


def test_charts_show_what_is_added_to_a_perplexity():
    policies = {name: memsim.Policy.parse(name) for name in ("unsorted", "sws")}
    weights = {"kernel": np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)}
    summaries = memsim.compare(weights, memsim.CrossbarConfig(), policies).policies
    change = {"unsorted": (1.0, 0.99, 1.01), "sws": (1.02, 1.01, 1.03)}
    reduction = plot.accuracy_against_reduction(
        policies, summaries, change, 4.2, measure="perplexity"
    )
    pulses = {"unsorted": 100, "sws": 50}
    failing = plot.accuracy_against_pulses(policies, pulses, change, 4.2, measure="perplexity")
    for figure in (reduction, failing):
        (axes,) = figure.axes
        assert axes.get_ylabel() == "perplexity added (%); bars: 95 %"
        heights = [float(c.lines[0].get_ydata()[-1]) for c in axes.containers]
        np.testing.assert_allclose(sorted(heights), [0, 2], atol=1e-9)
    chips = plot.accuracy_over_chips(4.2, {"programmed": [4.3, 4.4]}, "perplexity")
    assert chips.axes[0].get_xlabel().startswith("perplexity")


@pytest.mark.parametrize(
    ("main", "options", "message"),
    [
        (reproduce.main, ["--model", "gpt2"], "--weights, --data missing; gpt2 takes"),
        (reproduce.main, ["--model", "llama", "--data", "help"], "--weights missing; llama takes"),
        (reproduce.main, ["--model", "gpt2", "--assets", "."], "brings its own model"),
        (sweep.main, ["--model", "gpt-small"], "a sweep counts the images that chips get right"),
    ],
)
def test_wrong_options_are_refused_before_any_work(main, options, message, tmp_path):
    result = runner(main)(*options, "--out", tmp_path / "out")
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_small_gpt_foretells_more_than_pairs_of_letters_do():
    with progress_bar() as bar, jax.numpy_dtype_promotion("standard"):
        task = small_gpt_task(0, bar, steps=400)
    learned, tested = (read_bytes(read_text("help", split)) for split in ("train", "test"))
    pairs = np.full((256, 256), 0.01)
    np.add.at(pairs, (learned[:-1], learned[1:]), 1)
    chances = (pairs / pairs.sum(axis=1, keepdims=True))[tested[:-1], tested[1:]]
    perplexity = measure_float(task)[1]
    assert perplexity < 0.8 * np.exp(-np.log(chances).mean())
    plan = memsim.plan(
        task.params, memsim.CrossbarConfig(columns=128), memsim.policies.Matched(tolerance=1)
    )
    held, _ = memsim.program(task.params, plan, memsim.sample_chip(jax.random.key(0), plan))
    float_losses, losses = make_test(task.apply, task.score)([task.params, held], task.batches())
    assert PERPLEXITY.compare(losses[None], float_losses).high < 1.01
