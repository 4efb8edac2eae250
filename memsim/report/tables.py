"""Tables for a terminal and for notebooks.

Each fits the width that it is printed in: names fold, and columns that have no room go on below.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memsim.budgeting import Budget
from memsim.intervals import Interval
from memsim.report.documents import service_inputs_json
from memsim.report.texts import (
    code_error_text,
    count_text,
    index_bits_text,
    moved_bits,
    number_text,
    origin_text,
    passes_text,
    quantity_text,
    time_text,
)
from memsim.service.costs import ServiceInputs
from memsim.service.ownership import ServiceLife, quantiles
from memsim.summary import Summary

if TYPE_CHECKING:  # rich is slow to import
    from memsim.report.layout import FittingTable

__all__ = [
    "budget_tables",
    "evaluation_table",
    "lifetime_tables",
    "policy_table",
    "scheme_table",
    "writing_table",
]


def policy_table(
    policies: Mapping[str, Summary], title: str = "Cell writes to program the network"
) -> "FittingTable":
    """Makes a row per policy: writes, reduction and what they cost.

    Args:
      policies: by the name to show; at least one.
      title: above the table; the number of passes is added.
    """
    from memsim.report.layout import Column, FittingTable

    errors = {
        name: code_error_text(summary.code_error_rms, summary.code_error_mean)
        for name, summary in policies.items()
    }
    # a column that says something of none of them is left out
    erring = any(errors.values())
    priced = any(summary.net_reduction is not None for summary in policies.values())
    headings = (
        "writes", "reduction", *(["net energy\nreduction"] if priced else []),
        *(["code error\nrms / mean"] if erring else []), "SETs", "RESETs", "row ops",
        "max/cell", "index bits", "bits moved\na weight",
    )  # fmt: skip
    columns = [Column("policy"), *map(Column, headings), Column("analog-valid", left=True)]
    rows = []
    for name, summary in policies.items():
        # half the interval, where it shows in two decimals
        interval = summary.intervals.get("reduction")
        half = (interval[1] - interval[0]) / 2 if interval else 0.0
        spread = f" ±{half:.2f}" if half >= 0.005 else ""
        rows.append((
            name,
            f"{summary.writes:,}",
            "" if summary.reduction is None else f"{summary.reduction:.2f}x{spread}",
            *([_times(summary.net_reduction, 2)] if priced else []),
            *([errors[name]] if erring else []),
            f"{summary.sets:,}",
            f"{summary.resets:,}",
            f"{summary.row_operations:,}",
            "" if summary.max_cell_writes is None else f"{summary.max_cell_writes:,}",
            index_bits_text(summary.index_bits_per_weight),
            f"{moved_bits(summary):.1f}",
            "yes" if summary.analog_valid else "NO",
        ))  # fmt: skip
    title += passes_text(next(iter(policies.values())).writes_per_pass)
    return FittingTable(title, columns, rows)


def writing_table(policies: Mapping[str, Summary], title: str) -> "FittingTable":
    """Shows what each policy takes where writes fail: pulses, writes, cells left wrong.

    Args:
      policies: counted with a `Writing`, by the name to show; at least one.
      title: see `writing_text`.
    """
    from memsim.report.layout import Column, FittingTable

    headings = ("pulses", "cells pulsed", "writes", "wrong cells", "share")
    rows = [
        (
            name,
            f"{summary.pulses:,}",
            f"{summary.set_pulses + summary.reset_pulses:,}",
            f"{summary.writes:,}",
            f"{summary.wrong_cells:,}",
            f"{100 * (summary.wrong_share or 0):.3g} %",
        )
        for name, summary in policies.items()
    ]
    title += passes_text(next(iter(policies.values())).writes_per_pass)
    return FittingTable(title, [Column("policy"), *map(Column, headings)], rows)


def evaluation_table(report: Mapping[str, Any]) -> "FittingTable":
    """Shows how good the weights are that chips hold, by a function of the user.

    Args:
      report: what `to_json` gives, with `evaluation`, and with that of each policy.
    """
    from memsim.report.layout import Column, FittingTable

    of_file = report["evaluation"]["checkpoint"]
    found = {name: entry["evaluation"] for name, entry in report["policies"].items()}
    several = any(each["interval"] for each in found.values())
    rows = [("the checkpoint", _digits(of_file), "", *([""] if several else []))]
    for name, each in found.items():
        ends = "" if each["interval"] is None else " to ".join(map(_digits, each["interval"]))
        change = each["mean"] - of_file
        rows.append((
            name, _digits(each["mean"]), f"{change + 0.0:+.5g}", *([ends] if several else []),
        ))  # fmt: skip
    headings = ("returned", "change", *(["mean of the chips\n(95 %)"] if several else []))
    title = f"What {report['evaluation']['function']} returns of the weights held"
    return FittingTable(title, [Column("policy"), *map(Column, headings)], rows)


def scheme_table(report: Mapping[str, Any]) -> "FittingTable":
    """Shows each policy under each scheme of writing cells: time, energy, and what is left wrong.

    Args:
      report: what `to_json` gives, with `cells` and with `schemes` of each policy.
    """
    from memsim.report.layout import Column, FittingTable

    marks = {
        name: "*" if scheme["placeholders"] else ""
        for name, scheme in report["cells"]["schemes"].items()
    }
    title = f"Programming {report['cells']['name']} cells"
    title += passes_text(next(iter(report["policies"].values()))["writes_per_pass"])
    headings = ("writes", "write time", "energy", "failed writes", "share")
    rows, groups = [], []
    for policy, entry in report["policies"].items():
        for number, (name, cost) in enumerate(entry["schemes"].items()):
            # the policy and its writes once, beside its first scheme
            rows.append((
                "" if number else policy,
                name + marks[name],
                "" if number else f"{entry['writes']:,}",
                quantity_text(cost["write_seconds"], "s"),
                quantity_text(cost["write_joules"], "J"),
                f"{cost['failed_writes']:,.0f}",
                f"{100 * cost['failed_writes'] / max(entry['writes'], 1):.1f} %",
            ))  # fmt: skip
        groups.append(len(rows) - 1)
    columns = [Column("policy"), Column("scheme", left=True), *map(Column, headings)]
    return FittingTable(title, columns, rows, groups, keys=2)


def budget_tables(found: Budget) -> "list[FittingTable]":
    """Shows what each layer was given, how the search went, and what came out."""
    from memsim.report.layout import Column, FittingTable

    trials = []
    for trial in found.trials:
        accepting = round(trial.accepted * len(found.choices))
        verdict = "chosen" if trial is found.chosen else "" if accepting else "refused"
        reduction = _times(trial.summary.reduction)
        errors = code_error_text(trial.summary.code_error_rms, trial.summary.code_error_mean)
        value = _times(trial.summary.net_reduction)
        if found.objective.what != "writes":
            value = f"{trial.value:.4g} {found.objective.unit}"
        halves = f"{accepting} of {len(found.choices)}"
        change = _points(trial.change)
        trials.append((f"{trial.exchange:.1e}", reduction, value, errors, change, halves, verdict))
    layers = [
        (
            name, f"{layer.weights:,}", f"{found.sensitivity[name]:.1e}", f"{layer.writes:,}",
            f"{layer.index_bits:.1f}", str(found.chosen.policies[name]),
        )
        for name, layer in found.chosen.summary.layers.items()
    ]  # fmt: skip
    summary, (lowest, highest) = found.chosen.summary, found.spread
    errors = code_error_text(summary.code_error_rms, summary.code_error_mean)
    result = (
        ("writes", f"{summary.writes:,}, {_times(summary.reduction)} fewer than unsorted"),
        ("net energy", f"{_times(summary.net_reduction) or 'not known'}, index and words included"),
        *([("code error", f"{errors}, rms / mean in steps of the codes")] if errors else []),
        (
            "price",
            f"{summary.index_bits_per_weight:.1f} index bits per weight; "
            f"{'analog-valid' if summary.analog_valid else 'NOT analog-valid'}",
        ),
        (
            "accuracy",
            f"{_points(found.held_out)} points of {100 * found.float_accuracy:.2f} %, each of "
            f"{count_text(found.examples, 'example')} judged by halves without it",
        ),
        ("halves", f"chose {_times(lowest)} to {_times(highest)}; the plan is the median"),
    )
    # policies are long and may fold; numbers never do
    numbers = map(Column, ("weights", "sensitivity", "writes", "index bits"))
    of_layers = [Column("layer"), *numbers, Column("policy", left=True, folds=True)]
    changes, error = Column("change of the\naccuracy (95 %)"), Column("code error\nrms / mean")
    least = "net energy\nreduction" if found.objective.what == "writes" else found.objective.what
    headings = map(Column, ("exchange", "reduction", least))
    of_trials = [*headings, error, changes, Column("accepting\nhalves"), Column("", left=True)]
    of_plan = [Column(""), Column("", left=True, folds=True)]
    return [
        FittingTable("The layers", of_layers, layers),
        FittingTable("The search", of_trials, trials),
        FittingTable("The plan", of_plan, result),
    ]


def lifetime_tables(
    policies: Mapping[str, ServiceLife], inputs: ServiceInputs, title: str, cost: bool
) -> "list[FittingTable]":
    """Shows lifetimes by policy; with `cost` how each figure came about; the inputs.

    Args:
      policies: by the name to show; at least one.
      inputs: endurance, in cycles, and prices.
      title: what the lifetimes are of, see `lifetime_title`.
      cost: whether prices were given.
    """
    tables = [_lives_table(policies, inputs.costs.currency if cost else None, title)]
    if cost:
        tables.append(_figures_table(policies))
    return [*tables, _inputs_table(inputs, cost)]


def _lives_table(
    policies: Mapping[str, ServiceLife], currency: str | None, title: str
) -> "FittingTable":
    from memsim.report.layout import Column, FittingTable

    headings = (
        "writes\na pass", "time", "energy", "chips\nneeded", "inferences\nuntil then", "lifetime",
        "90 % of chips", *([f"{currency} a year"] if currency else []),
    )  # fmt: skip
    rows = []
    for name, life in policies.items():
        low, median, high = quantiles(life.years)
        rows.append((
            name, f"{life.summary.writes:,}", quantity_text(life.write_seconds, "s"),
            quantity_text(life.write_joules, "J"), f"{life.figures['chips'].value:,.0f}",
            number_text(quantiles(life.inferences)[1]),
            time_text(median), f"{time_text(low)} to {time_text(high)}",
            *([number_text(life.figures["total_cost"].value)] if currency else []),
        ))  # fmt: skip
    return FittingTable(title, [Column("policy"), *map(Column, headings)], rows)


def _figures_table(policies: Mapping[str, ServiceLife]) -> "FittingTable":
    from memsim.report.layout import Column, FittingTable

    rows = []
    for name, (_, unit, formula, _) in next(iter(policies.values())).figures.items():
        values = [number_text(life.figures[name].value) for life in policies.values()]
        rows.append((f"{name}, {unit}" if unit else name, formula, *values))
    columns = [Column("figure"), Column("formula", left=True, folds=True), *map(Column, policies)]
    return FittingTable("How it comes about", columns, rows)


def _inputs_table(inputs: ServiceInputs, cost: bool) -> "FittingTable":
    from memsim.report.layout import Column, FittingTable

    values = service_inputs_json(inputs)
    needed = tuple(values["cost"]) if cost else ("inferences_per_day", "batch")
    rows = []
    for group in ("endurance", "cost"):
        for name, value in values[group].items():
            # without prices, only what the years depend on
            if group == "cost" and name not in needed:
                continue
            shown = f"{value:,g}" if isinstance(value, (int, float)) else value
            shown += " cycles" if (group, name) == ("endurance", "median") else ""
            origin = origin_text(f"{group}.{name}", values)
            rows.append((f"{group}.{name}", shown, origin))
    columns = [Column("input"), Column("value", left=True), Column("from", left=True)]
    return FittingTable("Inputs", columns, rows)


def _digits(value: float) -> str:
    return f"{value:.5g}"


def _times(reduction: float | None, digits: int = 1) -> str:
    return "" if reduction is None else f"{reduction:.{digits}f}x"


def _points(change: Interval) -> str:
    mean, low, high = (100 * share for share in change)
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
