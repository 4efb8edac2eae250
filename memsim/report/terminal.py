"""Consoles that commands print to: results on stdout, progress and failures on stderr."""

import codecs
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import rich.console
import rich.progress
import rich.table

from memsim.report.texts import printable

__all__ = [
    "accept_any_text",
    "listed",
    "print_problem",
    "progress_bar",
    "results_console",
    "stages",
]

# Characters of figures that have a plain spelling; names from files are escaped instead.
_PLAIN = {"±": "+-", "µ": "u", "…": "...", "\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-"}


class _Console(rich.console.Console):
    """A console whose reader may stop reading, as `| head` does: the rest is dropped."""

    def on_broken_pipe(self) -> None:
        """Sends what is still printed nowhere, so that the command goes on to its end."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def results_console(width: int = 140) -> rich.console.Console:
    """Opens the console of the results, on stdout.

    Args:
      width: columns where nobody says how many there are: a pipe or a file has no width, so there
        it is wide enough not to fold tables. `COLUMNS` in the environment says so.
    """
    accept_any_text()
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return _Console(width=None if known else width)


def progress_bar() -> rich.progress.Progress:
    """Opens a bar on stderr, gone when done; in a log or a notebook it does not even end a line.

    Its spinner and clock go on while a single step takes long.
    """
    # of a long name the end may be missing, so that the rest stays on one line
    name = rich.table.Column(no_wrap=True, overflow="ellipsis")
    return rich.progress.Progress(
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}", markup=False, table_column=name),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def stages(bar: rich.progress.Progress) -> Callable[[float | None, str], None]:
    """Makes what tells a bar (the finished fraction, what is done at present)."""
    task = bar.add_task("", total=None)

    def tell(share: float | None, stage: str) -> None:
        nonlocal task
        # of a stage of unknown length the bar just moves; rich cannot turn one into the other
        if (share is None) != (bar.tasks[-1].total is None):
            bar.remove_task(task)
            task = bar.add_task("", total=None if share is None else 1.0)
        bar.update(task, completed=share or 0.0, description=printable(stage))

    return tell


def print_problem(text: str) -> None:
    """Prints what went wrong on stderr: one line, whatever the text holds."""
    line = printable(" ".join(f"memsim: {text}".splitlines()))
    console = rich.console.Console(stderr=True, soft_wrap=True)
    console.print(line, style="red", highlight=False, markup=False)


def listed(names: Iterable[str]) -> str:
    """Lists names on one line, fit for a terminal.

    Those that differ in numbers alone fold: `blocks.*.norm1.weight (12)`.
    """
    folded = Counter(re.sub(r"(?<=[./_])[0-9]+(?=[./_])", "*", printable(name)) for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in folded.items())


def accept_any_text() -> None:
    """Lets stdout and stderr take any text: what their encoding lacks is spelled out."""
    codecs.register_error("memsim.plain", _spell_out)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what replaces them may be no text file
            stream.reconfigure(errors="memsim.plain")


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Replaces what an encoding lacks: a handler for `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(
        _PLAIN.get(each) or each.encode("unicode_escape").decode("ascii")
        for each in error.object[error.start : error.end]
    )
    return text, error.end
