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
from memsim.planning import LayerPlan

# Columns of a section from which on it takes products of its own, if inputs are more than its rows.
_SHARED_COLUMNS = 64


class Rows(NamedTuple):
    """The rows, and what drives them: an input or, where rows are negated, its negative.

    All words of a row share its input, so that a product with all rows is one of matrices. Where a
    section has room for all inputs of a layer, cells are taken in the order of the inputs: then
    one product serves all sections.

    Attributes:
      of_word: int32 [sections, words], the driver of each word; past the last for none.
      drivers: int32 [groups, rows], the driver of each row: of every section, or of all at once.
      shared: whether all sections share them.
      size: rows of a crossbar.
    """

    of_word: Int32[Array, "sections words"]
    drivers: Int32[Array, "groups rows"]
    shared: bool
    size: int


class ColumnSums(NamedTuple):
    """The codes of the converters for every column, all bits of the inputs shifted and added.

    A slot is the place of a word in its row: the words of all rows there share their columns.

    Attributes:
      total: levels times inputs; int32 where a step is one level.
      above, below: int32, conversions that saturated at the top of the range, or at its bottom.
    """

    total: (
        Int32[Array, "vectors sections slots columns"]
        | Float32[Array, "vectors sections slots columns"]
    )
    above: Int32[Array, ""]
    below: Int32[Array, ""]


def rows_of(layer: LayerPlan, config: CrossbarConfig) -> Rows:
    """Finds which input drives which row of a layer."""
    inputs, weights = layer.matrix.inputs, jnp.asarray(layer.placement.weights)
    used = weights < inputs * layer.matrix.outputs
    drivers, driver = inputs, weights % inputs
    if layer.negated is not None:  # those of negatives come after those of inputs
        rows = jnp.repeat(jnp.asarray(layer.negated), config.words_per_row, axis=1)
        drivers, driver = 2 * inputs, driver + jnp.where(rows, inputs, 0)
    of_word = jnp.where(used, driver, drivers)
    # a product that all share has room for the drivers that a section lacks
    room = max(1, _SHARED_COLUMNS // (config.words_per_row * config.cells_per_word))
    if drivers <= room * config.rows:
        return Rows(of_word, jnp.arange(drivers, dtype=jnp.int32)[None], True, config.rows)
    of_row = of_word.reshape(-1, config.rows, config.words_per_row).min(axis=2)
    return Rows(of_word, of_row, False, config.rows)


def column_sums(
    keys: Key[Array, " vectors"],
    inputs: Int32[Array, "vectors drivers"],
    rows: Rows,
    here: Bool[Array, "sections words"],
    cells: Cells,
    config: CrossbarConfig,
    readout: Readout,
    limit: int,
) -> ColumnSums:
    """Adds up every column, converts the sum for each bit of the inputs, shifts and adds.

    A sum exactly between two codes takes the even one. Sums of whole levels are converted in exact
    integers, so that none hangs on how a quotient is rounded.

    Args:
      keys: of the read noise of each vector; consumed.
      inputs: what drivers apply, two's complement of `readout.input_bits`.
      rows: that they drive, see `rows_of`.
      here: bool [sections, words], those that are read; the others are not driven.
      cells, config, readout: what is read, and how.
      limit: most levels of a sum where `adc_bits` sets none: what 32 bits can hold in the end.
    """
    # a product with the cells for every bit of every vector, all at once
    bits = _bits_of(inputs, rows, readout)
    sums = _add_up(bits, cells.mean, rows, here)
    if cells.deviation is not None:
        variance = _add_up(bits, jnp.square(cells.deviation), rows, here)  # of independent cells
        of_vector = (readout.input_bits, len(sums), sums[0, 0, 0].size)
        # drawn vector by vector: what one gives does not hang on those beside it
        noise = jax.vmap(lambda key: jax.random.normal(key, of_vector, sums.dtype))(keys)
        sums += jnp.sqrt(variance) * jnp.moveaxis(noise, 2, 0).swapaxes(1, 2)
    # what the converter says, before it saturates
    step = readout.adc_step(config)
    if readout.adc_bits is None:
        lowest, highest, share = -limit, limit, Fraction(1)
    else:
        lowest, highest = 0, 2**readout.adc_bits - 1
        share = Fraction(highest) / full_range(config, readout)
    codes = jnp.round(sums * float(share))
    if not _is_exact(share, config):
        codes = codes_of_whole_sums(sums, codes, share)
    # what is out of range is counted before it is clipped
    above = jnp.sum(codes > highest, dtype=jnp.int32)
    below = jnp.sum(codes < lowest, dtype=jnp.int32)
    total = _shifted(jnp.clip(codes, lowest, highest).astype(jnp.int32), here, config)
    return ColumnSums(total if step == 1 else total.astype(jnp.float32) * step, above, below)


def over_rows(
    inputs: Int32[Array, "vectors drivers"],
    rows: Rows,
    here: Bool[Array, "sections words"],
    config: CrossbarConfig,
    readout: Readout,
) -> Int32[Array, "vectors sections slots"]:
    """Sums what drives the words of each slot."""
    one = jnp.ones((*here.shape, 1), jnp.float32)
    # as many bits at a time as float32 adds up exactly over the rows of a slot, the sign on top
    at_once = max(1, 24 - (rows.size - 1).bit_length())
    shifts = range(0, readout.input_bits, at_once)
    driven = jnp.take(inputs.T, rows.drivers, axis=0, mode="clip")
    digits = [driven >> shift & ((1 << at_once) - 1) for shift in shifts[:-1]]
    digits.append(driven >> shifts[-1])
    sums = _add_up(jnp.stack(digits, axis=1).astype(jnp.float32), one, rows, here)
    places = [sums[:, i].astype(jnp.int32) << shift for i, shift in enumerate(shifts)]
    total = _by_slot(functools.reduce(jnp.add, places), here, config)
    return total[..., 0]


def _bits_of(
    inputs: Int32[Array, "vectors drivers"], rows: Rows, readout: Readout
) -> Float32[Array, "groups bits rows vectors"]:
    """Gives the bits that drive each row, the lowest first."""
    driven = jnp.take(inputs.T, rows.drivers, axis=0, mode="clip")
    shifts = jnp.arange(readout.input_bits, dtype=jnp.int32)[None, :, None, None]
    return (driven[:, None] >> shifts & 1).astype(jnp.float32)


def _add_up(
    bits: Float32[Array, "groups bits rows vectors"],
    values: Float32[Array, "sections words columns"],
    rows: Rows,
    here: Bool[Array, "sections words"],
) -> Float32[Array, "groups bits vectors columns"]:
    """Adds up the columns of the rows that each bit drives, exact while all of it is whole."""
    groups, _, drivers, _ = bits.shape
    if rows.shared:
        # the word that each of them drives in each slot, past the last for none
        sections, words = here.shape
        slots = words // rows.size
        word = np.arange(here.size, dtype=np.int32).reshape(here.shape)
        section, slot = np.arange(sections)[:, None], np.arange(words)[None] % slots
        of_word = jnp.where(here, rows.of_word, drivers)
        driven = jnp.full((drivers, sections, slots), here.size, jnp.int32)
        driven = driven.at[of_word, section, slot].set(word, mode="drop")
        values = values.reshape(here.size, -1)
        read = jnp.take(values, driven, axis=0, mode="fill", fill_value=0)
    else:
        read = jnp.where(here[..., None], values, 0)
    return jnp.einsum(
        "gtrv,grn->gtvn", bits, read.reshape(groups, drivers, -1), precision="highest"
    )


def _shifted(
    codes: Int32[Array, "groups bits vectors columns"],
    here: Bool[Array, "sections words"],
    config: CrossbarConfig,
) -> Int32[Array, "vectors sections slots columns"]:
    """Adds up the codes of all bits, each at its place in two's complement."""
    bits = codes.shape[1]
    # unrolled: a product of integers is slow on a CPU
    places = [1 << bit for bit in range(bits - 1)] + [-1 << (bits - 1)]
    total = functools.reduce(jnp.add, [place * codes[:, i] for i, place in enumerate(places)])
    return _by_slot(total, here, config)


def _by_slot(
    total: Int32[Array, "groups vectors columns"],
    here: Bool[Array, "sections words"],
    config: CrossbarConfig,
) -> Int32[Array, "vectors sections slots columns"]:
    """Tells the columns of each slot of each section apart."""
    groups, vectors, columns = total.shape
    columns = columns * groups // (len(here) * config.words_per_row)
    total = total.reshape(groups, vectors, len(here) // groups, config.words_per_row, columns)
    return total.swapaxes(0, 1).reshape(vectors, len(here), config.words_per_row, columns)


def full_range(config: CrossbarConfig, readout: Readout) -> Fraction:
    """Gives the levels at which a converter says its top code, as a fraction of at most 29 bits."""
    if readout.adc_range is None:
        return Fraction(config.rows * (2**config.cell_bits - 1))
    # 0.4 is meant as 2/5, not as the nearest number of 53 bits
    most = int(2**28 / max(readout.adc_range, 1))
    return Fraction(readout.adc_range).limit_denominator(max(most, 1))


def _is_exact(share: Fraction, config: CrossbarConfig) -> bool:
    """Says whether float32 multiplies every whole sum by a fraction without rounding."""
    most = config.rows * (2**config.cell_bits - 1)
    return share.denominator.bit_count() == 1 and most * share.numerator <= 2**24


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
