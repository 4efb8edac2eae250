"""Says how a report was made: on its page, in its charts, on a terminal."""

import json
from collections.abc import Mapping
from typing import Any

from memsim.report.texts import count_text, crossbar_lines, printable


def made_by_lines(made_by: Mapping[str, Any]) -> dict[str, str]:
    """Says how a report was made, by what each text is of.

    Args:
      made_by: that entry of a report of a command.
    """
    rates = made_by["rates"]
    # the first line is enough for most readers
    lines = {
        "made by": f"memsim {made_by['version']} with JAX {made_by['jax']}, {made_by['date']}",
        "command": made_by["command"],
        "seed": str(made_by["seed"]),
        "stuck cells": _stuck_text(made_by),
        "writing": rates["writing"] or "none fails",
        "hardware": made_by["hardware"],
    }
    lines |= {f"SHA-256 of {name}": digest for name, digest in made_by["files"].items()}
    return {name: printable(str(text)) for name, text in lines.items()}


def setup_lines(report: Mapping[str, Any]) -> dict[str, str]:
    """Says under what a report was counted, in a few lines above its tables.

    Args:
      report: its JSON values, with `made_by`.
    """
    made_by, config = report["made_by"], report["config"]
    first = next(iter(report["policies"].values()))
    passes, chips = count_text(len(first["writes_per_pass"]), "pass"), first["chips"]
    writing = made_by["rates"]["writing"]
    return crossbar_lines(config) | {
        "counted": f"{passes} on {count_text(chips, 'chip')}, seed {made_by['seed']}; stuck "
        f"cells: {_stuck_text(made_by)}; writes that fail: {printable(writing or 'none')}",
        "hardware": printable(made_by["hardware"]),
    }


def _stuck_text(made_by: Mapping[str, Any]) -> str:
    rates = made_by["rates"]
    stuck = "none drawn"
    if rates["stuck_at_0"] or rates["stuck_at_1"]:
        stuck = f"{100 * rates['stuck_at_0']:g} % at 0 and {100 * rates['stuck_at_1']:g} % at 1"
    if "--faults" in made_by["options"]:
        stuck = "as --faults has them"
    return stuck


def chart_metadata(made_by: Mapping[str, Any]) -> dict[str, str]:
    """Gives what a chart in a PNG says of how it was made, under the names that PNG has for it."""
    return {
        "Software": f"memsim {made_by['version']}",
        "Creation Time": made_by["date"],
        "Description": made_by["command"],
        "made_by": json.dumps(made_by),
    }
