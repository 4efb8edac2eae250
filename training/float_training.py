"""Ordinary training of a network in float, before or between its programmings."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import optax
import rich.progress
from jaxtyping import Array, PyTree

from training.data import Batch
from training.evaluation import Apply, cross_entropy


class TrainState(NamedTuple):
    """Weights and the optimizer's state."""

    params: PyTree
    optimizer: optax.OptState


def float_step(
    state: TrainState,
    images: Array,
    labels: Array,
    *,
    apply: Apply,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Array]:
    """Takes one step of ordinary training.

    Returns:
      The state after it, and the loss before it.
    """

    def loss(params: PyTree) -> Array:
        return cross_entropy(apply(params, images), labels)

    value, gradient = jax.value_and_grad(loss)(state.params)
    return descend(state, gradient, optimizer), value


def descend(
    state: TrainState, gradient: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    """Moves the weights by what the optimizer makes of a gradient."""
    updates, inner = optimizer.update(gradient, state.optimizer, state.params)
    return TrainState(optax.apply_updates(state.params, updates), inner)


def train(
    apply: Apply,
    params: PyTree,
    batches: Iterator[Batch],
    steps: int,
    learning_rate: float,
    bar: rich.progress.Progress,
) -> PyTree:
    """Trains with Adam and a cosine schedule, and returns the weights."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    step = jax.jit(functools.partial(float_step, apply=apply, optimizer=optimizer))
    state = TrainState(params, optimizer.init(params))
    for _ in bar.track(range(steps), description="training the float network"):
        state, _ = step(state, *next(batches))
    return state.params
