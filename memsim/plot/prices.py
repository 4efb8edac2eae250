"""Draws what policies save in writes against the routing memory and the energy that they take."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memsim.plot.style import (
    INK,
    LINE,
    PAPER,
    SOFT,
    apart_from,
    described,
    listed,
    new_figure,
    reductions_on,
    styles_of,
    tidy,
)
from memsim.policies import Policy
from memsim.report.texts import code_error_text
from memsim.summary import Summary

__all__ = ["reduction_against_index_bits"]

# What a policy may give up for fewer writes: a line joins policies that differ in it alone.
_TRADED = ("tolerance", "price")


def reduction_against_index_bits(
    policies: Mapping[str, Policy],
    summaries: Mapping[str, Summary],
    encodings: Mapping[str, str] | None = None,
) -> Figure:
    """Draws what each policy saves in writes against the routing memory that it takes.

    Filled markers are analog-valid, hollow ones are not; policies of one placement are joined. A
    policy that has no reduction is left out. Code errors, where there are any, are their root mean
    square and mean, in steps of the codes.

    Args:
      policies: by name; the labels at the right are their own texts.
      summaries: what they write, by the same names.
      encodings: of each name, where they differ: labels say them, and lines join those of one.
    """
    points = {
        name: _Point(
            summary.index_bits_per_weight, summary.reduction, summary.analog_valid,
            "" if summary.net_reduction is None else f"{summary.net_reduction:.2f}x",
            code_error_text(summary.code_error_rms, summary.code_error_mean),
        )
        for name, summary in summaries.items()
        if summary.reduction is not None
    }  # fmt: skip
    names = sorted(points, key=lambda name: points[name].reduction)
    erring = any(point.errors for point in points.values())
    priced = any(point.net for point in points.values())
    of = {name: f" in {encoding}" for name, encoding in (encodings or {}).items()}
    texts = {name: f"{policies[name]}{of.get(name, '')}" for name in names}
    longest = max([0, *map(len, texts.values())])
    # the axes keep their room beside long names
    width = max(9.0, 6.2 + 0.075 * longest + (0.9 if erring else 0.0) + (0.7 if priced else 0.0))
    figure = new_figure(width, max(4.0, 1.3 + 0.2 * len(names)))
    axes = figure.subplots()
    axes.set_yscale("log")
    reductions = [points[name].reduction for name in names]
    axes.set_ylim(0.87 * min([*reductions, 1]), 1.15 * max([*reductions, 2]))
    widest = max([1.0, *(point.bits for point in points.values())])
    axes.set_xlim(-0.05 * widest, 1.05 * widest)

    styles = styles_of(policies)
    lines: dict[str, list[str]] = {}
    for name in names:
        alike = apart_from(policies[name], _TRADED) + of.get(name, "")
        lines.setdefault(alike, []).append(name)
    for members in lines.values():
        axes.plot(*zip(*(points[name][:2] for name in members), strict=True),
                  color=styles[members[0]][0], linewidth=1.2)  # fmt: skip
    gap = 0.19 / (figure.get_figheight() - 1)
    columns = [True, True, priced, erring, True]
    headings = ("reduction", "index bits", "net energy", "code error", "policy")
    _row(axes, 1 + 0.8 * gap, [*itertools.compress(headings, columns)], SOFT, columns)
    for name, row in zip(names, _rows(axes, [points[name] for name in names], gap), strict=True):
        axes.plot(*points[name][:2], **_marker(styles[name], points[name]), zorder=3, label=name)
        _labelled(axes, points[name], row, styles[name], texts[name], columns)
    reductions_on(axes.yaxis)
    axes.set_xlabel("index bits per weight: the routing memory of the placement")
    axes.set_ylabel("reduction in cell writes")
    keys = [
        Line2D([], [], color=SOFT, marker="o", linestyle="none", markerfacecolor=face, label=label)
        for face, label in ((SOFT, "analog-valid"), (PAPER, "not analog-valid"))
    ]
    figure.legend(
        handles=keys, ncols=2, frameon=False, fontsize=8.5, labelcolor=INK,
        loc="outside lower right",
    )  # fmt: skip
    tidy(axes, "Writes saved against routing memory", grid=True)
    told = [
        f"{texts[name]} {points[name].reduction:.2f}x at {_price_text(points[name])} bits"
        + ("" if points[name].analog_valid else ", not analog-valid")
        for name in reversed(names)
    ]
    return described(figure, f"Reduction in writes against index bits per weight: {listed(told)}.")


class _Point(NamedTuple):
    bits: float
    reduction: float
    analog_valid: bool
    net: str
    errors: str


def _marker(style: tuple[str, str], point: _Point) -> dict[str, Any]:
    """Gives the look of a marker: hollow where a policy is not analog-valid."""
    colour, marker = style
    return {
        "color": colour, "marker": marker, "markersize": 6, "linestyle": "none",
        "markerfacecolor": colour if point.analog_valid else PAPER,
    }  # fmt: skip


def _rows(axes: Axes, points: Sequence[_Point], gap: float) -> Float[np.ndarray, " points"]:
    """Places the labels of points, lowest first: heights from 0 to 1 of the axes."""
    inside = axes.transScale + axes.transLimits  # from data to widths and heights of the axes
    return _spread([inside.transform(point[:2])[1] for point in points], gap)


def _labelled(
    axes: Axes,
    point: _Point,
    row: float,
    style: tuple[str, str],
    name: str,
    columns: Sequence[bool],
) -> None:
    """Draws the label of a point, right of the axes, and the thread that leads to it."""
    x, y = (axes.transScale + axes.transLimits).transform(point[:2])
    axes.plot(
        [x, 1, 1.05], [y, y, row], color=LINE, linewidth=0.6, zorder=1,
        transform=axes.transAxes, clip_on=False,
    )  # fmt: skip
    axes.plot(1.065, row, **_marker(style, point), transform=axes.transAxes, clip_on=False)
    texts = (f"{point.reduction:.2f}x", _price_text(point), point.net, point.errors, name)
    _row(axes, row, [*itertools.compress(texts, columns)], INK, columns)


def _price_text(point: _Point) -> str:
    """Writes index bits to two decimals; a price that rounds to nothing is not called nothing."""
    return f"{point.bits:.2f}" if point.bits == 0 or point.bits >= 0.005 else "<0.01"


def _row(
    axes: Axes, height: float, texts: Sequence[str], colour: str, columns: Sequence[bool]
) -> None:
    """Writes figures and the policy, the last, right of the axes.

    Args:
      columns: which of all columns there are; the last always is.
    """
    widths = itertools.compress((50, 52, 54, 66), columns)
    ends = [*itertools.accumulate(widths)]
    places = [*((end, "right") for end in ends), (ends[-1] + 10, "left")]
    for text, (offset, align) in zip(texts, places, strict=True):
        axes.annotate(
            text, (1.065, height), xycoords="axes fraction", xytext=(offset, 0),
            textcoords="offset points", ha=align, va="center_baseline", fontsize=8.5, color=colour,
            annotation_clip=False,
        )  # fmt: skip


def _spread(heights: Sequence[float], gap: float) -> Float[np.ndarray, " heights"]:
    """Moves heights at least `gap` apart and into 0..1, as little as can be.

    Args:
      heights: ascending.
      gap: between neighbours.
    """
    import scipy.optimize

    steps = gap * np.arange(len(heights))
    if not steps.size:
        return steps
    # less a gap each, heights need only not fall: a regression
    level = scipy.optimize.isotonic_regression(np.asarray(heights) - steps).x
    return np.asarray(np.clip(level, 0, max(0.0, 1 - steps[-1])) + steps)
