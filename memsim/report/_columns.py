"""Names the columns of a word: which half of a differential one each belongs to, and flags."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from memsim.report.texts import printable

POSITIVE, NEGATIVE, FLAG = "positive half", "negative half", "flag"


class Column(NamedTuple):
    """A column of a word.

    Attributes:
      label: its place in its half, `0` for the low order; of a flag its name.
      part: the half of a differential word, `flag`, or nothing where there is one part.
    """

    label: str
    part: str


def columns_of_word(encoding: str, bits: int, cell_bits: int, number: int) -> list[Column]:
    """Names the columns of the words of a config.

    Args:
      encoding, bits, cell_bits: of the config.
      number: of columns that were counted; those beyond the word are flags.

    Example:
      >>> [column.part for column in columns_of_word("differential", 3, 1, 4)]
      ['positive half', 'positive half', 'negative half', 'negative half']
    """
    if encoding == "differential":
        half = math.ceil((bits - 1) / cell_bits)
        word = [Column(str(i), part) for part in (POSITIVE, NEGATIVE) for i in range(half)]
    else:
        word = [Column(str(i), "") for i in range(math.ceil(bits / cell_bits))]
    return [*word, *(Column(FLAG, FLAG) for _ in range(number - len(word)))][:number]


class Bar(NamedTuple):
    """A bar of the writes of one column, in units of `PICTURE`."""

    x: float
    width: float
    height: float
    writes: int
    column: Column


# Width of the picture of a policy, and the height of its tallest bar.
PICTURE = 256, 100
_GAP = 0.8  # between the parts of a word, in columns


def column_bars(report: Mapping[str, Any], policy: str) -> list[Bar]:
    """Places the bars of the writes of each column, all policies on one scale.

    Args:
      report: see `to_json`.
      policy: name of one in it.
    """
    config, of = report["config"], report["policies"][policy]
    writes = of["writes_per_column"]
    encoding = of.get("encoding", config["encoding"])
    columns = columns_of_word(encoding, config["bits"], config["cell_bits"], len(writes))
    tallest = max(max(each["writes_per_column"]) for each in report["policies"].values()) or 1
    changes = [0, *(a.part != b.part for a, b in itertools.pairwise(columns))]
    gaps = [_GAP * sum(changes[: at + 1]) for at in range(len(columns))]
    step = PICTURE[0] / (len(columns) + gaps[-1])
    return [
        Bar((at + gap) * step, 0.82 * step, PICTURE[1] * count / tallest, count, column)
        for at, (gap, count, column) in enumerate(zip(gaps, writes, columns, strict=True))
    ]


def columns_text(policy: str, bars: list[Bar]) -> str:
    """Says the writes of each column, half by half, for whoever does not see the bars."""
    parts: dict[str, list[str]] = {}
    for bar in bars:
        told = (
            f"{bar.writes:,}" if bar.column.part == FLAG else f"{bar.column.label}: {bar.writes:,}"
        )
        parts.setdefault(bar.column.part, []).append(told)
    texts = [f"{part} {', '.join(told)}".strip() for part, told in parts.items()]
    return f"Writes of each column under {printable(policy)}: {'; '.join(texts)}."
