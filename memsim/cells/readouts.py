"""Readouts of crossbars (`Readout`), and the values of their cells (`program_cells`)."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key, UInt

from memsim._checks import (
    as_key,
    check_kind,
    check_number,
    check_positive,
    check_round,
    is_known,
)
from memsim.cells._column_levels import top_levels
from memsim.cells.conductance import Conductance
from memsim.cells.laws import ConductanceLaw, check_law
from memsim.cells.wires import Wires, effective_conductance
from memsim.codes import bit_slice
from memsim.config import CrossbarConfig

__all__ = ["Cells", "Readout", "program_cells"]

# Crossbars whose wires are solved at once.
_SOLVED_AT_ONCE = 64


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Readout:
    """The way that crossbars are read. Hashable, static under `jit`; the default is ideal.

    Attributes:
      cells: their conductance, a `Conductance` or any other `ConductanceLaw`.
      wires: their resistance, in numbers, of all columns that hold words; idle ones are left out.
      seconds: since programming.
      input_bits: of an input, two's complement, applied one after the other.
      adc_bits: of the converter of each column; None for one as wide as it takes, whose step is
        one level of one cell.
      adc_range: levels (the sum over the rows) at which a converter of `adc_bits` saturates; None
        for all rows at the highest level.
      wire_tolerance: largest residual with which the solve of the wires is used.

    Raises:
      ValueError: a value of another kind or outside its range; `adc_range` without `adc_bits`; a
        law of conductance that lacks a method or is not hashable.

    Examples:
      >>> Readout(cells=Conductance.pcm(), wires=Wires(2.97, 2.97), seconds=3600.0).adc_bits
    """

    cells: ConductanceLaw = dataclasses.field(default_factory=Conductance)
    wires: Wires = dataclasses.field(default_factory=Wires)
    seconds: float = 0.0
    input_bits: int = 8
    adc_bits: int | None = None
    adc_range: float | None = None
    wire_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, "none is negative; give at most 1e12", 0, 1e12)
        # laws from outside the library are checked like those within
        check_law(self.cells, self.seconds)
        if not isinstance(self.wires, Wires):
            raise ValueError(f"`wires` is {self.wires!r}; give a Wires, such as Wires(2.97, 2.97).")
        for name, ohm in zip(Wires._fields, self.wires, strict=True):
            remedy = "give a number of ohm, of which none is negative"
            check_number(f"wires.{name}", ohm, remedy, 0)
        check_round("input_bits", self.input_bits, "give 2 to 16", 2, 16)
        if self.adc_bits is not None:
            check_round("adc_bits", self.adc_bits, "give 1 to 24", 1, 24)
        # codes are shifted by the place of their bit, and added
        if self.adc_bits and self.adc_bits + self.input_bits > 32:
            raise ValueError(
                f"`adc_bits` is {self.adc_bits!r} and `input_bits` {self.input_bits!r}; sums take "
                "as many bits as both, of 32: use fewer."
            )
        if self.adc_range is not None:
            remedy = "give levels above 0, with `adc_bits` (0.001 to 1e8)"
            most = 1e8 if self.adc_bits is not None else -math.inf
            check_number("adc_range", self.adc_range, remedy, 1e-3, most)
        remedy = "give a share above 0, at most 1"
        check_positive("wire_tolerance", self.wire_tolerance, remedy, 1)

    def adc_step(self, config: CrossbarConfig) -> float:
        """Counts the levels of one step of a converter."""
        if self.adc_bits is None:
            return 1.0
        most: int = config.rows * (2**config.cell_bits - 1)
        full = most if self.adc_range is None else self.adc_range
        step: float = full / (2**self.adc_bits - 1)
        return step


class Cells(NamedTuple):
    """The cells of a layer's sections and what they count as when they are read, in levels.

    Attributes:
      words: what the crossbars hold, rows of flags included.
      mean: what a cell adds to the sum of its column; with ideal cells and wires its level.
      deviation: standard deviation of that from one read to the next; None where there is none.
      residual: of the solve of the wires, the largest of all sections; 0 without wires.
    """

    words: UInt[Array, "sections physical_words"]
    mean: Float32[Array, "sections words columns"]
    deviation: Float32[Array, "sections words columns"] | None
    residual: Float32[Array, ""]


def program_cells(
    key: Key[Array, ""],
    words: UInt[Array, "sections physical_words"],
    config: CrossbarConfig,
    readout: Readout,
) -> Cells:
    """Programs conductances, lets them drift and puts them between their wires.

    Reference columns of cells at the lowest level are programmed and drift as all others do. What
    they conduct on average at the time of the read, times the sum of the inputs, is subtracted
    before a column is converted. A level is what cells at the highest add on average over their
    levels right after programming, when converters are set.

    Args:
      key: of what programming reaches and how it drifts; consumed.
      words: of a layer, from `program(..., words=True)`.
      config: of the plan.
      readout: how it will be read.

    Raises:
      ValueError: an argument of another kind, words of another shape or dtype, or with flags of
        their own: their column currents are no meaningful sum. Outside `jit` also cells that are
        not finite.
      ArithmeticError: a solve of the wires that missed `wire_tolerance`, outside `jit`; inside,
        `residual` says so.

    Examples:
      >>> import memsim
      >>> config = memsim.CrossbarConfig(rows=2, bits=4)
      >>> words = jnp.asarray([[1, 3]], config.word_dtype)
      >>> program_cells(jax.random.key(0), words, config, Readout()).mean.tolist()
      [[[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]
    """
    key = as_key("key", key)
    check_kind("config", config, CrossbarConfig)
    check_kind("readout", readout, Readout)
    if config.flags == "word":
        raise ValueError(
            "`config` has a flag per word, which no column current can tell apart; use "
            "flip-n-write:flags=section."
        )
    shape, dtype = getattr(words, "shape", None), getattr(words, "dtype", None)
    if dtype != config.word_dtype or shape is None or shape[1:] != (config.physical_words,):
        raise ValueError(
            f"`words` is {type(words).__name__} {dtype} {shape}; give {config.word_dtype} "
            f"[sections, {config.physical_words}] of one layer, from program(..., words=True)."
        )
    cells: Cells = _program_cells(key, words, config, readout)
    check_solved(cells.residual, readout)
    if is_known(cells.mean) and not np.isfinite(np.asarray(cells.mean)).all():
        raise ValueError(f"`cells` of `readout` is {readout.cells!r}, which gives no finite cells.")
    return cells


def check_solved(residual: Float32[Array, ""], readout: Readout) -> None:
    """Checks the solve of the wires, where its residual is known (outside `jit`).

    Raises:
      ArithmeticError: a residual above the tolerance, or none.
    """
    if is_known(residual) and not float(residual) <= readout.wire_tolerance:
        raise ArithmeticError(
            f"The wires' solve left a residual of {float(residual):.1e}, `wire_tolerance` is "
            f"{readout.wire_tolerance:g}; give a Readout with a tolerance above it, or wires of "
            "less resistance."
        )


@functools.partial(jax.jit, static_argnames=("config", "readout"))
def _program_cells(
    key: Key[Array, ""],
    words: UInt[Array, "sections physical_words"],
    config: CrossbarConfig,
    readout: Readout,
) -> Cells:
    program_key, drift_key = jax.random.split(key)
    # levels of the cells, and what programming aims at for them
    law, wires, seconds = readout.cells, readout.wires, readout.seconds
    sliced = bit_slice(words[:, : config.words], config).astype(jnp.float32)
    # all cells in one row: on a CPU loops over the few columns of a word are not vectorized
    top = jnp.broadcast_to(jnp.asarray(top_levels(config), jnp.float32), sliced.shape).reshape(-1)
    levels = sliced.reshape(-1)
    share = levels / top
    target = _of_law("aimed_at", law.aimed_at(share), law, share)
    # what it reaches, and what is left of that
    reached = _of_law("programmed", law.programmed(program_key, target), law, share)
    seen = law.drifted(drift_key, reached, target, seconds)
    seen = _of_law("drifted", seen, law, share)
    residual = jnp.zeros((), jnp.float32)
    # wires between the cells, one crossbar after the other, all words of its rows
    if any(wires):
        crossbars = seen.reshape(len(words), config.rows, -1)
        solved = jax.lax.map(
            lambda one: effective_conductance(one, wires), crossbars, batch_size=_SOLVED_AT_ONCE
        )
        seen = solved.value.reshape(seen.shape)
        residual = jnp.max(solved.residual, initial=0)
    # converters were set at programming; reference columns have drifted since
    low, high = law.average(0.0, 0.0), law.average(1.0, 0.0)
    per_level = (high - low) / top
    expected = law.average(0.0, seconds) + (high - low) * share
    # a difference, so that nothing is rounded where there is none
    mean = levels + (seen - expected) / per_level
    # a share of what is seen, in levels too
    deviation = law.read_deviation(target, seconds)
    if deviation is not None:
        deviation = _of_law("read_deviation", deviation, law, share) * seen / per_level
        deviation = deviation.reshape(sliced.shape)
    return Cells(words, mean.reshape(sliced.shape), deviation, residual)


def _of_law(name: str, value: object, law: ConductanceLaw, like: Array) -> Float32[Array, "..."]:
    """Checks what a method of a law gave, and gives it as float32 of the shape of the cells."""
    try:
        array = jnp.asarray(value).astype(like.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` of {type(law).__name__} gave a {type(value).__name__}; give siemens."
        ) from error
    if array.shape not in ((), like.shape):
        raise ValueError(
            f"`{name}` of {type(law).__name__} gave shape {array.shape}; give one number for each "
            f"cell, {like.shape}."
        )
    return jnp.broadcast_to(array, like.shape)
