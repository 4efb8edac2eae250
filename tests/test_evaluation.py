import jax
import numpy as np

import memsim
from training.evaluation import make_test, program_chips, unstack


def test_each_network_is_tested_on_every_image_in_any_batches():
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((11, 6)).astype(np.float32), rng.integers(0, 3, 11)
    networks = [rng.standard_normal((6, 3)).astype(np.float32) for _ in range(3)]
    expected = [np.argmax(images @ network, axis=-1) == labels for network in networks]
    traced = []

    def apply(network, images):
        traced.append(images.shape)
        return images @ network

    classify = make_test(apply)
    for size in (4, 11):
        batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, 11, size)]
        correct = classify(networks, iter(batches))
        assert correct.dtype == bool
        np.testing.assert_array_equal(correct, expected)
    assert traced == [(4, 6), (11, 6)]  # compiled once, the short batch and other networks included


def test_chips_are_programmed_as_one_by_one(key, config, params):
    plan = memsim.plan(params, config, memsim.policies.Sws(low=3, p=0.5))
    chips = jax.vmap(lambda key: memsim.sample_chip(key, plan, 0.1, 0.1))(jax.random.split(key, 3))
    networks = [jax.tree.map(lambda w, i=i: w * (1 + i / 8), params) for i in range(3)]
    held, programmings = program_chips(networks, [plan] * len(networks), chips, passes=2)
    for i, chip in enumerate(unstack(chips)):
        expected, counted = memsim.program(networks[i], plan, chip, passes=2)
        jax.tree.map(np.testing.assert_array_equal, held[i], expected)
        jax.tree.map(np.testing.assert_array_equal, programmings[i].counts, counted.counts)
    assert not np.array_equal(held[0]["layer2"]["kernel"], held[1]["layer2"]["kernel"])
