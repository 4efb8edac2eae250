"""Hardware by its name, or from a TOML file."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from memsim._checks import check_kind
from memsim.config import CrossbarConfig
from memsim.hardware.components import with_components
from memsim.hardware.parts import Hardware

__all__ = ["PRESETS", "default_hardware", "read_hardware"]

# Files in `presets/`, by name.
PRESETS = ("published", "array-128", "isaac", "published-pcm", "array-128-pcm", "isaac-pcm")
"""Names of the hardware that the library brings."""

# What a file says of its numbers without a line of their own in [sources].
_OF_FILE = "your file"


def read_hardware(text: str | Path) -> Hardware:
    """Reads hardware by its name, or from a TOML file.

    A file has the tables of `Hardware`, `[arrays]`, `[cells]`, `[reading]`, `[memory]`, `[area]`,
    and `[sources]` by key, such as `"memory.move_energy" = "LPDDR4 data sheet"`. It starts from the
    preset that it names as `base`, or from `published`. Parts in a table `[components]` have the
    figures of `hwcomponents`, see `memsim.hardware.with_components`.

    Args:
      text: one of `PRESETS`, or the path of a file.

    Raises:
      ValueError: no such preset; no TOML; a table, key or value that there is not; `[components]`
        without `hwcomponents`, or with one that it does not have.
      OSError: no such file.

    >>> read_hardware("array-128").config().words_per_row
    16
    """
    check_kind("hardware", text, (str, Path), f"give {', '.join(PRESETS)}, or a file")
    if str(text) in PRESETS:
        return _preset(str(text))
    path = Path(text)
    if path.suffix != ".toml":
        raise ValueError(
            f"`hardware` is {str(text)!r}; choose one of {', '.join(PRESETS)}, or give a file of "
            "your own that ends in .toml."
        )
    if not path.is_file():
        raise FileNotFoundError(f"`hardware` {path} is not a file; check the path.")
    try:
        return _from_tables(path.read_text(encoding="utf-8"), path.stem, _OF_FILE)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def default_hardware(config: CrossbarConfig) -> Hardware | None:
    """Gives `published` with other crossbars; None where its pulses have no figures for them."""
    try:
        return read_hardware(PRESETS[0]).on(config)
    except ValueError:
        return None


@functools.cache
def _preset(name: str) -> Hardware:
    file = resources.files("memsim.hardware") / "presets" / f"{name}.toml"
    return _from_tables(file.read_text(encoding="utf-8"), name, "")


def _from_tables(text: str, name: str, source: str) -> Hardware:
    """Reads the text of a file.

    Args:
      name: of the hardware.
      source: of numbers that `[sources]` says nothing of; empty for what the base says.
    """
    tables: dict[str, Any] = tomllib.loads(text)
    base = tables.pop("base", None)
    if base is not None and base not in PRESETS:
        raise ValueError(f"`base` is {base!r}; choose one of {', '.join(PRESETS)}.")
    # presets build on one another; a file without a base on the first of them
    start = _preset(base) if base else Hardware(name=name)
    if source and not base:
        start = _preset("published")
    said, components = tables.pop("sources", {}), tables.pop("components", None)
    sources = dict(start.sources)
    # of each table the keys that are given, the others as they were
    parts: dict[str, Any] = {}
    for table, given in tables.items():
        part = getattr(start, table, None) if isinstance(given, dict) else None
        if not dataclasses.is_dataclass(part) or isinstance(part, type):
            known = [field.name for field in dataclasses.fields(Hardware)[1:-1]]
            raise ValueError(
                f"There is no table `{table}`; choose of {', '.join(known)}, components."
            )
        keys = [field.name for field in dataclasses.fields(part)]
        unknown = [key for key in given if key not in keys]
        if unknown:
            raise ValueError(
                f"There is no key `{unknown[0]}` in [{table}]; choose of {', '.join(keys)}."
            )
        # TOML has no null: arrays of one word, or as many as there are sections
        values = {key: None if value == "none" else value for key, value in given.items()}
        parts[table] = dataclasses.replace(part, **values)
        if source:
            sources |= {f"{table}.{key}": source for key in given}
    read = dataclasses.replace(start, name=name, sources=sources | said, **parts)
    if components is None:
        return read
    by_hand = [f"{table}.{key}" for table, given in tables.items() for key in given]
    return with_components(read, components, by_hand)
