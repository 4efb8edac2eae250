"""Options that the commands share, and what they stand for."""

from pathlib import Path
from typing import Annotated

import typer
from jaxtyping import Array, Key

from memsim.chip import Chip, fault_words, with_faults
from memsim.config import ENCODINGS, SCHEDULES, CrossbarConfig
from memsim.files.chips import load_chip, load_faults
from memsim.planning import Plan
from memsim.selection import LAYOUTS

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CKPT", help=".safetensors, its .index.json, or .npz")
]
Rows = Annotated[int, typer.Option(help="weights per section: rows of a crossbar")]
Bits = Annotated[int, typer.Option(help="bits per weight, sign included")]
CellBits = Annotated[int, typer.Option(help="bits per cell: 1, 2 or 4")]
Encoding = Annotated[str, typer.Option(help=", ".join(ENCODINGS))]
Crossbars = Annotated[str, typer.Option(help="number of crossbars, or all: one per section")]
Schedule = Annotated[str, typer.Option("--schedule", help=" or ".join(SCHEDULES))]
ScalePer = Annotated[str, typer.Option(help="quantization scale per tensor or output")]
Passes = Annotated[int, typer.Option(help="times the network is programmed")]
Include = Annotated[str | None, typer.Option(metavar="RE", help="map only names that match")]
Exclude = Annotated[str | None, typer.Option(metavar="RE", help="leave names that match digital")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="RE=LAYOUT",
        help=f"read tensors that match as {', '.join(LAYOUTS)}, or another word for each axis; "
        "repeatable, the first that matches counts",
    ),
]
StuckAt0 = Annotated[float, typer.Option("--stuck-at-0", help="share of cells stuck at 0")]
StuckAt1 = Annotated[float, typer.Option("--stuck-at-1", help="share of cells stuck at 1")]
Faults = Annotated[Path | None, typer.Option(metavar="MAP", help="fault map, .npz or .safetensors")]
Seed = Annotated[int, typer.Option(help="of the chips' draws")]
Force = Annotated[bool, typer.Option("--force", help="replace output files that exist")]


def make_config(
    rows: int,
    bits: int,
    cell_bits: int,
    encoding: str,
    crossbars: str,
    schedule: str,
    scale_per: str,
) -> CrossbarConfig:
    """The crossbars that the options describe."""
    number = None if crossbars == "all" else int(crossbars) if crossbars.isdecimal() else -1
    if number == -1:
        raise ValueError(f"`crossbars` is {crossbars!r}; give a number from 1, or all.")
    return CrossbarConfig(
        rows=rows,
        bits=bits,
        cell_bits=cell_bits,
        encoding=encoding,
        crossbars=number,
        schedule=schedule,
        scale_per=scale_per,
    )


def open_chip(
    key: Key[Array, ""], chip: Path | None, faults: Path | None, plan_: Plan
) -> Chip | None:
    """The chip of a file, or one with the stuck cells of a fault map, or none."""
    if chip:
        return load_chip(chip, plan_.config)
    if faults is None:
        return None
    cells = load_faults(faults)
    low, high = (fault_words(of_level, plan_.crossbars, plan_.config) for of_level in cells)
    return with_faults(key, low, high)
