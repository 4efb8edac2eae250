"""The writes of a programming as a smooth function of the weights: a penalty to train with."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, PyTree, UInt

from memsim._checks import check_kind, check_number, is_known
from memsim.chip import Chip
from memsim.codes import AnyArray, bit_slice, encode
from memsim.config import CrossbarConfig
from memsim.network import anonymous, check_belongs, check_chip, join, stucking_of
from memsim.placement import apply_placement, negate_rows
from memsim.planning import LayerPlan, Plan
from memsim.programming import Stucking, draws_cells, enable_slots
from memsim.schedule import Schedule, Slots, apply_schedule
from memsim.selection import by_output, named_leaves, slice_of, tensor_name

__all__ = ["expected_writes", "soft_cells"]


def expected_writes(
    params: PyTree, plan: Plan, chip: Chip, *, width: float | Float[Array, ""] = 1.0
) -> Float32[Array, " layers"]:
    """Estimates the writes of one pass over `chip`, expected when every weight is dithered.

    Every weight is moved by its own uniform noise of `width` steps of its scale before it is
    rounded, so that each cell holds a level with a probability that is smooth in the weight; a
    write is expected where the levels of a cell before and after differ. Cells that the chip
    leaves alone (stuck-at faults, bit stucking, unused rows) are left alone here too. Of weights
    that lie on the grid, with `width` 1, it is what `program` counts.

    Runs under `jit`, `grad` and `vmap`. The gradient pulls each weight towards codes whose cells
    resemble those of the weights programmed before and after it on the same rows.

    Args:
      params: pytree of the network that `plan` was made for; weights may have moved since.
      plan, chip: as `program` takes them.
      width: of the noise, in codes, at least 1. Bits that count much less than it are as good as
        random, and pull no longer.

    Returns:
      Expected writes of each layer, in the order of `plan.names`.

    Raises:
      ValueError: a plan or chip that belongs to another network; `width` below 1; a plan of
        `flip-n-write`, whose complements are chosen for words that do not move.
    """
    if not (isinstance(width, jax.Array) and jnp.issubdtype(width.dtype, jnp.number)):
        check_number("width", width, "dither by at least 1 code", 1)
    elif is_known(width) and (width.shape != () or not float(width) >= 1):
        raise ValueError(f"`width` is {width}; dither by at least 1 code.")
    check_kind("plan", plan, Plan, "give (params, plan, chip), the plan from `memsim.plan`")
    check_kind("chip", chip, Chip, "give one that `memsim.sample_chip` drew from a key")
    leaves, names = named_leaves(params), plan.names
    layers = [plan.layers[name] for name in names]
    weights = []
    for name, layer in zip(names, layers, strict=True):
        tensor: Any = leaves.get(tensor_name(name, layer.matrix))
        check_belongs(name, tensor, layer)
        if layer.flips is not None:
            raise ValueError("`plan` is one of flip-n-write; plan with another policy.")
        weights.append(slice_of(tensor, layer.matrix))
    check_chip(plan, chip)
    # layer by layer, in programs that layers of one shape share
    placed = [
        _placed(w, anonymous(layer), plan.config) for w, layer in zip(weights, layers, strict=True)
    ]
    stucking = stucking_of(layers, plan.config)
    writes: Array = _expected_writes(
        join(placed),
        plan.schedule,
        plan.slots,
        stucking,
        chip,
        jnp.float32(width),
        plan.config,
        draws_cells(stucking),
    )
    return writes


@functools.partial(jax.jit, static_argnames=("config", "draws"))
def _expected_writes(
    placed: Float32[Array, "sections words"],
    schedule: Schedule,
    slots: Slots,
    stucking: Stucking,
    chip: Chip,
    width: Float32[Array, ""],
    config: CrossbarConfig,
    draws: bool,
) -> Float32[Array, " layers"]:
    target = soft_cells(apply_schedule(placed, schedule), width, config)
    # cells that may change in the pass that comes next
    enable = enable_slots(slots, stucking, chip, chip.passes, config, draws)
    may_change = bit_slice(enable, config) != 0
    before = _before_each_step(target, may_change, _levels(chip.state, config))
    # a cell stays where it has the same level before and after, level 0 included
    empty = [1 - jnp.sum(levels, axis=-1) for levels in (target, before)]
    same = empty[0] * empty[1] + jnp.sum(target * before, axis=-1)
    writes = jnp.sum(jnp.where(may_change, 1 - same, 0), axis=(-2, -1))  # over rows and columns
    layer = jnp.asarray(slots.layer).reshape(-1)
    return jax.ops.segment_sum(writes.reshape(-1), layer, stucking.fixed.shape[0])


@functools.partial(jax.jit, static_argnames=("config",))
def _placed(
    weights: Float[Array, "..."], layer: LayerPlan, config: CrossbarConfig
) -> Float32[Array, "sections words"]:
    """Gives codes before rounding, in their rows."""
    quotients = weights.astype(jnp.float32) / layer.scale
    clipped = jnp.clip(quotients, -config.max_code, config.max_code)
    codes = by_output(clipped, layer.matrix).reshape(-1)
    added = layer.offset if layer.delta is None else layer.delta
    if added is not None:
        codes = codes + added.astype(jnp.float32)
    if added is not None or layer.negated is not None:
        codes = negate_rows(codes, layer.negated, layer.placement)
        codes = jnp.clip(codes, config.min_code, config.max_code)
    return apply_placement(codes, layer.placement)


def soft_cells(
    codes: Float32[Array, "*shape"], width: Float32[AnyArray, ""], config: CrossbarConfig
) -> Float32[Array, "*shape columns levels"]:
    """Computes probabilities of the levels of each cell, level 0 left out, of dithered codes.

    Args:
      codes: not rounded, within min_code..max_code.
      width: of the uniform noise that is added before rounding; the part of it that would leave
        the range of codes is cut off.
    """
    # The mean over an interval is a difference of integrals, and the integral of what codes store
    # is a straight line from one half-integer to the next.
    stored = np.arange(config.min_code, config.max_code + 1, dtype=np.int32)
    with jax.ensure_compile_time_eval():
        levels = np.asarray(_levels(encode(jnp.asarray(stored), config), config))
    integral = np.concatenate([np.zeros_like(levels[:1]), np.cumsum(levels, axis=0)])

    def integrate(x: Array) -> Array:  # from the lower end of the range
        code = jnp.clip(jnp.floor(x), 0, len(stored) - 1)
        index = jax.lax.stop_gradient(code).astype(jnp.int32)
        rest = (x - jax.lax.stop_gradient(code))[..., None, None]
        return jnp.asarray(integral)[index] + rest * jnp.asarray(levels)[index]

    # the interval of the noise, as far as codes go
    middle = codes - (config.min_code - 0.5)
    low = jnp.maximum(middle - width / 2, 0)
    high = jnp.minimum(middle + width / 2, len(stored))
    return (integrate(high) - integrate(low)) / (high - low)[..., None, None]


def _levels(
    words: UInt[Array, "*shape"], config: CrossbarConfig
) -> Float32[Array, "*shape columns levels"]:
    """Marks the level of each cell by 1; level 0 is left out: the others say it."""
    cells = bit_slice(words, config)
    levels = [cells == jnp.uint8(level) for level in range(1, 2**config.cell_bits)]
    return jnp.stack(levels, axis=-1).astype(jnp.float32)


def _before_each_step(
    target: Float32[Array, "steps *cells levels"],
    may_change: Bool[Array, "steps *cells"],
    state: Float32[Array, "*cells levels"],
) -> Float32[Array, "steps *cells levels"]:
    """Finds what cells hold before each step: the last target that could change them."""
    # the last step up to each that could change a cell, by its number; 0 for none
    number = jnp.arange(1, len(target) + 1, dtype=jnp.int32)
    number = number.reshape(-1, *[1] * (may_change.ndim - 1))
    changed = jnp.where(may_change, number, 0)
    last = jax.lax.associative_scan(jnp.maximum, changed)
    last = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
    held = jnp.concatenate([state[None], target])
    return jnp.take_along_axis(held, last[..., None], axis=0)
