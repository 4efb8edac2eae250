"""Figures as people read them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memsim.service.lifetime import DAYS_PER_YEAR


def index_bits_text(bits: float) -> str:
    """Index bits to one decimal; a price that rounds to nothing is not called nothing."""
    return "<0.1" if 0 < bits < 0.05 else f"{bits:.1f}"


def quantity_text(value: float, unit: str) -> str:
    """A time or an energy to one decimal, with the prefix it takes: 0.287 s is 287.0 ms."""
    # 999.95 is 1,000.0 to one decimal
    power = min(max(math.floor(math.log10(value / 0.99995) / 3), -5), 4) if value else 0
    return f"{value / 1000.0**power:.1f} {'fpnµm kMGT'[power + 5].strip()}{unit}"


def time_text(years: float) -> str:
    """In the largest unit that there is one of."""
    hours = 24 * DAYS_PER_YEAR
    units = {"years": 1.0, "days": DAYS_PER_YEAR, "h": hours, "min": 60 * hours}
    for unit, per_year in units.items():
        if years * per_year >= 1:
            text = number_text(years * per_year)
            return (
                text if text == "never" else f"{text} {unit.rstrip('s') if text == '1' else unit}"
            )
    return f"{number_text(years * 86400 * DAYS_PER_YEAR)} s"


def number_text(value: float) -> str:
    """To three digits; what never happens is said so."""
    return "never" if math.isinf(value) else f"{value:,.3g}" if value < 999.5 else f"{value:,.0f}"


def passes_text(writes_per_pass: Sequence[int]) -> str:
    """What a title adds where figures are of several passes."""
    return f", {len(writes_per_pass)} passes" if len(writes_per_pass) > 1 else ""


def origin_text(name: str, assumptions: Mapping[str, Any]) -> str:
    """Where an input of the lifetime is from.

    Args:
      name: such as `cost.batch`.
      assumptions: their JSON values, see `assumptions_json`.
    """
    if name in assumptions["given"]:
        return "your file"
    return "PLACEHOLDER" if name in assumptions["placeholders"] else "default"


def lifetime_title(report: Mapping[str, Any]) -> str:
    """What the lifetimes in a report are of.

    Args:
      report: what `to_json` gives, with `lifetime`.
    """
    lifetime = report["lifetime"]
    rotated = {"none": "", "both": ", rows and crossbars rotated"}
    levelled = rotated.get(lifetime["levelling"], f", {lifetime['levelling']} rotated")
    spares = lifetime["spares"]
    standby = f" and no spare row is left ({spares} per crossbar)" if spares else ""
    scheme = ", constant pulses that succeed"
    if lifetime["cells"]:
        scheme = f", {lifetime['scheme']} on {lifetime['cells']} cells"
    rate = f"{lifetime['cost']['inferences_per_day']:,g} inferences a day"
    return f"Lifetime until a cell fails{standby}, at {rate}{scheme}{levelled}"
