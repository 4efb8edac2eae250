"""The fewest writes within a budget of accuracy: how much error each layer may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
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
from memsim.selection import Select, named_leaves, select_by_name, select_layers, slice_of
from memsim.summary import Summary, mean_over_chips, summarize

__all__ = ["Budget", "Judge", "Trial", "budget", "layer_sensitivity"]

Batch: TypeAlias = PyTree  # leaves share a leading axis of examples
# Examples whose gradients say how sensitive a layer is.
_SENSITIVITY_EXAMPLES = 512
# Gradients held at once, in numbers.
_GRADIENTS = 2**26
# The search multiplies the exchange rate until so many plans in a row are refused (accuracies are
# measured, so they scatter), and then so often by the root of the last step.
_STEP, _REFUSALS, _REFINEMENTS = 4.0, 2, 2
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
      change: of the accuracy, on the planning part, with its 95 % interval.
      accepted: whether all of that interval stays within the budget.
    """

    exchange: float
    policies: dict[str, Policy]
    summary: Summary
    value: float
    change: Interval
    accepted: bool


class Budget(NamedTuple):
    """The plan that `budget` found, and how it got there.

    Attributes:
      plan: the one of fewest writes that was accepted, or of the least `objective`.
      chosen: how it did in the search.
      held_out: change of the accuracy on examples that the search never saw, a share of 1.
      float_accuracy: of the float network on these.
      examples: (planning, held out), how many there were.
      sensitivity: by layer, loss that a squared error of one code costs in one of its weights.
      trials: all that were tried, in turn.
      objective: what was to be least.
    """

    plan: Plan
    chosen: Trial
    held_out: Interval
    float_accuracy: float
    examples: tuple[int, int]
    sensitivity: dict[str, float]
    trials: list[Trial]
    objective: Objective = Objective()


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
    interval of the accuracy's change stays within the budget on half of the examples, drawn at
    random. The other half is looked at once, by the plan that won.

    Args:
      params: any pytree of arrays.
      config: the crossbars.
      judge: how good a network is.
      max_drop: of the accuracy, a share of 1, against `params` themselves.
      policy: shared out by its `at_price`: of `matched` (the default) tolerance and price, of
        others the low-order columns, at the policy's p.
      select: see `plan`.
      chip: its stuck cells are met, and avoided if the policy says so; by default there are none.
      batch: examples at once.
      chips: chips that bit stucking is tried on, without a `chip`.
      seed: of the halves and the chips, 32 bits.
      objective: what is to be least; by default the writes.
      progress: called after every trial.

    Raises:
      ValueError: as `plan`; a budget outside 0..1; too few examples; a `judge` that does not say
        which examples are right; a policy without errors to share out; a budget that no plan keeps
        to.

    References:
      Dong et al., HAWQ, 2019, sensitivity; Kunstner et al., 2019, the empirical Fisher information.
    """
    policy = policy or Matched()
    _check_kinds(config, judge, policy, objective)
    _check_numbers(max_drop, batch, chips, seed)
    planning, held_out = _halves(judge.data, seed)
    measure = _make_measure(judge.accuracy, batch)
    sensitivity = layer_sensitivity(params, config, judge.loss, planning, select=select)
    # bit stucking that the search itself brings in is drawn, so several chips tell more than one
    drawn = policy.at_price(_ANY_PRICE, config).stucking.drawn > policy.stucking.drawn
    keys = jax.random.split(jax.random.key(seed), chips if drawn else 1)

    def program_under(policies: Policy | dict[str, Policy]) -> _Programmed:
        made = plan(params, config, policies, select=select, chip=chip)
        some = [sample_chip(key, made) for key in keys] if chip is None else [chip]
        done = [program(params, made, one, wear=objective.what == "wear") for one in some]
        return _Programmed(made, [held for held, _ in done], [counted for _, counted in done])

    search = _Search(
        policy, config, max_drop, objective, sensitivity, program_under,
        lambda network: measure(network, planning), measure(params, planning), progress,
    )  # fmt: skip
    search.run()
    kept, chosen = search.winner()
    reference = measure(params, held_out)
    correct = np.stack([measure(network, held_out) for network in kept.held])
    return Budget(
        plan=kept.plan,
        chosen=chosen,
        held_out=accuracy_change(correct, reference),
        float_accuracy=float(reference.mean()),
        examples=(_examples(planning), reference.size),
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
        progress: Callable[[Trial], None] | None,
    ) -> None:
        self.policy, self.config, self.max_drop = policy, config, max_drop
        self.objective = objective
        self.sensitivity, self.program_under = sensitivity, program_under
        self.measure, self.reference, self.progress = measure, reference, progress
        self.trials: list[Trial] = []
        self.kept: tuple[_Programmed, Trial] | None = None
        plain = program_under(Unsorted())
        self.unsorted = summarize(plain.programmings[0], plain.plan)

    def run(self) -> None:
        """Tries ever higher exchange rates, then more closely above the highest accepted."""
        # from a rate at which hardly any error is made
        weights = sum(layer.weights for layer in self.unsorted.layers.values())
        best, refused, exchange = None, 0, max(self.max_drop, 1e-3) / weights
        while refused < _REFUSALS:
            if self._attempt(exchange):
                best, refused = exchange, 0
            else:
                refused += 1
            exchange *= _STEP
        # then between the highest accepted and the lowest refused
        step = _STEP
        for _ in range(_REFINEMENTS):
            step = math.sqrt(step)
            if best is not None and self._attempt(best * step):
                best *= step

    def winner(self) -> tuple[_Programmed, Trial]:
        """Gives the accepted plan of the least objective.

        Raises:
          ValueError: none was accepted.
        """
        if self.kept is None:
            change = self.trials[0].change
            raise ValueError(
                f"`max_drop` is {self.max_drop}, but the plan of the least errors that was tried "
                f"changes the accuracy by {100 * change.mean:+.2f} points "
                f"({100 * change.low:+.2f} to {100 * change.high:+.2f}); allow more, use more "
                "`bits`, or give more `data`."
            )
        return self.kept

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
        accepted = change.low >= -self.max_drop
        trial = Trial(exchange, policies, summary, self.objective(summary), change, accepted)
        self.trials.append(trial)
        if accepted and (self.kept is None or trial.value < self.kept[1].value):
            self.kept = tried, trial
        if self.progress:
            self.progress(trial)
        return accepted


def layer_sensitivity(
    params: PyTree,
    config: CrossbarConfig,
    loss_fn: Callable[[PyTree, Batch], Array],
    data: Batch,
    *,
    select: Select | None = None,
) -> dict[str, float]:
    """Estimates the loss that a squared error of one code costs in one weight of each layer.

    Half the mean squared gradient of an example's loss, times the squared scale.

    Args:
      params, config, loss_fn, data, select: as of `budget`.
    """
    # as many examples at once as their gradients have room
    leaves = named_leaves(params)
    selected = select_layers(leaves, select or select_by_name())
    tensors = list(dict.fromkeys(tensor for tensor, _ in selected.values()))
    structure = jax.tree.structure(params)
    made = plan(params, config, Unsorted(), select=select)
    weights = sum(leaves[name].size for name in tensors)
    count = min(_examples(data), _SENSITIVITY_EXAMPLES)
    size = max(1, min(16, _GRADIENTS // weights, count))
    count -= count % size  # whole batches: compiled once

    @jax.jit
    def squares(leaves: dict[str, Array], examples: Batch) -> dict[str, Array]:
        def loss(mapped: dict[str, Array], example: Batch) -> Array:
            network = jax.tree.unflatten(structure, (leaves | mapped).values())
            return loss_fn(network, jax.tree.map(lambda x: x[None], example))

        def of_example(example: Batch) -> dict[str, Array]:
            gradients = jax.grad(loss)({name: leaves[name] for name in tensors}, example)
            return {
                name: jnp.mean(jnp.square(slice_of(gradients[tensor], matrix)))
                for name, (tensor, matrix) in selected.items()
            }

        every = jax.vmap(of_example)(examples)
        return {name: jnp.sum(of_layer) for name, of_layer in every.items()}

    # batch by batch, added up on the host
    total = dict.fromkeys(selected, 0.0)
    arrays = {name: jnp.asarray(leaf) for name, leaf in leaves.items()}
    for start in range(0, count, size):
        part = squares(arrays, jax.tree.map(lambda x, i=start: x[i : i + size], data))
        total = {name: total[name] + float(part[name]) for name in selected}
    return {
        name: total[name] / count * float(np.mean(np.square(made.layers[name].scale))) / 2
        for name in selected
    }


def _examples(data: Batch) -> int:
    return len(jax.tree.leaves(data)[0])


def _halves(data: Batch, seed: int) -> tuple[Batch, Batch]:
    """Draws two random halves of the examples, host arrays."""
    data = jax.tree.map(np.asarray, data)
    sizes = {len(leaf) if leaf.ndim else 0 for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            f"`data` has leaves of {sorted(sizes)} examples; give arrays that share a leading axis "
            "of at least 2, such as (images, labels)."
        )
    order = np.random.default_rng(seed).permutation(sizes.pop())
    parts = np.array_split(order, 2)
    planning, held_out = (jax.tree.map(lambda x, p=part: x[np.sort(p)], data) for part in parts)
    return planning, held_out


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
