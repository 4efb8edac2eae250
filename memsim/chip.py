"""A chip: its random draws, its stuck-at faults, the state of its cells."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key, Shaped, UInt, UInt32

from memsim._checks import as_key, check_array, check_kind, check_number, check_whole
from memsim._random_cells import fold_in
from memsim.codes import AnyArray, bit_slice, join_slices
from memsim.config import CrossbarConfig

__all__ = [
    "Chip",
    "Stuck",
    "check_rates",
    "clustered_faults",
    "fault_cells",
    "fault_words",
    "new_chip",
    "of_words",
    "on_bit_lines",
    "whole_chip",
    "with_faults",
]

# Stuck cells are drawn in groups of so many words side by side, so many cells at a time.
_GROUP_WORDS = 2**13
_BLOCK_CELLS = 256


class Chip(NamedTuple):
    """One physical instance: its draws, its stuck-at faults, its present cell state.

    Attributes:
      key: source of its bit-stucking draws; programming does not consume it.
      passes: int32, times the whole network has been programmed: `fresh` draws depend on it.
      stuck_at_0, stuck_at_1: words [crossbars, words], all bits of a cell that is stuck.
      state: words [crossbars, words], what the cells hold.
      planned: words [crossbars, words], what they would hold had no pulse of a blind controller
        failed, which it goes by; None: what they hold.

    Words are `config.physical_words`, row by row: flag cells of sections are the last row.
    """

    key: Key[Array, ""]
    passes: Int32[Array, ""]
    stuck_at_0: UInt[Array, "crossbars words"]
    stuck_at_1: UInt[Array, "crossbars words"]
    state: UInt[Array, "crossbars words"]
    planned: UInt[Array, "crossbars words"] | None = None


class Stuck(NamedTuple):
    """The stuck cells of the crossbars that a layer is programmed on.

    Attributes:
      at_0, at_1: words [crossbars, words], all bits of a stuck cell set.
    """

    at_0: UInt[AnyArray, "crossbars words"]
    at_1: UInt[AnyArray, "crossbars words"]


@functools.partial(jax.jit, static_argnames=("crossbars", "config"))
def new_chip(
    key: Key[Array, ""],
    crossbars: int,
    config: CrossbarConfig,
    stuck_at_0: Float32[Array, ""],
    stuck_at_1: Float32[Array, ""],
) -> Chip:
    """Makes a chip with erased cells, of which some are stuck.

    Flag cells are drawn apart: the others have the faults that they have without flags.

    Args:
      key: consumed.
      stuck_at_0, stuck_at_1: probabilities of a cell to be stuck at its lowest or highest level;
        exclusive, so their sum is at most 1.
    """
    # the first of the three keys draws bit stucking
    _, cell_key, flag_key = jax.random.split(key, 3)
    rates = (stuck_at_0, stuck_at_1)
    cells = config.unflagged.column_masks
    stuck = _draw_stuck(cell_key, rates, (crossbars, config.words), cells, config)
    if config.flags == "word":
        one_column = config.column_masks[-1:]
        stuck |= _draw_stuck(flag_key, rates, (crossbars, config.words), one_column, config)
    elif config.flags == "section":
        flags = _draw_stuck(flag_key, rates, (crossbars, config.words_per_row), cells, config)
        stuck = jnp.concatenate([stuck, flags], axis=2)
    return with_faults(key, stuck[0], stuck[1])


def whole_chip(key: Key[Array, ""], crossbars: int, config: CrossbarConfig) -> Chip:
    """Makes the chip of `new_chip` at rates of 0: without drawing, there is nothing to compile."""
    no_cells = jnp.asarray(np.zeros((crossbars, config.physical_words), config.word_dtype))
    return with_faults(key, no_cells, no_cells)


def with_faults(
    key: Key[Array, ""],
    stuck_at_0: UInt[Array, "crossbars words"],
    stuck_at_1: UInt[Array, "crossbars words"],
) -> Chip:
    """Makes a chip never programmed, with these stuck cells.

    Args:
      key: consumed; draws bit stucking as `sample_chip` does with the same key.
      stuck_at_0, stuck_at_1: words, all bits of a stuck cell set.
    """
    key = as_key("key", key)
    check_array("stuck_at_0", stuck_at_0, "unsigned words", "[crossbars, words]", axes=2)
    check_array("stuck_at_1", stuck_at_1, "unsigned words", "[crossbars, words]", axes=2)
    if stuck_at_0.shape != stuck_at_1.shape or stuck_at_0.dtype != stuck_at_1.dtype:
        raise ValueError(
            f"`stuck_at_0` is {stuck_at_0.dtype} {stuck_at_0.shape}, `stuck_at_1` "
            f"{stuck_at_1.dtype} {stuck_at_1.shape}; give words of one chip."
        )
    draw_key = jax.random.split(key, 3)[0]
    return Chip(draw_key, jnp.int32(0), stuck_at_0, stuck_at_1, state=stuck_at_1)


def _draw_stuck(
    key: Key[Array, ""],
    rates: tuple[Float32[Array, ""], Float32[Array, ""]],
    shape: tuple[int, int],
    masks: tuple[int, ...],
    config: CrossbarConfig,
) -> UInt[Array, "2 crossbars words"]:
    """Draws the words of cells stuck at 0 and of cells stuck at 1.

    Args:
      key: consumed; crossbar c's cells do not depend on how many crossbars there are.
      rates: probabilities of either.
      shape: (crossbars, words).
      masks: the bits of a word that each of its cells holds.
    """
    # Stuck cells are rare, so what is drawn is how many whole cells lie before each: a geometric
    # number, the floor of an exponential one. Cells are counted within their group: no int32
    # overflows, and float32 is exact to a small fraction of a cell.
    words = shape[0] * shape[1]
    width = min(words, _GROUP_WORDS)
    groups = -(-words // width)
    cells = width * len(masks)
    at_0, at_1 = jax.lax.stop_gradient(rates)
    either = jnp.minimum(at_0 + at_1, 1)
    tiny = float(np.finfo(np.float32).tiny)
    high_share = at_1 / jnp.maximum(either, tiny)
    mean = 1 / jnp.maximum(-jnp.log1p(-either), tiny)  # of that exponential number
    group = jnp.arange(groups, dtype=jnp.int32)
    keys = fold_in(jnp.broadcast_to(key, (groups,)), group)

    def draw_block(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        block, first, stuck = carry
        block_keys = fold_in(keys, jnp.broadcast_to(block, keys.shape))
        one, other = _two_uniforms(block_keys, _BLOCK_CELLS)
        whole = jnp.minimum(-jnp.log1p(-one) * mean, cells).astype(jnp.int32)
        cell = first[:, None] + jnp.cumsum(whole + 1, axis=1) - 1
        level = (other < high_share).astype(jnp.int32)
        bits = jnp.asarray(masks, config.word_dtype)[cell % len(masks)]
        # cells differ, so adding their bits joins them; those past the end are dropped
        stuck = stuck.at[level, group[:, None], cell // len(masks)].add(bits, mode="drop")
        return block + 1, jnp.minimum(cell[:, -1] + 1, cells), stuck

    start = jnp.zeros((2, groups, width), config.word_dtype)
    _, _, stuck = jax.lax.while_loop(
        lambda carry: jnp.any(carry[1] < cells),
        draw_block,
        (jnp.int32(0), jnp.zeros(groups, jnp.int32), start),
    )
    return stuck.reshape(2, -1)[:, :words].reshape(2, *shape)


def _two_uniforms(
    keys: Key[Array, " keys"], count: int
) -> tuple[Float32[Array, "keys count"], Float32[Array, "keys count"]]:
    """Draws twice so many uniform numbers for each key: above 0, below 1, of 23 binary digits."""

    def words(key: Key[Array, ""]) -> UInt32[Array, "count words"]:
        # a key is two random words or more, at half the price of drawing them
        return jax.random.key_data(jax.random.split(key, count))

    drawn = jax.vmap(words)(keys) >> 9
    one, other = ((drawn[..., i].astype(jnp.float32) + 0.5) * 2.0**-23 for i in (0, 1))
    return one, other


def clustered_faults(
    key: Key[Array, ""],
    crossbars: int,
    config: CrossbarConfig,
    stuck_at_0: float,
    stuck_at_1: float,
    in_lines: float,
) -> tuple[UInt[Array, "crossbars words"], UInt[Array, "crossbars words"]]:
    """Draws stuck cells of which a share lies in whole bit lines, as those of shorts do.

    `with_faults(key, *clustered_faults(...))` is a chip of them; `vmap` over `key` for many.

    Args:
      key: consumed.
      crossbars, config: of the plan.
      stuck_at_0, stuck_at_1: probabilities of a cell, exclusive, as in `sample_chip`.
      in_lines: share of the stuck cells that lie in bit lines stuck at one level as a whole.

    Returns:
      Words, all bits of a stuck cell set.

    Raises:
      ValueError: a rate or a share outside 0..1, or rates that sum past 1.
    """
    key = as_key("key", key)
    check_whole("crossbars", crossbars, "give a number from 1", 1, 2**31 - 1)
    check_kind("config", config, CrossbarConfig)
    check_rates(stuck_at_0, stuck_at_1)
    check_number("in_lines", in_lines, "a share lies in 0..1", 0, 1)
    either = stuck_at_0 + stuck_at_1
    high_share = stuck_at_1 / either if either else 0.0
    of_lines = either * in_lines
    of_cells = (either - of_lines) / (1 - of_lines) if of_lines < 1 else 0.0  # not in such lines
    cells = (crossbars, config.physical_rows, config.bit_lines)

    def draw(key: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> tuple[Array, Array]:
        one, other = jax.random.uniform(key, (2, *shape), jnp.float32)
        stuck, high = one < rate, other < high_share
        return jnp.broadcast_to(stuck, cells), jnp.broadcast_to(high, cells)

    line_key, cell_key = jax.random.split(key)
    in_line, line_is_high = draw(line_key, of_lines, (crossbars, 1, config.bit_lines))
    by_itself, cell_is_high = draw(cell_key, of_cells, cells)
    stuck, high = in_line | by_itself, jnp.where(in_line, line_is_high, cell_is_high)
    return (
        fault_words(stuck & ~high, crossbars, config),
        fault_words(stuck & high, crossbars, config),
    )


def fault_cells(chip: Chip, config: CrossbarConfig) -> tuple[np.ndarray, np.ndarray]:
    """Gives the stuck cells, (stuck_at_0, stuck_at_1): bool [crossbars, rows, columns].

    Columns are `config.bit_lines`; idle ones are whole.
    """
    check_kind("chip", chip, Chip)
    check_kind("config", config, CrossbarConfig)
    low, high = (
        on_bit_lines(bit_slice(words, config) != 0, config)
        for words in (chip.stuck_at_0, chip.stuck_at_1)
    )
    return np.asarray(low), np.asarray(high)


def fault_words(
    cells: Bool[AnyArray, "crossbars rows columns"], crossbars: int, config: CrossbarConfig
) -> UInt[Array, "crossbars words"]:
    """Gives words with all bits of the marked cells set.

    Args:
      cells: bool [crossbars, rows, columns], on all bit lines; of a config with flags also without
        them: the flag cells are then whole. What idle columns hold does not matter.

    Raises:
      ValueError: another shape.
    """
    if not isinstance(cells, jax.Array | np.ndarray) or cells.dtype != np.bool_ or cells.ndim != 3:
        kind = f"{getattr(cells, 'dtype', type(cells).__name__)} {getattr(cells, 'shape', '')}"
        raise ValueError(f"`faults` is {kind}; give bool [crossbars, rows, columns].")
    check_whole("crossbars", crossbars, "give a number from 1", 1)
    check_kind("config", config, CrossbarConfig)
    expected = (crossbars, config.physical_rows, config.bit_lines)
    without = (crossbars, config.rows, config.unflagged.bit_lines)
    flagged = cells.shape != expected and cells.shape == without
    if cells.shape != expected and not flagged:
        raise ValueError(
            f"`faults` has shape {cells.shape}, but this chip is {expected} "
            "([crossbars, rows, columns]); use a map of such a chip, or set the options to match."
        )
    highest = jnp.uint8(2**config.cell_bits - 1)
    levels = jnp.asarray(cells, jnp.uint8) * highest
    if not flagged:
        return join_slices(of_words(levels, config), config)
    words = join_slices(of_words(levels, config.unflagged), config.unflagged)
    words = words.astype(config.word_dtype)
    # a flag in each word leaves fewer of them in a row; a row of flags comes after the others
    by_row = words.reshape(crossbars, config.rows, -1)[:, :, : config.words_per_row]
    more = config.physical_rows - config.rows
    return jnp.pad(by_row, [(0, 0), (0, more), (0, 0)]).reshape(crossbars, -1)


def on_bit_lines(
    cells: Shaped[Array, "*shape words cells"], config: CrossbarConfig
) -> Shaped[Array, "*shape rows columns"]:
    """Lays the cells of the words of crossbars on their bit lines; idle columns hold 0."""
    words = config.words_per_row
    by_row = cells.reshape(*cells.shape[:-2], -1, words * config.cells_per_word)
    idle = config.bit_lines - by_row.shape[-1]
    if not idle:
        return by_row
    return jnp.pad(by_row, [(0, 0)] * (by_row.ndim - 1) + [(0, idle)])


def of_words(
    cells: Shaped[Array, "*shape rows columns"], config: CrossbarConfig
) -> Shaped[Array, "*shape words cells"]:
    """Gives the cells of each word from those on bit lines: undoes `on_bit_lines`."""
    used = cells[..., : config.words_per_row * config.cells_per_word]
    return used.reshape(*cells.shape[:-2], -1, config.cells_per_word)


def check_rates(stuck_at_0: float, stuck_at_1: float) -> None:
    """Checks stuck-at rates.

    Raises:
      ValueError: a rate outside 0..1, or a sum past 1.
    """
    for name, rate in (("stuck_at_0", stuck_at_0), ("stuck_at_1", stuck_at_1)):
        check_number(name, rate, "a probability lies in 0..1", 0, 1)
    if stuck_at_0 + stuck_at_1 > 1:
        raise ValueError(
            f"`stuck_at_0` + `stuck_at_1` is {stuck_at_0 + stuck_at_1}; a cell is stuck one way or "
            "the other, so the rates sum to at most 1."
        )
