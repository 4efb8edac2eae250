"""Plans of programming a network: `plan` works out scales, placements, schedules, on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, Int16, Int32, PyTree, UInt

from memsim._ahead import one_after_another
from memsim._checks import check_kind
from memsim.chip import Chip, Stuck
from memsim.codes import AnyArray, quantization_scale
from memsim.config import CrossbarConfig
from memsim.placement import Placement, check_one_output, check_placement
from memsim.policies._by_layer import policy_of_layers
from memsim.policies.base import Held, LayerCodes, Policy
from memsim.schedule import Schedule, Slots, network_schedule
from memsim.selection import (
    Matrix,
    Select,
    by_output,
    in_natural_order,
    named_leaves,
    select_by_name,
    select_layers,
    slice_of,
)

__all__ = [
    "LayerPlan",
    "Plan",
    "plan",
    "policy_of_layers",
    "schedule_layers",
    "sections_by_output",
    "stuck_cells",
    "with_stucking",
]

# A layer of so many weights, or so many smaller ones, are put on the device at once.
_LARGE_LAYER, _SMALL_LAYERS = 2**18, 16


class LayerPlan(NamedTuple):
    """The plan of one layer; all but `matrix` are arrays.

    Attributes:
      matrix: the layer's shape (static).
      scale: float32, broadcastable to the tensor.
      placement: which weight sits in which (section, word).
      low_columns, reprogram, fixed: int32, float32 and bool, bit stucking.
      index_bits: float64, routing memory per weight: exact.
      analog_valid: bool, whether every section holds weights of one output only.
      delta: int8 [weights], int16 where stuck cells are avoided, what is added to each code, in the
        order of `Placement`; None unless the policy is `matched`.
      correction: float32 [outputs], what is taken off their codes again; None unless the policy
        corrects mean errors.
      flips: words [sections, words], or [sections, words of a row] for flags of sections: bits that
        are complemented; None unless the policy is `flip-n-write`.
      offset: int32, what is added to every code; None unless the policy is `aras`.
      crossbars: int32 [sections], of each section, see `chosen_schedule`; None for the schedule's.
      negated: bool [sections, rows], rows that store negatives; None unless the policy has some.
    """

    matrix: Matrix
    scale: Float32[AnyArray, "..."]
    placement: Placement
    low_columns: Int32[AnyArray, ""]
    reprogram: Float32[AnyArray, ""]
    fixed: Bool[AnyArray, ""]
    index_bits: Float[AnyArray, ""]
    analog_valid: Bool[AnyArray, ""]
    delta: Int8[AnyArray, " weights"] | Int16[AnyArray, " weights"] | None = None
    correction: Float32[AnyArray, " outputs"] | None = None
    flips: UInt[AnyArray, "sections _"] | None = None
    offset: Int32[AnyArray, ""] | None = None
    crossbars: Int32[AnyArray, " sections"] | None = None
    negated: Bool[AnyArray, "sections rows"] | None = None


class Plan(NamedTuple):
    """The plan of a network. A pytree: p, low and the placements are array leaves.

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

    def __repr__(self) -> str:
        """Says it in one line: a plan holds an index of every weight."""
        weights = sum(layer.placement.positions.shape[-1] for layer in self.layers.values())
        return f"Plan({self.config}, {len(self.layers)} layers of {weights:,} weights)"

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
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Decides offline, on the host, how a network is programmed: scales, placements, schedules.

    Args:
      params: any pytree of host or device arrays (not traced).
      config, policy: the crossbars and how they are programmed; a policy for every layer by name
        where they differ (in all but their kind).
      select: `(name, tensor) -> number of output axes`, or None to leave a tensor digital; the
        default goes by the names, see `select_by_name`.
      chip: whose stuck cells a policy with `faults=avoid` avoids; others do without. Weight
        stationary, sample it for an `unsorted` plan: the crossbars are as many.
      progress: called with the finished share of the weights and the layer that is planned.

    Returns:
      The plan. Its shapes depend on the network, the config and the policy's kind alone, so that
      other p, low or placements never recompile what takes it.

    Raises:
      ValueError: nothing selected; an empty or scalar tensor selected; NaN or infinite weights;
        more low columns than bits; policies of other tensors, or of several kinds; words that
        the policy cannot store; stuck cells to avoid, but no chip, or one with other crossbars.

    >>> import numpy as np, memsim
    >>> params = {"dense": {"kernel": np.eye(4, 3, dtype=np.float32)}}
    >>> made = memsim.plan(params, memsim.CrossbarConfig(rows=2), memsim.Policy.parse("sws"))
    >>> made.names, made.crossbars
    (['dense/kernel'], 1)
    """
    check_kind("config", config, CrossbarConfig, "give a memsim.CrossbarConfig")
    leaves = named_leaves(params)
    selected = select_layers(leaves, select_by_name() if select is None else select)
    policies = policy_of_layers(policy, selected)
    for one in set(policies.values()):
        one.check(config)
    config = next(iter(policies.values())).stored_on(config)
    # stuck cells by layer, if a policy avoids them
    matrices = {name: matrix for name, (_, matrix) in selected.items()}
    stuck: Mapping[str, Stuck] = {}
    if any(one.avoids_faults for one in policies.values()):
        if chip is None:
            raise ValueError(
                "`policy` avoids the stuck cells of one `chip` (faults=avoid); give it "
                "(`sample_chip` draws one for an unsorted plan; command line: --chip or --faults)."
            )
        check_kind("chip", chip, Chip, "give one that `sample_chip` drew")
        stuck = stuck_cells(chip.stuck_at_0, chip.stuck_at_1, matrices, config)
    for name, (tensor, _) in selected.items():
        if isinstance(leaves[tensor], jax.core.Tracer):
            raise ValueError(f"`{name}` is traced; call `plan` outside `jit`, `grad` and `vmap`.")

    def prepare_one(name: str) -> Prepared:
        one, array = policies[name], np.asarray(leaves[selected[name][0]])
        avoided = stuck[name] if one.avoids_faults else None
        return prepare_layer(name, array, matrices, config, one, avoided)

    sizes = {name: matrix.inputs * matrix.outputs for name, matrix in matrices.items()}
    anew = functools.partial(next(iter(policies.values())).anew, config=config)
    return whole_plan(one_after_another(sizes, prepare_one, anew, progress), config)


def schedule_layers(
    layers: Iterable[LayerPlan], config: CrossbarConfig, first_layer: int = 0
) -> tuple[Schedule, Slots]:
    """Schedules consecutive layers by their plans, see `network_schedule`."""
    layers = list(layers)
    return network_schedule(
        [layer.placement for layer in layers],
        config,
        first_layer,
        [layer.crossbars for layer in layers],
    )


def stuck_cells(
    stuck_at_0: AnyArray,
    stuck_at_1: AnyArray,
    matrices: Mapping[str, Matrix],
    config: CrossbarConfig,
) -> dict[str, Stuck]:
    """Finds the stuck cells that each layer meets when its outputs are placed in their order.

    Args:
      stuck_at_0, stuck_at_1: of a chip, words [crossbars, words].
      matrices: of the layers, in order.

    Raises:
      ValueError: another number of crossbars or rows than the network needs.
    """
    sections = sections_by_output(matrices, config)
    needed = (config.crossbars or sum(sections.values()), config.words)
    low, high = np.asarray(stuck_at_0), np.asarray(stuck_at_1)
    if low.shape != needed or high.shape != needed:
        raise ValueError(
            f"`chip` has stuck cells of {low.shape} and {high.shape} words, but this network and "
            f"config take {needed} ([crossbars, words]); sample a chip for an unsorted plan."
        )
    if config.crossbars is not None:
        return dict.fromkeys(matrices, Stuck(low, high))
    # weight stationary, every layer has crossbars of its own
    ends = np.cumsum(list(sections.values()))[:-1]
    return dict(zip(matrices, map(Stuck, np.split(low, ends), np.split(high, ends)), strict=True))


def sections_by_output(matrices: Mapping[str, Matrix], config: CrossbarConfig) -> dict[str, int]:
    """Counts the sections of each layer when its outputs are placed in their natural order."""
    return {
        name: -(-matrix.outputs // config.words_per_row) * -(-matrix.inputs // config.rows)
        for name, matrix in matrices.items()
    }


# The rest of planning a layer, once it is known what the layers before it left.
Prepared = Callable[[Held], tuple[LayerPlan, Held]]


def whole_plan(layers: Iterable[tuple[str, LayerPlan]], config: CrossbarConfig) -> Plan:
    """Puts layers on the device as they come, but for index bits: they would become 32 bits.

    A layer that comes twice is the one that came last.
    """
    placed: dict[str, LayerPlan] = {}
    group: dict[str, LayerPlan] = {}

    def put() -> None:  # some layers at a time: array by array takes three times as long
        there = jax.device_put(list(group.values()))  # a dict would come back sorted
        for layer, (name, here) in zip(there, group.items(), strict=True):
            placed[name] = layer._replace(index_bits=np.asarray(here.index_bits))
        group.clear()

    for name, layer in layers:
        group[name] = layer
        if layer.placement.positions.size >= _LARGE_LAYER or len(group) == _SMALL_LAYERS:
            put()
    put()
    return Plan(config, placed, *jax.device_put(schedule_layers(placed.values(), config)))


def prepare_layer(
    name: str,
    tensor: np.ndarray,
    matrices: Mapping[str, Matrix],
    config: CrossbarConfig,
    policy: Policy,
    stuck: Stuck | None = None,
) -> Prepared:
    """Plans one layer as far as it can be without the others; host arrays.

    Args:
      tensor: the one that the layer's matrix is in.
      matrices: of all layers, in the order of programming.
      config: with the flag cells that the policy needs.
      stuck: cells to avoid, see `stuck_cells`.

    Returns:
      What does the rest, called in the order of programming.

    Raises:
      ValueError: NaN or infinite weights; too many weights for 32-bit positions; a placement that
        is none.
    """
    matrix = matrices[name]
    weights = slice_of(tensor, matrix)
    scale = layer_scale(name, weights, matrix, config)
    words = sections_by_output({name: matrix}, config)[name] * config.words
    if words >= 2**31:
        raise ValueError(f"`{name}` fills {words} words; the limit is 2**31 - 1.")
    if policy.uses_codes:
        codes = weights.astype(np.float32)
        codes /= scale  # in place: a layer may be large
        np.clip(np.rint(codes, out=codes), -config.max_code, config.max_code, out=codes)
        codes = codes.astype(config.code_dtype)
    else:
        codes = np.broadcast_to(np.int8(0), weights.shape)  # only their number matters
    # the layer as a policy sees it
    pool = name if config.crossbars is None else ""
    shapes = tuple((one.inputs, one.outputs) for one in matrices.values())
    number = list(matrices).index(name)
    layer = LayerCodes(by_output(codes, matrix.slice_axes), pool, stuck, shapes, number)
    follow = policy.prepare(layer, config)
    own = type(policy).__module__.split(".")[0] == "memsim"

    def finish(held: Held) -> tuple[LayerPlan, Held]:
        arrangement, after = follow(held)
        if not own:  # what comes from outside is not believed
            shape, words = (matrix.inputs, matrix.outputs), config.words_per_row
            check_placement(arrangement.placement, shape, config.rows, words)
            if policy.analog_valid(matrix.outputs):
                check_one_output(arrangement.placement, matrix.inputs, words, policy)
        p, low, draws = policy.stucking
        bits = arrangement.index_bits
        if bits is None:
            bits = policy.index_bits(matrix.inputs, matrix.outputs, config)
        arranged = arrangement._asdict() | {"index_bits": np.asarray(bits, np.float64)}
        planned = LayerPlan(
            matrix=matrix,
            scale=scale,
            low_columns=np.asarray(low, np.int32),
            reprogram=np.asarray(p, np.float32),
            fixed=np.asarray(draws == "fixed"),
            analog_valid=np.asarray(policy.analog_valid(matrix.outputs)),
            **arranged,
        )
        return planned, after

    return finish


def layer_scale(
    name: str, weights: np.ndarray, matrix: Matrix, config: CrossbarConfig
) -> Float32[np.ndarray, "..."]:
    """Computes the quantization scale of a layer, broadcastable to its part of the tensor.

    Raises:
      ValueError: NaN or infinite weights, or such as are too small.
    """
    per_output = matrix.slice_axes if config.scale_per == "output" else ()
    try:
        scale = quantization_scale(weights, config.bits, per_output)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None
    if not np.all(np.isfinite(scale)):
        raise ValueError(f"`{name}` holds NaN or infinite weights; mend them before planning.")
    return scale


def with_stucking(plan: Plan, policy: Policy) -> Plan:
    """Gives the same plan with the bit stucking of `policy`: nothing is sorted or recompiled.

    Raises:
      ValueError: more low columns than bits; bit stucking of a plan that stores words exactly.
    """
    check_kind("plan", plan, Plan, "give what `memsim.plan` returns")
    check_kind("policy", policy, Policy, "give a memsim.Policy")
    policy.check(plan.config)
    p, low, draws = policy.stucking
    chosen = any(
        layer.flips is not None or layer.offset is not None for layer in plan.layers.values()
    )
    if low and chosen:
        raise ValueError(
            f"`low` is {low}, but this plan of flip-n-write or aras takes no bit "
            "stucking; plan again with another policy."
        )

    stucking: dict[str, Any] = {
        "low_columns": jnp.asarray(low, jnp.int32),
        "reprogram": jnp.asarray(p, jnp.float32),
        "fixed": jnp.asarray(draws == "fixed"),
    }
    layers = {name: layer._replace(**stucking) for name, layer in plan.layers.items()}
    return plan._replace(layers=layers)
