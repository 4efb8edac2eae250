"""Results of a sweep: a summary of every combination, charts, a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

import memsim
from memsim import plot
from memsim.intervals import confidence_interval, share_interval
from memsim.report.layout import Column, FittingTable
from memsim.report.terminal import results_console
from memsim.report.texts import index_bits_text
from training import runs
from training.sweep import parts
from training.sweep.combinations import Combination
from training.sweep.devices import most_chips

_QUANTILES = (5, 25, 50, 75, 95)


def save_summary(
    out: Path,
    name: str,
    combinations: Sequence[Combination],
    failed: Mapping[int, str],
    table: pa.Table,
    float_accuracy: float,
    images: int,
    yield_at: float,
    made_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes charts and `summary.json`.

    Args:
      name: of the network.
      failed: what went wrong, by the number of the combination.
      table: the rows of the other combinations.
      yield_at: accuracy from which on a chip counts for the yield, share of 1.
      made_by: how the sweep was made.

    Returns:
      The summary.
    """
    names = (
        "cell", "accuracy", "writes", "reduction", "net_reduction", "index_bits_per_weight",
        "analog_valid",
    )  # fmt: skip
    columns = {name: table[name].to_numpy() for name in names}
    numbers = columns.pop("cell")
    found = {}
    for one in combinations:
        if one.number not in failed:
            start, end = np.searchsorted(numbers, [one.number, one.number + 1])
            of_one = {column: values[start:end] for column, values in columns.items()}
            found[one.number] = describe(one) | summarize_chips(of_one, yield_at, one.chips_differ)
    summary = {
        "task": name,
        "images": images,
        "float_accuracy": float_accuracy,
        "yield_at": yield_at,
        "cells": list(found.values()),
        "failed": [
            describe(one) | {"error": failed[one.number]}
            for one in combinations
            if one.number in failed
        ],
        "made_by": made_by,
    }
    save_charts(out, [one for one in combinations if one.number in found], found, summary)
    runs.write_document(out / "summary.json", summary)
    return summary


def describe(combination: Combination) -> dict[str, Any]:
    """Tells which combination it is, as JSON values."""
    names = ("cell", "bits", "rows", "columns", "encoding", "policy", "stuck_at")
    every = parts.describe(combination)
    return {name: every[name] for name in names}


def summarize_chips(
    columns: Mapping[str, np.ndarray], yield_at: float, chips_differ: bool
) -> dict[str, Any]:
    """Finds mean, 95 % interval over chips and quantiles of each figure, and the yield.

    Args:
      columns: of the chips of one combination; NaN where there is no reduction.
      yield_at: accuracy from which on a chip counts, share of 1.
      chips_differ: whether chips differ; where they cannot, the yield is certain.
    """
    accuracy = columns["accuracy"]
    # rounded: 0.98 - 0.01 is a little less than 0.97
    count = int(np.sum(np.round(accuracy - yield_at, 9) >= 0))
    share = share_interval(count, len(accuracy))
    interval = [share.low, share.high] if chips_differ else [share.mean, share.mean]
    reductions = {
        name: None if np.isnan(columns[name]).any() else _spread(columns[name])
        for name in ("reduction", "net_reduction")
    }
    return {
        "chips": len(accuracy),
        "accuracy": _spread(accuracy),
        "yield": {"chips": count, "share": share.mean, "interval": interval},
        "writes": _spread(columns["writes"]),
        **reductions,
        "index_bits_per_weight": float(columns["index_bits_per_weight"][0]),
        "analog_valid": bool(columns["analog_valid"][0]),
    }


def _spread(values: np.ndarray) -> dict[str, Any]:
    quantiles = np.quantile(values, np.asarray(_QUANTILES) / 100)
    return {
        "mean": float(values.mean()),
        "interval": list(confidence_interval(values.tolist())),
        "quantiles": {str(q): float(x) for q, x in zip(_QUANTILES, quantiles, strict=True)},
    }


def save_charts(
    out: Path,
    combinations: Sequence[Combination],
    found: Mapping[int, Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> None:
    """Writes, as PNG, the yield against the stuck rate for each kind of crossbars, and accuracy
    against reduction for each stuck rate too; their names say which, where there are several.
    """
    by_config: dict[memsim.CrossbarConfig, list[Combination]] = {}
    for one in combinations:
        by_config.setdefault(one.config, []).append(one)
    figures: dict[str, Figure] = {}
    for config, members in by_config.items():
        wide = f"_{config.columns}columns" if config.columns else ""
        kind = f"_{config.bits}bits_{config.rows}rows{wide}_{config.encoding}"
        figures |= _draw(members, found, summary, kind if len(by_config) > 1 else "")
    runs.write_charts(out, figures, summary["made_by"])


def _draw(
    members: Sequence[Combination],
    found: Mapping[int, Mapping[str, Any]],
    summary: Mapping[str, Any],
    kind: str,
) -> dict[str, Figure]:
    """Draws the combinations of one kind of crossbars, by the names of the charts."""
    named = {str(one.policy): one.policy for one in members}
    yields: dict[str, dict[float, tuple[float, float, float]]] = {}
    for one in members:
        share = found[one.number]["yield"]
        line = yields.setdefault(str(one.policy), {})
        line[one.stuck_at] = (share["share"], *share["interval"])
    chart = plot.yield_against_stuck_rate(named, yields, summary["yield_at"])
    figures = {f"yield_against_stuck_rate{kind}": chart}
    float_accuracy = summary["float_accuracy"]
    rates = sorted({one.stuck_at for one in members})
    for rate in rates:
        of_rate = {str(one.policy): found[one.number] for one in members if one.stuck_at == rate}
        change = {name: _less(entry["accuracy"], float_accuracy) for name, entry in of_rate.items()}
        suffix = kind + (f"_{100 * rate:g}percent" if len(rates) > 1 else "")
        figures[f"accuracy_against_reduction{suffix}"] = plot.accuracy_against_reduction(
            {name: named[name] for name in of_rate},
            {name: _priced(entry) for name, entry in of_rate.items()},
            change,
            float_accuracy,
            f"Accuracy kept against writes saved, {100 * rate:g} % of the cells stuck",
        )
    return figures


class _Priced(NamedTuple):
    reduction: float | None
    net_reduction: float | None
    index_bits_per_weight: float
    analog_valid: bool


def _priced(entry: Mapping[str, Any]) -> _Priced:
    reduction, net = (
        entry[name] and entry[name]["mean"] for name in ("reduction", "net_reduction")
    )
    return _Priced(reduction, net, entry["index_bits_per_weight"], entry["analog_valid"])


def _less(spread: Mapping[str, Any], other: float) -> tuple[float, float, float]:
    low, high = spread["interval"]
    return spread["mean"] - other, low - other, high - other


def show(out: Path, combinations: Sequence[Combination], summary: Mapping[str, Any]) -> None:
    """Prints the table, what failed last."""
    at = summary["yield_at"]
    title = (
        f"{summary['task']}: float network {100 * summary['float_accuracy']:.2f} % on "
        f"{summary['images']:,} images"
    )
    keys, columns = _headings(combinations)
    headings = ("reduction", "net energy", "accuracy (95 %)", "5 % to 95 %\nof chips")
    columns += [Column(heading) for heading in headings]
    columns += [Column(f"yield at {100 * at:.2f} %\n(95 %)"), Column("index bits")]
    columns.append(Column("analog-valid", left=True))
    rows = []
    for entry in summary["cells"]:
        accuracy, share, reduction = (entry[key] for key in ("accuracy", "yield", "reduction"))
        half = _half(reduction["interval"]) if reduction else 0.0
        times = f"{reduction['mean']:.2f}x" if reduction else ""
        net = entry["net_reduction"]
        rows.append((
            *_texts(entry, keys),
            times + (f" ±{half:.2f}" if half >= 0.005 else ""),
            f"{net['mean']:.2f}x" if net else "",
            f"{100 * accuracy['mean']:.2f} ±{100 * _half(accuracy['interval']):.2f} %",
            " to ".join(f"{100 * accuracy['quantiles'][q]:.2f}" for q in ("5", "95")),
            f"{100 * share['share']:.1f} % "
            f"({100 * share['interval'][0]:.1f} to {100 * share['interval'][1]:.1f})",
            index_bits_text(entry["index_bits_per_weight"]),
            "yes" if entry["analog_valid"] else "NO",
        ))  # fmt: skip
    console = results_console(160)
    console.print(FittingTable(title, columns, rows, keys=len(keys)))
    for entry in summary["failed"]:
        which = ", ".join(_texts(entry, keys))
        console.print(f"FAILED {which}: {entry['error']}", highlight=False, markup=False)
    chips = summary["cells"][0]["chips"] if summary["cells"] else 0
    console.print(
        f"{chips:,} chips each, intervals over chips (none where all are the same); reductions "
        "against `unsorted` on the same crossbars and chips; a row for each in "
        f"{out}/sweep.parquet, figures in {out}/summary.json",
        highlight=False,
    )


def _half(interval: Sequence[float]) -> float:
    return (interval[1] - interval[0]) / 2


def _headings(combinations: Sequence[Combination]) -> tuple[list[str], list[Column]]:
    """Finds the policy and what differs in the grid: their keys, and a column for each."""
    entries = [describe(one) for one in combinations]
    # names first: a table that goes on below itself repeats its first column
    names = ("policy", "encoding", "bits", "rows", "columns", "stuck_at")
    keys = [key for key in names if key == "policy" or len({x[key] for x in entries}) > 1]
    columns = [
        Column("stuck" if key == "stuck_at" else key, left=key in ("encoding", "policy"))
        for key in keys
    ]
    return keys, columns


def _texts(entry: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [f"{100 * entry[k]:g} %" if k == "stuck_at" else str(entry[k]) for k in keys]


def show_combinations(
    out: Path, combinations: Sequence[Combination], chips: int, chunk: int | None, force: bool
) -> None:
    """Prints what a sweep would do.

    Args:
      chunk: chips at once, if that is known already.
      force: whether it would start afresh.
    """
    title = f"{len(combinations)} combinations, {chips:,} chips each"
    keys, columns = _headings(combinations)
    columns.append(Column("chips", left=True, folds=True))
    rows = [(*_texts(describe(one), keys), _plain(one)) for one in combinations]
    console = results_console(160)
    console.print(FittingTable(title, columns, rows, keys=len(keys)))
    devices = len(jax.devices())
    at_once = f"{chunk} chips" if chunk else f"at most {most_chips(chips)} chips, as memory allows,"
    console.print(f"{at_once} at once on each of {devices} devices", highlight=False)
    done = 0
    if chunk and not force:
        done = int(parts.find_parts(out, combinations, parts.Layout(chips, chunk)).sum())
    total = f" of {len(combinations) * -(-chips // chunk)}" if chunk else ""
    console.print(
        f"{done}{total} parts are in {out}/parts already; nothing was done", highlight=False
    )


def _plain(combination: Combination) -> str:
    """Tells whether the chips of a combination differ, or why memsim refuses it."""
    try:
        combination.policy.check(combination.policy.stored_on(combination.config))
    except ValueError as error:
        return f"refused: {error}"
    return "each its own" if combination.chips_differ else "all the same"
