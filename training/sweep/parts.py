"""Parts that a sweep leaves in its folder while it runs: one part per chunk of chips.

Parts appear whole or not at all, so that a killed sweep goes on where it stopped. A part that was
there before is checked, row by row, before the sweep goes on.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

import memsim
from memsim.files.writing import write_whole
from training import policies, runs
from training.sweep.combinations import Combination

SETTINGS = "sweep.json"
SCHEMA = pa.schema(
    [
        ("cell", pa.int32()),
        ("bits", pa.int32()),
        ("rows", pa.int64()),
        ("columns", pa.int64()),
        ("encoding", pa.string()),
        ("policy", pa.string()),
        ("placement", pa.string()),
        ("p", pa.float64()),
        ("low", pa.int32()),
        ("tolerance", pa.int32()),
        ("stuck_at", pa.float64()),
        ("stuck_at_0", pa.float64()),
        ("stuck_at_1", pa.float64()),
        ("writing", pa.string()),
        ("chip", pa.int32()),
        ("writes", pa.int64()),
        ("sets", pa.int64()),
        ("resets", pa.int64()),
        ("row_operations", pa.int64()),
        ("pulses", pa.int64()),
        ("wrong_cells", pa.int64()),
        ("reduction", pa.float64()),
        ("net_reduction", pa.float64()),
        ("accuracy", pa.float64()),
        ("correct", pa.int64()),
        ("images", pa.int64()),
        ("index_bits_per_weight", pa.float64()),
        ("analog_valid", pa.bool_()),
    ]
)
_LEFT = (
    "parts/*.parquet",
    "parts/.*.parquet",
    "accuracy_against_reduction*.png",
    "yield_against_stuck_rate*.png",
    "sweep.parquet",
    "summary.json",
    "weights.safetensors",
)


# Columns without a value where nothing is written, one word wide, where no write fails.
_MAY_LACK = ("reduction", "net_reduction", "columns", "writing", "wrong_cells")


class Layout(NamedTuple):
    """The cut of the chips of every combination are cut into parts.

    Attributes:
      chips: of each combination.
      chunk: chips of a part; the last one may have fewer.
    """

    chips: int
    chunk: int

    @property
    def parts(self) -> int:
        """Parts of a combination."""
        return -(-self.chips // self.chunk)

    def chips_of(self, part: int) -> range:
        """Lists the numbers of the chips of a part."""
        return range(part * self.chunk, min((part + 1) * self.chunk, self.chips))


def describe(combination: Combination) -> dict[str, Any]:
    """Returns the columns that are the same on all chips of a combination."""
    config, rate = combination.config, combination.stuck_at
    return {
        "cell": combination.number,
        "bits": config.bits,
        "rows": config.rows,
        "columns": config.columns,
        "encoding": config.encoding,
        **policies.columns(combination.policy),
        "stuck_at": rate,
        "stuck_at_0": rate / 2,
        "stuck_at_1": rate / 2,
        "writing": combination.writing,
    }


def make_row(
    combination: Combination, chip: int, summary: memsim.Summary, correct: int, images: int
) -> dict[str, Any]:
    """Makes the row of one chip, see `SCHEMA`; `reduction` is None where nothing was written."""
    return describe(combination) | {
        "chip": chip,
        "writes": summary.writes,
        "sets": summary.sets,
        "resets": summary.resets,
        "row_operations": summary.row_operations,
        "pulses": summary.pulses,
        "wrong_cells": summary.wrong_cells,
        "reduction": summary.reduction,
        "net_reduction": summary.net_reduction,
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "index_bits_per_weight": summary.index_bits_per_weight,
        "analog_valid": summary.analog_valid,
    }


def _path(out: Path, number: int, part: int) -> Path:
    return out / "parts" / f"{number:05}-{part:05}.parquet"


def write_part(out: Path, number: int, part: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows of one chunk of chips of the combination of this number."""
    _write(_path(out, number, part), pa.Table.from_pylist(rows, schema=SCHEMA))


def find_parts(
    out: Path, combinations: Sequence[Combination], layout: Layout, images: int | None = None
) -> Bool[np.ndarray, "combinations parts"]:
    """Finds which parts are there already, and checks them.

    Args:
      images: tested on, if that is known already.

    Raises:
      ValueError: a part that this sweep has not written, or not as it stands there.
    """
    there = np.zeros((len(combinations), layout.parts), bool)
    for path in sorted((out / "parts").glob("[!.]*.parquet")):
        numbers = re.fullmatch(r"(\d{5,})-(\d{5,})", path.stem)
        number, part = map(int, numbers.groups()) if numbers else (-1, -1)
        known = 0 <= number < len(combinations) and 0 <= part < layout.parts
        if not known or path != _path(out, number, part):
            raise _refusal(path, "is no part of this sweep")
        check_part(path, combinations[number], layout.chips_of(part), images)
        there[number, part] = True
    return there


def check_part(
    path: Path, combination: Combination, chips: Sequence[int], images: int | None = None
) -> None:
    """Checks that a part holds the rows of these chips.

    Raises:
      ValueError: it is no whole part, or holds other rows, or numbers that nothing measures.
    """
    table = _read(path)
    for field in SCHEMA:
        if table.schema.names.count(field.name) != 1:
            raise _refusal(path, f"has no single column `{field.name}`")
        if table.schema.field(field.name).type != field.type:
            kind = table.schema.field(field.name).type
            raise _refusal(path, f"has `{field.name}` as {kind}, not {field.type}")
    for name in table.schema.names:
        if name not in SCHEMA.names:
            raise _refusal(path, f"has a column `{name}`, which no sweep writes")
    if table.schema.names != SCHEMA.names:
        raise _refusal(path, "has its columns in another order")
    if table.num_rows != len(chips):
        raise _refusal(path, f"has {table.num_rows} rows, not one for each of {len(chips)} chips")
    same = describe(combination) | ({} if images is None else {"images": images})
    for chip, row in zip(chips, table.to_pylist(), strict=True):
        for name, wrong in _wrong(row, same | {"chip": chip}):
            raise _refusal(path, f"has `{name}` {row[name]!r} for chip {chip}; {wrong}")


def _wrong(row: Mapping[str, Any], same: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names the columns of a row that cannot be, and what would be right."""
    for name, value in row.items():
        if value is None and name not in _MAY_LACK:
            yield name, "a value is missing"
        elif isinstance(value, float) and not math.isfinite(value):
            yield name, "it is finite"
        elif name in same and value != same[name]:
            yield name, f"here it is {same[name]!r}"
        elif isinstance(value, (int, float)) and value < 0:
            yield name, "it is at least 0"
    if row["writes"] != row["sets"] + row["resets"]:
        yield "writes", "it is the sum of `sets` and `resets`"
    # only what is pulsed changes
    if row["pulses"] < row["writes"]:
        yield "pulses", "it is at least `writes`"
    if (row["wrong_cells"] is None) != (row["writing"] is None):
        yield "wrong_cells", "it is missing only where no write fails"
    # a row that changes changes at least one cell
    if row["row_operations"] > row["writes"]:
        yield "row_operations", "it is at most `writes`"
    if not 0 <= row["correct"] <= row["images"] or not row["images"]:
        yield "correct", "it is at most `images`"
    elif row["accuracy"] != row["correct"] / row["images"]:
        yield "accuracy", "it is `correct` / `images`"
    for name in ("reduction", "net_reduction"):
        if row[name] is None and row["writes"]:
            yield name, "it is missing only where nothing was written"


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise _refusal(path, "is truncated or no part of a sweep") from error


def _refusal(path: Path, what: str) -> ValueError:
    return ValueError(
        f"`{path}` {what}; remove this file to measure it again, or use --force to start afresh."
    )


def merge_parts(out: Path, numbers: Sequence[int], layout: Layout) -> pa.Table:
    """Joins the parts of these combinations into `sweep.parquet`, in their order and of chips."""
    tables = [_read(_path(out, n, part)) for n in numbers for part in range(layout.parts)]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    table = table.combine_chunks()
    _write(out / "sweep.parquet", table)
    return table


def _write(path: Path, table: pa.Table) -> None:
    write_whole(path, lambda temporary: pq.write_table(table, temporary), force=True)


def check_origin(out: Path) -> None:
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
    # without settings on record the charts may be of another job
    patterns = _LEFT if (out / SETTINGS).is_file() else _LEFT[:2]
    runs.start_afresh(out, patterns, SETTINGS)


def remove_unfinished(out: Path) -> None:
    """Removes what a killed sweep was about to write: one sweep at a time in a folder."""
    for part in (out / "parts").glob(".*.parquet"):
        part.unlink()
