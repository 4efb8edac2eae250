"""What a policy is worth: lifetime and cost from the counts of its steady pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from memsim.cells.prices import write_energy, write_time
from memsim.cells.pulses import ConstantPulses, Scheme
from memsim.service.costs import (
    Assumptions,
    Figure,
    figures_json,
    finite,
    total_cost,
)
from memsim.service.lifetime import (
    Endurance,
    WearHistogram,
    levelled_wear,
    lifetime_years,
    programmings_until_failure,
    programmings_with_spares,
    wear_histogram,
)
from memsim.summary import Summary

LEVELLING: dict[str, tuple[int, ...]] = {
    "none": (),
    "rows": (1,),
    "crossbars": (0,),
    "both": (0, 1),
}


_PULSES = ConstantPulses()


# Chips whose cells are drawn to find the lifetime of a chip.
_CHIPS = 1000


# Chips drawn at once where spare rows take over, which takes every cell and not their histogram.
_CHUNK = 8


class Worth(NamedTuple):
    """What one policy comes to.

    Attributes:
      summary: writes of a steady pass, mean over chips.
      inferences, years: until the first failure that finds no spare row, of every chip drawn; in
        years each takes its share, where one chip is too slow to be written so often.
      write_joules, write_seconds: of a steady pass.
      figures: of the median chip: what was counted and drawn, then those of `total_cost`.
    """

    summary: Summary
    inferences: Float[np.ndarray, " chips"]
    years: Float[np.ndarray, " chips"]
    write_joules: float
    write_seconds: float
    figures: dict[str, Figure]


def worth(
    summary: Summary,
    wear: Sequence[np.ndarray],
    assumptions: Assumptions,
    seed: int = 0,
    *,
    scheme: Scheme = _PULSES,
    levelling: str = "none",
    spares: int = 0,
) -> Worth:
    """Lifetime and cost of a policy from the counts of its steady pass.

    Args:
      summary: of that pass.
      wear: writes per cell in it, [crossbars, rows, columns], of one chip or more that differ by
        their draws; the endurance of their cells is drawn for 1,000 chips in all, or one each.
      assumptions: the rest.
      seed: of the endurance.
      scheme: how a cell is written; a write wears it the same under each.
      levelling: what rotates, so that cells wear alike: `none`, `rows` of a crossbar, `crossbars`,
        or `both`; see `levelled_wear`.
      spares: rows of each crossbar that stand by for worn ones; see `programmings_with_spares`.

    Raises:
      ValueError: another `levelling`, a negative number of `spares`.
    """
    if levelling not in LEVELLING:
        raise ValueError(f"`levelling` is {levelling!r}; choose one of {', '.join(LEVELLING)}.")
    if spares < 0:
        raise ValueError(f"`spares` is {spares}; give a number of rows from 0.")
    if LEVELLING[levelling]:
        wear = [levelled_wear(of_chip, LEVELLING[levelling]) for of_chip in wear]
    endurance, costs, *_ = assumptions
    keys = jax.random.split(jax.random.key(seed), (len(wear), -(-_CHIPS // len(wear))))
    if spares:
        drawn = _lives_with_spares(keys, wear, endurance, spares)
    else:
        drawn = _lives(keys, wear, endurance)
    programmings = np.asarray(drawn, np.float64).reshape(-1)
    joules, seconds = write_energy(summary, scheme), write_time(summary, scheme)
    median = quantiles(programmings)[1]
    counted = {  # what the formulas start from
        "programmings_until_failure": Figure(median, "", "median of the chips drawn", {}),
        "write_seconds": Figure(seconds, "s", "row operations of a steady pass", {}),
        "write_joules": Figure(joules, "J", "writes of a steady pass", {}),
    }
    figures = counted | total_cost(median, joules, seconds, costs)
    rate = costs.inferences_per_day / figures["chips"].value
    years = lifetime_years(programmings, rate, costs.batch)
    return Worth(summary, programmings * costs.batch, years, joules, seconds, figures)


def _lives(
    keys: Key[Array, "wears chips"], wear: Sequence[np.ndarray], endurance: Endurance
) -> Float32[Array, "wears chips"]:
    """Programmings until the first failure."""
    histograms = [wear_histogram(of_chip) for of_chip in wear]
    groups = max(histogram.cells.size for histogram in histograms)
    padded = [[np.pad(x, (0, groups - x.size)) for x in histogram] for histogram in histograms]
    stacked = WearHistogram(*map(np.stack, zip(*padded, strict=True)))  # more groups of no cells

    def lives(histogram: WearHistogram, keys: Key[Array, " chips"]) -> Float32[Array, " chips"]:
        return jax.vmap(lambda key: programmings_until_failure(key, histogram, endurance))(keys)

    return jax.jit(jax.vmap(lives))(stacked, keys)


def _lives_with_spares(
    keys: Key[Array, "wears chips"], wear: Sequence[np.ndarray], endurance: Endurance, spares: int
) -> Float32[Array, "wears chips"]:
    """Programmings until a failure that finds no spare row."""

    @jax.jit
    def lives(
        keys: Key[Array, " chips"], wear: Float32[Array, "crossbars rows columns"]
    ) -> Float32[Array, " chips"]:
        def life(key: Key[Array, ""]) -> Float32[Array, ""]:
            return programmings_with_spares(key, wear, endurance, spares)

        return jax.lax.map(life, keys, batch_size=_CHUNK)

    pairs = zip(keys, wear, strict=True)
    return jnp.stack([lives(some, jnp.asarray(of_chip, jnp.float32)) for some, of_chip in pairs])


def worth_json(found: Worth) -> dict[str, Any]:
    """What a policy is worth as JSON values; None where nothing wears out."""
    low, median, high = map(finite, quantiles(found.years))
    return {
        "writes": found.summary.writes,
        "write_joules": found.write_joules,
        "write_seconds": found.write_seconds,
        "chips_drawn": len(found.years),
        "inferences_to_first_failure": finite(quantiles(found.inferences)[1]),
        "years_to_first_failure": median,
        "years_to_first_failure_90": [low, high],
        "figures": figures_json(found.figures),
    }


def quantiles(lives: np.ndarray) -> tuple[float, float, float]:
    """5 %, median, 95 %: of chips that there are, since some may live for ever."""
    low, median, high = np.quantile(lives, [0.05, 0.5, 0.95], method="nearest")
    return float(low), float(median), float(high)
