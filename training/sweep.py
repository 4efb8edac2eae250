"""Sweeps: a grid over crossbars, policies and stuck rates, many chips for each.

    python -m training.sweep --policy unsorted --policy sws --stuck-at 0 --stuck-at 0.01

Chips run over all devices that JAX sees; on several hosts, start it on each with the same options
and `--coordinator HOST:PORT --processes N --process K`. Chip n is the same in every cell of the
grid. Killed, it goes on with the same command and ends with the same files.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import rich.progress
import typer
from jax.experimental import multihost_utils

import memsim
from memsim.config import ENCODINGS
from memsim.selection import named_leaves
from training import options
from training.grid import Cell, grid
from training.progress import progress_bar
from training.settings import check_settings, read_settings, write_settings
from training.sharding import Engine, check_same_everywhere, device_memory, together
from training.sweep_cells import choose_chunk, make_measure, measure_cell
from training.sweep_report import save_summary, show, show_grid
from training.sweep_results import (
    SETTINGS,
    check_parts,
    find_parts,
    merge_parts,
    remove_unfinished,
    start_afresh,
    write_part,
)
from training.tasks import Task, choose_task, digits_task, measure_float

Encodings = Annotated[list[str], typer.Option(help=f"{', '.join(ENCODINGS)}; repeatable")]
Policies = Annotated[list[str], typer.Option(help="as `memsim report` takes them; repeatable")]


def main(
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    split: options.Split = None,
    data_dir: options.DataDir = None,
    assets: options.Assets = None,
    limit: options.Limit = None,
    batch: options.BatchSize = 250,
    bits: Annotated[list[int], typer.Option(help="per weight; repeatable")] = [8],  # noqa: B006
    rows: Annotated[list[int], typer.Option(help="of a crossbar; repeatable")] = [128],  # noqa: B006
    encoding: Encodings = ["twos_complement"],  # noqa: B006
    policy: Policies = ["unsorted", "sws"],  # noqa: B006
    p: Annotated[
        list[float] | None, typer.Option(help="share reprogrammed, with --low; repeatable")
    ] = None,
    low: Annotated[
        list[int] | None, typer.Option(help="low columns, with --p, 0: none; repeatable")
    ] = None,
    tolerance: Annotated[list[int] | None, typer.Option(help="of matched; repeatable")] = None,
    stuck_at: Annotated[
        list[float], typer.Option(help="share of cells stuck, half at each level; repeatable")
    ] = [0.0],  # noqa: B006
    cell_kind: options.CellKind = "ideal",
    seconds: options.Seconds = 0.0,
    ohm: options.Ohm = 0.0,
    chips: Annotated[int, typer.Option(min=1, help="chips in each cell of the grid")] = 100,
    crossbars: options.Crossbars = 1,
    passes: options.Passes = 1,
    seed: Annotated[int, typer.Option(help="of the chips' draws")] = 0,
    yield_at: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="accuracy of a chip that counts, share of 1; default: the float network's - 0.01",
        ),
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="chips on a device at once; default: by --memory")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0, help="GB that a chunk may take on a device; default: 1 on a CPU, else 80 %"
        ),
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of process 0, where there are several")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="how many there are")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="which this is, from 0")] = None,
    out: options.OutFolder = Path("runs/sweep"),
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Writes, accuracy and yield of many chips over a grid of crossbars, policies, stuck rates."""
    open_chosen = choose_task(model, weights, data, split, data_dir, assets, limit, batch)
    cells = grid(
        bits, rows, encoding, policy, p or (), low or (), tolerance or (), stuck_at, crossbars
    )
    readout = options.choose_readout(cell_kind, seconds, ohm)
    # wires alone are the same on every chip
    cells = [cell._replace(read=readout is not None and cell_kind != "ideal") for cell in cells]
    if coordinator is None and (processes, process) != (None, None):
        raise ValueError("`--processes` and `--process` need `--coordinator`, HOST:PORT.")
    # everything that results depend on, but the network and the images themselves
    settings: dict[str, Any] = {
        "bits": bits, "rows": rows, "encoding": encoding, "policy": policy, "p": p, "low": low,
        "tolerance": tolerance, "stuck_at": stuck_at, "cells": cell_kind, "seconds": seconds,
        "ohm": ohm, "chips": chips, "crossbars": crossbars, "passes": passes, "seed": seed,
        "batch": batch, "memsim": memsim.__version__, "jax": jax.__version__,
    }  # fmt: skip
    settings |= {} if chunk is None else {"chunk": chunk}
    if dry_run:
        check_settings(out / SETTINGS, {} if force else settings)
        show_grid(out, cells, chips, chunk or read_settings(out / SETTINGS).get("chunk"), force)
        return
    if force and weights and Path(weights).resolve().parent == out.resolve():
        raise ValueError(
            f"`--force` would remove what is in {out}, and `--weights` {weights} with it; choose "
            "another --out."
        )
    if coordinator is not None:
        jax.distributed.initialize(coordinator, processes, process)
    first = jax.process_index() == 0

    def prepare() -> None:
        if first and force:
            start_afresh(out)
        if first:
            check_settings(out / SETTINGS, settings)
            check_parts(out)
            (out / "parts").mkdir(parents=True, exist_ok=True)
            remove_unfinished(out)

    together(prepare)
    trains = not (model or weights or data or assets)
    trained = out / "weights.safetensors"  # on the spot, when the sweep was started
    if trains and trained.is_file() and read_settings(out / SETTINGS):
        open_chosen = functools.partial(digits_task, weights=str(trained))
    with progress_bar(shown=first) as bar:
        task = together(lambda: open_chosen(seed, bar))
        # as process 0 has it: training may differ from machine to machine
        task = task._replace(params=multihost_utils.broadcast_one_to_all(task.params))
        images, float_accuracy, fingerprints = measure_float(task)
        settings |= {"task": task.source, "platform": jax.default_backend(), **fingerprints}
        engine = Engine(task.apply, task.params, seed, passes, readout)
        recorded = read_settings(out / SETTINGS).get("chunk", 0) if first else 0
        chunk = chunk or int(multihost_utils.broadcast_one_to_all(np.int32(recorded)))
        if not chunk:
            budget = device_memory() if memory is None else int(memory * 1e9)
            chunk = choose_chunk(engine, task, cells, chips, budget)
        settings["chunk"] = chunk

        def record() -> None:
            # files may lie elsewhere on another host: what is in them counts
            check_same_everywhere({k: v for k, v in settings.items() if k != "task"})
            if first:
                check_settings(out / SETTINGS, settings)
                write_settings(out / SETTINGS, settings)
                if trains:
                    memsim.save_tensors(trained, named_leaves(task.params), force=True)

        together(record)
        failed = run(engine, task, cells, chips, chunk, images, seed, out, bar)
    if first:
        finished = [cell for cell in cells if cell.number not in failed]
        table = merge_parts(out, [cell.number for cell in finished], -(-chips // chunk))
        at = max(0.0, float_accuracy - 0.01) if yield_at is None else yield_at
        summary = save_summary(out, task.name, cells, failed, table, float_accuracy, images, at)
        show(out, cells, summary)
    if failed:
        typer.echo(f"sweep: {len(failed)} of {len(cells)} cells failed, see above", err=True)
        raise typer.Exit(1)


def run(
    engine: Engine,
    task: Task,
    cells: Sequence[Cell],
    chips: int,
    chunk: int,
    images: int,
    seed: int,
    out: Path,
    bar: rich.progress.Progress,
) -> dict[int, str]:
    """Measures what is missing in the folder, cell by cell; one that fails stops no other.

    Returns:
      What went wrong in the cells that failed, by their numbers.
    """
    first, chunks = jax.process_index() == 0, -(-chips // chunk)
    there = find_parts(out, len(cells), chunks) if first else np.zeros((len(cells), chunks), bool)
    there = multihost_utils.broadcast_one_to_all(there)  # one folder, that of process 0
    progress = bar.add_task("", total=there.size, completed=int(there.sum()))
    measure = make_measure(engine, task, seed, chunk)
    failed: dict[int, str] = {}
    for cell, done in zip(cells, there, strict=True):
        bar.update(progress, description=f"cell {cell.number + 1} of {len(cells)}: {cell.policy}")
        pending = [int(k) for k in np.flatnonzero(~done)]
        if not pending:
            continue
        parts = measure_cell(cell, pending, chips, chunk, engine, images, measure)
        while True:
            try:
                part = next(parts, None)
            except Exception as error:
                failed[cell.number] = _what(error)
                break
            if part is None:
                break
            if first:
                write_part(out, cell.number, *part)
            bar.advance(progress)
    return failed


def _what(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= 500 else f"{text[:500]}..."
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"sweep: {error}")
