"""Options that the commands share: groups of them, each with the object that it stands for."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from jaxtyping import Array, Key

from memsim.cells.schemes import parse_writing
from memsim.chip import Chip, fault_words, with_faults
from memsim.config import ENCODINGS, SCALES, SCHEDULES, CrossbarConfig
from memsim.files.checkpoints import KINDS, Checkpoint, open_checkpoint
from memsim.files.chips import load_chip, load_faults
from memsim.files.raw import RawTensor
from memsim.files.writing import check_output
from memsim.planning import Plan, sections_by_output
from memsim.policies import Aras, FlipNWrite, Matched, Policy, Sws, SwsLayer, Unsorted
from memsim.report.texts import count_text, printable
from memsim.selection import LAYOUTS, Matrix, Select, select_by_name, select_layers
from memsim.writing import Writing

__all__ = [
    "CHIPS",
    "CROSSBARS",
    "OUTPUT",
    "PHYSICS",
    "POLICY",
    "TENSORS",
    "CheckpointOptions",
    "CrossbarOptions",
    "FaultOptions",
    "ForceOption",
    "SeedOption",
    "SelectionOptions",
    "WritingOption",
    "check_memory",
    "check_outputs",
    "chip_of_files",
    "complete_policy",
    "flag",
    "here_first",
    "naming",
    "one_of",
    "parse_policy",
    "path_text",
    "read_all",
    "read_as",
]

Result = TypeVar("Result")

# Panels of the help.
POLICY, CROSSBARS, TENSORS, CHIPS = "Policy", "Crossbars", "Which tensors", "Chips"
PHYSICS, OUTPUT = "Physics", "Output"
# Seeds are 32 bits: without 64-bit types JAX drops the others, and 2**32 would be 0.
_SEEDS = 2**32


def flag(name: str, told: str, panel: str | None = None) -> Any:
    """Makes an option without a value; without a metavar typer would show it with one."""
    return typer.Option(name, help=told, metavar="", rich_help_panel=panel)


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Gives what a shell completes an option from."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def complete_policy(incomplete: str) -> list[str]:
    """Completes the library's own policies; their settings are for the user to type."""
    names = [policy.name for policy in (Unsorted, Sws, SwsLayer, Matched, FlipNWrite, Aras)]
    return one_of(names)(incomplete)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """The checkpoint that a command reads."""

    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CKPT", help=f"{', '.join(KINDS)}"),
    ]

    def open(self) -> Checkpoint:
        """Opens it."""
        return open_checkpoint(self.checkpoint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossbarOptions:
    """The crossbars."""

    rows: Annotated[int, typer.Option(help="rows of a crossbar", rich_help_panel=CROSSBARS)] = 128
    columns: Annotated[
        int | None,
        typer.Option(
            help="bit lines of a crossbar; the words of a row share its input",
            show_default="one word",
            rich_help_panel=CROSSBARS,
        ),
    ] = None
    bits: Annotated[
        int, typer.Option(help="bits per weight, sign included", rich_help_panel=CROSSBARS)
    ] = 8
    cell_bits: Annotated[
        int, typer.Option(help="bits per cell: 1, 2 or 4", rich_help_panel=CROSSBARS)
    ] = 1
    encoding: Annotated[
        str,
        typer.Option(
            help=", ".join(ENCODINGS),
            autocompletion=one_of(ENCODINGS),
            rich_help_panel=CROSSBARS,
        ),
    ] = "twos_complement"
    crossbars: Annotated[
        str | None,
        typer.Option(
            help="number, or all: one per section", show_default="1", rich_help_panel=CROSSBARS
        ),
    ] = None
    schedule: Annotated[
        str,
        typer.Option(
            help=" or ".join(SCHEDULES),
            autocompletion=one_of(SCHEDULES),
            rich_help_panel=CROSSBARS,
        ),
    ] = "block"
    scale_per: Annotated[
        str,
        typer.Option(
            help=f"quantization scale per {' or '.join(SCALES)}",
            autocompletion=one_of(SCALES),
            rich_help_panel=CROSSBARS,
        ),
    ] = "tensor"

    def config(self, crossbars: str = "1") -> CrossbarConfig:
        """Gives the config of these crossbars.

        Args:
          crossbars: how many where the user does not say.
        """
        text = crossbars if self.crossbars is None else self.crossbars
        if text != "all" and not (text.isascii() and text.isdecimal()):
            raise ValueError(f"`crossbars` is {text!r}; give a number from 1, or all.")
        # words are checked there, and the messages list them
        words: dict[str, Any] = {
            "encoding": self.encoding,
            "schedule": self.schedule,
            "scale_per": self.scale_per,
        }
        return CrossbarConfig(
            rows=self.rows,
            columns=self.columns,
            bits=self.bits,
            cell_bits=self.cell_bits,
            crossbars=None if text == "all" else int(text),
            **words,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """The tensors that are weight matrices, and how they are read."""

    include: Annotated[
        str | None,
        typer.Option(metavar="RE", help="map only names that match", rich_help_panel=TENSORS),
    ] = None
    exclude: Annotated[
        str | None,
        typer.Option(metavar="RE", help="leave names that match digital", rich_help_panel=TENSORS),
    ] = None
    maps: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="RE=LAYOUT",
            help=f"read tensors that match as {', '.join(LAYOUTS)}, or another word for each axis; "
            "repeatable, the first that matches counts",
            rich_help_panel=TENSORS,
        ),
    ] = dataclasses.field(default_factory=list)

    def select(self, source: Checkpoint) -> Select:
        """Gives the choice of `plan` and `compare`, for a checkpoint."""
        return select_by_name(
            include=self.include, exclude=self.exclude, map=self.maps, layouts=source.layouts
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultOptions:
    """The stuck cells: by rates, or by a map."""

    stuck_at_0: Annotated[
        float,
        typer.Option("--stuck-at-0", help="share of cells stuck at 0", rich_help_panel=CHIPS),
    ] = 0.0
    stuck_at_1: Annotated[
        float,
        typer.Option("--stuck-at-1", help="share of cells stuck at 1", rich_help_panel=CHIPS),
    ] = 0.0
    faults: Annotated[
        Path | None,
        typer.Option(metavar="MAP", help="fault map, .npz or .safetensors", rich_help_panel=CHIPS),
    ] = None

    def fault_map(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Reads the map, if there is one: (stuck_at_0, stuck_at_1), see `load_faults`."""
        return naming("--faults", load_faults, self.faults) if self.faults else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingOption:
    """The way that cells are written, where writes may fail."""

    writing: Annotated[
        str | None,
        typer.Option(
            help="how writes fail: constant, write-verify or ramp, each with cells=hfo2|pcm, "
            "controller=read|blind and low=N (columns with one pulse and no feedback), or "
            "success:set=P,reset=P",
            show_default="none fails",
            rich_help_panel=PHYSICS,
        ),
    ] = None

    def read_writing(self, config: CrossbarConfig) -> Writing | None:
        """Reads the writing of words of `config`."""
        return None if self.writing is None else parse_writing(self.writing, config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOption:
    """The source of all that is random."""

    seed: Annotated[int, typer.Option(help="of all that is drawn", rich_help_panel=CHIPS)] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _SEEDS:
            raise ValueError(
                f"`--seed` is {self.seed}; give a whole number from 0 to {_SEEDS - 1:,}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForceOption:
    """Leave to replace files that exist."""

    force: Annotated[
        bool,
        flag("--force", "replace output files that exist", OUTPUT),
    ] = False


def check_outputs(outputs: Mapping[str, Path | None], force: bool) -> None:
    """Checks, before long work, that all outputs can be written, each to a file of its own.

    Args:
      outputs: by the option that names them; None where it is not given.
      force: whether files that exist are replaced.

    Raises:
      ValueError: two outputs of one file.
      OSError: see `check_output`.
    """
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        check_output(path, force)
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise ValueError(f"`{option}` and `{other}` are both {path}; name two files.")


def read_all(
    source: Checkpoint, tell: Callable[[float | None, str], None]
) -> dict[str, np.ndarray | RawTensor]:
    """Reads all tensors, and says how far it is."""
    tensors = {}
    for number, name in enumerate(source.tensors):
        tell(number / len(source.tensors), f"reading {printable(name)}")
        tensors[name] = source.load(name)
    return tensors


def read_as(source: Checkpoint, select: Select) -> dict[str, Matrix]:
    """Gives the matrices that a checkpoint is read as, by name."""
    return {name: each.matrix for name, each in select_layers(source.tensors, select).items()}


def check_memory(
    matrices: Mapping[str, Matrix], config: CrossbarConfig, *, chips: int = 1, passes: int = 1
) -> None:
    """Checks that crossbars of this size can be simulated at all, before anything is allocated.

    Args:
      matrices: of the network, by name.
      config: the crossbars.
      chips: how many at once.
      passes: how many times they are programmed.

    Raises:
      ValueError: the chips, the sections of one layer or the counts take more than the machine has.
    """
    sections = sections_by_output(matrices, config)
    crossbars = config.crossbars or sum(sections.values())
    # state and stuck cells in words, and wear in 4 bytes a cell
    of_word = 4 * config.word_dtype.itemsize + 4 * config.cells_per_word
    of_chip = crossbars * config.physical_words * of_word
    # where the weights of a layer are placed, and their words
    of_layer = 16 * config.physical_words * max(sections.values())
    # SETs and RESETs, of each pass, layer and column
    counts = 8 * passes * len(matrices) * config.cells_per_word
    needed = chips * (of_chip + counts) + of_layer
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"{count_text(passes, 'pass')} over {count_text(chips, 'chip')} of "
            f"{count_text(crossbars, 'crossbar')} of {count_text(config.rows, 'row')} would take "
            f"about {needed / 1e9:,.0f} GB, and this machine has {there / 1e9:,.0f}; give fewer "
            "`rows`, `crossbars`, `chips` or `passes`."
        )


def chip_of_files(
    key: Key[Array, ""], chip: Path | None, faults: Path | None, plan: Plan
) -> Chip | None:
    """Gives the chip of a file, or one with the stuck cells of a fault map, or None.

    Args:
      key: draws for a fault map.
      chip, faults: the files; at most one.
      plan: what is programmed.
    """
    if chip:
        return load_chip(chip, plan.config)
    if faults is None:
        return None
    cells = naming("--faults", load_faults, faults)
    low, high = (fault_words(of_level, plan.crossbars, plan.config) for of_level in cells)
    return with_faults(key, low, high)


@contextlib.contextmanager
def here_first() -> Iterator[None]:
    """Looks for modules in the current folder first, as Python does for a script there."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def parse_policy(text: str) -> Policy:
    """Reads a policy; a user's own is also looked for in the current folder."""
    with here_first():
        return Policy.parse(text)


def naming(option: str, read: Callable[[Path], Result], path: Path) -> Result:
    """Reads a file; what is wrong with it is told with the option that names it."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{option}: {error}") from error


def path_text(path: Path) -> str:
    """Gives a path as text that any file can hold: bytes that are no UTF-8 are replaced."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
