"""The options that jobs share, as records that the options of each job inherit."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import memsim
from memsim.cli.records import filled_in
from training.models.language import LANGUAGE_MODELS
from training.models.pretrained import MODELS

# The files of a folder of `--assets`.
RESNET20, CIFAR10, CIFAR10_TRAIN = (
    "resnet20_cifar10.safetensors",
    "cifar10_test2000.npz",
    "cifar10_train10000.npz",
)
# Keys are made of 32 bits; of a larger seed JAX drops the others, so that two seeds draw the same.
MAX_SEED = 2**32 - 1

EncodingName = Annotated[str, typer.Option(help="encoding of a weight, see `memsim report`")]
Rows = Annotated[int, typer.Option(help="rows of a crossbar")]
Columns = Annotated[
    int | None,
    typer.Option(
        help="bit lines of a crossbar; the words of a row share its input", show_default="one word"
    ),
]
Bits = Annotated[int, typer.Option(help="bits of a weight, its sign included")]
Crossbars = Annotated[int, typer.Option(min=1, help="number of crossbars")]
StuckAt = Annotated[
    float, typer.Option(min=0, max=1, help="share of cells stuck, half at each level")
]
Passes = Annotated[int, typer.Option(min=1, help="times that the network is programmed")]
Seed = Annotated[int, typer.Option(help=f"source of all draws, 0 to {MAX_SEED}")]
BatchSize = Annotated[int, typer.Option(min=1, help="images, or windows of a text, tested at once")]
Epochs = Annotated[int, typer.Option(min=1, help="epochs of training the digits CNN")]
ShareAt1 = Annotated[
    float, typer.Option(min=0, max=1, help="share of worn cells stuck at 1; a placeholder")
]
OutFolder = Annotated[Path, typer.Option(help="folder of the results")]
OutFile = Annotated[Path, typer.Option(help="file of the results")]
StartAfresh = Annotated[bool, typer.Option("--force", help="start afresh")]
Replace = Annotated[bool, typer.Option("--force", help="replace earlier results")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a job.

    Raises:
      ValueError: a seed that is no seed; a number that is not finite.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}"
            for number in value if isinstance(value, (list, tuple)) else [value]:
                # also refuses NaN, which lies in every range of typer
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"`{option}` is {number}; give a finite number.")
        seed = getattr(self, "seed", 0)
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"`--seed` is {seed}; give a whole number from 0 to {MAX_SEED}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardwareOptions(Options):
    """The hardware that says what other options do not."""

    hardware: Annotated[
        str | None,
        typer.Option(help="arrays and cells by name or from a file, as `memsim report` takes them"),
    ] = None

    def priced(self, config: memsim.CrossbarConfig) -> memsim.Hardware:
        """Returns the hardware with these crossbars; `published` where none is named."""
        return memsim.hardware.read_hardware(self.hardware or "published").on(config)


Chosen = TypeVar("Chosen", bound=HardwareOptions)


def on_hardware(chosen: Chosen) -> Chosen:
    """Fills in what the hardware of a job says and the user did not.

    Raises:
      ValueError: hardware that a job cannot have.
    """
    if chosen.hardware is None:
        return chosen
    said = memsim.hardware.read_hardware(chosen.hardware)
    if said.arrays.number is None or said.cells.bits != 1:
        raise ValueError(
            f"`--hardware` {chosen.hardware} has {said.arrays.number or 'any number of'} arrays of "
            f"cells of {said.cells.bits} bits; give one of a number of arrays and cells of one bit."
        )
    values = said.crossbars() | {"writing": said.cells.text}
    for name, value in values.items():  # of several values, a list of one
        if isinstance(getattr(chosen, name, None), list) or _is_repeatable(chosen, name):
            values[name] = None if value is None else [value]
    return filled_in(chosen, values)


def _is_repeatable(chosen: HardwareOptions, name: str) -> bool:
    kinds = {field.name: str(field.type) for field in dataclasses.fields(chosen)}
    return "list[" in kinds.get(name, "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions(HardwareOptions):
    """The trained network that is programmed, and the images or text that it is tested on."""

    model: Annotated[
        str | None,
        typer.Option(
            help=f"one of {', '.join(MODELS)}; or a language model, {', '.join(LANGUAGE_MODELS)}"
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help=".safetensors, .npz or the id of a Hugging Face repository; without --model, "
            "weights of the digits CNN"
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            help=".npz of image and label, or a set of TensorFlow Datasets; for a language model a "
            "text file, a set of texts, or help: Python's own help texts"
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            help="split of the data set, by default its test split; of a text file train, test "
            "(its last tenth) or all"
        ),
    ] = None
    data_dir: Annotated[str | None, typer.Option(help="where TensorFlow Datasets are")] = None
    assets: Annotated[
        Path | None,
        typer.Option(help=f"a folder of {RESNET20} and {CIFAR10}: runs this network on them"),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="test on the first so many images, or windows, only")
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningOptions(TaskOptions):
    """A task, and the images or text that its network goes on learning from."""

    train_data: Annotated[
        str | None,
        typer.Option(
            help="images or text to learn from, given as --data is; of a text by default that of "
            "--data"
        ),
    ] = None
    train_split: Annotated[
        str | None, typer.Option(help="split of --train-data, by default its train split")
    ] = None
    test_batch: BatchSize = 250
    clip: Annotated[
        float, typer.Option(min=0, help="limit of weights, in deviations of their tensor; 0: none")
    ] = 0.0
    distill: Annotated[
        bool, typer.Option(help="imitate the float network rather than learn the labels")
    ] = True

    @property
    def images_to_learn(self) -> str | None:
        """Images to learn from; None for those of the digits CNN, or the part of a text."""
        if self.assets and not self.train_data:
            return str(self.assets / CIFAR10_TRAIN)
        return self.train_data

    def check_examples(self) -> None:
        """Checks that there is something to learn from.

        Raises:
          ValueError: there is not.
        """
        text = self.model in LANGUAGE_MODELS  # part of a text is for training
        if (self.model or self.data) and not self.train_data and not text:
            raise ValueError("`--train-data` is missing; give images to learn from.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions(Options):
    """The way that programmed chips are read."""

    cells: Annotated[
        str, typer.Option(help="cells to read: ideal, hfo2, pcm, or module:Class of your own")
    ] = "ideal"
    seconds: Annotated[float, typer.Option(min=0, help="time from programming to reading")] = 0.0
    ohm: Annotated[
        float, typer.Option(min=0, help="resistance of the wire from one cell to the next")
    ] = 0.0

    def readout(self) -> memsim.Readout | None:
        """Returns how chips are read; None where everything is ideal.

        Raises:
          ValueError: cells that are no law of conductance.
        """
        law = memsim.cells.parse_law(self.cells)
        if law == memsim.Conductance() and not self.ohm:
            return None
        wires = memsim.cells.Wires(self.ohm, self.ohm)
        return memsim.Readout(cells=law, wires=wires, seconds=self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingOptions(Options):
    """The way that cells are written, where writes may fail."""

    writing: Annotated[
        str | None, typer.Option(help="how writes fail, as `memsim report` takes it")
    ] = None

    def read_writing(self, config: memsim.CrossbarConfig) -> memsim.Writing | None:
        """Returns the writing of words of `config`; None where no write fails."""
        return None if self.writing is None else memsim.cells.parse_writing(self.writing, config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsOptions(WritingOptions, HardwareOptions):
    """The digits CNN of a study, and the crossbars that it is programmed onto."""

    weights: Annotated[str | None, typer.Option(help="weights of the digits CNN")] = None
    epochs: Epochs = 40
    share_at_1: ShareAt1 = 0.5
    rows: Rows = 128
    columns: Columns = None
    seed: Seed = 0


def as_json(options: Options, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the options by name as JSON values, but for some of them."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name not in leave_out
    }
