import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.stats

import memsim
from memsim.chip import new_chip

# 2 ** 19 weights and no short section: 4096 crossbars if stationary, else 2048 steps on 2
WIDE = {"kernel": np.ones((128, 4096), np.float32)}
STATIONARY = memsim.CrossbarConfig(crossbars=None)
SHARED = memsim.CrossbarConfig(crossbars=2)


@pytest.fixture(scope="module")
def stationary():
    return memsim.plan(WIDE, STATIONARY, memsim.policies.Unsorted(low=3, p=0.5))


@pytest.fixture(scope="module")
def shared():
    return memsim.plan(WIDE, SHARED, memsim.policies.Unsorted(low=3, p=0.5))


def drawn_cells(plan, chip, policy):
    """Which cells are reprogrammed: [sections, rows, columns]."""
    words = memsim.enable_words(memsim.with_stucking(plan, policy), chip)["kernel"]
    return np.asarray(memsim.codes.bit_slice(words, plan.config)) > 0


def agrees(count, total, p):
    """Whether a count is what independent draws give; a true one fails once in 10,000 times."""
    return scipy.stats.binomtest(int(count), total, p).pvalue > 1e-4


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
@pytest.mark.parametrize("p", [0.0, 0.01, 0.25, 0.3, 0.5, 0.9, 1.0])
def test_low_cells_are_reprogrammed_with_probability_p(stationary, key, p, draws):
    chip = memsim.sample_chip(key, stationary)
    cells = drawn_cells(stationary, chip, memsim.policies.Unsorted(low=3, p=p, draws=draws))
    assert cells[..., 3:].all()
    if p in (0, 1):
        assert (cells[..., :3] == p).all()
    for column in range(3):
        assert agrees(cells[..., column].sum(), cells[..., column].size, p)


@pytest.mark.parametrize(("p", "low"), [(0.3, 8), (0.5, 8), (0.3, 3), (0.7, 2), (0.4, 1)])
def test_draws_of_different_cells_are_independent(stationary, key, p, low):
    chip = memsim.sample_chip(key, stationary)
    cells = drawn_cells(stationary, chip, memsim.policies.Unsorted(low=low, p=p))[..., :low]
    for column in range(low):
        assert agrees(cells[..., column].sum(), cells[..., column].size, p)
    for a, b in itertools.combinations(range(low), 2):
        assert agrees((cells[..., a] & cells[..., b]).sum(), cells[..., a].size, p * p)
    for apart in (1, 2, 3, 4, 64):  # rows share random words
        both = cells[:, apart:] & cells[:, :-apart]
        assert agrees(both.sum(), both.size, p * p)
    neighbours = cells[1::2] & cells[::2]
    assert agrees(neighbours.sum(), neighbours.size, p * p)
    per_section = cells.sum((1, 2))
    spread = per_section.var() / (cells[0].size * p * (1 - p))
    assert abs(spread - 1) < 5 * np.sqrt(2 / len(cells))


def test_a_wide_cell_is_drawn_as_a_whole(key):
    config = memsim.CrossbarConfig(
        rows=64, bits=8, cell_bits=4, encoding="differential", crossbars=None
    )
    params = {"kernel": np.ones((64, 512), np.float32)}
    plan = memsim.plan(params, config, memsim.policies.Unsorted(low=2, p=0.3))
    words = memsim.enable_words(plan, memsim.sample_chip(key, plan))["kernel"]
    levels = np.asarray(memsim.codes.bit_slice(words, config))
    assert ((levels == 0) | (levels == oracles.top_levels(config))).all()
    for column in range(config.cells_per_word):
        assert agrees((levels[..., column] > 0).sum(), levels[..., column].size, 0.3)


def test_low_cells_rise_as_often_as_they_are_drawn(key):
    weights = np.full((128, 2048), -1, np.float32)  # code -1: all cells of the word are to rise
    weights[0] = 127
    config = memsim.CrossbarConfig(crossbars=None)
    plan = memsim.plan({"kernel": weights}, config, memsim.policies.Unsorted(low=3, p=0.3))
    _, programming = memsim.program({"kernel": weights}, plan, memsim.sample_chip(key, plan))
    sets = np.asarray(programming.counts.sets[0, 0])
    assert all(agrees(count, weights.size, 0.3) for count in sets[:3])
    np.testing.assert_array_equal(sets[3:], [weights.size] * 4 + [weights.size - 2048])


def test_fresh_draws_differ_by_pass_and_section_and_repeat_by_chip(shared, key):
    chip, other = memsim.sample_chip(key, shared), memsim.sample_chip(jax.random.key(1), shared)
    policy = memsim.policies.Unsorted(low=3, p=0.5)
    cells = drawn_cells(shared, chip, policy)
    np.testing.assert_array_equal(cells, drawn_cells(shared, chip, policy))
    for different in (
        drawn_cells(shared, chip._replace(passes=chip.passes + 1), policy),
        drawn_cells(shared, other, policy),
        np.roll(cells, 1, axis=0),
        np.roll(cells, 2048, axis=0),
    ):
        same = (cells == different)[..., :3]
        assert agrees(same.sum(), same.size, 0.5)


def test_fresh_draws_differ_by_layer(key):
    params = {name: np.ones((128, 64), np.float32) for name in ("a.kernel", "b.kernel")}
    plan = memsim.plan(params, SHARED, memsim.policies.Unsorted(low=3, p=0.5))
    a, b = memsim.enable_words(plan, memsim.sample_chip(key, plan)).values()
    same = np.asarray(memsim.codes.bit_slice(a, SHARED) == memsim.codes.bit_slice(b, SHARED))[
        ..., :3
    ]
    assert agrees(same.sum(), same.size, 0.5)


def test_fixed_draws_belong_to_the_physical_cell(shared, key):
    chip, other = memsim.sample_chip(key, shared), memsim.sample_chip(jax.random.key(1), shared)
    policy = memsim.policies.Unsorted(low=3, p=0.5, draws="fixed")
    cells = drawn_cells(shared, chip, policy)
    for crossbar in (cells[:2048], cells[2048:]):
        np.testing.assert_array_equal(crossbar, np.broadcast_to(crossbar[0], crossbar.shape))
    assert (cells[0] != cells[-1]).any()
    later = chip._replace(passes=chip.passes + 1)
    np.testing.assert_array_equal(cells, drawn_cells(shared, later, policy))
    assert (cells[0] != drawn_cells(shared, other, policy)[0]).any()


def test_fixed_draws_are_the_same_in_every_layer_on_a_crossbar(key):
    params = {name: np.ones((128, 2), np.float32) for name in ("a.kernel", "b.kernel")}
    plan = memsim.plan(params, SHARED, memsim.policies.Unsorted(low=3, p=0.5, draws="fixed"))
    a, b = memsim.enable_words(plan, memsim.sample_chip(key, plan)).values()
    np.testing.assert_array_equal(a, b)


def test_low_columns_that_are_never_reprogrammed_stay_erased(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Sws(low=3, p=0.0))
    _, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), passes=2)
    np.testing.assert_array_equal(programming.chip.state & 0b111, 0)
    assert programming.counts.sets[..., :3].sum() == 0


@pytest.mark.parametrize(
    ("rate", "share"), [*itertools.product([0.001, 0.01, 0.1], [0.0, 0.25, 1.0]), (0.9, 0.5)]
)
def test_cells_are_stuck_at_the_rates_given(stationary, key, rate, share):
    low_rate, high_rate = rate * (1 - share), rate * share
    drawn = [
        memsim.chip.fault_cells(memsim.sample_chip(k, stationary, low_rate, high_rate), STATIONARY)
        for k in jax.random.split(key, 3)  # 12.6 million cells
    ]
    low, high = (np.stack(cells) for cells in zip(*drawn, strict=True))
    assert not (low & high).any()
    for cells, expected in ((low, low_rate), (high, high_rate), (low | high, rate)):
        if expected == 0:
            assert not cells.any()
            continue
        assert agrees(cells.sum(), cells.size, expected)
        by_group = cells.reshape(3, 64, -1, *cells.shape[2:]).sum((0, 2, 3, 4))
        for counts in (by_group, cells.sum((0, 1, 3)), cells.sum((0, 1, 2))):
            # counts spread as binomials, less than Poisson ones
            distance = ((counts - counts.mean()) ** 2).sum() / (counts.mean() * (1 - expected))
            assert 1e-4 < scipy.stats.chi2.sf(distance, len(counts) - 1) < 1 - 1e-4
        for apart in (1, 8):  # cells in the order they are drawn in
            line = cells.reshape(3, -1)
            both = line[:, apart:] & line[:, :-apart]
            assert agrees(both.sum(), both.size, expected**2)


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_whole_cells_between_stuck_ones_are_geometric(stationary, key, rate):
    low, high = memsim.chip.fault_cells(memsim.sample_chip(key, stationary, 0, rate), STATIONARY)
    gaps = np.diff(np.flatnonzero(low | high)) - 1
    longest = int(np.log(100 / gaps.size) / np.log1p(-rate))  # so that each is expected often
    counts = np.bincount(np.minimum(gaps, longest), minlength=longest + 1)
    expected = rate * (1 - rate) ** np.arange(longest + 1)
    expected[-1] = (1 - rate) ** longest
    assert scipy.stats.chisquare(counts, gaps.size * expected).pvalue > 1e-4


@pytest.mark.parametrize(
    ("low_rate", "high_rate"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.3, 0.7)]
)
def test_certain_faults_are_certain(stationary, key, low_rate, high_rate):
    chip = memsim.sample_chip(key, stationary, low_rate, high_rate)
    low, high = memsim.chip.fault_cells(chip, STATIONARY)
    assert ((low | high) == low_rate + high_rate).all()
    if low_rate in (0, 1):
        assert (low == low_rate).all()
        assert (high == high_rate).all()


@pytest.mark.slow
@pytest.mark.parametrize("crossbars", [1, 3, 63, 64, 65, 200])
def test_a_crossbar_has_its_faults_however_many_there_are(stationary, key, crossbars):
    config = memsim.CrossbarConfig(crossbars=crossbars)
    few = memsim.sample_chip(key, memsim.plan(WIDE, config, memsim.policies.Unsorted()), 0.02, 0.03)
    many = memsim.sample_chip(key, stationary, 0.02, 0.03)
    np.testing.assert_array_equal(few.stuck_at_0, many.stuck_at_0[:crossbars])
    np.testing.assert_array_equal(few.stuck_at_1, many.stuck_at_1[:crossbars])


@pytest.mark.slow
def test_many_chips_at_many_rates_are_a_loop_over_them(key):
    plan = memsim.plan(WIDE, memsim.CrossbarConfig(crossbars=200), memsim.policies.Unsorted())
    keys = jax.random.split(key, 6)
    rates = jnp.array([0, 1e-4, 0.003, 0.07, 0.4, 0.5], jnp.float32)
    draw = jax.jit(lambda key, rate: memsim.sample_chip(key, plan, rate, rate))
    chips = jax.vmap(draw)(keys, rates)
    for i, (one, rate) in enumerate(zip(keys, rates, strict=True)):
        alone = draw(one, rate)
        np.testing.assert_array_equal(chips.stuck_at_0[i], alone.stuck_at_0)
        np.testing.assert_array_equal(chips.stuck_at_1[i], alone.stuck_at_1)
    assert draw._cache_size() == 1
    with jax.disable_jit():
        plain = memsim.sample_chip(keys[2], plan, rates[2], rates[2])
    np.testing.assert_array_equal(plain.stuck_at_0, chips.stuck_at_0[2])
    np.testing.assert_array_equal(plain.stuck_at_1, chips.stuck_at_1[2])


def test_a_wide_cell_is_stuck_as_a_whole(key):
    config = memsim.CrossbarConfig(bits=7, cell_bits=4, encoding="differential", crossbars=100)
    plan = memsim.plan(WIDE, config, memsim.policies.Unsorted())
    chip = memsim.sample_chip(key, plan, 0.1, 0.2)
    for words, rate in ((chip.stuck_at_0, 0.1), (chip.stuck_at_1, 0.2)):
        levels = np.asarray(memsim.codes.bit_slice(words, config))
        assert ((levels == 0) | (levels == oracles.top_levels(config))).all()
        assert agrees((levels > 0).sum(), levels.size, rate)


def test_chips_of_more_cells_than_a_32_bit_number_are_possible(key):
    # 2 ** 33 cells: too many to draw here, but all numbers that depend on them are fixed by shape
    rate = jnp.float32(0.01)
    chip = jax.eval_shape(lambda key: new_chip(key, 2**23, STATIONARY, rate, rate), key)
    assert chip.stuck_at_0.shape == (2**23, 128)


@pytest.mark.parametrize("in_lines", [0.0, 0.6, 1.0])
def test_clustered_faults_have_the_rates_asked_for_and_lie_in_lines(key, in_lines):
    config = memsim.CrossbarConfig(rows=128, crossbars=2000)
    words = memsim.chip.clustered_faults(key, 2000, config, 0.02, 0.04, in_lines)
    low, high = memsim.chip.fault_cells(memsim.with_faults(key, *words), config)
    assert not (low & high).any()
    lines = 2000 * config.cells_per_word
    for cells, rate in ((low, 0.02), (high, 0.04)):
        whole = cells.all(axis=1)
        assert agrees(whole.sum(), lines, rate * in_lines)
        others = ~(low | high).all(axis=1)[:, None] & np.ones_like(cells)
        alone = rate * (1 - in_lines) / (1 - 0.06 * in_lines)
        assert agrees(cells[others].sum(), others.sum(), alone)


def test_many_chips_of_clustered_faults_are_a_loop_over_them(key):
    config = memsim.CrossbarConfig(rows=8, bits=7, cell_bits=2, encoding="differential")

    def draw(key):
        return memsim.chip.clustered_faults(key, 3, config, 0.1, 0.1, 0.5)

    keys = jax.random.split(key, 4)
    together = jax.jit(jax.vmap(draw))(keys)
    for i, one in enumerate(keys):
        for some, alone in zip(together, draw(one), strict=True):
            np.testing.assert_array_equal(some[i], alone)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.1, 0.1, 1.5), "`in_lines` is 1.5; a share lies in 0..1"),
        ((0.7, 0.7, 0.5), "a cell is stuck one way or the other"),
    ],
)
def test_wrong_clusters_are_refused(key, config, rates, message):
    with pytest.raises(ValueError, match=message):
        memsim.chip.clustered_faults(key, 1, config, *rates)


def test_a_new_chip_is_erased_but_for_its_stuck_cells(stationary, key):
    chip = memsim.sample_chip(key, stationary, 0.1, 0.1)
    np.testing.assert_array_equal(chip.state, chip.stuck_at_1)
    assert chip.state.shape == (4096, 128)
    assert chip.passes == 0
    assert not memsim.sample_chip(key, stationary).state.any()


def test_chips_are_their_keys(stationary, key):
    chip, again, other = (
        memsim.sample_chip(k, stationary, 0.1, 0.1) for k in (key, key, jax.random.key(1))
    )
    np.testing.assert_array_equal(chip.stuck_at_0, again.stuck_at_0)
    low, other_low = (memsim.chip.fault_cells(c, STATIONARY)[0] for c in (chip, other))
    assert agrees((low & other_low).sum(), low.size, 0.01)


@pytest.mark.parametrize(("encoding", "cell_bits"), [("twos_complement", 1), ("differential", 2)])
def test_stuck_cells_hold_their_level_whatever_is_programmed(encoding, cell_bits, key):
    config = memsim.CrossbarConfig(
        rows=8, bits=7, cell_bits=cell_bits, encoding=encoding, crossbars=3
    )
    weights = np.random.default_rng(0).standard_normal((30, 9)).astype(np.float32)
    plan = memsim.plan({"kernel": weights}, config, memsim.policies.Sws(low=2, p=0.5))
    chip = memsim.sample_chip(key, plan, 0.2, 0.2)
    low, high = memsim.chip.fault_cells(chip, config)
    assert low.any()
    assert high.any()
    _, programming = memsim.program({"kernel": weights}, plan, chip, passes=2, wear=True)
    levels = np.asarray(memsim.codes.bit_slice(programming.chip.state, config))
    full = np.broadcast_to(oracles.top_levels(config), levels.shape)
    np.testing.assert_array_equal(levels[low], 0)
    np.testing.assert_array_equal(levels[high], full[high])
    assert programming.wear[low | high].sum() == 0
    assert (programming.wear[~(low | high)] > 0).any()


@pytest.mark.parametrize("encoding", ["twos_complement", "differential"])
@pytest.mark.parametrize("cell_bits", [1, 2, 4])
def test_fault_maps_go_to_words_and_back(encoding, cell_bits, key):
    config = memsim.CrossbarConfig(rows=5, bits=7, cell_bits=cell_bits, encoding=encoding)
    drawn = np.random.default_rng(0).random((3, 5, config.cells_per_word))
    maps = drawn < 0.2, drawn > 0.7
    words = [memsim.chip.fault_words(cells, 3, config) for cells in maps]
    chip = memsim.with_faults(key, *words)
    for cells, back in zip(maps, memsim.chip.fault_cells(chip, config), strict=True):
        assert back.dtype == bool
        np.testing.assert_array_equal(back, cells)
    np.testing.assert_array_equal(chip.state, words[1])


def test_rates_may_be_traced(stationary, key):
    chip = memsim.sample_chip(key, stationary, 0.1, 0.2)
    traced = jax.jit(memsim.sample_chip)(key, stationary, jnp.float32(0.1), jnp.float32(0.2))
    np.testing.assert_array_equal(chip.stuck_at_0, traced.stuck_at_0)
    np.testing.assert_array_equal(chip.stuck_at_1, traced.stuck_at_1)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-0.1, 0.0, "`stuck_at_0` is -0.1; a probability lies in 0..1"),
        (0.0, 1.1, "`stuck_at_1` is 1.1; a probability lies in 0..1"),
        (float("nan"), 0.0, "`stuck_at_0` is nan"),
        (0.75, 0.5, "`stuck_at_0` . `stuck_at_1` is 1.25; a cell is stuck one way or the other"),
    ],
)
def test_wrong_rates_are_refused(params, config, key, low, high, message):
    plan = memsim.plan(params, config, memsim.policies.Sws())
    with pytest.raises(ValueError, match=message):
        memsim.sample_chip(key, plan, low, high)


def test_a_fault_map_of_another_chip_is_refused(config):
    message = r"`faults` has shape \(1, 4, 8\), but this chip is \(2, 4, 8\)"
    with pytest.raises(ValueError, match=message):
        memsim.chip.fault_words(np.zeros((1, 4, 8), bool), 2, config)


def test_fixed_cells_are_the_same_under_any_number_of_low_columns(key):
    params = {f"{i}/kernel": jax.random.normal(key, (64, 3)) for i in range(2)}
    policies = {
        f"{i}/kernel": memsim.Policy.parse(f"sws+stuck:p=0.3,low={low},draws=fixed")
        for i, low in enumerate((2, 5))
    }
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=64), policies)
    few, many = memsim.enable_words(plan, memsim.sample_chip(key, plan)).values()
    for section in (*few, *many):
        np.testing.assert_array_equal(section & 3, few[0] & 3)
    assert 20 < np.sum((few[0] & 1) == 0) < 64
    assert np.any((many[0] & 16) == 0)
    assert not np.any((few[0] & 16) == 0)
