"""`memsim show`."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import rich.console
import typer

from memsim.cli import options
from memsim.cli.diff_command import read_report
from memsim.cli.records import with_options
from memsim.config import CrossbarConfig
from memsim.files import _hub, _safetensors
from memsim.files.checkpoints import KINDS, open_checkpoint
from memsim.files.chips import read_chip
from memsim.files.plans import load_plan
from memsim.report._contents import chip_table, figures_table, how_stored, plan_table, tensors_table
from memsim.report._made_by import made_by_lines
from memsim.report.terminal import listed, results_console
from memsim.report.texts import count_text, crossbar_lines, printable
from memsim.selection import select_by_name, tensor_name

__all__ = ["ShowOptions", "run_show"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """The argument of `memsim show`."""

    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help=f"a report, a plan, a chip, or a checkpoint: {', '.join(KINDS)}"
        ),
    ]


@with_options(ShowOptions)
def run_show(chosen: ShowOptions) -> None:
    """Says what kind of file it is, and what is in it, on one screen."""
    # read before anything is printed
    show = _reader_of(chosen.file)(chosen.file)
    show(results_console(width=80))


Show = Callable[[rich.console.Console], None]


def _reader_of(path: Path) -> Callable[[Path], Show]:
    """Finds what reads a file, by what is in it; checkpoints go by their names."""
    # folders too, and what is missing, which opening tells
    if str(path).startswith(_hub.PREFIX) or not path.is_file():
        return _of_checkpoint
    with path.open("rb") as file:
        # plans and chips may have any name: their header tells
        start = file.read(64).lstrip()
        file.seek(0)
        try:
            metadata = _safetensors.read_header(file).metadata
        except ValueError:
            metadata = None
    if metadata is not None:
        return next((of for key, of in _OWN.items() if key in metadata), _of_checkpoint)
    # the index of a checkpoint is JSON as well
    is_json = start.startswith(b"{") and not path.name.endswith(".index.json")
    return _of_report if is_json else _of_checkpoint


def _of_plan(path: Path) -> Show:
    plan = load_plan(path)
    # the bits of a layer are of all its weights
    weights = sum(each.matrix.inputs * each.matrix.outputs for each in plan.layers.values())
    bits = sum(
        float(each.index_bits) * each.matrix.inputs * each.matrix.outputs
        for each in plan.layers.values()
    )

    def show(console: rich.console.Console) -> None:
        _print_lines(console, "plan", path, _config_lines(plan.config))
        layers = count_text(len(plan.layers), "layer")
        per_weight = bits / max(weights, 1)
        console.print(
            f"{count_text(weights, 'weight')} in {layers}; {per_weight:.2f} index bits a "
            f"weight, {count_text(round(bits), 'bit')} in all",
            highlight=False,
        )
        stored = {how_stored(layer) for layer in plan.layers.values()}
        if len(stored) == 1 and (text := stored.pop()):
            console.print(f"every layer is stored with {text}", highlight=False)
        console.print(plan_table(plan))

    return show


def _of_chip(path: Path) -> Show:
    tensors, description = read_chip(path)
    # 0.1 knew one word a row
    wide = description.get("words_per_row", 1)
    words_of = [tensors[name] for name in ("state", "stuck_at_0", "stuck_at_1")]
    alike = len({(each.shape, each.dtype) for each in words_of}) == 1
    if (
        not alike
        or words_of[0].dtype.kind != "u"
        or words_of[0].ndim != 2
        or not (isinstance(wide, int) and wide > 0 and tensors["passes"].shape == ())
    ):
        raise ValueError(
            f"`chip` {path} is no whole chip: its state and stuck cells are no words of the same "
            "crossbars; sample or program it again."
        )
    crossbars, words = words_of[0].shape
    lines = {
        "crossbars": f"{crossbars:,}, each of {count_text(words // wide, 'row')} (flag cells of "
        f"sections count) of {count_text(wide, 'word')}",
        "cells": f"{len(description['cells'])} a word",
        "passes": f"programmed {count_text(int(tensors['passes']), 'time')}",
    }

    def show(console: rich.console.Console) -> None:
        _print_lines(console, "chip", path, lines)
        console.print(chip_table(tensors, description["cells"]))

    return show


def _of_report(path: Path) -> Show:
    document = read_report(path)
    # made before anything is printed, so that what is wrong is told alone
    made_by = document.get("made_by")
    try:
        lines = {"checkpoint": str(document["checkpoint"])} | crossbar_lines(document["config"])
        made = {"made by": "not on record"} if made_by is None else made_by_lines(made_by)
        table = figures_table(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"`report` {path} is no whole report ({type(error).__name__}: {error}); make it again "
            "with memsim report."
        ) from error

    def show(console: rich.console.Console) -> None:
        _print_lines(console, "report", path, lines)
        console.print(table)
        _print_pairs(console, made)

    return show


def _of_checkpoint(path: Path) -> Show:
    source = open_checkpoint(path)
    doubt, matrices = "", {}
    try:
        select = select_by_name(layouts=source.layouts)
        matrices = options.read_as(source, select)
    except ValueError as error:  # shown all the same
        doubt = str(error)
    # a stacked tensor has a layer for each of its matrices
    of_tensor = {tensor_name(name, each): each for name, each in matrices.items()}
    weights = sum(each.inputs * each.outputs for each in matrices.values())

    def show(console: rich.console.Console) -> None:
        lines = {
            "tensors": f"{len(source.tensors):,}, of which {len(of_tensor):,} would be mapped",
            "dtypes": listed(str(tensor.dtype) for tensor in source.tensors.values()),
            "weights": f"{weights:,} in {count_text(len(matrices), 'matrix', 'matrices')}",
        }
        _print_lines(console, "checkpoint", path, lines)
        console.print(tensors_table(source, of_tensor))
        if doubt:
            console.print(f"nothing is mapped yet: {printable(doubt)}", markup=False)

    return show


# What reads files that memsim wrote, by the metadata that they have.
_OWN = {"memsim.plan": _of_plan, "memsim.chip": _of_chip}


def _config_lines(config: CrossbarConfig) -> dict[str, str]:
    return crossbar_lines(dataclasses.asdict(config) | {"words_per_row": config.words_per_row})


def _print_lines(
    console: rich.console.Console, kind: str, path: Path, lines: Mapping[str, str]
) -> None:
    named = f"{path.name}, {path.stat().st_size:,} bytes" if path.is_file() else str(path)
    _print_pairs(console, {kind: named} | dict(lines))


def _print_pairs(console: rich.console.Console, pairs: Mapping[str, str]) -> None:
    for name, text in pairs.items():
        console.print(f"{name}: {printable(text)}", highlight=False, markup=False)
