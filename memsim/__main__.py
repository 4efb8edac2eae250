"""`python -m memsim` is the console script `memsim`."""

from memsim.cli import main

main()
