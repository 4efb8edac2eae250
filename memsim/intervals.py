"""How sure a figure is: 95 % confidence intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float64


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the mean of independent values, by Student's t."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, mean
    half = scipy.special.stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(count)
    return float(mean - half), float(mean + half)


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
    (gain, of_gain), (loss, of_loss) = _share(gained), _share(lost)
    deviations = math.sqrt(of_gain * of_loss)
    covariance = (of_gain + of_loss - _variance(gained - lost)[0]) / 2
    together = max(-1.0, min(covariance / deviations, 1.0)) if deviations else 0.0

    def joined(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * together * one * other, 0.0))

    mean, right = gain.mean - loss.mean, float(reference.mean())
    down = joined(gain.mean - gain.low, loss.high - loss.mean)
    up = joined(gain.high - gain.mean, loss.mean - loss.low)
    # few chips tell little: no accuracy is below 0 or above 1 for that
    return Interval(mean, max(mean - down, -right), min(mean + up, 1 - right))


def _share(happened: Float64[np.ndarray, "chips images"]) -> tuple[Interval, float]:
    """How often something happens, and the variance of that.

    The interval is Wilson's, for as many trials as the draws are worth.
    """
    mean, (variance, freedom) = float(happened.mean()), _variance(happened)
    trials = mean * (1 - mean) / variance if variance else happened.shape[1]
    return _wilson(mean, trials, scipy.special.stdtrit(freedom, 0.975)), variance


def _variance(values: Float64[np.ndarray, "chips images"]) -> tuple[float, float]:
    """Variance of the mean, and its degrees of freedom.

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
    """The share `count / trials` of independent trials, with its Wilson 95 % interval.

    References:
      Wilson, Probable inference, the law of succession, and statistical inference, Journal of the
      American Statistical Association 22, 1927.
    """
    return _wilson(count / trials, trials, scipy.special.ndtri(0.975))


def _wilson(mean: float, trials: float, z: float) -> Interval:
    middle = (mean + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(mean * (1 - mean) / trials + (z / (2 * trials)) ** 2)
    # rounding may leave out a mean of 0 or 1, an end of its own interval
    return Interval(mean, min(float(middle - half), mean), max(float(middle + half), mean))
