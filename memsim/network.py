"""A whole network: plan it on the host, program it onto chips under `jit`, `grad`, `vmap`."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int8, Int32, Key, PyTree, Shaped, UInt

from memsim import chip as chips
from memsim.chip import Chip
from memsim.codes import (
    AnyArray,
    decode,
    dequantize,
    encode,
    quantization_scale,
    rounded_quotient,
    to_codes,
)
from memsim.config import CrossbarConfig, Policy, validate
from memsim.placement import (
    Placement,
    apply_placement,
    index_bits,
    invert_placement,
    place,
)
from memsim.program import Counts, Stucking, enable_slots, program_steps
from memsim.schedule import Schedule, Slots, apply_schedule, invert_schedule, network_schedule
from memsim.selection import (
    Select,
    by_output,
    from_output,
    in_natural_order,
    named_leaves,
    output_axes,
    select_by_name,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Matrix:
    """The weight matrix that a tensor is: static.

    Attributes:
      shape: of the tensor.
      axes: its output axes; all others are inputs.
      inputs, outputs: shape of the matrix.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    inputs: int
    outputs: int


class LayerPlan(NamedTuple):
    """How one layer is programmed; all but `matrix` are arrays.

    Attributes:
      matrix: the layer's shape (static).
      scale: float32, broadcastable to the tensor.
      placement: which weight sits in which (section, row).
      low_columns, reprogram, fixed: int32, float32 and bool, bit stucking.
      index_bits: float32, routing memory per weight.
      analog_valid: bool, whether every section holds weights of one output only.
      delta: int8 [weights], what is added to the code of each weight, in the order of
        `Placement`; None unless the policy is `matched`.
    """

    matrix: Matrix
    scale: Float32[AnyArray, "..."]
    placement: Placement
    low_columns: Int32[AnyArray, ""]
    reprogram: Float32[AnyArray, ""]
    fixed: Bool[AnyArray, ""]
    index_bits: Float32[AnyArray, ""]
    analog_valid: Bool[AnyArray, ""]
    delta: Int8[AnyArray, " weights"] | None = None


class Plan(NamedTuple):
    """How a network is programmed. A pytree: p, low and the placements are array leaves.

    Attributes:
      config: the crossbars (static).
      layers: the plan of each selected tensor, by name.
      schedule: which section goes on which crossbar at which step; sections of all layers are
        numbered through, in the order of `names`.
      slots: what is there.
    """

    config: CrossbarConfig
    layers: dict[str, LayerPlan]
    schedule: Schedule
    slots: Slots

    @property
    def names(self) -> list[str]:
        """Layers in the order they are programmed in."""
        return in_natural_order(self.layers)

    @property
    def crossbars(self) -> int:
        """Physical crossbars that the plan needs."""
        return self.schedule.sections.shape[1]


class Programming(NamedTuple):
    """What programming a network did.

    Attributes:
      counts: SETs, RESETs [passes, layers, columns] and row operations [passes, layers]; int32,
        layers in the order of `plan.names`.
      wear: unsigned [crossbars, rows, columns], writes per cell; None unless `wear=True`.
      chip: the chip afterwards.
    """

    counts: Counts
    wear: UInt[Array, "crossbars rows columns"] | None
    chip: Chip


def plan(
    params: PyTree, config: CrossbarConfig, policy: Policy, *, select: Select | None = None
) -> Plan:
    """Decides offline, on the host, how a network is programmed: scales, placements, schedules.

    Args:
      params: any pytree of host or device arrays (not traced).
      config, policy: the crossbars and how they are programmed.
      select: `(name, tensor) -> number of output axes`, or None to leave a tensor digital; the
        default goes by the names, see `select_by_name`.

    Returns:
      The plan. Its shapes depend on the network, the config and the placement's scope alone, so
      that other p, low or placements never recompile what takes it.

    Raises:
      ValueError: nothing selected; an empty or scalar tensor selected; NaN or infinite weights;
        more low columns than bits.
    """
    validate(config, policy)
    leaves = named_leaves(params)
    axes = select_layers(leaves, select or select_by_name())
    for name in axes:
        if isinstance(leaves[name], jax.core.Tracer):
            raise ValueError(f"`{name}` is traced; call `plan` outside `jit`, `grad` and `vmap`.")

    def plan_one(name: str) -> LayerPlan:
        return plan_layer(name, np.asarray(leaves[name]), axes[name], config, policy)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy sorts without the interpreter's lock
        planned = dict(zip(axes, pool.map(plan_one, axes), strict=True))
    layers, held = {}, np.zeros(config.rows, np.int32)
    for name, layer in planned.items():
        layers[name], held = settle_layer(layer, held, config, policy)
    used_rows = [layer.placement.used_rows for layer in layers.values()]
    return jax.tree.map(jnp.asarray, Plan(config, layers, *network_schedule(used_rows, config)))


def select_layers(leaves: Mapping[str, Any], select: Select) -> dict[str, tuple[int, ...]]:
    """The output axes of every tensor that `select` chooses, in natural order of the names.

    Raises:
      ValueError: none is chosen, or one that cannot be a weight matrix.
    """
    axes = {
        name: output_axes(name, leaves[name], chosen)
        for name in in_natural_order(leaves)
        if (chosen := select(name, leaves[name])) is not None
    }
    if not axes:
        raise ValueError(
            f"None of {len(leaves)} tensors is a weight matrix: by default names end in `weight` "
            "or `kernel` and have two or more dimensions; choose others with `select`."
        )
    return axes


def plan_layer(
    name: str,
    tensor: np.ndarray,
    axes: tuple[int, ...],
    config: CrossbarConfig,
    policy: Policy,
) -> LayerPlan:
    """Plans one layer; host arrays. A matched one is still to be settled, see `settle_layer`.

    Args:
      axes: output axes of the tensor.

    Raises:
      ValueError: NaN or infinite weights; too many weights for 32-bit positions.
    """
    scale = layer_scale(name, tensor, axes, config)
    if policy.placement == "unsorted":
        codes = np.broadcast_to(np.int8(0), tensor.shape)  # only their number matters
    else:
        codes = tensor.astype(np.float32, copy=False) / scale
        np.clip(np.rint(codes, out=codes), -config.max_code, config.max_code, out=codes)
        codes = codes.astype(config.code_dtype)
    codes = by_output(codes, axes)
    outputs, inputs = codes.shape
    groups = 1 if policy.placement == "sws-layer" else outputs  # sorted and cut into sections apart
    filled = groups * -(-outputs * inputs // (groups * config.rows)) * config.rows
    if filled >= 2**31:
        raise ValueError(f"`{name}` fills {filled} rows; the limit is 2**31 - 1.")
    if policy.placement == "matched":
        from memsim import matching  # compiles: slow to import

        placement: Any = matching.trace(codes, config, policy)
    else:
        placement = place(policy, config, codes)
    return LayerPlan(
        matrix=Matrix(tensor.shape, axes, inputs, outputs),
        scale=scale,
        placement=placement,
        low_columns=np.asarray(policy.low_columns, np.int32),
        reprogram=np.asarray(policy.reprogram, np.float32),
        fixed=np.asarray(policy.draws == "fixed"),
        index_bits=np.asarray(index_bits(policy, config, inputs, outputs), np.float32),
        analog_valid=np.asarray(policy.placement != "sws-layer" or outputs == 1),
    )


def settle_layer(
    layer: LayerPlan, held: np.ndarray, config: CrossbarConfig, policy: Policy
) -> tuple[LayerPlan, np.ndarray]:
    """Arranges a matched layer on what the crossbar holds; other layers pass through.

    Args:
      layer: from `plan_layer`.
      held: int32 [rows], from the layer before; zeros for an erased crossbar.

    Returns:
      The layer's plan, and what the crossbar holds after it.
    """
    if policy.placement != "matched":
        return layer, held
    from memsim import matching

    traced: Any = layer.placement
    placement, delta, held = matching.settle(traced, held, config, policy)
    return layer._replace(placement=placement, delta=delta), held


def layer_scale(
    name: str, tensor: np.ndarray, axes: tuple[int, ...], config: CrossbarConfig
) -> Float32[np.ndarray, "..."]:
    """The quantization scale of a layer, broadcastable to the tensor.

    Raises:
      ValueError: NaN or infinite weights.
    """
    weights = tensor.astype(np.float32, copy=False)
    scale = quantization_scale(weights, config.bits, axes if config.scale_per == "output" else ())
    if not np.all(np.isfinite(scale)):
        raise ValueError(f"`{name}` holds NaN or infinite weights; mend them before planning.")
    return scale


def with_stucking(plan: Plan, policy: Policy) -> Plan:
    """The same plan with the bit stucking of `policy`: nothing is sorted, nothing recompiles.

    Raises:
      ValueError: more low columns than bits.
    """
    validate(plan.config, policy)

    stucked = {name: restuck(layer, policy) for name, layer in plan.layers.items()}
    return plan._replace(layers=jax.tree.map(jnp.asarray, stucked))


def restuck(layer: LayerPlan, policy: Policy) -> LayerPlan:
    """One layer's plan with the bit stucking of `policy`."""
    return layer._replace(
        low_columns=np.asarray(policy.low_columns, np.int32),
        reprogram=np.asarray(policy.reprogram, np.float32),
        fixed=np.asarray(policy.draws == "fixed"),
    )


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
    params: PyTree, plan: Plan, chip: Chip, *, passes: int = 1, wear: bool = False
) -> tuple[PyTree, Programming]:
    """Programs a network onto a chip: the weights the chip really holds, and what it took.

    Runs under `jit`, `grad` and `vmap` (over chips, params or both). Gradients are
    straight-through: 1 where the code is not clipped.

    Args:
      params: pytree of the network that `plan` was made for; weights may have moved since.
      plan, chip: from `plan` and `sample_chip` (or `programming.chip` of an earlier call).
      passes: times the whole network is programmed, state carrying over (static).
      wear: also count writes per cell (static): as large as the chip.

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
    effective, programming = _program_layers(
        weights, layers, plan.schedule, plan.slots, chip, plan.config, passes, wear
    )
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
    needed = (plan.crossbars, plan.config.rows)
    if chip.state.shape != needed or chip.state.dtype != plan.config.word_dtype:
        raise ValueError(
            f"`chip` belongs to another network or config: it holds {chip.state.dtype} words "
            f"{chip.state.shape}, the plan needs {plan.config.word_dtype} {needed} "
            "([crossbars, rows]); sample a chip for this plan."
        )


@functools.partial(jax.jit, static_argnames=("config", "passes", "wear"))
def _program_layers(
    weights: list[Float[Array, "..."]],
    layers: list[LayerPlan],
    schedule: Schedule,
    slots: Slots,
    chip: Chip,
    config: CrossbarConfig,
    passes: int,
    wear: bool,
) -> tuple[list[Float[Array, "..."]], Programming]:
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
    return effective, Programming(counts, done.wear, after)


def target_words(
    quotients: list[Float32[Array, "..."]],
    layers: list[LayerPlan],
    schedule: Schedule,
    config: CrossbarConfig,
) -> UInt[Array, "steps crossbars rows"]:
    """The words to program at every step, from the rounded quotients of consecutive layers."""

    def sections(quotients: Array, layer: LayerPlan) -> Array:
        codes = by_output(to_codes(quotients, config), layer.matrix.axes).reshape(-1)
        if layer.delta is not None:  # weights may have moved since: within what a word can hold
            moved = codes.astype(jnp.int32) + layer.delta.astype(jnp.int32)
            codes = jnp.clip(moved, config.min_code, config.max_code)
        return apply_placement(encode(codes, config), layer.placement)

    every = [sections(q, layer) for q, layer in zip(quotients, layers, strict=True)]
    return apply_schedule(jnp.concatenate(every), schedule)


def _effective(
    weights: Float[Array, "*shape"],
    quotients: Float32[Array, "*shape"],
    achieved: UInt[Array, "sections rows"],
    layer: LayerPlan,
    config: CrossbarConfig,
) -> Float[Array, "*shape"]:
    words = invert_placement(achieved, layer.placement)
    codes = from_output(decode(words, config), layer.matrix.shape, layer.matrix.axes)
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
      By layer, words [sections, rows], sections in programming order. Unused rows, stuck-at cells
      and cells left alone by bit stucking are 0.

    Raises:
      ValueError: a chip that belongs to another network.
    """
    check_chip(plan, chip)
    names = plan.names
    layers = [plan.layers[name] for name in names]
    stucking = stucking_of(layers, plan.config)
    enable = enable_slots(plan.slots, stucking, chip, chip.passes, plan.config)
    return dict(zip(names, _split(invert_schedule(enable, plan.schedule), layers), strict=True))
