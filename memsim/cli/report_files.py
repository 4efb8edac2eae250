"""The files of `memsim report`: JSON, a page, charts; and what draws them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import typer

from memsim.cli import options
from memsim.cli.encoding_options import Asked
from memsim.files.writing import write_text
from memsim.hardware.inference import InferenceCost
from memsim.service.ownership import ServiceLife
from memsim.streaming import Comparison

__all__ = ["Outputs", "ReportFiles", "draw_charts", "load_plot", "missing_plot"]

_CHARTS = ("writes_by_policy", "reduction_against_index_bits")
# Titles of the charts in the page, which shows the others as tables.
_TITLES = {
    "reduction_against_index_bits": "Reduction and its price",
    "chips_at_work": "Lifetime",
    "arrays_at_work": "Arrays at work",
}
_LEAST_POINTS = 3


class Outputs(NamedTuple):
    """The module that draws the charts, None where there is none, and their names and files."""

    plot: ModuleType | None
    charts: list[tuple[str, Path]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportFiles(options.ForceOption):
    """The files that a report is written to."""

    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT.json", help="all figures", rich_help_panel=options.OUTPUT
        ),
    ] = None
    html_out: Annotated[
        Path | None,
        typer.Option("--html", metavar="OUT.html", help="a page", rich_help_panel=options.OUTPUT),
    ] = None
    png_out: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="FOLDER", help="charts, in a folder", rich_help_panel=options.OUTPUT
        ),
    ] = None
    svg_out: Annotated[
        Path | None,
        typer.Option(
            "--svg", metavar="FOLDER", help="the same as SVG", rich_help_panel=options.OUTPUT
        ),
    ] = None
    pdf_out: Annotated[
        Path | None,
        typer.Option(
            "--pdf", metavar="FOLDER", help="the same as PDF", rich_help_panel=options.OUTPUT
        ),
    ] = None

    def check_files(self, more_charts: Sequence[str]) -> Outputs:
        """Checks that all outputs can be written, and finds what draws the charts.

        Args:
          more_charts: names of those that this report has beside `_CHARTS`.
        """
        folders = {"--png": self.png_out, "--svg": self.svg_out, "--pdf": self.pdf_out}
        named = {option: folder for option, folder in folders.items() if folder}
        plot = load_plot() if self.html_out or named else None
        every = {"--json": self.json_out, "--html": self.html_out}
        charts = []
        for option, folder in named.items():
            if not plot:
                raise ValueError(missing_plot(option, folder))
            # before long work, as all that can be refused
            folder.mkdir(parents=True, exist_ok=True)
            for name in (*_CHARTS, *more_charts):
                charts.append((name, folder / f"{name}.{option[2:]}"))
                every[f"{option} ({name})"] = charts[-1][1]
        options.check_outputs(every, self.force)
        return Outputs(plot, charts)

    def write_files(
        self, outputs: Outputs, document: Mapping[str, Any], figures: Mapping[str, Any]
    ) -> None:
        """Writes the JSON, the charts and the page, those that were asked for."""
        if self.json_out:
            write_text(self.json_out, json.dumps(document, indent=1), self.force)
        if outputs.plot:
            for name, path in outputs.charts:
                outputs.plot.save_chart(path, figures[name], document["made_by"], force=self.force)
        if self.html_out:
            from memsim.report.page import to_html  # slow to import

            pictures = {}
            if outputs.plot:
                drawn = {name: figure for name, figure in figures.items() if name in _TITLES}
                # of few points the table says more
                if len(document["policies"]) < _LEAST_POINTS:
                    del drawn["reduction_against_index_bits"]
                pictures = {_TITLES[name]: outputs.plot.to_svg(x) for name, x in drawn.items()}
            write_text(self.html_out, to_html(document, pictures=pictures), self.force)


def draw_charts(
    plot: ModuleType,
    asked: Asked,
    result: Comparison,
    lives: Mapping[str, ServiceLife],
    costs: Mapping[str, InferenceCost],
    document: Mapping[str, Any],
) -> dict[str, Any]:
    """Draws the figures of `_CHARTS`, by name, and lifetimes and inferences where there are any."""
    policies = {row: each.policy for row, each in asked.rows.items()}
    encodings = {row: each.config.encoding for row, each in asked.rows.items()}
    figures = {
        "writes_by_policy": plot.writes_by_policy(result.policies),
        "reduction_against_index_bits": plot.reduction_against_index_bits(
            policies, result.policies, encodings if asked.choice else None
        ),
    }
    # those of `more_charts`
    if lives:
        years = {name: life.years for name, life in lives.items()}
        pool = document["lifetime"]["pool"]
        figures["chips_at_work"] = plot.chips_at_work(policies, years, pool)
    if costs:
        best = min(costs, key=lambda name: costs[name].total_joules)
        timeline = costs[best].timeline
        if timeline is not None:
            figures["arrays_at_work"] = plot.arrays_at_work(timeline, best)
    return figures


def missing_plot(option: str, path: Path) -> str:
    """Says what to install where an option asks for a chart and nothing draws it."""
    return f'`{option}` {path} needs matplotlib: pip install "memsim[plot]".'


def load_plot() -> ModuleType | None:
    """Imports `memsim.plot`, where matplotlib is installed; slow to import."""
    try:
        from memsim import plot
    except ImportError:
        return None
    return plot
