"""What jobs share: their options, their settings on record, their checkpoints."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import rich.progress
import typer
from typer.testing import CliRunner

from training import finetune, redeploy, reproduce, runs, sweep, wearout
from training.options import MAX_SEED

JOBS = {
    "finetune": (finetune.main, finetune.FinetuneOptions),
    "sweep": (sweep.main, sweep.SweepOptions),
    "reproduce": (reproduce.main, reproduce.ReproduceOptions),
    "wearout": (wearout.main, wearout.WearoutOptions),
    "redeploy": (redeploy.main, redeploy.RedeployOptions),
}
every_job = pytest.mark.parametrize("job", JOBS)


def run(job, *options):
    app = typer.Typer()
    app.command()(JOBS[job][0])
    return CliRunner().invoke(app, [*map(str, options)])


@every_job
@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, -(2**63), 2**64 + 1])
def test_a_seed_that_draws_what_another_does_is_refused(job, seed, tmp_path):
    result = run(job, "--seed", seed, "--out", tmp_path / "out")
    assert isinstance(result.exception, ValueError)
    message = f"`--seed` is {seed}; give a whole number from 0 to {MAX_SEED}"
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


@every_job
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_of_options_are_finite(job, value, tmp_path):
    record = JOBS[job][1]
    defaults = record()
    some = {
        field.name: getattr(defaults, field.name)
        for field in dataclasses.fields(record)
        if isinstance(getattr(defaults, field.name), (float, list))
    }
    for name, default in some.items():
        if isinstance(default, list) and not isinstance(default[0], float):
            continue
        given = [value] if isinstance(default, list) else value
        with pytest.raises(ValueError, match=f"`--{name.replace('_', '-')}` is .*; give a finite"):
            record(**{name: given})


@pytest.mark.parametrize(
    "job", ["finetune", *(pytest.param(job, marks=pytest.mark.slow) for job in list(JOBS)[1:])]
)
def test_a_wrong_option_is_one_line(job, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", f"training.{job}", "--seed", "-1", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"{job}: `--seed` is -1; give a whole number from 0 to {MAX_SEED}.\n"


def test_a_job_goes_on_only_as_it_was_started(tmp_path):
    path, settings = tmp_path / "job.json", {"chips": 3, "rates": [0.0], "start": None}
    runs.check_settings(path, settings)  # nothing on record
    runs.write_settings(path, settings)
    runs.check_settings(path, settings)
    runs.check_settings(path, {"chips": 3}, later=("rates", "start"))
    for name in settings:
        path.write_text(json.dumps({k: v for k, v in settings.items() if k != name}))
        with pytest.raises(ValueError, match=rf"job.json` lacks `{name}`; use --force"):
            runs.check_settings(path, settings)
    for name, value in (("chips", 3.0), ("chips", True), ("rates", 0.0), ("start", "")):
        path.write_text(json.dumps(settings | {name: value}))
        with pytest.raises(ValueError, match=rf"holds a job with {name} .*use --force"):
            runs.check_settings(path, settings)
    path.write_text(json.dumps(settings | {"added": 1}))
    with pytest.raises(ValueError, match=r"job.json` has `added` 1, .*use --force"):
        runs.check_settings(path, settings)


def steps(folder, count):
    def step(number, state, batch):
        return {"sum": state["sum"] + batch}, {"loss": state["sum"]}

    with rich.progress.Progress(disable=True) as bar:
        return runs.run_steps(
            step, {"sum": 0.0 * runs.jax.numpy.ones(())}, lambda start: iter(range(start, 99)),
            count, folder=folder, save_every=2, log_every=1, description="", bar=bar,
        )  # fmt: skip


def test_broken_checkpoints_and_metrics_are_named(tmp_path):
    assert steps(tmp_path, 4)["sum"] == 6
    metrics = (tmp_path / runs.METRICS).read_text()
    assert steps(tmp_path, 6)["sum"] == 15
    (tmp_path / runs.METRICS).write_text(metrics + "{}\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl` holds a line that is no .*--force"):
        steps(tmp_path, 8)
    (tmp_path / runs.METRICS).write_text(metrics)
    for path in (tmp_path / runs.CHECKPOINTS / "6").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x00")
    with pytest.raises(ValueError, match=r"checkpoints/6` cannot be read .*--force"):
        steps(tmp_path, 8)
