"""The command line: a file for each command."""

import importlib
import typing

from memsim.cli.entry import main

if typing.TYPE_CHECKING:
    from memsim.cli.commands import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> typing.Any:
    """Imports the commands, which take JAX, when they are asked for."""
    if name == "app":
        return importlib.import_module("memsim.cli.commands").app
    raise AttributeError(f"module 'memsim.cli' has no attribute {name!r}")
