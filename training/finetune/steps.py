"""Steps of fine-tuning through the programming of a chip, as plain functions on pytrees."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32, Key, PyTree

import memsim
from training.evaluation import Apply, cross_entropy, distillation
from training.float_training import TrainState, descend

Teacher = Callable[[Array], Float[Array, "*batch classes"]]


class Losses(NamedTuple):
    """The losses of a step of fine-tuning.

    Attributes:
      task: loss of the network that the chip holds.
      writes: expected writes per weight; 0 where they have no price.
    """

    task: Float32[Array, ""]
    writes: Float32[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The objective of fine-tuning; all of it static under `jit`.

    Attributes:
      apply: `(params, images) -> logits` of any library.
      teacher: `images -> logits` to imitate in place of the labels.
      write_price: loss that one write per weight counts as.
      write_width: see `memsim.expected_writes`.
      readout: how the chip is read; None for ideal cells and wires.
      passes: programmings, of which the last counts: in weight streaming cells that bit stucking
        leaves hold what the pass before put there, after an erased start at 2.
      writing: how writes fail, so that the loss is of weights that were really written; None where
        none does.
    """

    apply: Apply
    teacher: Teacher | None = None
    write_price: float = 0.0
    write_width: float = 1.0
    readout: memsim.Readout | None = None
    passes: int = 1
    writing: memsim.Writing | None = None


def stuck_aware_loss(
    params: PyTree,
    plan: memsim.Plan,
    chip: memsim.Chip,
    images: Array,
    labels: Array,
    objective: Objective,
    read_key: Key[Array, ""] | None = None,
) -> tuple[Array, Losses]:
    """Computes the loss of the network that `chip` holds when `params` are programmed onto it.

    Args:
      params: float weights, any pytree that `plan` was made for.
      read_key: key of what the cells vary by when they are read (consumed); None reads them as
        ideal.

    Returns:
      (total, its parts).
    """
    readout = None if read_key is None else objective.readout
    held, programming = memsim.program(
        params, plan, chip,
        passes=objective.passes, words=readout is not None, writing=objective.writing,
    )  # fmt: skip
    if readout is not None and read_key is not None:
        held = memsim.read_weights(read_key, held, plan, programming, readout)
    logits, teacher = objective.apply(held, images), objective.teacher
    task = distillation(logits, teacher(images)) if teacher else cross_entropy(logits, labels)
    if not objective.write_price:
        return task, Losses(task, jnp.zeros_like(task))
    weights = sum(layer.placement.positions.size for layer in plan.layers.values())
    expected = memsim.expected_writes(params, plan, chip, width=objective.write_width)
    writes = expected.sum() / weights
    return task + objective.write_price * writes, Losses(task, writes)


def stuck_aware_step(
    state: TrainState,
    plan: memsim.Plan,
    chip: memsim.Chip,
    images: Array,
    labels: Array,
    *,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    read_key: Key[Array, ""] | None = None,
) -> tuple[TrainState, Losses]:
    """Takes one step of fine-tuning for one chip; `vmap` over `state`, `plan`, `chip` for many.

    Args:
      read_key: see `stuck_aware_loss`.

    Returns:
      The state after the step, and the losses before it.
    """
    loss = functools.partial(stuck_aware_loss, objective=objective, read_key=read_key)
    gradient, losses = jax.grad(loss, has_aux=True)(state.params, plan, chip, images, labels)
    return descend(state, gradient, optimizer), losses


def robust_step(
    state: TrainState,
    plan: memsim.Plan,
    key: Key[Array, ""],
    images: Array,
    labels: Array,
    *,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    stuck_at: float | Float32[Array, ""] = 0.0,
) -> tuple[TrainState, Losses]:
    """Takes a `stuck_aware_step` for a chip never seen: the weights will serve any such chip.

    Args:
      key: of the chip; consumed.
      stuck_at: share of cells stuck, half of them at each level.
    """
    chip = memsim.sample_chip(key, plan, stuck_at / 2, stuck_at / 2)
    read_key = jax.random.fold_in(key, 1) if objective.readout else None
    return stuck_aware_step(
        state, plan, chip, images, labels,
        optimizer=optimizer, objective=objective, read_key=read_key,
    )  # fmt: skip


def weight_limits(params: PyTree, deviations: float) -> PyTree:
    """Limits each weight matrix to so many standard deviations; infinity for every other tensor.

    The largest weight sets the scale of a tensor and with it how much a stuck bit changes: without
    its outliers a network is hurt less by the same bits.
    """

    def limit(tensor: Array) -> Array:
        return deviations * jnp.std(tensor) if tensor.ndim > 1 else jnp.float32(jnp.inf)

    return jax.tree.map(limit, params)


def clipped(params: PyTree, limits: PyTree) -> PyTree:
    """Returns the weights, none of them past its limit."""
    return jax.tree.map(lambda w, limit: jnp.clip(w, -limit, limit), params, limits)


def within(limits: PyTree) -> optax.GradientTransformation:
    """Keeps weights between `-limits` and `limits`: the last transformation of a chain."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        def clip(update: Array, tensor: Array, limit: Array) -> Array:
            return jnp.clip(tensor + update, -limit, limit) - tensor

        return jax.tree.map(clip, updates, params, limits)

    return optax.stateless(update)
