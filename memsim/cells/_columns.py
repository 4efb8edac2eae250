"""Sums of columns: their converters, and what a section stores otherwise than as it is."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt

from memsim.cells.readouts import Cells, Readout
from memsim.codes import bit_slice, word_constant
from memsim.config import CrossbarConfig


class ColumnSums(NamedTuple):
    """The codes of the converters for every column, all bits of the inputs shifted and added.

    Attributes:
      total: levels times inputs; int32 where a step is one level.
      above, below: int32, conversions that saturated at the top of the range, or at its bottom.
    """

    total: Int32[Array, "sections columns"] | Float32[Array, "sections columns"]
    above: Int32[Array, ""]
    below: Int32[Array, ""]


def column_sums(
    key: Key[Array, ""],
    driven: Int32[Array, "sections rows"],
    cells: "Cells",
    config: CrossbarConfig,
    readout: "Readout",
    limit: int,
) -> ColumnSums:
    """Adds up every column, converts the sum for each bit of the inputs, shifts and adds.

    A sum exactly between two codes takes the even one. Sums of whole levels are converted by a
    table in exact fractions, so that none hangs on how a quotient is rounded.

    Args:
      key: of the read noise; consumed.
      driven: inputs of the rows, two's complement of `readout.input_bits`.
      cells, config, readout: what is read, and how.
      limit: most levels of a sum where `adc_bits` sets none: what 32 bits can hold in the end.
    """
    # rows that each bit drives, and what they add up to, exact while all of it is whole
    shifts = jnp.arange(readout.input_bits, dtype=jnp.int32)
    bits = (driven[None] >> shifts[:, None, None] & 1).astype(jnp.float32)
    add_up = functools.partial(jnp.einsum, "tsr,src->tsc", bits, precision="highest")
    sums = add_up(cells.mean)
    if cells.deviation is not None:
        variance = add_up(jnp.square(cells.deviation))  # of independent cells
        sums += jnp.sqrt(variance) * jax.random.normal(key, sums.shape, sums.dtype)
    # what the converter says, before it saturates
    step = readout.adc_step(config)
    codes = jnp.round(sums / step)
    if readout.adc_bits is None:
        lowest, highest = -limit, limit
    else:
        lowest, highest = 0, 2**readout.adc_bits - 1
        if step != 1:
            full = config.rows * (2**config.cell_bits - 1)
            table = jnp.asarray(exact_codes(full, readout.adc_range or full, highest))
            whole = jnp.round(sums)
            is_whole = (sums == whole) & (whole >= 0) & (whole <= full)
            exact = table[jnp.clip(whole, 0, full).astype(jnp.int32)]
            codes = jnp.where(is_whole, exact.astype(codes.dtype), codes)
    above = jnp.sum(codes > highest, dtype=jnp.int32)
    below = jnp.sum(codes < lowest, dtype=jnp.int32)
    codes = jnp.clip(codes, lowest, highest).astype(jnp.int32)
    place = jnp.left_shift(1, shifts).at[-1].multiply(-1)  # two's complement
    total = jnp.tensordot(place, codes, axes=1)
    return ColumnSums(total if step == 1 else total.astype(jnp.float32) * step, above, below)


@functools.lru_cache(maxsize=64)
def exact_codes(levels: int, full: float, highest: int) -> Int32[np.ndarray, " sums"]:
    """Converts whole sums from 0 to `levels`: `sum * highest / full`, ties to even.

    Args:
      levels: the largest sum.
      full: levels at which the converter says `highest`.
      highest: its top code; larger ones are `highest + 1`.
    """
    share = Fraction(highest) / Fraction(full)
    large = 2 * levels * share.numerator + share.denominator >= 2**62
    sums = np.arange(levels + 1, dtype=object if large else np.int64)
    # floor(x + 1/2), less one where that was a tie and came out odd
    double, divisor = 2 * share.numerator * sums + share.denominator, 2 * share.denominator
    codes = double // divisor
    codes = codes - ((double % divisor == 0) & (codes % 2 == 1))
    rounded: Int32[np.ndarray, " sums"] = np.minimum(codes, highest + 1).astype(np.int32)
    return rounded


def stored_as(
    words: UInt[Array, "sections physical_rows"], config: CrossbarConfig
) -> tuple[Bool[Array, "sections 1 columns"], Bool[Array, "sections rows"]]:
    """Finds which columns of a section hold complements, and which rows a sign apart."""
    data, flags = words[:, : config.rows], words[:, config.rows :]
    if config.flags == "section":
        data = data ^ flags
        complemented = bit_slice(flags, config) != 0
    else:
        complemented = jnp.zeros((len(words), 1, config.columns), bool)
    sign = word_constant(1 << (config.bits - 1), config)
    negative = (data & sign) != 0 if takes_turns(config) else jnp.zeros(data.shape, bool)
    return complemented, negative


def takes_turns(config: CrossbarConfig) -> bool:
    """Says whether rows are read by the sign of their words: it counts unlike its column."""
    in_wide_cell = config.column_masks[-1] != 1 << (config.bits - 1)
    return config.encoding == "sign_magnitude" or (
        config.encoding == "twos_complement" and in_wide_cell
    )


def negated(config: CrossbarConfig) -> int:
    """Gives the factor of the sum of the rows with a sign."""
    return -1 if config.encoding == "sign_magnitude" else 1


def sign_level(config: CrossbarConfig) -> int:
    """Counts the levels by which the top cell of a row with a sign exceeds the digit it stands
    for.
    """
    top = config.column_masks[-1]
    sign = (1 << (config.bits - 1)) // (top & -top)
    return sign if config.encoding == "sign_magnitude" else 2 * sign
