"""Tables of hardware: energy of a pass, an inference, ways to run a network, sources of numbers."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memsim.hardware.passes import PART_NAMES
from memsim.report.texts import (
    count_text,
    number_text,
    passes_text,
    printable,
    quantity_text,
    time_text,
)

if TYPE_CHECKING:  # rich is slow to import
    from memsim.report.layout import FittingTable

__all__ = ["advice_tables", "energy_table", "hardware_table", "inference_table"]


def energy_table(report: Mapping[str, Any]) -> "FittingTable":
    """Shows the energy of programming the network on hardware, by its parts, and what is saved.

    Args:
      report: what `to_json` gives, with `hardware` and with `pass` of each policy.
    """
    from memsim.report.layout import Column, FittingTable

    rows = []
    for name, entry in report["policies"].items():
        cost = entry["pass"]
        rows.append((
            name,
            *(quantity_text(cost["joules"][part], "J") for part in (*PART_NAMES, "total")),
            *(_times(cost[key]) for key in ("reduction_with_index", "net_reduction")),
            quantity_text(cost["seconds"]["total"], "s"),
        ))  # fmt: skip
    passes = passes_text(next(iter(report["policies"].values()))["writes_per_pass"])
    title = f"Energy of programming{passes}; {_named(report)}"
    headings = (*PART_NAMES, "total", "reduction\nwith index", "net energy\nreduction", "time")
    return FittingTable(title, [Column("policy"), *map(Column, headings)], rows)


def hardware_table(report: Mapping[str, Any]) -> "FittingTable":
    """Shows the numbers of the hardware of a report, and where they are from."""
    from memsim.report.layout import Column, FittingTable

    numbers = report["hardware"]["numbers"]
    rows = [
        (name, "none" if of["value"] is None else _plain(of["value"]), of["source"])
        for name, of in numbers.items()
    ]
    columns = [Column("number"), Column("value"), Column("from", left=True, folds=True)]
    return FittingTable(f"Numbers of the {_named(report)}", columns, rows)


def inference_table(report: Mapping[str, Any]) -> "FittingTable":
    """Shows what an inference takes under each policy: energy by part, time, what is busiest.

    Args:
      report: what `to_json` gives, with `hardware` and with `inference` of each policy.
    """
    from memsim.report.layout import Column, FittingTable

    rows = []
    for name, entry in report["policies"].items():
        cost = entry["inference"]
        joules = cost["joules"]
        # its share of a pass, then its products
        written = sum(joules[part] for part in PART_NAMES)
        busiest = cost["bottleneck"]
        share = cost["busy_seconds"][busiest] / cost["seconds"] / cost["batch"] if busiest else 0
        rows.append((
            name,
            quantity_text(written, "J"),
            *(quantity_text(joules[part], "J") for part in ("arrays", "drivers", "converters")),
            quantity_text(joules["shift_add"] + joules["buffers"] + joules["routes"], "J"),
            quantity_text(joules["total"], "J"),
            quantity_text(cost["seconds"], "s"),
            f"{busiest} {100 * share:.0f} %" if busiest else "none",
        ))  # fmt: skip
    first = next(iter(report["policies"].values()))["inference"]
    title = (
        f"An inference, {count_text(first['arrays'], 'array')} of {first['area']:.3g} mm^2, "
        f"{count_text(first['batch'], 'inference')} a pass; {_named(report)}"
    )
    headings = (
        "written", "arrays", "drivers", "converters", "adders,\nbuffers", "energy", "time",
        "busiest",
    )  # fmt: skip
    return FittingTable(title, [Column("policy"), *map(Column, headings)], rows)


def advice_tables(advice: Mapping[str, Any]) -> "list[FittingTable]":
    """Shows the ways to run a network, and the formula of every figure.

    Args:
      advice: what `advice_json` gives.
    """
    from memsim.report.layout import Column, FittingTable

    ways = advice["ways"]
    currency = advice["inputs"]["cost"]["currency"]
    rows = []
    for way, figures in ways.items():
        value = {name: figure["value"] for name, figure in figures.items()}
        even = [value.get(f"break_even_{what}") for what in ("programming", "arrays")]
        lifetime = value["lifetime"]
        rows.append((
            way, f"{value['arrays']:,.0f}", f"{value['area']:,.3g} mm^2",
            quantity_text(value["joules"], "J"), quantity_text(value["seconds"], "s"),
            time_text(math.inf if lifetime is None else lifetime),
            number_text(value["cost_per_million"]),
            *("" if one is None else number_text(one) for one in even),
        ))  # fmt: skip
    headings = (
        "arrays", "area", "energy", "time", "until a cell of\nthese arrays fails",
        f"{currency} per million\ninferences", "even at inferences\nper programming",
        "even at\narrays",
    )  # fmt: skip
    title = f"Ways to run the network, an inference each; {_named(advice)}"
    # a row for each formula: ways may come by a figure of one name by other formulas
    formulas: dict[tuple[str, str], dict[str, str]] = {}
    for way, figures in ways.items():
        for name, of in figures.items():
            shown = number_text(math.inf if of["value"] is None else of["value"])
            figure = f"{name}, {of['unit']}" if of["unit"] else name
            formulas.setdefault((figure, of["formula"]), {})[way] = shown
    by_formula = [
        (*figure, *(shown.get(way, "") for way in ways)) for figure, shown in formulas.items()
    ]
    columns = [Column("figure"), Column("formula", left=True, folds=True), *map(Column, ways)]
    return [
        FittingTable(title, [Column("way"), *map(Column, headings)], rows),
        FittingTable("How it comes about", columns, by_formula),
    ]


def _named(report: Mapping[str, Any]) -> str:
    # names such as `published` are no nouns: no sentence is made of them
    return f"hardware: {printable(report['hardware']['name'])}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _times(reduction: float | None) -> str:
    return "" if reduction is None else f"{reduction:.2f}x"
