"""Counts what a steady pass wears the cells of a chip by, in cycles.

A cycle is a SET and a RESET of one cell: the unit in which endurance is published. A cell wears by
its SETs or its RESETs, whichever are more.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int64, PyTree, Shaped

from memsim._checks import check_array, check_choice, check_kind
from memsim.chip import Chip
from memsim.codes import AnyArray
from memsim.config import CrossbarConfig
from memsim.network import program
from memsim.planning import Plan
from memsim.writing import Writing

__all__ = [
    "WearHistogram",
    "cycles_per_write",
    "levelled_wear",
    "levelled_writes",
    "steady_wear",
    "wear_cycles",
    "wear_histogram",
]


class WearHistogram(NamedTuple):
    """Counts the cells of a chip by their wear.

    Attributes:
      cycles: of a cell per programming, distinct values in ascending order.
      cells: that wear by so many.
    """

    cycles: Float32[AnyArray, " groups"]
    cells: Float32[AnyArray, " groups"]


def cycles_per_write(config: CrossbarConfig) -> Float32[np.ndarray, " columns"]:
    """Returns the cycles that one write wears a cell by, for each column of a word.

    A one-bit cell that was SET can next only be RESET, so over the long run its writes are SETs and
    RESETs in turn: half a cycle each, exactly. A cell of L levels may fall in one RESET what it
    rose in up to L - 1 SETs, or the other way round. Where SETs and RESETs are not counted apart
    for each cell, its cycles lie between a half and (L - 1) / L of its writes, and this is the
    upper end: no cell wears faster, so lifetimes are never overstated.

    Example:
      >>> cycles_per_write(CrossbarConfig(bits=4, cell_bits=2)).tolist()
      [0.75, 0.75]

    Args:
      config: whose cells are asked for.
    """
    check_kind("config", config, CrossbarConfig)
    levels = np.asarray([2.0 ** mask.bit_count() for mask in config.column_masks])
    return np.asarray((levels - 1) / levels, np.float32)


def wear_cycles(
    writes: Shaped[AnyArray, "*shape columns"],
    config: CrossbarConfig,
    sets: Shaped[AnyArray, "*shape columns"] | None = None,
) -> Float32[AnyArray, "*shape columns"]:
    """Turns the writes of every cell in the long run into the cycles that it wears by.

    Works on NumPy and JAX arrays, also under `jit` and `vmap`.

    Example:
      >>> wear_cycles(np.asarray([[[4, 0]]]), CrossbarConfig(bits=2)).tolist()
      [[[2.0, 0.0]]]

    Args:
      writes: any number dtype, such as `programming.wear`; words stand side by side in columns.
      config: of the crossbars.
      sets: how many of the writes were SETs. The cycles of a cell of several bits are then
        max(SETs, RESETs); without them the bound of `cycles_per_write` stands in.

    Returns:
      Cycles per cell, float32.
    """
    check_array("writes", writes, "numbers", "[..., columns]")
    check_kind("config", config, CrossbarConfig)
    if not writes.ndim:
        raise ValueError("`writes` has no columns; give writes [..., columns].")
    of_word = cycles_per_write(config)
    # words are side by side; columns beyond the last one are never written
    share = np.resize(of_word, writes.shape[-1:]).reshape((1,) * (writes.ndim - 1) + (-1,))
    written = writes.astype(np.float32)
    bound: AnyArray = written * share
    if sets is None:
        return bound
    up = jnp.asarray(sets, jnp.float32)
    # the last half cycle of a one-bit cell, open at the end of the count, goes on in the next
    return jnp.where(share == np.float32(0.5), bound, jnp.maximum(up, written - up))


def steady_wear(
    params: PyTree, plan: Plan, chip: Chip, *, passes: int = 1, writing: Writing | None = None
) -> Float32[Array, "crossbars rows columns"]:
    """Counts the cycles that one programming wears each cell by in steady weight streaming.

    The first pass, onto erased cells, is not counted. Runs under `jit` and `vmap`. Cells of several
    bits wear by the bound of `cycles_per_write`.

    Args:
      params, plan, chip: see `program`.
      passes: to average over (static); one is exact unless bit stucking draws afresh or
        writes fail.
      writing: how writes fail; None where none does.

    Returns:
      Cycles per cell and programming: half its writes where cells are of one bit.
    """
    # the first pass leaves the cells as every later one finds them
    _, first = program(params, plan, chip, writing=writing)
    _, steady = program(params, plan, first.chip, passes=passes, wear=True, writing=writing)
    if steady.wear is None:
        raise AssertionError("`program` counts wear where it is asked to.")
    return jnp.asarray(wear_cycles(jnp.asarray(steady.wear), plan.config)) / passes


def wear_histogram(wear: Shaped[AnyArray, "crossbars rows columns"]) -> WearHistogram:
    """Groups cells by their cycles per programming; on the host."""
    check_array("wear", wear, "numbers", "[crossbars, rows, columns]")
    cycles, cells = np.unique(np.asarray(wear), return_counts=True)
    return WearHistogram(cycles.astype(np.float32), cells.astype(np.float32))


def levelled_wear(
    wear: Shaped[AnyArray, "crossbars rows columns"], axes: tuple[int, ...]
) -> Float32[np.ndarray, "crossbars rows columns"]:
    """Averages wear over the places that rotation takes the words to.

    This is the wear of a programming over a time that is long against the period of rotation.

    Args:
      wear: cycles per cell of a programming, without rotation.
      axes: what rotates: (1,) the rows within a crossbar, (0,) the crossbars, (0, 1) both.
    """
    check_array("wear", wear, "numbers", "[crossbars, rows, columns]", axes=3)
    check_choice("axes", axes, ((0,), (1,), (0, 1)))
    mean = np.mean(np.asarray(wear), axis=axes, dtype=np.float64, keepdims=True)
    return np.broadcast_to(mean.astype(np.float32), wear.shape)


def levelled_writes(
    writes: Shaped[AnyArray, "crossbars rows columns"], programmings: int, period: int, axis: int
) -> Int64[np.ndarray, "crossbars rows columns"]:
    """Counts the writes of each cell, exactly, after so many programmings with moves in between.

    These are whole writes, not cycles: `wear_cycles` turns them into cycles. After every period the
    words of each place go to the next one along `axis`. A cell has then passed through all places
    of its orbit after period * places programmings, with the same writes as every other cell of it.
    The first pass after a move overwrites other words than the steady one does: at most one write
    per cell and period, which is not counted.

    Args:
      writes: of each cell in a programming, whole numbers, without rotation.
      programmings: done so far.
      period: programmings between moves.
      axis: 1 rotates the rows within a crossbar, 0 the crossbars.

    Raises:
      ValueError: a period below 1.
    """
    if period < 1:
        raise ValueError(f"`period` is {period}; rotate after at least 1 programming.")
    places = writes.shape[axis]
    moves, since_move = divmod(programmings, period)
    rounds, moved = divmod(moves, places)
    whole = np.moveaxis(np.asarray(writes, np.int64), axis, 0)
    sums = np.cumsum(np.concatenate([np.zeros_like(whole[:1]), whole, whole]), axis=0)
    # place i has held the words of i, i - 1, ..., i - moved + 1 for a period each
    ends = np.arange(places) + places + 1
    window = sums[ends] - sums[ends - moved]
    held = np.roll(whole, moved, axis=0)
    # whole rounds, then whole periods of the round under way, then the period under way
    total = period * (rounds * whole.sum(axis=0) + window) + since_move * held
    return np.moveaxis(total, 0, axis)
