"""The command of a sweep: on every process the same, files on the first alone."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.progress
import typer
from jax.experimental import multihost_utils

import memsim
from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from memsim.hardware import PRESETS, read_hardware
from memsim.selection import named_leaves
from training import runs
from training.options import on_hardware
from training.progress import progress_bar
from training.sweep import memory
from training.sweep.combinations import Combination
from training.sweep.devices import (
    Engine,
    check_same_everywhere,
    on_every_process,
)
from training.sweep.measuring import choose_chunk, make_measure, measure_parts
from training.sweep.parts import (
    SETTINGS,
    Layout,
    check_origin,
    find_parts,
    merge_parts,
    remove_unfinished,
    start_afresh,
    write_part,
)
from training.sweep.report import save_summary, show, show_combinations
from training.sweep.settings import SweepOptions, check_options
from training.tasks import Task, choose_task, digits_task, measure_float


class Outcome(NamedTuple):
    """The rows that a sweep came to.

    Attributes:
      name: of the network.
      images: tested on.
      float_accuracy: of the float network, share of 1.
      layout: of the parts.
      failed: what went wrong, by the numbers of the combinations that failed.
    """

    name: str
    images: int
    float_accuracy: float
    layout: Layout
    failed: dict[int, str]


@with_options(SweepOptions)
def main(chosen: SweepOptions) -> None:
    """Writes, accuracy and yield of many chips for many crossbars, policies, stuck rates."""
    choose_task(chosen, chosen.batch)  # checks before any work
    combinations = chosen.combinations()
    chosen = on_hardware(chosen)
    check_options(chosen)
    if chosen.dry_run:
        record = chosen.out / SETTINGS
        if not chosen.force:
            runs.check_settings(record, chosen.on_record(), chosen.found_later())
        recorded = None if chosen.force else runs.recorded_count(record, "chunk", 2**31 - 1)
        chunk = chosen.chunk or recorded
        show_combinations(chosen.out, combinations, chosen.chips, chunk, chosen.force)
        return
    if chosen.coordinator is not None:
        jax.distributed.initialize(chosen.coordinator, chosen.processes, chosen.process)
    first = jax.process_index() == 0
    on_every_process(lambda: prepare(chosen) if first else None)
    with progress_bar(shown=first) as bar:
        outcome = run_sweep(chosen, combinations, bar)
    if first:
        finish(chosen, combinations, outcome)
    if outcome.failed:
        count = f"{len(outcome.failed)} of {len(combinations)} combinations failed"
        typer.echo(f"sweep: {count}, see above", err=True)
        raise typer.Exit(1)


def prepare(chosen: SweepOptions) -> None:
    """Checks that what is in the folder can go on, and makes the folder."""
    out = chosen.out
    if chosen.force:
        start_afresh(out)
    runs.check_settings(out / SETTINGS, chosen.on_record(), chosen.found_later())
    check_origin(out)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)


def run_sweep(
    chosen: SweepOptions, combinations: Sequence[Combination], bar: rich.progress.Progress
) -> Outcome:
    """Opens the network, puts the settings on record, and measures what is missing."""
    task = on_every_process(lambda: _open(chosen, bar))
    # as process 0 has it: training may differ from machine to machine
    task = task._replace(params=multihost_utils.broadcast_one_to_all(task.params))
    images, float_accuracy, fingerprints = measure_float(task)
    found = {"task": task.source, "platform": jax.default_backend(), **fingerprints}
    engine = Engine(task.apply, task.params, chosen.seed, chosen.passes, chosen.readout())
    chunk = _choose_chunk(chosen, engine, task, combinations)
    settings = chosen.on_record() | found | {"chunk": chunk}
    on_every_process(lambda: _record(chosen, task, settings))
    layout = Layout(chosen.chips, chunk)
    failed = measure_missing(chosen, combinations, engine, task, layout, images, bar)
    return Outcome(task.name, images, float_accuracy, layout, failed)


def _open(chosen: SweepOptions, bar: rich.progress.Progress) -> Task:
    trained = chosen.out / "weights.safetensors"  # on the spot, when the sweep was started
    open_chosen = choose_task(chosen, chosen.batch)
    if chosen.trains and trained.is_file() and runs.read_settings(chosen.out / SETTINGS):
        open_chosen = functools.partial(digits_task, weights=str(trained))
    return open_chosen(chosen.seed, bar)


def _choose_chunk(
    chosen: SweepOptions, engine: Engine, task: Task, combinations: Sequence[Combination]
) -> int:
    """Chooses the chips on a device at once: as asked for, as on record, or by memory."""

    def read() -> int:
        if jax.process_index():
            return 0
        return runs.recorded_count(chosen.out / SETTINGS, "chunk", 2**31 - 1) or 0

    recorded = int(multihost_utils.broadcast_one_to_all(np.int32(on_every_process(read))))
    decided = chosen.chunk or recorded or None
    return choose_chunk(engine, task, combinations, chosen.chips, chosen.memory_limit, decided)


def _record(chosen: SweepOptions, task: Task, settings: dict[str, Any]) -> None:
    # files may lie elsewhere on another host: what is in them counts
    check_same_everywhere({name: settings[name] for name in settings if name != "task"})
    if jax.process_index() == 0:
        runs.check_settings(chosen.out / SETTINGS, settings)
        runs.write_settings(chosen.out / SETTINGS, settings)
        if chosen.trains:
            trained = chosen.out / "weights.safetensors"
            memsim.save_tensors(trained, named_leaves(task.params), force=True)


def measure_missing(
    chosen: SweepOptions,
    combinations: Sequence[Combination],
    engine: Engine,
    task: Task,
    layout: Layout,
    images: int,
    bar: rich.progress.Progress,
) -> dict[int, str]:
    """Measures what is missing in the folder; a combination that fails stops no other.

    Returns:
      What went wrong in the combinations that failed, by their numbers.
    """
    first, shape = jax.process_index() == 0, (len(combinations), layout.parts)

    def find() -> np.ndarray:
        if not first:
            return np.zeros(shape, bool)
        return find_parts(chosen.out, combinations, layout, images)

    # one folder, that of process 0
    there = multihost_utils.broadcast_one_to_all(on_every_process(find))
    progress = bar.add_task("", total=there.size, completed=int(there.sum()))
    hardware = read_hardware(chosen.hardware or PRESETS[0])
    measure = make_measure(engine, task, chosen.seed, layout, hardware)
    limit = chosen.memory_limit if jax.default_backend() == "cpu" else None
    failed: dict[int, str] = {}
    for one, done in zip(combinations, there, strict=True):
        which = f"combination {one.number + 1} of {len(combinations)}: {one.policy}"
        bar.update(progress, description=which)
        pending = [int(part) for part in np.flatnonzero(~done)]
        if not pending:
            continue
        measured = measure_parts(one, pending, layout, engine, images, measure)
        while True:
            try:
                part = next(measured, None)
            except Exception as error:
                failed[one.number] = _what(error)
                break
            if part is None:
                break
            if first:
                write_part(chosen.out, one.number, *part)
            bar.advance(progress)
            # not a failure of this combination: the sweep ends, and what it has measured stays
            on_every_process(lambda: None if limit is None else memory.check_peak(limit))
    return failed


def _what(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= 500 else f"{text[:500]}..."
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def finish(chosen: SweepOptions, combinations: Sequence[Combination], outcome: Outcome) -> None:
    """Joins the parts, writes the summary and the charts, and prints the table."""
    finished = [one.number for one in combinations if one.number not in outcome.failed]
    table = merge_parts(chosen.out, finished, outcome.layout)
    at = chosen.yield_at
    at = max(0.0, outcome.float_accuracy - 0.01) if at is None else at
    summary = save_summary(
        chosen.out, outcome.name, combinations, outcome.failed, table,
        outcome.float_accuracy, outcome.images, at, how_made("python -m training.sweep", chosen),
    )  # fmt: skip
    show(chosen.out, combinations, summary)
