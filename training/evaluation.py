"""Networks programmed onto chips: what it took, how well they classify."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, PyTree

import memsim
from training.data import Batch

Apply = Callable[[PyTree, Array], Array]


def program_chips(
    networks: Sequence[PyTree], plan: memsim.Plan, chips: memsim.Chip, passes: int = 1
) -> tuple[list[PyTree], list[memsim.Programming]]:
    """Programs one network onto each chip, one after another: no more memory than for one.

    Args:
      networks: weights for each chip.
      chips: with a leading axis of chips.
      passes: see `memsim.program`.
    """
    done = [
        memsim.program(network, plan, chip, passes=passes)
        for network, chip in zip(networks, unstack(chips), strict=True)
    ]
    return [held for held, _ in done], [programming for _, programming in done]


def unstack(tree: PyTree) -> list[PyTree]:
    """The parts of a tree whose leaves share a leading axis."""
    length = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(length)]


def make_classify(
    apply: Apply,
) -> Callable[[Sequence[PyTree], Iterable[Batch]], Bool[np.ndarray, "networks images"]]:
    """`(networks, batches) -> correct`: which images each network gets right.

    Every batch is read once and goes through all networks. Networks have been programmed before:
    nothing but `apply`, `(params, images) -> logits`, runs per batch. The result compiles once for
    all networks of one shape.
    """

    @jax.jit
    def one(params: PyTree, images: Array, labels: Array) -> Array:
        return jnp.argmax(apply(params, images), axis=-1) == labels

    def classify(
        networks: Sequence[PyTree], batches: Iterable[Batch]
    ) -> Bool[np.ndarray, "networks images"]:
        networks = [jax.device_put(network) for network in networks]
        correct, size = [], 0
        for images, labels in batches:
            count = len(labels)
            size = size or count
            if count < size:  # the last batch: as large as the others, so as not to recompile
                images, labels = (
                    np.pad(x, [(0, size - count)] + [(0, 0)] * (x.ndim - 1))
                    for x in (images, labels)
                )
            of_batch = [one(network, images, labels) for network in networks]
            correct.append(np.stack([np.asarray(right)[:count] for right in of_batch]))
        return np.concatenate(correct, axis=1)

    return classify


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def accuracy_change(
    programmed: Bool[np.ndarray, "chips images"], reference: Bool[np.ndarray, " images"]
) -> Interval:
    """Accuracy of programmed chips minus that of the float network, as a share of 1.

    The interval is for other images and other chips of the same kind: the variance of the mean is
    that over images of the mean difference per image, plus that over chips of the mean per chip,
    with Student's t at the degrees of freedom of Welch and Satterthwaite. Images are paired, so
    what both networks get wrong adds nothing.

    Args:
      programmed: which images each chip gets right.
      reference: which the float network gets right.
    """
    difference = programmed.astype(np.float64) - reference[None]
    variance, spread = 0.0, 0.0  # of the mean; the sum of variance^2 / degrees of freedom
    for axis in (0, 1):
        means = difference.mean(axis=axis)
        if means.size > 1:
            of_mean = means.var(ddof=1) / means.size
            variance += of_mean
            spread += of_mean**2 / (means.size - 1)
    mean = float(difference.mean())
    if not variance:
        return Interval(mean, mean, mean)
    half = scipy.special.stdtrit(variance**2 / spread, 0.975) * math.sqrt(variance)
    return Interval(mean, float(mean - half), float(mean + half))
