"""The energy and time of a pass: its pulses, reads of the controller, and bits moved."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from memsim._checks import check_kind
from memsim.cells.prices import write_energy, write_time
from memsim.hardware.parts import Hardware
from memsim.summary import Summary

__all__ = ["PART_NAMES", "PassCost", "pass_cost", "with_net_reduction"]

# The parts of a pass: what they are of.
PART_NAMES = {
    "pulses": "pulses of cells",
    "reads": "reads of the controller",
    "index": "index moved",
    "data": "words moved",
}


class PassCost(NamedTuple):
    """The energy and time of programming a network, as often as was counted.

    Attributes:
      joules: of each of the parts `pulses`, `reads`, `index`, `data`.
      seconds: of each, one array after another and nothing at the same time.
    """

    joules: dict[str, float]
    seconds: dict[str, float]

    @property
    def total_joules(self) -> float:
        """The energy of all parts."""
        return sum(self.joules.values())

    @property
    def total_seconds(self) -> float:
        """The time of all parts one after another."""
        return sum(self.seconds.values())


def pass_cost(summary: Summary, hardware: Hardware) -> PassCost:
    """Prices the passes of a summary on hardware.

    Pulses cost what they do under its scheme; a controller that reads first reads every row that is
    programmed; index and words are moved once a pass from memory.

    Args:
      summary: of cells with as many bits as those of the hardware.
      hardware: whose parts have prices.

    Raises:
      ValueError: cells of other bits.

    >>> import numpy as np, memsim
    >>> config = memsim.CrossbarConfig(rows=2)
    >>> params = {"kernel": np.arange(12, dtype=np.float32).reshape(4, 3)}
    >>> sws = memsim.compare(params, config, {"sws": memsim.policies.Sws()}).policies["sws"]
    >>> cost = pass_cost(sws, memsim.hardware.read_hardware("published"))
    >>> {part: round(1e12 * joules, 1) for part, joules in cost.joules.items()}
    {'pulses': 1004.3, 'reads': 0.0, 'index': 96.0, 'data': 360.0}
    """
    check_kind("summary", summary, Summary, "give what `memsim.summarize` returns")
    check_kind("hardware", hardware, Hardware, "give what `memsim.hardware.read_hardware` returns")
    if summary.cell_bits != hardware.cells.bits:
        raise ValueError(
            f"`summary` is of cells of {summary.cell_bits} bits, `hardware` has cells of "
            f"{hardware.cells.bits}; give `hardware.on(config)`."
        )
    # cells are pulsed under their scheme, and read before that if the controller looks
    scheme, memory = hardware.cells.pulses, hardware.memory
    row_seconds, cell_joules = hardware.cells.read
    # once a pass: routes stay latched while a section is resident
    moved = {"index": summary.index_bits, "data": summary.data_bits}
    # one array after another, so that times add up as energies do
    joules = {
        "pulses": write_energy(summary, scheme),
        "reads": summary.cells_programmed * cell_joules,
        **{part: bits * memory.move_energy for part, bits in moved.items()},
    }
    seconds = {
        "pulses": write_time(summary, scheme),
        "reads": summary.rows_programmed * row_seconds,
        **{part: bits / memory.bandwidth for part, bits in moved.items()},
    }
    return PassCost(joules, seconds)


def with_net_reduction(summary: Summary, baseline: Summary, hardware: Hardware) -> Summary:
    """Gives the summary with the energy of `baseline` divided by its own, all parts included."""
    own = pass_cost(summary, hardware).total_joules
    before = pass_cost(baseline, hardware).total_joules
    return dataclasses.replace(summary, net_reduction=before / own if own else None)
