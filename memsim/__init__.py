"""Simulate, differentiate and optimise the reprogramming of memristive crossbars, in JAX.

The verbs and nouns that every program needs are here; the rest is in submodules by topic:
`policies` (and the protocol of your own), `cells` (pulses, conductance, wires, reading), `service`
(wear, lifetime, cost), `report` (tables, JSON, pages), `files`, `plot` (needs matplotlib), and the
words of the field: `selection`, `codes`, `placement`, `schedule`, `chip`, `summary`, `intervals`.
"""

import importlib
import typing

from memsim import cells, chip, codes, files, placement, policies, schedule, selection, summary
from memsim.budgeting import Budget, Judge, budget
from memsim.cells import Conductance, Readout, read_weights
from memsim.chip import Chip, with_faults
from memsim.config import CrossbarConfig
from memsim.expectation import expected_writes
from memsim.files import (
    load_chip,
    load_faults,
    load_plan,
    open_checkpoint,
    save_chip,
    save_faults,
    save_plan,
    save_tensors,
)
from memsim.network import Programming, enable_words, program, sample_chip
from memsim.planning import LayerPlan, Plan, plan, with_stucking
from memsim.policies import Policy
from memsim.programming import Counts
from memsim.selection import select_by_name
from memsim.streaming import Chips, Comparison, compare
from memsim.summary import Summary, mean_over_chips, summarize

if typing.TYPE_CHECKING:
    from memsim import intervals, plot, report, service

__version__ = "0.2.0"

__all__ = [
    "Budget",
    "Chip",
    "Chips",
    "Comparison",
    "Conductance",
    "Counts",
    "CrossbarConfig",
    "Judge",
    "LayerPlan",
    "Plan",
    "Policy",
    "Programming",
    "Readout",
    "Summary",
    "budget",
    "cells",
    "chip",
    "codes",
    "compare",
    "enable_words",
    "expected_writes",
    "files",
    "intervals",
    "load_chip",
    "load_faults",
    "load_plan",
    "mean_over_chips",
    "open_checkpoint",
    "placement",
    "plan",
    "plot",
    "policies",
    "program",
    "read_weights",
    "report",
    "sample_chip",
    "save_chip",
    "save_faults",
    "save_plan",
    "save_tensors",
    "schedule",
    "select_by_name",
    "selection",
    "service",
    "summarize",
    "summary",
    "with_faults",
    "with_stucking",
]

# What only the end of a study needs is imported when it is asked for.
_LATER = ("intervals", "plot", "report", "service")


def __getattr__(name: str) -> typing.Any:
    """Imports a submodule the first time that it is used; finds names of 0.1."""
    if name in _LATER:
        return importlib.import_module(f"memsim.{name}")
    return importlib.import_module("memsim._moved").find_moved(name)
