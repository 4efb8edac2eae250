"""Draws many chips: accuracy of each, yield, years in service; and the wear of one crossbar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from memsim.config import CrossbarConfig
from memsim.plot.style import (
    INK,
    PAPER,
    SOFT,
    DashesByColour,
    bars_of,
    described,
    legend_below,
    listed,
    new_figure,
    styles_of,
    tidy,
    whole_numbers_on,
)
from memsim.policies import Policy
from memsim.report._colours import is_policy, style_of
from memsim.report._columns import NEGATIVE, columns_of_word
from memsim.report.texts import count_text, time_text
from memsim.service.lifetime import DAYS_PER_YEAR

__all__ = ["accuracy_over_chips", "chips_at_work", "wear_map", "yield_against_stuck_rate"]

# Ticks of a time axis, in days.
_TIMES = {
    "1 s": 1 / 86400, "10 s": 10 / 86400, "1 min": 1 / 1440, "3 min": 3 / 1440,
    "10 min": 10 / 1440, "30 min": 30 / 1440, "1 h": 1 / 24, "3 h": 3 / 24, "10 h": 10 / 24,
    "1 day": 1, "3 days": 3, "10 days": 10, "30 days": 30, "100 days": 100,
    "1 year": DAYS_PER_YEAR,
}  # fmt: skip
_TIMES |= {f"{n:,} years": n * DAYS_PER_YEAR for n in (3, 10, 30, 100, 1000, 10**4, 10**6)}


def accuracy_over_chips(
    float_accuracy: float, series: Mapping[str, Sequence[float]], measure: str = "accuracy"
) -> Figure:
    """Draws the accuracy of every chip, a row of dots per series, against the float network.

    Args:
      float_accuracy: share of 1.
      series: shares of 1, one per chip, by what was done.
      measure: `accuracy`; or `perplexity`: all figures are perplexities.
    """
    figure = new_figure(8, 1.2 + 0.75 * len(series))
    axes = figure.subplots()
    share = measure == "accuracy"
    scale = 100 if share else 1

    def text(value: float) -> str:
        return f"{100 * value:.1f} %" if share else f"{value:.2f}"

    for row, (name, values) in enumerate(series.items()):
        figures = scale * np.asarray(values)
        spread = np.linspace(-0.22, 0.22, figures.size)[np.argsort(np.argsort(figures))]
        # rows say what was done; only policies have colours of their own
        colour = style_of(name)[0] if is_policy(name) else SOFT
        axes.scatter(figures, row + spread, s=16, color=colour, alpha=0.75, linewidth=0)
        axes.plot([figures.mean()] * 2, [row - 0.33, row + 0.33], color=INK, linewidth=2)
    axes.axvline(scale * float_accuracy, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    low, high = axes.get_xlim()
    left = scale * float_accuracy > (low + high) / 2  # where there is room
    axes.annotate(
        f" float {text(float_accuracy)} ", (scale * float_accuracy, -0.62),
        color=INK, fontsize=9, ha="right" if left else "left", va="center",
    )  # fmt: skip
    labels = [f"{name}\nmean {text(float(np.mean(values)))}" for name, values in series.items()]
    axes.set_yticks(range(len(series)), labels)
    axes.set_ylim(len(series) - 0.5, -0.8)
    unit = "test accuracy (%)" if share else "perplexity"
    axes.set_xlabel(f"{unit}: a dot is a chip, a bar the mean")
    tidy(axes, f"{measure.capitalize()} of each chip")
    told = [
        f"{name} {text(min(values))} to {text(max(values))}, mean {text(float(np.mean(values)))}, "
        f"of {count_text(len(values), 'chip')}"
        for name, values in series.items()
    ]
    against = f"float network {text(float_accuracy)}"
    return described(figure, f"Dots of the {measure} of each chip, {against}: {listed(told)}.")


def yield_against_stuck_rate(
    policies: Mapping[str, Policy],
    yields: Mapping[str, Mapping[float, tuple[float, float, float]]],
    accuracy: float,
) -> Figure:
    """Draws how many chips still work, a line per policy over the share of cells that are stuck.

    Args:
      policies: by name.
      yields: by name and share of cells stuck, the share of chips and the ends of its 95 %
        interval.
      accuracy: from which on a chip works, share of 1.
    """
    figure = new_figure(8, 4.2 + 0.11 * len(yields))
    axes = figure.subplots()
    styles = styles_of(policies)
    dashes_of = DashesByColour()
    rates = sorted({rate for line in yields.values() for rate in line})
    for number, (name, line) in enumerate(yields.items()):
        colour, marker = styles[name]
        dashes, _, face = dashes_of(colour)
        # beside each other, so that bars do not hide each other
        aside = ScaledTranslation(
            (number - (len(yields) - 1) / 2) * 3 / 72, 0, figure.dpi_scale_trans
        )
        at = sorted(line)
        points = 100 * np.asarray([line[rate] for rate in at])
        axes.errorbar(
            [100 * rate for rate in at], points[:, 0],
            yerr=bars_of(points), color=colour, linestyle=dashes,
            marker=marker, markersize=5.5, markerfacecolor=face, linewidth=1.1, elinewidth=0.9,
            capsize=2.5, label=name, transform=axes.transData + aside,
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
    legend_below(figure)
    title = f"Chips that keep an accuracy of {100 * accuracy:.1f} %"
    tidy(axes, title, grid=True)
    told = [
        f"{name} "
        + " and ".join(
            f"{100 * line[at][0]:.1f} % with {100 * at:g} %"
            for at in dict.fromkeys((min(line), max(line)))
        )
        for name, line in yields.items()
    ]
    return described(figure, f"{title}, share of them by cells stuck: {listed(told)}.")


def chips_at_work(
    policies: Mapping[str, Policy],
    years: Mapping[str, Float[np.ndarray, " chips"]],
    pool: str,
) -> Figure:
    """Draws how many chips have not failed yet, a line per policy over the time in service.

    Args:
      policies: by name.
      years: by name, until each chip fails; infinity for one that never does.
      pool: what crossbars a chip has, in words, for the title; see `report.texts.pool_text`.
    """
    figure = new_figure(8, 3.8 + 0.11 * len(years))
    axes = figure.subplots()
    styles = styles_of(policies)
    dashes_of = DashesByColour()
    ends = np.concatenate([*years.values()])
    ends = ends[np.isfinite(ends)]
    places = np.asarray([*_TIMES.values()]) / DAYS_PER_YEAR
    low, high = np.searchsorted(places, (min(ends, default=1), max(ends, default=1)))
    # the axis starts and ends at a tick
    shown = slice(min(max(low - 1, 0), places.size - 2), high + 1)
    ticks = places[shown]
    for number, (name, of_chips) in enumerate(years.items()):
        colour, marker = styles[name]
        dashes, _, face = dashes_of(colour)
        fails = np.sort(of_chips[np.isfinite(of_chips)])
        left = 100 * (1 - np.arange(fails.size + 1) / of_chips.size)
        axes.step(
            [ticks[0], *fails, ticks[-1]], [*left, left[-1]], where="post", color=colour,
            linestyle=dashes, linewidth=1.5, marker=marker, markersize=5, markerfacecolor=face,
            # at other places of each line, so that lines that fall together are seen
            markevery=(0.03 + 0.13 * number / len(years), 0.13),
            label=f"{name} (half: {time_text(np.median(of_chips))})",
        )  # fmt: skip
    axes.axhline(50, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_xticks(ticks, list(_TIMES)[shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(ticks[0], ticks[-1])
    axes.set_ylim(-3, 103)
    axes.set_xlabel("time in service")
    axes.set_ylabel("chips that have not failed (%)")
    legend_below(figure)
    tidy(axes, f"Chips still at work: {pool} each", grid=True)
    told = [
        f"half of {count_text(of_chips.size, 'chip')} under {name} by {_end_text(of_chips)}"
        for name, of_chips in years.items()
    ]
    return described(figure, f"Lines of the chips that have not failed, {pool}: {listed(told)}.")


def _end_text(years: Float[np.ndarray, " chips"]) -> str:
    """Writes when half of the chips have failed, and when all have."""
    half, all_of_them = (time_text(float(end)) for end in (np.median(years), np.max(years)))
    return f"{half}, all by {all_of_them}"


def wear_map(
    wear: Mapping[str, Shaped[np.ndarray, "rows columns"]], config: CrossbarConfig | None = None
) -> Figure:
    """Draws the writes of each cell of one crossbar, a panel per policy, on one scale of colours.

    Args:
      wear: by policy, the writes of a crossbar's cells: `programming.wear[crossbar]`.
      config: the crossbars: lines tell the halves of differential words apart.

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
    titles = [
        f"{name}\nat most {count_text(int(cells.max()), 'write')}" for name, cells in panels.items()
    ]
    widths = [
        max(1.3, 0.13 * cells.shape[1], 0.075 * max(map(len, title.split("\n"))))
        for title, cells in zip(titles, panels.values(), strict=True)
    ]
    figure = new_figure(1.6 + sum(widths) + 0.15 * len(widths), 4.6)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=widths)[0]
    colours = LinearSegmentedColormap.from_list(
        "wear", ("#f3f6fa", "#8fb0da", "#3b6fb6", "#142440")
    )
    for each, title, cells in zip(axes, titles, panels.values(), strict=True):
        image = each.imshow(
            cells, cmap=colours, vmin=0, vmax=most, aspect="auto", interpolation="nearest"
        )
        tidy(each, "")
        each.set_title(title, loc="left", fontsize=8.5, color=INK)
        columns = range(0, cells.shape[1], 1 if cells.shape[1] <= 10 else 5)
        each.set_xticks(columns, list(map(str, columns)))
        each.spines[:].set_visible(False)
        each.tick_params(length=0)
        for start in _halves_at(config, cells.shape[1]):
            each.axvline(start - 0.5, color=PAPER, linewidth=3)
            each.axvline(start - 0.5, color=INK, linewidth=1)
    axes[0].yaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes[0].set_ylabel("row of the crossbar")
    text = "column of the crossbar (0: low-order bit)"
    if config is not None and config.encoding == "differential":
        text += "\nlines: positive half | negative half"
    figure.supxlabel(text, fontsize=10, color=SOFT)
    figure.suptitle(
        "Writes of each cell", x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold"
    )
    bar = figure.colorbar(image, ax=list(axes), aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT, labelsize=9, length=0)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    whole_numbers_on(bar.ax.yaxis)
    bar.set_label("writes", color=SOFT)
    told = [
        f"{name} at most {count_text(int(cells.max()), 'write')}, mean {cells.mean():,.1f}"
        for name, cells in panels.items()
    ]
    return described(figure, f"Maps of the writes of each cell of a crossbar: {listed(told)}.")


def _halves_at(config: CrossbarConfig | None, number: int) -> list[int]:
    """Lists the columns of a crossbar at which the negative half of a word starts."""
    if config is None or config.encoding != "differential":
        return []
    width = config.cells_per_word
    word = columns_of_word(config.encoding, config.bits, config.cell_bits, width)
    starts = [at for at, column in enumerate(word) if column.part == NEGATIVE][:1]
    return [
        at + start for at in range(0, number, width) for start in starts if at + width <= number
    ]
