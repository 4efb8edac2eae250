"""Says how a report was made: on its page, on a terminal."""

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
        "writing": "; ".join(_as_list(rates["writing"])) if rates["writing"] else "none fails",
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
    if "--faults" in made_by["options"]:
        return "as --faults has them"
    rates = (_as_list(made_by["rates"][name]) for name in ("stuck_at_0", "stuck_at_1"))
    return "; ".join(
        f"{100 * zero:g} % at 0 and {100 * one:g} % at 1" if zero or one else "none drawn"
        for zero, one in zip(*rates, strict=True)
    )


def _as_list(value: Any) -> list[Any]:
    # a job may have several rates, a command has one
    return value if isinstance(value, list) else [value]
