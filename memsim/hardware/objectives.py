"""Objectives of a plan: the least writes, energy, time or wear."""

from __future__ import annotations

import dataclasses
from typing import Literal

from memsim._checks import check_choice, check_kind
from memsim.hardware.parts import Hardware
from memsim.hardware.passes import pass_cost
from memsim.summary import Summary

__all__ = ["OBJECTIVES", "Objective"]

# What may be minimised, and its unit.
OBJECTIVES = {"writes": "", "energy": "J", "time": "s", "wear": "writes of one cell"}
"""What may be least, and its unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Measures what is to be least: calling it with a summary gives the number.

    Attributes:
      what: `writes`; `energy` or `time` of the passes on hardware, index and words included; or
        `wear`, the writes of the most written cell.
      hardware: with the crossbars that are planned for; what energy and time are of.

    Raises:
      ValueError: something else; energy or time without hardware.

    >>> Objective().unit, Objective(what="wear").what
    ('', 'wear')
    """

    what: Literal["writes", "energy", "time", "wear"] = "writes"
    hardware: Hardware | None = None

    def __post_init__(self) -> None:
        check_choice("what", self.what, tuple(OBJECTIVES))
        if self.what in ("energy", "time"):
            remedy = f"`{self.what}` is that of hardware; give memsim.hardware.read_hardware(...)"
            check_kind("hardware", self.hardware, Hardware, remedy)

    def __call__(self, summary: Summary) -> float:
        """Gives the number.

        Raises:
          ValueError: wear of what was programmed without counting it.
        """
        check_kind("summary", summary, Summary, "give what `memsim.summarize` returns")
        if self.what == "writes":
            return summary.writes
        if self.what == "wear":
            if summary.max_cell_writes is None:
                raise ValueError("`summary` has no wear; program with `wear=True`.")
            return summary.max_cell_writes
        assert self.hardware is not None  # noqa: S101 - checked where it is made
        cost = pass_cost(summary, self.hardware)
        return cost.total_joules if self.what == "energy" else cost.total_seconds

    @property
    def unit(self) -> str:
        """The unit of the number."""
        return OBJECTIVES[self.what]
