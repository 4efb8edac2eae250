"""A whole network programmed onto chips, under `jit`, `grad` and `vmap`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Key, PyTree, Shaped, UInt

from memsim import chip as chips
from memsim.chip import Chip
from memsim.codes import AnyArray, decode, dequantize, encode, rounded_quotient, to_codes
from memsim.config import CrossbarConfig
from memsim.placement import apply_placement, invert_placement
from memsim.planning import LayerPlan, Plan
from memsim.programming import Counts, Stucking, enable_slots, program_steps
from memsim.schedule import Schedule, Slots, apply_schedule, invert_schedule
from memsim.selection import by_output, from_output, named_leaves


class Programming(NamedTuple):
    """What programming a network did.

    Attributes:
      counts: SETs, RESETs [passes, layers, columns] and row operations [passes, layers]; int32,
        layers in the order of `plan.names`.
      wear: unsigned [crossbars, rows, columns], writes per cell; None unless `wear=True`.
      words: by layer, [sections, physical_rows], what the rows of each section held when it was
        read, after the last pass; None unless `words=True`.
      chip: the chip afterwards.
    """

    counts: Counts
    wear: UInt[Array, "crossbars rows columns"] | None
    words: dict[str, UInt[Array, "sections rows"]] | None
    chip: Chip


def sample_chip(
    key: Key[Array, ""],
    plan: Plan,
    stuck_at_0: float | Float[Array, ""] = 0.0,
    stuck_at_1: float | Float[Array, ""] = 0.0,
) -> Chip:
    """Draws one chip for `plan`; `vmap` over `key` for many.

    Args:
      key: consumed.
      stuck_at_0, stuck_at_1: probabilities of a cell to be stuck at its lowest, or highest, level:
        exclusive ("1 % stuck-at" means half of each).

    Raises:
      ValueError: rates outside 0..1, or whose sum exceeds 1.
    """
    rates = (stuck_at_0, stuck_at_1)
    if not any(isinstance(rate, jax.core.Tracer) for rate in rates):
        chips.check_rates(float(stuck_at_0), float(stuck_at_1))
    low, high = (jnp.asarray(rate, jnp.float32) for rate in rates)
    return chips.new_chip(key, plan.crossbars, plan.config, low, high)


def program(
    params: PyTree,
    plan: Plan,
    chip: Chip,
    *,
    passes: int = 1,
    wear: bool = False,
    words: bool = False,
) -> tuple[PyTree, Programming]:
    """Programs a network onto a chip: the weights the chip really holds, and what it took.

    Runs under `jit`, `grad` and `vmap` (over chips, params or both). Gradients are
    straight-through: 1 where the code is not clipped.

    Args:
      params: pytree of the network that `plan` was made for; weights may have moved since.
      plan, chip: from `plan` and `sample_chip` (or `programming.chip` of an earlier call).
      passes: times the whole network is programmed, state carrying over (static).
      wear: also count writes per cell (static): as large as the chip.
      words: also give the words that the rows held (static), for `read_weights`: as large as the
        network.

    Returns:
      (effective, programming): `params` with every selected tensor replaced by
      decode(achieved word) * scale of the last pass, in its own dtype; and the counts.

    Raises:
      ValueError: a plan or chip that belongs to another network, or `passes` < 1.
    """
    if passes < 1:
        raise ValueError(f"`passes` is {passes}; program the network at least once.")
    leaves = named_leaves(params)
    names = plan.names
    for name in names:
        check_belongs(name, leaves.get(name), plan.layers[name])
    check_chip(plan, chip)
    weights = [leaves[name] for name in names]
    layers = [plan.layers[name] for name in names]
    effective, held, programming = _program_layers(
        weights, layers, plan.schedule, plan.slots, chip, plan.config, passes, wear, words
    )
    if words:
        programming = programming._replace(words=dict(zip(names, held, strict=True)))
    leaves |= dict(zip(names, effective, strict=True))
    return jax.tree.unflatten(jax.tree.structure(params), leaves.values()), programming


def check_belongs(name: str, leaf: Any, layer: LayerPlan) -> None:
    """Checks that a tensor is the one a plan was made for.

    Raises:
      ValueError: it is missing or has another shape.
    """
    shape = None if leaf is None else tuple(leaf.shape)
    if shape != layer.matrix.shape:
        found = "there is no such tensor" if leaf is None else f"the tensor is {shape}"
        raise ValueError(
            f"`plan` belongs to another network: it has `{name}` of shape {layer.matrix.shape}, "
            f"but {found}; plan this network."
        )


def check_chip(plan: Plan, chip: Chip) -> None:
    """Checks that a chip has the crossbars a plan needs.

    Raises:
      ValueError: another number of crossbars or rows, or words of another dtype.
    """
    needed = (plan.crossbars, plan.config.physical_rows)
    if chip.state.shape != needed or chip.state.dtype != plan.config.word_dtype:
        raise ValueError(
            f"`chip` belongs to another network or config: it holds {chip.state.dtype} words "
            f"{chip.state.shape}, the plan needs {plan.config.word_dtype} {needed} "
            "([crossbars, rows]); sample a chip for this plan."
        )


@functools.partial(jax.jit, static_argnames=("config", "passes", "wear", "words"))
def _program_layers(
    weights: list[Float[Array, "..."]],
    layers: list[LayerPlan],
    schedule: Schedule,
    slots: Slots,
    chip: Chip,
    config: CrossbarConfig,
    passes: int,
    wear: bool,
    words: bool,
) -> tuple[list[Float[Array, "..."]], list[UInt[Array, "sections rows"]], Programming]:
    # Nothing slow to compile is there once per layer.
    quotients = [
        rounded_quotient(jax.lax.stop_gradient(w), layer.scale)
        for w, layer in zip(weights, layers, strict=True)
    ]
    target = target_words(quotients, layers, schedule, config)
    stucking = stucking_of(layers, config)
    done = program_steps(target, slots, stucking, chip, config, passes, wear)
    counts = jax.tree.map(
        jax.vmap(lambda count: sum_per_layer(count, slots.layer, len(layers))),
        done.counts,
    )
    achieved = _split(invert_schedule(done.achieved, schedule), layers)
    effective = [
        _effective(w, q, words, layer, config)
        for w, q, words, layer in zip(weights, quotients, achieved, layers, strict=True)
    ]
    after = chip._replace(state=done.state, passes=chip.passes + passes)
    return effective, achieved if words else [], Programming(counts, done.wear, None, after)


def target_words(
    quotients: list[Float32[Array, "..."]],
    layers: list[LayerPlan],
    schedule: Schedule,
    config: CrossbarConfig,
) -> UInt[Array, "steps crossbars rows"]:
    """The words to program at every step, from the rounded quotients of consecutive layers."""

    def sections(quotients: Array, layer: LayerPlan) -> Array:
        codes = by_output(to_codes(quotients, config), layer.matrix).reshape(-1)
        added = layer.offset if layer.delta is None else layer.delta
        if added is not None:  # weights may have moved since: within what a word can hold
            moved = codes.astype(jnp.int32) + added.astype(jnp.int32)
            codes = jnp.clip(moved, config.min_code, config.max_code)
        words = apply_placement(encode(codes, config), layer.placement)
        if layer.flips is None:
            return words
        flips = jnp.asarray(layer.flips)
        stored = words ^ flips
        return jnp.concatenate([stored, flips], 1) if config.flags == "section" else stored

    every = [sections(q, layer) for q, layer in zip(quotients, layers, strict=True)]
    return apply_schedule(jnp.concatenate(every), schedule)


def _effective(
    weights: Float[Array, "*shape"],
    quotients: Float32[Array, "*shape"],
    achieved: UInt[Array, "sections rows"],
    layer: LayerPlan,
    config: CrossbarConfig,
) -> Float[Array, "*shape"]:
    if config.flags == "section":  # as the flag cells say, wrong ones too
        achieved = achieved[:, : config.rows] ^ achieved[:, config.rows :]
    codes = decode(invert_placement(achieved, layer.placement), config)
    if layer.offset is not None:
        codes = codes.astype(jnp.int32) - layer.offset
    if layer.correction is not None:
        per_output = codes.reshape(layer.matrix.outputs, layer.matrix.inputs)
        codes = per_output.astype(jnp.float32) - layer.correction[:, None]
    codes = from_output(codes, layer.matrix)
    held = dequantize(codes, layer.scale, weights.dtype)
    # straight-through; not w + stop_gradient(held - w), which rounds
    unclipped = (jnp.abs(quotients) <= config.max_code).astype(weights.dtype)
    return jax.lax.stop_gradient(held) + unclipped * (weights - jax.lax.stop_gradient(weights))


def stucking_of(layers: list[LayerPlan], config: CrossbarConfig) -> Stucking:
    """Bit stucking of consecutive layers, in the form that the kernel takes."""
    masks = [config.low_mask(low) for low in range(config.bits + 1)]
    low_columns = jnp.stack([layer.low_columns for layer in layers])
    return Stucking(
        reprogram=jnp.stack([layer.reprogram for layer in layers]),
        low_mask=jnp.asarray(masks, config.word_dtype)[low_columns],
        fixed=jnp.stack([layer.fixed for layer in layers]),
    )


def _sections(layers: list[LayerPlan]) -> list[int]:
    return [layer.placement.used_rows.shape[0] for layer in layers]


def _split(values: Shaped[Array, "sections ..."], layers: list[LayerPlan]) -> list[Array]:
    """Cuts values of every section of the network into those of each layer."""
    return jnp.split(values, np.cumsum(_sections(layers))[:-1])


def sum_per_layer(
    counts: Int32[Array, "steps crossbars *shape"],
    layer: Int32[AnyArray, "steps crossbars"],
    layers: int,
) -> Int32[Array, "layers *shape"]:
    """Counts of every slot, summed over the slots of each layer."""
    flat = counts.reshape(-1, *counts.shape[2:])
    return jax.ops.segment_sum(flat, layer.reshape(-1), layers)


@jax.jit
def enable_words(plan: Plan, chip: Chip) -> dict[str, UInt[Array, "sections rows"]]:
    """The write-enable words of the chip's next pass: bit b is 1 where that bit may change.

    Returns:
      By layer, words [sections, physical_rows], sections in programming order. Unused rows,
      stuck-at cells and cells left alone by bit stucking are 0.

    Raises:
      ValueError: a chip that belongs to another network.
    """
    check_chip(plan, chip)
    names = plan.names
    layers = [plan.layers[name] for name in names]
    stucking = stucking_of(layers, plan.config)
    enable = enable_slots(plan.slots, stucking, chip, chip.passes, plan.config)
    return dict(zip(names, _split(invert_schedule(enable, plan.schedule), layers), strict=True))
