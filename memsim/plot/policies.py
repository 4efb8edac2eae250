"""What policies cost and save: writes, reduction, accuracy kept, routing memory."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.optimize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memsim.plot.style import BAD, BAR, GOOD, INK, SOFT, new_figure, reductions_on, styles_of, tidy
from memsim.policies import Policy
from memsim.report.texts import index_bits_text
from memsim.summary import Summary


def writes_by_policy(policies: Mapping[str, Summary]) -> Figure:
    """Writes under each policy, labelled with the reduction and its price."""
    figure = new_figure(8, 0.9 + 0.5 * len(policies))
    axes = figure.subplots()
    writes = [summary.writes for summary in policies.values()]
    axes.barh(range(len(policies)), writes, color=BAR, height=0.62)
    for row, summary in enumerate(policies.values()):
        label = "" if summary.reduction is None else f"{summary.reduction:.2f}x fewer"
        if summary.reduction == 1:
            label = "baseline"
        label += f", {index_bits_text(summary.index_bits_per_weight)} index bits" if label else ""
        label += "" if summary.analog_valid else ", not analog-valid"
        axes.annotate(
            f" {summary.writes:,}  {label}", (summary.writes, row), fontsize=8.5, color=SOFT,
            va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(policies)), list(policies))
    axes.set_ylim(len(policies) - 0.4, -0.6)
    axes.set_xlim(0, 1.9 * max([*writes, 1]))
    axes.set_xlabel("cell writes to program the network")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    tidy(axes, "Writes under each policy")
    return figure


def writes_per_column(policies: Mapping[str, Summary]) -> Figure:
    """Writes of each crossbar column, one line per policy; column 0 is the low order."""
    figure = new_figure(8, 3.4)
    axes = figure.subplots()
    for (name, summary), colour in zip(
        policies.items(), [SOFT, BAR, GOOD, BAD] * len(policies), strict=False
    ):
        columns = np.arange(len(summary.writes_per_column))
        axes.plot(columns, summary.writes_per_column, "o-", color=colour, label=name, markersize=4)
    axes.set_ylim(bottom=0)
    axes.set_xticks(columns)
    axes.set_xlabel("column of the crossbar (0: low-order bit)")
    axes.set_ylabel("cell writes")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    tidy(axes, "Where the writes go")
    return figure


def _lines(policies: Mapping[str, Policy]) -> dict[str, list[str]]:
    """Names that a chart joins by a line, by its label: ever more low columns, or tolerance."""
    lines: dict[str, list[str]] = {}
    for name, policy in policies.items():
        label = str(dataclasses.replace(policy.placing, tolerance=0, price=None))
        if policy.low_columns:
            fixed = ", fixed" if policy.draws == "fixed" else ""
            label = f"{policy.placing}, p = {policy.reprogram:g}{fixed}"
        lines.setdefault(label, []).append(name)
    started = set()
    for names in lines.values():
        first = policies[names[0]]
        names.sort(key=lambda name: (policies[name].low_columns, policies[name].tolerance))
        if first.low_columns:  # a line starts where nothing is stucked
            starts = [name for name, policy in policies.items() if policy == first.placing]
            names[:0] = starts
            started.update(starts)
    return {label: names for label, names in lines.items() if not started.issuperset(names)}


class Priced(Protocol):
    """What a policy saves and what it costs, as `memsim.Summary` says it."""

    @property
    def reduction(self) -> float | None: ...  # noqa: D102
    @property
    def index_bits_per_weight(self) -> float: ...  # noqa: D102
    @property
    def analog_valid(self) -> bool: ...  # noqa: D102


def accuracy_against_reduction(
    policies: Mapping[str, Policy],
    summaries: Mapping[str, Priced],
    change: Mapping[str, tuple[float, float, float]],
    float_accuracy: float,
    title: str = "Accuracy kept against writes saved",
) -> Figure:
    """What each policy saves in writes against what it keeps of the accuracy.

    Args:
      policies: by name; one without bit stucking starts the lines, one for each p; `matched` is one
        line over tolerances.
      summaries: what they write.
      change: of the accuracy against the float network, with the ends of its 95 % interval; shares
        of 1.
      float_accuracy: share of 1.
      title: of the chart.
    """
    lines = _lines(policies)
    figure = new_figure(8, 4.2 + 0.11 * len(lines))
    axes = figure.subplots()
    styles = styles_of(policies)
    drawn: Counter[str] = Counter()
    for label, names in lines.items():
        colour, marker = styles[names[0]]
        dashes = ("-", "--", ":", "-.")[drawn[colour] % 4]
        right = drawn[colour] % 2 == 1  # numbers of neighbouring lines apart
        drawn[colour] += 1
        reduction = [summaries[name].reduction or np.nan for name in names]
        points = 100 * np.asarray([change[name] for name in names])
        percent, ends = 100 * float_accuracy + points[:, 0], np.abs(points[:, 1:] - points[:, :1]).T
        valid = all(summaries[name].analog_valid for name in names)
        bits = summaries[names[0]].index_bits_per_weight
        price = f"{index_bits_text(bits)} index bits"
        price += "" if valid else ", not analog-valid"
        axes.errorbar(
            reduction, percent, yerr=ends, color=colour, linestyle=dashes, marker=marker,
            markersize=5.5, markerfacecolor=colour if valid else "white", linewidth=1.1,
            elinewidth=0.9, capsize=2.5, label=f"{label} ({price})",
        )  # fmt: skip
        for name, x, y in zip(names, reduction, percent, strict=True):
            stucked, tolerance = policies[name].low_columns, policies[name].tolerance
            texts = [f"±{tolerance}"] * (tolerance > 0) + [f"{stucked}"] * (stucked > 0)
            if texts:
                axes.annotate(
                    ", ".join(texts), (x, y), xytext=(5, 4) if right else (-4, -9),
                    textcoords="offset points", ha="left" if right else "right", fontsize=8,
                    color=colour,
                )  # fmt: skip
    axes.axhline(
        100 * float_accuracy, color=INK, linewidth=1, linestyle=(0, (4, 3)),
        label=f"float network ({100 * float_accuracy:.1f} %)",
    )  # fmt: skip
    axes.set_xscale("log")
    reductions_on(axes.xaxis)
    axes.set_xlabel(
        "reduction in cell writes (at points: low columns stucked; ± tolerance of matched)"
    )
    axes.set_ylabel("accuracy (%); bars: 95 %")
    axes.grid(color="#edf0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1), min(high, 101))  # intervals over few chips are wide
    figure.legend(fontsize=8.5, labelcolor=INK, loc="outside lower center", ncols=2, frameon=False)
    tidy(axes, title)
    return figure


def reduction_against_index_bits(
    policies: Mapping[str, Policy], summaries: Mapping[str, Summary]
) -> Figure:
    """What each policy saves in writes against the routing memory that it takes.

    Filled markers are analog-valid, hollow ones are not; policies of one placement are joined. A
    policy that has no reduction is left out.

    Args:
      policies: by name; the labels at the right are their own texts.
      summaries: what they write, by the same names.
    """
    points = {
        name: (summary.index_bits_per_weight, summary.reduction)
        for name, summary in summaries.items()
        if summary.reduction is not None
    }
    names = sorted(points, key=lambda name: points[name][1])
    figure = new_figure(9, max(4.0, 1.3 + 0.2 * len(names)))
    axes = figure.subplots()
    axes.set_yscale("log")
    reductions = [points[name][1] for name in names]
    axes.set_ylim(0.87 * min([*reductions, 1]), 1.15 * max([*reductions, 2]))
    widest = max([1.0, *(bits for bits, _ in points.values())])
    axes.set_xlim(-0.05 * widest, 1.05 * widest)

    styles = styles_of(policies)
    lines: dict[str, list[str]] = {}
    for name in names:
        label = str(dataclasses.replace(policies[name].placing, tolerance=0, price=None))
        lines.setdefault(label, []).append(name)
    for members in lines.values():
        axes.plot(*zip(*(points[name] for name in members), strict=True),
                  color=styles[members[0]][0], linewidth=1.2)  # fmt: skip
    inside = axes.transScale + axes.transLimits  # from data to widths and heights of the axes
    places = [inside.transform(points[name]) for name in names]
    gap = 0.19 / (figure.get_figheight() - 1)
    rows = _spread([y for _, y in places], gap)
    _row(axes, 1 + 0.8 * gap, ("reduction", "index bits", "policy"), SOFT)
    for name, (x, y), row in zip(names, places, rows, strict=True):
        colour, marker = styles[name]
        look: dict[str, Any] = {
            "color": colour, "marker": marker, "markersize": 6, "linestyle": "none",
            "markerfacecolor": colour if summaries[name].analog_valid else "white",
        }  # fmt: skip
        beside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        axes.plot(*points[name], **look, zorder=3, label=name)
        axes.plot([x, 1, 1.05], [y, y, row], color="#c9d1da", linewidth=0.6, zorder=1, **beside)
        axes.plot(1.065, row, **look, **beside)
        bits, reduction = points[name]
        price = f"{bits:.2f}" if bits == 0 or bits >= 0.005 else "<0.01"
        _row(axes, row, (f"{reduction:.2f}x", price, str(policies[name])), INK)
    reductions_on(axes.yaxis)
    axes.set_xlabel("index bits per weight: the routing memory of the placement")
    axes.set_ylabel("reduction in cell writes")
    axes.grid(color="#edf0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    keys = [
        Line2D([], [], color=SOFT, marker="o", linestyle="none", markerfacecolor=face, label=label)
        for face, label in ((SOFT, "analog-valid"), ("white", "not analog-valid"))
    ]
    figure.legend(
        handles=keys, ncols=2, frameon=False, fontsize=8.5, labelcolor=INK,
        loc="outside lower right",
    )  # fmt: skip
    tidy(axes, "Writes saved against routing memory")
    return figure


def _row(axes, height: float, texts: tuple[str, str, str], colour: str) -> None:  # type: ignore[no-untyped-def]
    """Reduction, index bits and policy, right of the axes."""
    for text, offset, align in zip(texts, (50, 102, 112), ("right", "right", "left"), strict=True):
        axes.annotate(
            text, (1.065, height), xycoords="axes fraction", xytext=(offset, 0),
            textcoords="offset points", ha=align, va="center_baseline", fontsize=8.5, color=colour,
            annotation_clip=False,
        )  # fmt: skip


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Heights at least `gap` apart and within 0..1, as near to the given ones as can be.

    Args:
      heights: ascending.
    """
    steps = gap * np.arange(len(heights))
    if not steps.size:
        return steps
    level = scipy.optimize.isotonic_regression(np.asarray(heights) - steps).x
    return np.clip(level, 0, max(0.0, 1 - steps[-1])) + steps
