"""What writing costs in time and energy, from how a cell is pulsed."""

import dataclasses
import math

from memsim.report import Summary


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantPulses:
    """Constant-amplitude programming without feedback: a cell that changes gets one pulse.

    Every pulse is taken to succeed (single pulses on RRAM do in about half of all tries). The
    defaults are for HfO2 RRAM (1T1R): voltages and widths are medians of published cells, energies
    follow from them as V^2 * G * t, 2 V across the harmonic mean of 200 and 11 uS.

    Attributes:
      set_width, reset_width: of a pulse, in seconds.
      set_energy, reset_energy: of a pulse, in joules.
      parallel_rows: rows programmed at once.

    Raises:
      ValueError: a value that is not positive, or a broken number of rows.

    References:
      Pentecost et al., NVMExplorer, HPCA 2022, arXiv 2109.01188 (voltages and widths);
      10.1109/TED.2021.3097975 (conductances).
    """

    set_width: float = 100e-9
    reset_width: float = 1e-6
    set_energy: float = 8.3e-12
    reset_energy: float = 83e-12
    parallel_rows: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value < math.inf:  # also refuses NaN
                raise ValueError(f"`{name}` is {value!r}; give a positive number.")
        if self.parallel_rows != int(self.parallel_rows):
            raise ValueError(f"`parallel_rows` is {self.parallel_rows!r}; give a whole number.")


def write_time(summary: Summary, pulses: ConstantPulses) -> float:
    """Seconds that these writes take.

    A row operation is a SET and a RESET pulse, each on all its columns at once, whether or not the
    row needs both; `parallel_rows` of them run at a time, and none of these places stays empty.
    """
    row_operation = pulses.set_width + pulses.reset_width
    return summary.row_operations * row_operation / pulses.parallel_rows


def write_energy(summary: Summary, pulses: ConstantPulses) -> float:
    """Joules that these writes take: a pulse for every SET and every RESET."""
    return summary.sets * pulses.set_energy + summary.resets * pulses.reset_energy
