"""Charts as matplotlib figures: returned, never shown. Needs the extra `plot`."""

try:
    import matplotlib.figure  # noqa: F401
except ImportError as error:
    raise ImportError('memsim.plot needs matplotlib: pip install "memsim[plot]"') from error

from memsim.plot.chips import accuracy_over_chips, chips_at_work, wear_map, yield_against_stuck_rate
from memsim.plot.hardware import arrays_at_work, ways_to_run
from memsim.plot.policies import (
    accuracy_against_pulses,
    accuracy_against_reduction,
    writes_by_policy,
    writes_per_column,
)
from memsim.plot.prices import reduction_against_index_bits
from memsim.plot.saving import save_chart, to_svg

__all__ = [
    "accuracy_against_pulses",
    "accuracy_against_reduction",
    "accuracy_over_chips",
    "arrays_at_work",
    "chips_at_work",
    "reduction_against_index_bits",
    "save_chart",
    "to_svg",
    "ways_to_run",
    "wear_map",
    "writes_by_policy",
    "writes_per_column",
    "yield_against_stuck_rate",
]
