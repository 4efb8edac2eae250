"""Simulate, differentiate and optimise the reprogramming of memristive crossbars, in JAX."""

from memsim import policies
from memsim.budgeting import Budget, Judge, budget
from memsim.cells.conductance import Conductance
from memsim.cells.laws import ConductanceLaw
from memsim.cells.prices import (
    expected_maximum,
    failed_writes,
    scheme_costs,
    write_energy,
    write_time,
)
from memsim.cells.pulses import (
    HFO2,
    PCM,
    CellWrite,
    ConstantPulses,
    RampedPulses,
    Scheme,
    WriteVerify,
    cell_writes,
    pulse_survival,
)
from memsim.cells.reading import Saturated, count_saturated, read_layer, read_matmul, read_weights
from memsim.cells.readouts import Cells, Readout, program_cells
from memsim.cells.wires import (
    Solution,
    Wires,
    device_currents,
    effective_conductance,
    node_voltages,
)
from memsim.chip import Chip, clustered_faults, fault_cells, fault_words, with_faults
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
from memsim.config import CrossbarConfig
from memsim.expectation import expected_writes
from memsim.files.checkpoints import open_checkpoint
from memsim.files.chips import load_chip, load_faults, save_chip, save_faults
from memsim.files.plans import load_plan, save_plan
from memsim.files.writing import save_tensors
from memsim.network import Programming, enable_words, program, sample_chip
from memsim.placement import (
    Placement,
    apply_placement,
    invert_placement,
    sorted_placement,
    unsorted_placement,
)
from memsim.planning import LayerPlan, Plan, plan, with_stucking
from memsim.policies import Policy, chips_differ
from memsim.programming import Counts, program_words
from memsim.report.documents import to_json
from memsim.report.page import to_html
from memsim.schedule import (
    Schedule,
    apply_schedule,
    block_schedule,
    interleaved_schedule,
    invert_schedule,
)
from memsim.selection import select_by_name
from memsim.service.costs import Assumptions, Costs, assume, read_assumptions, total_cost
from memsim.service.lifetime import (
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
from memsim.service.ownership import Worth, worth
from memsim.streaming import Chips, Comparison, compare
from memsim.summary import LayerSummary, Summary, mean_over_chips, summarize

__version__ = "0.1.0"

__all__ = [
    "HFO2",
    "PCM",
    "Assumptions",
    "Budget",
    "CellLives",
    "CellWrite",
    "Cells",
    "Chip",
    "Chips",
    "Comparison",
    "Conductance",
    "ConductanceLaw",
    "ConstantPulses",
    "Costs",
    "Counts",
    "CrossbarConfig",
    "Judge",
    "LayerPlan",
    "LayerSummary",
    "Lognormal",
    "Placement",
    "Plan",
    "Policy",
    "Programming",
    "RampedPulses",
    "Readout",
    "Saturated",
    "Schedule",
    "Scheme",
    "Solution",
    "Summary",
    "WearHistogram",
    "Weibull",
    "Wires",
    "Worth",
    "WriteVerify",
    "apply_placement",
    "apply_schedule",
    "assume",
    "bit_slice",
    "block_schedule",
    "budget",
    "cell_changes",
    "cell_writes",
    "chips_differ",
    "clustered_faults",
    "column_counts",
    "compare",
    "count_saturated",
    "decode",
    "dequantize",
    "device_currents",
    "effective_conductance",
    "enable_words",
    "encode",
    "expected_maximum",
    "expected_writes",
    "failed_writes",
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
    "node_voltages",
    "open_checkpoint",
    "plan",
    "policies",
    "program",
    "program_cells",
    "program_words",
    "programmings_until_failure",
    "programmings_with_spares",
    "pulse_survival",
    "quantization_scale",
    "quantize",
    "read_assumptions",
    "read_layer",
    "read_matmul",
    "read_weights",
    "sample_chip",
    "sample_lives",
    "save_chip",
    "save_faults",
    "save_plan",
    "save_tensors",
    "scheme_costs",
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
