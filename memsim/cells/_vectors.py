"""Products of vectors of whole numbers with the cells of a layer, bit by bit."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key

from memsim._batching import NEAR, in_turn
from memsim.cells import _columns
from memsim.cells._arguments import most_levels
from memsim.cells._column_levels import top_levels
from memsim.cells._columns import negated, sign_level, stored_as, takes_turns
from memsim.cells.readouts import Cells, Readout
from memsim.config import CrossbarConfig
from memsim.planning import LayerPlan


@functools.partial(jax.jit, static_argnames=("config", "readout"))
def read_vectors(
    keys: Key[Array, " vectors"],
    inputs: Int32[Array, "vectors inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> tuple[
    Int32[Array, "vectors outputs"] | Float32[Array, "vectors outputs"],
    tuple[Int32[Array, ""], Int32[Array, ""]],
]:
    """Gives the products, and the conversions that saturated above and below."""
    matrix, rows = layer.matrix, _columns.rows_of(layer, config)
    complemented, negative = stored_as(cells.words, config)
    driving = inputs if layer.negated is None else jnp.concatenate([inputs, -inputs], axis=1)
    # words by turns: all, or those without a sign and those with one
    used = jnp.asarray(layer.placement.weights) < matrix.inputs * matrix.outputs
    turns = [used & ~negative, used & negative] if takes_turns(config) else [used]
    above = below = jnp.zeros((), jnp.int32)
    weights = jnp.asarray(config.column_weights, jnp.int32)[None, None, None]
    limit = most_levels(layer, config, readout)
    parts = []
    for turn, here in enumerate(turns):
        turn_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, turn)
        read = _columns.column_sums(turn_keys, driving, rows, here, cells, config, readout, limit)
        columns, above, below = read.total, above + read.above, below + read.below
        if config.flags == "section" or turn:
            total = _columns.over_rows(driving, rows, here, config, readout)
        if config.flags == "section":
            # of a complemented column the sum is that of all cells at their highest level, less it
            top = jnp.asarray(top_levels(config), columns.dtype)[None, None, None]
            of_all = total[..., None].astype(columns.dtype) * top
            columns = jnp.where(complemented[None], of_all - columns, columns)
        if turn:  # the sign within its cell
            columns = columns.at[..., -1].add(-(sign_level(config) * total).astype(columns.dtype))
        # columns to one number a slot of a section; the order of a product hangs on the batch
        weighed = columns * weights.astype(columns.dtype)
        one = functools.reduce(jnp.add, jnp.moveaxis(weighed, -1, 0))
        parts.append(negated(config) * one if turn else one)
    sums = functools.reduce(jnp.add, parts)
    # sections to outputs, and what was added to all codes taken off again
    if config.encoding == "offset_binary":
        total = _columns.over_rows(driving, rows, used, config, readout)
        sums -= (1 << (config.bits - 1)) * total.astype(sums.dtype)
    index = jnp.asarray(layer.placement.weights)
    of_slot = index[:, : config.words_per_row] // matrix.inputs  # of an unused one: no output
    by_slot = sums.reshape(len(sums), of_slot.size).T
    outputs = jax.ops.segment_sum(by_slot, of_slot.reshape(-1), matrix.outputs).T
    of_inputs = inputs.sum(axis=1, keepdims=True, dtype=jnp.int32)
    if layer.offset is not None:
        outputs -= (layer.offset * of_inputs).astype(outputs.dtype)
    if layer.correction is not None:
        added = layer.correction[None] * of_inputs.astype(jnp.float32)
        outputs = outputs.astype(jnp.float32) - added
    return outputs, (above, below)


def read_in_chunks(
    key: Key[Array, ""],
    codes: Int32[Array, "vectors inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Int32[Array, "vectors outputs"] | Float32[Array, "vectors outputs"]:
    """Gives products of whole numbers, of as many vectors and chips at a time as caches hold.

    Vector i reads with `fold_in(key, i)`.
    """
    of_vector = readout.input_bits * cells.mean[:, 0].size * config.words_per_row
    chunks = max(1, -(-len(codes) * of_vector // NEAR))
    size = -(-len(codes) // chunks)
    # chunks of one size, the last filled up with vectors of zeros
    padded = jnp.pad(codes, ((0, chunks * size - len(codes)), (0, 0)))
    numbers = jnp.arange(len(padded), dtype=jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)

    def product(*of: Any) -> Array:
        outputs: Array
        outputs, _ = read_vectors(*of, config, readout)
        return outputs

    read_chunk = in_turn(product, size * of_vector)
    chunked = keys.reshape(chunks, size), padded.reshape(chunks, size, layer.matrix.inputs)
    read = jax.lax.map(lambda chunk: read_chunk(*chunk, cells, layer), chunked)
    outputs: Array = read.reshape(chunks * size, layer.matrix.outputs)[: len(codes)]
    return outputs
