"""Scores of networks: how well they classify images, or foretell a text."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num

from memsim.intervals import Interval, accuracy_change, perplexity_interval, share_interval


class Score(NamedTuple):
    """The way that a network is scored on examples.

    Attributes:
      name: of the figure.
      examples: their name.
      change: name of its change by programming.
      of_batch: `(logits, labels) -> ` a value for each example of a batch.
      figure: of the values of each network, [..., examples].
      interval: of the values of one network, [examples].
      compare: `(programmed [chips, examples], reference [examples]) -> ` the change.
      changed: `(figure, change) -> ` the figure after it.
      text: `(figure, decimals) -> ` the figure as people read it; of accuracies in percent.
      change_text: the same of a change.
      higher_is_better: whether the best network has the highest figure.
    """

    name: str
    examples: str
    change: str
    of_batch: Callable[[Array, Array], Array]
    figure: Callable[[np.ndarray], np.ndarray]
    interval: Callable[[np.ndarray], Interval]
    compare: Callable[[np.ndarray, np.ndarray], Interval]
    changed: Callable[[float, float], float]
    text: Callable[[float, int], str]
    change_text: Callable[[float, int], str]
    higher_is_better: bool = True


def find_right(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Num[Array, " batch"]:
    """Tells which images are classified right."""
    return jnp.argmax(logits, axis=-1) == labels


def window_losses(
    logits: Float[Array, "batch tokens vocabulary"], after: Int[Array, "batch tokens"]
) -> Num[Array, " batch"]:
    """Computes the mean negative log-likelihood of each window of a text, in nats.

    Args:
      after: the token after each.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, after).mean(axis=-1)


ACCURACY = Score(
    name="accuracy",
    examples="images",
    change="accuracy_change",
    of_batch=find_right,
    figure=lambda right: right.mean(axis=-1),
    interval=lambda right: share_interval(int(right.sum()), right.size),
    compare=accuracy_change,
    changed=lambda figure, change: figure + change,
    text=lambda share, decimals: f"{100 * share:.{decimals}f} %",
    change_text=lambda share, decimals: f"{100 * share:+.{decimals}f}",
)

PERPLEXITY = Score(
    name="perplexity",
    examples="windows",
    change="perplexity_ratio",
    of_batch=window_losses,
    figure=lambda losses: np.exp(losses.mean(axis=-1, dtype=np.float64)),
    interval=lambda losses: perplexity_interval(losses[None]),
    compare=lambda programmed, reference: perplexity_interval(
        programmed.astype(np.float64) - reference
    ),
    changed=lambda figure, ratio: figure * ratio,
    text=lambda perplexity, decimals: f"{perplexity:.{decimals + 1}f}",
    change_text=lambda ratio, decimals: (
        f"{100 * (ratio - 1):+.{decimals}f} %" if ratio < 2 else f"{ratio:.{decimals}f}x"
    ),
    higher_is_better=False,
)
