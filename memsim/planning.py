"""How a network is programmed: scales, placements, schedules. Offline, on the host."""

import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int8, Int16, Int32, PyTree, UInt

from memsim import selection
from memsim.chip import Chip, Stuck
from memsim.codes import AnyArray, quantization_scale
from memsim.config import CrossbarConfig, Policy, validate
from memsim.placement import Placement, index_bits, place
from memsim.schedule import Schedule, Slots, network_schedule
from memsim.selection import (
    Matrix,
    Select,
    by_output,
    in_natural_order,
    named_leaves,
    select_by_name,
)


class LayerPlan(NamedTuple):
    """How one layer is programmed; all but `matrix` are arrays.

    Attributes:
      matrix: the layer's shape (static).
      scale: float32, broadcastable to the tensor.
      placement: which weight sits in which (section, row).
      low_columns, reprogram, fixed: int32, float32 and bool, bit stucking.
      index_bits: float32, routing memory per weight.
      analog_valid: bool, whether every section holds weights of one output only.
      delta: int8 or int16 [weights], what is added to the code of each weight, in the order of
        `Placement`; None unless the policy is `matched`.
      correction: float32 [outputs], what is taken off the codes of each output again; None unless
        the policy says so.
      flips: words [sections, rows], or [sections, 1] for flags of sections: the bits that are
        stored complemented; None unless the policy is `flip-n-write`.
      offset: int32, what is added to every code and subtracted from what is read; None unless the
        policy is `aras`.
    """

    matrix: Matrix
    scale: Float32[AnyArray, "..."]
    placement: Placement
    low_columns: Int32[AnyArray, ""]
    reprogram: Float32[AnyArray, ""]
    fixed: Bool[AnyArray, ""]
    index_bits: Float32[AnyArray, ""]
    analog_valid: Bool[AnyArray, ""]
    delta: Int8[AnyArray, " weights"] | Int16[AnyArray, " weights"] | None = None
    correction: Float32[AnyArray, " outputs"] | None = None
    flips: UInt[AnyArray, "sections _"] | None = None
    offset: Int32[AnyArray, ""] | None = None


class Plan(NamedTuple):
    """How a network is programmed. A pytree: p, low and the placements are array leaves.

    Attributes:
      config: the crossbars, with the flag cells that the policy needs (static).
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


def plan(
    params: PyTree,
    config: CrossbarConfig,
    policy: Policy | Mapping[str, Policy],
    *,
    select: Select | None = None,
    chip: Chip | None = None,
) -> Plan:
    """Decides offline, on the host, how a network is programmed: scales, placements, schedules.

    Args:
      params: any pytree of host or device arrays (not traced).
      config, policy: the crossbars and how they are programmed; a policy for every selected tensor
        by name where they differ (in all but the placement).
      select: `(name, tensor) -> number of output axes`, or None to leave a tensor digital; the
        default goes by the names, see `select_by_name`.
      chip: whose stuck cells a policy with `faults=avoid` avoids; others do without. Weight
        stationary, sample it for an `unsorted` plan: the crossbars are as many.

    Returns:
      The plan. Its shapes depend on the network, the config and the placement's scope alone, so
      that other p, low or placements never recompile what takes it.

    Raises:
      ValueError: nothing selected; an empty or scalar tensor selected; NaN or infinite weights;
        more low columns than bits; policies of other tensors, or of several placements; words that
        the policy cannot store; stuck cells to avoid, but no chip, or one with other crossbars.
    """
    leaves = named_leaves(params)
    axes = select_layers(leaves, select or select_by_name())
    policies = policy_of_layers(policy, axes)
    for one in set(policies.values()):
        validate(config, one)
    config = next(iter(policies.values())).stored_on(config)
    stuck: Mapping[str, Stuck] = {}
    if any(one.faults == "avoid" for one in policies.values()):
        if chip is None:
            raise ValueError(
                "`policy` avoids the stuck cells of one `chip` (faults=avoid); give it "
                "(`sample_chip` draws one for an unsorted plan; command line: --chip or --faults)."
            )
        stuck = stuck_cells(chip.stuck_at_0, chip.stuck_at_1, leaves, axes, config)
    for name in axes:
        if isinstance(leaves[name], jax.core.Tracer):
            raise ValueError(f"`{name}` is traced; call `plan` outside `jit`, `grad` and `vmap`.")

    def plan_one(name: str) -> LayerPlan:
        tensor, one = np.asarray(leaves[name]), policies[name]
        avoided = stuck[name] if one.faults == "avoid" else None
        return plan_layer(name, tensor, axes[name], config, one, avoided)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy sorts without the interpreter's lock
        layers: dict[str, LayerPlan] = {}
        held: Held = {}
        for name, layer in zip(axes, pool.map(plan_one, axes), strict=True):
            layers[name], held = settle_layer(name, layer, held, config, policies[name])
    used_rows = [layer.placement.used_rows for layer in layers.values()]
    return jax.tree.map(jnp.asarray, Plan(config, layers, *network_schedule(used_rows, config)))


def policy_of_layers(
    policy: Policy | Mapping[str, Policy], names: Iterable[str]
) -> dict[str, Policy]:
    """The policy of each layer.

    Raises:
      ValueError: policies of other layers than these, or of several placements.
    """
    if isinstance(policy, str):
        raise ValueError(f"`policy` is {policy!r}, a text; give Policy.parse({policy!r}).")
    if isinstance(policy, Policy):
        return dict.fromkeys(names, policy)
    different = sorted(set(policy) ^ set(names))
    if different:
        raise ValueError(
            f"`policy` names {len(policy)} tensors, but not the ones that are programmed: "
            f"{', '.join(different[:5])} differ; give one for every selected tensor."
        )
    placements = sorted(
        {str(Policy(placement=x.placement, flags=x.flags)) for x in policy.values()}
    )
    if len(placements) > 1:
        raise ValueError(
            f"`policy` mixes placements ({', '.join(placements)}); give all layers the same one."
        )
    return {name: policy[name] for name in names}


def select_layers(leaves: Mapping[str, Any], select: Select) -> dict[str, tuple[int, ...]]:
    """Gives the output axes of every tensor that `select` chooses, in natural order of the names.

    Raises:
      ValueError: none is chosen, one that cannot be a weight matrix, or one of several matrices.
    """
    chosen = selection.select_layers(leaves, select)
    for name, one in chosen.items():
        if one.matrix.stacked:
            raise ValueError(f"`{name}` is a slice of `{one.tensor}`; split that tensor first.")
    return {name: one.matrix.axes for name, one in chosen.items()}


def sections_by_output(
    tensors: Mapping[str, Any], axes: Mapping[str, tuple[int, ...]], config: CrossbarConfig
) -> dict[str, int]:
    """Sections of each layer when its outputs are placed one by one.

    Args:
      tensors: by name, anything with their `shape`.
      axes: output axes of each layer.
    """
    shapes = {name: tensors[name].shape for name in axes}
    outputs = {name: math.prod(shapes[name][axis] for axis in axes[name]) for name in axes}
    return {
        name: outputs[name] * -(-math.prod(shapes[name]) // (outputs[name] * config.rows))
        for name in axes
    }


def stuck_cells(
    stuck_at_0: AnyArray,
    stuck_at_1: AnyArray,
    tensors: Mapping[str, Any],
    axes: Mapping[str, tuple[int, ...]],
    config: CrossbarConfig,
) -> dict[str, Stuck]:
    """The stuck cells that each layer meets when its outputs are placed one by one.

    Args:
      stuck_at_0, stuck_at_1: of a chip, words [crossbars, rows].
      tensors, axes: see `sections_by_output`.

    Raises:
      ValueError: another number of crossbars or rows than the network needs.
    """
    sections = sections_by_output(tensors, axes, config)
    needed = (config.crossbars or sum(sections.values()), config.rows)
    low, high = np.asarray(stuck_at_0), np.asarray(stuck_at_1)
    if low.shape != needed or high.shape != needed:
        raise ValueError(
            f"`chip` has stuck cells of {low.shape} and {high.shape} words, but this network and "
            f"config take {needed} ([crossbars, rows]); sample a chip for an unsorted plan of them."
        )
    if config.crossbars is not None:
        return dict.fromkeys(axes, Stuck(low, high))
    ends = np.cumsum(list(sections.values()))[:-1]
    return dict(zip(axes, map(Stuck, np.split(low, ends), np.split(high, ends)), strict=True))


def plan_layer(
    name: str,
    tensor: np.ndarray,
    axes: tuple[int, ...],
    config: CrossbarConfig,
    policy: Policy,
    stuck: Stuck | None = None,
) -> LayerPlan:
    """Plans one layer; host arrays. Where `policy.settles` it is still to be settled, see
    `settle_layer`.

    Args:
      axes: output axes of the tensor.
      config: with the flag cells that the policy needs.
      stuck: cells to avoid, see `stuck_cells`.

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
        from memsim.policies._matching import matching  # compiles: slow to import

        placement: Any = matching.trace(codes, config, policy, stuck)
    else:
        placement = place(policy, config, codes)
        if policy.settles:
            from memsim.policies import competitors

            placement = competitors.Coded(placement, codes.reshape(-1))
    return LayerPlan(
        matrix=Matrix(shape=tensor.shape, axes=axes),
        scale=scale,
        placement=placement,
        low_columns=np.asarray(policy.low_columns, np.int32),
        reprogram=np.asarray(policy.reprogram, np.float32),
        fixed=np.asarray(policy.draws == "fixed"),
        index_bits=np.asarray(index_bits(policy, config, inputs, outputs), np.float32),
        analog_valid=np.asarray(config.flags != "word" and (groups == outputs)),
    )


# What crossbars hold, in the form that the policy needs: under "" those that all layers share,
# under its name those of a layer that has its own. Erased ones are missing.
Held = dict[str, np.ndarray]


def settle_layer(
    name: str, layer: LayerPlan, held: Held, config: CrossbarConfig, policy: Policy
) -> tuple[LayerPlan, Held]:
    """Plans a layer on what the crossbars hold, where `policy.settles`; others pass through.

    Args:
      layer: from `plan_layer`.
      held: from the layer before.

    Returns:
      The layer's plan, and what the crossbars hold after it.
    """
    unsettled: Any = layer.placement
    if policy.placement == "matched":
        from memsim.policies._matching import matching

        before = held.get("", np.zeros(config.rows, np.int32))
        placement, delta, error, after = matching.settle(unsettled, before, config, policy)
        layer = layer._replace(placement=placement, delta=delta)
        if policy.correction == "mean":
            # 8 of its 16 bits are a fraction
            layer = layer._replace(correction=np.asarray(np.rint(256 * error) / 256, np.float32))
        return layer, {"": after}
    if not policy.settles:
        return layer, held
    from memsim.policies import competitors

    pool = name if config.crossbars is None else ""
    layer = layer._replace(placement=unsettled.placement)
    if policy.placement == "aras":
        offset, after = competitors.choose_offset(unsettled, held.get(pool), config)
        return layer._replace(offset=offset), {**held, pool: after}
    flips, after = competitors.choose_flips(unsettled, held.get(pool), config)
    return layer._replace(flips=flips), {**held, pool: after}


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
      ValueError: more low columns than bits; bit stucking of a plan that stores words exactly.
    """
    validate(plan.config, policy)
    chosen = any(
        layer.flips is not None or layer.offset is not None for layer in plan.layers.values()
    )
    if policy.low_columns and chosen:
        raise ValueError(
            f"`low` is {policy.low_columns}, but this plan of flip-n-write or aras takes no bit "
            "stucking; plan again with another policy."
        )
    stucked = {name: restuck(layer, policy) for name, layer in plan.layers.items()}
    return plan._replace(layers=jax.tree.map(jnp.asarray, stucked))


def restuck(layer: LayerPlan, policy: Policy) -> LayerPlan:
    """One layer's plan with the bit stucking of `policy`."""
    return layer._replace(
        low_columns=np.asarray(policy.low_columns, np.int32),
        reprogram=np.asarray(policy.reprogram, np.float32),
        fixed=np.asarray(policy.draws == "fixed"),
    )
