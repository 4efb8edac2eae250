"""`memsim diff`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from memsim.cli.records import with_options
from memsim.files.own import read_own_json
from memsim.report._contents import (
    check_figures,
    differences,
    differences_table,
    figures_side_by_side,
)
from memsim.report.terminal import results_console
from memsim.report.texts import printable

__all__ = ["DiffOptions", "read_report", "run_diff"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffOptions:
    """The arguments of `memsim diff`."""

    first: Annotated[
        Path, typer.Argument(metavar="A.json", help="a report, of memsim report --json")
    ]
    second: Annotated[Path, typer.Argument(metavar="B.json", help="another one")]


def read_report(path: Path) -> dict[str, Any]:
    """Reads the JSON of a report.

    Raises:
      FileNotFoundError, ValueError: there is none; it holds no figures of policies.
    """
    document = read_own_json(path, "report")
    try:
        check_figures(document)
    except ValueError as error:
        raise ValueError(
            f"`report` {path} is no report ({error}); give what memsim report --json writes."
        ) from error
    return document


@with_options(DiffOptions)
def run_diff(chosen: DiffOptions) -> None:
    """Puts two reports side by side: figures of their policies, and options that differ."""
    first, second = read_report(chosen.first), read_report(chosen.second)
    console = results_console(width=80)
    for letter, path in (("A", chosen.first), ("B", chosen.second)):
        text = f"{letter}: {printable(str(path))}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(figures_side_by_side(first, second))
    found = differences(first, second)
    if found:
        console.print(differences_table(found))
    else:
        console.print("both were made with the same options")
    for letter, document in (("A", first), ("B", second)):
        if "made_by" not in document:
            console.print(
                f"{letter} does not say how it was made: of its options only the crossbars are "
                "known"
            )
