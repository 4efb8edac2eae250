"""Resistance of the wires of a crossbar: every device current, by a nodal solve.

Kirchhoff's laws leave one unknown per device. Word line i, driven from the left, has dropped by
`(I R_word)[i, j]` at crossing j when its devices draw the currents I; bit line j, grounded at the
bottom, has risen by `(R_bit I)[i, j]`. R[j, k], the resistance that two crossings of a line share
on their way to its driven or grounded end, is inverse to the matrix of the line's nodes. So

    I = G (V - R_bit I - I R_word)

Lines without resistance (merged nodes) and open devices are no special cases of this form, and in
sqrt(G) it is symmetric, with eigenvalues from 1 to 1 + max(G) (|R_bit| + |R_word|): conjugate
gradients need some ten to twenty products of small dense matrices.

Rounding limits what a solve can reach, so every `Solution` says what it left over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from memsim._checks import check_kind, check_number, check_positive, is_known

__all__ = [
    "Solution",
    "Wires",
    "device_currents",
    "effective_conductance",
    "node_voltages",
    "voltage_drop",
]

# More than any crossbar takes that still works; float32 may never reach a tolerance too tight.
_MOST_ITERATIONS = 2000
# Conjugate gradients aim below the tolerance: their own residual is that of exact arithmetic.
_AIM = 0.1


class Wires(NamedTuple):
    """Resistance of a wire from one crossing to the next, in ohm.

    The driver of a word line is one such segment away from its first crossing, the ground of a bit
    line one from its last.

    Attributes:
      word_line, bit_line: 0 for an ideal wire. A line of cells 4 F wide has 2.97 ohm per cell at
        22 nm, 2.12 at 32 nm, 1.34 at 45 nm, 0.47 at 65 nm (NeuroSim 2.1).
    """

    word_line: float | Float[Array, ""] = 0.0
    bit_line: float | Float[Array, ""] = 0.0


class Solution(NamedTuple):
    """The currents that a solve of the wires found, and how well.

    Attributes:
      value: amperes of every device, or siemens of the crossbar as it is seen from outside.
      residual: norm of what Kirchhoff's laws leave over, relative to what flows without wires; of
        `effective_conductance` the largest of all columns.
      converged: whether that is within the tolerance. Outside `jit` a solve that is not raises.
    """

    value: Float[Array, "rows columns"]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]


def device_currents(
    conductance: Float[Array, "rows columns"],
    voltages: Float[Array, " rows"],
    wires: Wires,
    *,
    tolerance: float | None = None,
) -> Solution:
    """Solves for the currents through the devices of a crossbar whose wires have a resistance.

    Differentiable in every array argument, forward and backward; `vmap` for many crossbars.

    Args:
      conductance: siemens, float32 or float64; 0 for an open device.
      voltages: in volt, applied to the left ends of the word lines; of the same dtype.
      wires: their resistances.
      tolerance: largest residual, relative to the norm of the currents without wires; by default
        1e-9 in float64 and 1e-5 in float32. Conjugate gradients go on to a tenth of it, relative
        to those currents or to the wires' effect on them, whichever is smaller.

    Returns:
      Amperes, with the residual. Their sums over rows are what the bit lines carry to ground.

    Raises:
      ValueError: an argument of another kind, shape or dtype; and, where the numbers are known
        (outside `jit`), negative ones and those that are not finite.
      ArithmeticError: a solve that missed its tolerance, outside `jit`.

    References:
      Joksas and Mehonic, badcrossbar, SoftwareX 2020 (the same circuit in its node voltages).

    Examples:
      >>> devices = jnp.full((2, 2), 1e-3)
      >>> found = device_currents(devices, jnp.ones(2), Wires(10.0, 10.0))
      >>> bool(found.converged), bool(found.value.max() < 1e-3)
      (True, True)
    """
    wires = _checked_wires(wires)
    conductance = _checked_conductance(conductance)
    voltages = _checked_voltages(voltages, conductance)
    found = _device_currents(conductance, voltages, wires, _checked(tolerance, conductance))
    return _converged(found, tolerance)


def effective_conductance(
    conductance: Float[Array, "rows columns"], wires: Wires, *, tolerance: float | None = None
) -> Solution:
    """Finds what a crossbar is from outside: its column currents are `voltages @` this.

    Args:
      conductance, wires, tolerance: see `device_currents`.

    Returns:
      Siemens, with the residual.

    Raises:
      ValueError, ArithmeticError: as `device_currents`.

    Examples:
      >>> devices = jnp.full((2, 2), 1e-3)
      >>> bool(jnp.all(effective_conductance(devices, Wires(10.0, 10.0)).value < devices))
      True
    """
    wires = _checked_wires(wires)
    conductance = _checked_conductance(conductance)
    found = _effective_conductance(conductance, wires, _checked(tolerance, conductance))
    return _converged(found, tolerance)


def voltage_drop(
    currents: Float[Array, "rows columns"], wires: Wires
) -> Float[Array, "rows columns"]:
    """Finds how many volts each device has less than its row was given.

    Args:
      currents: amperes that the devices draw.
      wires: their resistances.
    """
    word, bit = _drops(jnp.asarray(currents), _checked_wires(wires))
    return word + bit


def node_voltages(
    currents: Float[Array, "rows columns"], voltages: Float[Array, " rows"], wires: Wires
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Finds the volts of the word line and of the bit line at every crossing.

    Args:
      currents: amperes of the devices, the value of `device_currents`.
      voltages, wires: those of that solve.

    Raises:
      ValueError: a `Solution` instead of its value, or voltages of another shape or dtype.
    """
    if isinstance(currents, Solution):
        raise ValueError("`currents` is a Solution; give its `value`.")
    currents = jnp.asarray(currents)
    voltages = _checked_voltages(voltages, currents)
    word, bit = _drops(currents, _checked_wires(wires))
    return voltages[:, None] - word, bit


@functools.partial(jax.jit, static_argnames="tolerance")
def _device_currents(
    conductance: Float[Array, "rows columns"],
    voltages: Float[Array, " rows"],
    wires: Wires,
    tolerance: float,
) -> Solution:
    # what flows without wires
    ideal = conductance * voltages[:, None]
    currents, residual = _solve(conductance, ideal, wires, tolerance)
    return Solution(currents, residual, residual <= tolerance)  # that of a NaN is not


@functools.partial(jax.jit, static_argnames="tolerance")
def _effective_conductance(
    conductance: Float[Array, "rows columns"], wires: Wires, tolerance: float
) -> Solution:
    # The circuit is linear and reciprocal: driven at the foot of one bit line instead, it sends
    # into its word lines what these, driven, send there. A solve for each column, of which there
    # are fewer than rows; 1 V across every device of that column if wires were ideal.
    def column(one: Array) -> tuple[Array, Array]:
        currents, residual = _solve(conductance, conductance * one, wires, tolerance)
        return currents.sum(axis=1), residual

    units = jnp.eye(conductance.shape[1], dtype=conductance.dtype)
    seen, residuals = jax.vmap(column, out_axes=(1, 0))(units[:, None, :])
    residual = residuals.max()
    return Solution(seen, residual, residual <= tolerance)


def _solve(
    conductance: Float[Array, "rows columns"],
    ideal: Float[Array, "rows columns"],
    wires: Wires,
    tolerance: float,
) -> tuple[Float[Array, "rows columns"], Float[Array, ""]]:
    """Solves `(1 + G R) I = ideal`; the currents, and the residual of this very equation."""
    root = jnp.sqrt(jax.lax.stop_gradient(conductance))
    fixed = jax.tree.map(jax.lax.stop_gradient, wires)

    def balance(currents: Array) -> Array:
        return currents + conductance * voltage_drop(currents, wires)

    def symmetric(right: Array, start: tuple[Array, Array], left: Array) -> Array:
        def matrix(y: Array) -> Array:
            return y + root * voltage_drop(root * y, fixed)

        return _conjugate_gradients(matrix, right, start, _AIM * tolerance * left)

    # With I = sqrt(G) y the system is symmetric, 1 + sqrt(G) R sqrt(G), and no large currents
    # cancel. An open device has no y: its part of the right side (there is none but in tangents)
    # is its current, and what that makes the wires drop goes to the others.
    def solve(_: object, right: Array) -> Array:
        is_open = root == 0
        of_open = jnp.where(is_open, right, 0)
        alone = jnp.where(is_open, 0, right / jnp.where(is_open, 1, root))
        effect = root * voltage_drop(right, fixed)
        scaled = alone - root * voltage_drop(of_open, fixed)
        # wires of little effect are a correction of what flows without them, of that accuracy
        weak = _norm(effect) < _norm(alone)
        start = (jnp.where(weak, alone, 0), jnp.where(weak, -effect, scaled))
        # what is left over of the symmetric system counts sqrt(G) times as much in currents
        left = _norm(right) / jnp.where(is_open.all(), 1, root.max())
        left = jnp.minimum(left, jnp.minimum(_norm(scaled), _norm(effect)))
        return of_open + root * symmetric(scaled, start, left)

    def solve_transposed(_: object, right: Array) -> Array:
        scaled = root * right
        y = symmetric(scaled, (jnp.zeros_like(scaled), scaled), _norm(scaled))
        return right - voltage_drop(root * y, fixed)

    currents = jax.lax.custom_linear_solve(balance, ideal, solve, solve_transposed)
    # what is left of the equation itself, with all its rounding, not what the solver believes
    left = _norm(jax.lax.stop_gradient(ideal - balance(currents)))
    flowing = _norm(jax.lax.stop_gradient(ideal))
    return currents, left / jnp.where(flowing == 0, 1, flowing)


def _conjugate_gradients(
    matrix: Callable[[Array], Array], right: Array, start: tuple[Array, Array], left: Array
) -> Array:
    """Solves a symmetric positive system until the residual has the norm `left`.

    Args:
      matrix: its product with a vector.
      right: its right side.
      start: where to start, and the residual there.
      left: norm of the residual that is small enough.
    """
    # in units of the right side, so that no square underflows
    size = _norm(right)
    size = jnp.where(size == 0, 1, size)
    enough = jnp.square(left / size)

    # two sums and one product with the matrix a step
    def goes_on(state: tuple[Array, Array, Array, Array, Array]) -> Array:
        *_, squares, steps = state
        return (squares > enough) & (steps < _MOST_ITERATIONS)

    def step(
        state: tuple[Array, Array, Array, Array, Array],
    ) -> tuple[Array, Array, Array, Array, Array]:
        found, residual, direction, squares, steps = state
        product = matrix(direction)
        # as far as the residual along this direction vanishes
        length = squares / jnp.vdot(direction, product)
        found = found + length * direction
        residual = residual - length * product
        after = jnp.vdot(residual, residual)
        # the next direction, conjugate to all before
        direction = residual + (after / squares) * direction
        return found, residual, direction, after, steps + 1

    found, residual = (x / size for x in start)
    state = (found, residual, residual, jnp.vdot(residual, residual), jnp.int32(0))
    found, *_ = jax.lax.while_loop(goes_on, step, state)
    return found * size


def _norm(x: Array) -> Float[Array, ""]:
    """Computes the Euclidean norm; squares of small numbers do not underflow."""
    largest = jnp.max(jnp.abs(x))
    norm: Array = largest * jnp.linalg.norm(x / jnp.where(largest == 0, 1, largest))
    return norm


def _converged(found: Solution, tolerance: float | None) -> Solution:
    """Gives the solution; outside `jit` one that missed its tolerance raises."""
    if is_known(found.converged) and not np.all(np.asarray(found.converged)):
        asked = _default_tolerance(found.value.dtype) if tolerance is None else tolerance
        raise ArithmeticError(
            f"The wires' solve left a residual of {float(found.residual):.1e}, `tolerance` is "
            f"{asked:g}; give a `tolerance` above it, float64 (jax.enable_x64), or wires of less "
            "resistance."
        )
    return found


def _default_tolerance(dtype: np.dtype) -> float:
    return 1e-9 if dtype == jnp.float64 else 1e-5


def _checked(tolerance: float | None, conductance: Array) -> float:
    if tolerance is None:
        return _default_tolerance(conductance.dtype)
    check_positive("tolerance", tolerance, "give a share above 0, at most 1", most=1)
    return tolerance


def _checked_conductance(conductance: Float[Array, "rows columns"]) -> Array:
    """Checks all that can be known of conductances, and gives them as an array."""
    array = _floating("conductance", conductance)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"`conductance` has shape {array.shape}; give [rows, columns] of one crossbar, and "
            "`vmap` for many."
        )
    _check_values("conductance", array, "give finite siemens from 0", least=0)
    return array


def _checked_voltages(voltages: Float[Array, " rows"], of: Array) -> Array:
    array = _floating("voltages", voltages)
    if array.shape != of.shape[:1]:
        raise ValueError(
            f"`voltages` has shape {array.shape}; give one volt for each of {of.shape[0]} rows."
        )
    if array.dtype != of.dtype:
        raise ValueError(f"`voltages` is {array.dtype}; give {of.dtype}, as the devices are.")
    _check_values("voltages", array, "give finite volts")
    return array


def _floating(name: str, values: object) -> Array:
    """Gives an array of float32 or float64: integers and half precision are named."""
    try:
        array = values if isinstance(values, jax.Array) else jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` is a {type(values).__name__}; give an array.") from error
    if array.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"`{name}` is {array.dtype}; give float32 or float64.")
    return array


def _check_values(name: str, array: Array, remedy: str, least: float = -np.inf) -> None:
    """Checks the numbers of an array, where they are known; by NumPy, which `jit` does not see."""
    if is_known(array):
        values = np.asarray(array)
        wrong = values[~(np.isfinite(values) & (values >= least))]
        if wrong.size:
            raise ValueError(f"`{name}` has {float(wrong[0])}; {remedy}.")


def _checked_wires(wires: Wires) -> Wires:
    check_kind("wires", wires, Wires)
    for name, ohm in zip(Wires._fields, wires, strict=True):
        if not is_known(ohm):
            continue
        if isinstance(ohm, jax.Array | np.ndarray):
            if ohm.shape != () or not jnp.issubdtype(ohm.dtype, jnp.floating):
                raise ValueError(f"`wires.{name}` is {ohm!r}; give one resistance in ohm.")
            ohm = float(ohm)
        check_number(f"wires.{name}", ohm, "give finite ohm from 0", least=0)
    return wires


def _drops(currents: Array, wires: Wires) -> tuple[Array, Array]:
    product = functools.partial(jnp.matmul, precision="highest")
    rows, columns = currents.shape
    row, column = np.arange(rows), np.arange(columns)
    shared_columns = 1 + np.minimum.outer(column, column)  # segments up to the nearer crossing
    shared_rows = rows - np.maximum.outer(row, row)  # segments from the lower crossing down
    word = product(currents, jnp.asarray(shared_columns, currents.dtype)) * wires.word_line
    bit = product(jnp.asarray(shared_rows, currents.dtype), currents) * wires.bit_line
    return word, bit
