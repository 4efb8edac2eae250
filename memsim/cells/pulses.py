"""Pulses of a cell: the schemes, the time and energy of one write, the errors that it leaves.

A scheme says how a cell is written: constant-amplitude pulses without feedback, write-verify, or
ramps. `HFO2` and `PCM` hold the schemes of two kinds of cell, with the figures that are published.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from memsim._checks import check_number, check_positive, check_round

__all__ = [
    "CELLS",
    "HFO2",
    "PCM",
    "CellWrite",
    "ConstantPulses",
    "RampedPulses",
    "Scheme",
    "WriteVerify",
    "cell_writes",
    "check_levels",
    "check_scheme",
    "pulse_survival",
]


# (mean, p99, cap) of the schemes below, which the law can have; SciPy, which finds that out, takes
# longer to import than all else.
_PUBLISHED = {(3.2, 40, 100), (4.35, 40, 100), (22.0, 155, 300), (8.0, 30, 30)}


@functools.cache
def pulse_survival(mean: float, p99: int, cap: int) -> Float64[np.ndarray, "pulses"]:
    """Finds the probability that a write is not done after k pulses, for k = 0 to `cap`.

    A write takes ceil(X) pulses, ln X normal, and stops at the cap. The two parameters are fitted
    to the mean and the 99th percentile, which is what is published. The tail is heavy: a geometric
    law with the mean of write-verify on RRAM has less than half its 99th percentile.

    Args:
      mean: pulses of a write, those that are given up included.
      p99: pulses after which 99 % of all writes are done.
      cap: pulses at most.

    Returns:
      cap + 1 entries, 1 first; the last is the share of writes that are given up.

    Raises:
      ValueError: a `p99` above the `cap`, a broken number, a mean that the law cannot have.

    Examples:
      >>> [round(float(left), 3) for left in pulse_survival(1.5, 4, 4)]
      [1.0, 0.378, 0.094, 0.028, 0.01]
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    check_number("mean", mean, "give a number of pulses")
    check_round("cap", cap, "give a whole number of pulses from 1 to 1e6", 1, 10**6)
    check_round("p99", p99, f"give 1 to the `cap`, {cap}, a whole number", 1, cap)
    p99, cap = int(p99), int(cap)
    # ln X has its 99th percentile at ln p99, so that sigma alone is left to be fitted
    with np.errstate(divide="ignore"):
        distance = np.log(np.arange(cap + 1) / p99)

    def survival(sigma: float) -> Float64[np.ndarray, "pulses"]:
        left: Float64[np.ndarray, "pulses"] = ndtr(-ndtri(0.99) - distance / sigma)
        return left

    def mean_of(sigma: float) -> float:
        return float(survival(sigma)[:-1].sum())

    # a wider law has a lower mean, until its tail up to the cap weighs more
    sigmas = np.geomspace(0.01, 10, 100)
    means = np.array([mean_of(sigma) for sigma in sigmas])
    lowest = means.argmin()
    if not means[lowest] <= mean <= means[0]:
        raise ValueError(
            f"`mean` is {mean!r}; with 99 % of all writes done in {p99} pulses and a cap of {cap} "
            f"give {means[lowest]:.3g} to {means[0]:.3g}."
        )
    # on the branch where a wider law has a lower mean
    sigma = brentq(lambda s: mean_of(s) - mean, sigmas[0], sigmas[lowest])
    left = survival(sigma)
    left.flags.writeable = False  # shared by all callers
    return left


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pulses:
    """Holds what every scheme has; the defaults are for HfO2 RRAM (1T1R).

    Voltages and widths are medians of published cells, energies follow from them as V^2 * G * t,
    2 V across the harmonic mean of 200 and 11 uS.
    """

    set_width: float = 100e-9
    reset_width: float = 1e-6
    set_energy: float = 8.3e-12
    reset_energy: float = 83e-12
    parallel_rows: int = 1
    levels: int = 2
    placeholders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # all fields but the list of placeholders are numbers
        placeholders = values.pop("placeholders")
        if not isinstance(placeholders, tuple):
            raise ValueError(f"`placeholders` is {placeholders!r}; give a tuple of names.")
        for name in placeholders:
            if name not in values:
                raise ValueError(f"`placeholders` has {name!r}; give names of fields.")
        for name, value in values.items():
            check_positive(name, value, "give a positive number")
        check_round("parallel_rows", self.parallel_rows, "give a whole number", 1)
        check_round("levels", self.levels, "give a whole number, at least 2", 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantPulses(_Pulses):
    """Constant-amplitude programming without feedback: a cell that changes gets one pulse.

    By default every pulse is taken to succeed; single pulses on RRAM do in about half of all
    tries, see `HFO2`.

    Attributes:
      set_width, reset_width: of a pulse, in seconds.
      set_energy, reset_energy: of a pulse, in joules.
      set_success, reset_success: probability that a pulse does what it should.
      parallel_rows: rows programmed at once.
      levels: most levels of a cell that these figures are of; 2 is a cell of one bit. Cells of
        more are not priced.
      placeholders: names of those of these fields that no publication stands behind.

    Raises:
      ValueError: a value that is not positive, a probability above 1, or a broken number of rows.

    References:
      Pentecost et al., NVMExplorer, HPCA 2022, arXiv 2109.01188 (voltages and widths);
      10.1109/TED.2021.3097975 (conductances).
    """

    set_success: float = 1.0
    reset_success: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("set_success", "reset_success"):
            value = getattr(self, name)
            if value > 1:
                raise ValueError(f"`{name}` is {value!r}; a probability is at most 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriteVerify(_Pulses):
    """Feedback: pulse, read, again until the cell is within its band, or given up.

    How many pulses that takes is spread as `pulse_survival` says. The defaults are for HfO2 RRAM,
    cells of one bit: means are the middle of those published (2 to 4.4 and 4.1 to 4.6).

    Attributes:
      set_width, reset_width, set_energy, reset_energy, parallel_rows, levels, placeholders: as in
        `ConstantPulses`.
      set_mean, reset_mean: pulses of a write, on average.
      set_p99, reset_p99: pulses within which 99 % of all writes are done.
      cap: pulses after which a write is given up.
      read_time, read_energy: of the read after each pulse, in seconds and joules.

    Raises:
      ValueError: as `ConstantPulses` and `pulse_survival`.

    References:
      10.1109/TED.2021.3097975 (pulses).
    """

    set_mean: float = 3.2
    set_p99: int = 40
    reset_mean: float = 4.35
    reset_p99: int = 40
    cap: int = 100
    read_time: float = 10e-9
    read_energy: float = 1e-12
    placeholders: tuple[str, ...] = ("cap",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for mean, p99 in ((self.set_mean, self.set_p99), (self.reset_mean, self.reset_p99)):
            if (mean, p99, self.cap) not in _PUBLISHED:
                pulse_survival(mean, p99, self.cap)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RampedPulses(WriteVerify):
    """Feedback with incremental steps: as write-verify, each pulse a step stronger than the last.

    Pulse k has the amplitude min(first + (k - 1) * step, last), and the square of it times the
    energy of a pulse. The defaults are for HfO2 RRAM: numbers of pulses are the middle of those
    published for cells of four levels (means 19 to 25, 99th percentiles 110 to 200); the law that
    follows from them has a median of 12 (published: 10 to 12). Cells of one bit take them too, more
    finely than they need.

    Attributes:
      first_amplitude, amplitude_step, last_amplitude: in units of the amplitude whose pulse takes
        `set_energy` or `reset_energy`.
      Others as in `WriteVerify`.

    Raises:
      ValueError: as `WriteVerify`; a `last_amplitude` below the first.

    References:
      10.1109/TED.2021.3097975 (pulses).
    """

    set_mean: float = 22.0
    set_p99: int = 155
    reset_mean: float = 22.0
    reset_p99: int = 155
    cap: int = 300
    levels: int = 4
    first_amplitude: float = 0.5
    amplitude_step: float = 0.025
    last_amplitude: float = 1.5
    placeholders: tuple[str, ...] = (
        "cap",
        "first_amplitude",
        "amplitude_step",
        "last_amplitude",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last_amplitude < self.first_amplitude:
            raise ValueError(
                f"`last_amplitude` is {self.last_amplitude!r}; give at least the first, "
                f"{self.first_amplitude!r}."
            )


Scheme = ConstantPulses | WriteVerify | RampedPulses
"""How a cell is pulsed."""

# HfO2 RRAM (1T1R). A single pulse succeeds in 41 to 69 % (SET) and 37 to 75 % (RESET) of all tries,
# 10.1109/TED.2021.3097975; for the rest see the defaults of each scheme.
HFO2: Mapping[str, Scheme] = MappingProxyType(
    {
        "constant": ConstantPulses(set_success=0.55, reset_success=0.55),
        "write-verify": WriteVerify(),
        "ramp": RampedPulses(),
    }
)
"""Schemes of HfO2 RRAM, by name."""

# Phase change memory, pulses of 150 uA (SET) and 300 uA (RESET): NVSim; Lee et al., ISCA 2009. Over
# 99 % of the cells of HERMES are within their band after 30 pulses. No ramp: nobody publishes how
# many pulses one takes.
PCM: Mapping[str, Scheme] = MappingProxyType(
    {
        "constant": ConstantPulses(
            set_width=150e-9,
            reset_width=40e-9,
            set_energy=13.5e-12,
            reset_energy=19.2e-12,
            placeholders=("set_success", "reset_success"),
        ),
        "write-verify": WriteVerify(
            set_width=150e-9,
            reset_width=40e-9,
            set_energy=13.5e-12,
            reset_energy=19.2e-12,
            set_mean=8.0,
            set_p99=30,
            reset_mean=8.0,
            reset_p99=30,
            cap=30,
            read_time=250e-9,
            read_energy=2e-12,
            placeholders=("set_mean", "reset_mean"),
        ),
    }
)
"""Schemes of phase change memory, by name."""


# The kinds of cells that have schemes, by name.
CELLS: Mapping[str, Mapping[str, Scheme]] = MappingProxyType({"hfo2": HFO2, "pcm": PCM})


class CellWrite(NamedTuple):
    """One write of one cell, in one direction.

    Attributes:
      pmf: entry k - 1 is the probability of k pulses; writes that are given up are in the last.
      pulse_time: of a pulse and the read after it, in seconds.
      time, energy: of the write, reads included, in seconds and joules; expectations.
      residual_error: probability that it leaves the cell wrong.
    """

    pmf: Float64[np.ndarray, "pulses"]
    pulse_time: float
    time: float
    energy: float
    residual_error: float


def cell_writes(scheme: Scheme) -> tuple[CellWrite, CellWrite]:
    """Describes a SET and a RESET of one cell under a scheme.

    Examples:
      >>> set_, reset = cell_writes(ConstantPulses(set_success=0.55))
      >>> round(set_.residual_error, 2), reset.residual_error
      (0.45, 0.0)
    """
    check_scheme(scheme)
    # the share of writes that is not done after each pulse, and how strong each is
    if isinstance(scheme, ConstantPulses):
        read_time = read_energy = 0.0
        amplitudes = np.ones(1)
        set_left = np.array([1, 1 - scheme.set_success])
        reset_left = np.array([1, 1 - scheme.reset_success])
    else:
        read_time, read_energy = scheme.read_time, scheme.read_energy
        set_left = pulse_survival(scheme.set_mean, scheme.set_p99, scheme.cap)
        reset_left = pulse_survival(scheme.reset_mean, scheme.reset_p99, scheme.cap)
        amplitudes = np.ones(scheme.cap)
        if isinstance(scheme, RampedPulses):
            # a step stronger each time, up to the last
            ramp = scheme.first_amplitude + scheme.amplitude_step * np.arange(scheme.cap)
            amplitudes = np.minimum(ramp, scheme.last_amplitude)

    def write(left: Float64[np.ndarray, "pulses"], width: float, energy: float) -> CellWrite:
        # a pulse is given if none before it was enough
        given = left[:-1]  # probability of each pulse
        pulse_time = width + read_time
        return CellWrite(
            pmf=given - np.append(given[1:], 0),
            pulse_time=pulse_time,
            time=float(given.sum()) * pulse_time,
            energy=float(given @ (energy * amplitudes**2 + read_energy)),
            residual_error=float(left[-1]),
        )

    return (
        write(set_left, scheme.set_width, scheme.set_energy),
        write(reset_left, scheme.reset_width, scheme.reset_energy),
    )


def check_scheme(scheme: Scheme) -> None:
    """Checks that something is a scheme of writing cells.

    Raises:
      ValueError: anything else.
    """
    if not isinstance(scheme, ConstantPulses | WriteVerify):
        raise ValueError(
            f"`scheme` is a {type(scheme).__name__}; give a ConstantPulses, WriteVerify or "
            "RampedPulses, such as HFO2['write-verify']."
        )


def check_levels(scheme: Scheme, cell_bits: int) -> None:
    """Checks that something is a scheme, with figures for cells of so many bits.

    Raises:
      ValueError: anything else.
    """
    check_scheme(scheme)
    if 2**cell_bits > scheme.levels:
        raise ValueError(
            f"`scheme` has figures for cells of {scheme.levels} levels, but {cell_bits} "
            f"bits a cell are {2**cell_bits} levels; give one for them, such as "
            f"RampedPulses(levels={2**cell_bits}, ...) with your own figures (those of "
            "HFO2['ramp'] are of 4), or program cells of one bit."
        )
