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
from training.steps import Losses, TrainState, robust_step, stuck_aware_step

Step = Callable[[int, "Tuning", Batch], tuple["Tuning", Mapping[str, Any]]]
Replan = Callable[[PyTree, memsim.Chip | None], memsim.Plan]


class Tuning(NamedTuple):
    """Weights on the way, and the plans that they are programmed by.

    Attributes:
      states: of each group of chips, with a leading axis of its chips; robust, one without.
      plans: of the same groups.
    """

    states: list[TrainState]
    plans: list[memsim.Plan]

    def each(self) -> tuple[list[PyTree], list[memsim.Plan]]:
        """Weights and plan of every chip."""
        params = [network for state in self.states for network in unstack(state.params)]
        return params, [plan for group in self.plans for plan in unstack(group)]


def stack(trees: Sequence[PyTree]) -> PyTree:
    """One tree whose leaves have a leading axis, the inverse of `unstack`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def tune_each(
    params: PyTree,
    replan: Replan,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    chips: memsim.Chip,
    refresh: int,
    together: int,
    passes: int,
    **objective: Any,
) -> tuple[Tuning, Step]:
    """Fine-tuning for known chips: all start from `params`, each learns its own stuck cells.

    What bit stucking draws differs from pass to pass, so every step takes other passes, and none of
    the first `passes`.

    Args:
      replan: `(params, chip) -> Plan`.
      optimizer, schedule: the schedule is its learning rate, for the record.
      chips: with a leading axis of chips.
      refresh: steps after which each chip's weights are planned afresh; 0 keeps the first plan.
      together: chips in one `vmap`; groups of them take turns.
      passes: see `stuck_aware_loss`.
      objective: keywords of `stuck_aware_loss`.

    Returns:
      The start, and what `loop.run` calls.
    """
    every = unstack(chips)
    groups = [every[i : i + together] for i in range(0, len(every), together)]
    stacked = [stack(group) for group in groups]

    def one(
        number: Array, state: TrainState, plan: memsim.Plan, chip: memsim.Chip, *batch: Array
    ) -> tuple[TrainState, Losses]:
        options = objective | {"optimizer": optimizer, "passes": passes}
        chip = chip._replace(passes=chip.passes + passes * (number + 1))
        if options.get("readout"):
            options["read_key"] = jax.random.fold_in(chip.key, number)
        return stuck_aware_step(state, plan, chip, *batch, **options)

    step = jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0, None, None)))

    def advance(number: int, group: int, *arguments: Any) -> tuple[TrainState, Losses]:
        state, plan, *batch = arguments
        return step(jnp.int32(number), state, plan, stacked[group], *batch)

    def plan_group(networks: Sequence[PyTree], group: Sequence[memsim.Chip]) -> memsim.Plan:
        return stack([replan(*pair) for pair in zip(networks, group, strict=True)])

    def plan_all(states: Sequence[TrainState]) -> list[memsim.Plan]:
        pairs = zip(states, groups, strict=True)
        return [plan_group(unstack(state.params), group) for state, group in pairs]

    states = [stack([TrainState(params, optimizer.init(params))] * len(group)) for group in groups]
    return Tuning(states, plan_all(states)), _make_step(advance, plan_all, refresh, schedule)


def tune_robust(
    params: PyTree,
    replan: Replan,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    key: Key[Array, ""],
    stuck_at: float,
    refresh: int,
    **objective: Any,
) -> tuple[Tuning, Step]:
    """Fine-tuning for chips never seen: every step programs another one, drawn from `key`.

    Args:
      stuck_at: share of their cells stuck, half of them at each level.
      replan, optimizer, schedule, refresh, objective: as `tune_each` takes them.

    Returns:
      The start, and what `loop.run` calls.
    """
    one = functools.partial(robust_step, optimizer=optimizer, stuck_at=stuck_at, **objective)
    step = jax.jit(one)

    def advance(number: int, group: int, *arguments: Any) -> tuple[TrainState, Losses]:
        state, plan, *batch = arguments
        return step(state, plan, jax.random.fold_in(key, number), *batch)

    def plan_all(states: Sequence[TrainState]) -> list[memsim.Plan]:
        return [replan(state.params, None) for state in states]

    states = [TrainState(params, optimizer.init(params))]
    return Tuning(states, plan_all(states)), _make_step(advance, plan_all, refresh, schedule)


def _mean(*of_groups: Array) -> Array:
    """Over all chips, of groups that may be of several sizes."""
    return jnp.mean(jnp.concatenate([jnp.ravel(losses) for losses in of_groups]))


def _make_step(
    advance: Callable[..., tuple[TrainState, Losses]],
    plan_all: Callable[[Sequence[TrainState]], list[memsim.Plan]],
    refresh: int,
    schedule: optax.Schedule,
) -> Step:
    def step(number: int, tuning: Tuning, batch: Batch) -> tuple[Tuning, Mapping[str, Any]]:
        states, plans = tuning
        if refresh and number and number % refresh == 0:
            plans = plan_all(states)
        pairs = zip(states, plans, strict=True)
        done = [advance(number, group, *pair, *batch) for group, pair in enumerate(pairs)]
        means = jax.tree.map(_mean, *(losses for _, losses in done))
        metrics = {
            "loss": means.task,
            "expected_writes_per_weight": means.writes,
            "learning_rate": schedule(number),
        }
        return Tuning([state for state, _ in done], plans), metrics

    return step
