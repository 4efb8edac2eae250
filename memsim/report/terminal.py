"""Where commands print: results on stdout, progress on stderr for whoever watches."""

import sys

import rich.console
import rich.progress


def results_console(width: int = 140) -> rich.console.Console:
    """On stdout; a pipe or a file has no width, so there it is wide enough not to fold tables."""
    return rich.console.Console(width=None if sys.stdout.isatty() else width)


def progress_bar() -> rich.progress.Progress:
    """On stderr, gone when done; in a log or a notebook not even the blank line it ends with."""
    console = rich.console.Console(stderr=True)
    return rich.progress.Progress(console=console, transient=True, disable=not sys.stderr.isatty())
