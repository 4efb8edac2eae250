"""How long a chip lives: the endurance of its cells against the writes of a steady pass.

Time is counted in programmings, passes of the whole network over the crossbars. A cell that takes
`w` writes in each fails after `endurance / w` of them.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int64, Key, PyTree, Shaped

from memsim.chip import Chip, fault_words
from memsim.codes import AnyArray
from memsim.config import CrossbarConfig
from memsim.network import program
from memsim.planning import Plan

DAYS_PER_YEAR = 365.25

# Writes that half of all cells survive: medians over papers, 18 on RRAM and 13 on PCM; NVMExplorer,
# HPCA 2022, arXiv 2109.01188.
MEDIAN_ENDURANCE = {"hfo2": 1e6, "pcm": 1e8}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lognormal:
    """Endurance whose logarithm is normal. Hashable, and static under `jit`.

    Attributes:
      median: writes that half of the cells survive; by default that of RRAM, see
        `MEDIAN_ENDURANCE`.
      sigma_ln: deviation of the natural logarithm. Nobody has published one for an array.
      placeholders: fields whose default has no source.

    Raises:
      ValueError: a value that is not positive.
    """

    median: float = MEDIAN_ENDURANCE["hfo2"]
    sigma_ln: float = 0.7
    placeholders: ClassVar[tuple[str, ...]] = ("sigma_ln",)

    def __post_init__(self) -> None:
        _check_positive(self)

    def writes_at_hazard(self, hazard: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Writes that a share `exp(-hazard)` of all cells survives."""
        # whichever tail is the small one: 1 - p would round it away
        deviations = jnp.where(
            hazard < math.log(2),
            jax.scipy.special.ndtri(-jnp.expm1(-hazard)),
            -jax.scipy.special.ndtri(jnp.exp(-hazard)),
        )
        return self.median * jnp.exp(self.sigma_ln * deviations)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Weibull:
    """Endurance by Weibull's law, that of a weakest link. Hashable, and static under `jit`.

    Attributes:
      median: as that of `Lognormal`.
      shape: the larger, the more alike the cells; the deviation of the natural logarithm is
        pi / (sqrt(6) * shape). Nobody has published one for an array; the default has the deviation
        of `Lognormal`'s.
      placeholders: fields whose default has no source.

    Raises:
      ValueError: a value that is not positive.
    """

    median: float = MEDIAN_ENDURANCE["hfo2"]
    shape: float = 1.83
    placeholders: ClassVar[tuple[str, ...]] = ("shape",)

    def __post_init__(self) -> None:
        _check_positive(self)

    def writes_at_hazard(self, hazard: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Writes that a share `exp(-hazard)` of all cells survives."""
        return self.median * (hazard / math.log(2)) ** (1 / self.shape)


Endurance = Lognormal | Weibull


class WearHistogram(NamedTuple):
    """Cells of a chip by their wear.

    Attributes:
      writes: per programming, distinct values in ascending order.
      cells: that take so many.
    """

    writes: Float32[AnyArray, " groups"]
    cells: Float32[AnyArray, " groups"]


class CellLives(NamedTuple):
    """When the cells of one chip fail, and how.

    Attributes:
      endurance: writes that each survives.
      fails_at_1: whether it is stuck at its highest level from then on, else at its lowest.
    """

    endurance: Float32[Array, "crossbars rows columns"]
    fails_at_1: Bool[Array, "crossbars rows columns"]


def steady_wear(
    params: PyTree, plan: Plan, chip: Chip, *, passes: int = 1
) -> Float32[Array, "crossbars rows columns"]:
    """Writes per cell of one programming in the steady state of weight streaming, counted.

    The first pass, onto erased cells, is not counted. Runs under `jit` and `vmap`.

    Args:
      params, plan, chip: see `program`.
      passes: to average over (static); one is exact unless bit stucking draws afresh.
    """
    _, first = program(params, plan, chip)
    _, steady = program(params, plan, first.chip, passes=passes, wear=True)
    return jnp.asarray(steady.wear, jnp.float32) / passes


def wear_histogram(wear: Shaped[AnyArray, "crossbars rows columns"]) -> WearHistogram:
    """Cells grouped by their writes per programming; on the host."""
    writes, cells = np.unique(np.asarray(wear), return_counts=True)
    return WearHistogram(writes.astype(np.float32), cells.astype(np.float32))


def programmings_until_failure(
    key: Key[Array, ""], histogram: WearHistogram, endurance: Endurance, failures: int = 1
) -> Float32[Array, ""]:
    """Programmings until so many cells of one chip have failed; `vmap` over `key` for many chips.

    The endurance of every cell is drawn from its law, but only for the first to fail of each group:
    the hazards at which n cells of one kind fail are sums of independent exponential numbers of
    means 1/n, 1/(n - 1), ... (Renyi), so the work does not grow with the number of cells.

    Args:
      key: consumed.
      histogram: of the chip's wear.
      endurance: of a cell.
      failures: of cells, at most as many as there are (static).

    Returns:
      Infinity if fewer cells ever fail, because the others are not written.

    References:
      Renyi, On the theory of order statistics, Acta Mathematica Hungarica 4, 1953.
    """
    left = histogram.cells[:, None] - jnp.arange(failures, dtype=jnp.float32)[None]
    steps = _exponential(key, left.shape) / jnp.maximum(left, 1)
    hazard = jnp.cumsum(jnp.where(left > 0, steps, jnp.inf), axis=1)
    programmings = endurance.writes_at_hazard(hazard) / histogram.writes[:, None]
    return -jax.lax.top_k(-programmings.reshape(-1), failures)[0][-1]


def programmings_with_spares(
    key: Key[Array, ""],
    wear: Float32[Array, "crossbars rows columns"],
    endurance: Endurance,
    spares: int,
) -> Float32[Array, ""]:
    """Programmings until a failure finds no spare row; `vmap` over `key` for many chips.

    A row is retired when the first of its cells fails; its words go to an unworn spare row of the
    same crossbar, and so on until the spare rows of one crossbar are used up.

    Args:
      key: consumed.
      wear: writes per cell of a programming.
      endurance: of a cell.
      spares: rows of each crossbar beside those in use (static).
    """
    hazard = _exponential(key, (spares + 1, *wear.shape))
    lives = jnp.min(endurance.writes_at_hazard(hazard) / wear[None], axis=-1)
    retired = jnp.cumsum(lives, axis=0)  # the rows that follow each other in one place
    of_crossbar = retired.swapaxes(0, 1).reshape(wear.shape[0], -1)
    return jnp.min(-jax.lax.top_k(-of_crossbar, spares + 1)[0][:, -1])


def levelled_wear(
    wear: Shaped[AnyArray, "crossbars rows columns"], axes: tuple[int, ...]
) -> Float32[np.ndarray, "crossbars rows columns"]:
    """Writes per cell of a programming under rotation, over a time that is long against its period.

    Args:
      wear: without rotation.
      axes: what rotates: (1,) the rows within a crossbar, (0,) the crossbars, (0, 1) both.
    """
    mean = np.mean(wear, axis=axes, dtype=np.float64, keepdims=True)
    return np.broadcast_to(mean.astype(np.float32), wear.shape)


def levelled_writes(
    wear: Shaped[AnyArray, "crossbars rows columns"], programmings: int, period: int, axis: int
) -> Int64[np.ndarray, "crossbars rows columns"]:
    """Writes per cell, exact, after so many programmings that rotate every `period` of them.

    After every period the words of each place go to the next one along `axis`. A cell has then
    passed through all places of its orbit after period * places programmings, with the same writes
    as every other cell of it. The first pass after a move overwrites other words than the steady
    one does: at most one write per cell and period, which is not counted.

    Args:
      wear: whole writes per cell of a programming, without rotation.
      programmings: done so far.
      period: programmings between moves.
      axis: 1 rotates the rows within a crossbar, 0 the crossbars.

    Raises:
      ValueError: a period below 1.
    """
    if period < 1:
        raise ValueError(f"`period` is {period}; rotate after at least 1 programming.")
    places = wear.shape[axis]
    moves, since_move = divmod(programmings, period)
    rounds, moved = divmod(moves, places)
    whole = np.moveaxis(np.asarray(wear, np.int64), axis, 0)
    sums = np.cumsum(np.concatenate([np.zeros_like(whole[:1]), whole, whole]), axis=0)
    # place i has held the words of i, i - 1, ..., i - moved + 1 for a period each
    ends = np.arange(places) + places + 1
    window = sums[ends] - sums[ends - moved]
    held = np.roll(whole, moved, axis=0)
    writes = period * (rounds * whole.sum(axis=0) + window) + since_move * held
    return np.moveaxis(writes, 0, axis)


def lifetime_years(
    programmings: Float[np.ndarray, "*shape"], inferences_per_day: float, batch: int = 1
) -> Float[np.ndarray, "*shape"]:
    """Years that so many programmings last.

    Args:
      programmings: until failure.
      inferences_per_day: of one chip.
      batch: inferences per programming.

    Raises:
      ValueError: a rate that is not positive, a batch below 1.
    """
    if not 0 < inferences_per_day < math.inf:
        raise ValueError(f"`inferences_per_day` is {inferences_per_day}; give a positive number.")
    if batch < 1:
        raise ValueError(f"`batch` is {batch}; a programming serves at least 1 inference.")
    return programmings * (batch / (inferences_per_day * DAYS_PER_YEAR))


def sample_lives(
    key: Key[Array, ""],
    shape: tuple[int, ...],
    endurance: Endurance,
    share_at_1: float | Float32[Array, ""] = 0.5,
) -> CellLives:
    """Draws when and how every cell of one chip fails; `vmap` over `key` for many.

    Args:
      key: consumed.
      shape: (crossbars, rows, columns).
      endurance: of a cell.
      share_at_1: of failed cells that are stuck at their highest level, as RRAM is after negative
        SETs; the others are stuck at their lowest. The default is a placeholder.
    """
    endurance_key, level_key = jax.random.split(key)
    writes = endurance.writes_at_hazard(_exponential(endurance_key, shape))
    return CellLives(writes, jax.random.uniform(level_key, shape) < share_at_1)


def wear_out(
    chip: Chip,
    lives: CellLives,
    writes: Float32[Array, "crossbars rows columns"],
    config: CrossbarConfig,
) -> Chip:
    """The chip after its cells took so many writes: those past their endurance are stuck.

    Cells that were stuck before stay as they are. Runs under `jit` and `vmap`.

    Args:
      chip: at any time of its life.
      lives: of its cells.
      writes: that each has taken in all.
      config: of its crossbars.
    """
    worn = writes >= lives.endurance
    stuck = chip.stuck_at_0 | chip.stuck_at_1
    crossbars = chip.state.shape[0]
    high = fault_words(worn & lives.fails_at_1, crossbars, config) & ~stuck
    low = fault_words(worn & ~lives.fails_at_1, crossbars, config) & ~stuck
    return chip._replace(
        stuck_at_0=chip.stuck_at_0 | low,
        stuck_at_1=chip.stuck_at_1 | high,
        state=(chip.state | high) & ~low,
    )


def _check_positive(numbers: Endurance) -> None:
    """Checks that every field is a positive number.

    Raises:
      ValueError: one is not.
    """
    for name, value in dataclasses.asdict(numbers).items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:  # also refuses NaN
            raise ValueError(f"`{name}` is {value!r}; give a positive number.")


def _exponential(key: Key[Array, ""], shape: tuple[int, ...]) -> Float32[Array, "*shape"]:
    """Exponential numbers of mean 1, precise where they are small: the first failure is there."""
    # 48 random bits: the 24 of a float32 would make one in 16 million exactly 0, a dead cell
    bits = jax.random.bits(key, (2, *shape), jnp.uint32) >> 8
    high, low = (part.astype(jnp.float32) for part in (bits[0], bits[1]))
    uniform = high * 2.0**-24 + (low + 0.5) * 2.0**-48
    return -jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24))
