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
from memsim.conductance import Conductance
from memsim.config import CrossbarConfig, Policy
from memsim.device import (
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
from memsim.expected import expected_writes
from memsim.ir_drop import Wires, device_currents, effective_conductance, node_voltages
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
from memsim.readout import Cells, Readout, program_cells, read_layer, read_matmul, read_weights
from memsim.report import LayerSummary, Summary, mean_over_chips, summarize, to_html, to_json
from memsim.schedule import (
    Schedule,
    apply_schedule,
    block_schedule,
    interleaved_schedule,
    invert_schedule,
)
from memsim.selection import select_by_name

__version__ = "0.1.0"

__all__ = [
    "HFO2",
    "PCM",
    "Budget",
    "CellWrite",
    "Cells",
    "Chip",
    "Comparison",
    "Conductance",
    "ConstantPulses",
    "Counts",
    "CrossbarConfig",
    "LayerPlan",
    "LayerSummary",
    "Placement",
    "Plan",
    "Policy",
    "Programming",
    "RampedPulses",
    "Readout",
    "Schedule",
    "Scheme",
    "Summary",
    "Wires",
    "WriteVerify",
    "apply_placement",
    "apply_schedule",
    "bit_slice",
    "block_schedule",
    "budget",
    "cell_changes",
    "cell_writes",
    "column_counts",
    "compare",
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
    "load_chip",
    "load_faults",
    "load_plan",
    "mean_over_chips",
    "node_voltages",
    "open_checkpoint",
    "plan",
    "program",
    "program_cells",
    "program_words",
    "pulse_survival",
    "quantization_scale",
    "quantize",
    "read_layer",
    "read_matmul",
    "read_weights",
    "sample_chip",
    "save_chip",
    "save_faults",
    "save_plan",
    "save_tensors",
    "scheme_costs",
    "select_by_name",
    "sorted_placement",
    "summarize",
    "to_html",
    "to_json",
    "unsorted_placement",
    "with_faults",
    "with_stucking",
    "write_energy",
    "write_time",
]
