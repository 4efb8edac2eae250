"""Memristors: how they are pulsed, what they conduct, what wires and converters make of that."""

from memsim.cells.conductance import Conductance
from memsim.cells.laws import ConductanceLaw, parse_law
from memsim.cells.prices import (
    expected_maximum,
    failed_writes,
    fitting_schemes,
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
from memsim.cells.schemes import parse_writing, scheme_writing
from memsim.cells.wires import (
    Solution,
    Wires,
    device_currents,
    effective_conductance,
    node_voltages,
    voltage_drop,
)

__all__ = [
    "HFO2",
    "PCM",
    "CellWrite",
    "Cells",
    "Conductance",
    "ConductanceLaw",
    "ConstantPulses",
    "RampedPulses",
    "Readout",
    "Saturated",
    "Scheme",
    "Solution",
    "Wires",
    "WriteVerify",
    "cell_writes",
    "count_saturated",
    "device_currents",
    "effective_conductance",
    "expected_maximum",
    "failed_writes",
    "fitting_schemes",
    "node_voltages",
    "parse_law",
    "parse_writing",
    "program_cells",
    "pulse_survival",
    "read_layer",
    "read_matmul",
    "read_weights",
    "scheme_costs",
    "scheme_writing",
    "voltage_drop",
    "write_energy",
    "write_time",
]
