"""Conjugate gradients: a linear system by products with its matrix alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# More than any crossbar takes that still works; float32 may never reach a tolerance too tight.
_MOST_ITERATIONS = 2000


def conjugate_gradients(
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
    size = norm(right)
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


def norm(x: Array) -> Float[Array, ""]:
    """Computes the Euclidean norm; squares of small numbers do not underflow."""
    largest = jnp.max(jnp.abs(x))
    norm: Array = largest * jnp.linalg.norm(x / jnp.where(largest == 0, 1, largest))
    return norm
