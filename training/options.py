"""The options that the scripts share, and how chips are read by them."""

from pathlib import Path
from typing import Annotated

import typer

import memsim
from training.models.pretrained import MODELS

# what `--assets` is a folder of
RESNET20, CIFAR10, CIFAR10_TRAIN = (
    "resnet20_cifar10.safetensors",
    "cifar10_test2000.npz",
    "cifar10_train10000.npz",
)
Model = Annotated[str | None, typer.Option(help=f"one of {', '.join(MODELS)}")]
Weights = Annotated[
    str | None,
    typer.Option(
        help=".safetensors, .npz or the id of a Hugging Face repository; alone: of the digits CNN"
    ),
]
Data = Annotated[
    str | None, typer.Option(help=".npz of image and label, or a set of TensorFlow Datasets")
]
Split = Annotated[str | None, typer.Option(help="of the data set, by default its test")]
DataDir = Annotated[str | None, typer.Option(help="where TensorFlow Datasets are")]
Assets = Annotated[
    Path | None, typer.Option(help=f"a folder of {RESNET20} and {CIFAR10}: runs these")
]
Limit = Annotated[int | None, typer.Option(min=1, help="test on the first so many")]
BatchSize = Annotated[int, typer.Option(min=1, help="images at once")]
Rows = Annotated[int, typer.Option(help="of a crossbar")]
Bits = Annotated[int, typer.Option(help="per weight, sign included")]
Crossbars = Annotated[int, typer.Option(min=1, help="number of crossbars")]
StuckAt = Annotated[
    float, typer.Option(min=0, max=1, help="share of cells stuck, half at each level")
]
Passes = Annotated[int, typer.Option(min=1, help="times the network is programmed")]
DigitsWeights = Annotated[str | None, typer.Option("--weights", help="of the digits CNN")]
Epochs = Annotated[int, typer.Option(min=1, help="of training the digits CNN")]
ShareAt1 = Annotated[
    float, typer.Option(min=0, max=1, help="of worn cells stuck at 1; a placeholder")
]
OutFolder = Annotated[Path, typer.Option(help="folder of the results")]
OutFile = Annotated[Path, typer.Option(help="file of the results")]
Force = Annotated[bool, typer.Option("--force", help="start afresh")]
Replace = Annotated[bool, typer.Option("--force", help="replace earlier results")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]

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
