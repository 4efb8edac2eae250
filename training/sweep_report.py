"""What a sweep found: a summary of every cell of the grid, charts, a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import rich.table

import memsim
from memsim import plot
from memsim.config import validate
from memsim.files.writing import write_text, write_whole
from memsim.intervals import confidence_interval, share_interval
from memsim.report.terminal import results_console
from memsim.report.texts import index_bits_text
from training.grid import Cell
from training.sharding import most_chips
from training.sweep_results import find_parts

_QUANTILES = (5, 25, 50, 75, 95)


def save_summary(
    out: Path,
    name: str,
    cells: Sequence[Cell],
    failed: Mapping[int, str],
    table: pa.Table,
    float_accuracy: float,
    images: int,
    yield_at: float,
) -> dict[str, Any]:
    """Writes charts and `summary.json`.

    Args:
      name: of the network.
      failed: what went wrong, by the number of the cell.
      table: the rows of the other cells.
      yield_at: accuracy from which on a chip counts for the yield, share of 1.

    Returns:
      The summary.
    """
    names = ("cell", "accuracy", "writes", "reduction", "index_bits_per_weight", "analog_valid")
    columns = {name: table[name].to_numpy() for name in names}
    numbers = columns.pop("cell")
    found = {}
    for cell in cells:
        if cell.number not in failed:
            start, end = np.searchsorted(numbers, [cell.number, cell.number + 1])
            of_cell = {column: values[start:end] for column, values in columns.items()}
            found[cell.number] = describe(cell) | summarize_cell(of_cell, yield_at, cell.drawn)
    summary = {
        "task": name,
        "images": images,
        "float_accuracy": float_accuracy,
        "yield_at": yield_at,
        "memsim": memsim.__version__,
        "cells": list(found.values()),
        "failed": [
            describe(cell) | {"error": failed[cell.number]}
            for cell in cells
            if cell.number in failed
        ],
    }
    save_charts(out, [cell for cell in cells if cell.number in found], found, summary)
    write_text(out / "summary.json", json.dumps(summary, indent=1), force=True)
    return summary


def describe(cell: Cell) -> dict[str, Any]:
    """Which combination a cell is, as JSON values."""
    config = cell.config
    return {
        "cell": cell.number, "bits": config.bits, "rows": config.rows, "encoding": config.encoding,
        "policy": str(cell.policy), "stuck_at": cell.stuck_at,
    }  # fmt: skip


def summarize_cell(
    columns: Mapping[str, np.ndarray], yield_at: float, drawn: bool
) -> dict[str, Any]:
    """Mean, its 95 % interval over chips, and quantiles of each figure; the yield.

    Args:
      columns: of the chips of one cell; NaN where there is no reduction.
      yield_at: accuracy from which on a chip counts, share of 1.
      drawn: whether chips differ; where they cannot, the yield is certain.
    """
    accuracy = columns["accuracy"]
    # rounded: 0.98 - 0.01 is a little less than 0.97
    count = int(np.sum(np.round(accuracy - yield_at, 9) >= 0))
    share = share_interval(count, len(accuracy))
    interval = [share.low, share.high] if drawn else [share.mean, share.mean]
    reduction = columns["reduction"]
    return {
        "chips": len(accuracy),
        "accuracy": _spread(accuracy),
        "yield": {"chips": count, "share": share.mean, "interval": interval},
        "writes": _spread(columns["writes"]),
        "reduction": None if np.isnan(reduction).any() else _spread(reduction),
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
    cells: Sequence[Cell],
    found: Mapping[int, Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> None:
    """Writes, as PNG, the yield against the stuck rate for each kind of crossbars, and accuracy
    against reduction for each stuck rate too; their names say which, where there are several.
    """
    by_config: dict[memsim.CrossbarConfig, list[Cell]] = {}
    for cell in cells:
        by_config.setdefault(cell.config, []).append(cell)
    figures = {}
    float_accuracy = summary["float_accuracy"]
    for config, members in by_config.items():
        kind = f"_{config.bits}bits_{config.rows}rows_{config.encoding}"
        kind = kind if len(by_config) > 1 else ""
        policies = {str(cell.policy): cell.policy for cell in members}
        yields: dict[str, dict[float, tuple[float, float, float]]] = {}
        for cell in members:
            share = found[cell.number]["yield"]
            line = yields.setdefault(str(cell.policy), {})
            line[cell.stuck_at] = (share["share"], *share["interval"])
        figures[f"yield_against_stuck_rate{kind}"] = plot.yield_against_stuck_rate(
            policies, yields, summary["yield_at"]
        )
        rates = sorted({cell.stuck_at for cell in members})
        for rate in rates:
            of_rate = {str(x.policy): found[x.number] for x in members if x.stuck_at == rate}
            change = {
                name: _less(entry["accuracy"], float_accuracy) for name, entry in of_rate.items()
            }
            suffix = kind + (f"_{100 * rate:g}percent" if len(rates) > 1 else "")
            figures[f"accuracy_against_reduction{suffix}"] = plot.accuracy_against_reduction(
                {name: policies[name] for name in of_rate},
                {name: _priced(entry) for name, entry in of_rate.items()},
                change,
                float_accuracy,
                f"Accuracy kept against writes saved, {100 * rate:g} % of the cells stuck",
            )
    for file, figure in figures.items():
        write_whole(out / f"{file}.png", figure.savefig, force=True)


class _Priced(NamedTuple):
    reduction: float | None
    index_bits_per_weight: float
    analog_valid: bool


def _priced(entry: Mapping[str, Any]) -> _Priced:
    reduction = entry["reduction"] and entry["reduction"]["mean"]
    return _Priced(reduction, entry["index_bits_per_weight"], entry["analog_valid"])


def _less(spread: Mapping[str, Any], other: float) -> tuple[float, float, float]:
    low, high = spread["interval"]
    return spread["mean"] - other, low - other, high - other


def show(out: Path, cells: Sequence[Cell], summary: Mapping[str, Any]) -> None:
    """Prints the table, what failed last."""
    at = summary["yield_at"]
    table = rich.table.Table(
        title=f"{summary['task']}: float network {100 * summary['float_accuracy']:.2f} % on "
        f"{summary['images']:,} images",
        title_justify="left",
    )
    keys = _headings(table, cells)
    for heading in ("reduction", "accuracy (95 %)", "5 % to 95 % of chips"):
        table.add_column(heading, justify="right")
    table.add_column(f"yield at {100 * at:.2f} % (95 %)", justify="right")
    table.add_column("index bits", justify="right")
    table.add_column("analog-valid")
    for entry in summary["cells"]:
        accuracy, share, reduction = (entry[key] for key in ("accuracy", "yield", "reduction"))
        half = _half(reduction["interval"]) if reduction else 0.0
        times = f"{reduction['mean']:.2f}x" if reduction else ""
        table.add_row(
            *_texts(entry, keys),
            times + (f" ±{half:.2f}" if half >= 0.005 else ""),
            f"{100 * accuracy['mean']:.2f} ±{100 * _half(accuracy['interval']):.2f} %",
            " to ".join(f"{100 * accuracy['quantiles'][q]:.2f}" for q in ("5", "95")),
            f"{100 * share['share']:.1f} % "
            f"({100 * share['interval'][0]:.1f} to {100 * share['interval'][1]:.1f})",
            index_bits_text(entry["index_bits_per_weight"]),
            "yes" if entry["analog_valid"] else "NO",
        )
    console = results_console(160)
    console.print(table)
    for entry in summary["failed"]:
        which = ", ".join(_texts(entry, keys))
        console.print(f"FAILED {which}: {entry['error']}", highlight=False, markup=False)
    chips = summary["cells"][0]["chips"] if summary["cells"] else 0
    console.print(
        f"{chips:,} chips in each cell, intervals over chips (none where all are the same); a row "
        f"for each in {out}/sweep.parquet, figures in {out}/summary.json",
        highlight=False,
    )


def _half(interval: Sequence[float]) -> float:
    return (interval[1] - interval[0]) / 2


def _headings(table: rich.table.Table, cells: Sequence[Cell]) -> list[str]:
    """Adds columns for what differs in the grid, and the policy. Returns their keys."""
    entries = [describe(cell) for cell in cells]
    names = ("bits", "rows", "encoding", "policy", "stuck_at")
    keys = [key for key in names if key == "policy" or len({x[key] for x in entries}) > 1]
    for key in keys:
        number = key not in ("encoding", "policy")
        table.add_column(
            "stuck" if key == "stuck_at" else key, no_wrap=True,
            justify="right" if number else "left",
        )  # fmt: skip
    return keys


def _texts(entry: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [f"{100 * entry[k]:g} %" if k == "stuck_at" else str(entry[k]) for k in keys]


def show_grid(out: Path, cells: Sequence[Cell], chips: int, chunk: int | None, force: bool) -> None:
    """Prints what a sweep would do.

    Args:
      chunk: chips at once, if that is known already.
      force: whether it would start afresh.
    """
    table = rich.table.Table(
        title=f"{len(cells)} cells, {chips:,} chips each", title_justify="left"
    )
    keys = _headings(table, cells)
    table.add_column("chips")
    for cell in cells:
        table.add_row(*_texts(describe(cell), keys), _plain(cell))
    console = results_console(160)
    console.print(table)
    devices = len(jax.devices())
    at_once = f"{chunk} chips" if chunk else f"at most {most_chips(chips)} chips, as memory allows,"
    console.print(f"{at_once} at once on each of {devices} devices", highlight=False)
    done = 0
    if chunk and not force:
        done = int(find_parts(out, len(cells), -(-chips // chunk)).sum())
    total = f" of {len(cells) * -(-chips // chunk)}" if chunk else ""
    console.print(
        f"{done}{total} parts are in {out}/parts already; nothing was done", highlight=False
    )


def _plain(cell: Cell) -> str:
    """Whether the chips of a cell differ, or why memsim refuses it."""
    try:
        validate(cell.policy.stored_on(cell.config), cell.policy)
    except ValueError as error:
        return f"refused: {error}"
    return "each its own" if cell.drawn else "all the same"
