"""Rounds of co-design measured: what each takes and keeps, and which one is kept."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import rich.progress
from jaxtyping import Array, Key, Num, PyTree

import memsim
from memsim.hardware import with_net_reduction
from memsim.intervals import Interval
from memsim.selection import named_leaves, tensor_name
from memsim.summary import with_reduction
from training.codesign.settings import CodesignOptions
from training.evaluation import make_test
from training.finetune import complete
from training.scoring import Score
from training.tasks import Task

# What a new network is programmed by over an old one, exactly: in the old one's places all policies
# write the same cells.
_KEPT, _AFRESH = ("unsorted",), ("sws", "flip-n-write", "aras")
# What a write makes up for, in squared code errors, where words go around stuck cells: the nearest
# words, of those that are as near the ones of fewest writes.
_AROUND = 1.0
# Of an update, the shares that pruning is tried at.
_SHARES = (0.3, 0.1, 0.03)


class Round(NamedTuple):
    """A network at the end of a round; or, first, before all.

    Attributes:
      price: squared code errors that a write less made up for; 0 before all.
      network: its weights, as they are programmed.
      summary: of a steady pass, or of deploying it over an old network; means over chips.
      planning, held_out, everywhere: change of the score on the examples that choose the round, on
        the others, and on all.
    """

    price: float
    network: PyTree
    summary: memsim.Summary
    planning: Interval
    held_out: Interval
    everywhere: Interval


class Outcome(NamedTuple):
    """All rounds, and the one that is kept.

    Attributes:
      plan: where weights are, in all rounds.
      rounds: the first is the network as it was.
      kept: number of the one of fewest writes within the budget; None if none keeps to it.
      pruned: over an old network, updates of which only the largest moves are written, by name.
      baseline: what the network as it was takes, see `measure_rounds`.
      against: what that is, in words.
      reference: score of the float network on the examples held out, with its interval.
      examples: held out.
    """

    plan: memsim.Plan
    rounds: list[Round]
    kept: int | None
    pruned: dict[str, Round]
    baseline: memsim.Summary
    against: str
    reference: Interval
    examples: int


def measure_rounds(
    task: Task,
    networks: list[PyTree],
    chains: memsim.WordChains,
    old: PyTree | None,
    chosen: CodesignOptions,
    hardware: memsim.Hardware,
    bar: rich.progress.Progress,
) -> Outcome:
    """Counts each network, tests what chips hold of it, and chooses.

    Against the network as it was: a steady pass of `unsorted` twos_complement, or, over an old
    network, what takes fewest writes without a choice of words.

    Args:
      networks: the first of them as it was.
      chains: of the plan that they share.
      old: weight stationary, the network that the chips hold before; None where each follows on
        itself.
    """
    start, score, config = networks[0], task.score, chains.plan.config
    shares = () if old is None else _SHARES
    progress = bar.add_task("measuring the rounds", total=1 + len(networks) + len(shares))
    test = make_test(lambda params, x: task.apply(complete(params, task.params), x), score)
    keys = jax.random.split(jax.random.key(chosen.seed), chosen.chips_tested)
    (reference,) = test([start], task.batches())
    planning = _planning_half(reference.size, chosen.seed)

    def count(
        network: PyTree, plan: memsim.Plan, goes_around: bool = True
    ) -> tuple[list[PyTree], memsim.Summary]:
        held, summaries = [], []
        for key in keys:
            chip, words = draw_chip(key, plan, chosen), network
            if goes_around:
                chip, words = go_around(chip, network, chains, old, chosen)
            on_chip, programming = program_over(old, words, plan, chip, chosen)
            held.append(on_chip)
            summary = memsim.summarize(programming, plan)
            # an old network's index is there already
            summaries.append(summary if old is None else dataclasses.replace(summary, index_bits=0))
        return held, memsim.mean_over_chips(summaries)

    if old is None:
        usual = dataclasses.replace(config, encoding="twos_complement")
        plan = memsim.plan(start, usual, memsim.policies.Unsorted())
        _, baseline = count(start, plan, goes_around=False)
        against = "a steady pass against `unsorted` twos_complement before training"
    else:
        best, baseline = _best_update(start, old, config, chosen)
        against = f"deployed over {chosen.old}, against {best} of the network as it is"
    bar.advance(progress)

    def measure(price: float, network: PyTree) -> Round:
        held, summary = count(network, chains.plan)
        values = test(held, task.batches())
        summary = with_net_reduction(with_reduction(summary, baseline), baseline, hardware)
        changes = (
            score.compare(values[:, part], reference[part])
            for part in (planning, ~planning, planning | ~planning)
        )
        bar.advance(progress)
        return Round(price, network, summary, *changes)

    rounds = list(map(measure, [0.0, *chosen.price], networks))
    pruned = {
        f"pruned to {100 * share:g} %": measure(0.0, prune_update(start, old, chains.plan, share))
        for share in shares
    }
    return Outcome(
        chains.plan,
        rounds,
        _fewest_within(rounds, score, chosen.max_drop),
        pruned,
        baseline,
        against,
        score.interval(reference[~planning]),
        int((~planning).sum()),
    )


def prune_update(new: PyTree, old: PyTree, plan: memsim.Plan, share: float) -> PyTree:
    """Takes over the weights that moved furthest, a share of each matrix; the others stay old.

    References:
      ESSENCE: updates are pruned for the endurance of the cells; there at every step of a training
      on the chip, here of one update.
    """
    mapped = {tensor_name(name, layer.matrix) for name, layer in plan.layers.items()}
    before, merged = named_leaves(old), []
    for name, leaf in named_leaves(new).items():
        if name not in mapped:
            merged.append(leaf)
            continue
        moved = np.abs(np.asarray(leaf) - np.asarray(before[name]))
        far = moved >= np.quantile(moved, 1 - share)
        merged.append(np.where(far, leaf, before[name]))
    return jax.tree.unflatten(jax.tree.structure(new), merged)


def draw_chip(key: Key[Array, ""], plan: memsim.Plan, chosen: CodesignOptions) -> memsim.Chip:
    """Draws a chip of the kind that is asked for."""
    return memsim.sample_chip(key, plan, chosen.stuck_at / 2, chosen.stuck_at / 2)


def go_around(
    chip: memsim.Chip,
    network: PyTree,
    chains: memsim.WordChains,
    old: PyTree | None,
    chosen: CodesignOptions,
) -> tuple[memsim.Chip, PyTree]:
    """Gives a chip with its rows, and a network with its words, around the known stuck cells.

    Rows are matched to the network that is programmed first.
    """
    if not chosen.stuck_at:
        return chip, network
    chip, _ = chains.match_rows(network if old is None else old, chip)
    return chip, chains.cheapest(network, _AROUND, chip)


def program_over(
    old: PyTree | None,
    network: PyTree,
    plan: memsim.Plan,
    chip: memsim.Chip,
    chosen: CodesignOptions,
) -> tuple[PyTree, memsim.Programming]:
    """Programs a network over an old one, or in a second pass of its own; see `memsim.program`."""
    writing = chosen.read_writing(plan.config)
    _, before = memsim.program(network if old is None else old, plan, chip, writing=writing)
    return memsim.program(network, plan, before.chip, writing=writing)


def _best_update(
    new: PyTree, old: PyTree, config: memsim.CrossbarConfig, chosen: CodesignOptions
) -> tuple[str, memsim.Summary]:
    """Finds what takes fewest writes of all that programs a new network exactly over an old one.

    Returns:
      Its name, and what it takes, a mean over chips.
    """
    tensors, before = (
        {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
        for params in (new, old)
    )
    rates = chosen.stuck_at / 2, chosen.stuck_at / 2
    found: dict[str, memsim.Summary] = {}
    for encoding in dict.fromkeys((config.encoding, "twos_complement")):
        on = dataclasses.replace(config, encoding=encoding)
        for keep, names in ((True, _KEPT), (False, _AFRESH)):
            policies = {name: memsim.Policy.parse(name) for name in names}
            if encoding != "twos_complement":  # aras stores unsigned words
                policies.pop("aras", None)
            compared = memsim.compare(
                tensors,
                on,
                policies,
                old=before,
                keep_placement=keep,
                chips=memsim.Chips(chosen.chips_tested, chosen.seed, *rates),
                writing=chosen.read_writing(on),
            )
            where = "in kept places" if keep else "placed afresh"
            found |= {
                f"`{name}` {encoding} {where}": summary
                for name, summary in compared.policies.items()
            }
    best = min(found, key=lambda name: found[name].writes)
    return best, found[best]


def _planning_half(examples: int, seed: int) -> Num[np.ndarray, " examples"]:
    """Draws the half of the examples that chooses the round."""
    half = np.zeros(examples, bool)
    half[np.random.default_rng(seed).permutation(examples)[: examples // 2]] = True
    return half


def _fewest_within(rounds: list[Round], score: Score, max_drop: float) -> int | None:
    """Finds the round of fewest writes that keeps to the budget on the examples that choose."""

    def lost(one: Round) -> float:
        return -one.planning.mean if score.higher_is_better else one.planning.mean - 1

    within = [number for number, one in enumerate(rounds) if lost(one) <= max_drop]
    return min(within, key=lambda number: rounds[number].summary.writes, default=None)
