"""Weights to codes, codes to words, words to cells; and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Num, UInt

from memsim._checks import check_array, check_kind, check_whole
from memsim.config import CrossbarConfig

__all__ = [
    "AnyArray",
    "bit_slice",
    "cell_changes",
    "column_counts",
    "decode",
    "dequantize",
    "encode",
    "hamming_distance",
    "join_slices",
    "quantization_scale",
    "quantize",
    "rounded_quotient",
    "to_codes",
    "whole_cells",
    "word_constant",
]

# What is planned on the host goes to the device as it is.
AnyArray = Array | np.ndarray
"""An array of JAX or of NumPy."""


def quantization_scale(
    weights: np.ndarray, bits: int, output_axes: tuple[int, ...] = ()
) -> np.ndarray:
    """Computes the scale: `max|w| / (2**(bits - 1) - 1)` in float32; 1 where that is
    zero.

    Args:
      weights: host array of any floating dtype and shape.
      bits: precision, sign included.
      output_axes: one scale for each index along these axes; () for one per tensor.

    Returns:
      float32, of the rank of `weights`, 1 along every other axis (a scalar if `output_axes` is ()).

    Raises:
      ValueError: weights so small that their scale is below the smallest normal float32, which
        processors flush to 0.
    """
    check_array("weights", weights, "numbers")
    check_whole("bits", bits, "a weight has 2 to 16 bits, its sign included", 2, 16)
    check_kind("output_axes", output_axes, tuple, "give a tuple of axes")
    for axis in output_axes:
        check_whole("output_axes", axis, "give axes of `weights`", 0, weights.ndim - 1)
    if not weights.size:
        raise ValueError(f"`weights` has shape {weights.shape}; an empty tensor has no scale.")
    axes = tuple(axis for axis in range(weights.ndim) if axis not in output_axes)
    # two reductions instead of abs(): no copy of the tensor, and NaN comes through
    high, low = weights.max(axis=axes, keepdims=True), weights.min(axis=axes, keepdims=True)
    all_zero = (high == 0) & (low == 0)
    largest = np.maximum(high.astype(np.float32), -low.astype(np.float32))
    scale = np.where(all_zero, np.float32(1), largest / np.float32(2 ** (bits - 1) - 1))
    too_small = scale < np.finfo(np.float32).tiny
    if np.any(too_small):
        each = " of an output" if output_axes else ""
        reached = np.maximum(high, -low)[too_small].max()
        raise ValueError(
            f"`weights`{each} reach {reached:.3g} at most, and the scale of {bits} bits is "
            "below the smallest float32; multiply them, or leave the tensor digital."
        )
    return scale if output_axes else scale.reshape(())


def quantize(
    weights: Float[Array, "*shape"], scale: Float32[AnyArray, "..."], config: CrossbarConfig
) -> Int[Array, "*shape"]:
    """Quantizes `weights`: IEEE float32 quotients rounded half to even, clipped to +-max_code.

    Args:
      weights: any floating dtype.
      scale: float32, broadcastable to `weights`.

    Returns:
      Codes, `config.code_dtype`.
    """
    check_kind("config", config, CrossbarConfig)
    return to_codes(rounded_quotient(weights, scale), config)


def rounded_quotient(
    weights: Float[Array, "*shape"], scale: Float32[AnyArray, "..."]
) -> Float32[Array, "*shape"]:
    """Computes `round_half_to_even(weights / scale)`, IEEE float32 quotients: codes not clipped."""
    check_array("weights", weights, "floating numbers")
    check_array("scale", scale, "floating numbers")
    _check_broadcast("scale", scale, weights.shape)
    # XLA turns a division by a broadcast scalar into a multiplication by its reciprocal, which
    # moves a few codes in a million; behind the barrier it cannot see the broadcast.
    wide = jnp.broadcast_to(scale, weights.shape)
    divisor = jax.lax.optimization_barrier(wide)  # type: ignore[no-untyped-call]
    return jnp.round(weights.astype(jnp.float32) / divisor)


def to_codes(quotients: Float32[Array, "*shape"], config: CrossbarConfig) -> Int[Array, "*shape"]:
    """Turns rounded quotients into codes, `config.code_dtype`: clipped to +-max_code."""
    return jnp.clip(quotients, -config.max_code, config.max_code).astype(config.code_dtype)


def dequantize(
    codes: Num[Array, "*shape"], scale: Float32[AnyArray, "..."], dtype: np.dtype
) -> Float[Array, "*shape"]:
    """Computes `codes * scale`, in float32 (float64 in float64), and rounds it to `dtype`."""
    check_array("codes", codes, "numbers")
    check_array("scale", scale, "floating numbers")
    _check_broadcast("scale", scale, codes.shape)
    check_kind("dtype", dtype, (np.dtype, type), "give the `dtype` of an array")
    wide = dtype if dtype == jnp.float64 else jnp.float32
    return (codes.astype(wide) * scale.astype(wide)).astype(dtype)


def encode(codes: Int[Array, "*shape"], config: CrossbarConfig) -> UInt[Array, "*shape"]:
    """Gives the words that stand for `codes` in `config.encoding`.

    Args:
      codes: within min_code..max_code, any signed dtype.

    Returns:
      Packed words, `config.word_dtype`; bit 0 is the lowest bit of column 0. A flag is 0.
    """
    check_array("codes", codes, "integers")
    check_kind("config", config, CrossbarConfig)
    code = codes.astype(jnp.int32)
    sign_bit = 1 << (config.bits - 1)
    if config.encoding == "twos_complement":
        # in Python's negative numbers all high bits are set: cut to the word
        word = code & (2 * sign_bit - 1)
    elif config.encoding == "offset_binary":
        word = code + sign_bit
    elif config.encoding == "sign_magnitude":
        word = jnp.where(code < 0, -code | sign_bit, code)
    else:
        (_, _), (negative_half, _) = config.halves
        word = jnp.where(code < 0, -code << negative_half, code)
    return word.astype(config.word_dtype)


def decode(words: UInt[Array, "*shape"], config: CrossbarConfig) -> Int[Array, "*shape"]:
    """Gives the codes that `words` stand for: the inverse of `encode`, defined for every word.

    Returns:
      Codes, `config.code_dtype`. A word that `encode` never makes (bit stucking and faults do) may
      reach -max_code - 1; minus zero is 0; the differential halves subtract. A word whose flag is
      set counts as its complement.
    """
    check_array("words", words, "unsigned words")
    check_kind("config", config, CrossbarConfig)
    # bits 31 and above are never set (2 * 15 bits and a flag at most), so the cast is exact
    word = words.astype(jnp.int32)
    if config.flags == "word":
        *data, flag = config.column_masks
        word = jnp.where((word & flag) != 0, ~word, word) & sum(data)
    sign_bit = 1 << (config.bits - 1)
    if config.encoding == "twos_complement":
        code = (word ^ sign_bit) - sign_bit
    elif config.encoding == "offset_binary":
        code = word - sign_bit
    elif config.encoding == "sign_magnitude":
        magnitude = word & (sign_bit - 1)
        code = jnp.where((word & sign_bit) != 0, -magnitude, magnitude)
    else:
        (_, bits), (negative_half, _) = config.halves
        magnitude_mask = (1 << bits) - 1
        code = (word & magnitude_mask) - ((word >> negative_half) & magnitude_mask)
    return code.astype(config.code_dtype)


def bit_slice(
    words: UInt[Array, "*shape"], config: CrossbarConfig
) -> UInt[Array, "*shape columns"]:
    """Gives the level of every cell: uint8, columns last, column 0 first."""
    check_array("words", words, "unsigned words")
    check_kind("config", config, CrossbarConfig)
    levels = [(words & word_constant(mask, config)) >> _low_bit(mask, config)
              for mask in config.column_masks]  # fmt: skip
    return jnp.stack(levels, axis=-1).astype(jnp.uint8)


def join_slices(
    levels: Int[Array, "*shape columns"], config: CrossbarConfig
) -> UInt[Array, "*shape"]:
    """Gives the words whose cells have these levels: the inverse of `bit_slice`."""
    check_array("levels", levels, "integers", "[..., columns]")
    check_kind("config", config, CrossbarConfig)
    if levels.shape[-1:] != (config.cells_per_word,):
        raise ValueError(
            f"`levels` has shape {levels.shape}; give {config.cells_per_word} columns, last."
        )
    levels = levels.astype(config.word_dtype)
    words = jnp.zeros(levels.shape[:-1], config.word_dtype)
    for column, mask in enumerate(config.column_masks):
        words |= (levels[..., column] << _low_bit(mask, config)) & word_constant(mask, config)
    return words


def cell_changes(
    old: UInt[Array, "*shape"], new: UInt[Array, "*shape"], config: CrossbarConfig
) -> tuple[UInt[Array, "*shape"], UInt[Array, "*shape"]]:
    """Finds the cells that change when `old` is overwritten by `new`.

    Returns:
      (sets, resets): words with a cell's lowest bit set where its level rises, or falls.
    """
    check_kind("config", config, CrossbarConfig)
    _check_words("old", old, config)
    _check_words("new", new, config)
    try:
        np.broadcast_shapes(old.shape, new.shape)
    except ValueError:
        raise ValueError(
            f"`new` has shape {new.shape}, `old` {old.shape}; give shapes that fit each other."
        ) from None
    lowest = word_constant(sum(mask & -mask for mask in config.column_masks), config)
    changed = old ^ new
    sets = jnp.zeros_like(changed)
    decided = jnp.zeros_like(changed)
    for bit in reversed(range(config.cell_bits)):  # the highest bit that differs decides
        shift = word_constant(bit, config)
        differs = (changed >> shift) & lowest & ~decided
        sets |= differs & (new >> shift)
        decided |= differs
    return sets, decided ^ sets


def whole_cells(cells: UInt[Array, "*shape"], config: CrossbarConfig) -> UInt[Array, "*shape"]:
    """Marks all bits of the cells whose lowest bit is marked."""
    for _ in range(config.cell_bits - 1):
        cells = cells | (cells << word_constant(1, config))
    return cells & word_constant(sum(config.column_masks), config)


def hamming_distance(
    old: UInt[Array, "*shape"], new: UInt[Array, "*shape"], config: CrossbarConfig
) -> UInt[Array, "*shape"]:
    """Counts the cells that change level when each word of `old` is overwritten by that of `new`.

    Returns:
      Writes per word, same shape and dtype.
    """
    sets, resets = cell_changes(old, new, config)
    return jax.lax.population_count(sets | resets)


def column_counts(
    cells: UInt[Array, "*shape rows"], config: CrossbarConfig
) -> Int[Array, "*shape columns"]:
    """Counts the marked cells per column, summed over rows.

    Args:
      cells: words with a cell's lowest bit set where it is marked, as `cell_changes` gives.

    Returns:
      int32, columns last.
    """
    check_kind("config", config, CrossbarConfig)
    _check_words("cells", cells, config)
    if not cells.ndim:
        raise ValueError("`cells` has no rows; give words [..., rows].")
    # Adds 4 bytes (or 2 halfwords) in one 32-bit lane, at most 255 times so that none overflows.
    lane_bits = cells.dtype.itemsize * 8
    # rows side by side in the lanes of one 32-bit number
    lanes = 32 // lane_bits
    rows = cells.shape[-1]
    groups = -(-rows // (255 * lanes))
    width = -(-rows // (groups * lanes)) * lanes
    pad = groups * width - rows
    cells = jnp.pad(cells, [(0, 0)] * (cells.ndim - 1) + [(0, pad)])
    packed = cells.reshape(*cells.shape[:-1], groups, width // lanes, lanes)
    packed = jax.lax.bitcast_convert_type(packed, jnp.uint32) if lanes > 1 else packed[..., 0]
    ones = jnp.uint32(sum(1 << (lane * lane_bits) for lane in range(lanes)))
    # all columns in one reduction: a reduction for each takes long to compile
    places = [(mask & -mask).bit_length() - 1 for mask in config.column_masks]
    shift = np.reshape(places, (*[1] * (packed.ndim - 1), len(places), 1)).astype(np.uint32)
    bits = (packed[..., None, :] >> shift) & ones
    sums = jnp.sum(bits, axis=-1, dtype=jnp.uint32)  # [..., groups, columns]
    # lanes apart again
    of_lane = np.arange(0, 32, lane_bits).reshape(*[1] * sums.ndim, lanes).astype(np.uint32)
    lane_sums = (sums[..., None] >> of_lane) & jnp.uint32(2**lane_bits - 1)
    return jnp.sum(lane_sums.astype(jnp.int32), axis=(-3, -1), dtype=jnp.int32)


def _check_words(name: str, words: object, config: CrossbarConfig) -> None:
    """Checks that words are of a config: of its dtype."""
    check_array(name, words, "unsigned words")
    if getattr(words, "dtype", None) != config.word_dtype:
        raise ValueError(
            f"`{name}` is {getattr(words, 'dtype', None)}; words of `config` are "
            f"{config.word_dtype}."
        )


def _check_broadcast(name: str, value: AnyArray, shape: tuple[int, ...]) -> None:
    """Checks that an array can be laid over a shape."""
    try:
        fits = np.broadcast_shapes(value.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"`{name}` has shape {value.shape}, which does not fit {shape}.")


def word_constant(value: int, config: CrossbarConfig) -> UInt[Array, ""]:
    """Gives `value` as a word: bit operations between words promote nothing."""
    return jnp.asarray(value, config.word_dtype)


def _low_bit(mask: int, config: CrossbarConfig) -> UInt[Array, ""]:
    return word_constant((mask & -mask).bit_length() - 1, config)
