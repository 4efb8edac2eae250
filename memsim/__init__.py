"""Simulate, differentiate and optimise the reprogramming of memristive crossbars, in JAX."""

from memsim.budget import Budget, budget
from memsim.checkpoint import (
    load_chip,
    load_faults,
    load_plan,
    open_checkpoint,
    save_chip,
    save_faults,
    save_plan,
    save_tensors,
)
from memsim.chip import Chip, fault_cells, fault_words, with_faults
from memsim.codes import (
    bit_slice,
    cell_changes,
    column_counts,
    decode,
    dequantize,
    encode,
    hamming_distance,
    join_slices,
    quantization_scale,
    quantize,
)
from memsim.compare import Comparison, compare
from memsim.config import CrossbarConfig, Policy
from memsim.cost import Assumptions, Costs, assume, read_assumptions, total_cost
from memsim.device import ConstantPulses, write_energy, write_time
from memsim.expected import expected_writes
from memsim.lifetime import (
    CellLives,
    Lognormal,
    WearHistogram,
    Weibull,
    levelled_wear,
    levelled_writes,
    lifetime_years,
    programmings_until_failure,
    programmings_with_spares,
    sample_lives,
    steady_wear,
    wear_histogram,
    wear_out,
)
from memsim.network import Programming, enable_words, program, sample_chip
from memsim.placement import (
    Placement,
    apply_placement,
    invert_placement,
    sorted_placement,
    unsorted_placement,
)
from memsim.planning import LayerPlan, Plan, plan, with_stucking
from memsim.program import Counts, program_words
from memsim.report import LayerSummary, Summary, mean_over_chips, summarize, to_html, to_json
from memsim.schedule import (
    Schedule,
    apply_schedule,
    block_schedule,
    interleaved_schedule,
    invert_schedule,
)
from memsim.selection import select_by_name
from memsim.worth import Worth, worth

__version__ = "0.1.0"

__all__ = [
    "Assumptions",
    "Budget",
    "CellLives",
    "Chip",
    "Comparison",
    "ConstantPulses",
    "Costs",
    "Counts",
    "CrossbarConfig",
    "LayerPlan",
    "LayerSummary",
    "Lognormal",
    "Placement",
    "Plan",
    "Policy",
    "Programming",
    "Schedule",
    "Summary",
    "WearHistogram",
    "Weibull",
    "Worth",
    "apply_placement",
    "apply_schedule",
    "assume",
    "bit_slice",
    "block_schedule",
    "budget",
    "cell_changes",
    "column_counts",
    "compare",
    "decode",
    "dequantize",
    "enable_words",
    "encode",
    "expected_writes",
    "fault_cells",
    "fault_words",
    "hamming_distance",
    "interleaved_schedule",
    "invert_placement",
    "invert_schedule",
    "join_slices",
    "levelled_wear",
    "levelled_writes",
    "lifetime_years",
    "load_chip",
    "load_faults",
    "load_plan",
    "mean_over_chips",
    "open_checkpoint",
    "plan",
    "program",
    "program_words",
    "programmings_until_failure",
    "programmings_with_spares",
    "quantization_scale",
    "quantize",
    "read_assumptions",
    "sample_chip",
    "sample_lives",
    "save_chip",
    "save_faults",
    "save_plan",
    "save_tensors",
    "select_by_name",
    "sorted_placement",
    "steady_wear",
    "summarize",
    "to_html",
    "to_json",
    "total_cost",
    "unsorted_placement",
    "wear_histogram",
    "wear_out",
    "with_faults",
    "with_stucking",
    "worth",
    "write_energy",
    "write_time",
]
