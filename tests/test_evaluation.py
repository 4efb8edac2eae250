import jax
import numpy as np
import scipy.stats

import memsim
from training.evaluation import accuracy_change, make_classify, program_chips, unstack


def test_each_network_is_tested_on_every_image_in_any_batches():
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((11, 6)).astype(np.float32), rng.integers(0, 3, 11)
    networks = [rng.standard_normal((6, 3)).astype(np.float32) for _ in range(3)]
    expected = [np.argmax(images @ network, axis=-1) == labels for network in networks]
    traced = []

    def apply(network, images):
        traced.append(images.shape)
        return images @ network

    classify = make_classify(apply)
    for size in (4, 11):
        batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, 11, size)]
        correct = classify(networks, iter(batches))
        assert correct.dtype == bool
        np.testing.assert_array_equal(correct, expected)
    assert traced == [(4, 6), (11, 6)]  # compiled once, the short batch and other networks included


def test_chips_are_programmed_as_one_by_one(key, config, params):
    plan = memsim.plan(params, config, memsim.Policy.sws(low_columns=3, reprogram=0.5))
    chips = jax.vmap(lambda key: memsim.sample_chip(key, plan, 0.1, 0.1))(jax.random.split(key, 3))
    networks = [jax.tree.map(lambda w, i=i: w * (1 + i / 8), params) for i in range(3)]
    held, programmings = program_chips(networks, plan, chips, passes=2)
    for i, chip in enumerate(unstack(chips)):
        expected, counted = memsim.program(networks[i], plan, chip, passes=2)
        jax.tree.map(np.testing.assert_array_equal, held[i], expected)
        jax.tree.map(np.testing.assert_array_equal, programmings[i].counts, counted.counts)
    assert not np.array_equal(held[0]["layer2"]["kernel"], held[1]["layer2"]["kernel"])


def test_on_one_chip_the_interval_is_that_of_a_paired_test():
    rng = np.random.default_rng(0)
    reference = rng.random(400) < 0.9
    programmed = np.where(rng.random(400) < 0.1, rng.random(400) < 0.5, reference)
    change = accuracy_change(programmed[None], reference)
    paired = scipy.stats.ttest_rel(programmed * 1.0, reference * 1.0).confidence_interval(0.95)
    np.testing.assert_allclose(change.mean, programmed.mean() - reference.mean(), atol=1e-12)
    np.testing.assert_allclose([change.low, change.high], [paired.low, paired.high], rtol=1e-9)


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


def test_nothing_changed_is_no_change():
    reference = np.arange(10) < 7
    assert accuracy_change(np.stack([reference] * 3), reference) == (0, 0, 0)
