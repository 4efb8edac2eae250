"""Hardware: what a pass and an inference cost on a chip of given arrays, cells and memory."""

from memsim.hardware.components import COMPONENTS, with_components
from memsim.hardware.files import PRESETS, read_hardware
from memsim.hardware.inference import InferenceCost, array_area, inference_cost, product_cost
from memsim.hardware.objectives import OBJECTIVES, Objective
from memsim.hardware.parts import Area, Arrays, Digital, Hardware, Memory, Reading, WrittenCells
from memsim.hardware.passes import PassCost, pass_cost, with_net_reduction
from memsim.hardware.positions import find_positions
from memsim.hardware.timeline import Stage, Timeline, make_timeline

__all__ = [
    "COMPONENTS",
    "OBJECTIVES",
    "PRESETS",
    "Area",
    "Arrays",
    "Digital",
    "Hardware",
    "InferenceCost",
    "Memory",
    "Objective",
    "PassCost",
    "Reading",
    "Stage",
    "Timeline",
    "WrittenCells",
    "array_area",
    "find_positions",
    "inference_cost",
    "make_timeline",
    "pass_cost",
    "product_cost",
    "read_hardware",
    "with_components",
    "with_net_reduction",
]
