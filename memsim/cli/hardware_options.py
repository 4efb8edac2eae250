"""The hardware of a command: what it says of other options, and what a pass costs on it."""

import dataclasses
from typing import Annotated, Any, TypeVar

import rich.console
import typer

from memsim.cells.schemes import scheme_of_text
from memsim.cli.options import CROSSBARS, one_of
from memsim.cli.records import filled_in
from memsim.config import CrossbarConfig
from memsim.hardware.files import PRESETS, default_hardware, read_hardware
from memsim.hardware.parts import Hardware
from memsim.hardware.passes import with_net_reduction
from memsim.report.hardware_tables import energy_table, hardware_table, inference_table
from memsim.streaming import Comparison
from memsim.summary import mean_over_chips

__all__ = [
    "HardwareOption",
    "low_columns_differ",
    "on_hardware",
    "price",
    "priced_hardware",
    "print_hardware",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardwareOption:
    """The hardware that says what other options do not."""

    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help=f"arrays, cells, converters and memory: {', '.join(PRESETS)}, or a file; single "
            "options still count",
            show_default="published",
            autocompletion=one_of(PRESETS),
            rich_help_panel=CROSSBARS,
        ),
    ] = None


def priced_hardware(chosen: Any, config: CrossbarConfig) -> Hardware | None:
    """Gives the hardware of a command with these crossbars, and with the cells of other options.

    Args:
      chosen: the options `hardware`, `cells`, `scheme` and `writing`.
      config: the crossbars.

    Returns:
      None where no option names hardware, and the default has no prices for these cells.

    Raises:
      ValueError: hardware whose pulses have no figures for these cells.
    """
    if chosen.hardware is None and default_hardware(config) is None:
        return None
    # what single options say of the cells, those of the writing last
    words: dict[str, Any] = {"kind": chosen.cells, "scheme": chosen.scheme}
    written = None if chosen.writing is None else scheme_of_text(chosen.writing)
    if written is not None:
        scheme, of_scheme = written
        words = {"kind": of_scheme.cells, "scheme": scheme}
        words |= {"controller": of_scheme.controller, "fails": True}
    named = read_hardware(chosen.hardware or PRESETS[0])
    given = {word: value for word, value in words.items() if value is not None}
    cells = dataclasses.replace(named.cells, **given | {"bits": config.cell_bits})
    # their numbers are no longer those of the source
    meant = dataclasses.replace(named.on(config), cells=cells)
    before = named.numbers()
    typed = {name: "option" for name, value in meant.numbers().items() if value != before[name]}
    return dataclasses.replace(meant, sources=meant.sources | typed)


def low_columns_differ(chosen: Any) -> bool:
    """Says whether low-order columns are written under another scheme than the one priced."""
    written = None if chosen.writing is None else scheme_of_text(chosen.writing)
    return written is not None and written[1].low > 0


Record = TypeVar("Record", bound=HardwareOption)


def on_hardware(chosen: Record) -> Record:
    """Fills in what the hardware of a command says and the user did not."""
    if chosen.hardware is None:
        return chosen
    said = read_hardware(chosen.hardware)
    # options that a command does not have are left out
    values = said.crossbars() | {"writing": said.cells.text}
    values["crossbars"] = "all" if said.arrays.number is None else str(said.arrays.number)
    if getattr(chosen, "old", None) is not None:  # one crossbar for every section
        del values["crossbars"]
    if getattr(chosen, "lifetime", False):
        values |= {"cells": said.cells.kind, "scheme": said.cells.scheme}
    return filled_in(chosen, values)


def price(result: Comparison, hardware: Hardware) -> Comparison:
    """Gives a comparison whose net reductions are on other hardware."""
    baseline = mean_over_chips(result.baseline)
    return result._replace(
        policies={
            name: with_net_reduction(summary, baseline, hardware)
            for name, summary in result.policies.items()
        }
    )


def print_hardware(console: rich.console.Console, document: dict[str, Any]) -> None:
    """Prints what every policy takes on the hardware, and where its numbers are from."""
    console.print(energy_table(document))
    if "positions" in document:
        console.print(inference_table(document))
    console.print(hardware_table(document))
