"""Sweeps: combinations of crossbars, policies and stuck rates, many chips for each.

    python -m training.sweep --policy unsorted --policy sws --stuck-at 0 --stuck-at 0.01

Chips run over all devices that JAX sees; on several hosts, start it on each with the same options
and `--coordinator HOST:PORT --processes N --process K`. Chip n is the same in every combination.
Killed, it goes on with the same command and ends with the same files.
"""

from training.sweep.combinations import (
    Combination,
    list_combinations,
    list_configs,
    list_policies,
)
from training.sweep.command import main
from training.sweep.settings import SweepOptions

__all__ = [
    "Combination",
    "SweepOptions",
    "list_combinations",
    "list_configs",
    "list_policies",
    "main",
]
