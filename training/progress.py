"""Progress bars of long jobs."""

import rich.console
import rich.progress


def progress_bar(shown: bool = True) -> rich.progress.Progress:
    """Shows progress on stderr, gone when done; none in a notebook or a file, which would keep
    it.
    """
    console = rich.console.Console(stderr=True)
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal) or console.is_jupyter,
    )
