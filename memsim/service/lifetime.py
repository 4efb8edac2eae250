"""Says how long a chip lives: the endurance of its cells against what a steady pass wears them by.

Endurance and wear are in cycles, as endurance is published. A cycle is a SET and a RESET of one
cell, and a cell wears by its SETs or its RESETs, whichever are more. Time is counted in
programmings, passes of the whole network over the crossbars: a cell that each of them wears by `w`
cycles fails after `endurance / w` of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Key

from memsim._checks import as_key, check_array, check_kind, check_number, check_whole
from memsim.chip import Chip, fault_words
from memsim.config import CrossbarConfig
from memsim.service.wear import WearHistogram

__all__ = [
    "DAYS_PER_YEAR",
    "MEDIAN_ENDURANCE",
    "CellLives",
    "Endurance",
    "Lognormal",
    "Weibull",
    "lifetime_years",
    "programmings_until_failure",
    "programmings_with_spares",
    "sample_lives",
    "wear_out",
]

DAYS_PER_YEAR = 365.25

# Cycles that half of all cells survive: medians over papers, 18 on RRAM and 13 on PCM; NVMExplorer,
# HPCA 2022, arXiv 2109.01188.
MEDIAN_ENDURANCE = {"hfo2": 1e6, "pcm": 1e8}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lognormal:
    """Takes the logarithm of the endurance to be normal. Hashable, and static under `jit`.

    Example:
      >>> float(Lognormal(median=1e6).cycles_at_hazard(jnp.float32(math.log(2))))
      1000000.0

    Attributes:
      median: cycles that half of the cells survive; by default that of RRAM, see
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

    def cycles_at_hazard(self, hazard: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Returns the cycles that a share `exp(-hazard)` of all cells survives."""
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
    """Takes the endurance to follow Weibull's law, that of a weakest link. Hashable and static.

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

    def cycles_at_hazard(self, hazard: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Returns the cycles that a share `exp(-hazard)` of all cells survives."""
        return self.median * (hazard / math.log(2)) ** (1 / self.shape)


Endurance = Lognormal | Weibull
"""A law of endurance."""


class CellLives(NamedTuple):
    """Says when the cells of one chip fail, and how.

    Attributes:
      endurance: cycles that each survives.
      fails_at_1: whether it is stuck at its highest level from then on, else at its lowest.
    """

    endurance: Float32[Array, "crossbars rows columns"]
    fails_at_1: Bool[Array, "crossbars rows columns"]


def programmings_until_failure(
    key: Key[Array, ""], histogram: WearHistogram, endurance: Endurance, failures: int = 1
) -> Float32[Array, ""]:
    """Draws the programmings until so many cells of one chip have failed.

    `vmap` over `key` for many chips. The endurance of every cell is drawn from its law, but only
    for the first to fail of each group: the hazards at which n cells of one kind fail are sums of
    independent exponential numbers of
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
    key = as_key("key", key)
    check_kind("histogram", histogram, WearHistogram)
    _check_endurance(endurance)
    check_whole("failures", failures, "give a number of cells from 1", 1)
    # hazards of the first, second, ... failure of each group: sums of ever larger steps
    left = histogram.cells[:, None] - jnp.arange(failures, dtype=jnp.float32)[None]
    steps = _exponential(key, left.shape) / jnp.maximum(left, 1)
    hazard = jnp.cumsum(jnp.where(left > 0, steps, jnp.inf), axis=1)
    # a group that is not worn divides by 0: it never fails
    programmings = endurance.cycles_at_hazard(hazard) / histogram.cycles[:, None]
    return -jax.lax.top_k(-programmings.reshape(-1), failures)[0][-1]


def programmings_with_spares(
    key: Key[Array, ""],
    wear: Float32[Array, "crossbars rows columns"],
    endurance: Endurance,
    spares: int,
) -> Float32[Array, ""]:
    """Draws the programmings until a failure finds no spare row; `vmap` over `key` for many chips.

    A row is retired when the first of its cells fails; its words go to an unworn spare row of the
    same crossbar, and so on until the spare rows of one crossbar are used up.

    Args:
      key: consumed.
      wear: cycles per cell of a programming, see `steady_wear`.
      endurance: of a cell.
      spares: rows of each crossbar beside those in use, at most as many (static).
    """
    key = as_key("key", key)
    _check_endurance(endurance)
    check_array("wear", wear, "numbers", "[crossbars, rows, columns]", axes=3)
    rows = wear.shape[1]
    check_whole("spares", spares, f"give 0 to {rows}, as many rows as are in use", 0, rows)
    hazard = _exponential(key, (spares + 1, *wear.shape))
    # every place of a row, once for each row that may ever lie there; the weakest cell ends it
    lives = jnp.min(endurance.cycles_at_hazard(hazard) / wear[None], axis=-1)
    retired = jnp.cumsum(lives, axis=0)  # the rows that follow each other in one place
    # a crossbar fails at the failure after the last spare row, the chip with its first crossbar
    of_crossbar = retired.swapaxes(0, 1).reshape(wear.shape[0], -1)
    return jnp.min(-jax.lax.top_k(-of_crossbar, spares + 1)[0][:, -1])


def lifetime_years(
    programmings: Float[np.ndarray, "*shape"], inferences_per_day: float, batch: int = 1
) -> Float[np.ndarray, "*shape"]:
    """Converts programmings into the years that they last.

    Example:
      >>> float(lifetime_years(np.asarray(730.5), inferences_per_day=1))
      2.0

    Args:
      programmings: until failure.
      inferences_per_day: of one chip.
      batch: inferences per programming.

    Raises:
      ValueError: a rate that is not positive, a batch below 1.
    """
    check_number("inferences_per_day", inferences_per_day, "give a positive number")
    check_number("batch", batch, "a programming serves at least 1 inference", 1)
    check_array("programmings", programmings, "numbers")
    if not 0 < inferences_per_day < math.inf:
        raise ValueError(f"`inferences_per_day` is {inferences_per_day}; give a positive number.")
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
    key = as_key("key", key)
    check_kind("shape", shape, tuple, "give (crossbars, rows, columns)")
    for size in shape:
        check_whole("shape", size, "give (crossbars, rows, columns)", 0, 2**31 - 1)
    _check_endurance(endurance)
    array = isinstance(share_at_1, jax.Array) and jnp.issubdtype(share_at_1.dtype, jnp.number)
    if not array:
        check_number("share_at_1", share_at_1, "give a share of the failed cells, 0..1", 0, 1)
    endurance_key, level_key = jax.random.split(key)
    cycles = endurance.cycles_at_hazard(_exponential(endurance_key, shape))
    return CellLives(cycles, jax.random.uniform(level_key, shape) < share_at_1)


def wear_out(
    chip: Chip,
    lives: CellLives,
    cycles: Float32[Array, "crossbars rows columns"],
    config: CrossbarConfig,
) -> Chip:
    """Makes the cells that have worn out stuck: those with as many cycles as they survive.

    Cells that were stuck before stay as they are. Runs under `jit` and `vmap`.

    Args:
      chip: at any time of its life.
      lives: of its cells.
      cycles: that each has worn by in all, see `wear_cycles`.
      config: of its crossbars.
    """
    check_kind("chip", chip, Chip)
    check_kind("lives", lives, CellLives)
    check_array("cycles", cycles, "numbers", "[crossbars, rows, columns]", axes=3)
    check_kind("config", config, CrossbarConfig)
    worn = cycles >= lives.endurance
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


def _check_endurance(endurance: object) -> None:
    """Checks that an endurance is one: it says at which cycles a hazard is reached."""
    if not hasattr(endurance, "cycles_at_hazard"):
        raise ValueError(
            f"`endurance` is a {type(endurance).__name__}; give a Lognormal or a Weibull."
        )


def _exponential(key: Key[Array, ""], shape: tuple[int, ...]) -> Float32[Array, "*shape"]:
    """Draws exponential numbers of mean 1, precise where they are small: there cells fail first."""
    # 48 random bits: the 24 of a float32 would make one in 16 million exactly 0, a dead cell
    bits = jax.random.bits(key, (2, *shape), jnp.uint32) >> 8
    high, low = (part.astype(jnp.float32) for part in (bits[0], bits[1]))
    uniform = high * 2.0**-24 + (low + 0.5) * 2.0**-48
    return -jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24))
