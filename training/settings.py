"""The settings of a job on record, so that a killed one goes on only as it was started."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memsim.files.writing import write_text


def read_settings(path: Path) -> dict[str, Any]:
    """The settings on record, empty if there are none.

    Raises:
      ValueError: a file that does not hold any.
    """
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"`{path}` holds no settings; use --force to start afresh.")
    return settings


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Checks that the job on record, if there is one, can go on with these settings.

    Raises:
      ValueError: it was started with others.
    """
    old, new = read_settings(path), json.loads(json.dumps(settings))
    for name in new:
        if old and old.get(name) != new[name]:
            raise ValueError(
                f"`{path.parent}` holds a job with {name} {_short(old.get(name))}, not "
                f"{_short(new[name])}; go on with the same options, choose another --out, or use "
                "--force to start afresh."
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Puts settings on record."""
    write_text(path, json.dumps(settings, indent=1), force=True)
