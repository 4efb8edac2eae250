"""`python -m training.sweep`."""

import sys

import typer

from training.sweep import main

if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"sweep: {error}")
