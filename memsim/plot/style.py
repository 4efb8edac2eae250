"""Says what all charts look like, and what they read of a policy."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from memsim.policies import Policy

__all__ = [
    "BAD",
    "BAR",
    "GOOD",
    "INK",
    "LINE",
    "SOFT",
    "DashesByColour",
    "apart_from",
    "bars_of",
    "counts_on",
    "legend_below",
    "new_figure",
    "reductions_on",
    "styles_of",
    "tidy",
    "to_svg",
    "whole_numbers_on",
]

INK, SOFT, BAR, GOOD, BAD = "#1c2430", "#5d6b7d", "#3b6fb6", "#2f8f5b", "#b4552d"
LINE, _GRID = "#b8c1cc", "#edf0f3"

# Colour and marker of the first policy of a chart, the second, ...
_STYLES = (
    (SOFT, "s"), (BAR, "o"), ("#7a4fa3", "D"), (GOOD, "^"), ("#1f8a96", "v"), ("#9a7317", "P"),
    ("#b03a72", "X"), (BAD, "<"),
)  # fmt: skip

_DASHES = ("-", "--", ":", "-.")


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(axes: Axes, title: str, grid: bool = False) -> None:
    """Gives axes a title and quiet lines, and with `grid` a light grid behind what is drawn."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)
    if grid:
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def legend_below(figure: Figure) -> None:
    """Puts the legend of all lines below the axes, in two columns, or one where these are wide."""
    words: dict[str, Any] = {
        "fontsize": 8.5,
        "labelcolor": INK,
        "loc": "outside lower center",
        "frameon": False,
    }
    legend = figure.legend(ncols=2, **words)
    if legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        legend = figure.legend(ncols=1, **words)
        # room for the rows that there are more
        more = len(legend.get_texts()) // 2
        figure.set_figheight(figure.get_figheight() + 0.19 * more)


class DashesByColour:
    """Tells lines of one colour apart: each next one gets other dashes."""

    def __init__(self) -> None:
        self._drawn: Counter[str] = Counter()

    def __call__(self, colour: str) -> tuple[str, int]:
        """Returns the dashes of the next line of this colour, and how many it has already."""
        number = self._drawn[colour]
        self._drawn[colour] += 1
        return _DASHES[number % len(_DASHES)], number


def bars_of(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "2 points"]:
    """Returns the lengths of error bars, down and up, from means with the ends of intervals."""
    return np.asarray(np.abs(points[:, 1:] - points[:, :1]).T)


def styles_of(policies: Mapping[str, Policy]) -> dict[str, tuple[str, str]]:
    """Gives each name a colour and a marker, the same to all variants of one kind of policy.

    Args:
      policies: by name, in an order that decides which kind gets which.
    """
    kinds = {name: _kind(policy) for name, policy in policies.items()}
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds.values()))}
    return {name: _STYLES[numbers[kind] % len(_STYLES)] for name, kind in kinds.items()}


def apart_from(policy: Policy, fields: Iterable[str]) -> str:
    """Writes the text of a policy without bit stucking, and with these fields at their defaults.

    Policies that differ in nothing else get the same text; a policy that has no such field keeps
    its own.
    """
    placing = policy.placing
    defaults: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(placing) if field.name in fields
    }
    return str(dataclasses.replace(placing, **defaults))


def _kind(policy: Policy) -> str:
    return policy.name


def reductions_on(axis: Axis) -> None:
    """Puts ticks 1x, 2x, 5x, 10x on a log axis."""
    _log_ticks(axis)
    axis.set_major_formatter(lambda value, _: f"{value:g}x")


def counts_on(axis: Axis) -> None:
    """Puts ticks 100,000, 200,000, 500,000 on a log axis."""
    _log_ticks(axis)
    whole_numbers_on(axis)


def _log_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())


def whole_numbers_on(axis: Axis) -> None:
    """Writes the ticks of an axis of counts in full: 1,500,000."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def to_svg(figure: Figure) -> str:
    """Turns a figure into an SVG element, for `to_html`; the same figure gives the same text.

    Example:
      >>> to_svg(new_figure(4, 3))[:4]
      '<svg'
    """
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "memsim"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
