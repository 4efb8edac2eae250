"""Simulate, differentiate and optimise the reprogramming of memristive crossbars, in JAX.

The verbs and nouns that every program needs are here; the rest is in submodules by topic:
`policies` (and the protocol of your own), `cells` (pulses, conductance, wires, reading), `hardware`
(arrays, converters, memory, and what a pass takes), `service` (wear, lifetime, cost), `report`
(tables, JSON, pages), `files`, `plot` (needs matplotlib), and the words of the field: `selection`,
`codes`, `placement`, `schedule`, `chip`, `summary`, `intervals`.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from memsim import (
        attention,
        cells,
        chip,
        codes,
        codesign,
        draws,
        files,
        hardware,
        intervals,
        placement,
        plot,
        policies,
        report,
        schedule,
        selection,
        service,
        summary,
    )
    from memsim.budgeting import Budget, Judge, budget
    from memsim.cells import Conductance, Readout, read_weights
    from memsim.chip import Chip, with_faults
    from memsim.codesign import WordChains
    from memsim.config import CrossbarConfig
    from memsim.draws import enable_words
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
    from memsim.floor import writes_floor
    from memsim.hardware import Hardware
    from memsim.minimising import Minimum, minimise
    from memsim.network import Programming, program, sample_chip
    from memsim.planning import LayerPlan, Plan, plan, with_stucking
    from memsim.policies import Policy
    from memsim.programming import Counts
    from memsim.selection import select_by_name
    from memsim.service import advise
    from memsim.streaming import Chips, Comparison, compare
    from memsim.summary import Summary, mean_over_chips, summarize
    from memsim.writing import Writing

__version__ = "0.2.0"

__all__ = [
    "Budget",
    "Chip",
    "Chips",
    "Comparison",
    "Conductance",
    "Counts",
    "CrossbarConfig",
    "Hardware",
    "Judge",
    "LayerPlan",
    "Minimum",
    "Plan",
    "Policy",
    "Programming",
    "Readout",
    "Summary",
    "WordChains",
    "Writing",
    "advise",
    "attention",
    "budget",
    "cells",
    "chip",
    "codes",
    "codesign",
    "compare",
    "draws",
    "enable_words",
    "expected_writes",
    "files",
    "hardware",
    "intervals",
    "load_chip",
    "load_faults",
    "load_plan",
    "mean_over_chips",
    "minimise",
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
    "writes_floor",
]

# Modules, imported when they are first asked for, and what the top level has of each: so that
# `memsim --version` takes no JAX.
_LATER = {
    "chip": ("Chip", "with_faults"),
    "codes": (),
    "config": ("CrossbarConfig",),
    "draws": ("enable_words",),
    "network": ("Programming", "program", "sample_chip"),
    "placement": (),
    "planning": ("LayerPlan", "Plan", "plan", "with_stucking"),
    "policies": ("Policy",),
    "programming": ("Counts",),
    "schedule": (),
    "selection": ("select_by_name",),
    "summary": ("Summary", "mean_over_chips", "summarize"),
    "writing": ("Writing",),
    "attention": (),
    "codesign": ("WordChains",),
    "budgeting": ("Budget", "Judge", "budget"),
    "minimising": ("Minimum", "minimise"),
    "cells": ("Conductance", "Readout", "read_weights"),
    "expectation": ("expected_writes",),
    "floor": ("writes_floor",),
    "files": (
        "load_chip",
        "load_faults",
        "load_plan",
        "open_checkpoint",
        "save_chip",
        "save_faults",
        "save_plan",
        "save_tensors",
    ),
    "hardware": ("Hardware",),
    "intervals": (),
    "plot": (),
    "report": (),
    "service": ("advise",),
    "streaming": ("Chips", "Comparison", "compare"),
}


def __getattr__(name: str) -> typing.Any:
    """Imports what is asked for; finds names of 0.1."""
    for submodule, names in _LATER.items():
        if name == submodule or name in names:
            found = importlib.import_module(f"memsim.{submodule}")
            return found if name == submodule else getattr(found, name)
    return importlib.import_module("memsim._moved").find_moved(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
