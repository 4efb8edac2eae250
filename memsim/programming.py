"""The kernel: program sections onto crossbars, step after step, and count what changes.

Every programming event is a target word and a write-enable word per row; bit b may change where it
is 1. An unused row, an idle crossbar, a stuck-at cell and a stucked low-order cell are all 0 there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt

from memsim._checks import is_known
from memsim._random_cells import bernoulli_cells, fold_in, successful_cells
from memsim._steps import Success, held_before, program_failing, program_words
from memsim.chip import Chip, on_bit_lines
from memsim.codes import AnyArray, cell_changes, column_counts, hamming_distance, word_constant
from memsim.config import CrossbarConfig
from memsim.schedule import Slots
from memsim.writing import Writing, by_column

__all__ = [
    "Counts",
    "Programmed",
    "Stucking",
    "draws_cells",
    "enable_slots",
    "program_sections",
    "program_words",
    "success_slots",
]

# Words per tile: a tile's arrays stay in cache, and a network's never exist all at once.
_TILE_WORDS = 2**19
# What draws of writing have in place of the number of a pass: bit stucking counts passes from 1.
_OF_WRITING = 2**32 - 1


class Stucking(NamedTuple):
    """Bit stucking of every layer of a network, in natural order of names; every field is [layers].

    Attributes:
      reprogram: p.
      low_mask: words, the bits that may be left alone.
      fixed: whether stucked cells are drawn once per physical cell.
    """

    reprogram: Float32[AnyArray, " layers"]
    low_mask: UInt[AnyArray, " layers"]
    fixed: Bool[AnyArray, " layers"]


class Counts(NamedTuple):
    """Cell writes, exact.

    Attributes:
      sets, resets: int32 [..., columns], cells whose level rose, or fell, by their column within a
        word.
      row_operations: int32 [...], rows of which at least one cell changed.
      set_rows, reset_rows: int32 [...], rows of which at least one cell was pulsed to SET, or to
        RESET it: the phases that they take.
      set_pulses, reset_pulses: int32 [..., columns], cells that were pulsed, whether they changed
        or not: once each, however many pulses verifying them takes.
      moved_words, row_flags: int32 [...], what is sent to be written, of each section the shorter
        of all its words, or a flag for each row and the words of rows of which a cell is pulsed.
      wrong: int32 [...], cells that did not hold their target when their section had been
        programmed; None where no write can fail.
    """

    sets: Int32[AnyArray, "*shape columns"]
    resets: Int32[AnyArray, "*shape columns"]
    row_operations: Int32[AnyArray, "*shape"]
    set_rows: Int32[AnyArray, "*shape"]
    reset_rows: Int32[AnyArray, "*shape"]
    set_pulses: Int32[AnyArray, "*shape columns"]
    reset_pulses: Int32[AnyArray, "*shape columns"]
    moved_words: Int32[AnyArray, "*shape"]
    row_flags: Int32[AnyArray, "*shape"]
    wrong: Int32[AnyArray, "*shape"] | None = None


class Programmed(NamedTuple):
    """The words and counts that `program_sections` leaves.

    Attributes:
      achieved: words [steps, crossbars, words] of the last pass, right after each step.
      state: words [crossbars, words] at the end.
      planned: words [crossbars, words], what a blind controller goes by; None of others.
      counts: of each pass and layer.
      wear: unsigned [crossbars, rows, columns], writes per cell over all passes, in the smallest
        dtype that cannot overflow; None if not asked.
    """

    achieved: UInt[Array, "steps crossbars words"]
    state: UInt[Array, "crossbars words"]
    planned: UInt[Array, "crossbars words"] | None
    counts: Counts
    wear: UInt[Array, "crossbars rows columns"] | None


def draws_cells(stucking: Stucking) -> bool:
    """Tells whether bit stucking may leave a cell alone; of traced values it always may."""
    low_mask, reprogram = stucking.low_mask, stucking.reprogram
    if not (is_known(low_mask) and is_known(reprogram)):
        return True
    return bool(np.any((np.asarray(low_mask) != 0) & (np.asarray(reprogram) < 1)))


def program_sections(
    target: UInt[Array, "steps crossbars words"],
    slots: Slots,
    stucking: Stucking,
    chip: Chip,
    config: CrossbarConfig,
    writing: Writing | None = None,
    *,
    passes: int,
    wear: bool,
    draws: bool,
) -> Programmed:
    """Programs sections step after step, `passes` times, onto one chip, and counts.

    The one engine of `program`, `compare` and sweeps: the sections are those of a whole network, or
    the next ones of a long stream.

    Args:
      target: words to program at each step, in programming order.
      slots: what they are.
      stucking: of every layer of the network; `slots.layer` says which.
      chip: the chip before.
      writing: how writes fail; None if none does.
      config, passes, wear: static; `wear` asks for writes per cell.
      draws: static, what `draws_cells` says of `stucking`.
    """
    # tiles of so many steps that their arrays stay in cache
    steps, crossbars = target.shape[:2]
    tiles = max(1, -(-target.size // _TILE_WORDS))
    block = math.ceil(math.sqrt(-(-steps // tiles)))
    tile = block * -(-steps // (tiles * block))  # a whole number of blocks: nothing to pad inside
    tiles = -(-steps // tile)

    def cut(x: Array) -> Array:
        pad = [(0, tiles * tile - steps)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, pad).reshape(tiles, tile, *x.shape[1:])

    targets, tiled_slots = cut(target), jax.tree.map(cut, slots)

    def next_tile(carry: tuple[Array, Any, Array, Any], index: Array) -> tuple[Any, Counts]:
        state, planned, achieved, cell_writes = carry
        # tiles of a pass, then those of the next pass
        here = index % tiles
        tile_slots = jax.tree.map(lambda x: x[here], tiled_slots)
        passed = chip.passes + index // tiles
        enable = enable_slots(tile_slots, stucking, chip, passed, config, draws)
        success = None
        if writing is not None:
            success = success_slots(tile_slots, chip, passed, writing, config)
        words, planned, changed, counts = _program_tile(
            targets[here], tile_slots, enable, success, state, planned, config
        )
        achieved = jax.lax.dynamic_update_index_in_dim(achieved, words, here, axis=0)
        if wear:
            cell_writes = cell_writes + _writes_per_cell(changed, config, wear_dtype)
        return (words[-1], planned, achieved, cell_writes), counts

    wear_dtype = np.min_scalar_type(passes * steps)
    shape = (crossbars, config.physical_words, config.cells_per_word)
    cell_writes = jnp.zeros(shape, wear_dtype) if wear else None
    planned = None
    if writing is not None and writing.controller == "blind":
        planned = chip.state if chip.planned is None else chip.planned
    # the state is carried from tile to tile and from pass to pass
    start = (chip.state, planned, jnp.zeros_like(targets), cell_writes)
    (state, planned, achieved, cell_writes), counts = jax.lax.scan(
        next_tile, start, jnp.arange(passes * tiles, dtype=jnp.int32)
    )

    # sums by layer: slots at the end of the last tile are cut off
    layer, layers = jnp.asarray(slots.layer).reshape(-1), stucking.fixed.shape[0]

    def per_layer(x: Array) -> Array:  # [passes * tiles, tile, crossbars, ...]
        every = x.reshape(passes, tiles * tile, *x.shape[2:])[:, :steps]
        flat = every.reshape(passes, steps * crossbars, *x.shape[3:])
        return jax.vmap(lambda of_pass: jax.ops.segment_sum(of_pass, layer, layers))(flat)

    achieved = achieved.reshape(tiles * tile, *state.shape)[:steps]
    by_cell = None if cell_writes is None else on_bit_lines(cell_writes, config)
    return Programmed(achieved, state, planned, jax.tree.map(per_layer, counts), by_cell)


def _program_tile(
    target: UInt[Array, "steps crossbars words"],
    slots: Slots,
    enable: UInt[Array, "steps crossbars words"],
    success: Success | None,
    state: UInt[Array, "crossbars words"],
    planned: UInt[Array, "crossbars words"] | None,
    config: CrossbarConfig,
) -> tuple[Array, Array | None, Array, Counts]:
    """Programs a few steps, and counts.

    Args:
      target, slots, enable: of each step.
      success: of its pulses; None if all do what they should.
      state, planned: before the first step, see `Programmed`.

    Returns:
      (words held after each step, planned, cells that change, counts of each step).
    """
    if success is None:
        words = program_words(target, enable, state)
    else:
        words, planned, pulsed = program_failing(target, enable, state, planned, success, config)
    # each step against the one before
    sets, resets = cell_changes(held_before(state, words), words, config)
    changed = sets | resets
    by_column = [column_counts(cells, config) for cells in (sets, resets)]
    of_pulses, wrong = by_column, None
    if success is None:
        pulsed = (sets, resets)
    else:
        of_pulses = [column_counts(cells, config) for cells in pulsed]
        wrong = _wrong_counts(target, words, slots, config)
    by_row = [_any_of_row(cells, config) for cells in (changed, *pulsed)]
    row_operations, set_rows, reset_rows = _row_counts(*by_row)
    pulsed_rows = row_operations  # where every pulse succeeds
    if success is not None or config.flags == "section":
        # the row of flags, if there is one, is part of the index
        data_rows = jax.lax.slice_in_dim(by_row[1] | by_row[2], 0, config.rows, axis=2)
        pulsed_rows = jnp.sum(data_rows != 0, axis=-1, dtype=jnp.int32)
    moved_words, row_flags = _moved_counts(pulsed_rows, slots, config)
    counts = Counts(
        sets=by_column[0],
        resets=by_column[1],
        row_operations=row_operations,
        set_rows=set_rows,
        reset_rows=reset_rows,
        set_pulses=of_pulses[0],
        reset_pulses=of_pulses[1],
        moved_words=moved_words,
        row_flags=row_flags,
        wrong=wrong,
    )
    return words, planned, changed, counts


def _moved_counts(
    rows: Int32[Array, "steps crossbars"], slots: Slots, config: CrossbarConfig
) -> tuple[Int32[Array, "steps crossbars"], Int32[Array, "steps crossbars"]]:
    """Counts the words and flags that are sent to be written, in the form that is shorter.

    Args:
      rows: of which a cell is pulsed.
      slots: what is programmed.
    """
    used = slots.used_rows.astype(jnp.int32)
    words = slots.used_words.astype(jnp.int32) if config.words_per_row > 1 else jnp.int32(1)
    bits = sum(mask.bit_count() for mask in config.unflagged.column_masks)
    flagged = (used - rows) * words * bits > used
    return jnp.where(flagged, rows, used) * words, jnp.where(flagged, used, 0)


def success_slots(
    slots: Slots,
    chip: Chip,
    pass_index: Int32[Array, ""],
    writing: Writing,
    config: CrossbarConfig,
) -> Success:
    """Draws which pulses would succeed, a function of (chip, pass, layer, section) alone."""
    shape = slots.layer.shape
    keys = jnp.broadcast_to(jax.random.fold_in(chip.key, _OF_WRITING), shape)
    for data in (jnp.broadcast_to(pass_index, shape), slots.layer, slots.section):
        keys = fold_in(keys, jnp.asarray(data))
    set_success = by_column(writing, "set_success", config)
    reset_success = by_column(writing, "reset_success", config)
    return Success(*successful_cells(keys, set_success, reset_success, config))


def _wrong_counts(
    target: UInt[Array, "steps crossbars words"],
    words: UInt[Array, "steps crossbars words"],
    slots: Slots,
    config: CrossbarConfig,
) -> Int32[Array, "steps crossbars"]:
    """Counts the cells in use that do not hold their target."""
    used = _used_cells(slots, config)
    by_word = hamming_distance(words & used, target & used, config)
    return jnp.sum(by_word, axis=-1, dtype=jnp.int32)


def _any_of_row(
    cells: UInt[Array, "*shape words"], config: CrossbarConfig
) -> UInt[Array, "*shape rows"]:
    """Joins the marked cells of all words of a row in one word."""
    words = config.words_per_row
    if words == 1:
        return cells
    by_row = cells.reshape(*cells.shape[:-1], -1, words)
    return jax.lax.reduce_or(by_row, axes=(by_row.ndim - 1,))


def _row_counts(
    changed: UInt[Array, "*shape rows"],
    sets: UInt[Array, "*shape rows"],
    resets: UInt[Array, "*shape rows"],
) -> tuple[Int32[Array, "*shape"], Int32[Array, "*shape"], Int32[Array, "*shape"]]:
    """Counts rows that change at all, that are pulsed to SET and to RESET, in one reduction."""
    # counts of at most 1,023 rows lie side by side in 32 bits
    one = [(words != 0).astype(jnp.uint32) for words in (changed, sets, resets)]
    packed = one[0] | one[1] << jnp.uint32(10) | one[2] << jnp.uint32(20)
    rows = sets.shape[-1]
    groups = -(-rows // 1023)
    width = -(-rows // groups)
    packed = jnp.pad(packed, [(0, 0)] * (sets.ndim - 1) + [(0, groups * width - rows)])
    grouped = packed.reshape(*sets.shape[:-1], groups, width)
    sums = jnp.sum(grouped, axis=-1, dtype=jnp.uint32)
    # and apart again
    counts = [(sums >> jnp.uint32(place)) & jnp.uint32(1023) for place in (0, 10, 20)]
    of_all, of_sets, of_resets = (jnp.sum(count, axis=-1, dtype=jnp.int32) for count in counts)
    return of_all, of_sets, of_resets


def enable_slots(
    slots: Slots,
    stucking: Stucking,
    chip: Chip,
    pass_index: Int32[Array, ""],
    config: CrossbarConfig,
    draws: bool,
) -> UInt[Array, "steps crossbars words"]:
    """Gives write-enable words, a function of (chip, pass, layer, section) alone."""
    enable = _used_cells(slots, config) & ~(chip.stuck_at_0 | chip.stuck_at_1)[None]
    if not draws:  # drawing is most of what there is to compile
        return enable
    reprogram, low_mask, fixed = jax.tree.map(lambda x: x[slots.layer], stucking)
    # `fixed` cells are drawn by where they are, `fresh` ones by when and as what
    crossbar = jnp.broadcast_to(jnp.arange(fixed.shape[1], dtype=jnp.int32), fixed.shape)
    keys = jnp.broadcast_to(chip.key, fixed.shape)
    keys = fold_in(keys, jnp.where(fixed, 0, pass_index + 1))
    keys = fold_in(keys, jnp.where(fixed, crossbar, slots.layer))
    keys = fold_in(keys, jnp.where(fixed, 0, slots.section))
    # a physical cell is drawn once, however many low columns a layer has
    wanted = jnp.where(fixed, word_constant(sum(config.column_masks), config), low_mask)
    drawn = bernoulli_cells(keys, reprogram, wanted, config)
    free: Array = enable & ~(low_mask[..., None] & ~drawn)
    return free


def _used_cells(slots: Slots, config: CrossbarConfig) -> UInt[Array, "steps crossbars words"]:
    """Gives words with all bits of the cells that sections use."""
    # a row of flags, if there is one, is used whenever row 0 is
    row, word = np.divmod(np.arange(config.physical_words, dtype=np.int32), config.words_per_row)
    used = jnp.asarray(row % config.rows)[None, None] < slots.used_rows[..., None]
    if config.words_per_row > 1:
        used = used & (jnp.asarray(word)[None, None] < slots.used_words[..., None])
    return jnp.where(used, word_constant(sum(config.column_masks), config), 0)


def _writes_per_cell(
    changed: UInt[Array, "steps crossbars words"], config: CrossbarConfig, dtype: np.dtype
) -> UInt[Array, "crossbars words columns"]:
    columns = [
        jnp.sum((changed & word_constant(mask & -mask, config)) != 0, axis=0, dtype=dtype)
        for mask in config.column_masks
    ]
    return jnp.stack(columns, axis=-1)
