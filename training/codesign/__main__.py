"""`python -m training.codesign`."""

import sys

import typer

from training.codesign import main

if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"codesign: {error}")
