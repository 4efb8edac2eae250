"""Measures of a sweep: the chips of one combination, chunk by chunk."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

import memsim
from memsim.hardware import with_net_reduction
from memsim.summary import layer_facts, summarize_counts, with_reduction
from training.policies import differ
from training.sweep.combinations import Combination
from training.sweep.devices import Engine, most_chips, on_every_process
from training.sweep.parts import Layout, make_row
from training.tasks import Task

# Summary of a chip, and the number of images that it gets right.
MeasuredChip = tuple[memsim.Summary, int]
Measure = Callable[[Combination, Sequence[int]], list[MeasuredChip]]


def make_measure(
    engine: Engine, task: Task, seed: int, chunk: int, hardware: memsim.Hardware
) -> Measure:
    """Makes `(combination, chips) -> what each chip takes and gets right`.

    Args:
      seed: that of `engine`.
      chunk: chips on each device at once.
      hardware: whose prices net reductions are of.
    """
    key, unsorted = jax.random.key(seed), memsim.policies.Unsorted()

    @functools.lru_cache(maxsize=2)  # the baseline's and one other
    def place(config: memsim.CrossbarConfig, placing: memsim.Policy) -> memsim.Plan:
        return memsim.plan(task.params, config, placing)

    def plans(combination: Combination, chips: Sequence[int]) -> memsim.Plan | list[memsim.Plan]:
        if not combination.policy.avoids_faults:
            return memsim.with_stucking(
                place(combination.config, combination.policy.placing), combination.policy
            )
        blind, rate = place(combination.config, unsorted), combination.stuck_at / 2
        faulty = [
            memsim.sample_chip(jax.random.fold_in(key, chip), blind, rate, rate) for chip in chips
        ]
        return [
            memsim.plan(task.params, combination.config, combination.policy, chip=chip)
            for chip in faulty
        ]

    def summarize(
        plan: memsim.Plan | list[memsim.Plan],
        counts: memsim.Counts,
        writing: memsim.Writing | None,
    ) -> list[memsim.Summary]:
        plans = plan if isinstance(plan, list) else [plan]
        facts = [layer_facts({name: one.layers[name] for name in one.names}, one.config)
                 for one in plans]  # fmt: skip
        number, config = len(counts.sets), plans[0].config
        each = (jax.tree.map(lambda x, i=i: x[i], counts) for i in range(number))
        return [
            summarize_counts(of_chip, of_plan, None, config, writing)
            for of_chip, of_plan in zip(each, facts * (number // len(facts)), strict=True)
        ]

    @functools.cache
    def baseline(
        config: memsim.CrossbarConfig,
        stuck_at: float,
        chips: Sequence[int],
        writing: memsim.Writing | None,
    ) -> list[memsim.Summary]:
        plan = place(config, unsorted)
        counts = engine(plan, stuck_at, chips, chunk, writing=writing).counts
        return summarize(plan, counts, writing)

    def measure(combination: Combination, chips: Sequence[int]) -> list[MeasuredChip]:
        plan = on_every_process(lambda: plans(combination, chips))
        writing = combination.read_writing()
        measured = engine(plan, combination.stuck_at, chips, chunk, task.batches(), writing)
        summaries = summarize(plan, measured.counts, writing)
        # `unsorted` may be the same on every chip
        differs = differ(unsorted, combination.stuck_at, writing=writing)
        baselines = baseline(
            combination.config,
            combination.stuck_at,
            tuple(chips) if differs else (0,),
            writing,
        )
        baselines = baselines if differs else baselines * len(chips)
        priced = hardware.on(combination.config)
        return [
            (
                with_net_reduction(with_reduction(summary, other), other, priced),
                int(correct),
            )
            for summary, other, correct in zip(summaries, baselines, measured.correct, strict=True)
        ]

    return measure


def measure_parts(
    combination: Combination,
    pending: Sequence[int],
    layout: Layout,
    engine: Engine,
    images: int,
    measure: Measure,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yields each pending part and its rows, a chunk of chips on every device at once.

    Args:
      pending: numbers of the parts.
      images: tested on.
    """
    same = None if combination.chips_differ else measure(combination, [0])
    for start in range(0, len(pending), engine.devices):
        group = {part: layout.chips_of(part) for part in pending[start : start + engine.devices]}
        chips = [chip for of_part in group.values() for chip in of_part]
        measured = same * len(chips) if same else measure(combination, chips)
        found = dict(zip(chips, measured, strict=True))
        for part, of_part in group.items():
            yield part, [make_row(combination, chip, *found[chip], images) for chip in of_part]


def choose_chunk(
    engine: Engine, task: Task, combinations: Sequence[Combination], chips: int, memory: int
) -> int:
    """Sizes the chunk of chips on each device to the memory that the largest crossbars take."""
    plans = []
    for config in dict.fromkeys(one.config for one in combinations):
        with contextlib.suppress(ValueError):  # a combination that fails, later
            plans.append(memsim.plan(task.params, config, memsim.policies.Unsorted()))
    most = most_chips(chips)
    if not plans:
        return most

    def words(plan: memsim.Plan) -> int:
        rows = plan.schedule.sections.size * plan.config.physical_rows
        return int(rows) * plan.config.word_dtype.itemsize

    batch = next(iter(task.batches()))
    own_plans = any(one.policy.avoids_faults for one in combinations)
    return engine.chunk_in_memory(max(plans, key=words), batch, memory, most, own_plans)
