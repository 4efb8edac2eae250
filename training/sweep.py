"""Sweeps: a grid over crossbars, policies and stuck rates, many chips for each.

    python -m training.sweep --policy unsorted --policy sws --stuck-at 0 --stuck-at 0.01

Chips run over all devices that JAX sees; on several hosts, start it on each with the same options
and `--coordinator HOST:PORT --processes N --process K`. Chip n is the same in every cell of the
grid. Killed, it goes on with the same command and ends with the same files.
"""

import contextlib
import functools
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import rich.progress
import typer
from jax.experimental import multihost_utils

import memsim
from memsim.config import ENCODINGS
from memsim.report import layer_facts, summarize_counts, with_reduction
from memsim.selection import named_leaves
from training.data import Batch
from training.evaluation import make_classify
from training.grid import Cell, grid
from training.progress import progress_bar
from training.settings import check_settings, read_settings, write_settings
from training.sharding import Engine, device_memory, most_chips, together
from training.sweep_report import save_summary, show, show_grid
from training.sweep_results import (
    SETTINGS,
    find_parts,
    make_row,
    merge_parts,
    remove_unfinished,
    start_afresh,
    write_part,
)
from training.tasks import (
    Assets,
    BatchSize,
    Data,
    DataDir,
    Limit,
    Model,
    Split,
    Task,
    Weights,
    choose_task,
    digits_task,
)

Encodings = Annotated[list[str], typer.Option(help=f"{', '.join(ENCODINGS)}; repeatable")]
Policies = Annotated[list[str], typer.Option(help="as `memsim report` takes them; repeatable")]
# Summary and number of images right, of a chip.
Chip = tuple[memsim.Summary, int]


def make_measure(
    engine: Engine, task: Task, seed: int, chunk: int
) -> Callable[[Cell, Sequence[int]], list[Chip]]:
    """`(cell, chips) -> what each chip takes and gets right`.

    Args:
      seed: that of `engine`.
      chunk: chips on each device at once.
    """
    key, unsorted = jax.random.key(seed), memsim.Policy.unsorted()

    @functools.lru_cache(maxsize=2)  # the baseline's and one other
    def place(config: memsim.CrossbarConfig, placing: memsim.Policy) -> memsim.Plan:
        return memsim.plan(task.params, config, placing)

    def plans(cell: Cell, chips: Sequence[int]) -> memsim.Plan | list[memsim.Plan]:
        if cell.policy.faults == "ignore":
            return memsim.with_stucking(place(cell.config, cell.policy.placing), cell.policy)
        blind, rate = place(cell.config, unsorted), cell.stuck_at / 2
        faulty = [
            memsim.sample_chip(jax.random.fold_in(key, chip), blind, rate, rate) for chip in chips
        ]
        return [memsim.plan(task.params, cell.config, cell.policy, chip=chip) for chip in faulty]

    def summarize(plan: memsim.Plan, counts: memsim.Counts) -> list[memsim.Summary]:
        facts = layer_facts({name: plan.layers[name] for name in plan.names})
        each = (jax.tree.map(lambda x, i=i: x[i], counts) for i in range(len(counts.sets)))
        return [summarize_counts(of_chip, facts, None) for of_chip in each]

    @functools.cache
    def baseline(
        config: memsim.CrossbarConfig, stuck_at: float, chips: Sequence[int]
    ) -> list[memsim.Summary]:
        plan = place(config, unsorted)
        return summarize(plan, engine(plan, stuck_at, chips, chunk).counts)

    def measure(cell: Cell, chips: Sequence[int]) -> list[Chip]:
        plan = together(lambda: plans(cell, chips))
        measured = engine(plan, cell.stuck_at, chips, chunk, task.batches())
        summaries = summarize(plan[0] if isinstance(plan, list) else plan, measured.counts)
        # without stuck cells `unsorted` is the same on every chip
        same = baseline(cell.config, cell.stuck_at, tuple(chips) if cell.stuck_at else (0,))
        baselines = same if cell.stuck_at else same * len(chips)
        return [
            (with_reduction(summary, other), int(correct))
            for summary, other, correct in zip(summaries, baselines, measured.correct, strict=True)
        ]

    return measure


def measure_cell(
    cell: Cell,
    pending: Sequence[int],
    chips: int,
    chunk: int,
    devices: int,
    images: int,
    measure: Callable[[Cell, Sequence[int]], list[Chip]],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The rows of each pending chunk of chips, a chunk on every device at once.

    Args:
      pending: chunks; number k has the chips from `k * chunk`.
      chips: all there are.
    """
    numbers = [range(k * chunk, min((k + 1) * chunk, chips)) for k in pending]
    same = None if cell.drawn else measure(cell, [0])
    for start in range(0, len(pending), devices):
        group = numbers[start : start + devices]
        of_group = [chip for chunk_chips in group for chip in chunk_chips]
        measured = same * len(of_group) if same else measure(cell, of_group)
        rows = iter(
            [
                make_row(cell, chip, *found, images)
                for chip, found in zip(of_group, measured, strict=True)
            ]
        )
        for k, chunk_chips in zip(pending[start:], group, strict=False):
            yield k, [next(rows) for _ in chunk_chips]


def test_float(task: Task) -> tuple[int, float, dict[str, str]]:
    """Images, accuracy of the float network, and fingerprints of its weights and the images."""
    weights, images = hashlib.sha256(), hashlib.sha256()
    for name, leaf in named_leaves(task.params).items():
        weights.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        weights.update(np.ascontiguousarray(leaf).tobytes())

    def reading() -> Iterator[Batch]:
        for batch in task.batches():
            for part in batch:
                images.update(np.ascontiguousarray(part).tobytes())
            yield batch

    (correct,) = make_classify(task.apply)([task.params], reading())
    fingerprints = {"weights": weights.hexdigest(), "images": images.hexdigest()}
    return correct.size, float(correct.mean()), fingerprints


def choose_chunk(engine: Engine, task: Task, cells: Sequence[Cell], chips: int, memory: int) -> int:
    """Chips on each device at once, sized to the memory that the largest crossbars take."""
    plans = []
    for config in dict.fromkeys(cell.config for cell in cells):
        with contextlib.suppress(ValueError):  # a cell that fails, later
            plans.append(memsim.plan(task.params, config, memsim.Policy.unsorted()))
    most = most_chips(chips)
    if not plans:
        return most

    def words(plan: memsim.Plan) -> int:
        rows = plan.schedule.sections.size * plan.config.physical_rows
        return int(rows) * plan.config.word_dtype.itemsize

    batch = next(iter(task.batches()))
    own_plans = any(cell.policy.faults == "avoid" for cell in cells)
    return engine.chunk_in_memory(max(plans, key=words), batch, memory, most, own_plans)


def main(
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    split: Split = None,
    data_dir: DataDir = None,
    assets: Assets = None,
    limit: Limit = None,
    batch: BatchSize = 250,
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
    chips: Annotated[int, typer.Option(min=1, help="chips in each cell of the grid")] = 100,
    crossbars: Annotated[int, typer.Option(help="number of crossbars")] = 1,
    passes: Annotated[int, typer.Option(min=1, help="times the network is programmed")] = 1,
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
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("runs/sweep"),
    force: Annotated[bool, typer.Option("--force", help="start afresh")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done")] = False,
) -> None:
    """Writes, accuracy and yield of many chips over a grid of crossbars, policies, stuck rates."""
    open_chosen = choose_task(model, weights, data, split, data_dir, assets, limit, batch)
    cells = grid(
        bits, rows, encoding, policy, p or (), low or (), tolerance or (), stuck_at, crossbars
    )
    if coordinator is None and (processes, process) != (None, None):
        raise ValueError("`--processes` and `--process` need `--coordinator`, HOST:PORT.")
    # everything that results depend on, but the network and the images themselves
    settings: dict[str, Any] = {
        "bits": bits, "rows": rows, "encoding": encoding, "policy": policy, "p": p, "low": low,
        "tolerance": tolerance, "stuck_at": stuck_at, "chips": chips, "crossbars": crossbars,
        "passes": passes, "seed": seed, "batch": batch, "memsim": memsim.__version__,
        "jax": jax.__version__,
    }  # fmt: skip
    settings |= {} if chunk is None else {"chunk": chunk}
    if dry_run:
        check_settings(out / SETTINGS, {} if force else settings)
        show_grid(out, cells, chips, chunk or read_settings(out / SETTINGS).get("chunk"), force)
        return
    if coordinator is not None:
        jax.distributed.initialize(coordinator, processes, process)
    first = jax.process_index() == 0

    def prepare() -> None:
        if first and force:
            start_afresh(out)
        if first:
            check_settings(out / SETTINGS, settings)
            (out / "parts").mkdir(parents=True, exist_ok=True)
            remove_unfinished(out)

    together(prepare)
    trained = out / "trained.safetensors"  # on the spot, by an earlier run
    if trained.is_file() and not (model or weights or data or assets):
        open_chosen = functools.partial(digits_task, weights=str(trained))
    with progress_bar(shown=first) as bar:
        task = together(lambda: open_chosen(seed, bar))
        # as process 0 has it: training may differ from machine to machine
        task = task._replace(params=multihost_utils.broadcast_one_to_all(task.params))
        images, float_accuracy, fingerprints = test_float(task)
        settings |= {"task": task.source, "platform": jax.default_backend(), **fingerprints}
        engine = Engine(task.apply, task.params, seed, passes)
        recorded = read_settings(out / SETTINGS).get("chunk", 0) if first else 0
        chunk = chunk or int(multihost_utils.broadcast_one_to_all(np.int32(recorded)))
        if not chunk:
            budget = device_memory() if memory is None else int(memory * 1e9)
            chunk = choose_chunk(engine, task, cells, chips, budget)
        settings["chunk"] = chunk

        def record() -> None:
            if first:
                check_settings(out / SETTINGS, settings)
                write_settings(out / SETTINGS, settings)
                if not (model or weights or data or assets):
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
        parts = measure_cell(cell, pending, chips, chunk, engine.devices, images, measure)
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
