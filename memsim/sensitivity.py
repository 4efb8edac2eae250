"""How sensitive a network is: the loss that errors in the weights of each layer cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from memsim.config import CrossbarConfig
from memsim.planning import plan
from memsim.policies import Unsorted
from memsim.selection import Select, named_leaves, select_by_name, select_layers, slice_of

__all__ = ["layer_sensitivity"]

Batch: TypeAlias = PyTree  # leaves share a leading axis of examples
# Examples whose gradients are taken, and the numbers that these may be at once.
_EXAMPLES, _GRADIENTS = 512, 2**26


def layer_sensitivity(
    params: PyTree,
    config: CrossbarConfig,
    loss_fn: Callable[[PyTree, Batch], Array],
    data: Batch,
    *,
    select: Select | None = None,
) -> dict[str, float]:
    """Estimates the loss that a squared error of one code costs in one weight of each layer.

    Half the mean squared gradient of an example's loss, times the squared scale.

    Args:
      params, config, select: as of `plan`.
      loss_fn: `(params, batch) -> mean loss`, differentiable.
      data: pytree of arrays that share a leading axis of examples; 512 of them are taken.
    """
    # as many examples at once as their gradients have room
    leaves = named_leaves(params)
    selected = select_layers(leaves, select or select_by_name())
    tensors = list(dict.fromkeys(tensor for tensor, _ in selected.values()))
    structure = jax.tree.structure(params)
    made = plan(params, config, Unsorted(), select=select)
    weights = sum(leaves[name].size for name in tensors)
    total = len(jax.tree.leaves(data)[0])
    count = min(total, _EXAMPLES)
    size = max(1, min(16, _GRADIENTS // weights, count))
    count -= count % size  # whole batches: compiled once
    # at even distances: examples are often sorted by class
    chosen = np.arange(count) * total // count
    data = jax.tree.map(lambda x: x[chosen], data)

    @jax.jit
    def squares(leaves: dict[str, Array], examples: Batch) -> dict[str, Array]:
        def loss(mapped: dict[str, Array], example: Batch) -> Array:
            network = jax.tree.unflatten(structure, (leaves | mapped).values())
            return loss_fn(network, jax.tree.map(lambda x: x[None], example))

        def of_example(example: Batch) -> dict[str, Array]:
            gradients = jax.grad(loss)({name: leaves[name] for name in tensors}, example)
            return {
                name: jnp.mean(jnp.square(slice_of(gradients[tensor], matrix)))
                for name, (tensor, matrix) in selected.items()
            }

        every = jax.vmap(of_example)(examples)
        return {name: jnp.sum(of_layer) for name, of_layer in every.items()}

    # batch by batch, added up on the host
    sums = dict.fromkeys(selected, 0.0)
    arrays = {name: jnp.asarray(leaf) for name, leaf in leaves.items()}
    for start in range(0, count, size):
        part = squares(arrays, jax.tree.map(lambda x, i=start: x[i : i + size], data))
        sums = {name: sums[name] + float(part[name]) for name in selected}
    return {
        name: sums[name] / count * float(np.mean(np.square(made.layers[name].scale))) / 2
        for name in selected
    }
