"""A whole network programmed onto chips, under `jit`, `grad` and `vmap`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key, Shaped, UInt

from memsim._checks import as_key, check_kind, check_whole
from memsim.chip import Chip, check_rates, new_chip, whole_chip
from memsim.codes import decode, dequantize, encode, rounded_quotient, to_codes
from memsim.config import CrossbarConfig
from memsim.placement import apply_placement, invert_placement, negate_rows
from memsim.planning import LayerPlan, Plan
from memsim.programming import (
    Counts,
    Programmed,
    Stucking,
    draws_cells,
    program_sections,
)
from memsim.schedule import Schedule, Slots, apply_schedule, invert_schedule
from memsim.selection import (
    Matrix,
    by_output,
    from_output,
    from_slices,
    is_floating,
    named_leaves,
    slice_of,
    tensor_name,
)
from memsim.writing import Writing, check_writing

__all__ = [
    "Programming",
    "effective_weights",
    "program",
    "sample_chip",
    "target_words",
]

# A network: any pytree, and functions that change its weights give the same kind of pytree.
Params = TypeVar("Params")

# Arrays joined by one compiled program: more of them take longer to compile than they save.
_JOINED_AT_ONCE = 64


class Programming(NamedTuple):
    """The outcome of programming a network.

    Attributes:
      counts: SETs, RESETs [passes, layers, columns] and rows [passes, layers]; int32, layers in the
        order of `plan.names`.
      wear: unsigned [crossbars, rows, columns], writes per cell; None unless `wear=True`.
      words: by layer, [sections, physical_words], what the words of each section held when it was
        read, after the last pass; None unless `words=True`.
      chip: the chip afterwards.
      writing: how cells were written, as given.
    """

    counts: Counts
    wear: UInt[Array, "crossbars rows columns"] | None
    words: dict[str, UInt[Array, "sections words"]] | None
    chip: Chip
    writing: Writing | None = None


def sample_chip(
    key: Key[Array, ""],
    plan: Plan,
    stuck_at_0: float | Float[Array, ""] = 0.0,
    stuck_at_1: float | Float[Array, ""] = 0.0,
) -> Chip:
    """Draws one chip for `plan`; `vmap` over `key` for many.

    Args:
      key: from `jax.random.key` (an old-style uint32 key works too); consumed.
      stuck_at_0, stuck_at_1: probabilities of a cell to be stuck at its lowest, or highest, level:
        exclusive ("1 % stuck-at" means half of each).

    Raises:
      ValueError: rates outside 0..1, or whose sum exceeds 1; no key.

    >>> import jax, numpy as np, memsim
    >>> params = {"kernel": np.eye(4, dtype=np.float32)}
    >>> plan = memsim.plan(params, memsim.CrossbarConfig(rows=4), memsim.Policy.parse("sws"))
    >>> memsim.sample_chip(jax.random.key(0), plan, 0.01, 0.01).state.shape
    (1, 4)
    """
    check_kind("plan", plan, Plan, "give what `memsim.plan` returns")
    rates = (stuck_at_0, stuck_at_1)
    if not any(isinstance(rate, jax.core.Tracer) for rate in rates):
        check_rates(_plain(stuck_at_0), _plain(stuck_at_1))
        if not any(_plain(rate) for rate in rates):
            return whole_chip(as_key("key", key), plan.crossbars, plan.config)
    low, high = (jnp.asarray(rate, jnp.float32) for rate in rates)
    chip: Chip = new_chip(as_key("key", key), plan.crossbars, plan.config, low, high)
    return chip


def _plain(rate: object) -> Any:
    """Gives the number of a scalar array; what is none stays, to be refused by its name."""
    scalar = isinstance(rate, jax.Array | np.ndarray | np.generic) and rate.shape == ()
    if scalar and jnp.issubdtype(rate.dtype, jnp.number):  # type: ignore[attr-defined]
        return rate.item()  # type: ignore[attr-defined]
    return rate


def program(
    params: Params,
    plan: Plan,
    chip: Chip,
    *,
    passes: int = 1,
    wear: bool = False,
    words: bool = False,
    writing: Writing | None = None,
) -> tuple[Params, Programming]:
    """Programs a network onto a chip: the weights the chip really holds, and what it took.

    Runs under `jit`, `grad` and `vmap` (over chips, params or both). Gradients are
    straight-through: 1 where the code is not clipped. A weight that is NaN or infinite stays so.

    Args:
      params: pytree of the network that `plan` was made for; weights may have moved since.
      plan, chip: from `plan` and `sample_chip` (or `programming.chip` of an earlier call).
      passes: times the whole network is programmed, state carrying over (static).
      wear: also count writes per cell (static): as large as the chip.
      words: also give the words that the rows held (static), for `read_weights`: as large as the
        network.
      writing: how writes may fail; None: every pulse does what it should.

    Returns:
      (effective, programming): `params` with every selected tensor replaced by
      decode(achieved word) * scale of the last pass, in its own dtype; and the counts.

    Raises:
      ValueError: a plan or chip that belongs to another network, a `writing` of other columns, or
        `passes` < 1.

    >>> import jax, numpy as np, memsim
    >>> params = {"kernel": np.eye(4, dtype=np.float32)}
    >>> plan = memsim.plan(params, memsim.CrossbarConfig(rows=4), memsim.Policy.parse("sws"))
    >>> chip = memsim.sample_chip(jax.random.key(0), plan)
    >>> held, programming = memsim.program(params, plan, chip)
    >>> bool((held["kernel"] == params["kernel"]).all()), memsim.summarize(programming, plan).writes
    (True, 7)
    """
    # all that can be wrong is checked before anything is compiled
    leaves = _checked_leaves(params, plan, chip, passes, writing)
    names = plan.names
    layers = [plan.layers[name] for name in names]
    config, first = plan.config, first_sections(layers)

    # layer by layer, in programs that layers of one shape share
    weights = [
        slice_of(leaves[tensor_name(name, layer.matrix)], layer.matrix)
        for name, layer in zip(names, layers, strict=True)
    ]
    sections = [
        target_words(w, anonymous(layer), config) for w, layer in zip(weights, layers, strict=True)
    ]
    # all sections of all layers at once
    stucking = stucking_of(layers, config)
    done, achieved = _program_scheduled(
        join(sections), plan.schedule, plan.slots, stucking, chip, config, writing,
        passes=passes, wear=wear, draws=draws_cells(stucking),
    )  # fmt: skip
    # and back
    held = [
        effective_weights(w, achieved, jnp.int32(start), anonymous(layer), config)
        for w, start, layer in zip(weights, first, layers, strict=True)
    ]
    leaves |= put_back(dict(zip(names, layers, strict=True)), held)
    programming = Programming(
        counts=done.counts,
        wear=done.wear,
        words=dict(zip(names, split(achieved, layers), strict=True)) if words else None,
        chip=chip._replace(state=done.state, passes=chip.passes + passes, planned=done.planned),
        writing=writing,
    )
    return jax.tree.unflatten(jax.tree.structure(params), leaves.values()), programming


def _checked_leaves(
    params: object, plan: Plan, chip: Chip, passes: int, writing: Writing | None
) -> dict[str, Any]:
    """Gives the tensors of a network by name, once the arguments of `program` are checked."""
    check_kind("plan", plan, Plan, "give (params, plan, chip), the plan from `memsim.plan`")
    check_kind("chip", chip, Chip, "give one that `memsim.sample_chip` drew from a key")
    check_whole("passes", passes, "program the network at least once", 1)
    check_writing(writing, plan.config)
    leaves = named_leaves(params)
    for name, layer in plan.layers.items():
        check_belongs(name, leaves.get(tensor_name(name, layer.matrix)), layer)
    check_chip(plan, chip)
    return leaves


@functools.partial(jax.jit, static_argnames="config")
def target_words(
    weights: Float[Array, "..."], layer: LayerPlan, config: CrossbarConfig
) -> UInt[Array, "sections physical_words"]:
    """Gives the words to program, by section of one layer."""
    quotients = rounded_quotient(jax.lax.stop_gradient(weights), layer.scale)
    return placed_words(to_codes(quotients, config), layer, config)


def placed_words(
    codes: Int[Array, "..."], layer: LayerPlan, config: CrossbarConfig
) -> UInt[Array, "sections physical_words"]:
    """Gives the words to program for the codes of a tensor, by section of one layer."""
    # codes as they are now, in the order of the placement
    codes = by_output(codes, layer.matrix).reshape(-1)
    added = layer.offset if layer.delta is None else layer.delta
    if added is not None or layer.negated is not None:
        moved = codes.astype(jnp.int32)
        if added is not None:
            moved = moved + added.astype(jnp.int32)
        moved = negate_rows(moved, layer.negated, layer.placement)
        # weights may have moved since: within what a word can hold
        codes = jnp.clip(moved, config.min_code, config.max_code)
    words = apply_placement(encode(codes, config), layer.placement)
    if layer.flips is None:
        return words
    flips = jnp.asarray(layer.flips)
    if config.flags == "word":
        return words ^ flips
    # flags of sections are a row of their own
    return jnp.concatenate([words ^ jnp.tile(flips, config.rows), flips], 1)


@functools.partial(jax.jit, static_argnames=("config", "passes", "wear", "draws"))
def _program_scheduled(
    sections: UInt[Array, "sections words"],
    schedule: Schedule,
    slots: Slots,
    stucking: Stucking,
    chip: Chip,
    config: CrossbarConfig,
    writing: Writing | None,
    passes: int,
    wear: bool,
    draws: bool,
) -> tuple[Programmed, UInt[Array, "sections words"]]:
    target = apply_schedule(sections, schedule)
    done = program_sections(
        target, slots, stucking, chip, config, writing, passes=passes, wear=wear, draws=draws
    )
    return done, invert_schedule(done.achieved, schedule)


@functools.partial(jax.jit, static_argnames="config")
def effective_weights(
    weights: Float[Array, "*shape"],
    achieved: UInt[Array, "every_section physical_words"],
    first: Int32[Array, ""],
    layer: LayerPlan,
    config: CrossbarConfig,
) -> Float[Array, "*shape"]:
    """Gives the weights of one layer as the chip holds them, straight-through.

    Args:
      weights: what was asked for.
      achieved: words of every section of the network.
      first: the first section of this layer.
    """
    # the sections of this layer
    count = layer.placement.used_rows.shape[0]
    words = jax.lax.dynamic_slice_in_dim(achieved, first, count)
    if config.flags == "section":  # as the flag cells say, wrong ones too
        data, flags = words[:, : config.words], words[:, config.words :]
        words = data ^ jnp.tile(flags, config.rows)
    codes = decode(invert_placement(words, layer.placement), config)
    # what the policy negated or added is undone
    if layer.negated is not None:  # the lowest code has no negative in its own dtype
        codes = negate_rows(codes.astype(jnp.int32), layer.negated, layer.placement)
    if layer.offset is not None:
        codes = codes.astype(jnp.int32) - layer.offset
    if layer.correction is not None:
        per_output = codes.reshape(layer.matrix.outputs, layer.matrix.inputs)
        codes = per_output.astype(jnp.float32) - layer.correction[:, None]
    held = dequantize(from_output(codes, layer.matrix), layer.scale, weights.dtype)
    fixed = jax.lax.stop_gradient(weights)
    # what is no number is held as none: a network that diverged must not look healthy
    held = jnp.where(jnp.isfinite(fixed), jax.lax.stop_gradient(held), fixed)
    # straight-through; not w + stop_gradient(held - w), which rounds
    quotients = rounded_quotient(fixed, layer.scale)
    unclipped = (jnp.abs(quotients) <= config.max_code).astype(weights.dtype)
    moved = jnp.where(unclipped > 0, weights - fixed, jnp.zeros_like(weights))
    return held + moved


def stucking_of(layers: Sequence[LayerPlan], config: CrossbarConfig) -> Stucking:
    """Gives the bit stucking of consecutive layers, in the form that the kernel takes."""
    masks = [config.low_mask(low) for low in range(config.bits + 1)]
    low_columns = _stack([layer.low_columns for layer in layers])
    return Stucking(
        reprogram=_stack([layer.reprogram for layer in layers]),
        low_mask=jnp.asarray(masks, config.word_dtype)[low_columns],
        fixed=_stack([layer.fixed for layer in layers]),
    )


def _stack(scalars: Sequence[Any]) -> Array:
    """Puts scalars side by side; on the host where that is possible: nothing to compile."""
    if any(isinstance(scalar, jax.core.Tracer) for scalar in scalars):
        return join([jnp.asarray(scalar)[None] for scalar in scalars])
    return jnp.asarray(np.stack([np.asarray(scalar) for scalar in scalars]))


def join(parts: Sequence[Shaped[Array, "_ ..."]]) -> Shaped[Array, "sections ..."]:
    """Joins arrays one after another along their first axis, however many there are."""
    while len(parts) > 1:
        groups = range(0, len(parts), _JOINED_AT_ONCE)
        parts = [jnp.concatenate(parts[i : i + _JOINED_AT_ONCE]) for i in groups]
    return parts[0]


def anonymous(layer: LayerPlan) -> LayerPlan:
    """Gives the plan of a layer as that of a tensor by itself: slices of a stack are alike."""
    matrix = layer.matrix
    alone = Matrix(shape=matrix.slice_shape, axes=matrix.slice_axes)
    return layer._replace(matrix=alone)


def sections_of(layers: Sequence[LayerPlan]) -> list[int]:
    """Counts the sections of each layer."""
    return [layer.placement.used_rows.shape[0] for layer in layers]


def first_sections(layers: Sequence[LayerPlan]) -> list[int]:
    """Gives the number of the first section of each layer; sections are numbered through."""
    return [0, *np.cumsum(sections_of(layers))[:-1].tolist()]


def split(values: Shaped[Array, "sections ..."], layers: Sequence[LayerPlan]) -> list[Array]:
    """Cuts values of every section of the network into those of each layer."""
    return [
        jax.lax.dynamic_slice_in_dim(values, start, count)
        for start, count in zip(first_sections(layers), sections_of(layers), strict=True)
    ]


def put_back(layers: dict[str, LayerPlan], held: Sequence[Array]) -> dict[str, Array]:
    """Gives the tensors that hold the matrices of layers, each in one piece."""
    parts: dict[str, dict[tuple[int, ...], Array]] = {}
    matrices = {}
    for (name, layer), part in zip(layers.items(), held, strict=True):
        tensor = tensor_name(name, layer.matrix)
        parts.setdefault(tensor, {})[layer.matrix.index] = part
        matrices[tensor] = layer.matrix
    return {
        tensor: from_slices([of_tensor[place] for place in sorted(of_tensor)], matrices[tensor])
        for tensor, of_tensor in parts.items()
    }


def check_belongs(name: str, leaf: Any, layer: LayerPlan) -> None:
    """Checks that a tensor is the one a plan was made for.

    Raises:
      ValueError: it is missing or has another shape, or is no floating array.
    """
    shape = None if leaf is None else tuple(np.shape(leaf))
    if shape != layer.matrix.shape:
        found = "there is no such tensor" if leaf is None else f"the tensor is {shape}"
        raise ValueError(
            f"`plan` belongs to another network: it has `{name}` of shape {layer.matrix.shape}, "
            f"but {found}; plan this network."
        )
    if not is_floating(leaf):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise ValueError(f"`params` has `{name}` of {kind}; give weights of a floating dtype.")


def check_chip(plan: Plan, chip: Chip) -> None:
    """Checks that a chip has the crossbars a plan needs.

    Raises:
      ValueError: another number of crossbars or words, or words of another dtype.
    """
    needed = (plan.crossbars, plan.config.physical_words)
    if chip.state.shape != needed or chip.state.dtype != plan.config.word_dtype:
        raise ValueError(
            f"`chip` belongs to another network or config: it holds {chip.state.dtype} words "
            f"{chip.state.shape}, the plan needs {plan.config.word_dtype} {needed} "
            "([crossbars, words]); sample a chip for this plan."
        )
