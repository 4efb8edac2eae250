"""Says what all charts look like, and what they read of a policy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from memsim.policies import Policy
from memsim.report._colours import THEME, style_of

__all__ = [
    "INK",
    "LINE",
    "PAPER",
    "SOFT",
    "DashesByColour",
    "apart_from",
    "bars_of",
    "counts_on",
    "described",
    "legend_below",
    "listed",
    "new_figure",
    "reductions_on",
    "styles_of",
    "tidy",
    "whole_numbers_on",
]

INK, SOFT, LINE, PAPER = (THEME[name] for name in ("ink", "soft", "axis", "paper"))

# Alt texts are read aloud: of more than this only the ends are told.
_MOST_TOLD = 12

_DASHES = ("-", "--", ":", "-.")


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(axes: Axes, title: str, grid: bool = False, above: float = 6) -> None:
    """Gives axes a title and quiet lines, and with `grid` a light grid behind what is drawn.

    Args:
      above: points between axes and title.
    """
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=above)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)
    if grid:
        axes.grid(color=THEME["grid"], linewidth=0.8)
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
    """Tells lines of one colour apart: each next one gets other dashes, and then hollow markers."""

    def __init__(self) -> None:
        self._drawn: Counter[str] = Counter()

    def __call__(self, colour: str) -> tuple[str, int, str]:
        """Returns dashes of the next line of this colour, how many it has, and a marker's face."""
        number = self._drawn[colour]
        self._drawn[colour] += 1
        again, dashes = divmod(number, len(_DASHES))
        return _DASHES[dashes], number, PAPER if again % 2 else colour


def bars_of(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "2 points"]:
    """Returns the lengths of error bars, down and up, from means with the ends of intervals."""
    return np.asarray(np.abs(points[:, 1:] - points[:, :1]).T)


def styles_of(policies: Mapping[str, Policy]) -> dict[str, tuple[str, str]]:
    """Gives each name the colour and the marker of its policy, the same in every chart."""
    return {name: style_of(policy.name) for name, policy in policies.items()}


def described(figure: Figure, text: str) -> Figure:
    """Gives a figure its alt text, which is its label: what it shows, with its figures."""
    figure.set_label(text)
    return figure


def listed(texts: Sequence[str]) -> str:
    """Joins texts for an alt text; of very many, those in the middle are only counted."""
    if len(texts) > _MOST_TOLD:
        half = _MOST_TOLD // 2
        between = f"{len(texts) - 2 * half} others between"
        texts = [*texts[:half], between, *texts[-half:]]
    return "; ".join(texts)


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
