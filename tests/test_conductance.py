import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from memsim import Conductance

CELLS = 40_000


def mean_is(sample, mean, deviation):
    """Within five standard errors."""
    return abs(np.mean(sample) - mean) < 5 * deviation / np.sqrt(np.size(sample))


def deviation_is(sample, deviation):
    """Within five standard errors, those of a normal sample."""
    return abs(np.std(sample) - deviation) < 5 * deviation / np.sqrt(2 * np.size(sample))


def aimed_at(u, cells):
    return jnp.full(CELLS, u * cells.on, jnp.float32)


@pytest.mark.parametrize(
    ("u", "microsiemens"), [(0.3, 0.26348 + 1.965 * 0.3 - 1.1731 * 0.09), (1.0, 1.05538)]
)
def test_pcm_is_programmed_with_the_published_noise(key, u, microsiemens):
    cells = Conductance.pcm()
    reached = np.asarray(cells.programmed(key, aimed_at(u, cells))) * 1e6
    assert mean_is(reached, 25 * u, microsiemens)
    assert deviation_is(reached, microsiemens)


def test_pcm_that_is_off_keeps_no_negative_conductance(key):
    cells = Conductance.pcm()
    reached = np.asarray(cells.programmed(key, aimed_at(0, cells))) * 1e6
    clamped = np.maximum(0, 0.26348 * np.random.default_rng(0).standard_normal(10**6))
    assert reached.min() == 0
    assert mean_is(reached, clamped.mean(), clamped.std())
    assert abs(reached.std() - clamped.std()) < 0.02 * clamped.std()


@pytest.mark.parametrize("u", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("seconds", [3600.0, 1e7])
def test_pcm_drifts_by_the_published_exponents(key, u, seconds):
    cells = Conductance.pcm()
    target = aimed_at(u, cells)
    left = cells.drifted(key, target, target, seconds)
    exponents = -np.log(np.asarray(left / target)) / np.log(seconds / 20)
    mean = np.clip(-0.0155 * np.log(u) + 0.0244, 0.049, 0.1)
    deviation = np.clip(-0.0125 * np.log(u) - 0.0059, 0.008, 0.045)
    folded = scipy.stats.foldnorm(mean / deviation, scale=deviation)
    assert mean_is(exponents, folded.mean(), folded.std())
    assert abs(exponents.std() - folded.std()) < 0.03 * folded.std()


def test_nothing_drifts_before_the_start_or_without_a_law(key):
    target = aimed_at(0.5, Conductance.pcm())
    for seconds, cells in ((20.0, Conductance.pcm()), (1e6, Conductance.hfo2())):
        left = cells.drifted(key, target, target, seconds)
        np.testing.assert_array_equal(left, target)


@pytest.mark.parametrize(("u", "relative"), [(1.0, 0.0088), (0.2, 0.0088 / 0.2**0.65)])
def test_pcm_is_read_with_the_published_noise(u, relative):
    seconds = 86_400.0
    time = np.sqrt(np.log((seconds + 250e-9) / 500e-9))
    cells = Conductance.pcm()
    found = cells.read_deviation(jnp.float32(u * 25e-6), seconds)
    np.testing.assert_allclose(found, relative * time, rtol=1e-5)
    most = cells.read_deviation(jnp.float32(0), seconds)
    np.testing.assert_allclose(most, 0.2 * time, rtol=1e-5)


@pytest.mark.parametrize(("level", "spread"), [(0, 0.73), (1, 0.15)])
def test_hfo2_spreads_as_published(key, level, spread):
    cells = Conductance.hfo2()
    target = cells.aimed_at(jnp.full(CELLS, level, jnp.float32))
    logarithms = np.log(np.asarray(cells.programmed(key, target)) * 1e6)
    assert mean_is(logarithms, np.log((11, 200)[level]), spread)
    assert deviation_is(logarithms, spread)


def test_levels_are_evenly_spaced_and_ideal_cells_reach_them(key):
    cells = Conductance(on=4e-5, off=1e-5)
    target = cells.aimed_at(jnp.arange(4) / 3)
    np.testing.assert_allclose(target, [1e-5, 2e-5, 3e-5, 4e-5], rtol=1e-6)
    reached = cells.programmed(key, target)
    np.testing.assert_array_equal(reached, target)
    assert not np.any(cells.read_deviation(target, 1e6))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on": 1e-6, "off": 2e-6}, "`on` is 1e-06 and `off` 2e-06 siemens; give 0 <= off < on"),
        ({"spread_off": -1.0}, "`spread_off` is -1.0; a deviation is at least 0"),
        ({"read_time": 0.0}, "`read_time` is 0.0; give seconds above 0"),
    ],
)
def test_wrong_cells_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Conductance(), **values)
