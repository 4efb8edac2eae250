import dataclasses

import jax
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


WRONG = [True, "1e-4", float("nan"), float("inf"), -1.0, None, 1e-4j]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    "name", ["on", "off", "spread_on", "spread_off", "drift_start", "read_time"]
)
def test_what_is_no_number_is_refused_at_once(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is "):
        Conductance(**{name: value})


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), None])
@pytest.mark.parametrize(
    ("name", "count"),
    [("programming_noise", 3), ("read_noise", 3), ("drift_deviation", 4), ("drift_mean", 4)],
)
def test_tuples_are_checked_number_by_number(name, count, value):
    for wrong in ((0.0,) * (count - 1) + (value,), (0.0,) * (count - 1), [0.0] * count):
        with pytest.raises(ValueError, match=f"`{name}` is "):
            Conductance(**{name: wrong})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spread_on": 50.0}, "`spread_on` is 50.0; a deviation is at least 0, and of a logarithm"),
        ({"on": 1e-40}, "`on` is 1e-40; give 1e-20 to 1000 siemens"),
        ({"on": 1e30}, "`on` is 1e\\+30; give"),
        ({"off": 1e-5, "spread_off": 3.0}, "on average the lowest level then conducts 0.0009"),
        ({"programming_noise": (0.1, -1.0, 0.0)}, "give a deviation a \\+ b u \\+ c u\\^2"),
        ({"read_noise": (-0.1, 0.0, 0.1)}, "`read_noise` is .*; none is negative"),
        ({"drift_mean": (0.0, 0.0, 0.2, 0.1)}, "give lowest <= highest"),
        ({"drift_deviation": (0.0, 0.0, -0.2, 0.1)}, "give lowest <= highest and from 0"),
    ],
)
def test_what_would_fail_late_is_refused_early(values, message):
    with pytest.raises(ValueError, match=message):
        Conductance(**values)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("seconds", [0.0, 3600.0, 1e7])
@pytest.mark.parametrize(
    "cells",
    [
        Conductance.pcm(),
        Conductance.hfo2(),
        Conductance(off=1e-6, spread_off=0.5, programming_noise=(0.02, 0.0, 0.0)),
        Conductance(
            off=1e-6, drift_mean=(0.0, 0.02, 0.0, 0.1), drift_deviation=(0.0, 0.05, 0.0, 0.1)
        ),
    ],
    ids=["pcm", "hfo2", "both", "turned"],
)
def test_averages_are_those_of_samples(key, cells, share, seconds):
    target = cells.aimed_at(jnp.full(CELLS, share, jnp.float32))
    program_key, drift_key = jax.random.split(key)
    reached = cells.programmed(program_key, target)
    left = np.asarray(cells.drifted(drift_key, reached, target, seconds), np.float64)
    apart = abs(left.mean() - cells.average(share, seconds))
    assert apart < 5 * left.std() / np.sqrt(CELLS) + 1e-6 * left.max()


def test_ideal_averages_are_exact():
    cells = Conductance(on=4e-5, off=1e-5)
    assert (cells.average(0.0, 1e6), cells.average(1.0, 1e6)) == (1e-5, 4e-5)
