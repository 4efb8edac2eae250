"""Tables for a terminal."""

from collections.abc import Mapping
from typing import Any

import rich.table

from memsim.budgeting import Budget
from memsim.intervals import Interval
from memsim.report.texts import (
    index_bits_text,
    number_text,
    origin_text,
    passes_text,
    quantity_text,
    time_text,
)
from memsim.service.costs import (
    Assumptions,
    assumptions_json,
)
from memsim.service.ownership import Worth, quantiles
from memsim.summary import Summary


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


def budget_tables(found: Budget) -> list[rich.table.Table]:
    """How the search went, what each layer was given, and what came out."""
    trials = _table("The search", "exchange", "reduction", "change, planning half (95 %)", "")
    for trial in found.trials:
        verdict = "chosen" if trial is found.chosen else "" if trial.accepted else "refused"
        reduction = _times(trial.summary.reduction)
        trials.add_row(f"{trial.exchange:.1e}", reduction, _points(trial.change), verdict)
    headings = ("layer", "weights", "sensitivity", "writes", "index bits", "policy")
    layers = _table("The layers", *headings)
    for name, layer in found.chosen.summary.layers.items():
        layers.add_row(
            name, f"{layer.weights:,}", f"{found.sensitivity[name]:.1e}", f"{layer.writes:,}",
            f"{layer.index_bits:.1f}", str(found.chosen.policies[name]),
        )  # fmt: skip
    summary = found.chosen.summary
    result = rich.table.Table(title="The plan", title_justify="left", show_header=False)
    rows = {
        "writes": f"{summary.writes:,}, {_times(summary.reduction)} fewer than unsorted",
        "price": f"{summary.index_bits_per_weight:.1f} index bits per weight; "
        f"{'analog-valid' if summary.analog_valid else 'NOT analog-valid'}",
        "accuracy": f"{_points(found.held_out)} points on {found.examples[1]:,} examples held out, "
        f"of {100 * found.float_accuracy:.2f} %",
    }
    for heading, text in rows.items():
        result.add_row(heading, text)
    return [layers, trials, result]


def _table(title: str, *headings: str) -> rich.table.Table:
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column(headings[0])
    for heading in headings[1:]:
        table.add_column(heading, justify="left" if heading in ("", "policy") else "right")
    return table


def _times(reduction: float | None) -> str:
    return "" if reduction is None else f"{reduction:.1f}x"


def _points(change: Interval) -> str:
    mean, low, high = (100 * share for share in change)
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def worth_tables(
    policies: Mapping[str, Worth], assumptions: Assumptions, title: str, cost: bool
) -> list[rich.table.Table]:
    """Tables for people: the policies; with `cost` how each figure came about; the inputs."""
    costs = assumptions.costs
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    headings = (
        "writes\na pass", "time", "energy", "chips\nneeded", "inferences\nuntil then", "lifetime",
        "90 % of chips",
    )  # fmt: skip
    for heading in (*headings, *([f"{costs.currency} a year"] if cost else [])):
        table.add_column(heading, justify="right")
    for name, found in policies.items():
        low, median, high = quantiles(found.years)
        table.add_row(
            name, f"{found.summary.writes:,}", quantity_text(found.write_seconds, "s"),
            quantity_text(found.write_joules, "J"), f"{found.figures['chips'].value:,.0f}",
            number_text(quantiles(found.inferences)[1]),
            time_text(median), f"{time_text(low)} to {time_text(high)}",
            *([number_text(found.figures["total_cost"].value)] if cost else []),
        )  # fmt: skip
    tables = [table]
    if cost:
        table = rich.table.Table(title="How it comes about", title_justify="left")
        for heading in ("figure", "formula"):
            table.add_column(heading, overflow="fold")
        for name in policies:
            table.add_column(name, justify="right", overflow="fold")
        for name, (_, unit, formula, _) in next(iter(policies.values())).figures.items():
            values = [number_text(found.figures[name].value) for found in policies.values()]
            table.add_row(f"{name}, {unit}" if unit else name, formula, *values)
        tables.append(table)
    table = rich.table.Table(title="Inputs", title_justify="left")
    for heading in ("input", "value", "from"):
        table.add_column(heading)
    inputs = assumptions_json(assumptions)
    needed = tuple(inputs["cost"]) if cost else ("inferences_per_day", "batch")
    for group in ("endurance", "cost"):
        for name, value in inputs[group].items():
            if group == "cost" and name not in needed:
                continue
            shown = f"{value:,g}" if isinstance(value, (int, float)) else value
            table.add_row(f"{group}.{name}", shown, origin_text(f"{group}.{name}", inputs))
    return [*tables, table]
