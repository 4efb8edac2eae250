"""Resistance of the wires of a crossbar: every device current, by a nodal solve.

Kirchhoff's laws leave one unknown per device. Word line i, driven from the left, has dropped by
`(I R_word)[i, j]` at crossing j when its devices draw the currents I; bit line j, grounded at the
bottom, has risen by `(R_bit I)[i, j]`. R[j, k], the resistance that two crossings of a line share
on their way to its driven or grounded end, is inverse to the matrix of the line's nodes. So

    I = G (V - R_bit I - I R_word)

Lines without resistance (merged nodes) and open devices are no special cases of this form, and in
sqrt(G) it is symmetric, with eigenvalues from 1 to 1 + max(G) (|R_bit| + |R_word|): conjugate
gradients need some ten to twenty products of small dense matrices. Where many vectors are applied
to one crossbar, its wires are eliminated once for all of them (`_elimination`).

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
from memsim.cells._conjugate_gradients import conjugate_gradients, norm
from memsim.cells._elimination import eliminate, substitute

__all__ = [
    "Solution",
    "Wires",
    "device_currents",
    "effective_conductance",
    "node_voltages",
    "voltage_drop",
]

# Solvers aim below the tolerance: the residual of conjugate gradients is that of exact arithmetic.
_AIM = 0.1
# Vectors of inputs from which on elimination is cheaper: measured, 8 to 64 and more by size and
# dtype, so that few are ever slower for it; and how often it is refined at most.
_MANY_VECTORS, _MOST_REFINEMENTS = 64, 8


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
      residual: norm of what Kirchhoff's laws leave over, relative to what flows without wires: of
        all vectors of voltages, or columns of `effective_conductance`, the largest.
      converged: whether that is within the tolerance. Outside `jit` a solve that is not raises.
    """

    value: Float[Array, "*vectors rows columns"]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]


def device_currents(
    conductance: Float[Array, "rows columns"],
    voltages: Float[Array, "*vectors rows"],
    wires: Wires,
    *,
    tolerance: float | None = None,
) -> Solution:
    """Solves for the currents through the devices of a crossbar whose wires have a resistance.

    Differentiable in every array argument, forward and backward; `vmap` for many crossbars. From
    64 vectors on that are given at once, all share one elimination of the wires.

    Args:
      conductance: siemens, float32 or float64; 0 for an open device.
      voltages: in volt, applied to the left ends of the word lines, one vector or many; of the same
        dtype.
      wires: their resistances.
      tolerance: largest residual, relative to the norm of the currents without wires; by default
        1e-9 in float64 and 1e-5 in float32. Solvers go on to a tenth of it; conjugate gradients
        relative to those currents or to the wires' effect on them, whichever is smaller.

    Returns:
      Amperes of every vector, with the residual. Their sums over rows are what the bit lines carry
      to ground.

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
    currents: Float[Array, "*vectors rows columns"], wires: Wires
) -> Float[Array, "*vectors rows columns"]:
    """Finds how many volts each device has less than its row was given.

    Args:
      currents: amperes that the devices draw.
      wires: their resistances.
    """
    word, bit = _drops(jnp.asarray(currents), _checked_wires(wires))
    return word + bit


def node_voltages(
    currents: Float[Array, "*vectors rows columns"],
    voltages: Float[Array, "*vectors rows"],
    wires: Wires,
) -> tuple[Float[Array, "*vectors rows columns"], Float[Array, "*vectors rows columns"]]:
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
    return voltages[..., None] - word, bit


@functools.partial(jax.jit, static_argnames="tolerance")
def _device_currents(
    conductance: Float[Array, "rows columns"],
    voltages: Float[Array, "*vectors rows"],
    wires: Wires,
    tolerance: float,
) -> Solution:
    # what flows without wires
    ideal = jnp.einsum("rc,...r->...rc", conductance, voltages)
    currents, residual = _solve(
        conductance, ideal.reshape(-1, *conductance.shape), wires, tolerance
    )
    # that of a NaN is not
    return Solution(currents.reshape(ideal.shape), residual, residual <= tolerance)


@functools.partial(jax.jit, static_argnames="tolerance")
def _effective_conductance(
    conductance: Float[Array, "rows columns"], wires: Wires, tolerance: float
) -> Solution:
    # The circuit is linear and reciprocal: driven at the foot of one bit line instead, it sends
    # into its word lines what these, driven, send there. A solve for each column, of which there
    # are fewer than rows; 1 V across every device of that column if wires were ideal.
    units = jnp.eye(conductance.shape[1], dtype=conductance.dtype)
    currents, residual = _solve(conductance, conductance[None] * units[:, None], wires, tolerance)
    return Solution(currents.sum(axis=2).T, residual, residual <= tolerance)


def _solve(
    conductance: Float[Array, "rows columns"],
    ideal: Float[Array, "vectors rows columns"],
    wires: Wires,
    tolerance: float,
) -> tuple[Float[Array, "vectors rows columns"], Float[Array, ""]]:
    """Solves `(1 + G R) I = ideal`; the currents, and the largest residual of this equation."""
    siemens, ohm = jax.tree.map(jax.lax.stop_gradient, (conductance, wires))
    if len(ideal) < _MANY_VECTORS:
        by_one = functools.partial(_solved_by_gradients, siemens, ohm, tolerance)
        solved: Callable[[Array], Array] = jax.vmap(by_one)
    else:
        solved = _solved_by_elimination(siemens, ohm, tolerance)

    def balance(currents: Array) -> Array:
        return currents + conductance[None] * voltage_drop(currents, wires)

    def solve(_: object, right: Array) -> Array:
        return solved(right)

    def solve_transposed(_: object, right: Array) -> Array:
        # (1 + R G)^-1 = 1 - R (1 + G R)^-1 G
        return right - voltage_drop(solved(siemens[None] * right), ohm)

    currents = jax.lax.custom_linear_solve(balance, ideal, solve, solve_transposed)
    # what is left of the equation itself, with all its rounding, not what the solver believes
    left = jax.vmap(norm)(jax.lax.stop_gradient(ideal - balance(currents)))
    flowing = jax.vmap(norm)(jax.lax.stop_gradient(ideal))
    return currents, jnp.max(left / jnp.where(flowing == 0, 1, flowing), initial=0)


def _solved_by_elimination(
    conductance: Float[Array, "rows columns"], wires: Wires, tolerance: float
) -> Callable[[Array], Array]:
    """Eliminates the wires once, and gives what solves for any currents, refined."""
    factors = eliminate(conductance, *wires)

    def solved(right: Array) -> Array:
        def left_of(currents: Array) -> Array:
            return right - currents - conductance[None] * voltage_drop(currents, wires)

        enough = _AIM * tolerance * jax.vmap(norm)(right)

        def goes_on(state: tuple[Array, Array, Array]) -> Array:
            _, left, steps = state
            return jnp.any(jax.vmap(norm)(left) > enough) & (steps < _MOST_REFINEMENTS)

        def refine(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            currents, left, steps = state
            currents = currents + substitute(factors, left)
            return currents, left_of(currents), steps + 1

        first = substitute(factors, right)
        found: Array
        found, *_ = jax.lax.while_loop(goes_on, refine, (first, left_of(first), jnp.int32(0)))
        return found

    return solved


def _solved_by_gradients(
    conductance: Float[Array, "rows columns"],
    wires: Wires,
    tolerance: float,
    right: Float[Array, "rows columns"],
) -> Float[Array, "rows columns"]:
    """Solves for the currents of one vector by conjugate gradients.

    With I = sqrt(G) y the system is symmetric, 1 + sqrt(G) R sqrt(G), and no large currents cancel.
    An open device has no y: its part of the right side (there is none but in tangents) is its
    current, and what that makes the wires drop goes to the others.
    """
    root = jnp.sqrt(conductance)

    def matrix(y: Array) -> Array:
        return y + root * voltage_drop(root * y, wires)

    is_open = root == 0
    of_open = jnp.where(is_open, right, 0)
    alone = jnp.where(is_open, 0, right / jnp.where(is_open, 1, root))
    effect = root * voltage_drop(right, wires)
    scaled = alone - root * voltage_drop(of_open, wires)
    # wires of little effect are a correction of what flows without them, of that accuracy
    weak = norm(effect) < norm(alone)
    start = (jnp.where(weak, alone, 0), jnp.where(weak, -effect, scaled))
    # what is left over of the symmetric system counts sqrt(G) times as much in currents
    left = norm(right) / jnp.where(is_open.all(), 1, root.max())
    left = jnp.minimum(left, jnp.minimum(norm(scaled), norm(effect)))
    return of_open + root * conjugate_gradients(matrix, scaled, start, _AIM * tolerance * left)


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


def _checked_voltages(voltages: Float[Array, "*vectors rows"], of: Array) -> Array:
    array = _floating("voltages", voltages)
    if array.shape[-1:] != of.shape[-2:-1]:
        raise ValueError(
            f"`voltages` has shape {array.shape}; give one volt for each of {of.shape[-2]} rows, "
            "[rows] or [vectors, rows]."
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
    rows, columns = currents.shape[-2:]
    row, column = np.arange(rows), np.arange(columns)
    shared_columns = 1 + np.minimum.outer(column, column)  # segments up to the nearer crossing
    shared_rows = rows - np.maximum.outer(row, row)  # segments from the lower crossing down
    word = product(currents, jnp.asarray(shared_columns, currents.dtype)) * wires.word_line
    bit = product(jnp.asarray(shared_rows, currents.dtype), currents) * wires.bit_line
    return word, bit
