"""What a sweep leaves in its folder while it runs: one part per chunk of chips.

Parts appear whole or not at all, so that a killed sweep goes on where it stopped.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

import memsim
from memsim.files.writing import write_whole
from training.grid import Cell

SETTINGS = "sweep.json"
SCHEMA = pa.schema(
    [
        ("cell", pa.int32()),
        ("bits", pa.int32()),
        ("rows", pa.int64()),
        ("encoding", pa.string()),
        ("policy", pa.string()),
        ("placement", pa.string()),
        ("p", pa.float64()),
        ("low", pa.int32()),
        ("tolerance", pa.int32()),
        ("stuck_at", pa.float64()),
        ("stuck_at_0", pa.float64()),
        ("stuck_at_1", pa.float64()),
        ("chip", pa.int32()),
        ("writes", pa.int64()),
        ("sets", pa.int64()),
        ("resets", pa.int64()),
        ("row_operations", pa.int64()),
        ("reduction", pa.float64()),
        ("accuracy", pa.float64()),
        ("correct", pa.int64()),
        ("images", pa.int64()),
        ("index_bits_per_weight", pa.float64()),
        ("analog_valid", pa.bool_()),
    ]
)


def make_row(
    cell: Cell, chip: int, summary: memsim.Summary, correct: int, images: int
) -> dict[str, Any]:
    """The row of one chip, see `SCHEMA`; `reduction` is None where nothing was written."""
    policy = cell.policy
    return {
        "cell": cell.number,
        "bits": cell.config.bits,
        "rows": cell.config.rows,
        "encoding": cell.config.encoding,
        "policy": str(policy),
        "placement": policy.placement,
        "p": policy.reprogram,
        "low": policy.low_columns,
        "tolerance": policy.tolerance,
        "stuck_at": cell.stuck_at,
        "stuck_at_0": cell.stuck_at / 2,
        "stuck_at_1": cell.stuck_at / 2,
        "chip": chip,
        "writes": summary.writes,
        "sets": summary.sets,
        "resets": summary.resets,
        "row_operations": summary.row_operations,
        "reduction": summary.reduction,
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "index_bits_per_weight": summary.index_bits_per_weight,
        "analog_valid": summary.analog_valid,
    }


def _part(out: Path, cell: int, chunk: int) -> Path:
    return out / "parts" / f"{cell:05}-{chunk:05}.parquet"


def write_part(out: Path, cell: int, chunk: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows of one chunk of chips."""
    _write(_part(out, cell, chunk), pa.Table.from_pylist(rows, schema=SCHEMA))


def find_parts(out: Path, cells: int, chunks: int) -> Bool[np.ndarray, "cells chunks"]:
    """Which chunks are there already."""
    there = [_part(out, *at).is_file() for at in itertools.product(range(cells), range(chunks))]
    return np.asarray(there, bool).reshape(cells, chunks)


def merge_parts(out: Path, cells: Sequence[int], chunks: int) -> pa.Table:
    """Joins the parts of these cells into `sweep.parquet`, in the order of cells and chips."""
    parts = [_part(out, *at) for at in itertools.product(cells, range(chunks))]
    tables = [pq.read_table(part, schema=SCHEMA) for part in parts]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    table = table.combine_chunks()
    _write(out / "sweep.parquet", table)
    return table


def _write(path: Path, table: pa.Table) -> None:
    write_whole(path, lambda temporary: pq.write_table(table, temporary), force=True)


def check_parts(out: Path) -> None:
    """Checks that the parts in the folder are of the sweep whose settings are there.

    Raises:
      ValueError: there are parts without settings, of nobody knows what.
    """
    if any((out / "parts").glob("*.parquet")) and not (out / SETTINGS).is_file():
        raise ValueError(
            f"`{out}/parts` holds parts of a sweep whose settings ({SETTINGS}) are gone; choose "
            "another --out, or use --force to start afresh."
        )


def start_afresh(out: Path) -> None:
    """Removes what an earlier sweep, if there was one, left in the folder: its settings last."""
    remove_unfinished(out)
    for part in (out / "parts").glob("*.parquet"):
        part.unlink()
    if not (out / SETTINGS).is_file():
        return
    for pattern in ("accuracy_against_reduction*.png", "yield_against_stuck_rate*.png"):
        for chart in out.glob(pattern):
            chart.unlink()
    for name in ("sweep.parquet", "summary.json", "weights.safetensors", SETTINGS):
        (out / name).unlink(missing_ok=True)


def remove_unfinished(out: Path) -> None:
    """Removes what a killed sweep was about to write: one sweep at a time in a folder."""
    for part in (out / "parts").glob(".*.parquet"):
        part.unlink()
