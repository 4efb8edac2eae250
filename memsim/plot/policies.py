"""Draws what policies cost and save: writes, reduction, accuracy kept, routing memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from memsim.config import CrossbarConfig
from memsim.plot.style import (
    INK,
    LINE,
    PAPER,
    SOFT,
    DashesByColour,
    apart_from,
    bars_of,
    counts_on,
    described,
    legend_below,
    listed,
    new_figure,
    reductions_on,
    styles_of,
    tidy,
    whole_numbers_on,
)
from memsim.policies import Policy
from memsim.report._colours import style_of
from memsim.report._columns import Column, columns_of_word
from memsim.report.texts import code_error_text, count_text, index_bits_text
from memsim.summary import Summary

__all__ = [
    "Priced",
    "accuracy_against_pulses",
    "accuracy_against_reduction",
    "writes_by_policy",
    "writes_per_column",
]

# What a policy may give up for fewer writes: a line joins policies that differ in it alone.
_TRADED = ("tolerance", "price")


def writes_by_policy(policies: Mapping[str, Summary]) -> Figure:
    """Draws the writes under each policy, labelled with the reduction and its price."""
    names = max(map(len, policies), default=0)
    figure = new_figure(8 + 0.07 * max(0, names - 22), 0.9 + 0.5 * len(policies))
    axes = figure.subplots()
    writes = [summary.writes for summary in policies.values()]
    most = max([*writes, 1])
    colours = [style_of(name)[0] for name in policies]
    axes.barh(range(len(policies)), writes, color=colours, height=0.62)
    saved = [_saved_text(summary) for summary in policies.values()]
    labels = [
        axes.annotate(f" {count:,}  {text}", (count, row), fontsize=8.5, color=SOFT, va="center")
        for row, (count, text) in enumerate(zip(writes, saved, strict=True))
    ]
    axes.set_yticks(range(len(policies)), list(policies))
    axes.set_ylim(len(policies) - 0.4, -0.6)
    # the axis stands for bars, the room behind it for labels
    axes.set_xticks([x for x in MaxNLocator(3).tick_values(0, most) if 0 <= x <= most])
    axes.set_xlabel("cell writes to program the network")
    whole_numbers_on(axes.xaxis)
    tidy(axes, "Writes under each policy")
    for label in labels:
        label.set_in_layout(False)
    figure.draw_without_rendering()
    room = axes.get_window_extent().width
    rest = [max(0.2, 1 - label.get_window_extent().width / room - 0.01) for label in labels]
    axes.set_xlim(0, max([most, *(count / x for count, x in zip(writes, rest, strict=True))]))
    told = [f"{name} {x:,}, {text}" for name, x, text in zip(policies, writes, saved, strict=True)]
    return described(figure, f"Bars of the writes under each policy: {listed(told)}.")


def _saved_text(summary: Summary) -> str:
    """Says what a policy saves, and what that takes."""
    if summary.reduction is None:
        return "no baseline" if summary.analog_valid else "no baseline, not analog-valid"
    texts = ["baseline" if summary.reduction == 1 else f"{summary.reduction:.2f}x fewer"]
    if summary.net_reduction and summary.reduction != 1:
        texts.append(f"{summary.net_reduction:.2f}x less energy")
    texts.append(f"{index_bits_text(summary.index_bits_per_weight)} index bits")
    errors = code_error_text(summary.code_error_rms, summary.code_error_mean)
    texts += [f"code error {errors}"] if errors else []
    texts += [] if summary.analog_valid else ["not analog-valid"]
    return ", ".join(texts)


def writes_per_column(
    policies: Mapping[str, Summary], config: CrossbarConfig | None = None
) -> Figure:
    """Draws the writes of each crossbar column, one line per policy; column 0 is the low order.

    Args:
      policies: summaries by name, all of words of one width.
      config: the crossbars: tells the halves of differential words apart, and names flags.
    """
    figure = new_figure(8, 3.8 + 0.09 * len(policies))
    axes = figure.subplots()
    number = max(len(summary.writes_per_column) for summary in policies.values())
    columns = [Column(str(at), "") for at in range(number)]
    if config is not None:
        columns = columns_of_word(config.encoding, config.bits, config.cell_bits, number)
    dashes_of = DashesByColour()
    for order, (name, summary) in enumerate(policies.items()):
        colour, marker = style_of(name)
        # beside each other: policies that write alike do not hide each other
        aside = ScaledTranslation(
            (order - (len(policies) - 1) / 2) * 2.5 / 72, 0, figure.dpi_scale_trans
        )
        dashes, _, face = dashes_of(colour)
        for place in _parts(columns[: len(summary.writes_per_column)]).values():
            axes.plot(
                place, [summary.writes_per_column[at] for at in place], color=colour,
                marker=marker, linestyle=dashes, linewidth=1.2, markersize=4.5,
                markerfacecolor=face, label="_" if place[0] else name,
                transform=axes.transData + aside,
            )  # fmt: skip
    axes.set_xlim(-0.6, number - 0.4)
    # lines that are moved aside do not count for the limits
    most = max(max(summary.writes_per_column) for summary in policies.values())
    axes.set_ylim(0, 1.06 * max(most, 1))
    axes.set_xticks(range(number), [column.label for column in columns])
    for part, place in _parts(columns).items():
        if part:
            axes.annotate(
                part, (sum(place) / len(place), 1), xycoords=("data", "axes fraction"),
                xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8.5, color=SOFT,
            )  # fmt: skip
        if place[0]:
            axes.axvline(place[0] - 0.5, color=LINE, linewidth=1)
    axes.set_xlabel("column of a word (0: low-order bit)")
    axes.set_ylabel("cell writes")
    whole_numbers_on(axes.yaxis)
    legend_below(figure)
    # above the names of parts
    tidy(axes, "Where the writes go", grid=True, above=18 if len(_parts(columns)) > 1 else 6)
    told = [_tallest(name, summary, columns) for name, summary in policies.items()]
    return described(
        figure, f"Lines of the writes of each of {count_text(number, 'column')}: {listed(told)}."
    )


def _parts(columns: Sequence[Column]) -> dict[str, list[int]]:
    """Groups the places of columns by the part of the word that they are of."""
    places: dict[str, list[int]] = {}
    for at, column in enumerate(columns):
        places.setdefault(column.part, []).append(at)
    return places


def _tallest(name: str, summary: Summary, columns: Sequence[Column]) -> str:
    """Tells the most and the least written column of each part of a word."""
    told = []
    for part, place in _parts(columns[: len(summary.writes_per_column)]).items():
        writes = [summary.writes_per_column[at] for at in place]
        most, least = (f"{end:,}" for end in (max(writes), min(writes)))
        span = most if most == least else f"{most} down to {least}"
        told.append(f"{span} in the {part}" if part else span)
    return f"{name} {', '.join(told)}"


def _tolerance(policy: Policy) -> int:
    return getattr(policy, "tolerance", 0)


def _lines(policies: Mapping[str, Policy]) -> dict[str, list[str]]:
    """Groups the names that a chart joins by a line: ever more low columns, or tolerance.

    Args:
      policies: by name.

    Returns:
      The names in the order of the line, by its label.
    """
    lines: dict[str, list[str]] = {}
    for name, policy in policies.items():
        p, low, draws = policy.stucking
        label = apart_from(policy, _TRADED)
        if low:
            label = f"{policy.placing}, p = {p:g}{', fixed' if draws == 'fixed' else ''}"
        lines.setdefault(label, []).append(name)
    started = set()
    for names in lines.values():
        names.sort(key=lambda name: (policies[name].stucking.low, _tolerance(policies[name])))
        first = policies[names[0]]
        if first.stucking.low:  # a line starts where nothing is stucked
            starts = [name for name, policy in policies.items() if policy == first.placing]
            names[:0] = starts
            started.update(starts)
    # a policy that starts a line needs none of its own
    return {label: names for label, names in lines.items() if not started.issuperset(names)}


class Priced(Protocol):
    """Says what a policy saves and what it costs, as `memsim.Summary` does."""

    @property
    def reduction(self) -> float | None: ...  # noqa: D102
    @property
    def net_reduction(self) -> float | None: ...  # noqa: D102
    @property
    def index_bits_per_weight(self) -> float: ...  # noqa: D102
    @property
    def analog_valid(self) -> bool: ...  # noqa: D102


def accuracy_against_reduction(
    policies: Mapping[str, Policy],
    summaries: Mapping[str, Priced],
    change: Mapping[str, tuple[float, float, float]],
    float_accuracy: float,
    title: str | None = None,
    measure: str = "accuracy",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Draws what each policy saves in writes against what it keeps of the accuracy.

    Args:
      policies: by name; one without bit stucking starts the lines, one for each p; policies that
        differ in their tolerance alone are one line.
      summaries: what they write.
      change: of the accuracy against the float network, with the ends of its 95 % interval; shares
        of 1.
      float_accuracy: share of 1.
      title: of the chart; by default what is kept against what is saved.
      measure: `accuracy`; or `perplexity`: that of the float network, and changes are ratios to it.
      labels: of the points; by default their tolerance and the low columns stucked.
    """
    lines = _lines(policies)
    figure = new_figure(8, 4.2 + 0.11 * len(lines))
    axes = figure.subplots()
    styles = styles_of(policies)
    dashes_of = DashesByColour()
    for label, names in lines.items():
        colour, marker = styles[names[0]]
        dashes, number, _ = dashes_of(colour)
        right = number % 2 == 1  # numbers of neighbouring lines apart
        reduction = [summaries[name].reduction or np.nan for name in names]
        points = _kept([change[name] for name in names], float_accuracy, measure)
        percent = points[:, 0]
        valid = all(summaries[name].analog_valid for name in names)
        bits = summaries[names[0]].index_bits_per_weight
        price = f"{index_bits_text(bits)} index bits"
        price += _net_text([summaries[name] for name in names])
        price += "" if valid else ", not analog-valid"
        axes.errorbar(
            reduction, percent, yerr=bars_of(points), color=colour, linestyle=dashes, marker=marker,
            markersize=5.5, markerfacecolor=colour if valid else PAPER, linewidth=1.1,
            elinewidth=0.9, capsize=2.5, label=f"{label} ({price})",
        )  # fmt: skip
        above = _above_line(percent, right)
        for name, x, y, over in zip(names, reduction, percent, above, strict=True):
            stucked, tolerance = policies[name].stucking.low, _tolerance(policies[name])
            texts = [f"±{tolerance}"] * (tolerance > 0) + [f"{stucked}"] * (stucked > 0)
            text = ", ".join(texts) if labels is None else labels[name]
            if text:
                axes.annotate(
                    text, (x, y), xytext=(5 if right else -4, 4 if over else -9),
                    textcoords="offset points", ha="left" if right else "right", fontsize=8,
                    color=colour,
                )  # fmt: skip
    axes.set_xscale("log")
    reductions_on(axes.xaxis)
    said = " (at points: low columns stucked; ± tolerance)" if labels is None else ""
    axes.set_xlabel(f"reduction in cell writes{said}")
    if labels is not None:  # room for words beside the first point
        axes.margins(x=0.12)
    _scores_on(axes, float_accuracy, measure)
    legend_below(figure)
    title = title or f"{measure.capitalize()} kept against writes saved"
    tidy(axes, title, grid=True)
    told = [
        f"{name} {summary.reduction:.2f}x at {_score_text(change[name], float_accuracy, measure)}"
        for name, summary in summaries.items()
        if summary.reduction is not None
    ]
    return described(figure, f"{title}, {_float_text(float_accuracy, measure)}: {listed(told)}.")


def _above_line(heights: Float[np.ndarray, " points"], right: bool) -> list[bool]:
    """Says which labels of a line go above their points, so that the line does not cross them.

    Args:
      heights: of the points, from left to right.
      right: labels are right of their points, otherwise left.
    """
    rises = np.diff(heights) > 0
    # the line leaves a point to the right, and comes to it from the left
    return [*(~rises).tolist(), True] if right else [False, *rises.tolist()]


def _net_text(line: Sequence[Priced]) -> str:
    """Writes what a line saves in energy, from its lowest to its highest point."""
    net = [one.net_reduction for one in line if one.net_reduction is not None]
    if not net:
        return ""
    ends = dict.fromkeys(f"{end:.2f}x" for end in (min(net), max(net)))
    return f", net energy {' to '.join(ends)}"


def _kept(
    change: Sequence[tuple[float, float, float]], reference: float, measure: str
) -> Float[np.ndarray, "names 3"]:
    """Gives accuracies, or by how much perplexities are above the float network's, in percent."""
    points = np.asarray(change)
    return 100 * (points - 1 if measure == "perplexity" else points + reference)


def _scores_on(axes: Axes, reference: float, measure: str) -> None:
    """Finishes the axis of accuracies, or of perplexities, with a line for the float network."""
    grows = measure == "perplexity"
    axes.axhline(
        0 if grows else 100 * reference, color=INK, linewidth=1, linestyle=(0, (4, 3)),
        label=_float_text(reference, measure),
    )  # fmt: skip
    if grows:
        axes.set_ylabel("perplexity added (%); bars: 95 %")
        return
    axes.set_ylabel("accuracy (%); bars: 95 %")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1), min(high, 101))  # intervals over few chips are wide


def _float_text(reference: float, measure: str) -> str:
    """Writes the accuracy, or the perplexity, of the float network."""
    grows = measure == "perplexity"
    text = f"perplexity {reference:.2f}" if grows else f"{100 * reference:.1f} %"
    return f"float network ({text})"


def _score_text(change: tuple[float, float, float], reference: float, measure: str) -> str:
    """Writes what is kept of an accuracy, or added to a perplexity, for an alt text."""
    mean = _kept([change], reference, measure)[0, 0]
    return f"{mean:+.1f} % perplexity" if measure == "perplexity" else f"{mean:.1f} %"


def accuracy_against_pulses(
    policies: Mapping[str, Policy],
    pulses: Mapping[str, int],
    change: Mapping[str, tuple[float, float, float]],
    float_accuracy: float,
    measure: str = "accuracy",
) -> Figure:
    """Draws what writes that fail cost in pulses against what is kept of the accuracy.

    Args:
      policies: by the name of the policy and of how it is written, as all that follows; a line
        joins those of one policy, fewest pulses first.
      pulses: that cells were given.
      change: of the accuracy against the float network, with the ends of its 95 % interval; shares
        of 1.
      float_accuracy: share of 1.
      measure: see `accuracy_against_reduction`.
    """
    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    styles = styles_of(policies)
    dashes_of = DashesByColour()
    lines: dict[str, list[str]] = {}
    for name, policy in policies.items():
        lines.setdefault(str(policy), []).append(name)
    for label, names in lines.items():
        names.sort(key=lambda name: pulses[name])
        colour, marker = styles[names[0]]
        points = _kept([change[name] for name in names], float_accuracy, measure)
        percent = points[:, 0]
        axes.errorbar(
            [pulses[name] for name in names], percent, yerr=bars_of(points), color=colour,
            linestyle=dashes_of(colour)[0], marker=marker, markersize=5.5, linewidth=1.1,
            elinewidth=0.9, capsize=2.5, label=label,
        )  # fmt: skip
    axes.set_xscale("log")
    counts_on(axes.xaxis)
    axes.set_xlabel("pulses to program the network")
    _scores_on(axes, float_accuracy, measure)
    legend_below(figure)
    title = f"{measure.capitalize()} kept against pulses, where writes fail"
    tidy(axes, title, grid=True)
    told = [
        f"{name} {count_text(pulses[name], 'pulse')} at "
        f"{_score_text(change[name], float_accuracy, measure)}"
        for names in lines.values() for name in names
    ]  # fmt: skip
    return described(figure, f"{title}, {_float_text(float_accuracy, measure)}: {listed(told)}.")
