"""The fewest writes within a budget of accuracy: how much error each layer may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, PyTree

from memsim._checks import check_kind, check_number, check_seed, check_whole
from memsim.chip import Chip
from memsim.config import CrossbarConfig
from memsim.hardware.files import default_hardware
from memsim.hardware.objectives import Objective
from memsim.hardware.passes import with_net_reduction
from memsim.intervals import Interval, accuracy_change
from memsim.network import Programming, program, sample_chip
from memsim.planning import Plan, plan
from memsim.policies import Matched, Policy, Unsorted
from memsim.selection import Select
from memsim.sensitivity import Batch, layer_sensitivity
from memsim.summary import Summary, mean_over_chips, summarize

__all__ = ["Budget", "Judge", "Trial", "budget"]

# The search multiplies the exchange rate until so many plans in a row are refused (accuracies are
# measured, so they scatter); so often, the root of the last step leads to both sides of the choice.
_STEP, _REFUSALS, _REFINEMENTS = 4.0, 2, 2
# How often the examples are split: one half of 1,000 images chooses 13x, another 71x.
_SPLITS = 10
_TINY = 1e-30
# So high that any policy makes all the errors that it can.
_ANY_PRICE = 1e12


class Trial(NamedTuple):
    """One plan that the search tried.

    Attributes:
      exchange: loss that was given for one write less.
      policies: of each layer.
      summary: its writes and reduction, means over chips.
      value: what was to be least, of that summary.
      change: of the accuracy, on all examples, with its 95 % interval.
      accepted: share of the halves on which all of that interval stays within the budget.
    """

    exchange: float
    policies: dict[str, Policy]
    summary: Summary
    value: float
    change: Interval
    accepted: float


class Budget(NamedTuple):
    """The plan that `budget` found, and how it got there.

    Attributes:
      plan: that of the median of `choices`.
      chosen: how it did in the search.
      choices: of each half the accepted plan of fewest writes, or of the least `objective`.
      held_out: change of the accuracy, a share of 1: on each example by the choices of the halves
        that it is not in (cross-fitting).
      float_accuracy: of the float network.
      examples: how many there were.
      sensitivity: by layer, loss that a squared error of one code costs in one of its weights.
      trials: all that were tried, in turn.
      objective: what was to be least.
    """

    plan: Plan
    chosen: Trial
    choices: list[Trial]
    held_out: Interval
    float_accuracy: float
    examples: int
    sensitivity: dict[str, float]
    trials: list[Trial]
    objective: Objective = Objective()

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest reduction that a half chose: how sure the choice is."""
        reductions = [trial.summary.reduction or 1.0 for trial in self.choices]
        return min(reductions), max(reductions)


class Judge(NamedTuple):
    """The functions and the data that say how good a network is.

    Attributes:
      loss: `(params, batch) -> mean loss`, differentiable.
      accuracy: `(params, batch) -> [examples]`, which examples come out right.
      data: pytree of arrays that share a leading axis of examples, such as (images, labels).
    """

    loss: Callable[[PyTree, Batch], Array]
    accuracy: Callable[[PyTree, Batch], Array]
    data: Batch


def budget(
    params: PyTree,
    config: CrossbarConfig,
    judge: Judge,
    max_drop: float = 0.01,
    *,
    policy: Policy | None = None,
    select: Select | None = None,
    chip: Chip | None = None,
    batch: int = 250,
    chips: int = 4,
    seed: int = 0,
    objective: Objective = Objective(),  # noqa: B008 - it cannot change
    progress: Callable[[Trial], None] | None = None,
) -> Budget:
    """Plans a network for the fewest writes whose measured accuracy stays within a budget.

    A squared error in a weight of a layer costs loss in proportion to the mean squared gradient
    there (the diagonal of the empirical Fisher information). One exchange rate, loss for a write,
    then gives every layer its price, and the search is for the highest rate at which the 95 %
    interval of the accuracy's change stays within the budget. One half of the examples would
    choose by its luck. So they are split in random halves time and again, each half chooses, and
    the median is taken; what a half chose is judged on the other one.

    Args:
      params: any pytree of arrays.
      config, judge: the crossbars; how good a network is.
      max_drop: of the accuracy, a share of 1, against `params` themselves.
      policy: shared out by its `at_price`: of `matched` (the default) tolerance and price, of
        others the low-order columns, at the policy's p.
      select: see `plan`.
      chip: its stuck cells are met, and avoided if the policy says so; by default there are none.
      batch: examples at once.
      chips: chips that bit stucking is tried on, without a `chip`.
      seed: of the splits and the chips, 32 bits.
      objective: what is to be least; by default the writes.
      progress: called after every trial.

    Raises:
      ValueError: as `plan`; a budget outside 0..1, or that no plan keeps to; too few examples; a
        `judge` that does not say which are right; a policy without errors to share out.

    References:
      Dong et al., HAWQ, 2019, sensitivity; Kunstner et al., 2019, the empirical Fisher information;
      Chernozhukov et al., Double/debiased machine learning, 2018, cross-fitting, medians of splits.
    """
    policy = policy or Matched()
    _check_kinds(config, judge, policy, objective)
    _check_numbers(max_drop, batch, chips, seed)
    data, measure = _checked(judge.data), _make_measure(judge.accuracy, batch)
    sensitivity = layer_sensitivity(params, config, judge.loss, data, select=select)
    # bit stucking that the search itself brings in is drawn, so several chips tell more than one
    drawn = policy.at_price(_ANY_PRICE, config).stucking.drawn > policy.stucking.drawn
    keys = jax.random.split(jax.random.key(seed), chips if drawn else 1)

    def program_under(policies: Policy | dict[str, Policy]) -> _Programmed:
        made = plan(params, config, policies, select=select, chip=chip)
        some = [sample_chip(key, made) for key in keys] if chip is None else [chip]
        done = [program(params, made, one, wear=objective.what == "wear") for one in some]
        return _Programmed(made, [held for held, _ in done], [counted for _, counted in done])

    reference = measure(params, data)
    search = _Search(
        policy, config, max_drop, objective, sensitivity, program_under,
        lambda network: measure(network, data), reference, _halves(reference.size, seed), progress,
    )  # fmt: skip
    search.run()
    chosen, choices = search.choose()
    return Budget(
        # made again: to keep every plan that was tried would take their memory
        plan=plan(params, config, chosen.policies, select=select, chip=chip),
        chosen=chosen,
        choices=choices,
        held_out=search.judged_by_others(choices),
        float_accuracy=float(reference.mean()),
        examples=reference.size,
        sensitivity=sensitivity,
        trials=search.trials,
        objective=objective,
    )


def _check_kinds(
    config: CrossbarConfig, judge: Judge, policy: Policy, objective: Objective
) -> None:
    check_kind("objective", objective, Objective, "give a memsim.hardware.Objective")
    check_kind("config", config, CrossbarConfig, "give a memsim.CrossbarConfig")
    check_kind("judge", judge, Judge, "give memsim.Judge(loss, accuracy, data)")
    check_kind("policy", policy, Policy, "give a memsim.Policy")
    policy.at_price(1.0, config).check(config)


def _check_numbers(max_drop: float, batch: int, chips: int, seed: int) -> None:
    check_number("max_drop", max_drop, "a drop of accuracy is a share, 0..1", 0, 1)
    check_whole("batch", batch, "judge at least 1 example at once", 1)
    check_whole("chips", chips, "give at least 1", 1)
    check_seed(seed)


class _Programmed(NamedTuple):
    """A plan, and what chips held and took under it."""

    plan: Plan
    held: list[PyTree]
    programmings: list[Programming]


class _Search:
    """The search for the highest exchange rate whose plan keeps to the budget."""

    def __init__(
        self,
        policy: Policy,
        config: CrossbarConfig,
        max_drop: float,
        objective: Objective,
        sensitivity: Mapping[str, float],
        program_under: Callable[[Policy | dict[str, Policy]], _Programmed],
        measure: Callable[[PyTree], Bool[np.ndarray, " examples"]],
        reference: Bool[np.ndarray, " examples"],
        halves: Bool[np.ndarray, "halves examples"],
        progress: Callable[[Trial], None] | None,
    ) -> None:
        self.policy, self.config, self.max_drop = policy, config, max_drop
        self.objective = objective
        self.sensitivity, self.program_under = sensitivity, program_under
        self.measure, self.reference, self.progress = measure, reference, progress
        self.halves = halves
        self.trials: list[Trial] = []
        # of each trial: which examples come out right, and which halves accept it
        self.correct: list[Bool[np.ndarray, "chips examples"]] = []
        self.accepting: list[Bool[np.ndarray, " halves"]] = []
        plain = program_under(Unsorted())
        self.unsorted = summarize(plain.programmings[0], plain.plan)

    def run(self) -> None:
        """Tries ever higher exchange rates, then more closely around the choice."""
        # from a rate at which hardly any error is made
        weights = sum(layer.weights for layer in self.unsorted.layers.values())
        refused, exchange = 0, max(self.max_drop, 1e-3) / weights
        while refused < _REFUSALS:
            refused = 0 if self._attempt(exchange) else refused + 1
            exchange *= _STEP
        # then more closely around what is chosen
        step = _STEP
        for _ in range(_REFINEMENTS):
            step, here = math.sqrt(step), self.choose()[0].exchange
            self._attempt(here * step)
            self._attempt(here / step)

    def choose(self) -> tuple[Trial, list[Trial]]:
        """Gives the median of what the halves choose, rather of more writes, and all choices.

        A half that accepts none chooses the plan of the least errors.

        Raises:
          ValueError: most halves accept none.
        """
        by_half = np.stack(self.accepting, axis=1)
        accepted = [[self.trials[k] for k in np.flatnonzero(by)] for by in by_half]
        choices = [min(some, key=_value, default=self.trials[0]) for some in accepted]
        if 2 * sum(map(bool, accepted)) <= len(choices):
            change = self.trials[0].change
            raise ValueError(
                f"`max_drop` is {self.max_drop}, but the plan of the least errors that was tried "
                f"changes the accuracy by {100 * change.mean:+.2f} points "
                f"({100 * change.low:+.2f} to {100 * change.high:+.2f}); allow more, use more "
                "`bits`, or give more `data`."
            )
        return sorted(choices, key=_value)[len(choices) // 2], choices

    def judged_by_others(self, choices: list[Trial]) -> Interval:
        """Estimates the change of the accuracy on examples that had no say.

        Args:
          choices: of the halves.
        """
        numbers = [self.trials.index(choice) for choice in choices]
        # of a split either half judges what the other one chose
        judged = [
            np.where(half, self.correct[other], self.correct[own])
            for own, other, half in zip(numbers[::2], numbers[1::2], self.halves[::2], strict=True)
        ]
        return accuracy_change(np.concatenate(judged), self.reference)

    def _attempt(self, exchange: float) -> bool:
        # one rate for all: a layer that errors cost more has a higher price
        policies = {
            name: self.policy.at_price(exchange / max(cost, _TINY), self.config)
            for name, cost in self.sensitivity.items()
        }
        if any(policies == trial.policies for trial in self.trials):
            return False  # nothing new to try
        tried = self.program_under(policies)
        correct = np.stack([self.measure(network) for network in tried.held])
        change = accuracy_change(correct, self.reference)
        summary = mean_over_chips(
            [summarize(one, tried.plan, self.unsorted) for one in tried.programmings]
        )
        hardware = self.objective.hardware or default_hardware(self.config)
        if hardware is not None:
            summary = with_net_reduction(summary, self.unsorted, hardware)
        # not its mean: of many plans the best looks better than it is
        accepting = [
            accuracy_change(correct[:, half], self.reference[half]).low >= -self.max_drop
            for half in self.halves
        ]
        share = float(np.mean(accepting))
        trial = Trial(exchange, policies, summary, self.objective(summary), change, share)
        self.trials.append(trial)
        self.correct.append(correct)
        self.accepting.append(np.asarray(accepting))
        if self.progress:
            self.progress(trial)
        return share > 0


def _value(trial: Trial) -> float:
    return trial.value


def _examples(data: Batch) -> int:
    return len(jax.tree.leaves(data)[0])


def _checked(data: Batch) -> Batch:
    """Gives the examples as host arrays.

    Raises:
      ValueError: leaves of other numbers of examples, or of fewer than two.
    """
    data = jax.tree.map(np.asarray, data)
    sizes = {len(leaf) if leaf.ndim else 0 for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            f"`data` has leaves of {sorted(sizes)} examples; give arrays that share a leading axis "
            "of at least 2, such as (images, labels)."
        )
    return data


def _halves(examples: int, seed: int) -> Bool[np.ndarray, "halves examples"]:
    """Splits the examples at random, time and again: either half of each split."""
    draws = np.random.default_rng(seed)
    halves = []
    for _ in range(_SPLITS):
        half = draws.permutation(examples) < examples // 2
        halves += [half, ~half]
    return np.stack(halves)


def _make_measure(
    accuracy_fn: Callable[[PyTree, Batch], Array], batch: int
) -> Callable[[PyTree, Batch], Bool[np.ndarray, " examples"]]:
    """Makes `(params, data) -> which examples are right`, in batches of one size."""
    right = jax.jit(accuracy_fn)

    def measure(params: PyTree, data: Batch) -> Bool[np.ndarray, " examples"]:
        examples = _examples(data)
        size = min(batch, examples)
        parts = []
        for start in range(0, examples, size):
            # the last batch is filled up with its last example: one compilation
            chosen = np.minimum(np.arange(start, start + size), examples - 1)
            part = np.asarray(right(params, jax.tree.map(lambda x, c=chosen: x[c], data)))
            if part.shape != (size,) or not np.isin(part, (0, 1)).all():
                raise ValueError(
                    f"`accuracy_fn` gives {part.dtype} {part.shape} for {size} examples; it must "
                    "say of each whether it is right: bool [examples]."
                )
            parts.append(part[: examples - start])
        return np.concatenate(parts).astype(bool)

    return measure
