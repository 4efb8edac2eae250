"""The command line: a file for each command."""

from memsim.cli.commands import app, main

__all__ = ["app", "main"]
