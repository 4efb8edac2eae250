"""How a command came to its figures: on record in JSON, on pages, and in charts."""

import datetime
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

__all__ = ["OUTPUTS", "file_digests", "how_made", "versions"]

# Options that say where results go, and not what they are.
OUTPUTS = frozenset(
    "--json --html --png --svg --pdf --chart --out --save-chip --force --again".split()  # noqa: SIM905
)
# Options that name a file, or something that is none.
_FILES_OR_NAMES = (
    "--hardware", "--positions", "--evaluate", "--weights", "--data", "--train-data",
)  # fmt: skip
_UNNAMED_HARDWARE = "published"


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    return {"memsim": __version__, "jax": jax.__version__}


def how_made(command: str, chosen: Any) -> dict[str, Any]:
    """Gives the entry `made_by` of the JSON of a command, or a training job, that runs.

    The date is that of SOURCE_DATE_EPOCH where the environment has it, so that files can be made
    again byte for byte.

    Args:
      command: as it is started, such as `memsim report`.
      chosen: its options; of rates, stuck cells and writing those that it has.
    """
    given = {option: x for option, x in given_values().items() if option != "--again"}
    # what other tools take for builds that come out the same
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.datetime.now(datetime.UTC)
    if seconds.isascii() and seconds.isdecimal():
        now = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    # the command has outputs too; the options are what figures depend on
    return {
        "version": versions()["memsim"],
        "jax": versions()["jax"],
        "command": shlex.join([*command.split(), *_spelled(given)]),
        "options": {option: _plain(x) for option, x in given.items() if option not in OUTPUTS},
        "seed": chosen.seed,
        "rates": _rates(chosen),
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


def _rates(chosen: Any) -> dict[str, Any]:
    """Gives the rates of stuck cells, of a sweep in lists, and the writing."""
    # jobs have one rate, of which half is at each level
    both = getattr(chosen, "stuck_at", None)
    halves = [rate / 2 for rate in both] if isinstance(both, (list, tuple)) else (both or 0.0) / 2
    rates = {name: getattr(chosen, name, halves) for name in ("stuck_at_0", "stuck_at_1")}
    return rates | {"writing": _plain(getattr(chosen, "writing", None))}


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
