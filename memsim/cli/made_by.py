"""How a command came to its figures: on record in JSON, and in the charts that it draws."""

import datetime
import functools
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from memsim import __version__
from memsim.cli.options import path_text
from memsim.cli.records import given_values
from memsim.files._digests import digest_of
from memsim.files.writing import write_whole
from memsim.report._made_by import chart_metadata

__all__ = ["OUTPUTS", "file_digests", "how_made", "write_chart"]

# Options that say where results go, and not what they are.
OUTPUTS = frozenset({"--json", "--html", "--png", "--out", "--save-chip", "--force", "--again"})
# Options that name a file, or something that is none.
_FILES_OR_NAMES = ("--hardware", "--positions", "--evaluate")
_UNNAMED_HARDWARE = "published"


def how_made(command: str, chosen: Any) -> dict[str, Any]:
    """Gives the entry `made_by` of the JSON of a command that runs.

    The date is that of SOURCE_DATE_EPOCH where the environment has it, so that files can be made
    again byte for byte.

    Args:
      command: its name.
      chosen: its options.
    """
    given = {option: x for option, x in given_values().items() if option != "--again"}
    # what other tools take for builds that come out the same
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.datetime.now(datetime.UTC)
    if seconds.isascii() and seconds.isdecimal():
        now = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    # the command has outputs too; the options are what figures depend on
    return {
        "version": __version__,
        "jax": jax.__version__,
        "command": shlex.join(["memsim", command, *_spelled(given)]),
        "options": {option: _plain(x) for option, x in given.items() if option not in OUTPUTS},
        "seed": chosen.seed,
        "rates": {
            "stuck_at_0": getattr(chosen, "stuck_at_0", 0.0),
            "stuck_at_1": getattr(chosen, "stuck_at_1", 0.0),
            "writing": getattr(chosen, "writing", None),
        },
        "hardware": chosen.hardware or _UNNAMED_HARDWARE,
        "files": file_digests(given),
        "date": now.isoformat(timespec="seconds"),
    }


def file_digests(given: Mapping[str, Any]) -> dict[str, str]:
    """Gives the SHA-256 of the files that options name, by option; missing ones are left out."""
    found = {
        option: digest_of(_file_of(option, value))
        for option, value in given.items()
        if option not in OUTPUTS and (isinstance(value, Path) or option in _FILES_OR_NAMES)
    }
    return {option: digest for option, digest in found.items() if digest}


def _file_of(option: str, value: Any) -> Path:
    """Finds the file of an option, that of a function in its module."""
    module = str(value).partition(":")[0].replace(".", "/")
    return Path(f"{module}.py" if option == "--evaluate" else value)


def write_chart(path: Path, figure: Any, made_by: Mapping[str, Any], force: bool) -> None:
    """Writes a chart of matplotlib; a PNG says how it was made."""
    # other formats refuse names that they do not know
    metadata = chart_metadata(made_by) if path.suffix.lower() == ".png" else None
    write_whole(path, functools.partial(figure.savefig, metadata=metadata), force)


def _spelled(given: Mapping[str, Any]) -> list[str]:
    """Spells options as they are typed."""
    words = []
    # arguments have no name, options that repeat have it each time, flags have no value
    for option, value in given.items():
        plain = _plain(value)
        for each in plain if isinstance(plain, list) else [plain]:
            words += [option] if option.startswith("-") else []
            words += [] if each is True else [str(each)]
    return words


def _plain(value: Any) -> Any:
    """Makes the value of an option one of JSON."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return path_text(value) if isinstance(value, Path) else value
