"""Options of what programming costs in a service: cells, lifetime, prices; and what they add."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import rich.console
import typer

from memsim.cells.prices import scheme_costs
from memsim.cells.pulses import HFO2, PCM, ConstantPulses, Scheme
from memsim.report.tables import scheme_table, worth_tables
from memsim.report.texts import lifetime_title
from memsim.service.costs import Assumptions, assume, assumptions_json, read_assumptions
from memsim.service.ownership import LEVELLING, Worth, worth, worth_json
from memsim.streaming import Comparison

__all__ = ["ServiceOptions"]

_CELLS: dict[str, Mapping[str, Scheme]] = {"hfo2": HFO2, "pcm": PCM}
# Pulses that succeed, on no cells in particular.
_ALWAYS: Mapping[str, Scheme] = {"constant": ConstantPulses()}
_PANEL = "Cells and lifetime"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """The cells, and how long they last in a service."""

    cells: Annotated[
        str | None,
        typer.Option(
            help=f"write time and energy on cells of {' or '.join(_CELLS)}, per scheme",
            rich_help_panel=_PANEL,
        ),
    ] = None
    lifetime: Annotated[
        bool,
        typer.Option(
            "--lifetime", help="years until a cell fails, by a steady pass", rich_help_panel=_PANEL
        ),
    ] = False
    cost: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="prices: with --lifetime, also cost",
            rich_help_panel=_PANEL,
        ),
    ] = None
    scheme: Annotated[
        str | None,
        typer.Option(
            help="of --cells, whose write time and energy --lifetime takes",
            show_default="constant",
            rich_help_panel=_PANEL,
        ),
    ] = None
    levelling: Annotated[
        str,
        typer.Option(
            help=f"what rotates for --lifetime: {', '.join(LEVELLING)}", rich_help_panel=_PANEL
        ),
    ] = "none"
    spares: Annotated[
        int,
        typer.Option(
            min=0,
            help="rows per crossbar that replace worn ones for --lifetime",
            rich_help_panel=_PANEL,
        ),
    ] = 0

    def check(self) -> None:
        """Checks names before anything long.

        Raises:
          ValueError: cells, a scheme of them, or a levelling that there is not.
        """
        if self.cells not in (None, *_CELLS):
            raise ValueError(f"`--cells` is {self.cells!r}; give {' or '.join(_CELLS)}.")
        if self.scheme_name not in self.schemes:
            raise ValueError(
                f"`--scheme` is {self.scheme!r}; choose one of {', '.join(self.schemes)}"
                + ("." if self.cells else ", or give --cells, which has more.")
            )
        if self.levelling not in LEVELLING:
            raise ValueError(
                f"`levelling` is {self.levelling!r}; choose one of {', '.join(LEVELLING)}."
            )

    @property
    def schemes(self) -> Mapping[str, Scheme]:
        """The schemes of writing the cells, by name."""
        return _CELLS[self.cells] if self.cells else _ALWAYS

    @property
    def scheme_name(self) -> str:
        """The scheme whose write time and energy count for the lifetime."""
        return self.scheme or "constant"

    def assumptions(self) -> Assumptions:
        """Reads the endurance and the prices, or gives the defaults."""
        kind = self.cells or "hfo2"
        return read_assumptions(self.cost, kind) if self.cost else assume(cells=kind)

    def lifetimes(
        self, result: Comparison, assumptions: Assumptions, seed: int
    ) -> dict[str, Worth]:
        """Gives lifetime and cost of each policy; none unless asked."""
        scheme = self.schemes[self.scheme_name]
        return {
            name: worth(
                *last, assumptions, seed,
                scheme=scheme, levelling=self.levelling, spares=self.spares,
            )
            for name, last in result.steady.items()
        }  # fmt: skip

    def add_to(
        self,
        document: dict[str, Any],
        result: Comparison,
        assumptions: Assumptions,
        lifetimes: Mapping[str, Worth],
    ) -> None:
        """Adds what was asked for to the JSON of a report."""
        if self.cells:
            fields = {name: dataclasses.asdict(each) for name, each in self.schemes.items()}
            document["cells"] = {"name": self.cells, "schemes": fields}
            for name, costs in scheme_costs(result.policies, self.schemes).items():
                document["policies"][name]["schemes"] = costs
        if self.lifetime:
            upkeep = {
                "cells": self.cells,
                "scheme": self.scheme_name,
                "levelling": self.levelling,
                "spares": self.spares,
                "priced": bool(self.cost),
            }
            document["lifetime"] = assumptions_json(assumptions) | upkeep
            for name, found in lifetimes.items():
                document["policies"][name]["lifetime"] = worth_json(found)

    def print_to(
        self,
        console: rich.console.Console,
        document: Mapping[str, Any],
        assumptions: Assumptions,
        lifetimes: Mapping[str, Worth],
    ) -> None:
        """Prints the tables of what was asked for."""
        if self.cells:
            console.print(scheme_table(document))
            for name, each in self.schemes.items():
                if each.placeholders:
                    missing = ", ".join(each.placeholders)
                    console.print(
                        f"{name}*: placeholders, nobody publishes {missing}", markup=False
                    )
        if self.lifetime:
            title = lifetime_title(document)
            for table in worth_tables(lifetimes, assumptions, title, bool(self.cost)):
                console.print(table)
            console.print(
                "A cell wears by every change of its state, one write; pulses and retries of a "
                "scheme do not count. With a batch of 1 every inference takes a programming of its "
                "own."
            )
