"""Options of what programming costs in a service: cells, lifetime, prices; and what they add."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import rich.console
import typer

from memsim.cells.prices import fitting_schemes, scheme_costs
from memsim.cells.pulses import CELLS, ConstantPulses, Scheme
from memsim.cli.options import PHYSICS, flag, one_of
from memsim.config import CrossbarConfig
from memsim.report.documents import Upkeep, lifetime_json, service_life_json
from memsim.report.tables import lifetime_tables, scheme_table
from memsim.report.texts import lifetime_title, wear_text
from memsim.service.costs import ServiceInputs, make_service_inputs, read_service_inputs
from memsim.service.ownership import LEVELLING, Levelling, ServiceLife, life_in_service
from memsim.service.wear import wear_cycles
from memsim.streaming import Comparison

__all__ = ["ServiceOptions"]

# Pulses that succeed, on no cells in particular.
_ALWAYS: Mapping[str, Scheme] = {"constant": ConstantPulses()}
_SCHEMES = tuple(dict.fromkeys(name for schemes in CELLS.values() for name in schemes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """The cells, and how long they last in a service."""

    cells: Annotated[
        str | None,
        typer.Option(
            help=f"write time and energy on cells of {' or '.join(CELLS)}, per scheme",
            autocompletion=one_of(CELLS),
            rich_help_panel=PHYSICS,
        ),
    ] = None
    lifetime: Annotated[
        bool,
        flag("--lifetime", "years until a cell of the crossbars fails, by a steady pass", PHYSICS),
    ] = False
    cost: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="prices: with --lifetime, also cost",
            rich_help_panel=PHYSICS,
        ),
    ] = None
    scheme: Annotated[
        str | None,
        typer.Option(
            help="of --cells, whose write time and energy --lifetime takes",
            show_default="constant",
            autocompletion=one_of(_SCHEMES),
            rich_help_panel=PHYSICS,
        ),
    ] = None
    levelling: Annotated[
        str,
        typer.Option(
            help=f"what rotates for --lifetime: {', '.join(LEVELLING)}",
            autocompletion=one_of(LEVELLING),
            rich_help_panel=PHYSICS,
        ),
    ] = "none"
    spares: Annotated[
        int,
        typer.Option(
            min=0,
            help="rows per crossbar that replace worn ones for --lifetime",
            rich_help_panel=PHYSICS,
        ),
    ] = 0

    def check(self, config: CrossbarConfig) -> None:
        """Checks names before anything long.

        Raises:
          ValueError: cells, a scheme of them, or a levelling that there is not; cells that have no
            figures for so many bits.
        """
        if self.cells not in (None, *CELLS):
            raise ValueError(f"`--cells` is {self.cells!r}; give {' or '.join(CELLS)}.")
        if self.levelling not in LEVELLING:
            raise ValueError(
                f"`--levelling` is {self.levelling!r}; choose one of {', '.join(LEVELLING)}."
            )
        every = self._every_scheme
        if self.scheme_name not in every:
            raise ValueError(
                f"`--scheme` is {self.scheme!r}; choose one of {', '.join(every)}"
                + ("." if self.cells else ", or give --cells, which has more.")
            )
        if not (self.cells or self.lifetime):
            return
        fitting = self.schemes(config)
        if not fitting or (self.lifetime and self.scheme_name not in fitting):
            what = f"--cells {self.cells}" if self.cells else "pulses without --cells"
            remedy = f"--scheme {' or '.join(fitting)}" if fitting else "cells of one bit"
            remedy = remedy if self.cells else f"{remedy}, or --cells that have them"
            raise ValueError(
                f"`--cell-bits` is {config.cell_bits}, but the {self.scheme_name} scheme of {what} "
                f"has no figures for so many levels; give {remedy}."
            )

    def schemes(self, config: CrossbarConfig) -> Mapping[str, Scheme]:
        """Gives the schemes that have figures for these cells, by name."""
        return fitting_schemes(self._every_scheme, config.cell_bits)

    @property
    def _every_scheme(self) -> Mapping[str, Scheme]:
        return CELLS[self.cells] if self.cells else _ALWAYS

    @property
    def scheme_name(self) -> str:
        """The scheme whose write time and energy count for the lifetime."""
        return self.scheme or "constant"

    def inputs(self) -> ServiceInputs:
        """Reads the endurance and the prices, or gives the defaults."""
        kind = self.cells or "hfo2"
        return (
            read_service_inputs(self.cost, kind) if self.cost else make_service_inputs(cells=kind)
        )

    def lives(
        self,
        result: Comparison,
        configs: Mapping[str, CrossbarConfig],
        inputs: ServiceInputs,
        seed: int,
    ) -> dict[str, ServiceLife]:
        """Works out lifetime and cost of each policy, on its crossbars; none unless asked."""
        return {
            name: life_in_service(
                last.summary,
                inputs,
                cycles=[np.asarray(wear_cycles(writes, configs[name])) for writes in last.wear],
                seed=seed,
                scheme=self._every_scheme[self.scheme_name],
                levelling=cast(Levelling, self.levelling),
                spares=self.spares,
            )
            for name, last in result.steady.items()
        }

    def add_to(
        self,
        document: dict[str, Any],
        result: Comparison,
        config: CrossbarConfig,
        inputs: ServiceInputs,
        lives: Mapping[str, ServiceLife],
    ) -> None:
        """Adds what was asked for to the JSON of a report."""
        if self.cells:
            schemes = self.schemes(config)
            fields = {name: dataclasses.asdict(each) for name, each in schemes.items()}
            document["cells"] = {"name": self.cells, "schemes": fields}
            for name, costs in scheme_costs(result.policies, schemes).items():
                document["policies"][name]["schemes"] = costs
        if self.lifetime:
            upkeep = Upkeep(
                self.cells, self.scheme_name, cast(Levelling, self.levelling), self.spares
            )
            document["lifetime"] = lifetime_json(inputs, config, upkeep, bool(self.cost))
            for name, life in lives.items():
                document["policies"][name]["lifetime"] = service_life_json(life)

    def print_to(
        self,
        console: rich.console.Console,
        document: Mapping[str, Any],
        inputs: ServiceInputs,
        lives: Mapping[str, ServiceLife],
    ) -> None:
        """Prints the tables of what was asked for."""
        if self.cells:
            console.print(scheme_table(document))
            left_out = [n for n in self._every_scheme if n not in document["cells"]["schemes"]]
            if left_out:
                listed = ", ".join(left_out)
                console.print(f"not priced, figures are of cells of one bit: {listed}")
            for name, each in document["cells"]["schemes"].items():
                if each["placeholders"]:
                    missing = ", ".join(each["placeholders"])
                    console.print(
                        f"{name}*: placeholders, nobody publishes {missing}", markup=False
                    )
        if self.lifetime:
            title = lifetime_title(document)
            for table in lifetime_tables(lives, inputs, title, bool(self.cost)):
                console.print(table)
            console.print(
                f"{wear_text(document)} With a batch of 1 every inference takes a programming of "
                "its own."
            )
