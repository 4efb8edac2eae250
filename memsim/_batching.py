"""Chips in turn: `vmap` that works on as many at a time as caches hold."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

# Numbers that a processor keeps near.
NEAR = 2**20


def in_turn(function: Callable[..., PyTree[Array]], size: int) -> Callable[..., PyTree[Array]]:
    """Gives the same function, which `vmap` calls for a few chips at a time.

    Left to itself, `vmap` makes every step for all chips before the next, out of all caches. No
    gradients go through.

    Args:
      function: of arrays or keys.
      size: numbers that a call works on.
    """
    at_once = max(1, NEAR // max(1, size))
    called = jax.custom_batching.custom_vmap(function)

    @called.def_vmap
    def of_all(count: int, in_batched: list[Any], *arguments: Any) -> tuple[Any, Any]:
        # some arguments are those of a chip, the others of all
        leaves, tree = jax.tree.flatten(arguments)
        batched = jax.tree.leaves(in_batched)
        pairs = list(zip(leaves, batched, strict=True))

        def of_chip(own: list[Array]) -> PyTree[Array]:
            each = iter(own)
            mixed = [next(each) if is_own else shared for shared, is_own in pairs]
            return function(*jax.tree.unflatten(tree, mixed))

        found = jax.lax.map(of_chip, [x for x, is_own in pairs if is_own], batch_size=at_once)
        return found, jax.tree.map(lambda _: True, found)

    return called
