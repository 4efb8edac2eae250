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
    """Programs one network onto each chip, one after another.

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

    The interval is for other images and, of several chips, other chips of the same kind. Images are
    paired: what both networks get wrong adds nothing. The shares gained and lost have a Wilson
    interval each, which holds where few images change; Newcombe's square-and-add joins the two.

    Args:
      programmed: which images each chip gets right.
      reference: which the float network gets right.

    References:
      Newcombe, Improved confidence intervals for the difference between binomial proportions based
      on paired data, Statistics in Medicine 17, 1998.
    """
    gained, lost = _share(programmed & ~reference), _share(~programmed & reference)
    mean = gained.mean - lost.mean
    down = math.hypot(gained.mean - gained.low, lost.high - lost.mean)
    up = math.hypot(gained.high - gained.mean, lost.mean - lost.low)
    return Interval(mean, mean - down, mean + up)


def _share(happened: Bool[np.ndarray, "chips images"]) -> Interval:
    """How often something happens: Wilson's interval, for as many trials as the draws are worth.

    Images and chips are crossed random effects: the variance of the mean is that of the means per
    image, plus that of the means per chip, less the residual that both hold; the degrees of freedom
    are those of Welch and Satterthwaite.
    """
    values = happened.astype(np.float64)
    chips, images = values.shape
    mean = values.mean()
    per_image, per_chip = values.mean(axis=0), values.mean(axis=1)
    variance, freedom = per_image.var() / images, max(images - 1.0, 1.0)
    if chips > 1 and variance:
        of_images, of_chips = variance, per_chip.var(ddof=1) / chips
        rest = values - per_image - per_chip[:, None] + mean
        residual = np.sum(rest**2) / (max(images - 1, 1) * (chips - 1)) / (images * chips)
        variance = max(of_images + of_chips - residual, of_images, of_chips)
        freedom = variance**2 / (of_images**2 / max(images - 1, 1) + of_chips**2 / (chips - 1))
    trials = mean * (1 - mean) / variance if variance else images
    z = scipy.special.stdtrit(freedom, 0.975)
    middle = (mean + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(mean * (1 - mean) / trials + (z / (2 * trials)) ** 2)
    return Interval(float(mean), float(middle - half), float(middle + half))
