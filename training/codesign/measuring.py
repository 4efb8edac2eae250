"""Rounds of co-design measured: what each takes and keeps, and which one is kept."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import rich.progress
from jaxtyping import Num, PyTree

import memsim
from memsim.hardware import with_net_reduction
from memsim.intervals import Interval
from memsim.summary import with_reduction
from training.codesign.settings import CodesignOptions
from training.evaluation import make_test
from training.finetune import complete
from training.scoring import Score
from training.tasks import Task


class Round(NamedTuple):
    """A network at the end of a round; or, first, before all.

    Attributes:
      price: squared code errors that a write less made up for; 0 before all.
      network: its weights, as they are programmed.
      plan: where they are.
      summary: of a steady pass, against `unsorted` twos_complement before all; means over chips.
      planning, held_out: change of the score on the examples that choose the round, and on the
        others.
    """

    price: float
    network: PyTree
    plan: memsim.Plan
    summary: memsim.Summary
    planning: Interval
    held_out: Interval


class Outcome(NamedTuple):
    """All rounds, and the one that is kept.

    Attributes:
      rounds: the first is the network as it was.
      kept: number of the one of fewest writes within the budget.
      baseline: a steady pass of `unsorted` twos_complement, before all.
      reference: score of the float network on the examples held out, with its interval.
      examples: held out.
    """

    rounds: list[Round]
    kept: int
    baseline: memsim.Summary
    reference: Interval
    examples: int


def measure_rounds(
    task: Task,
    networks: list[PyTree],
    plans: list[memsim.Plan],
    chosen: CodesignOptions,
    hardware: memsim.Hardware,
    bar: rich.progress.Progress,
) -> Outcome:
    """Counts a steady pass of each network, tests what chips hold, and chooses."""
    start, score = networks[0], task.score
    progress = bar.add_task("measuring the rounds", total=1 + len(networks))
    test = make_test(lambda params, x: task.apply(complete(params, task.params), x), score)
    differ = chosen.stuck_at > 0 or chosen.writing is not None
    keys = jax.random.split(jax.random.key(chosen.seed), chosen.chips if differ else 1)
    (reference,) = test([start], task.batches())
    planning = _planning_half(reference.size, chosen.seed)

    def steady(network: PyTree, plan: memsim.Plan) -> tuple[list[PyTree], memsim.Summary]:
        held, summaries = [], []
        for key in keys:
            chip = memsim.sample_chip(key, plan, chosen.stuck_at / 2, chosen.stuck_at / 2)
            writing = chosen.read_writing(plan.config)
            _, first = memsim.program(network, plan, chip, writing=writing)
            on_chip, second = memsim.program(network, plan, first.chip, writing=writing)
            held.append(on_chip)
            summaries.append(memsim.summarize(second, plan))
        return held, memsim.mean_over_chips(summaries)

    usual = dataclasses.replace(plans[0].config, encoding="twos_complement")
    _, baseline = steady(start, memsim.plan(start, usual, memsim.policies.Unsorted()))
    bar.advance(progress)
    rounds = []
    for price, network, plan in zip([0.0, *chosen.price], networks, plans, strict=True):
        held, summary = steady(network, plan)
        values = test(held, task.batches())
        summary = with_net_reduction(with_reduction(summary, baseline), baseline, hardware)
        changes = (
            score.compare(values[:, part], reference[part]) for part in (planning, ~planning)
        )
        rounds.append(Round(price, network, plan, summary, *changes))
        bar.advance(progress)
    return Outcome(
        rounds,
        _fewest_within(rounds, score, chosen.max_drop),
        baseline,
        score.interval(reference[~planning]),
        int((~planning).sum()),
    )


def _planning_half(examples: int, seed: int) -> Num[np.ndarray, " examples"]:
    """Draws the half of the examples that chooses the round."""
    half = np.zeros(examples, bool)
    half[np.random.default_rng(seed).permutation(examples)[: examples // 2]] = True
    return half


def _fewest_within(rounds: list[Round], score: Score, max_drop: float) -> int:
    """Finds the round of fewest writes that keeps to the budget on the examples that choose.

    Raises:
      ValueError: none does.
    """

    def lost(one: Round) -> float:
        return -one.planning.mean if score.higher_is_better else one.planning.mean - 1

    within = [number for number, one in enumerate(rounds) if lost(one) <= max_drop]
    if not within:
        least = min(map(lost, rounds))
        raise ValueError(
            f"`--max-drop` is {max_drop:g}, but every round loses {least:.4f} or more; lower the "
            "prices, train for more steps, or allow more."
        )
    return min(within, key=lambda number: rounds[number].summary.writes)
