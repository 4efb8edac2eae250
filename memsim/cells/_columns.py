"""Sums of columns: their converters, and what a section stores otherwise than as it is."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt

from memsim.cells.readouts import Cells, Readout
from memsim.codes import bit_slice, word_constant
from memsim.config import CrossbarConfig


class ColumnSums(NamedTuple):
    """The codes of the converters for every column, all bits of the inputs shifted and added.

    A slot is the place of a word in its row: the words of all rows there share their columns.

    Attributes:
      total: levels times inputs; int32 where a step is one level.
      above, below: int32, conversions that saturated at the top of the range, or at its bottom.
    """

    total: Int32[Array, "sections slots columns"] | Float32[Array, "sections slots columns"]
    above: Int32[Array, ""]
    below: Int32[Array, ""]


def column_sums(
    key: Key[Array, ""],
    driven: Int32[Array, "sections words"],
    cells: Cells,
    config: CrossbarConfig,
    readout: Readout,
    limit: int,
) -> ColumnSums:
    """Adds up every column, converts the sum for each bit of the inputs, shifts and adds.

    A sum exactly between two codes takes the even one. Sums of whole levels are converted in exact
    integers, so that none hangs on how a quotient is rounded.

    Args:
      key: of the read noise; consumed.
      driven: inputs of the words, two's complement of `readout.input_bits`.
      cells, config, readout: what is read, and how.
      limit: most levels of a sum where `adc_bits` sets none: what 32 bits can hold in the end.
    """
    # rows that each bit drives, and what they add up to, exact while all of it is whole
    shifts = jnp.arange(readout.input_bits, dtype=jnp.int32)
    bits = (driven[None] >> shifts[:, None, None] & 1).astype(jnp.float32)
    bits = bits.reshape(len(shifts), -1, config.rows, config.words_per_row)

    def add_up(values: Array) -> Array:
        by_slot = values.reshape(*bits.shape[1:], -1)
        return jnp.einsum("tsrw,srwc->tswc", bits, by_slot, precision="highest")

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
            codes = codes_of_whole_sums(
                sums, codes, Fraction(highest) / full_range(config, readout)
            )
    # what is out of range is counted before it is clipped
    above = jnp.sum(codes > highest, dtype=jnp.int32)
    below = jnp.sum(codes < lowest, dtype=jnp.int32)
    codes = jnp.clip(codes, lowest, highest).astype(jnp.int32)
    place = jnp.left_shift(1, shifts).at[-1].multiply(-1)  # two's complement
    total = jnp.tensordot(place, codes, axes=1)
    return ColumnSums(total if step == 1 else total.astype(jnp.float32) * step, above, below)


def over_rows(
    driven: Int32[Array, "sections words"], config: CrossbarConfig
) -> Int32[Array, "sections slots"]:
    """Sums what drives the words of each slot."""
    by_slot = driven.reshape(-1, config.rows, config.words_per_row)
    return by_slot.sum(axis=1, dtype=jnp.int32)


def full_range(config: CrossbarConfig, readout: Readout) -> Fraction:
    """Gives the levels at which a converter says its top code, as a fraction of at most 29 bits."""
    if readout.adc_range is None:
        return Fraction(config.rows * (2**config.cell_bits - 1))
    # 0.4 is meant as 2/5, not as the nearest number of 53 bits
    most = int(2**28 / max(readout.adc_range, 1))
    return Fraction(readout.adc_range).limit_denominator(max(most, 1))


def codes_of_whole_sums(
    sums: Float32[Array, "*shape"], codes: Float32[Array, "*shape"], share: Fraction
) -> Float32[Array, "*shape"]:
    """Corrects the codes of sums that are whole levels: `sum * share`, ties to even.

    Args:
      sums: levels.
      codes: `sums * share` rounded, off by 2 at most where the quotient was rounded too.
      share: codes of a level.
    """
    # d = 2 (sum num - code den) is small, so it is exact in 32 bits though its two terms wrap
    # modulo 2^32, as int32 multiplies
    numerator, denominator = 2 * share.numerator, share.denominator
    wrapped = (numerator + 2**31) % 2**32 - 2**31
    is_whole = (sums == jnp.round(sums)) & (jnp.abs(sums) < 2**24) & (jnp.abs(codes) <= 2**24)
    # sums that are not whole stay as they were rounded
    code = jnp.where(is_whole, codes, 0).astype(jnp.int32)
    whole = jnp.where(is_whole, sums, 0).astype(jnp.int32)
    left = whole * jnp.int32(wrapped) - code * jnp.int32(2 * denominator)
    for _ in range(2):  # to within half a code
        step = (left > denominator).astype(jnp.int32) - (left < -denominator).astype(jnp.int32)
        code, left = code + step, left - step * jnp.int32(2 * denominator)
    is_tie = (jnp.abs(left) == denominator) & (code % 2 != 0)
    code = code + jnp.where(is_tie, jnp.sign(left), 0)
    return jnp.where(is_whole, code.astype(codes.dtype), codes)


def stored_as(
    words: UInt[Array, "sections physical_words"], config: CrossbarConfig
) -> tuple[Bool[Array, "sections slots columns"], Bool[Array, "sections words"]]:
    """Finds which columns of a section hold complements, and which words a sign apart."""
    data, flags = words[:, : config.words], words[:, config.words :]
    if config.flags == "section":
        data = data ^ jnp.tile(flags, config.rows)
        complemented = bit_slice(flags, config) != 0
    else:
        complemented = jnp.zeros((len(words), config.words_per_row, config.cells_per_word), bool)
    sign = word_constant(1 << (config.bits - 1), config)
    negative = (data & sign) != 0 if takes_turns(config) else jnp.zeros(data.shape, bool)
    return complemented, negative


def takes_turns(config: CrossbarConfig) -> bool:
    """Says whether words are read by their sign, which counts unlike its column."""
    in_wide_cell = config.column_masks[-1] != 1 << (config.bits - 1)
    return config.encoding == "sign_magnitude" or (
        config.encoding == "twos_complement" and in_wide_cell
    )


def negated(config: CrossbarConfig) -> int:
    """Gives the factor of the sum of the words with a sign."""
    return -1 if config.encoding == "sign_magnitude" else 1


def sign_level(config: CrossbarConfig) -> int:
    """Gives the levels by which the top cell of a negative word exceeds the digit it stands for."""
    top = config.column_masks[-1]
    sign = (1 << (config.bits - 1)) // (top & -top)
    return sign if config.encoding == "sign_magnitude" else 2 * sign
