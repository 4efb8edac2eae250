"""Prices of writes in time and energy, and the errors that they leave, by how a cell is pulsed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from memsim._checks import check_kind, check_number
from memsim.cells.pulses import Scheme, cell_writes, check_levels
from memsim.summary import LayerSummary, Summary

__all__ = [
    "expected_maximum",
    "failed_writes",
    "fitting_schemes",
    "scheme_costs",
    "write_energy",
    "write_time",
]


def expected_maximum(pmf: Float64[np.ndarray, "pulses"], cells: float) -> float:
    """Finds how many pulses the slowest of so many cells takes, on average; 0 for no cell.

    Args:
      pmf: of one cell, from `cell_writes`.
      cells: independent of each other; need not be whole.

    Examples:
      >>> expected_maximum(np.array([0.5, 0.5]), 2)
      1.75
    """
    check_number("cells", cells, "give a number from 0", 0)
    if not cells:
        return 0.0
    # P(slowest > k) = 1 - P(one <= k)^cells, summed over k from 0
    done = np.cumsum(pmf)[:-1]
    return 1 + float(np.sum(1 - done**cells))


def write_time(summary: Summary | LayerSummary, scheme: Scheme) -> float:
    """Finds the seconds that these writes take, on average.

    A row takes a SET phase only if a cell of it is SET, and a RESET phase only if one is RESET,
    each on all its columns at once; a phase lasts until the slowest cell is done. `parallel_rows`
    phases of a kind run at a time, and none of these places stays empty.

    Every row with SETs is taken to have the mean number of them, and so with RESETs: exact for
    constant pulses, elsewhere an upper bound, since the slowest of n cells grows less than n.

    Args:
      summary: what was written, of a network or one of its layers.
      scheme: how a cell is written; one for cells of so many levels.

    Raises:
      ValueError: cells of more levels than the scheme has figures for.

    References:
      Rows one after another, columns together: NeuroSim, 10.1109/TCAD.2018.2789723.
    """
    if not isinstance(summary, LayerSummary):  # of a layer it is checked with its network
        _check_levels(summary, scheme)
    # a SET phase where a cell of a row rises, a RESET phase where one falls
    phases = (
        (summary.set_pulses, summary.set_rows),
        (summary.reset_pulses, summary.reset_rows),
    )
    seconds = 0.0
    for (cells, rows), write in zip(phases, cell_writes(scheme), strict=True):
        if rows:
            # steps of rows side by side; a phase takes its time, however few they are
            steps = max(rows / scheme.parallel_rows, 1.0)
            # each lasts until the slowest of its cells is done
            seconds += steps * expected_maximum(write.pmf, cells / steps) * write.pulse_time
    return seconds


def write_energy(summary: Summary, scheme: Scheme) -> float:
    """Finds the joules that these writes take, on average.

    Raises:
      ValueError: cells of more levels than the scheme has figures for.
    """
    check_kind("summary", summary, Summary)
    _check_levels(summary, scheme)
    set_, reset = cell_writes(scheme)
    return summary.set_pulses * set_.energy + summary.reset_pulses * reset.energy


def failed_writes(summary: Summary, scheme: Scheme) -> float:
    """Counts the writes that leave their cell wrong, on average.

    They are those of counts, and of weights, of which no write failed; `program` and `compare` with
    a `writing` let them fail, and count what is wrong then.

    Raises:
      ValueError: cells of more levels than the scheme has figures for.
    """
    _check_levels(summary, scheme)
    set_, reset = cell_writes(scheme)
    return summary.sets * set_.residual_error + summary.resets * reset.residual_error


def fitting_schemes(schemes: Mapping[str, Scheme], cell_bits: int) -> dict[str, Scheme]:
    """Keeps the schemes whose figures are of cells of so many bits.

    Examples:
      >>> from memsim.cells.pulses import HFO2
      >>> list(fitting_schemes(HFO2, cell_bits=2))
      ['ramp']
    """
    return {name: scheme for name, scheme in schemes.items() if 2**cell_bits <= scheme.levels}


def scheme_costs(
    policies: Mapping[str, Summary], schemes: Mapping[str, Scheme]
) -> dict[str, dict[str, dict[str, float]]]:
    """Prices `write_seconds`, `write_joules` and `failed_writes`, by policy and scheme.

    Raises:
      ValueError: cells of more levels than a scheme has figures for; see `fitting_schemes`.
    """
    return {
        policy: {
            name: {
                "write_seconds": write_time(summary, scheme),
                "write_joules": write_energy(summary, scheme),
                "failed_writes": failed_writes(summary, scheme),
            }
            for name, scheme in schemes.items()
        }
        for policy, summary in policies.items()
    }


def _check_levels(summary: Summary, scheme: Scheme) -> None:
    """Checks that a scheme has figures for the cells that were written."""
    check_kind("summary", summary, Summary)
    check_levels(scheme, summary.cell_bits)
