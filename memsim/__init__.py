"""Simulate, differentiate and optimise the reprogramming of memristive crossbars, in JAX."""

from memsim.budgeting import Budget, budget
from memsim.cells.conductance import Conductance
from memsim.cells.pulses import (
    HFO2,
    PCM,
    CellWrite,
    ConstantPulses,
    RampedPulses,
    Scheme,
    WriteVerify,
    cell_writes,
    expected_maximum,
    failed_writes,
    pulse_survival,
    scheme_costs,
    write_energy,
    write_time,
)
from memsim.cells.reading import (
    Cells,
    Readout,
    program_cells,
    read_layer,
    read_matmul,
    read_weights,
)
from memsim.cells.wires import Wires, device_currents, effective_conductance, node_voltages
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
from memsim.config import CrossbarConfig, Policy
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
from memsim.service.costs import (
    Costs,
    ServiceInputs,
    make_service_inputs,
    read_service_inputs,
    total_cost,
)
from memsim.service.lifetime import (
    CellLives,
    Lognormal,
    Weibull,
    lifetime_years,
    programmings_until_failure,
    programmings_with_spares,
    sample_lives,
    wear_out,
)
from memsim.service.ownership import ServiceLife, life_in_service
from memsim.service.wear import (
    WearHistogram,
    cycles_per_write,
    levelled_wear,
    levelled_writes,
    steady_wear,
    wear_cycles,
    wear_histogram,
)
from memsim.streaming import Comparison, compare
from memsim.summary import LayerSummary, Summary, mean_over_chips, summarize

__version__ = "0.1.0"

__all__ = [
    "HFO2",
    "PCM",
    "Budget",
    "CellLives",
    "CellWrite",
    "Cells",
    "Chip",
    "Comparison",
    "Conductance",
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
    "RampedPulses",
    "Readout",
    "Schedule",
    "Scheme",
    "ServiceInputs",
    "ServiceLife",
    "Summary",
    "WearHistogram",
    "Weibull",
    "Wires",
    "WriteVerify",
    "apply_placement",
    "apply_schedule",
    "bit_slice",
    "block_schedule",
    "budget",
    "cell_changes",
    "cell_writes",
    "clustered_faults",
    "column_counts",
    "compare",
    "cycles_per_write",
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
    "life_in_service",
    "lifetime_years",
    "load_chip",
    "load_faults",
    "load_plan",
    "make_service_inputs",
    "mean_over_chips",
    "node_voltages",
    "open_checkpoint",
    "plan",
    "program",
    "program_cells",
    "program_words",
    "programmings_until_failure",
    "programmings_with_spares",
    "pulse_survival",
    "quantization_scale",
    "quantize",
    "read_layer",
    "read_matmul",
    "read_service_inputs",
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
    "wear_cycles",
    "wear_histogram",
    "wear_out",
    "with_faults",
    "with_stucking",
    "write_energy",
    "write_time",
]
