"""Conductance of cells: what programming aims at, what it reaches, what is left when it is read."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from memsim._checks import check_number, check_numbers

__all__ = ["Clipped", "Conductance"]

Clipped = tuple[float, float, float, float]  # slope and intercept in ln(u), lowest, highest

# Bounds that leave room in float32 for all that follows from a value.
_MOST_SIEMENS = 1e3
_LEAST_SIEMENS = 1e-20
_MOST_SECONDS = 1e12
_MOST_SPREAD = 5.0
# Nodes of the quadrature over the spread of what programming reaches.
_NODES = 64


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conductance:
    """A kind of memristor. Hashable, static under `jit`; the default is ideal.

    It follows `ConductanceLaw`. Its formulas are in u, the conductance aimed at as a share of `on`.
    Levels are evenly spaced from `off` to `on`.

    Attributes:
      on, off: siemens, at the highest and the lowest level.
      spread_on, spread_off: standard deviation of the logarithm of what programming reaches, at
        those two, 0 to 5; linear in u between them. The conductance aimed at is the median.
      programming_noise: (a, b, c): what programming reaches is off by a normal number of deviation
        (a + b u + c u^2) * on besides, and never below 0.
      drift_mean, drift_deviation: of the exponent nu of `(t / drift_start)^-nu`, a normal number
        drawn per cell whose sign is dropped: clip(slope ln(u) + intercept, lowest, highest); None
        for cells that keep their conductance.
      drift_start: t0, seconds; nothing drifts before.
      read_noise: (q, exponent, most): relative deviation of a read,
        min(most, q / u^exponent) * sqrt(ln((t + t_r) / (2 t_r))).
      read_time: t_r, seconds.

    Raises:
      ValueError: conductances that do not fall from `on` to `off`, on average included; what is no
        finite number, or outside its bounds.

    Examples:
      >>> Conductance.hfo2().on
      0.0002
      >>> round(1e6 * Conductance(off=1e-6, spread_off=1.0).average(0.0, 0.0), 3)
      1.649
    """

    on: float = 1e-4
    off: float = 0.0
    spread_on: float = 0.0
    spread_off: float = 0.0
    programming_noise: tuple[float, float, float] = (0.0, 0.0, 0.0)
    drift_mean: Clipped | None = None
    drift_deviation: Clipped = (0.0, 0.0, 0.0, 0.0)
    drift_start: float = 20.0
    read_noise: tuple[float, float, float] = (0.0, 0.0, 0.0)
    read_time: float = 250e-9

    def __post_init__(self) -> None:
        # what cells conduct
        remedy = f"give {_LEAST_SIEMENS:g} to {_MOST_SIEMENS:g} siemens"
        check_number("on", self.on, remedy, _LEAST_SIEMENS, _MOST_SIEMENS)
        check_number("off", self.off, "give siemens from 0", 0)
        if not self.off < self.on:
            raise ValueError(
                f"`on` is {self.on!r} and `off` {self.off!r} siemens; give 0 <= off < on."
            )
        # what programming leaves to chance; exp(s^2 / 2) of a larger spread overflows
        for name in ("spread_on", "spread_off"):
            remedy = f"a deviation is at least 0, and of a logarithm at most {_MOST_SPREAD:g}"
            check_number(name, getattr(self, name), remedy, 0, _MOST_SPREAD)
        for name in ("drift_start", "read_time"):
            value = getattr(self, name)
            remedy = f"give seconds above 0, from 1e-12 to {_MOST_SECONDS:g}"
            check_number(name, value, remedy, 1e-12, _MOST_SECONDS)
        check_numbers("programming_noise", self.programming_noise, "a, b, c")
        # a parabola may dip below 0 between its ends
        shares = np.linspace(0, 1, 101)
        if min(self._noise(float(u)) for u in shares) < 0:
            raise ValueError(
                f"`programming_noise` is {self.programming_noise!r}; give a deviation "
                "a + b u + c u^2 that is at least 0 for u from 0 to 1."
            )
        # what time does to them
        _check_clipped("drift_deviation", self.drift_deviation, least=0)
        if self.drift_mean is not None:
            _check_clipped("drift_mean", self.drift_mean, least=-math.inf)
        check_numbers("read_noise", self.read_noise, "q, exponent, most")
        if min(self.read_noise) < 0:
            raise ValueError(f"`read_noise` is {self.read_noise!r}; none is negative.")
        # levels that are in order as medians may not be so on average
        low, high = self.average(0.0, 0.0), self.average(1.0, 0.0)
        if not low < high:
            raise ValueError(
                f"`spread_off` is {self.spread_off!r} and `programming_noise` "
                f"{self.programming_noise!r}: on average the lowest level then conducts {low:.3g} "
                f"siemens, the highest {high:.3g}; give less, or a lower `off`."
            )

    @classmethod
    def hfo2(cls) -> "Conductance":
        """Describes HfO2 RRAM: 200 and 11 uS, spreads 0.15 and 0.73 from cycle to cycle.

        References:
          RADAR, 10.1109/TED.2021.3097975.
        """
        return cls(on=200e-6, off=11e-6, spread_on=0.15, spread_off=0.73)

    @classmethod
    def pcm(cls) -> "Conductance":
        """Describes PCM: 25 and 0.25 uS, with noise of programming and reading, and drift.

        References:
          Nandakumar et al., Phase-change memory models for deep learning training and inference,
          ICECS 2019; figures as in IBM aihwkit.
        """
        return cls(
            on=25e-6,
            off=0.25e-6,
            programming_noise=(0.26348 / 25, 1.965 / 25, -1.1731 / 25),  # microsiemens of 25
            drift_mean=(-0.0155, 0.0244, 0.049, 0.1),
            drift_deviation=(-0.0125, -0.0059, 0.008, 0.045),
            read_noise=(0.0088, 0.65, 0.2),
        )

    def aimed_at(self, share: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Finds the siemens that programming aims at: evenly spaced levels.

        Args:
          share: float32, the level of each cell as a share of its highest.
        """
        return self.off + (self.on - self.off) * share

    def programmed(
        self, key: Key[Array, ""], target: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Draws the siemens that programming reaches; exactly `target` for ideal cells.

        Args:
          key: consumed.
          target: siemens aimed at.
        """
        # both draws have a key of their own, so that one does not depend on the other
        spread_key, noise_key = jax.random.split(key)
        u, reached = target / self.on, target
        if self.spread_on or self.spread_off:
            # the deviation is linear between that at `off` and that at `on`
            floor = self.off / self.on
            share = (u - floor) / (1 - floor)
            spread = self.spread_off + (self.spread_on - self.spread_off) * share
            draws = jax.random.normal(spread_key, target.shape, target.dtype)
            reached = reached * jnp.exp(spread * draws)
        if any(self.programming_noise):
            a, b, c = self.programming_noise
            deviation = (a + b * u + c * u**2) * self.on
            noise = deviation * jax.random.normal(noise_key, target.shape, target.dtype)
            reached = jnp.maximum(reached + noise, 0)
        return reached

    def drifted(
        self,
        key: Key[Array, ""],
        reached: Float[Array, "*shape"],
        target: Float[Array, "*shape"],
        seconds: float,
    ) -> Float[Array, "*shape"]:
        """Draws the siemens that are left so many seconds after programming.

        Args:
          key: of the drift exponents; consumed.
          reached, target: siemens, as programmed and as aimed at.
          seconds: since programming.
        """
        if self.drift_mean is None or seconds <= self.drift_start:
            return reached
        u = jnp.maximum(target / self.on, np.finfo(target.dtype).tiny)
        mean, deviation = (
            jnp.clip(slope * jnp.log(u) + intercept, lowest, highest)
            for slope, intercept, lowest, highest in (self.drift_mean, self.drift_deviation)
        )
        # one exponent a cell, the same at all times
        exponent = jnp.abs(mean + deviation * jax.random.normal(key, target.shape, target.dtype))
        return reached * (seconds / self.drift_start) ** -exponent

    def read_deviation(
        self, target: Float[Array, "*shape"], seconds: float
    ) -> Float[Array, "*shape"] | None:
        """Finds the standard deviation of one read, as a share of the conductance.

        Args:
          target: siemens aimed at.
          seconds: since programming.

        Returns:
          None without read noise, which begins `read_time` after programming.
        """
        q, exponent, most = self.read_noise
        # the noise grows with the time it had to build up
        time = math.log(max((seconds + self.read_time) / (2 * self.read_time), 1.0))
        if not q * most * time:
            return None
        relative = q / jnp.maximum((target / self.on) ** exponent, 1e-3)
        return jnp.minimum(most, relative) * math.sqrt(time)

    def average(self, share: float, seconds: float) -> float:
        """Finds the mean siemens of many such cells, so many seconds after programming.

        Args:
          share: of the highest level, 0 to 1.
          seconds: since programming.

        References:
          Means of a normal number cut off at 0, and of a power whose exponent is a normal number
          without its sign (a folded normal law).
        """
        target = self.on if share == 1 else self.off + (self.on - self.off) * share
        spread = self.spread_off + (self.spread_on - self.spread_off) * share
        mean = _mean_of_programmed(target, spread, self._noise(target / self.on) * self.on)
        # what drifts is a factor of its own, independent of what was reached
        if self.drift_mean is None or seconds <= self.drift_start:
            return mean
        u = max(target / self.on, float(np.finfo(np.float32).tiny))
        center, deviation = (
            min(max(slope * math.log(u) + intercept, lowest), highest)
            for slope, intercept, lowest, highest in (self.drift_mean, self.drift_deviation)
        )
        return mean * _mean_of_power(math.log(seconds / self.drift_start), center, deviation)

    def _noise(self, u: float) -> float:
        """Gives the deviation of what programming reaches, as a share of `on`."""
        a, b, c = self.programming_noise
        return a + b * u + c * u**2


def _mean_of_programmed(target: float, spread: float, noise: float) -> float:
    """Works out the mean of `max(target * exp(spread * N) + noise * N', 0)`, both N standard
    normal.
    """
    if noise == 0:
        return target * math.exp(spread**2 / 2)
    # over the lognormal law by quadrature, over the normal one in closed form
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES if spread else 1)
    mean = 0.0
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        middle = target * math.exp(spread * node)
        above = 0.5 * math.erfc(-middle / noise / math.sqrt(2))
        density = math.exp(-((middle / noise) ** 2) / 2) / math.sqrt(2 * math.pi)
        mean += weight * (middle * above + noise * density)
    return float(mean)


def _mean_of_power(log: float, center: float, deviation: float) -> float:
    """Works out the mean of `exp(-log * |center + deviation * N|)`, N standard normal."""
    if deviation == 0:
        return math.exp(-log * abs(center))
    from scipy.special import log_ndtr

    squared = (log * deviation) ** 2 / 2
    return math.fsum(
        math.exp(squared - log * side + float(log_ndtr(side / deviation - log * deviation)))
        for side in (center, -center)  # of the exponents as they are, and of those turned round
    )


def _check_clipped(name: str, values: object, least: float) -> None:
    """Checks slope and intercept, and bounds that are in order."""
    check_numbers(name, values, "slope, intercept, lowest, highest")
    assert isinstance(values, tuple)  # noqa: S101
    if not least <= values[2] <= values[3]:
        bound = " and from 0" if least == 0 else ""
        raise ValueError(f"`{name}` is {values!r}; give lowest <= highest{bound}.")
