"""What a policy is worth: lifetime and cost from the counts of its steady pass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.table
from jaxtyping import Array, Float, Float32, Key

from memsim.cost import Assumptions, Figure, assumptions_json, figures_json, finite, total_cost
from memsim.device import ConstantPulses, write_energy, write_time
from memsim.lifetime import (
    DAYS_PER_YEAR,
    WearHistogram,
    lifetime_years,
    programmings_until_failure,
    wear_histogram,
)
from memsim.report import Summary

# Chips whose cells are drawn to find the lifetime of a chip.
_CHIPS = 1000


class Worth(NamedTuple):
    """What one policy comes to.

    Attributes:
      summary: writes of a steady pass, mean over chips.
      inferences, years: until the first failure, of every chip drawn; in years each takes its
        share, where one chip is too slow to be written so often.
      write_joules, write_seconds: of a steady pass.
      figures: see `total_cost`, of the median chip.
    """

    summary: Summary
    inferences: Float[np.ndarray, " chips"]
    years: Float[np.ndarray, " chips"]
    write_joules: float
    write_seconds: float
    figures: dict[str, Figure]


def worth(
    summary: Summary, wear: Sequence[np.ndarray], assumptions: Assumptions, seed: int = 0
) -> Worth:
    """Lifetime and cost of a policy from the counts of its steady pass.

    Args:
      summary: of that pass.
      wear: writes per cell in it, [crossbars, rows, columns], of one chip or more that differ by
        their draws; the endurance of their cells is drawn for 1,000 chips in all, or one each.
      assumptions: the rest.
      seed: of the endurance.
    """
    endurance, costs, _ = assumptions
    histograms = [wear_histogram(of_chip) for of_chip in wear]
    groups = max(histogram.cells.size for histogram in histograms)
    padded = [[np.pad(x, (0, groups - x.size)) for x in histogram] for histogram in histograms]
    stacked = WearHistogram(*map(np.stack, zip(*padded, strict=True)))  # more groups of no cells
    keys = jax.random.split(jax.random.key(seed), (len(wear), -(-_CHIPS // len(wear))))

    def lives(histogram: WearHistogram, keys: Key[Array, " chips"]) -> Float32[Array, " chips"]:
        return jax.vmap(lambda key: programmings_until_failure(key, histogram, endurance))(keys)

    drawn = jax.jit(jax.vmap(lives))(stacked, keys)
    programmings = np.asarray(drawn, np.float64).reshape(-1)
    pulses = ConstantPulses()
    joules, seconds = write_energy(summary, pulses), write_time(summary, pulses)
    figures = total_cost(float(np.median(programmings)), joules, seconds, costs)
    rate = costs.inferences_per_day / figures["chips"].value
    years = lifetime_years(programmings, rate, costs.batch)
    return Worth(summary, programmings * costs.batch, years, joules, seconds, figures)


def worth_json(found: Worth) -> dict[str, Any]:
    """What a policy is worth as JSON values; None where nothing wears out."""
    low, median, high = map(finite, _quantiles(found.years))
    return {
        "writes": found.summary.writes,
        "write_joules": found.write_joules,
        "write_seconds": found.write_seconds,
        "chips_drawn": len(found.years),
        "inferences_to_first_failure": finite(float(np.median(found.inferences))),
        "years_to_first_failure": median,
        "years_to_first_failure_90": [low, high],
        "figures": figures_json(found.figures),
    }


def _quantiles(years: np.ndarray) -> tuple[float, float, float]:
    """5 %, median, 95 %: of chips that there are, since some may live for ever."""
    low, median, high = np.quantile(years, [0.05, 0.5, 0.95], method="nearest")
    return low, median, high


def worth_tables(
    policies: Mapping[str, Worth], assumptions: Assumptions, cost: bool
) -> list[rich.table.Table]:
    """Tables for people: the policies; with `cost` how each figure came about; the inputs."""
    costs = assumptions.costs
    title = f"Lifetime to the first failed cell, at {costs.inferences_per_day:,g} inferences a day"
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    headings = ("writes", "energy, J", "time, s", "chips", "inferences", "lifetime", "90 % of them")
    for heading in (*headings, *([f"{costs.currency} a year"] if cost else [])):
        table.add_column(heading, justify="right")
    for name, found in policies.items():
        low, median, high = _quantiles(found.years)
        table.add_row(
            name, f"{found.summary.writes:,}", f"{found.write_joules:.3g}",
            f"{found.write_seconds:.3g}", f"{found.figures['chips'].value:,.0f}",
            number_text(np.median(found.inferences)),
            time_text(median), f"{time_text(low)} to {time_text(high)}",
            *([number_text(found.figures["total_cost"].value)] if cost else []),
        )  # fmt: skip
    tables = [table]
    if cost:
        table = rich.table.Table(title="How it comes about", title_justify="left")
        for heading in ("figure", "formula"):
            table.add_column(heading)
        for name in policies:
            table.add_column(name, justify="right")
        for name, (_, unit, formula, _) in next(iter(policies.values())).figures.items():
            values = (number_text(found.figures[name].value) for found in policies.values())
            table.add_row(f"{name}, {unit}" if unit else name, formula, *values)
        tables.append(table)
    table = rich.table.Table(title="Inputs", title_justify="left")
    for heading in ("input", "value", ""):
        table.add_column(heading)
    inputs = assumptions_json(assumptions)
    needed = tuple(inputs["cost"]) if cost else ("inferences_per_day", "batch")
    for group in ("endurance", "cost"):
        for name, value in inputs[group].items():
            if group == "cost" and name not in needed:
                continue
            guessed = f"{group}.{name}" in assumptions.placeholders
            shown = f"{value:,g}" if isinstance(value, (int, float)) else value
            table.add_row(f"{group}.{name}", shown, "PLACEHOLDER" if guessed else "")
    return [*tables, table]


def time_text(years: float) -> str:
    """In the largest unit that there is one of."""
    units = {"years": 1.0, "days": DAYS_PER_YEAR, "h": 24 * DAYS_PER_YEAR}
    for unit, per_year in units.items():
        if years * per_year >= 1:
            return "never" if math.isinf(years) else f"{number_text(years * per_year)} {unit}"
    return f"{number_text(years * 86400 * DAYS_PER_YEAR)} s"


def number_text(value: float) -> str:
    """To three digits; what never happens is said so."""
    return "never" if math.isinf(value) else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
