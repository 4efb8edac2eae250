"""Counts as figures for people and programs: Python integers, JSON, a table, an HTML page."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jax
import jinja2
import markupsafe
import numpy as np
import rich.table

from memsim.config import CrossbarConfig
from memsim.intervals import confidence_interval
from memsim.lifetime import DAYS_PER_YEAR
from memsim.network import Programming
from memsim.planning import LayerPlan, Plan
from memsim.program import Counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One layer: its weight matrix, its writes over all passes, its placement's price."""

    inputs: int
    outputs: int
    weights: int
    writes: int
    row_operations: int
    index_bits: float
    analog_valid: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What programming a network under one policy took. Counts are over all passes.

    Attributes:
      writes, sets, resets: cells that changed, rose, fell.
      writes_per_pass: writes of each pass.
      row_operations: rows programmed of which at least one cell changed.
      reduction: writes of `unsorted` divided by these; None without a baseline or any writes.
      index_bits_per_weight: routing memory, mean over weights.
      analog_valid: whether every section holds weights of one output only.
      max_cell_writes: writes of the most written cell; None if `program` ran without `wear`.
      writes_per_column: column 0 (low order) first.
      layers: by name, in the order they are programmed.
      chips: chips that the figures are means over (counts are rounded to integers).
      intervals: 95 % confidence interval (Student's t) of the mean of `writes` and `reduction`.
    """

    writes: int
    sets: int
    resets: int
    writes_per_pass: list[int]
    row_operations: int
    reduction: float | None
    index_bits_per_weight: float
    analog_valid: bool
    max_cell_writes: int | None
    writes_per_column: list[int]
    layers: dict[str, LayerSummary]
    chips: int = 1
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


def summarize(programming: Programming, plan: Plan, baseline: Summary | None = None) -> Summary:
    """Figures of one programming, as Python integers: exact past 2^31 writes.

    Args:
      programming: from `program`, of one chip.
      plan: the plan it was programmed by.
      baseline: summary of `unsorted` for the same network, config and chip, for `reduction`.

    Raises:
      ValueError: a `programming` of many chips, or of another plan.
    """
    names = plan.names
    shape = programming.counts.row_operations.shape
    if len(shape) != 2 or shape[1] != len(names):
        raise ValueError(
            f"`programming` counts have shape {shape}, expected [passes, {len(names)} layers]; of "
            "chips under `vmap` summarize one at a time, jax.tree.map(lambda x: x[i], programming)."
        )
    layers = {name: plan.layers[name] for name in names}
    counts = jax.tree.map(lambda x: np.asarray(x, np.int64), programming.counts)
    worst = None if programming.wear is None else int(programming.wear.max())
    summary = summarize_counts(counts, layer_facts(layers), worst)
    return summary if baseline is None else with_reduction(summary, baseline)


def layer_facts(layers: Mapping[str, LayerPlan]) -> dict[str, LayerSummary]:
    """What the plans of layers say of them, before anything is counted."""
    return {
        name: LayerSummary(
            inputs=layer.matrix.inputs,
            outputs=layer.matrix.outputs,
            weights=layer.matrix.inputs * layer.matrix.outputs,
            writes=0,
            row_operations=0,
            index_bits=float(layer.index_bits),
            analog_valid=bool(layer.analog_valid),
        )
        for name, layer in layers.items()
    }


def summarize_counts(
    counts: Counts,
    layers: Mapping[str, LayerSummary],
    max_cell_writes: int | None,
) -> Summary:
    """A summary from host counts (int64, [passes, layers, ...]) of these layers."""
    writes = counts.sets + counts.resets  # [passes, layers, columns]
    weights = sum(layer.weights for layer in layers.values())
    index_bits = sum(layer.index_bits * layer.weights for layer in layers.values())
    counted = {
        name: dataclasses.replace(
            layer,
            writes=int(writes[:, i].sum()),
            row_operations=int(counts.row_operations[:, i].sum()),
        )
        for i, (name, layer) in enumerate(layers.items())
    }
    return Summary(
        writes=int(writes.sum()),
        sets=int(counts.sets.sum()),
        resets=int(counts.resets.sum()),
        writes_per_pass=writes.sum(axis=(1, 2)).tolist(),
        row_operations=int(counts.row_operations.sum()),
        reduction=None,
        index_bits_per_weight=index_bits / weights,
        analog_valid=all(layer.analog_valid for layer in layers.values()),
        max_cell_writes=max_cell_writes,
        writes_per_column=writes.sum(axis=(0, 1)).tolist(),
        layers=counted,
    )


def with_reduction(summary: Summary, baseline: Summary) -> Summary:
    """The summary with its reduction against `baseline`; None if it alone writes nothing."""
    if summary.writes == baseline.writes:
        return dataclasses.replace(summary, reduction=1.0)
    reduction = baseline.writes / summary.writes if summary.writes else None  # JSON has no infinity
    return dataclasses.replace(summary, reduction=reduction)


def mean_over_chips(summaries: Sequence[Summary]) -> Summary:
    """Means of the figures of several chips, and the intervals of writes and reduction."""
    if len(summaries) == 1:
        return summaries[0]

    def mean(*values: Any) -> Any:
        if None in values or isinstance(values[0], bool):
            return None if None in values else values[0]
        average = math.fsum(values) / len(values)
        return round(average) if isinstance(values[0], int) else average

    # a dataclass is no pytree: average its figures as nested dicts
    figures = [dataclasses.asdict(summary) for summary in summaries]
    layers = [figure.pop("layers") for figure in figures]
    averaged = jax.tree.map(mean, *figures, is_leaf=lambda x: x is None)
    intervals = {"writes": confidence_interval([summary.writes for summary in summaries])}
    reductions = [summary.reduction for summary in summaries if summary.reduction is not None]
    if len(reductions) == len(summaries):
        intervals["reduction"] = confidence_interval(reductions)
    averaged |= {
        "layers": {
            name: LayerSummary(**jax.tree.map(mean, *(layer[name] for layer in layers)))
            for name in layers[0]
        },
        "chips": len(summaries),
        "intervals": intervals,
    }
    return Summary(**averaged)


def to_json(
    checkpoint: str,
    config: CrossbarConfig,
    policies: Mapping[str, Summary],
    digital: Sequence[str],
) -> dict[str, Any]:
    """The report as JSON values, with the keys that the command line promises."""
    weights = sum(layer.weights for layer in next(iter(policies.values())).layers.values())
    return {
        "checkpoint": checkpoint,
        "config": dataclasses.asdict(config),
        "weights": weights,
        "digital": list(digital),
        "policies": {name: dataclasses.asdict(summary) for name, summary in policies.items()},
    }


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


def policy_table(
    policies: Mapping[str, Summary], title: str = "Cell writes to program the network"
) -> rich.table.Table:
    """One row per policy: writes, reduction and what they cost."""
    title += passes_text(next(iter(policies.values())).writes_per_pass)
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    headings = ("writes", "reduction", "SETs", "RESETs", "row ops", "max/cell", "index bits")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("analog-valid")
    for name, summary in policies.items():
        interval = summary.intervals.get("reduction")
        half = (interval[1] - interval[0]) / 2 if interval else 0.0
        spread = f" ±{half:.2f}" if half >= 0.005 else ""
        table.add_row(
            name,
            f"{summary.writes:,}",
            "" if summary.reduction is None else f"{summary.reduction:.2f}x{spread}",
            f"{summary.sets:,}",
            f"{summary.resets:,}",
            f"{summary.row_operations:,}",
            "" if summary.max_cell_writes is None else f"{summary.max_cell_writes:,}",
            index_bits_text(summary.index_bits_per_weight),
            "yes" if summary.analog_valid else "NO",
        )
    return table


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


def scheme_table(report: Mapping[str, Any]) -> rich.table.Table:
    """Each policy under each scheme of writing cells: time, energy, and what is left wrong.

    Args:
      report: what `to_json` gives, with `cells` and with `schemes` of each policy.
    """
    marks = {
        name: "*" if scheme["placeholders"] else ""
        for name, scheme in report["cells"]["schemes"].items()
    }
    title = f"Programming {report['cells']['name']} cells"
    title += passes_text(next(iter(report["policies"].values()))["writes_per_pass"])
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    table.add_column("scheme", no_wrap=True)
    for heading in ("writes", "write time", "energy", "failed writes", "share"):
        table.add_column(heading, justify="right")
    for policy, entry in report["policies"].items():
        for number, (name, cost) in enumerate(entry["schemes"].items()):
            table.add_row(
                "" if number else policy,
                name + marks[name],
                "" if number else f"{entry['writes']:,}",
                quantity_text(cost["write_seconds"], "s"),
                quantity_text(cost["write_joules"], "J"),
                f"{cost['failed_writes']:,.0f}",
                f"{100 * cost['failed_writes'] / max(entry['writes'], 1):.1f} %",
            )
        table.add_section()
    return table


def to_html(
    report: Mapping[str, Any],
    accuracy: Mapping[str, float] | None = None,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere.

    Args:
      report: what `to_json` gives; `accuracy` of the policies, if there, gets a column.
      accuracy: shares of 1 by what they are of, shown first.
      pictures: SVG by title; trusted.
    """
    source = resources.files("memsim").joinpath("report.html.jinja").read_text(encoding="utf-8")
    # names come from strangers' checkpoints: escaped
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["index_bits"] = index_bits_text
    environment.filters["quantity"] = quantity_text
    environment.filters["passes"] = passes_text
    environment.filters["breakable"] = lambda name: markupsafe.Markup("<wbr>").join(
        re.split(r"(?<=[:,+])", name)
    )
    environment.filters["number"] = lambda value: number_text(math.inf if value is None else value)
    environment.filters["time"] = lambda years: time_text(math.inf if years is None else years)
    environment.globals |= {"lifetime_title": lifetime_title, "origin": origin_text}
    template = environment.from_string(source)
    return template.render(report=report, accuracy=accuracy or {}, pictures=pictures or {})
