"""Names that stood at the top level in 0.1: they work until 0.3, and say where they are now."""

import importlib
import typing
import warnings

_MOVED = {
    "cells": (
        "CellWrite Cells ConstantPulses HFO2 PCM RampedPulses Scheme Wires WriteVerify "
        "cell_writes device_currents effective_conductance expected_maximum failed_writes "
        "node_voltages program_cells pulse_survival read_layer read_matmul scheme_costs "
        "write_energy write_time"
    ),
    "chip": "clustered_faults fault_cells fault_words",
    "codes": (
        "bit_slice cell_changes column_counts decode dequantize encode hamming_distance "
        "join_slices quantization_scale quantize"
    ),
    "placement": ("Placement apply_placement invert_placement sorted_placement unsorted_placement"),
    "programming": "program_words",
    "report": "to_html to_json",
    "schedule": "Schedule apply_schedule block_schedule interleaved_schedule invert_schedule",
    "service": (
        "CellLives Costs Lognormal WearHistogram Weibull levelled_wear levelled_writes "
        "lifetime_years programmings_until_failure programmings_with_spares sample_lives "
        "steady_wear total_cost wear_histogram wear_out"
    ),
    "summary": "LayerSummary",
}
_RENAMED = {
    "Assumptions": "service.ServiceInputs",
    "Worth": "service.ServiceLife",
    "assume": "service.make_service_inputs",
    "read_assumptions": "service.read_service_inputs",
    "worth": "service.life_in_service",
}


def find_moved(name: str) -> typing.Any:
    """Finds what a name of 0.1 stood for, with a warning that names its new place.

    Raises:
      AttributeError: there never was such a name, or it has another one and other arguments now.
    """
    if name in _RENAMED:
        raise AttributeError(f"memsim.{name} is memsim.{_RENAMED[name]} now; see its arguments.")
    for module, names in _MOVED.items():
        if name in names.split():
            place = f"memsim.{module}.{name}"
            warnings.warn(f"memsim.{name} is {place} now", DeprecationWarning, stacklevel=3)
            return getattr(importlib.import_module(f"memsim.{module}"), name)
    raise AttributeError(f"module 'memsim' has no attribute {name!r}")
