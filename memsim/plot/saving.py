"""Saves charts, as the ending of the file says; each says what it shows and how it was made."""

from __future__ import annotations

import datetime
import html
import io
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from memsim._checks import check_kind, check_path, check_truth
from memsim.files.writing import write_text, write_whole
from memsim.report._colours import THEME

__all__ = ["CHART_KINDS", "check_chart", "save_chart", "to_svg"]

CHART_KINDS = (".png", ".svg", ".pdf")

# Names without a seed of their own would be others in every run.
_SEED: dict[Any, Any] = {"svg.hashsalt": "memsim"}


def check_chart(path: str | Path, name: str = "path") -> None:
    """Checks that the ending of a file names a kind of chart.

    Args:
      path: of the file.
      name: of the argument, for the message.

    Raises:
      ValueError: it does not.
    """
    if Path(path).suffix.lower() not in CHART_KINDS:
        raise ValueError(
            f"`{name}` is {path}; charts are {', '.join(CHART_KINDS[:-1])} or {CHART_KINDS[-1]}, "
            "by the ending of their file."
        )


def save_chart(
    path: str | Path,
    figure: Figure,
    made_by: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
) -> None:
    """Saves a chart as PNG, SVG or PDF, whole or not at all.

    Args:
      path: of the file; its ending says which.
      figure: a chart of this module, or any of matplotlib; its label is the alt text.
      made_by: that entry of the report that the chart belongs to; the metadata of the file have it.
      force: replace a file that exists.

    Raises:
      OSError: the file exists and `force` is off, or its folder cannot be written.
      ValueError: another ending.
    """
    check_path("path", path)
    check_kind("figure", figure, Figure, "give a figure of matplotlib")
    check_kind("made_by", made_by, (Mapping, type(None)), "give that entry of a report, or None")
    check_truth("force", force)
    check_chart(path)
    kind = Path(path).suffix.lower()
    if kind == ".svg":
        text = _svg_text(figure, {} if made_by is None else _svg_metadata(made_by))
        write_text(path, text, force)
        return
    metadata = _png_metadata if kind == ".png" else _pdf_metadata
    words = {} if made_by is None else metadata(made_by, figure.get_label())
    write_whole(path, lambda x: figure.savefig(x, format=kind[1:], metadata=words), force)


def to_svg(figure: Figure) -> str:
    """Turns a figure into an SVG element, for `to_html`; the same figure gives the same text.

    Its label is the alt text. What is neither a policy nor a scale of colours goes by the variables
    of the page (`--ink`, `--paper`, ...), so that it is legible in a dark scheme too.

    Example:
      >>> import matplotlib.figure
      >>> to_svg(matplotlib.figure.Figure())[:4]
      '<svg'
    """
    check_kind("figure", figure, Figure, "give a figure of matplotlib")
    text = _svg_text(figure, {})
    text = text[text.index("<svg") :]
    for name, colour in THEME.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    # one page has many charts, and no name twice
    own = f"c{zlib.crc32(text.encode()):08x}-"
    return re.sub(r'(?<=\sid=")|(?<=href="#)|(?<=url\(#)', own, text)


def _svg_text(figure: Figure, metadata: Mapping[str, Any]) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_SEED):
        figure.savefig(buffer, format="svg", metadata=nothing | dict(metadata))
    spoken = f'<svg role="img" aria-label="{html.escape(str(figure.get_label()))}"'
    return buffer.getvalue().replace("<svg", spoken, 1)


def _png_metadata(made_by: Mapping[str, Any], alt: object) -> dict[str, Any]:
    # the first are the names that PNG has
    return {
        "Software": _maker(made_by),
        "Creation Time": made_by["date"],
        "Description": made_by["command"],
        "Comment": str(alt),
        "made_by": json.dumps(made_by),
    }


def _svg_metadata(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Creator": _maker(made_by),
        "Date": made_by["date"],
        "Description": made_by["command"],
        "Source": json.dumps(made_by),
    }


def _pdf_metadata(made_by: Mapping[str, Any], alt: object) -> dict[str, Any]:
    return {
        "Creator": _maker(made_by),
        "CreationDate": datetime.datetime.fromisoformat(made_by["date"]),
        "Subject": made_by["command"],
        "Title": str(alt),
        "Keywords": json.dumps(made_by),
    }


def _maker(made_by: Mapping[str, Any]) -> str:
    return f"memsim {made_by['version']}"
