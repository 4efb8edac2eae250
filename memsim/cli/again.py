"""Makes a report anew: a command takes its options from a report that it made before."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from memsim import __version__
from memsim.cli.failures import guarded
from memsim.cli.made_by import OUTPUTS, file_digests
from memsim.cli.records import given_values
from memsim.files.own import read_own_json
from memsim.report.terminal import print_problem
from memsim.report.texts import printable

__all__ = ["AgainOption", "compare_figures", "read_made_by"]


def read_made_by(option: str, path: Path) -> dict[str, Any]:
    """Reads how a report was made.

    Args:
      option: that names the report, for messages.
      path: of its JSON.

    Raises:
      FileNotFoundError, ValueError: there is none, or it does not say how it was made.
    """
    made_by = read_own_json(path, option).get("made_by")
    if isinstance(made_by, dict) and isinstance(made_by.get("files"), dict):
        options = made_by.get("options")
        if isinstance(options, dict) and all(map(_is_value, options.values())):
            return made_by
    raise ValueError(
        f"`{option}` {path} does not say how it was made (an entry `made_by` with its options "
        "and files): memsim 0.1 left that out; give the options themselves."
    )


def _is_value(value: object) -> bool:
    # what JSON has for options: true is a flag, a list an option that repeats
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return texts or isinstance(value, (str, int, float))


def _fill_in(context: typer.Context, again: Path | None) -> Path | None:
    """Takes what the user does not type from the report."""
    if again is None:
        return None
    made_by = read_made_by("--again", again)
    # reports hold options by their names, typer by their fields
    fields = {each.opts[0]: each.name or "" for each in context.command.params}
    options = made_by["options"]
    unknown = [option for option in options if option not in fields or option in OUTPUTS]
    if unknown or "checkpoint" not in options:
        what = f"has {', '.join(unknown)}, which" if unknown else "has no checkpoint, which"
        raise ValueError(
            f"`--again` {again} {what} `memsim {context.info_name}` of memsim {__version__} "
            f"{'does not know' if unknown else 'needs'}; it was made by another command or another "
            f"memsim ({made_by.get('version')}). Give the options themselves."
        )
    # typer takes these where nothing is typed, and converts and checks them as if it were
    context.default_map = {fields[option]: value for option, value in options.items()}
    return again


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgainOption:
    """The report that is made anew."""

    again: Annotated[
        Path | None,
        typer.Option(
            metavar="REPORT.json",
            help="the options of this report, and its CKPT, where no others are given; says "
            "whether files, memsim and figures are the same",
            callback=guarded(_fill_in),
            is_eager=True,
        ),
    ] = None

    def check_again(self) -> None:
        """Says on stderr what is not as it was when the report was made.

        Raises:
          FileNotFoundError: a file that it was made of is gone.
        """
        if self.again is None:
            return
        made_by = read_made_by("--again", self.again)
        if made_by.get("version") != __version__:
            print_problem(
                f"{self.again} was made by memsim {made_by.get('version')}, and this is "
                f"{__version__}: figures may differ"
            )
        # by option and not by path: files may have moved
        given = given_values()
        present = file_digests(given)
        for option, digest in made_by["files"].items():
            named = "CKPT" if option == "checkpoint" else option
            if option not in given:  # a later report may not have it
                continue
            if option not in present:
                remedy = f"memsim report PATH --again {self.again}"
                if option != "checkpoint":
                    remedy = f"{option} PATH beside --again"
                raise FileNotFoundError(
                    f"`--again` {self.again} was made of the {named} {given[option]}, which is not "
                    f"a file here; give its place, as {remedy}."
                )
            if present[option] != digest:
                print_problem(
                    f"{named} {given[option]} is not the file that {self.again} was made of (its "
                    "SHA-256 differs): figures may differ"
                )


def compare_figures(again: Path, document: Mapping[str, Any]) -> str:
    """Says whether a report made anew has the figures of the one before."""
    before = read_own_json(again, "--again").get("policies")
    # tuples become lists
    now = json.loads(json.dumps(document["policies"]))
    same = "are" if before == now else "DIFFER from"
    return f"the figures {same} those of {printable(str(again))}"
