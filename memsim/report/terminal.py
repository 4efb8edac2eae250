"""Says where commands print: results on stdout, progress on stderr for whoever watches."""

import io
import sys

import rich.console
import rich.progress

__all__ = ["progress_bar", "results_console"]


def results_console(width: int = 140) -> rich.console.Console:
    """Opens a console on stdout that prints every name, if need be with escapes.

    Args:
      width: where a pipe or a file has none: wide enough for tables to stay in one piece.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # an ASCII terminal shows other letters as escapes, instead of ending the command
        sys.stdout.reconfigure(errors="backslashreplace")
    return rich.console.Console(width=None if sys.stdout.isatty() else width)


def progress_bar() -> rich.progress.Progress:
    """Opens a bar on stderr that is gone when done; in a log or a notebook it leaves no line."""
    console = rich.console.Console(stderr=True)
    return rich.progress.Progress(console=console, transient=True, disable=not sys.stderr.isatty())
