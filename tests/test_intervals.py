import numpy as np
import pytest
import scipy.stats

from memsim.intervals import (
    accuracy_change,
    confidence_interval,
    perplexity_interval,
    share_interval,
)


def test_on_one_chip_the_interval_is_newcombes_for_shares_of_one_multinomial():
    rng = np.random.default_rng(0)
    reference = rng.random(400) < 0.9
    programmed = np.where(rng.random(400) < 0.1, rng.random(400) < 0.5, reference)
    mean, low, high = accuracy_change(programmed[None], reference)
    gained, lost = np.sum(programmed & ~reference), np.sum(~programmed & reference)
    up, down = (scipy.stats.binomtest(int(x), 400).proportion_ci(method="wilson")
                for x in (gained, lost))  # fmt: skip
    gain, loss = gained / 400, lost / 400
    np.testing.assert_allclose(mean, gain - loss, atol=1e-12)
    phi = -np.sqrt(gain * loss / ((1 - gain) * (1 - loss)))

    def joined(one, other):
        return np.sqrt(one**2 + other**2 - 2 * phi * one * other)

    np.testing.assert_allclose(mean - low, joined(gain - up.low, down.high - loss), rtol=0.01)
    np.testing.assert_allclose(high - mean, joined(up.high - gain, loss - down.low), rtol=0.01)


@pytest.mark.parametrize(
    ("images", "chips", "lost", "gained"),
    [(2000, 1, 0.25, 0.25), (1000, 8, 0.21, 0.09), (1000, 1, 0.42, 0.09), (500, 1, 0.1, 0.1)],
)
def test_the_interval_covers_where_images_are_lost_and_gained(images, chips, lost, gained):
    rng = np.random.default_rng(0)
    covered, trials = 0, 1000
    for _ in range(trials):
        reference = rng.random(images) < 0.6
        drawn = rng.random((chips, images))
        programmed = np.where(reference, drawn >= lost / 0.6, drawn < gained / 0.4)
        change = accuracy_change(programmed, reference)
        covered += change.low <= gained - lost <= change.high
    assert 0.935 <= covered / trials <= 0.975


def test_no_interval_leaves_what_an_accuracy_can_be():
    reference = np.arange(100) < 92
    programmed = np.stack([np.arange(100) < 90, np.arange(100) < 20])  # two chips tell little
    change = accuracy_change(programmed, reference)
    assert 0 <= 0.92 + change.low < 0.92 + change.high <= 1


def test_the_interval_covers_other_chips_and_other_images():
    # accuracy falls by 10 points on average: by chips of 4 points deviation, on some images more
    rng = np.random.default_rng(0)
    images, chips, trials = 300, 8, 400
    covered = 0
    for _ in range(trials):
        fall = np.clip(rng.normal(0.1, 0.04, (chips, 1)) + rng.normal(0, 0.03, images), 0, 1)
        reference = rng.random(images) < 0.9
        programmed = np.where(rng.random((chips, images)) < fall, False, reference)
        change = accuracy_change(programmed, reference)
        covered += change.low <= -0.9 * 0.1 <= change.high
    assert 0.94 <= covered / trials <= 0.99


@pytest.mark.parametrize(
    ("images", "chips", "flips"), [(200, 1, 0.005), (500, 4, 0.003), (200, 8, 0.05)]
)
def test_the_interval_covers_where_few_images_change(images, chips, flips):
    rng = np.random.default_rng(0)
    covered, trials = 0, 1000
    for _ in range(trials):
        reference = rng.random(images) < 0.9
        programmed = reference & (rng.random((chips, images)) >= flips)
        change = accuracy_change(programmed, reference)
        covered += change.low <= -0.9 * flips <= change.high
    assert covered / trials >= 0.94


def test_no_change_on_few_images_is_not_certainty():
    reference = np.arange(200) < 180
    mean, low, high = accuracy_change(np.stack([reference] * 3), reference)
    assert mean == 0
    assert -0.02 < low < -0.005 < 0.005 < high < 0.02


@pytest.mark.parametrize("chips", [1, 3])
def test_one_image_tells_next_to_nothing(chips):
    _, low, high = accuracy_change(np.zeros((chips, 1), bool), np.ones(1, bool))
    assert low == -1
    assert high > -1
    assert np.isfinite([low, high]).all()


@pytest.mark.parametrize(("count", "trials"), [(0, 7), (7, 7), (3, 7), (1, 1), (990, 1000)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(count, trials):
    mean, low, high = share_interval(count, trials)
    expected = scipy.stats.binomtest(count, trials).proportion_ci(method="exact")
    assert mean == count / trials
    assert 0 <= low <= mean <= high <= 1
    np.testing.assert_allclose((low, high), expected, atol=1e-12)


@pytest.mark.parametrize("trials", [1, 2, 3, 5, 8, 16, 33, 100])
def test_the_interval_of_a_share_covers_whatever_the_share(trials):
    """Not by drawing: the probabilities of all counts are added up, also for extreme shares."""
    found = np.array([share_interval(count, trials) for count in range(trials + 1)])
    small = np.concatenate([np.geomspace(1e-9, 0.05, 300), np.linspace(0.05, 0.5, 300)])
    for share in (*small, *(1 - small)):
        chance = scipy.stats.binom.pmf(np.arange(trials + 1), trials, share)
        covered = (found[:, 1] <= share) & (share <= found[:, 2])
        assert chance[covered].sum() >= 0.95 - 1e-9, share
    # and not by covering everything
    width = found[:, 2] - found[:, 1]
    assert trials < 5 or width.max() < 1
    assert found[0, 1] == 0
    assert found[-1, 2] == 1


@pytest.mark.parametrize(
    ("count", "trials", "message"),
    [
        (0, 0, "`trials` is 0; give a whole number from 1"),
        (3, 2, "`count` is 3; give a whole number from 0 to 2, `trials`"),
        (-1, 2, "`count` is -1; give"),
        (0.5, 2, "`count` is 0.5; give"),
        (np.nan, 2, "`count` is nan; give"),
    ],
)
def test_a_share_is_of_trials(count, trials, message):
    with pytest.raises(ValueError, match=message):
        share_interval(count, trials)


def test_on_one_chip_the_interval_of_a_perplexity_is_students():
    losses = np.random.default_rng(0).gamma(9, 0.2, 50)
    expected = np.exp([losses.mean(), *confidence_interval(losses)])
    np.testing.assert_allclose(perplexity_interval(losses[None]), expected, rtol=1e-12)


@pytest.mark.parametrize(("windows", "chips"), [(50, 1), (200, 8), (40, 4)])
def test_the_interval_of_a_ratio_covers_other_chips_and_other_windows(windows, chips):
    rng = np.random.default_rng(0)
    covered, trials = 0, 500
    for _ in range(trials):
        hard = rng.gamma(9, 0.2, windows)  # what is hard for both adds nothing
        of_chip = rng.normal(0, 0.03, (chips, 1)) if chips > 1 else 0
        more = 0.1 + of_chip + rng.normal(0, 0.05, windows) + rng.normal(0, 0.05, (chips, windows))
        ratio = perplexity_interval((hard + more) - hard)
        assert ratio.high - ratio.low < 0.4
        covered += ratio.low <= np.exp(0.1) <= ratio.high
    assert 0.92 <= covered / trials <= 0.98


def test_one_window_tells_nothing_of_others():
    assert perplexity_interval(np.array([[1.0]])) == pytest.approx((np.e,) * 3)
    assert perplexity_interval(np.zeros((3, 1))) == (1, 1, 1)
    for shape in ((0, 3), (3, 0), (3,)):
        with pytest.raises(ValueError, match="`losses` is of shape"):
            perplexity_interval(np.zeros(shape))
