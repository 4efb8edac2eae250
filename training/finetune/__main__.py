"""`python -m training.finetune`."""

import sys

import typer

from training.finetune import main

if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"finetune: {error}")
