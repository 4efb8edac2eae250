"""The options of a script that say how chips are read."""

from typing import Annotated

import typer

import memsim

CELLS = {
    "ideal": memsim.Conductance(),
    "hfo2": memsim.Conductance.hfo2(),
    "pcm": memsim.Conductance.pcm(),
}
CellKind = Annotated[str, typer.Option("--cells", help=f"read as {', '.join(CELLS)}")]
Seconds = Annotated[float, typer.Option(min=0, help="from programming to reading")]
Ohm = Annotated[float, typer.Option(min=0, help="resistance of a wire from cell to cell")]


def choose_readout(cells: str, seconds: float, ohm: float) -> memsim.Readout | None:
    """How chips are read; None where everything is ideal.

    Raises:
      ValueError: other cells.
    """
    if cells not in CELLS:
        raise ValueError(f"`--cells` is {cells!r}; choose one of {', '.join(CELLS)}.")
    if cells == "ideal" and not ohm:
        return None
    return memsim.Readout(cells=CELLS[cells], wires=memsim.Wires(ohm, ohm), seconds=seconds)
