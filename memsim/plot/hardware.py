"""Draws hardware at work: which array is written, multiplies or waits; ways to run a network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, NullLocator

from memsim.hardware.timeline import Timeline
from memsim.plot.style import INK, LINE, SOFT, described, listed, new_figure, tidy
from memsim.report._colours import style_of
from memsim.report.texts import number_text, quantity_text
from memsim.service.costs import Figure as Priced

__all__ = ["arrays_at_work", "ways_to_run"]

# Arrays, and bars of one of them, that can be told apart on a page.
_MOST_ARRAYS, _MOST_BARS = 16, 60


def arrays_at_work(timeline: Timeline, what: str = "") -> Figure:
    """Draws when each array is written, multiplies and waits.

    Of many arrays the first are shown, and of a long pass its beginning.

    Args:
      timeline: from `memsim.hardware.make_timeline`.
      what: is timed, for the title.
    """
    shown = min(timeline.number, _MOST_ARRAYS)
    # until one of the arrays has had as many sections as can be told apart
    counts = [np.flatnonzero(timeline.arrays == array) for array in range(shown)]
    ends = [timeline.done[of[_MOST_BARS - 1]] for of in counts if of.size >= _MOST_BARS]
    end = min(ends, default=timeline.seconds)
    figure = new_figure(8, 1.6 + 0.26 * shown)
    axes = figure.subplots()
    parts = {
        "index and words moved": (timeline.moved, timeline.written, LINE),
        "written": (timeline.written, timeline.ready, SOFT),
        "multiplies": (timeline.multiplied, timeline.done, INK),
    }
    for array in range(shown):
        # of this array, cut where the chart ends
        here = (timeline.arrays == array) & (timeline.moved < end)
        for start, stop, colour in parts.values():
            spans = np.stack([start, np.minimum(stop, end) - start], axis=-1)[here]
            spans = spans[spans[:, 1] > 0]
            axes.broken_barh(spans.tolist(), (array - 0.36, 0.72), color=colour, linewidth=0)
    axes.set_xlim(0, end)
    axes.set_ylim(shown - 0.4, -0.6)
    axes.set_yticks(range(shown), [str(array) for array in range(shown)])
    axes.xaxis.set_major_formatter(EngFormatter(unit="s"))
    of_all = f" of {timeline.number:,}" if shown < timeline.number else ""
    axes.set_ylabel(f"array, {shown}{of_all}" if of_all else "array")
    of_pass = f", of {quantity_text(timeline.seconds, 's')}" if end < timeline.seconds else ""
    axes.set_xlabel(f"time from the start{of_pass}; an array waits in the gaps")
    handles = [Patch(color=colour, label=name) for name, (_, _, colour) in parts.items()]
    figure.legend(handles=handles, fontsize=8.5, labelcolor=INK, loc="outside lower center",
                  ncols=3, frameon=False)  # fmt: skip
    title = f"Arrays at work{f', {what}' if what else ''}; bottleneck: {timeline.bottleneck()}"
    tidy(axes, title)
    told = [f"{part} busy for {quantity_text(x, 's')}" for part, x in timeline.busy().items()]
    took = quantity_text(timeline.seconds, "s")
    return described(
        figure,
        f"{title}. Bars over time of {shown}{of_all} arrays, a pass of {took}: {listed(told)}.",
    )


def ways_to_run(ways: Mapping[str, Mapping[str, Priced]]) -> Figure:
    """Draws what each way to run a network takes: arrays, energy and time of an inference, cost.

    Args:
      ways: figures by name, by way, see `memsim.service.Advice`.
    """
    charts = {
        "arrays": "arrays", "joules": "energy of an inference", "seconds": "time of an inference",
        "cost_per_million": "cost of a million inferences",
    }  # fmt: skip
    figure = new_figure(11, 1.3 + 0.42 * len(ways))
    every = figure.subplots(1, len(charts), sharey=True)
    rows = np.arange(len(ways))
    colours = [_way_colour(way) for way in ways]
    told: dict[str, list[str]] = {way: [] for way in ways}
    for axes, (name, title) in zip(every, charts.items(), strict=True):
        values = [figures[name].value for figures in ways.values()]
        unit = next(iter(ways.values()))[name].unit
        # the least stands out
        best = min(values)
        axes.barh(rows, values, color=colours, height=0.62)
        for row, (way, value) in enumerate(zip(ways, values, strict=True)):
            si = unit in ("J", "s")
            text = quantity_text(value, unit) if si else number_text(value)
            told[way].append(f"{title} {text}")
            axes.annotate(
                f" {text}", (value, row), fontsize=8, color=INK, va="center",
                fontweight="bold" if value == best else "normal",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(best / 3, 40 * max(values))
        axes.xaxis.set_major_locator(NullLocator())
        axes.xaxis.set_minor_locator(NullLocator())
        money = unit.split("/")[0] if name == "cost_per_million" else ""
        tidy(axes, "")
        axes.set_title(title + (f", {money}" if money else ""), fontsize=9, color=SOFT, loc="left")
    every[0].set_yticks(rows, list(ways), fontsize=9)
    every[0].set_ylim(len(ways) - 0.4, -0.6)
    figure.supxlabel("logarithmic scales; bold: the least", fontsize=9, color=SOFT)
    texts = [f"{way}: {', '.join(figures)}" for way, figures in told.items()]
    return described(figure, f"Bars of what each way to run a network takes. {listed(texts)}.")


def _way_colour(way: str) -> str:
    """Gives a way that streams the colour of its policy, and all others a quiet one."""
    start, _, policy = way.partition("streamed: ")
    return LINE if start or not policy else style_of(policy)[0]
