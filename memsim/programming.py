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
from memsim.chip import Chip, bernoulli_cells, fold_in, on_bit_lines
from memsim.codes import AnyArray, cell_changes, column_counts, word_constant
from memsim.config import CrossbarConfig
from memsim.schedule import Slots

__all__ = [
    "Counts",
    "Programmed",
    "Stucking",
    "draws_cells",
    "enable_slots",
    "program_sections",
    "program_words",
]

# Words per tile: a tile's arrays stay in cache, and a network's never exist all at once.
_TILE_WORDS = 2**19


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
      set_rows, reset_rows: int32 [...], rows of which at least one cell was SET, or RESET: the
        phases that they take.
    """

    sets: Int32[AnyArray, "*shape columns"]
    resets: Int32[AnyArray, "*shape columns"]
    row_operations: Int32[AnyArray, "*shape"]
    set_rows: Int32[AnyArray, "*shape"]
    reset_rows: Int32[AnyArray, "*shape"]


class Programmed(NamedTuple):
    """The words and counts that `program_sections` leaves.

    Attributes:
      achieved: words [steps, crossbars, words] of the last pass, right after each step.
      state: words [crossbars, words] at the end.
      counts: of each pass and layer.
      wear: unsigned [crossbars, rows, columns], writes per cell over all passes, in the smallest
        dtype that cannot overflow; None if not asked.
    """

    achieved: UInt[Array, "steps crossbars words"]
    state: UInt[Array, "crossbars words"]
    counts: Counts
    wear: UInt[Array, "crossbars rows columns"] | None


def draws_cells(stucking: Stucking) -> bool:
    """Tells whether bit stucking may leave a cell alone; of traced values it always may."""
    low_mask, reprogram = stucking.low_mask, stucking.reprogram
    if not (is_known(low_mask) and is_known(reprogram)):
        return True
    return bool(np.any((np.asarray(low_mask) != 0) & (np.asarray(reprogram) < 1)))


def program_words(
    target: UInt[Array, "steps *shape"],
    enable: UInt[Array, "steps *shape"],
    state: UInt[Array, "*shape"],
) -> UInt[Array, "steps *shape"]:
    """Works out the words held after each step: `(target & enable) | (previous & ~enable)`.

    Args:
      target: words to program.
      enable: bits that may change.
      state: words held before the first step.

    Returns:
      Achieved words, same shape and dtype as `target`.
    """
    # A prefix over (enable, value) pairs, in about sqrt(steps) blocks side by side: a loop over
    # every single step leaves a GPU idle. First what each block does as a whole, then the state
    # each block meets, then all blocks again from that state.
    steps = target.shape[0]
    if steps == 0:
        return target
    block = math.ceil(math.sqrt(steps))
    blocks = -(-steps // block)
    pad = [(0, blocks * block - steps)] + [(0, 0)] * state.ndim
    values = jnp.pad(target & enable, pad).reshape(blocks, block, *state.shape)
    enables = jnp.pad(enable, pad).reshape(blocks, block, *state.shape)

    def step(words: Array, index: Array) -> Array:
        return jnp.asarray(jax.lax.dynamic_index_in_dim(words, index, axis=1, keepdims=False))

    # what a block does to any state: bits it sets, bits it touches
    def compose(pair: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
        value, touched = pair
        enable = step(enables, index)
        return (step(values, index) | (value & ~enable), touched | enable), None

    # what each block meets
    def enter(held: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        value, touched = pair
        return value | (held & ~touched), held

    # what is held after every step
    def replay(held: Array, index: Array) -> tuple[Array, Array]:
        held = step(values, index) | (held & ~step(enables, index))
        return held, held

    indices = jnp.arange(block, dtype=jnp.int32)
    nothing = jnp.zeros((blocks, *state.shape), state.dtype)
    whole, _ = jax.lax.scan(compose, (nothing, nothing), indices)
    _, entered = jax.lax.scan(enter, state, whole)
    _, achieved = jax.lax.scan(replay, entered, indices)
    words: Array = achieved.swapaxes(0, 1).reshape(blocks * block, *state.shape)[:steps]
    return words


def program_sections(
    target: UInt[Array, "steps crossbars words"],
    slots: Slots,
    stucking: Stucking,
    chip: Chip,
    config: CrossbarConfig,
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

    def program_tile(carry: tuple[Array, Array, Any], index: Array) -> tuple[Any, Counts]:
        state, achieved, cell_writes = carry
        # tiles of a pass, then those of the next pass
        here = index % tiles
        tile_slots = jax.tree.map(lambda x: x[here], tiled_slots)
        passed = chip.passes + index // tiles
        enable = enable_slots(tile_slots, stucking, chip, passed, config, draws)
        words = program_words(targets[here], enable, state)
        # each step against the one before
        sets, resets = cell_changes(jnp.concatenate([state[None], words[:-1]]), words, config)
        counts = Counts(
            column_counts(sets, config),
            column_counts(resets, config),
            *_row_counts(*(_any_of_row(cells, config) for cells in (sets, resets))),
        )
        achieved = jax.lax.dynamic_update_index_in_dim(achieved, words, here, axis=0)
        if wear:
            cell_writes = cell_writes + _writes_per_cell(sets | resets, config, wear_dtype)
        return (words[-1], achieved, cell_writes), counts

    wear_dtype = np.min_scalar_type(passes * steps)
    shape = (crossbars, config.physical_words, config.cells_per_word)
    cell_writes = jnp.zeros(shape, wear_dtype) if wear else None
    # the state is carried from tile to tile and from pass to pass
    start = (chip.state, jnp.zeros_like(targets), cell_writes)
    (state, achieved, cell_writes), counts = jax.lax.scan(
        program_tile, start, jnp.arange(passes * tiles, dtype=jnp.int32)
    )

    # sums by layer: slots at the end of the last tile are cut off
    layer, layers = jnp.asarray(slots.layer).reshape(-1), stucking.fixed.shape[0]

    def per_layer(x: Array) -> Array:  # [passes * tiles, tile, crossbars, ...]
        every = x.reshape(passes, tiles * tile, *x.shape[2:])[:, :steps]
        flat = every.reshape(passes, steps * crossbars, *x.shape[3:])
        return jax.vmap(lambda of_pass: jax.ops.segment_sum(of_pass, layer, layers))(flat)

    achieved = achieved.reshape(tiles * tile, *state.shape)[:steps]
    by_cell = None if cell_writes is None else on_bit_lines(cell_writes, config)
    return Programmed(achieved, state, jax.tree.map(per_layer, counts), by_cell)


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
    sets: UInt[Array, "*shape rows"], resets: UInt[Array, "*shape rows"]
) -> tuple[Int32[Array, "*shape"], Int32[Array, "*shape"], Int32[Array, "*shape"]]:
    """Counts rows that are written at all, SET and RESET, in one reduction."""
    # counts of at most 1,023 rows lie side by side in 32 bits
    one = [(words != 0).astype(jnp.uint32) for words in (sets | resets, sets, resets)]
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
    # a row of flags, if there is one, is used whenever row 0 is
    row, word = np.divmod(np.arange(config.physical_words, dtype=np.int32), config.words_per_row)
    used = jnp.asarray(row % config.rows)[None, None] < slots.used_rows[..., None]
    if config.words_per_row > 1:
        used = used & (jnp.asarray(word)[None, None] < slots.used_words[..., None])
    enable = jnp.where(used, word_constant(sum(config.column_masks), config), 0)
    enable = enable & ~(chip.stuck_at_0 | chip.stuck_at_1)[None]
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


def _writes_per_cell(
    changed: UInt[Array, "steps crossbars words"], config: CrossbarConfig, dtype: np.dtype
) -> UInt[Array, "crossbars words columns"]:
    columns = [
        jnp.sum((changed & word_constant(mask & -mask, config)) != 0, axis=0, dtype=dtype)
        for mask in config.column_masks
    ]
    return jnp.stack(columns, axis=-1)
