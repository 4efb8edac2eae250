"""Stuck-aware fine-tuning of one network for each of many chips, or of one for all of a kind."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

import memsim
from training.data import Batch
from training.evaluation import unstack
from training.finetune.steps import Losses, Objective, robust_step, stuck_aware_step
from training.float_training import TrainState

Step = Callable[[int, "Tuning", Batch], tuple["Tuning", Mapping[str, Any]]]
Replan = Callable[[PyTree, memsim.Chip | None], memsim.Plan]


class Descent(NamedTuple):
    """The start of fine-tuning, and how it moves.

    Attributes:
      params: the weights it starts from.
      replan: `(params, chip) -> Plan`.
      optimizer, schedule: the schedule is its learning rate, for the record.
      refresh: steps after which weights are planned afresh; 0 keeps the first plan.
    """

    params: PyTree
    replan: Replan
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    refresh: int


class Tuning(NamedTuple):
    """Weights on the way, and the plans that they are programmed by.

    Attributes:
      states: of each group of chips, with a leading axis of its chips; robust, one without.
      plans: of the same groups.
    """

    states: list[TrainState]
    plans: list[memsim.Plan]

    def each(self) -> tuple[list[PyTree], list[memsim.Plan]]:
        """Returns weights and plan of every chip."""
        params = [network for state in self.states for network in unstack(state.params)]
        return params, [plan for group in self.plans for plan in unstack(group)]


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Joins trees to one whose leaves have a leading axis, the inverse of `unstack`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def tune_each(
    descent: Descent, objective: Objective, chips: memsim.Chip, group: int
) -> tuple[Tuning, Step]:
    """Prepares fine-tuning for known chips: all start alike, each learns its own stuck cells.

    What bit stucking draws differs from pass to pass, so every step takes other passes, and none of
    the first `objective.passes`.

    Args:
      chips: with a leading axis of chips.
      group: chips in one `vmap`; groups of them take turns.

    Returns:
      The start, and what `run_steps` calls.
    """
    every, passes = unstack(chips), objective.passes
    groups = [every[i : i + group] for i in range(0, len(every), group)]
    stacked = [stack(of_group) for of_group in groups]

    def one(
        number: Array, state: TrainState, plan: memsim.Plan, chip: memsim.Chip, *batch: Array
    ) -> tuple[TrainState, Losses]:
        chip = chip._replace(passes=chip.passes + passes * (number + 1))
        key = jax.random.fold_in(chip.key, number) if objective.readout else None
        return stuck_aware_step(
            state, plan, chip, *batch, optimizer=descent.optimizer, objective=objective,
            read_key=key,
        )  # fmt: skip

    step = jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0, None, None)))

    def advance(number: int, place: int, *arguments: Any) -> tuple[TrainState, Losses]:
        state, plan, *batch = arguments
        return step(jnp.int32(number), state, plan, stacked[place], *batch)

    def plan_group(networks: Sequence[PyTree], of_group: Sequence[memsim.Chip]) -> memsim.Plan:
        pairs = zip(networks, of_group, strict=True)
        return stack([descent.replan(*pair) for pair in pairs])

    def plan_all(states: Sequence[TrainState]) -> list[memsim.Plan]:
        pairs = zip(states, groups, strict=True)
        return [plan_group(unstack(state.params), of_group) for state, of_group in pairs]

    start = TrainState(descent.params, descent.optimizer.init(descent.params))
    states = [stack([start] * len(of_group)) for of_group in groups]
    return Tuning(states, plan_all(states)), _make_step(advance, plan_all, descent)


def tune_robust(
    descent: Descent, objective: Objective, key: Key[Array, ""], stuck_at: float
) -> tuple[Tuning, Step]:
    """Prepares fine-tuning for chips never seen: every step programs another one.

    Args:
      key: source of the chips.
      stuck_at: share of their cells stuck, half of them at each level.

    Returns:
      The start, and what `run_steps` calls.
    """
    one = functools.partial(
        robust_step, optimizer=descent.optimizer, objective=objective, stuck_at=stuck_at
    )
    step = jax.jit(one)

    def advance(number: int, place: int, *arguments: Any) -> tuple[TrainState, Losses]:
        state, plan, *batch = arguments
        return step(state, plan, jax.random.fold_in(key, number), *batch)

    def plan_all(states: Sequence[TrainState]) -> list[memsim.Plan]:
        return [descent.replan(state.params, None) for state in states]

    states = [TrainState(descent.params, descent.optimizer.init(descent.params))]
    return Tuning(states, plan_all(states)), _make_step(advance, plan_all, descent)


def _mean(*of_groups: Array) -> Array:
    """Averages over all chips, of groups that may be of several sizes."""
    return jnp.mean(jnp.concatenate([jnp.ravel(losses) for losses in of_groups]))


def _make_step(
    advance: Callable[..., tuple[TrainState, Losses]],
    plan_all: Callable[[Sequence[TrainState]], list[memsim.Plan]],
    descent: Descent,
) -> Step:
    def step(number: int, tuning: Tuning, batch: Batch) -> tuple[Tuning, Mapping[str, Any]]:
        states, plans = tuning
        if descent.refresh and number and number % descent.refresh == 0:
            plans = plan_all(states)
        pairs = zip(states, plans, strict=True)
        done = [advance(number, place, *pair, *batch) for place, pair in enumerate(pairs)]
        means = jax.tree.map(_mean, *(losses for _, losses in done))
        metrics = {
            "loss": means.task,
            "expected_writes_per_weight": means.writes,
            "learning_rate": descent.schedule(number),
        }
        return Tuning([state for state, _ in done], plans), metrics

    return step
