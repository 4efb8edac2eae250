"""The start of the console script: answers what needs no JAX before it is imported."""

import sys

from memsim import __version__

__all__ = ["main"]


def main() -> None:
    """Runs the command line; see `guarded` for how it fails."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"{__version__}\n")
        raise SystemExit(0)
    from memsim.cli import commands  # slow to import

    commands.main()
