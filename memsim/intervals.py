"""Says how sure a figure is: 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from memsim._checks import check_round

__all__ = [
    "Interval",
    "accuracy_change",
    "confidence_interval",
    "perplexity_interval",
    "share_interval",
]


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Gives the 95 % confidence interval of the mean of independent values, by Student's t.

    Example:
      >>> [round(end, 2) for end in confidence_interval([1.0, 2.0, 3.0])]
      [-0.48, 4.48]

    Args:
      values: one or more; of one alone there is no telling, and both ends are the value itself.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # of several shapes
        array = np.asarray(None)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.number):
        raise ValueError(
            f"`values` is {array.dtype} {array.shape}; give one number or more, in a list."
        )
    if np.iscomplexobj(array):
        raise ValueError(f"`values` is {array.dtype}; give real numbers.")
    import scipy.special

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, mean
    half = scipy.special.stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(count)
    return float(mean - half), float(mean + half)


class Interval(NamedTuple):
    """Holds an estimate and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def accuracy_change(
    programmed: Bool[np.ndarray, "chips images"], reference: Bool[np.ndarray, " images"]
) -> Interval:
    """Estimates what programming changes the accuracy by: chips minus float network, share of 1.

    The interval is for other images and, of several chips, other chips of the same kind. Images are
    paired: what both networks get wrong adds nothing. The shares gained and lost have a Wilson
    interval each, which holds where few images change; Newcombe's square-and-add joins the two, by
    the correlation that they have in the sample: what is gained cannot be lost.

    Args:
      programmed: which images each chip gets right.
      reference: which the float network gets right.

    References:
      Newcombe, Improved confidence intervals for the difference between binomial proportions based
      on paired data, Statistics in Medicine 17, 1998.
    """
    gained, lost = ((a & ~b).astype(np.float64) for a, b in
                    ((programmed, reference), (reference, programmed)))  # fmt: skip
    # Wilson's interval of each share, and the variance of each
    (gain, of_gain), (loss, of_loss) = _share(gained), _share(lost)
    deviations = math.sqrt(of_gain * of_loss)
    # from the variance of the difference: chips and images give both shares
    covariance = (of_gain + of_loss - _variance(gained - lost)[0]) / 2
    correlation = max(-1.0, min(covariance / deviations, 1.0)) if deviations else 0.0

    def joined(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))

    mean, right = gain.mean - loss.mean, float(reference.mean())
    down = joined(gain.mean - gain.low, loss.high - loss.mean)
    up = joined(gain.high - gain.mean, loss.mean - loss.low)
    # few chips tell little: no accuracy is below 0 or above 1 for that
    return Interval(mean, max(mean - down, -right), min(mean + up, 1 - right))


def _share(happened: Float64[np.ndarray, "chips images"]) -> tuple[Interval, float]:
    """Tells how often something happens, and the variance of that.

    The interval is Wilson's, for as many trials as the draws amount to.
    """
    import scipy.special

    mean, (variance, freedom) = float(happened.mean()), _variance(happened)
    trials = mean * (1 - mean) / variance if variance else happened.shape[1]
    return _wilson(mean, trials, scipy.special.stdtrit(freedom, 0.975)), variance


def _variance(values: Float64[np.ndarray, "chips images"]) -> tuple[float, float]:
    """Estimates the variance of the mean, and its degrees of freedom.

    Images and chips are crossed random effects: the variance of the mean is that of the means per
    image, plus that of the means per chip, less the residual that both hold; the degrees of freedom
    are those of Welch and Satterthwaite.
    """
    chips, images = values.shape
    per_image, per_chip = values.mean(axis=0), values.mean(axis=1)
    variance, freedom = per_image.var() / images, max(images - 1.0, 1.0)
    if chips > 1 and variance:
        of_images, of_chips = variance, per_chip.var(ddof=1) / chips
        rest = values - per_image - per_chip[:, None] + values.mean()
        residual = np.sum(rest**2) / (max(images - 1, 1) * (chips - 1)) / (images * chips)
        variance = max(of_images + of_chips - residual, of_images, of_chips)
        freedom = variance**2 / (of_images**2 / max(images - 1, 1) + of_chips**2 / (chips - 1))
    return float(variance), float(freedom)


def share_interval(count: int, trials: int) -> Interval:
    """Estimates the share `count / trials` of independent trials, with an exact 95 % interval.

    The interval of Clopper and Pearson covers in at least 95 % of all cases for every share and any
    number of trials, also for few chips and for yields near 0 or 1, where approximations do not.

    Example:
      >>> mean, low, high = share_interval(8, 8)      # all of eight chips work
      >>> round(mean, 3), round(low, 3), round(high, 3)
      (1.0, 0.631, 1.0)

    Args:
      count: trials that came out right.
      trials: at least 1.

    Raises:
      ValueError: no trials, a count outside 0..`trials`, or numbers that are not whole.

    References:
      Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the
      binomial, Biometrika 26, 1934.
    """
    check_round("trials", trials, "give a whole number from 1", 1)
    check_round("count", count, f"give a whole number from 0 to {trials}, `trials`", 0, trials)
    import scipy.special

    # each end is the share at which so many, or more extreme, come out in 2.5 % of all cases
    low = scipy.special.betaincinv(count, trials - count + 1, 0.025) if count else 0.0
    high = scipy.special.betaincinv(count + 1, trials - count, 0.975) if count < trials else 1.0
    return Interval(count / trials, float(low), float(high))


def perplexity_interval(losses: Float[np.ndarray, "chips windows"]) -> Interval:
    """Estimates a perplexity from the losses on windows of text, or a ratio of two perplexities.

    Of losses `a` it is the perplexity; of `a - b` on the same windows it is the perplexity of
    `a` as a multiple of that of `b`, and how hard a window is for both adds nothing. The interval
    is for other windows of the same length and, of several chips, other chips of the same kind:
    Student's t of the mean loss, exponentiated.

    Example:
      >>> losses = np.array([[1.0, 1.5, 0.5, 1.0]])
      >>> [round(end, 2) for end in perplexity_interval(losses)]
      [2.72, 1.42, 5.2]
      >>> perplexity_interval(losses - losses)
      Interval(mean=1.0, low=1.0, high=1.0)

    Args:
      losses: mean negative log-likelihood of the tokens of each window, in nats, or differences of
        them. Of one window there is no telling, and both ends are the value itself.

    Raises:
      ValueError: no windows or no chips, or losses that are not in rows of chips.
    """
    if losses.ndim != 2 or not losses.size:
        raise ValueError(
            f"`losses` is of shape {losses.shape}; give a row for each chip, of a window or more."
        )
    import scipy.special

    values = np.asarray(losses, np.float64)
    variance, freedom = _variance(values)
    windows, mean = values.shape[1], float(values.mean())
    # from the spread in the sample to that of all windows
    variance *= windows / max(windows - 1, 1)
    half = float(scipy.special.stdtrit(freedom, 0.975)) * math.sqrt(variance)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _wilson(mean: float, trials: float, z: float) -> Interval:
    """Gives Wilson's interval of a share of so many trials, `z` deviations to each side."""
    middle = (mean + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(mean * (1 - mean) / trials + (z / (2 * trials)) ** 2)
    # rounding may leave out a mean of 0 or 1, an end of its own interval
    return Interval(mean, min(float(middle - half), mean), max(float(middle + half), mean))
