"""Measures of a sweep: the chips of one combination, chunk by chunk."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, Int64

import memsim
from memsim.hardware import pass_cost
from memsim.summary import layer_facts, summarize_counts, with_reduction
from training.policies import differ
from training.sweep.combinations import Combination
from training.sweep.devices import Engine, most_chips, on_every_process
from training.sweep.parts import Layout, make_row
from training.tasks import Task

# Summary of a chip, and the number of images that it gets right.
MeasuredChip = tuple[memsim.Summary, int]
Measure = Callable[[Combination, Sequence[int]], list[MeasuredChip]]


class Baseline(NamedTuple):
    """Keeps what `unsorted` takes on every chip: two numbers each, so that many are little.

    Attributes:
      writes: of all passes; -1 where it is not known yet.
      joules: of all passes.
    """

    writes: Int64[np.ndarray, " chips"]
    joules: Float64[np.ndarray, " chips"]


def make_measure(
    engine: Engine, task: Task, seed: int, layout: Layout, hardware: memsim.Hardware
) -> Measure:
    """Makes `(combination, chips) -> what each chip takes and gets right`.

    What it keeps does not grow: baselines of the crossbars in hand, and the programs of these.

    Args:
      seed: that of `engine`.
      layout: chips there are, and on each device at once.
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

    baselines: dict[tuple[float, memsim.Writing | None], Baseline] = {}
    in_hand: memsim.CrossbarConfig | None = None

    def turn_to(config: memsim.CrossbarConfig) -> None:
        nonlocal in_hand
        if in_hand not in (None, config):
            baselines.clear()
            engine.drop_programs()
        in_hand = config

    def baseline(
        combination: Combination,
        chips: Sequence[int],
        writing: memsim.Writing | None,
        priced: memsim.Hardware,
    ) -> list[tuple[int, float]]:
        """Gives writes and joules of `unsorted` on each of these chips."""
        rate = combination.stuck_at
        # `unsorted` may be the same on every chip
        at = list(chips) if differ(unsorted, rate, writing=writing) else [0] * len(chips)
        empty = Baseline(np.full(layout.chips, -1, np.int64), np.zeros(layout.chips))
        known = baselines.setdefault((rate, writing), empty)
        missing = [chip for chip in dict.fromkeys(at) if known.writes[chip] < 0]
        if missing:
            plan = place(combination.config, unsorted)
            counts = engine(plan, rate, missing, layout.chunk, writing=writing).counts
            summaries = summarize_chips(plan, counts, writing)
            known.writes[missing] = [summary.writes for summary in summaries]
            known.joules[missing] = [
                pass_cost(summary, priced).total_joules for summary in summaries
            ]
        return [(int(known.writes[chip]), float(known.joules[chip])) for chip in at]

    def measure(combination: Combination, chips: Sequence[int]) -> list[MeasuredChip]:
        turn_to(combination.config)
        plan = on_every_process(lambda: plans(combination, chips))
        writing, priced = combination.read_writing(), hardware.on(combination.config)
        measured = engine(plan, combination.stuck_at, chips, layout.chunk, task.batches(), writing)
        summaries = summarize_chips(plan, measured.counts, writing)
        before = baseline(combination, chips, writing, priced)
        return [
            (against_baseline(summary, priced, *of_chip), int(correct))
            for summary, correct, of_chip in zip(summaries, measured.correct, before, strict=True)
        ]

    return measure


def against_baseline(
    summary: memsim.Summary, priced: memsim.Hardware, writes: int, joules: float
) -> memsim.Summary:
    """Gives the summary with its reductions against a baseline of these writes and joules."""
    own = pass_cost(summary, priced).total_joules
    compared = with_reduction(summary, dataclasses.replace(summary, writes=writes))
    return dataclasses.replace(compared, net_reduction=joules / own if own else None)


def summarize_chips(
    plan: memsim.Plan | list[memsim.Plan],
    counts: memsim.Counts,
    writing: memsim.Writing | None,
) -> list[memsim.Summary]:
    """Sums up what each chip takes.

    Args:
      plan: of all chips, or of each.
      counts: [chips, passes, layers, ...].
    """
    plans = plan if isinstance(plan, list) else [plan]
    facts = [layer_facts({name: one.layers[name] for name in one.names}, one.config)
             for one in plans]  # fmt: skip
    number, config = len(counts.sets), plans[0].config
    each = (jax.tree.map(lambda x, i=i: x[i], counts) for i in range(number))
    return [
        summarize_counts(of_chip, of_plan, None, config, writing)
        for of_chip, of_plan in zip(each, facts * (number // len(facts)), strict=True)
    ]


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
    engine: Engine,
    task: Task,
    combinations: Sequence[Combination],
    chips: int,
    limit: int | None,
    chunk: int | None = None,
) -> int:
    """Sizes the chunk of chips on each device to the memory that the largest crossbars take.

    Args:
      chips: of each combination.
      limit: bytes, see `Engine.check_chunk`; None for what a chunk may take by itself.
      chunk: chips on a device where that is decided already: it is then only held to `limit`.

    Raises:
      ValueError: what is to be measured takes more than `limit`.
    """
    if chunk is not None and limit is None:
        return chunk
    plans = []
    for config in dict.fromkeys(one.config for one in combinations):
        with contextlib.suppress(ValueError):  # a combination that fails, later
            plans.append(memsim.plan(task.params, config, memsim.policies.Unsorted()))
    most = most_chips(chips)
    if not plans:
        return chunk or most

    def words(plan: memsim.Plan) -> int:
        rows = plan.schedule.sections.size * plan.config.physical_rows
        return int(rows) * plan.config.word_dtype.itemsize

    largest, batch = max(plans, key=words), next(iter(task.batches()))
    own_plans = any(one.policy.avoids_faults for one in combinations)
    if limit is not None:
        load_policies(combinations)
    if chunk is None:
        return engine.chunk_in_memory(largest, batch, limit, most, own_plans)
    engine.check_chunk(largest, batch, limit or 0, chunk, own_plans)
    return chunk


def load_policies(combinations: Sequence[Combination]) -> None:
    """Plans a small layer under every policy, so that what their compiled loops hold is counted."""
    small = {"kernel": np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)}
    for policy in dict.fromkeys(one.policy.placing for one in combinations):
        with contextlib.suppress(Exception):  # a combination that fails, later
            memsim.plan(small, combinations[0].config, policy)
