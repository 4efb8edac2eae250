"""Says how long a chip serves under a policy and at what cost, by the counts of a steady pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, Shaped

from memsim._checks import check_array, check_choice, check_kind, check_seed, check_whole
from memsim.cells.prices import write_energy, write_time
from memsim.cells.pulses import ConstantPulses, Scheme
from memsim.codes import AnyArray
from memsim.service.costs import Figure, ServiceInputs, total_cost
from memsim.service.lifetime import (
    Endurance,
    lifetime_years,
    programmings_until_failure,
    programmings_with_spares,
)
from memsim.service.wear import WearHistogram, levelled_wear, wear_histogram
from memsim.summary import Summary

__all__ = ["LEVELLING", "Levelling", "ServiceLife", "life_in_service", "quantiles"]

Levelling = Literal["none", "rows", "crossbars", "both"]
"""What is rotated so that cells wear alike."""

# Axes of the wear that each way of levelling rotates over.
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


class ServiceLife(NamedTuple):
    """Holds how long chips serve under one policy, and what that costs.

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


def life_in_service(
    summary: Summary,
    inputs: ServiceInputs,
    *,
    cycles: Sequence[Shaped[AnyArray, "crossbars rows columns"]],
    seed: int = 0,
    scheme: Scheme = _PULSES,
    levelling: Levelling = "none",
    spares: int = 0,
) -> ServiceLife:
    """Works out lifetime and cost of a policy from the counts of its steady pass.

    Example:
      >>> import numpy as np, memsim
      >>> config, policy = memsim.CrossbarConfig(rows=8), memsim.Policy.parse("sws")
      >>> tensors = {"w.weight": np.float32([[1, 2], [3, -4]])}
      >>> compared = memsim.compare(tensors, config, {"sws": policy}, passes=2, steady=True)
      >>> summary, writes = compared.steady["sws"]
      >>> cycles = [memsim.service.wear_cycles(of_chip, config) for of_chip in writes]
      >>> life = life_in_service(summary, memsim.service.make_service_inputs(), cycles=cycles)

    Args:
      summary: of that pass.
      inputs: endurance and prices.
      cycles: that every cell wears by in it (not writes, see `wear_cycles`), of one chip or more
        that differ by their draws; the endurance of their cells is drawn for 1,000 chips in all, or
        one each.
      seed: of the endurance, 32 bits.
      scheme: how a cell is written; a write wears it the same under each.
      levelling: what rotates, so that cells wear alike: `none`, `rows` of a crossbar, `crossbars`,
        or `both`; see `levelled_wear`.
      spares: rows of each crossbar that stand by for worn ones; see `programmings_with_spares`.

    Raises:
      ValueError: another `levelling`, a negative number of `spares`, another seed.
    """
    check_seed(seed)
    check_choice("levelling", levelling, tuple(LEVELLING))
    check_whole("spares", spares, "give a number of rows from 0", 0)
    check_kind("summary", summary, Summary, "give what `memsim.summarize` returns")
    check_kind("inputs", inputs, ServiceInputs, "give a memsim.service.ServiceInputs")
    check_kind("cycles", cycles, (list, tuple), "give a list of arrays, one of each chip")
    for of_chip in cycles:
        check_array("cycles", of_chip, "numbers", "[crossbars, rows, columns]", axes=3)
    if not cycles:
        raise ValueError("`cycles` is []; give the wear of at least one chip.")
    if LEVELLING[levelling]:
        cycles = [levelled_wear(of_chip, LEVELLING[levelling]) for of_chip in cycles]
    # chips with draws of their own share the thousand endurances
    keys = jax.random.split(jax.random.key(seed), (len(cycles), -(-_CHIPS // len(cycles))))
    if spares:
        drawn = _lives_with_spares(keys, cycles, inputs.endurance, spares)
    else:
        drawn = _lives(keys, cycles, inputs.endurance)
    programmings = np.asarray(drawn, np.float64).reshape(-1)
    joules, seconds = write_energy(summary, scheme), write_time(summary, scheme)
    median = quantiles(programmings)[1]
    worst = max(float(of_chip.max()) for of_chip in cycles)
    counted = {  # what the formulas start from
        "most_worn_cell": Figure(worst, "cycles", "SETs or RESETs of it in a steady pass", {}),
        "programmings_until_failure": Figure(
            median, "programmings", "median of the chips drawn", {}
        ),
        "write_seconds": Figure(seconds, "s", "row operations of a steady pass", {}),
        "write_joules": Figure(joules, "J", "writes of a steady pass", {}),
    }
    costs = inputs.costs
    figures = counted | total_cost(median, joules, seconds, costs)
    rate = costs.inferences_per_day / figures["chips"].value
    years = lifetime_years(programmings, rate, costs.batch)
    return ServiceLife(summary, programmings * costs.batch, years, joules, seconds, figures)


def _lives(
    keys: Key[Array, "wears chips"], cycles: Sequence[AnyArray], endurance: Endurance
) -> Float32[Array, "wears chips"]:
    """Draws the programmings until the first failure of each chip."""
    histograms = [wear_histogram(of_chip) for of_chip in cycles]
    groups = max(histogram.cells.size for histogram in histograms)
    # groups of no cells at the end, so that all chips are drawn in one call
    padded = [[np.pad(x, (0, groups - x.size)) for x in histogram] for histogram in histograms]
    stacked = WearHistogram(*map(np.stack, zip(*padded, strict=True)))

    def lives(histogram: WearHistogram, keys: Key[Array, " chips"]) -> Float32[Array, " chips"]:
        return jax.vmap(lambda key: programmings_until_failure(key, histogram, endurance))(keys)

    return jnp.asarray(jax.jit(jax.vmap(lives))(stacked, keys))


def _lives_with_spares(
    keys: Key[Array, "wears chips"], cycles: Sequence[AnyArray], endurance: Endurance, spares: int
) -> Float32[Array, "wears chips"]:
    """Draws the programmings until a failure of each chip that finds no spare row."""

    @jax.jit
    def lives(
        keys: Key[Array, " chips"], wear: Float32[Array, "crossbars rows columns"]
    ) -> Float32[Array, " chips"]:
        def life(key: Key[Array, ""]) -> Float32[Array, ""]:
            return programmings_with_spares(key, wear, endurance, spares)

        return jnp.asarray(jax.lax.map(life, keys, batch_size=_CHUNK))

    pairs = zip(keys, cycles, strict=True)
    return jnp.stack([lives(some, jnp.asarray(of_chip, jnp.float32)) for some, of_chip in pairs])


def quantiles(lives: Float[np.ndarray, " chips"]) -> tuple[float, float, float]:
    """Returns the 5 % quantile, the median and the 95 % quantile.

    Each is one of the values: between chips of which some live for ever there is no mean.
    """
    low, median, high = np.quantile(lives, [0.05, 0.5, 0.95], method="nearest")
    return float(low), float(median), float(high)
