"""Training steps as plain functions on pytrees: ordinary, and through programming a chip."""

import functools
from typing import NamedTuple

import jax
import optax
import rich.progress
from jaxtyping import Array, PyTree

import memsim
from training.data import Dataset, shifted_batches
from training.evaluation import Apply, cross_entropy


def stuck_aware_loss(
    params: PyTree,
    plan: memsim.Plan,
    chip: memsim.Chip,
    images: Array,
    labels: Array,
    *,
    apply: Apply,
) -> Array:
    """Loss of the network that `chip` holds when `params` are programmed onto it.

    Args:
      params: float weights, any pytree that `plan` was made for.
      apply: `(params, images) -> logits` of any library.
    """
    held, _ = memsim.program(params, plan, chip)
    return cross_entropy(apply(held, images), labels)


class TrainState(NamedTuple):
    """Weights and the optimizer's state."""

    params: PyTree
    optimizer: optax.OptState


def stuck_aware_step(
    state: TrainState,
    plan: memsim.Plan,
    chip: memsim.Chip,
    images: Array,
    labels: Array,
    *,
    apply: Apply,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Array]:
    """One step of fine-tuning for one chip; `vmap` over `state` and `chip` for many.

    Returns:
      The state after the step, and the loss before it.
    """
    loss = functools.partial(stuck_aware_loss, apply=apply)
    value, gradient = jax.value_and_grad(loss)(state.params, plan, chip, images, labels)
    return _update(state, gradient, optimizer), value


def float_step(
    state: TrainState,
    images: Array,
    labels: Array,
    *,
    apply: Apply,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Array]:
    """One step of ordinary training. Returns the state after it, and the loss before it."""

    def loss(params: PyTree) -> Array:
        return cross_entropy(apply(params, images), labels)

    value, gradient = jax.value_and_grad(loss)(state.params)
    return _update(state, gradient, optimizer), value


def _update(
    state: TrainState, gradient: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    updates, inner = optimizer.update(gradient, state.optimizer, state.params)
    return TrainState(optax.apply_updates(state.params, updates), inner)


def train(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    seed: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    bar: rich.progress.Progress,
) -> PyTree:
    """Ordinary training with Adam and a cosine schedule. Returns the weights."""
    steps = epochs * (len(data.train_labels) // batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    step = jax.jit(functools.partial(float_step, apply=apply, optimizer=optimizer))
    state = TrainState(params, optimizer.init(params))
    batches = shifted_batches(data, batch, seed)
    for _ in bar.track(range(steps), description="training the float network"):
        state, _ = step(state, *next(batches))
    return state.params
