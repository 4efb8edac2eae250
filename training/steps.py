"""Training steps as plain functions on pytrees: ordinary, and through programming a chip."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import rich.progress
from jaxtyping import Array, Float, Float32, Key, PyTree

import memsim
from training.data import Batch
from training.evaluation import Apply, cross_entropy, distillation

Teacher = Callable[[Array], Float[Array, "batch classes"]]


class TrainState(NamedTuple):
    """Weights and the optimizer's state."""

    params: PyTree
    optimizer: optax.OptState


class Losses(NamedTuple):
    """What a step of fine-tuning was after.

    Attributes:
      task: loss of the network that the chip holds.
      writes: expected writes per weight; 0 where they have no price.
    """

    task: Float32[Array, ""]
    writes: Float32[Array, ""]


def stuck_aware_loss(
    params: PyTree,
    plan: memsim.Plan,
    chip: memsim.Chip,
    images: Array,
    labels: Array,
    *,
    apply: Apply,
    teacher: Teacher | None = None,
    write_price: float = 0.0,
    write_width: float = 1.0,
    readout: memsim.Readout | None = None,
    read_key: Key[Array, ""] | None = None,
    passes: int = 1,
) -> tuple[Array, Losses]:
    """Loss of the network that `chip` holds when `params` are programmed onto it.

    Args:
      params: float weights, any pytree that `plan` was made for.
      apply: `(params, images) -> logits` of any library.
      teacher: `images -> logits` to imitate in place of the labels.
      write_price: static; loss that one write per weight is worth.
      write_width: see `memsim.expected_writes`.
      readout, read_key: how the chip is read, and the key of what its cells vary by (consumed);
        None for ideal cells and wires.
      passes: static; programmings, of which the last counts: in weight streaming cells that bit
        stucking leaves hold what the pass before put there, after an erased start at 2.

    Returns:
      (total, its parts).
    """
    held, programming = memsim.program(
        params, plan, chip, passes=passes, words=read_key is not None
    )
    if readout is not None and read_key is not None:
        held = memsim.read_weights(read_key, held, plan, programming, readout)
    logits = apply(held, images)
    task = distillation(logits, teacher(images)) if teacher else cross_entropy(logits, labels)
    if not write_price:
        return task, Losses(task, jnp.zeros_like(task))
    weights = sum(layer.placement.positions.size for layer in plan.layers.values())
    writes = memsim.expected_writes(params, plan, chip, width=write_width).sum() / weights
    return task + write_price * writes, Losses(task, writes)


def stuck_aware_step(
    state: TrainState,
    plan: memsim.Plan,
    chip: memsim.Chip,
    images: Array,
    labels: Array,
    *,
    optimizer: optax.GradientTransformation,
    **objective: Any,
) -> tuple[TrainState, Losses]:
    """One step of fine-tuning for one chip; `vmap` over `state`, `plan` and `chip` for many.

    Args:
      objective: keywords of `stuck_aware_loss`, at least `apply`.

    Returns:
      The state after the step, and the losses before it.
    """
    loss = functools.partial(stuck_aware_loss, **objective)
    gradient, losses = jax.grad(loss, has_aux=True)(state.params, plan, chip, images, labels)
    return _update(state, gradient, optimizer), losses


def robust_step(
    state: TrainState,
    plan: memsim.Plan,
    key: Key[Array, ""],
    images: Array,
    labels: Array,
    *,
    stuck_at: float | Float32[Array, ""] = 0.0,
    **options: Any,
) -> tuple[TrainState, Losses]:
    """`stuck_aware_step` for a chip never seen before: the weights will serve any such chip.

    Args:
      key: of the chip; consumed.
      stuck_at: share of cells stuck, half of them at each level.
      options: keywords of `stuck_aware_step`.
    """
    chip = memsim.sample_chip(key, plan, stuck_at / 2, stuck_at / 2)
    if options.get("readout"):
        options["read_key"] = jax.random.fold_in(key, 1)
    return stuck_aware_step(state, plan, chip, images, labels, **options)


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


def weight_limits(params: PyTree, deviations: float) -> PyTree:
    """So many standard deviations of each weight matrix; infinity for every other tensor.

    The largest weight sets the scale of a tensor and with it what a stuck bit is worth: without
    its outliers a network is hurt less by the same bits.
    """

    def limit(tensor: Array) -> Array:
        return deviations * jnp.std(tensor) if tensor.ndim > 1 else jnp.float32(jnp.inf)

    return jax.tree.map(limit, params)


def within(limits: PyTree) -> optax.GradientTransformation:
    """The last transformation of a chain: keeps weights between `-limits` and `limits`."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        def clip(update: Array, tensor: Array, limit: Array) -> Array:
            return jnp.clip(tensor + update, -limit, limit) - tensor

        return jax.tree.map(clip, updates, params, limits)

    return optax.stateless(update)


def train(
    apply: Apply,
    params: PyTree,
    batches: Iterator[Batch],
    steps: int,
    learning_rate: float,
    bar: rich.progress.Progress,
) -> PyTree:
    """Ordinary training with Adam and a cosine schedule. Returns the weights."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    step = jax.jit(functools.partial(float_step, apply=apply, optimizer=optimizer))
    state = TrainState(params, optimizer.init(params))
    for _ in bar.track(range(steps), description="training the float network"):
        state, _ = step(state, *next(batches))
    return state.params
