import functools
import math

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import memsim

LOGNORMAL, WEIBULL = memsim.service.Lognormal(), memsim.service.Weibull()
LAWS = [LOGNORMAL, memsim.service.Weibull(median=1e8, shape=0.8)]


def law_of(endurance):
    """SciPy's."""
    if isinstance(endurance, memsim.service.Lognormal):
        return scipy.stats.lognorm(endurance.sigma_ln, scale=endurance.median)
    scale = endurance.median / math.log(2) ** (1 / endurance.shape)
    return scipy.stats.weibull_min(endurance.shape, scale=scale)


def failures_in_loops(rng, wear, endurance, chips):
    """Programmings until each cell fails, sorted: every cell of every chip drawn."""
    law, found = law_of(endurance), []
    for _ in range(chips):
        survives = law.rvs(wear.size, random_state=rng)
        of_chip = [
            writes / worn if worn else math.inf
            for writes, worn in zip(survives, wear.reshape(-1), strict=True)
        ]
        found.append(sorted(of_chip))
    return np.array(found)


def with_spares_in_loops(rng, wear, endurance, spares, chips):
    """Programmings until one crossbar lacks a spare row: rows replaced one after another."""
    survives = law_of(endurance).rvs((chips, spares + 1, *wear.shape), random_state=rng)
    with np.errstate(divide="ignore"):
        lives = (survives / wear).min(axis=-1)  # of every row, and of those that may follow it
    ends = []
    for of_chip in lives:
        end = math.inf
        for crossbar in range(wear.shape[0]):
            fails, used = list(of_chip[0, crossbar]), [0] * wear.shape[1]
            for _ in range(spares):
                row = int(np.argmin(fails))
                used[row] += 1
                fails[row] += of_chip[used[row], crossbar, row]
            end = min(end, *fails)
        ends.append(end)
    return ends


@pytest.fixture
def wear():
    rng = np.random.default_rng(3)
    return rng.integers(0, 6, (2, 5, 4)).astype(np.uint8)


def many(function, chips=1500):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(5), chips)))


@pytest.mark.parametrize("endurance", LAWS)
def test_cells_survive_as_their_law_says(endurance):
    lives = memsim.service.sample_lives(jax.random.key(0), (1, 100, 100), endurance, share_at_1=0.3)
    drawn = np.asarray(lives.endurance).reshape(-1)
    assert scipy.stats.kstest(drawn, law_of(endurance).cdf).pvalue > 0.01
    assert abs(lives.fails_at_1.mean() - 0.3) < 0.02


@pytest.mark.slow
def test_draws_are_the_same_in_double_precision(wear):
    key, histogram = jax.random.key(2), memsim.service.wear_histogram(wear)

    def draw():
        return (
            memsim.service.programmings_until_failure(key, histogram, LOGNORMAL),
            memsim.service.sample_lives(key, wear.shape, WEIBULL).endurance,
        )

    single = draw()
    with jax.enable_x64(True):
        double = draw()
    for one, other in zip(single, double, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("endurance", LAWS)
def test_both_tails_are_precise(endurance):
    hazard = np.array([1e-30, 1e-20, 1e-12, 1e-6, 1e-3, 0.1, 0.69, 0.7, 1, 5, 16])
    # SciPy's own 1 - exp(-h) rounds; its inverse survival function takes exp(-h)
    small = hazard < 1e-3
    law = law_of(endurance)
    expected = np.where(small, law.ppf(-np.expm1(-hazard)), law.isf(np.exp(-hazard)))
    found = endurance.cycles_at_hazard(jnp.asarray(hazard, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize("failures", [1, 7])
@pytest.mark.parametrize("endurance", LAWS)
def test_failures_of_groups_are_those_of_their_cells(endurance, failures, wear):
    histogram = memsim.service.wear_histogram(wear)
    found = many(
        lambda key: memsim.service.programmings_until_failure(key, histogram, endurance, failures)
    )
    loops = failures_in_loops(np.random.default_rng(failures), wear, endurance, 1000)
    assert scipy.stats.ks_2samp(found, loops[:, failures - 1]).pvalue > 0.01


def test_a_million_cells_fail_first_as_the_closed_form_says():
    cells = {1: 300_000, 3: 500_000, 40: 200_000}
    histogram = memsim.service.WearHistogram(
        np.float32(list(cells)), np.float32(list(cells.values()))
    )
    found = many(lambda key: memsim.service.programmings_until_failure(key, histogram, WEIBULL))
    # the first of Weibull's cells is Weibull's: hazards add up
    total = sum(count * writes**WEIBULL.shape for writes, count in cells.items())
    scale = WEIBULL.median / math.log(2) ** (1 / WEIBULL.shape) * total ** (-1 / WEIBULL.shape)
    assert (
        scipy.stats.kstest(found, scipy.stats.weibull_min(WEIBULL.shape, scale=scale).cdf).pvalue
        > 0.01
    )
    found = many(lambda key: memsim.service.programmings_until_failure(key, histogram, LOGNORMAL))
    law = law_of(LOGNORMAL)

    def failed(t):
        alive = sum(count * law.logsf(t * writes) for writes, count in cells.items())
        return -np.expm1(alive)

    assert scipy.stats.kstest(found, failed).pvalue > 0.01


def test_cells_never_written_never_fail(key):
    histogram = memsim.service.wear_histogram(np.array([[[0, 0, 3]]], np.uint8))
    first = memsim.service.programmings_until_failure(key, histogram, LOGNORMAL)
    assert 0 < first < math.inf
    assert memsim.service.programmings_until_failure(key, histogram, LOGNORMAL, 2) == math.inf
    nothing = memsim.service.wear_histogram(np.zeros((1, 2, 3), np.uint8))
    assert memsim.service.programmings_until_failure(key, nothing, WEIBULL) == math.inf


@pytest.mark.parametrize("spares", [0, 3])
def test_spare_rows_take_over_one_after_another(spares, wear):
    found = many(
        lambda key: memsim.service.programmings_with_spares(
            key, jnp.asarray(wear, jnp.float32), LOGNORMAL, spares
        )
    )
    loops = with_spares_in_loops(np.random.default_rng(spares), wear, LOGNORMAL, spares, 1000)
    assert scipy.stats.ks_2samp(found, loops).pvalue > 0.01


def test_wear_is_that_of_the_second_pass(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Sws())
    chip = memsim.sample_chip(key, plan)
    _, both = memsim.program(params, plan, chip, passes=2, wear=True)
    _, first = memsim.program(params, plan, chip, wear=True)
    expected = np.asarray(both.wear, int) - np.asarray(first.wear, int)
    assert np.all(expected % 2 == 0)  # every SET is followed by a RESET
    np.testing.assert_array_equal(memsim.service.steady_wear(params, plan, chip), expected / 2)
    np.testing.assert_array_equal(
        jax.jit(memsim.service.steady_wear)(params, plan, chip), expected / 2
    )


@pytest.mark.slow
def test_fresh_draws_are_averaged_over_passes(params, config, key):
    plan = memsim.plan(params, config, memsim.Policy.parse("sws+stuck:p=0.5,low=8"))
    chips = jax.vmap(lambda key: memsim.sample_chip(key, plan))(jax.random.split(key, 2))
    wear = jax.vmap(lambda chip: memsim.service.steady_wear(params, plan, chip, passes=3))(chips)
    for number in range(2):
        chip = jax.tree.map(lambda x, i=number: x[i], chips)
        passes = []
        for _ in range(4):
            _, programming = memsim.program(params, plan, chip, wear=True)
            passes.append(np.asarray(programming.wear, int))
            chip = programming.chip
        np.testing.assert_allclose(wear[number], np.mean(passes[1:], axis=0) / 2, rtol=1e-6)


def test_a_batch_multiplies_inferences_until_failure(wear):
    histogram = memsim.service.wear_histogram(wear)
    lives = many(
        lambda key: memsim.service.programmings_until_failure(key, histogram, LOGNORMAL), 50
    )
    lives = lives.astype(np.float64)
    one = memsim.service.lifetime_years(lives, 1e6)
    np.testing.assert_allclose(one, lives / 1e6 / 365.25, rtol=1e-12)
    for batch in (1, 7, 64):
        np.testing.assert_allclose(
            memsim.service.lifetime_years(lives, 1e6, batch), batch * one, rtol=1e-12
        )


@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.uint8, (3, 4, 2)),
    st.integers(0, 60),
    st.integers(1, 5),
    st.sampled_from([0, 1]),
)
def test_rotation_moves_wear_place_by_place(wear, programmings, period, axis):
    expected, here = np.zeros(wear.shape, int), wear.astype(int)
    for number in range(programmings):
        if number and number % period == 0:
            here = np.roll(here, 1, axis)
        expected += here
    np.testing.assert_array_equal(
        memsim.service.levelled_writes(wear, programmings, period, axis), expected
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_levelled_wear_approaches_the_mean(axis):
    wear = np.random.default_rng(0).integers(0, 50, (6, 5, 3)).astype(np.uint8)
    mean = memsim.service.levelled_wear(wear, (axis,))
    np.testing.assert_allclose(
        mean, np.broadcast_to(wear.mean(axis, keepdims=True), wear.shape), rtol=1e-6
    )
    places, period = wear.shape[axis], 10
    # after whole rounds exactly the mean; otherwise at most a round of it away
    whole = memsim.service.levelled_writes(wear, 7 * period * places, period, axis)
    np.testing.assert_array_equal(
        whole, 7 * period * np.broadcast_to(wear.sum(axis, keepdims=True, dtype=int), wear.shape)
    )
    distances = [
        np.abs(memsim.service.levelled_writes(wear, count, period, axis) / count - mean).max()
        for count in (15, 155, 1555, 15555)
    ]
    for count, distance in zip((15, 155, 1555, 15555), distances, strict=True):
        assert distance <= period * places * int(wear.max()) / count
    assert distances[-1] < 0.01 * distances[0]


def test_levelling_unequal_crossbars_gives_the_life_of_their_mean():
    wear = np.zeros((4, 3, 2), np.float32) + np.float32([1, 2, 3, 10])[:, None, None]
    level = memsim.service.levelled_wear(wear, (0,))
    np.testing.assert_array_equal(level, np.full(wear.shape, 4, np.float32))
    first = {
        name: many(
            functools.partial(
                memsim.service.programmings_until_failure,
                histogram=memsim.service.wear_histogram(of_cells),
                endurance=WEIBULL,
            )
        )
        for name, of_cells in {"as it is": wear, "levelled": level}.items()
    }
    # hazards add up: (mean of w^shape)^(1/shape) against the mean of w
    power = np.mean(wear**WEIBULL.shape) ** (1 / WEIBULL.shape)
    gain = np.median(first["levelled"]) / np.median(first["as it is"])
    np.testing.assert_allclose(gain, power / 4, rtol=0.05)
    both = memsim.service.levelled_wear(np.arange(24).reshape(4, 3, 2), (0, 1))
    np.testing.assert_array_equal(both, np.broadcast_to(np.float32([11, 12]), (4, 3, 2)))


def test_worn_cells_are_stuck_and_the_rest_wears_on_as_before(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Sws())
    chip = memsim.sample_chip(key, plan, 0.05, 0.05)
    wear = memsim.service.steady_wear(params, plan, chip)
    lives = memsim.service.sample_lives(key, wear.shape, memsim.service.Lognormal(median=50))
    cycles = 30 * wear
    worn = memsim.service.wear_out(chip, lives, cycles, config)
    low, high = memsim.chip.fault_cells(worn, config)
    before = memsim.chip.fault_cells(chip, config)
    assert 0 < (low | high).sum() - (before[0] | before[1]).sum() < low.size
    for crossbar, row, column in np.ndindex(*low.shape):
        place = crossbar, row, column
        was = before[0][place], before[1][place]
        failed = cycles[place] >= lives.endurance[place]
        at_1 = bool(lives.fails_at_1[place])
        expected = was if any(was) else (failed and not at_1, failed and at_1)
        assert (low[place], high[place]) == expected
    state = memsim.codes.bit_slice(worn.state, config)
    assert np.all(np.asarray(state)[high] == 1)
    assert not np.any(np.asarray(state)[low])
    # a stuck cell is written no more, and no other cell notices
    rest = memsim.service.steady_wear(params, plan, worn)
    np.testing.assert_array_equal(rest, np.where(low | high, 0, wear))
    jitted = jax.jit(memsim.service.wear_out, static_argnames="config")(chip, lives, cycles, config)
    np.testing.assert_array_equal(jitted.stuck_at_0, worn.stuck_at_0)
    taken = jnp.stack([cycles, 0 * wear])
    both = jax.vmap(lambda cycles: memsim.service.wear_out(chip, lives, cycles, config))(taken)
    np.testing.assert_array_equal(both.stuck_at_1[0], worn.stuck_at_1)
    np.testing.assert_array_equal(both.stuck_at_1[1], chip.stuck_at_1)


def test_jit_is_eager_and_vmap_a_loop(key, wear):
    histogram, cells = memsim.service.wear_histogram(wear), jnp.asarray(wear, jnp.float32)
    for one in (
        lambda key: memsim.service.programmings_until_failure(key, histogram, LOGNORMAL, 3),
        lambda key: memsim.service.programmings_with_spares(key, cells, WEIBULL, 2),
        lambda key: memsim.service.sample_lives(key, wear.shape, LOGNORMAL),
    ):
        keys = jax.random.split(key, 2)
        looped = [one(each) for each in keys]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *looped)
        found = jax.jit(jax.vmap(one))(keys)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, stacked)


def test_laws_are_static_and_name_their_placeholders():
    assert hash(memsim.service.Lognormal()) == hash(memsim.service.Lognormal())
    assert jax.tree.leaves(memsim.service.Weibull()) == []
    assert memsim.service.Lognormal.placeholders == ("sigma_ln",)
    assert memsim.service.Weibull.placeholders == ("shape",)
    # the two defaults spread alike
    assert abs(np.log(law_of(WEIBULL).rvs(10**5, random_state=0)).std() - 0.7) < 0.01


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_laws_take_positive_numbers(value):
    for law, name in ((memsim.service.Lognormal, "median"), (memsim.service.Lognormal, "sigma_ln"),
                      (memsim.service.Weibull, "shape")):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{name}` is {value}; give a positive number"):
            law(**{name: value})


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`period` is 0; rotate after at least 1"):
        memsim.service.levelled_writes(np.ones((1, 2, 3)), 5, 0, 1)
    with pytest.raises(ValueError, match="`inferences_per_day` is 0; give a positive number"):
        memsim.service.lifetime_years(np.ones(3), 0)
    with pytest.raises(ValueError, match="`batch` is 0; a programming serves at least 1"):
        memsim.service.lifetime_years(np.ones(3), 10, 0)
