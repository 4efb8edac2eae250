"""Says how a report was made: on its page, on a terminal."""

from collections.abc import Mapping
from typing import Any

from memsim.report.texts import printable


def made_by_lines(made_by: Mapping[str, Any]) -> dict[str, str]:
    """Says how a report was made, by what each text is of.

    Args:
      made_by: that entry of a report of a command.
    """
    rates = made_by["rates"]
    at_0, at_1 = (_as_list(rates[name]) for name in ("stuck_at_0", "stuck_at_1"))
    drawn = [
        f"{100 * zero:g} % at 0 and {100 * one:g} % at 1" if zero or one else "none drawn"
        for zero, one in zip(at_0, at_1, strict=True)
    ]
    stuck = "; ".join(drawn)
    if "--faults" in made_by["options"]:
        stuck = "as --faults has them"
    # the first line is enough for most readers
    lines = {
        "made by": f"memsim {made_by['version']} with JAX {made_by['jax']}, {made_by['date']}",
        "command": made_by["command"],
        "seed": str(made_by["seed"]),
        "stuck cells": stuck,
        "writing": "; ".join(_as_list(rates["writing"])) if rates["writing"] else "none fails",
        "hardware": made_by["hardware"],
    }
    lines |= {f"SHA-256 of {name}": digest for name, digest in made_by["files"].items()}
    return {name: printable(str(text)) for name, text in lines.items()}


def _as_list(value: Any) -> list[Any]:
    # a job may have several rates, a command has one
    return value if isinstance(value, list) else [value]
