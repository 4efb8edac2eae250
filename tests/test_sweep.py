import json
import shutil
import socket
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rich.progress
import typer
from typer.testing import CliRunner

import memsim
from memsim.hardware import read_hardware, with_net_reduction
from tests import processes
from tests.processes import finish
from training import sweep
from training.sweep import devices, list_combinations, list_configs, list_policies, parts
from training.tasks import digits_task

# one shape for all tests
SHAPE = ("--crossbars", 8, "--chunk", 2)
# a quick grid whose chips differ; whole chunks and one that is not
GRID = (
    *SHAPE,
    "--policy", "unsorted", "--policy", "sws+stuck:p=0.5,low=3", "--stuck-at", 0, "--stuck-at",
    0.02, "--chips", 7,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(digits_weights):
    return digits_weights


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(sweep.main)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield lambda *options: CliRunner().invoke(app, [*map(str, options)])


@pytest.fixture(scope="module")
def start(weights):
    """Starts the command in a process of its own: `start(out, *options, devices=1)`."""

    def start(out, *options, devices=1):
        options = (*options, "--weights", weights, "--out", out)
        return processes.start("training.sweep", options, devices)

    return start


def results(out):
    return [processes.figures_of(out / name) for name in ("sweep.parquet", "summary.json")]


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    finish(start(out, *GRID))
    return out


def test_rows_are_those_of_a_plain_loop(uninterrupted, weights):
    with rich.progress.Progress(disable=True) as bar:
        task = digits_task(0, bar, str(weights))
    ((images, labels),) = task.batches()
    apply = jax.jit(task.apply)
    rows = pq.read_table(uninterrupted / "sweep.parquet").to_pylist()
    assert [(row["cell"], row["chip"]) for row in rows] == [
        (c, n) for c in range(4) for n in range(7)
    ]
    for row in rows:
        policy = memsim.Policy.parse(row["policy"])
        config = memsim.CrossbarConfig(crossbars=8, bits=row["bits"], rows=row["rows"])
        key = jax.random.fold_in(jax.random.key(0), row["chip"])
        found = []
        for planned in (memsim.policies.Unsorted(), policy):
            plan = memsim.plan(task.params, config, planned)
            chip = memsim.sample_chip(key, plan, row["stuck_at"] / 2, row["stuck_at"] / 2)
            held, programming = memsim.program(task.params, plan, chip)
            found.append(memsim.summarize(programming, plan))
        baseline, summary = found
        correct = int(np.sum(np.argmax(apply(held, images), -1) == labels))
        priced = with_net_reduction(summary, baseline, read_hardware("published"))
        assert row["net_reduction"] == pytest.approx(priced.net_reduction)
        assert row == {
            "cell": row["cell"], "bits": 8, "rows": 128, "columns": None,
            "encoding": "twos_complement",
            "policy": str(policy), "placement": policy.name, "p": policy.stucking.p,
            "low": policy.stucking.low, "tolerance": 0, "stuck_at": (0.0, 0.02)[row["cell"] % 2],
            "stuck_at_0": row["stuck_at"] / 2, "stuck_at_1": row["stuck_at"] / 2, "writing": None,
            "chip": row["chip"], "writes": summary.writes, "sets": summary.sets,
            "resets": summary.resets, "row_operations": summary.row_operations,
            "pulses": summary.writes, "wrong_cells": None,
            "reduction": baseline.writes / summary.writes, "net_reduction": row["net_reduction"],
            "accuracy": correct / 500,
            "correct": correct, "images": 500,
            "index_bits_per_weight": summary.index_bits_per_weight, "analog_valid": True,
        }  # fmt: skip


def test_the_summary_is_of_the_rows(uninterrupted):
    summary = json.loads((uninterrupted / "summary.json").read_text())
    table = pq.read_table(uninterrupted / "sweep.parquet").to_pydict()
    columns = {name: np.asarray(values) for name, values in table.items()}
    assert summary["failed"] == []
    assert summary["float_accuracy"] - 0.01 == pytest.approx(summary["yield_at"])
    assert len(summary["cells"]) == 4
    for entry in summary["cells"]:
        of_cell = columns["cell"] == entry["cell"]
        for name in ("accuracy", "writes", "reduction"):
            values = columns[name][of_cell]
            assert entry[name]["mean"] == pytest.approx(values.mean())
            low, high = entry[name]["interval"]
            half = 2.446912 * values.std(ddof=1) / np.sqrt(7)  # Student's t, 6 degrees of freedom
            assert (high - low) / 2 == pytest.approx(half, rel=1e-6)
            assert entry[name]["quantiles"]["25"] == pytest.approx(np.quantile(values, 0.25))
        count = int((columns["accuracy"][of_cell] >= summary["yield_at"] - 1e-9).sum())
        assert entry["yield"]["chips"] == count
        low, high = entry["yield"]["interval"]
        assert low <= entry["yield"]["share"] == count / 7 <= high
        assert (low < high) == (entry["cell"] > 0)  # chips of cell 0 are all the same


@pytest.mark.slow
def test_eight_devices_give_the_same_bytes_as_one(start, uninterrupted, tmp_path):
    finish(start(tmp_path, *GRID, devices=8))
    assert results(tmp_path) == results(uninterrupted)


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_as_one(start, uninterrupted, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    finish(
        *(
            start(tmp_path / str(number), *GRID, "--coordinator", f"127.0.0.1:{port}",
                  "--processes", 2, "--process", number)
            for number in range(2)
        )
    )  # fmt: skip
    assert results(tmp_path / "0") == results(uninterrupted)
    assert not (tmp_path / "1").exists()


@pytest.mark.slow
def test_processes_with_other_options_are_refused(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        start(tmp_path / "out", *GRID, "--seed", number, "--coordinator", f"127.0.0.1:{port}",
              "--processes", 2, "--process", number)
        for number in range(2)
    ]  # fmt: skip
    for process in processes:
        process.join(480)
        assert process.exitcode
    assert not list((tmp_path / "out" / "parts").glob("*"))


@pytest.mark.slow
def test_parts_of_nobody_knows_what_are_refused(run, weights, tmp_path):
    options = (*SHAPE, "--weights", weights, "--chips", 2, "--policy", "sws", "--out", tmp_path)
    assert run(*options).exit_code == 0
    (tmp_path / "sweep.json").unlink()
    refused = run(*options)
    assert "holds parts of a sweep whose settings (sweep.json) are gone" in str(refused.exception)
    assert run(*options, "--force").exit_code == 0


def test_force_removes_no_weights_that_it_is_given(run, weights, tmp_path):
    inside = tmp_path / "weights.safetensors"
    inside.write_bytes(weights.read_bytes())
    refused = run(*SHAPE, "--weights", inside, "--out", tmp_path, "--force")
    assert "`--force` would remove what is in" in str(refused.exception)
    assert inside.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 10])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(start, uninterrupted, tmp_path, kills):
    parts = tmp_path / "parts"

    def count():
        return len(list(parts.glob("[!.]*")))

    killed_at = processes.kill(lambda: start(tmp_path, *GRID), tmp_path, count, kills, 0.5)
    assert kills < 10 or any(0 < count < 16 for count in killed_at)
    finish(start(tmp_path, *GRID))
    assert results(tmp_path) == results(uninterrupted)
    assert not list(parts.glob(".*"))


def test_the_grid_is_every_combination_that_makes_sense():
    def policies(*arguments):
        configs = list_configs([8], [128], ["twos_complement"])
        every = list_combinations(configs, list_policies(*arguments))
        return [str(combination.policy) for combination in every]

    assert policies(["unsorted", "sws"]) == ["unsorted", "sws"]
    assert policies(["sws", "aras", "matched"], [0.5, 0.25], [0, 3], [0, 1]) == [
        "sws", "sws+stuck:p=0.5,low=3", "sws+stuck:p=0.25,low=3", "aras",
        "matched", "matched+stuck:p=0.5,low=3", "matched+stuck:p=0.25,low=3",
        "matched:tolerance=1", "matched+stuck:p=0.5,low=3,tolerance=1",
        "matched+stuck:p=0.25,low=3,tolerance=1",
    ]  # fmt: skip
    own = ["sws+stuck:p=0.1,low=1", "matched:tolerance=2"]  # state their own
    assert policies(own, [0.5], [3], [1]) == [own[0], "matched+stuck:p=0.5,low=3,tolerance=2"]
    configs = list_configs([8, 4], [64, 128], ["offset_binary"])
    cells = list_combinations(configs, list_policies(["sws"]), [0, 0.1, 0.0])
    assert [(c.number, c.config.bits, c.config.rows, c.stuck_at) for c in cells] == [
        (2 * i + j, bits, rows, rate)
        for i, (bits, rows) in enumerate([(8, 64), (8, 128), (4, 64), (4, 128)])
        for j, rate in enumerate([0, 0.1])
    ]
    assert [one.chips_differ for one in cells[:2]] == [False, True]


def test_a_failed_cell_is_reported_and_stops_no_other(run, weights, tmp_path, monkeypatch):
    program = devices.Engine.__call__

    def failing(engine, plan, stuck_at, *rest, **named):
        if stuck_at == 0.25:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return program(engine, plan, stuck_at, *rest, **named)

    options = [*SHAPE, "--weights", weights, "--out", tmp_path, "--chips", 2, "--policy",
               "sws+stuck:p=0.5,low=12", "--policy", "unsorted", "--stuck-at", 0, "--stuck-at",
               0.25]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(devices.Engine, "__call__", failing)
        result = run(*options)
    assert result.exit_code == 1
    assert "sweep: 3 of 4 combinations failed" in result.output
    assert "FAILED sws+stuck:p=0.5,low=12, 25 %: `low` is 12, more than the 8" in result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["policy"] for entry in summary["cells"]] == ["unsorted"]
    errors = {entry["cell"]: entry["error"] for entry in summary["failed"]}
    assert "`low` is 12, more than the 8 `bits`" in errors[0]
    assert errors[3] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert pq.read_table(tmp_path / "sweep.parquet")["cell"].to_pylist() == [2, 2]
    result = run(*options)  # only what failed is tried again
    assert result.exit_code == 1
    assert "2 of 4 combinations failed" in result.output
    assert pq.read_table(tmp_path / "sweep.parquet")["cell"].to_pylist() == [2, 2, 3, 3]


def test_another_sweep_in_the_folder_is_refused(run, weights, uninterrupted, tmp_path):
    options = [*GRID, "--weights", weights, "--out"]
    before = results(uninterrupted)
    for other, message in (
        (["--seed", 1], "holds a job with seed 0, not 1"),
        (["--stuck-at", 0.5], "with stuck_at [0.0, 0.02], not [0.0, 0.02, 0.5]"),
    ):
        refused = run(*options, uninterrupted, *other)
        assert message in str(refused.exception)
        assert "use --force to start afresh" in str(refused.exception)
    tensors = memsim.open_checkpoint(weights)
    moved = {name: tensors.load(name) + 1 for name in tensors.tensors}
    memsim.save_tensors(tmp_path / "moved.safetensors", moved)
    refused = run(*options, uninterrupted, "--weights", tmp_path / "moved.safetensors")
    assert "holds a job with weights" in str(refused.exception)
    assert results(uninterrupted) == before
    again = run(*options, uninterrupted, "--yield-at", 0.5)  # nothing to measure: other figures
    assert again.exit_code == 0, again.output
    assert "yield at 50.00 %" in again.output
    run(*options, uninterrupted)
    assert results(uninterrupted) == before


@pytest.mark.slow
def test_force_starts_afresh_and_a_dry_run_does_nothing(run, weights, tmp_path):
    options = [
        "--weights",
        weights,
        "--out",
        tmp_path / "out",
        "--policy",
        "unsorted",
        "--crossbars",
        8,
    ]
    dry = run(*options, "--chips", 5, "--dry-run", "--low", 12, "--p", 0.5)
    assert dry.exit_code == 0, dry.output
    for text in (
        "1 combinations, 5 chips each",
        "refused: `low` is 12",
        "5 chips, as memory allows",
    ):
        assert text in dry.output
    assert not (tmp_path / "out").exists()
    assert run(*options, "--chips", 2).exit_code == 0
    assert "1 of 1 parts" in run(*options, "--chips", 2, "--dry-run").output
    assert "chips 2, not 3" in str(run(*options, "--chips", 3, "--dry-run").exception)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert run(*options, "--chips", 3, "--chunk", 2, "--force").exit_code == 0
    assert len(pq.read_table(tmp_path / "out" / "sweep.parquet")) == 3
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_chips_differ_by_how_their_cells_are_read(run, weights, tmp_path):
    options = (*SHAPE, "--weights", weights, "--policy", "sws", "--chips", 3, "--cells", "hfo2")
    result = run(*options, "--ohm", 2.97, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "out" / "sweep.parquet")
    assert len(set(table["writes"].to_pylist())) == 1
    assert len(set(table["accuracy"].to_pylist())) > 1
    refused = run(*options[:-1], "flash", "--out", tmp_path / "other")
    assert "`cells` is 'flash'; choose one of ideal, hfo2, pcm" in str(refused.exception)


@pytest.mark.slow
def test_cells_of_your_own_are_read(run, weights, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "your-own-cells.md").read_text()
    code = page.split("```python")[1].split("params = ")[0]
    (tmp_path / "cells_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    options = (*SHAPE, "--weights", weights, "--policy", "sws", "--chips", 2)
    accuracies = []
    for spread in (0.05, 0.8):
        law = f"cells_of_mine:LogLevels:spread={spread}"
        result = run(*options, "--cells", law, "--out", tmp_path / f"at_{spread}")
        assert result.exit_code == 0, result.output
        table = pq.read_table(tmp_path / f"at_{spread}" / "sweep.parquet")
        accuracies.append(np.mean(table["accuracy"].to_pylist()))
    assert accuracies[1] < accuracies[0]


def test_weights_trained_on_the_spot_are_kept_for_the_next_run(run, tmp_path, monkeypatch):
    options = [*SHAPE, "--out", tmp_path, "--chips", 1, "--policy", "unsorted"]
    monkeypatch.setattr("training.tasks.train", lambda apply, params, *_, **__: params)
    assert run(*options).exit_code == 0
    before = results(tmp_path)
    monkeypatch.setattr("training.tasks.train", None)
    assert run(*options).exit_code == 0
    assert results(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", 1], "`bits` is 1; a weight has 2 to 16"),
        (["--rows", 0], "`rows` is 0; a crossbar has"),
        (["--encoding", "gray"], "`encoding` is 'gray'; choose one of"),
        (["--policy", "best"], "`policy` is 'best'; choose one of"),
        (["--p", 2, "--low", 1], "`p` is 2.0; a probability"),
        (["--low", 1], "`low` is [1]; bit stucking takes both"),
        (["--policy", "matched", "--tolerance", 16], "`tolerance` is 16"),
        (["--policy", "sws", "--tolerance", 1], "`tolerance` is [1], but no policy is matched"),
        (["--policy", "aras", "--p", 0.5, "--low", 1], "but no policy takes bit stucking"),
        (["--stuck-at", 1.5], "`stuck_at` is 1.5; a share"),
        (["--model", "resnet20"], "--weights, --data missing"),
        (["--limit", 3], "go with `--data`; the digits have none"),
        (["--process", 1], "need `--coordinator`"),
    ],
)
def test_wrong_options_are_refused_before_any_work(run, tmp_path, options, message):
    result = run(*options, "--out", tmp_path / "out")
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network_are_refused(run, tmp_path):
    memsim.save_tensors(tmp_path / "other.npz", {"kernel": np.zeros((2, 2), np.float32)})
    result = run("--weights", tmp_path / "other.npz", "--out", tmp_path / "out")
    assert "has no tensor `convs/0/bias` of shape (16,); give weights" in str(result.exception)


@pytest.mark.slow
def test_chips_whose_stuck_cells_are_avoided_have_plans_of_their_own(run, weights, tmp_path):
    result = run(*SHAPE, "--weights", weights, "--out", tmp_path, "--chips", 3, "--policy",
                 "unsorted", "--policy", "matched:faults=avoid", "--stuck-at", 0.05)  # fmt: skip
    assert result.exit_code == 0, result.output
    with rich.progress.Progress(disable=True) as bar:
        task = digits_task(0, bar, str(weights))
    rows = pq.read_table(tmp_path / "sweep.parquet").to_pylist()
    accuracy = np.reshape([row["accuracy"] for row in rows], (2, 3))
    assert accuracy[1].min() > accuracy[0].max()
    config, avoid = memsim.CrossbarConfig(crossbars=8), memsim.policies.Matched(faults="avoid")
    blind = memsim.plan(task.params, config, memsim.policies.Unsorted())
    for number, row in enumerate(rows[3:]):
        key = jax.random.fold_in(jax.random.key(0), number)
        chip = memsim.sample_chip(key, blind, 0.025, 0.025)
        plan = memsim.plan(task.params, config, avoid, chip=chip)
        _, programming = memsim.program(task.params, plan, chip)
        assert row["writes"] == memsim.summarize(programming, plan).writes


def test_other_chips_rates_and_stucking_do_not_recompile(weights, compilations):
    with rich.progress.Progress(disable=True) as bar:
        task = digits_task(0, bar, str(weights))
    engine = devices.Engine(task.apply, task.params, seed=0, passes=1)
    config = memsim.CrossbarConfig(crossbars=8)
    counts = []
    for text, stuck_at, chips in (
        ("sws", 0, [0]), ("sws+stuck:p=0.5,low=3", 0.1, [1, 2]), ("unsorted", 0.2, [3]),
    ):  # fmt: skip
        plan = memsim.plan(task.params, config, memsim.Policy.parse(text))
        before = compilations()
        engine(plan, stuck_at, chips, 2, task.batches())
        counts.append(compilations() - before)
    assert counts[0] >= 2
    assert counts[1:] == [0, 0]


@pytest.mark.slow
def test_a_chunk_is_sized_to_memory(weights, monkeypatch):
    with rich.progress.Progress(disable=True) as bar:
        task = digits_task(0, bar, str(weights))
    engine = devices.Engine(task.apply, task.params, seed=0, passes=1)
    plan = memsim.plan(task.params, memsim.CrossbarConfig(crossbars=8), memsim.policies.Unsorted())
    (batch,) = task.batches()
    few, more = (engine._bytes(plan, batch, chips, False) for chips in (2, 4))
    assert few < more
    for there, most, chunk in ((10**9, 2, 2), (1, 4, 1), ((few + more) // 2, 4, 3)):
        monkeypatch.setattr(devices, "device_memory", lambda there=there: there)
        assert engine.chunk_in_memory(plan, batch, None, most) == chunk


SMALL = (*SHAPE, "--policy", "sws+stuck:p=0.5,low=3", "--stuck-at", 0.02, "--chips", 3)


@pytest.fixture(scope="module")
def small(weights, tmp_path_factory):
    """A finished sweep of one combination, its two parts of 2 chips and of 1."""
    out = tmp_path_factory.mktemp("small")
    app = typer.Typer()
    app.command()(sweep.main)
    result = CliRunner().invoke(app, [*map(str, (*SMALL, "--weights", weights, "--out", out))])
    assert result.exit_code == 0, result.output
    return out


def combination(of="sws+stuck:p=0.5,low=3"):
    configs = list_configs([8], [128], ["twos_complement"], 8)
    return list_combinations(configs, list_policies([of]), [0.02])[0]


WRONG = {
    "cell": 1, "bits": 7, "rows": 64, "columns": 128, "encoding": "offset_binary", "policy": "sws",
    "placement": "unsorted", "p": 0.25, "low": 2, "tolerance": 1, "stuck_at": 0.5,
    "stuck_at_0": 0.5, "stuck_at_1": 0.5, "chip": 5, "writes": -1, "sets": -1, "resets": 10**9,
    "row_operations": 10**9, "writing": "constant", "pulses": 0, "wrong_cells": 3,
    "reduction": np.nan, "net_reduction": np.nan, "accuracy": np.inf, "correct": 501,
    "images": 400, "index_bits_per_weight": -np.inf, "analog_valid": None,
}  # fmt: skip


@pytest.mark.parametrize("name", parts.SCHEMA.names)
def test_a_part_is_believed_in_no_field(small, tmp_path, name):
    path = tmp_path / "00000-00000.parquet"
    whole = pq.read_table(small / "parts" / path.name)

    def refused(table, message):
        pq.write_table(table, path)
        with pytest.raises(ValueError, match=r"00000-00000.parquet` .*use --force") as raised:
            parts.check_part(path, combination(), range(2), 500)
        assert f"`{name}`" in str(raised.value)
        assert message in str(raised.value)

    place, field = whole.schema.names.index(name), whole.schema.field(name)
    refused(whole.drop_columns([name]), "has no single column")
    twice = whole.append_column(field, whole[name])
    refused(twice, "has no single column")
    kind = pa.bool_() if field.type == pa.string() else pa.string()
    other = pa.array([None, None], kind)
    refused(whole.set_column(place, pa.field(name, kind), other), "not")
    rows = whole.to_pylist()
    if name not in ("columns", "writing", "wrong_cells"):  # of one word, and no failures
        refused(pa.Table.from_pylist([rows[0], rows[1] | {name: None}], parts.SCHEMA), "missing")
    rows[1] |= {name: WRONG[name]}
    refused(pa.Table.from_pylist(rows, parts.SCHEMA), "for chip 1")


def test_a_part_of_another_sweep_is_refused(small, tmp_path):
    first, last = (small / "parts" / f"00000-0000{part}.parquet" for part in range(2))
    parts.check_part(first, combination(), range(2), 500)
    parts.check_part(last, combination(), range(2, 3), 500)
    cases = [
        (first, combination("sws"), range(2), "has `policy`"),
        (last, combination(), range(2), "has 1 rows, not one for each of 2 chips"),
        (last, combination(), range(1), "has `chip` 2"),
    ]
    for path, of, chips, message in cases:
        with pytest.raises(ValueError, match="use --force") as raised:
            parts.check_part(path, of, chips, 500)
        assert message in str(raised.value)
    table = pq.read_table(first)
    added = tmp_path / "added.parquet"
    pq.write_table(table.append_column("more", table["chip"]), added)
    with pytest.raises(ValueError, match="has a column `more`, which no sweep writes"):
        parts.check_part(added, combination(), range(2))
    for length in (0, 1, 100, first.stat().st_size - 1):
        added.write_bytes(first.read_bytes()[:length])
        with pytest.raises(ValueError, match=r"is truncated or no part .*use --force"):
            parts.check_part(added, combination(), range(2))


@pytest.mark.slow
def test_a_sweep_goes_on_from_no_part_that_it_did_not_write(run, small, weights, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(small, out)
    options = (*SMALL, "--weights", weights, "--out", out)
    first, last = (out / "parts" / f"00000-0000{part}.parquet" for part in range(2))
    for name in ("00001-00000", "00000-00002", "0-0", "notes"):
        shutil.copy(first, out / "parts" / f"{name}.parquet")
        refused = run(*options)
        assert f"{name}.parquet` is no part of this sweep" in str(refused.exception)
        (out / "parts" / f"{name}.parquet").unlink()
    shutil.copy(last, first)
    assert "has 1 rows" in str(run(*options).exception)
    assert "has 1 rows" in str(run(*options, "--dry-run").exception)
    first.unlink()  # the remedy that the error names
    assert run(*options).exit_code == 0
    assert results(out) == results(small)


def test_settings_on_record_are_believed_in_no_field(run, small, weights, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(small, out)
    record = out / "sweep.json"
    whole = json.loads(record.read_text())
    options = (*SMALL, "--weights", weights, "--out", out, "--dry-run")
    assert run(*options).exit_code == 0
    without = [{k: v for k, v in whole.items() if k != name} for name in whole]
    for name, settings in zip(whole, without, strict=True):
        record.write_text(json.dumps(settings))
        message = str(run(*options).exception)
        assert "sweep.json` lacks" in message
        assert f"`{name}`" in message
        assert "--force" in message
    record.write_text(json.dumps(whole | {"more": 1}))
    assert "has `more` 1, which this job does not know" in str(run(*options).exception)
    unchunked = tuple(x for x in options if x not in ("--chunk", 2) or x == out)
    for chunk in (0, -1, 1.5, True, "2", None, [2]):
        record.write_text(json.dumps(whole | {"chunk": chunk}))
        assert "not a whole number from 1" in str(run(*unchunked).exception)
    for text in ("", "[]", "{}", "null", '{"chips": 3', "\x00"):
        record.write_text(text)
        message = str(run(*options).exception)
        assert "sweep.json` holds no settings; use --force" in message
