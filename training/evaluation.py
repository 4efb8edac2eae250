"""Networks programmed onto chips: what it took, how well they do what they were trained for."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num, PyTree

import memsim
from training.data import Batch
from training.scoring import ACCURACY, Score

Apply = Callable[[PyTree, Array], Array]


def program_chips(
    networks: Sequence[PyTree],
    plans: Sequence[memsim.Plan],
    chips: memsim.Chip,
    passes: int = 1,
    readout: memsim.Readout | None = None,
    writing: memsim.Writing | None = None,
) -> tuple[list[PyTree], list[memsim.Programming]]:
    """Programs one network onto each chip, one after another.

    Args:
      networks, plans: weights for each chip, and how they are programmed.
      chips: with a leading axis of chips.
      passes: see `memsim.program`.
      readout: how chips are read; None for ideal cells and wires.
      writing: how writes fail; None where none does.

    Returns:
      The weights that each chip holds, as they are read; what it took.
    """
    read, programmings = [], []
    for network, plan, chip in zip(networks, plans, unstack(chips), strict=True):
        held, programming = memsim.program(
            network, plan, chip, passes=passes, words=readout is not None, writing=writing
        )
        if readout is not None:
            held = memsim.read_weights(read_key(chip), held, plan, programming, readout)
        read.append(held)
        programmings.append(programming._replace(words=None))
    return read, programmings


def read_key(chip: memsim.Chip) -> Array:
    """Returns the key of what a chip's cells vary by when it is tested."""
    return jax.random.fold_in(chip.key, 2**31 - 1)  # by none of its programmings


def unstack(tree: PyTree) -> list[PyTree]:
    """Takes a tree apart whose leaves share a leading axis."""
    length = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(length)]


def same_weights(one: PyTree, other: PyTree) -> bool:
    """Tells whether two networks are the same to the bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def make_test(
    apply: Apply, score: Score = ACCURACY
) -> Callable[[Sequence[PyTree], Iterable[Batch]], Num[np.ndarray, "networks examples"]]:
    """Makes `(networks, batches) -> values`: what each network scores on each example, such as
    whether it gets an image right.

    Every batch is read once and goes through all networks. Networks have been programmed before:
    nothing but `apply`, `(params, inputs) -> logits`, runs per batch. The result compiles once for
    all networks of one shape.

    Args:
      apply: `(params, inputs) -> logits`.
      score: says the value of an example.
    """

    @jax.jit
    def one(params: PyTree, inputs: Array, labels: Array) -> Array:
        return score.of_batch(apply(params, inputs), labels)

    def test(
        networks: Sequence[PyTree], batches: Iterable[Batch]
    ) -> Num[np.ndarray, "networks examples"]:
        networks = [jax.device_put(network) for network in networks]
        values, size = [], 0
        for inputs, labels in batches:
            count = len(labels)
            size = size or count
            if count < size:  # the last batch: as large as the others, so as not to recompile
                inputs, labels = (
                    np.pad(x, [(0, size - count)] + [(0, 0)] * (x.ndim - 1))
                    for x in (inputs, labels)
                )
            of_batch = [one(network, inputs, labels) for network in networks]
            values.append(np.stack([np.asarray(value)[:count] for value in of_batch]))
        return np.concatenate(values, axis=1)

    return test


def cross_entropy(logits: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]) -> Array:
    """Computes the mean over the batch, and over the tokens of a text, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def distillation(
    logits: Float[Array, "*batch classes"],
    teacher: Float[Array, "*batch classes"],
    temperature: float = 4.0,
) -> Array:
    """Measures how far the network is from its teacher: mean over the batch, in nats.

    References:
      Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, arXiv 1503.02531.
    """
    soft = jax.nn.log_softmax(teacher / temperature)
    distance = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(logits / temperature), soft
    )
    return temperature**2 * distance.mean()


def classification(
    apply: Apply,
) -> tuple[Callable[[PyTree, Any], Array], Callable[[PyTree, Any], Array]]:
    """Makes (loss_fn, accuracy_fn) of `memsim.budget`, for batches (images, labels).

    Args:
      apply: `(params, images) -> logits`.
    """

    def loss_fn(params: PyTree, batch: tuple[Array, Array]) -> Array:
        images, labels = batch
        return cross_entropy(apply(params, images), labels)

    def accuracy_fn(params: PyTree, batch: tuple[Array, Array]) -> Array:
        images, labels = batch
        return jnp.argmax(apply(params, images), axis=-1) == labels

    return loss_fn, accuracy_fn
