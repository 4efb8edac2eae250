"""What the resistance of its wires does to a crossbar: every device current, by a nodal solve.

Kirchhoff's laws leave one unknown per device. Word line i, driven from the left, has dropped by
`(I R_word)[i, j]` at crossing j when its devices draw the currents I; bit line j, grounded at the
bottom, has risen by `(R_bit I)[i, j]`. R[j, k], the resistance that two crossings of a line share
on their way to its driven or grounded end, is inverse to the matrix of the line's nodes. So

    I = G (V - R_bit I - I R_word)

Lines without resistance (merged nodes) and open devices are no special cases of this form, and in
sqrt(G) it is symmetric, with eigenvalues from 1 to 1 + max(G) (|R_bit| + |R_word|): conjugate
gradients need some ten to twenty products of small dense matrices.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float


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


@functools.partial(jax.jit, static_argnames="tolerance")
def device_currents(
    conductance: Float[Array, "rows columns"],
    voltages: Float[Array, " rows"],
    wires: Wires,
    *,
    tolerance: float | None = None,
) -> Float[Array, "rows columns"]:
    """Currents through the devices of a crossbar whose wires have a resistance.

    Differentiable in every array argument, forward and backward; `vmap` for many crossbars.

    Args:
      conductance: in siemens; 0 for an open device.
      voltages: in volt, applied to the left ends of the word lines.
      wires: their resistances.
      tolerance: norm of what Kirchhoff's laws leave over, relative to that of the ideal currents
        or of the wires' effect on them, whichever is smaller; by default 1e-10 in float64 and 1e-6
        in float32, whose rounding may keep long or resistive wires from reaching it.

    Returns:
      Amperes. Their sums over rows are what the bit lines carry to ground.

    References:
      Joksas and Mehonic, badcrossbar, SoftwareX 2020 (the same circuit in its node voltages).
    """
    if tolerance is None:
        tolerance = 1e-10 if conductance.dtype == jnp.float64 else 1e-6
    root = jnp.sqrt(jax.lax.stop_gradient(conductance))
    tiny = jnp.finfo(root.dtype).tiny

    def balance(currents: Array) -> Array:
        return currents + conductance * voltage_drop(currents, wires)

    # I + G R = 1 + sqrt(G) (sqrt(G) R): with y of the symmetric system 1 + sqrt(G) R sqrt(G),
    # either solution follows without a division by G, which may be 0
    def symmetric(right: Array, most_left: Array) -> Array:
        def matrix(y: Array) -> Array:
            return y + root * voltage_drop(root * y, fixed)

        left = tolerance * jnp.minimum(jnp.linalg.norm(right), most_left)
        return cg(matrix, right, tol=0.0, atol=left, maxiter=_MOST_ITERATIONS)[0]

    def solve(_: object, right: Array) -> Array:
        # what is left over of the symmetric system counts sqrt(G) times as much in currents
        most_left = jnp.linalg.norm(right) / jnp.maximum(root.max(), tiny)
        return right + root * symmetric(-root * voltage_drop(right, fixed), most_left)

    def solve_transposed(_: object, right: Array) -> Array:
        return right - voltage_drop(root * symmetric(root * right, jnp.array(jnp.inf)), fixed)

    fixed = jax.tree.map(jax.lax.stop_gradient, wires)
    ideal = conductance * voltages[:, None]
    return jax.lax.custom_linear_solve(balance, ideal, solve, solve_transposed)


def voltage_drop(
    currents: Float[Array, "rows columns"], wires: Wires
) -> Float[Array, "rows columns"]:
    """Volts that each device has less than its row was given, when devices draw these currents."""
    word, bit = _drops(currents, wires)
    return word + bit


def node_voltages(
    currents: Float[Array, "rows columns"], voltages: Float[Array, " rows"], wires: Wires
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Volts of the word line and of the bit line at every crossing, from the device currents."""
    word, bit = _drops(currents, wires)
    return voltages[:, None] - word, bit


@functools.partial(jax.jit, static_argnames="tolerance")
def effective_conductance(
    conductance: Float[Array, "rows columns"], wires: Wires, *, tolerance: float | None = None
) -> Float[Array, "rows columns"]:
    """What the crossbar is from outside: column currents are `voltages @` this, whatever these are.

    Args:
      conductance, wires, tolerance: see `device_currents`.

    Returns:
      Siemens.
    """
    rows, columns = conductance.shape

    def column_currents(voltages: Array) -> Array:
        return device_currents(conductance, voltages, wires, tolerance=tolerance).sum(axis=0)

    # the circuit is linear: a solve for each column, of which there are fewer than rows
    transposed = jax.linear_transpose(column_currents, jnp.zeros(rows, conductance.dtype))
    return jax.vmap(lambda column: transposed(column)[0], out_axes=1)(
        jnp.eye(columns, dtype=conductance.dtype)
    )


# More than any crossbar takes that still works; float32 may never reach a tolerance too tight.
_MOST_ITERATIONS = 2000


def _drops(currents: Array, wires: Wires) -> tuple[Array, Array]:
    product = functools.partial(jnp.matmul, precision="highest")
    rows, columns = currents.shape
    row, column = np.arange(rows), np.arange(columns)
    shared_columns = 1 + np.minimum.outer(column, column)  # segments up to the nearer crossing
    shared_rows = rows - np.maximum.outer(row, row)  # segments from the lower crossing down
    word = product(currents, jnp.asarray(shared_columns, currents.dtype)) * wires.word_line
    bit = product(jnp.asarray(shared_rows, currents.dtype), currents) * wires.bit_line
    return word, bit
