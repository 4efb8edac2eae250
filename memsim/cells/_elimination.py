"""Wires of a crossbar solved by elimination: one factorisation for many vectors of inputs.

Both ends that are driven or grounded first, a line of n crossings has shared resistances
`M[j, k] = 1 + min(j, k)` segments, whose inverse T is tridiagonal: 2 (1 at the far end) on its
diagonal, -1 beside it. The lines along one side of the crossbar are eliminated, each by itself:
with u = (T + r G)^-1 f, devices G behind its resistance r draw `B f = f - r G u`. Of the lines
across, c ohm a segment, that leaves a chain of dense blocks in what they rise by,

    (2 + c A_i) b_i - b_(i-1) - b_(i+1) = c B_i f_i,   A_i = B_i G_i

which is eliminated from its far end. No resistance and no device is divided by: both may be 0.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Rows of a matrix that is inverted as it is.
_SMALL = 16


class Factors(NamedTuple):
    """A crossbar whose wires are eliminated.

    Attributes:
      devices: siemens, in the order of the chain.
      along: ohm of a segment of the lines that are eliminated one by one.
      across: ohm of a segment of the lines of the chain.
      pivots: of the tridiagonal matrix of every line.
      inverses: of the blocks of the chain.
      of_rows: whether the chain goes from row to row, and word lines are eliminated one by one.
    """

    devices: Float[Array, "chain line"]
    along: Float[Array, ""]
    across: Float[Array, ""]
    pivots: Float[Array, "chain line"]
    inverses: Float[Array, "chain line line"]
    of_rows: bool


def eliminate(
    conductance: Float[Array, "rows columns"],
    word_line: float | Float[Array, ""],
    bit_line: float | Float[Array, ""],
) -> Factors:
    """Eliminates all wires of a crossbar; the chain is its longer side, so that blocks are small.

    Args:
      conductance: siemens of the devices.
      word_line, bit_line: ohm of a segment.
    """
    of_rows = conductance.shape[1] <= conductance.shape[0]
    along, across = (word_line, bit_line) if of_rows else (bit_line, word_line)
    devices = _turned(conductance[None], of_rows)[0]
    along, across = (jnp.asarray(ohm, devices.dtype) for ohm in (along, across))
    load = along * devices
    pivots = _pivots(load, far_end_first=False)
    # the inverse of a tridiagonal matrix, from its pivots from either end
    far = _pivots(load, far_end_first=True)
    own = 1 / (pivots + far - _diagonal(load))
    falls = jnp.cumsum(-jnp.log(pivots), axis=1) + jnp.log(pivots)
    size = devices.shape[1]
    unit = jnp.eye(size, dtype=devices.dtype)

    def step(beyond: Array, line: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        siemens, ohmic, diagonal, fall = line
        # from an entry of the diagonal up its column, every one less by its pivot
        upper = jnp.exp(jnp.minimum(fall[None] - fall[:, None], 0)) * diagonal[None]
        inverse = jnp.triu(upper) + jnp.triu(upper, 1).T
        alone = jnp.diag(siemens) - siemens[:, None] * inverse * ohmic[None]
        block = 2 * unit + across * alone - beyond
        solved = _inverse(block)
        return solved, solved

    # beyond the far end nothing changes any more: there a block counts 1, not 2
    _, inverses = jax.lax.scan(step, unit, (devices, load, own, falls), reverse=True)
    return Factors(devices, along, across, pivots, inverses, of_rows)


def substitute(
    factors: Factors, right: Float[Array, "vectors rows columns"]
) -> Float[Array, "vectors rows columns"]:
    """Solves `(1 + G R) I = right` for the currents I of all devices, of many vectors at once."""
    devices, _, across, _, inverses, of_rows = factors
    product = functools.partial(jnp.matmul, precision="highest")
    # every line as if those across had no resistance
    alone = _of_lines(factors, _turned(right, of_rows))

    def inwards(beyond: Array, line: tuple[Array, Array]) -> tuple[Array, Array]:
        inverse, source = line
        found = source + beyond
        return product(found, inverse), found

    def outwards(before: Array, line: tuple[Array, Array]) -> tuple[Array, Array]:
        inverse, source = line
        rise = product(source + before, inverse)
        return rise, rise

    # to the near end, and back with what the lines across rise by
    sources = across * jnp.moveaxis(alone, 1, 0)
    none = jnp.zeros_like(sources[0])
    _, sources = jax.lax.scan(inwards, none, (inverses, sources), reverse=True)
    _, rises = jax.lax.scan(outwards, none, (inverses, sources))
    found = alone - _of_lines(factors, devices[None] * jnp.moveaxis(rises, 0, 1))
    return _turned_back(found, of_rows)


def _turned(values: Float[Array, "vectors _ _"], of_rows: bool) -> Float[Array, "vectors _ _"]:
    """Puts the chain first, and the driven or grounded end of every line: bit lines end below."""
    upside_down = jnp.flip(values, 1)
    return upside_down if of_rows else upside_down.swapaxes(1, 2)


def _turned_back(values: Float[Array, "vectors _ _"], of_rows: bool) -> Float[Array, "vectors _ _"]:
    return jnp.flip(values if of_rows else values.swapaxes(1, 2), 1)


def _inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverts a symmetric positive matrix by halves: products, of which processors do most."""
    size = len(matrix)
    if size <= _SMALL:
        small: Array = jnp.linalg.inv(matrix)
        return small
    half = size // 2
    product = functools.partial(jnp.matmul, precision="highest")
    # the Schur complement of the first half
    beside, last = matrix[:half, half:], matrix[half:, half:]
    first = _inverse(matrix[:half, :half])
    led = product(first, beside)
    rest = _inverse(last - product(beside.T, led))
    back = product(led, rest)
    inverse: Array = jnp.block([[first + product(back, led.T), -back], [-back.T, rest]])
    return inverse


def _of_lines(
    factors: Factors, right: Float[Array, "vectors chain line"]
) -> Float[Array, "vectors chain line"]:
    """Solves every line by itself, `(1 + r G M) I = right`."""

    def forth(before: Array, crossing: tuple[Array, Array]) -> tuple[Array, Array]:
        source, pivot = crossing
        found = source + before
        return found / pivot[None], found

    def back(beyond: Array, crossing: tuple[Array, Array]) -> tuple[Array, Array]:
        source, pivot = crossing
        found = (source + beyond) / pivot[None]
        return found, found

    # one crossing after the other, of all lines and vectors at once
    pivots, sources = factors.pivots.T, jnp.moveaxis(right, 2, 0)
    none = jnp.zeros_like(sources[0])
    _, sources = jax.lax.scan(forth, none, (sources, pivots))
    _, dropped = jax.lax.scan(back, none, (sources, pivots), reverse=True)
    return right - (factors.along * factors.devices)[None] * jnp.moveaxis(dropped, 0, 2)


def _diagonal(load: Float[Array, "chain line"]) -> Float[Array, "chain line"]:
    """Gives the diagonal of `T + r G`."""
    return (load + 2).at[:, -1].add(-1)


def _pivots(load: Float[Array, "chain line"], *, far_end_first: bool) -> Float[Array, "chain line"]:
    """Eliminates the crossings of every line from one end to the other."""

    def step(before: Array, diagonal: Array) -> tuple[Array, Array]:
        pivot = diagonal - before
        return 1 / pivot, pivot

    none = jnp.zeros_like(load[:, 0])
    _, pivots = jax.lax.scan(step, none, _diagonal(load).T, reverse=far_end_first)
    return pivots.T
