"""Hardware: what a pass and an inference cost on a chip of given arrays, cells and memory."""

from memsim.hardware.files import PRESETS, read_hardware
from memsim.hardware.parts import Area, Arrays, Hardware, Memory, Reading, WrittenCells
from memsim.hardware.passes import PassCost, pass_cost, with_net_reduction

__all__ = [
    "PRESETS",
    "Area",
    "Arrays",
    "Hardware",
    "Memory",
    "PassCost",
    "Reading",
    "WrittenCells",
    "pass_cost",
    "read_hardware",
    "with_net_reduction",
]
