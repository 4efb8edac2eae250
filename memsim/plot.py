"""Charts as matplotlib figures: returned, never shown. Needs the extra `plot`."""

import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.optimize
from jaxtyping import Shaped

from memsim.config import Policy
from memsim.report import Summary, index_bits_text

try:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
    from matplotlib.transforms import ScaledTranslation
except ImportError as error:
    raise ImportError('memsim.plot needs matplotlib: pip install "memsim[plot]"') from error

_INK, _SOFT, _BAR, _GOOD, _BAD = "#1c2430", "#5d6b7d", "#3b6fb6", "#2f8f5b", "#b4552d"
_STYLES = {
    "unsorted": (_SOFT, "s"), "sws": (_BAR, "o"), "sws-layer": (_BAD, "D"), "matched": (_GOOD, "^"),
}  # fmt: skip
_OTHER_STYLES = (("#7a4fa3", "v"), ("#1f8a96", "P"), ("#9a7317", "X"), ("#b03a72", "<"))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _tidy(axes, title: str) -> None:  # type: ignore[no-untyped-def]  # matplotlib is untyped here
    axes.set_title(title, loc="left", fontsize=11, color=_INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c1cc")
    axes.tick_params(colors=_SOFT, labelsize=9)
    axes.xaxis.label.set_color(_SOFT)
    axes.yaxis.label.set_color(_SOFT)


def _styles(policies: Mapping[str, Policy]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name: those of its placement."""
    heads = {name: str(policy.placing).partition(":")[0] for name, policy in policies.items()}
    others = [head for head in dict.fromkeys(heads.values()) if head not in _STYLES]
    styles = _STYLES | dict(zip(others, _OTHER_STYLES * len(others), strict=False))
    return {name: styles[head] for name, head in heads.items()}


def _reductions_on(axis) -> None:  # type: ignore[no-untyped-def]
    """Ticks 1x, 2x, 5x, 10x on a log axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}x")


def accuracy_over_chips(float_accuracy: float, series: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy of every chip, a row of dots per series, against the float network.

    Args:
      float_accuracy: share of 1.
      series: shares of 1, one per chip, by what was done.
    """
    figure = _figure(8, 1.2 + 0.75 * len(series))
    axes = figure.subplots()
    colours = (_BAD, _GOOD, _BAR, _SOFT)
    for row, values in enumerate(series.values()):
        percent = 100 * np.asarray(values)
        spread = np.linspace(-0.22, 0.22, percent.size)[np.argsort(np.argsort(percent))]
        colour = colours[row % len(colours)]
        axes.scatter(percent, row + spread, s=16, color=colour, alpha=0.75, linewidth=0)
        axes.plot([percent.mean()] * 2, [row - 0.33, row + 0.33], color=colour, linewidth=2)
    axes.axvline(100 * float_accuracy, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"float {100 * float_accuracy:.1f} % ", (100 * float_accuracy, -0.62),
        color=_INK, fontsize=9, ha="right", va="center",
    )  # fmt: skip
    means = {name: 100 * np.mean(values) for name, values in series.items()}
    labels = [f"{name}\nmean {mean:.1f} %" for name, mean in means.items()]
    axes.set_yticks(range(len(series)), labels)
    axes.set_ylim(len(series) - 0.5, -0.8)
    axes.set_xlabel("test accuracy (%): a dot is a chip, a bar the mean")
    _tidy(axes, "Accuracy of each chip")
    return figure


def writes_by_policy(policies: Mapping[str, Summary]) -> Figure:
    """Writes under each policy, labelled with the reduction and its price."""
    figure = _figure(8, 0.9 + 0.5 * len(policies))
    axes = figure.subplots()
    writes = [summary.writes for summary in policies.values()]
    axes.barh(range(len(policies)), writes, color=_BAR, height=0.62)
    for row, summary in enumerate(policies.values()):
        label = "" if summary.reduction is None else f"{summary.reduction:.2f}x fewer"
        if summary.reduction == 1:
            label = "baseline"
        label += f", {index_bits_text(summary.index_bits_per_weight)} index bits" if label else ""
        label += "" if summary.analog_valid else ", not analog-valid"
        axes.annotate(
            f" {summary.writes:,}  {label}", (summary.writes, row), fontsize=8.5, color=_SOFT,
            va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(policies)), list(policies))
    axes.set_ylim(len(policies) - 0.4, -0.6)
    axes.set_xlim(0, 1.9 * max([*writes, 1]))
    axes.set_xlabel("cell writes to program the network")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _tidy(axes, "Writes under each policy")
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
) -> Figure:
    """What each policy saves in writes against what it keeps of the accuracy.

    Args:
      policies: by name; one without bit stucking starts the lines, one for each p; `matched` is one
        line over tolerances.
      summaries: what they write.
      change: of the accuracy against the float network, with the ends of its 95 % interval; shares
        of 1.
      float_accuracy: share of 1.
    """
    lines = _lines(policies)
    figure = _figure(8, 4.2 + 0.11 * len(lines))
    axes = figure.subplots()
    styles = _styles(policies)
    drawn: Counter[str] = Counter()
    for label, names in lines.items():
        colour, marker = styles[names[0]]
        dashes = ("-", "--", ":", "-.")[drawn[colour] % 4]
        side = (5, 4) if drawn[colour] % 2 else (-9, -9)  # numbers of neighbouring lines apart
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
            if number := policies[name].low_columns or policies[name].tolerance:
                axes.annotate(
                    f"{number}", (x, y), xytext=side, textcoords="offset points", fontsize=8,
                    color=colour,
                )  # fmt: skip
    axes.axhline(
        100 * float_accuracy, color=_INK, linewidth=1, linestyle=(0, (4, 3)),
        label=f"float network ({100 * float_accuracy:.1f} %)",
    )  # fmt: skip
    axes.set_xscale("log")
    _reductions_on(axes.xaxis)
    axes.set_xlabel(
        "reduction in cell writes (numbers: stucked low columns; of matched, the tolerance)"
    )
    axes.set_ylabel("accuracy (%); bars: 95 % of its change")
    axes.grid(color="#edf0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1), min(high, 101))  # intervals over few chips are wide
    figure.legend(fontsize=8.5, labelcolor=_INK, loc="outside lower center", ncols=2, frameon=False)
    _tidy(axes, "Accuracy kept against writes saved")
    return figure


def yield_against_stuck_rate(
    policies: Mapping[str, Policy],
    yields: Mapping[str, Mapping[float, tuple[float, float, float]]],
    accuracy: float,
) -> Figure:
    """How many chips still work, a line per policy over the share of cells that are stuck.

    Args:
      policies: by name.
      yields: by name and share of cells stuck, the share of chips and the ends of its 95 %
        interval.
      accuracy: from which on a chip works, share of 1.
    """
    figure = _figure(8, 4.2 + 0.11 * len(yields))
    axes = figure.subplots()
    styles = _styles(policies)
    drawn: Counter[str] = Counter()
    rates = sorted({rate for line in yields.values() for rate in line})
    for number, (name, line) in enumerate(yields.items()):
        colour, marker = styles[name]
        dashes = ("-", "--", ":", "-.")[drawn[colour] % 4]
        drawn[colour] += 1
        # beside each other, so that bars do not hide each other
        aside = ScaledTranslation(
            (number - (len(yields) - 1) / 2) * 3 / 72, 0, figure.dpi_scale_trans
        )
        at = sorted(line)
        points = 100 * np.asarray([line[rate] for rate in at])
        axes.errorbar(
            [100 * rate for rate in at], points[:, 0],
            yerr=np.abs(points[:, 1:] - points[:, :1]).T, color=colour, linestyle=dashes,
            marker=marker, markersize=5.5, linewidth=1.1, elinewidth=0.9, capsize=2.5, label=name,
            transform=axes.transData + aside,
        )  # fmt: skip
    positive = [100 * rate for rate in rates if rate]
    if positive:
        axes.set_xscale("symlog", linthresh=min(positive))  # 0 has its place
    axes.set_xticks([100 * rate for rate in rates], [f"{100 * rate:g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    scale = axes.xaxis.get_transform()
    first, *_, last = scale.transform(100 * np.asarray([rates[0], *rates]))
    room = 0.06 * (last - first) or 1.0
    axes.set_xlim(*scale.inverted().transform(np.asarray([first - room, last + room])))
    axes.set_ylim(-3, 103)
    axes.set_xlabel("share of cells stuck (%), half at each level")
    axes.set_ylabel("yield (% of chips); bars: 95 %")
    axes.grid(color="#edf0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(fontsize=8.5, labelcolor=_INK, loc="outside lower center", ncols=2, frameon=False)
    _tidy(axes, f"Chips that keep an accuracy of {100 * accuracy:.1f} %")
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
    figure = _figure(9, max(4.0, 1.3 + 0.2 * len(names)))
    axes = figure.subplots()
    axes.set_yscale("log")
    reductions = [points[name][1] for name in names]
    axes.set_ylim(0.87 * min([*reductions, 1]), 1.15 * max([*reductions, 2]))
    widest = max([1.0, *(bits for bits, _ in points.values())])
    axes.set_xlim(-0.05 * widest, 1.05 * widest)

    styles = _styles(policies)
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
    _row(axes, 1 + 0.8 * gap, ("reduction", "index bits", "policy"), _SOFT)
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
        _row(axes, row, (f"{reduction:.2f}x", price, str(policies[name])), _INK)
    _reductions_on(axes.yaxis)
    axes.set_xlabel("index bits per weight: the routing memory of the placement")
    axes.set_ylabel("reduction in cell writes")
    axes.grid(color="#edf0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    keys = [
        Line2D([], [], color=_SOFT, marker="o", linestyle="none", markerfacecolor=face, label=label)
        for face, label in ((_SOFT, "analog-valid"), ("white", "not analog-valid"))
    ]
    figure.legend(
        handles=keys, ncols=2, frameon=False, fontsize=8.5, labelcolor=_INK,
        loc="outside lower right",
    )  # fmt: skip
    _tidy(axes, "Writes saved against routing memory")
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


def writes_per_column(policies: Mapping[str, Summary]) -> Figure:
    """Writes of each crossbar column, one line per policy; column 0 is the low order."""
    figure = _figure(8, 3.4)
    axes = figure.subplots()
    for (name, summary), colour in zip(
        policies.items(), [_SOFT, _BAR, _GOOD, _BAD] * len(policies), strict=False
    ):
        columns = np.arange(len(summary.writes_per_column))
        axes.plot(columns, summary.writes_per_column, "o-", color=colour, label=name, markersize=4)
    axes.set_ylim(bottom=0)
    axes.set_xticks(columns)
    axes.set_xlabel("column of the crossbar (0: low-order bit)")
    axes.set_ylabel("cell writes")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK)
    _tidy(axes, "Where the writes go")
    return figure


def wear_map(wear: Mapping[str, Shaped[np.ndarray, "rows columns"]]) -> Figure:
    """Writes of each cell of one crossbar, a panel per policy, on one scale of colours.

    Args:
      wear: by policy, the writes of a crossbar's cells: `programming.wear[crossbar]`.

    Raises:
      ValueError: of several crossbars, or chips.
    """
    panels = {name: np.asarray(cells) for name, cells in wear.items()}
    for name, cells in panels.items():
        if cells.ndim != 2:
            raise ValueError(
                f"`wear` of {name} has shape {cells.shape}, expected [rows, columns]; choose one "
                "crossbar, `programming.wear[0]`."
            )
    most = max(1, *(int(cells.max()) for cells in panels.values()))
    titles = [f"{name}\nat most {cells.max():,} writes" for name, cells in panels.items()]
    widths = [
        max(1.3, 0.13 * cells.shape[1], 0.075 * max(map(len, title.split("\n"))))
        for title, cells in zip(titles, panels.values(), strict=True)
    ]
    figure = _figure(1.6 + sum(widths) + 0.15 * len(widths), 4.6)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=widths)[0]
    colours = LinearSegmentedColormap.from_list("wear", ("#f3f6fa", "#8fb0da", _BAR, "#142440"))
    for each, title, cells in zip(axes, titles, panels.values(), strict=True):
        image = each.imshow(
            cells, cmap=colours, vmin=0, vmax=most, aspect="auto", interpolation="nearest"
        )
        _tidy(each, "")
        each.set_title(title, loc="left", fontsize=8.5, color=_INK)
        columns = range(0, cells.shape[1], 1 if cells.shape[1] <= 10 else 5)
        each.set_xticks(columns, list(map(str, columns)))
        each.spines[:].set_visible(False)
        each.tick_params(length=0)
    axes[0].yaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes[0].set_ylabel("row of the crossbar")
    figure.supxlabel("column of the crossbar (0: low-order bit)", fontsize=10, color=_SOFT)
    figure.suptitle(
        "Writes of each cell", x=0.01, ha="left", fontsize=11, color=_INK, fontweight="bold"
    )
    bar = figure.colorbar(image, ax=list(axes), aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_SOFT, labelsize=9, length=0)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    bar.set_label("writes", color=_SOFT)
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element, for `to_html`; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "memsim"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
