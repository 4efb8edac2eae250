"""Conductance of cells: what programming aims at, what it reaches, what is left when it is read."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Law = tuple[float, float, float, float]  # slope and intercept in ln(u), lowest, highest


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conductance:
    """A kind of memristor. Hashable, static under `jit`; the default is ideal.

    Laws are in u, the conductance aimed at as a share of `on`. Levels are evenly spaced from `off`
    to `on`.

    Attributes:
      on, off: siemens, at the highest and the lowest level.
      spread_on, spread_off: standard deviation of the logarithm of what programming reaches, at
        those two; linear in u between them. The conductance aimed at is the median.
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
      ValueError: conductances that do not fall from `on` to `off`, or a negative deviation.
    """

    on: float = 1e-4
    off: float = 0.0
    spread_on: float = 0.0
    spread_off: float = 0.0
    programming_noise: tuple[float, float, float] = (0.0, 0.0, 0.0)
    drift_mean: Law | None = None
    drift_deviation: Law = (0.0, 0.0, 0.0, 0.0)
    drift_start: float = 20.0
    read_noise: tuple[float, float, float] = (0.0, 0.0, 0.0)
    read_time: float = 250e-9

    def __post_init__(self) -> None:
        if not 0 <= self.off < self.on < math.inf:
            raise ValueError(
                f"`on` is {self.on!r} and `off` {self.off!r} siemens; give 0 <= off < on."
            )
        for name in ("spread_on", "spread_off"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; a deviation is at least 0.")
        for name in ("drift_start", "read_time"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; give seconds above 0.")

    @classmethod
    def hfo2(cls) -> "Conductance":
        """HfO2 RRAM: 200 and 11 uS, spreads 0.15 and 0.73 from cycle to cycle.

        References:
          RADAR, 10.1109/TED.2021.3097975.
        """
        return cls(on=200e-6, off=11e-6, spread_on=0.15, spread_off=0.73)

    @classmethod
    def pcm(cls) -> "Conductance":
        """PCM: 25 and 0.25 uS, with noise of programming and reading, and drift.

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

    @property
    def calibrated(self) -> "Conductance":
        """The same cells, `on` and `off` as they are on average: what a column is read against.

        Reference columns of such cells give the lowest level, the scale of converters the highest.
        """
        return dataclasses.replace(
            self,
            on=self.on * math.exp(self.spread_on**2 / 2),
            off=self.off * math.exp(self.spread_off**2 / 2),
        )


def aimed_at(
    levels: Int[Array, "*shape"], top: Int[Array, "*shape"], cells: Conductance
) -> Float[Array, "*shape"]:
    """Siemens that programming aims at.

    Args:
      levels: of the cells.
      top: their highest.
    """
    share = levels.astype(jnp.float32) / top.astype(jnp.float32)
    return cells.off + (cells.on - cells.off) * share


def programmed(
    key: Key[Array, ""], target: Float[Array, "*shape"], cells: Conductance
) -> Float[Array, "*shape"]:
    """Siemens that programming reaches; exactly `target` for ideal cells.

    Args:
      key: consumed.
      target: siemens aimed at.
    """
    spread_key, noise_key = jax.random.split(key)
    u, reached = target / cells.on, target
    if cells.spread_on or cells.spread_off:
        floor = cells.off / cells.on
        share = (u - floor) / (1 - floor)
        spread = cells.spread_off + (cells.spread_on - cells.spread_off) * share
        reached = reached * jnp.exp(
            spread * jax.random.normal(spread_key, target.shape, target.dtype)
        )
    if any(cells.programming_noise):
        a, b, c = cells.programming_noise
        deviation = (a + b * u + c * u**2) * cells.on
        noise = deviation * jax.random.normal(noise_key, target.shape, target.dtype)
        reached = jnp.maximum(reached + noise, 0)
    return reached


def drifted(
    key: Key[Array, ""],
    reached: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    seconds: float,
    cells: Conductance,
) -> Float[Array, "*shape"]:
    """Siemens that are left so many seconds after programming.

    Args:
      key: of the drift exponents; consumed.
      reached, target: siemens, as programmed and as aimed at.
    """
    if cells.drift_mean is None or seconds <= cells.drift_start:
        return reached
    mean, deviation = (
        _law(law, target, cells) for law in (cells.drift_mean, cells.drift_deviation)
    )
    exponent = jnp.abs(mean + deviation * jax.random.normal(key, target.shape))
    return reached * (seconds / cells.drift_start) ** -exponent


def read_deviation(
    target: Float[Array, "*shape"], seconds: float, cells: Conductance
) -> Float[Array, "*shape"]:
    """Standard deviation of one read, as a share of the conductance.

    Args:
      target: siemens aimed at.
      seconds: since programming.
    """
    q, exponent, most = cells.read_noise
    time = math.log(max((seconds + cells.read_time) / (2 * cells.read_time), 1.0))
    relative = q / jnp.maximum((target / cells.on) ** exponent, 1e-3)
    return jnp.minimum(most, relative) * math.sqrt(time)


def _law(law: Law, target: Float[Array, "*shape"], cells: Conductance) -> Float[Array, "*shape"]:
    slope, intercept, lowest, highest = law
    u = jnp.maximum(target / cells.on, jnp.finfo(target.dtype).tiny)
    return jnp.clip(slope * jnp.log(u) + intercept, lowest, highest)
