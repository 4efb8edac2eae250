"""Options of an inference: the input vectors that layers see, and how many share a pass."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from memsim.cli.options import PHYSICS
from memsim.files._json import parse_json

__all__ = ["PositionsOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionsOptions:
    """The input vectors of an inference, and the inferences of a pass."""

    positions: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE.json",
            help="input vectors that a layer sees in an inference: one number, or by layer, as "
            '{"layer1.*": 1024}',
            rich_help_panel=PHYSICS,
        ),
    ] = None
    batch: Annotated[
        int, typer.Option(min=1, help="inferences that a pass serves", rich_help_panel=PHYSICS)
    ] = 1

    def read_positions(self, layers: Sequence[str]) -> dict[str, int] | None:
        """Reads the input vectors of every layer; None where none are given.

        Args:
          layers: names of all of them.

        Raises:
          ValueError: no number and no file of numbers; a layer that no name in the file matches.
        """
        if self.positions is None:
            return None
        if self.positions.isascii() and self.positions.isdecimal():
            return dict.fromkeys(layers, self._whole("positions", int(self.positions)))
        path = Path(self.positions)
        if not path.is_file():
            raise ValueError(
                f"`--positions` is {self.positions!r}; give a whole number, or a JSON file of "
                "numbers by layer."
            )
        try:
            given = parse_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"`--positions` {path} is no JSON file: {error}.") from error
        if not isinstance(given, dict):
            raise ValueError(f"`--positions` {path} holds no object of numbers by layer.")
        found = {}
        for name in layers:
            # the first that matches counts
            pattern = next((key for key in given if fnmatch.fnmatchcase(name, key)), None)
            if pattern is None:
                raise ValueError(f"`--positions` {path} has no number for {name!r}; add one.")
            found[name] = self._whole(pattern, given[pattern])
        return found

    def _whole(self, name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"`--positions` has {value!r} for {name!r}; give a whole number from 1."
            )
        return value
