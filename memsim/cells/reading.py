"""Reading a crossbar: bit-serial products through its cells, wires and converters.

What is linear in the inputs (variation, drift, the resistance of wires) is a change of the weights:
`read_weights` gives those, for the forward pass of any network. What is not (the bits of the inputs
and the range and steps of the converters) takes the product itself: `read_layer`, `read_matmul`.
With everything ideal both are exactly what `program` says that the chip holds.

Inputs and sums out of range saturate, and `count_saturated` counts them; none wraps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Key, PyTree, UInt

from memsim._batching import in_turn
from memsim._checks import as_key, check_kind
from memsim.cells._arguments import check_arguments, checked_inputs
from memsim.cells._columns import negated, stored_as
from memsim.cells._vectors import read_in_chunks, read_vectors
from memsim.cells.readouts import Cells, Readout, check_solved, program_cells
from memsim.codes import bit_slice, dequantize
from memsim.config import CrossbarConfig
from memsim.network import Params, Programming, put_back
from memsim.placement import invert_placement, negate_rows
from memsim.planning import LayerPlan, Plan
from memsim.selection import by_output, from_output, named_leaves, slice_of, tensor_name

__all__ = ["Saturated", "count_saturated", "read_layer", "read_matmul", "read_weights"]


class Saturated(NamedTuple):
    """Inputs and sums that a read of one vector found out of range; int32 counts.

    Attributes:
      inputs: outside the two's complement of `input_bits`; they drive as its nearest number.
      above, below: conversions, one a column and bit of the inputs, of sums above the range of
        the converter or below it.
    """

    inputs: Int32[Array, ""]
    above: Int32[Array, ""]
    below: Int32[Array, ""]


def read_weights(
    key: Key[Array, ""],
    effective: Params,
    plan: Plan,
    programming: Programming,
    readout: Readout,
) -> Params:
    """Reads the weights as their crossbars hold them, up to the converters.

    Runs under `jit`, `grad` and `vmap`; gradients pass straight through to `effective`. Read noise
    is drawn once per cell: give another key for another chip and another read.

    Args:
      key: of the cells and of the read; consumed.
      effective: pytree from `program`.
      plan, programming: its plan, and what it returned with `words=True`.
      readout: how they are read.

    Returns:
      `effective`, bit for bit where everything is ideal. Under `jit` the weights of a layer whose
      wires were not solved to `wire_tolerance` are NaN.

    Raises:
      ValueError: an argument of another kind, a `programming` without words, or words with flags
        of their own.
      ArithmeticError: a solve of the wires that missed its tolerance, outside `jit`.

    Examples:
      >>> import memsim
      >>> params = {"kernel": np.float32([[1, -2], [3, 4]])}
      >>> plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.parse("sws"))
      >>> chip = memsim.sample_chip(jax.random.key(0), plan)
      >>> held, programming = memsim.program(params, plan, chip, words=True)
      >>> readout = Readout(cells=memsim.Conductance.hfo2())
      >>> read_weights(jax.random.key(1), held, plan, programming, readout)["kernel"].shape
      (2, 2)
    """
    key = as_key("key", key)
    check_kind("plan", plan, Plan)
    check_kind("programming", programming, Programming)
    check_kind("readout", readout, Readout)
    if programming.words is None:
        raise ValueError("`programming` has no words; call program(..., words=True).")
    leaves = named_leaves(effective)
    for name in plan.names:
        matrix = plan.layers[name].matrix
        found = getattr(leaves.get(tensor_name(name, matrix)), "shape", None)
        if found != matrix.shape:
            raise ValueError(
                f"`effective` has {name!r} of shape {found}, `plan` {matrix.shape}; give the "
                "weights that `program` gave with this plan."
            )
    seen: Params
    seen, residual = _read_weights(key, effective, plan, programming.words, readout)
    check_solved(residual, readout)
    return seen


@functools.partial(jax.jit, static_argnames="readout")
def _read_weights(
    key: Key[Array, ""], effective: PyTree, plan: Plan,
    words: dict[str, UInt[Array, "sections physical_words"]], readout: Readout,
) -> tuple[PyTree, Float32[Array, ""]]:  # fmt: skip
    config, leaves = plan.config, named_leaves(effective)
    parts = []
    most_left = jnp.zeros((), jnp.float32)
    # each layer has draws of its own, whatever the others are
    for number, name in enumerate(plan.names):
        layer = plan.layers[name]
        tensor = slice_of(leaves[tensor_name(name, layer.matrix)], layer.matrix)
        layer_key = jax.random.fold_in(key, number)
        seen = in_turn(
            functools.partial(_seen_codes, config, readout),
            8 * words[name].size * config.cells_per_word,  # draws, levels, errors
        )
        codes, residual = seen(layer_key, words[name])
        if any(readout.wires):
            codes = jnp.where(residual <= readout.wire_tolerance, codes, jnp.nan)
            most_left = jnp.maximum(most_left, residual)  # a NaN stays one
        # back to where the weights are, added to what they are
        error = invert_placement(codes, layer.placement)
        error = negate_rows(error, layer.negated, layer.placement)
        added = dequantize(from_output(error, layer.matrix), layer.scale, tensor.dtype)
        parts.append(tensor + jax.lax.stop_gradient(added))
    leaves |= put_back({name: plan.layers[name] for name in plan.names}, parts)
    return jax.tree.unflatten(jax.tree.structure(effective), leaves.values()), most_left


def _seen_codes(
    config: CrossbarConfig,
    readout: Readout,
    key: Key[Array, ""],
    words: UInt[Array, "sections physical_words"],
) -> tuple[Float32[Array, "sections words"], Float32[Array, ""]]:
    """Gives what cells count too much or too little, as codes; and what the wires' solve left."""
    cell_key, read_key = jax.random.split(key)
    cells = program_cells(cell_key, words, config, readout)
    seen = cells.mean
    if cells.deviation is not None:
        noise = jax.random.normal(read_key, seen.shape, seen.dtype)
        seen = seen + cells.deviation * noise
    # weighed as their columns and signs count
    levels = bit_slice(cells.words[:, : config.words], config).astype(jnp.float32)
    complemented, negative = stored_as(cells.words, config)
    turned = jnp.tile(jnp.where(complemented, -1, 1), (1, config.rows, 1))
    signs = turned * jnp.where(negative, negated(config), 1)[..., None]
    # column by column: all draws are then made in loops over words, which a CPU vectorizes
    errors = jnp.moveaxis((seen - levels) * signs, -1, 0)
    weighed = [float(weight) * errors[i] for i, weight in enumerate(config.column_weights)]
    return functools.reduce(jnp.add, weighed), cells.residual


def read_layer(
    key: Key[Array, ""],
    inputs: Int[Array, " inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Int32[Array, " outputs"] | Float32[Array, " outputs"]:
    """Multiplies one vector of inputs with a layer's codes, bit by bit through its crossbars.

    Each bit of the inputs drives the rows of every section; each column sum is converted, shifted,
    added, and weighed by its column, all in integers. Rows whose words have a sign apart
    (`sign_magnitude`, and `twos_complement` in cells of several bits) take turns: first those that
    are not negative, then the others; where words share a row, those of each slot take turns of
    their own. Rows that are negated are driven by the negative of their input. What complements,
    offsets and corrections add is the sum of the inputs times a number, and is taken off digitally.

    Args:
      key: of the noise of each read; consumed.
      inputs: integers; those outside the two's complement of `readout.input_bits` saturate, see
        `count_saturated`; where rows are negated, so does the lowest, whose negative has no room.
      cells: from `program_cells`.
      layer: of an analog-valid plan.
      config, readout: those of `cells`.

    Returns:
      int32 where a converter's step is one level and outputs have no correction, else float32: with
      ideal cells and wires exactly `inputs @ codes`.

    Raises:
      ValueError: an argument of another kind or shape, a layer whose sections mix outputs, or
        products that could exceed an int32.

    Examples:
      >>> import memsim
      >>> params = {"kernel": np.float32([[1, -2], [3, 127]])}
      >>> plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.parse("sws"))
      >>> chip = memsim.sample_chip(jax.random.key(0), plan)
      >>> held, programming = memsim.program(params, plan, chip, words=True)
      >>> cells = program_cells(chip.key, programming.words["kernel"], plan.config, Readout())
      >>> arguments = cells, plan.layers["kernel"], plan.config, Readout()
      >>> read_layer(chip.key, jnp.asarray([10, -1]), *arguments).tolist()
      [7, -147]
    """
    key, codes, _ = checked_inputs(key, inputs, cells, layer, config, readout)
    outputs, _ = read_vectors(key[None], codes[None], cells, layer, config, readout)
    only: Array = outputs[0]
    return only


def count_saturated(
    key: Key[Array, ""],
    inputs: Int[Array, " inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Saturated:
    """Counts what saturates while `read_layer` reads with the same arguments.

    Args:
      key, inputs, cells, layer, config, readout: see `read_layer`.

    Raises:
      ValueError: as `read_layer`.

    Examples:
      >>> import memsim
      >>> params = {"kernel": np.float32([[1, -2], [3, 127]])}
      >>> plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.parse("sws"))
      >>> chip = memsim.sample_chip(jax.random.key(0), plan)
      >>> held, programming = memsim.program(params, plan, chip, words=True)
      >>> cells = program_cells(chip.key, programming.words["kernel"], plan.config, Readout())
      >>> inputs = jnp.asarray([200, -1])
      >>> layer = plan.layers["kernel"]
      >>> int(count_saturated(chip.key, inputs, cells, layer, plan.config, Readout()).inputs)
      1
    """
    key, codes, outside = checked_inputs(key, inputs, cells, layer, config, readout)
    _, (above, below) = read_vectors(key[None], codes[None], cells, layer, config, readout)
    return Saturated(outside, above, below)


def read_matmul(
    key: Key[Array, ""],
    inputs: Float[Array, "*batch inputs"],
    effective: Float[Array, "..."],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Float[Array, "*batch outputs"]:
    """Computes `inputs @ weights` as the crossbars of a layer do, for use inside a model.

    Each vector of inputs is quantized to `readout.input_bits` by its own largest number, as drivers
    with a digital scale per vector do: `round_half_to_even(x / scale)`, an IEEE quotient, with
    `scale = max|x| / (2^(input_bits - 1) - 1)`. So no input saturates, and what a vector gives does
    not depend on those beside it. Gradients pass straight through: they are those of the product
    with the effective weights.

    Args:
      key: of the noise of each read; consumed. Vector i reads with `fold_in(key, i)`.
      inputs: in the order of the tensor's own inputs. Numbers below the smallest normal one of
        their dtype (float32 for narrower ones) count as zero where processors flush them.
      effective: the layer's tensor from `program`.
      cells, layer, config, readout: see `read_layer`.

    Returns:
      In the dtype of `inputs`. A vector with a NaN or an infinite number gives NaN.

    Raises:
      ValueError: as `read_layer`; inputs that are no floats.

    Examples:
      >>> import memsim
      >>> params = {"kernel": np.float32([[1, -2], [3, 127]])}
      >>> plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.parse("sws"))
      >>> chip = memsim.sample_chip(jax.random.key(0), plan)
      >>> held, programming = memsim.program(params, plan, chip, words=True)
      >>> cells = program_cells(chip.key, programming.words["kernel"], plan.config, Readout())
      >>> arguments = held["kernel"], cells, plan.layers["kernel"], plan.config, Readout()
      >>> found = read_matmul(chip.key, jnp.asarray([[1.27, 0.1]]), *arguments)
      >>> np.asarray(found, np.float64).round(2).tolist()
      [[1.57, 10.16]]
    """
    check_arguments(cells, layer, config, readout)
    key = as_key("key", key)
    count = layer.matrix.inputs
    shape, dtype = getattr(inputs, "shape", None), getattr(inputs, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or not shape or shape[-1] != count:
        raise ValueError(
            f"`inputs` is {type(inputs).__name__} {dtype} {shape}; give floats [..., {count}], or "
            "integer codes to read_layer."
        )
    if getattr(effective, "shape", None) != layer.matrix.shape:
        raise ValueError(
            f"`effective` has shape {getattr(effective, 'shape', None)}; give the layer's tensor, "
            f"{layer.matrix.shape}."
        )
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    flat = jnp.asarray(inputs).reshape(-1, count).astype(wide)
    # gradients are those of the product with the weights held
    weights = by_output(jnp.asarray(effective), layer.matrix).T.astype(wide)
    exact = flat @ weights
    # the straight path, zero in value even where the product itself overflows
    through = jnp.where(jnp.isfinite(exact), exact - jax.lax.stop_gradient(exact), 0)
    read = _read_vectors(key, jax.lax.stop_gradient(flat), cells, layer, config, readout)
    outputs: Array = (jax.lax.stop_gradient(read) + through).astype(dtype)
    return outputs.reshape(*shape[:-1], layer.matrix.outputs)


@functools.partial(jax.jit, static_argnames=("config", "readout"))
def _read_vectors(
    key: Key[Array, ""],
    flat: Float[Array, "vectors inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Float[Array, "vectors outputs"]:
    """Products of vectors, each quantized by itself."""
    tiny = float(np.finfo(flat.dtype).tiny)
    most = 2 ** (readout.input_bits - 1) - 1
    # a vector of tiny numbers is lifted by a power of two, so that its scale is a normal number
    largest = jnp.max(jnp.abs(flat), axis=1, keepdims=True)
    finite = jnp.isfinite(largest)
    lift = jnp.where(largest < tiny * 2.0**20, 2.0**20, 1.0).astype(flat.dtype)
    flat = jnp.where(finite, flat, 0) * lift
    scale = jnp.where(finite & (largest > 0), largest * lift / most, 1)
    # behind the barrier no compiler sees a broadcast and multiplies by a reciprocal instead
    barrier: Callable[[Array], Array] = jax.lax.optimization_barrier
    divisor = barrier(jnp.broadcast_to(scale, flat.shape))
    codes = jnp.round(flat / divisor).astype(jnp.int32)
    products = read_in_chunks(key, codes, cells, layer, config, readout).astype(flat.dtype)
    # the smaller scale first: then nothing overflows or vanishes that is not so in the end
    per_output = jnp.broadcast_to(layer.scale, layer.matrix.slice_shape)
    per_output = by_output(per_output, layer.matrix.slice_axes)[:, 0].astype(flat.dtype)[None]
    read = products * jnp.minimum(scale, per_output) * jnp.maximum(scale, per_output)
    return jnp.where(finite, read / lift, jnp.nan)
