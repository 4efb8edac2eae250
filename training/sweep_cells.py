"""What a sweep measures: the float network, and the chips of one cell of the grid."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

import memsim
from memsim.summary import layer_facts, summarize_counts, with_reduction
from training.grid import Cell
from training.sharding import Engine, most_chips, together
from training.sweep_results import make_row
from training.tasks import Task

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
        return [summarize_counts(of_chip, facts, None, plan.config.cell_bits) for of_chip in each]

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
    engine: Engine,
    images: int,
    measure: Callable[[Cell, Sequence[int]], list[Chip]],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The rows of each pending chunk of chips, a chunk on every device at once.

    Args:
      pending: chunks; number k has the chips from `k * chunk`.
      chips: all there are.
    """
    same = None if cell.drawn else measure(cell, [0])
    for start in range(0, len(pending), engine.devices):
        group = {
            k: range(k * chunk, min((k + 1) * chunk, chips))
            for k in pending[start : start + engine.devices]
        }
        of_group = [chip for of_chunk in group.values() for chip in of_chunk]
        measured = same * len(of_group) if same else measure(cell, of_group)
        found = dict(zip(of_group, measured, strict=True))
        for k, of_chunk in group.items():
            yield k, [make_row(cell, chip, *found[chip], images) for chip in of_chunk]


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
