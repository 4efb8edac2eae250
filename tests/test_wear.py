"""Wear in cycles: against counting SETs and RESETs of single cells one write after another."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memsim


def cycles_of(levels):
    """Of one cell that takes these levels in turn: max(SETs, RESETs), by counting."""
    sets = sum(after > before for before, after in itertools.pairwise(levels))
    resets = sum(after < before for before, after in itertools.pairwise(levels))
    return sets, resets, max(sets, resets)


@pytest.mark.slow
@pytest.mark.parametrize("law", [memsim.service.Lognormal, memsim.service.Weibull])
@pytest.mark.parametrize("endurance", [1, 7, 1000])
def test_a_cell_of_c_cycles_survives_2_c_writes(law, endurance, config, key):
    """Written by SET and RESET in turn, once in each programming."""
    alike = {"sigma_ln": 1e-6} if law is memsim.service.Lognormal else {"shape": 1e6}
    wear = memsim.service.wear_cycles(np.ones((2, 4, 8), np.uint32), config)
    histogram = memsim.service.wear_histogram(wear)
    written = memsim.service.programmings_until_failure(
        key, histogram, law(median=endurance, **alike)
    )
    np.testing.assert_allclose(written, 2 * endurance, rtol=1e-4)
    spare = memsim.service.programmings_with_spares(
        key, jnp.asarray(wear), law(median=endurance, **alike), 1
    )
    np.testing.assert_allclose(spare, 2 * endurance, rtol=1e-4)  # all rows fail at once
    # the same cell by cell: stuck after the last cycle, and not before
    plan = memsim.plan(
        {"w": {"kernel": np.ones((4, 2), np.float32)}}, config, memsim.policies.Sws()
    )
    chip = memsim.sample_chip(key, plan)
    of_cells = np.full(chip_shape := (plan.crossbars, 4, 8), endurance, np.float32)
    lives = memsim.service.CellLives(jnp.asarray(of_cells), jnp.zeros(chip_shape, bool))
    for writes, fails in ((2 * endurance - 1, False), (2 * endurance, True)):
        taken = memsim.service.wear_cycles(jnp.full(chip_shape, writes, jnp.uint32), config)
        low, high = memsim.chip.fault_cells(
            memsim.service.wear_out(chip, lives, taken, config), config
        )
        assert np.all(low == fails)
        assert not high.any()


@hypothesis.given(st.lists(st.integers(0, 1), min_size=1, max_size=60))
def test_one_bit_cells_wear_by_half_their_writes(levels):
    sets, resets, cycles = cycles_of([0, *levels])
    config = memsim.CrossbarConfig(bits=2)
    found = memsim.service.wear_cycles(np.full((1, 1, 2), sets + resets), config)
    # an open cycle at the end is half a cycle at most
    assert 0 <= cycles - found[0, 0, 0] <= 0.5
    assert cycles == found[0, 0, 0] or levels[-1] == 1


@hypothesis.given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(2, 5))
def test_wider_cells_wear_by_sets_or_resets_and_never_more_than_the_bound(levels, rounds):
    config = memsim.CrossbarConfig(bits=4, cell_bits=2)
    path = [levels[-1], *levels * rounds]  # a steady pass ends as it began
    sets, resets, cycles = cycles_of(path)
    writes = np.full((1, 1, 2), sets + resets)
    counted = memsim.service.wear_cycles(writes, config, np.full((1, 1, 2), sets))
    np.testing.assert_array_equal(counted, cycles)
    bound = memsim.service.wear_cycles(writes, config)
    assert np.all((counted <= bound) & (bound <= 1.5 * counted))


def test_the_bound_is_reached():
    """A cell that rises level by level and falls at once."""
    for cell_bits in (2, 4):
        config = memsim.CrossbarConfig(bits=8, cell_bits=cell_bits)
        sets, resets, cycles = cycles_of([*range(2**cell_bits), 0])
        (share,) = set(memsim.service.cycles_per_write(config).tolist())
        assert share * (sets + resets) == cycles


def test_columns_of_other_widths_wear_by_their_own_levels():
    config = memsim.CrossbarConfig(bits=7, cell_bits=2)
    assert memsim.service.cycles_per_write(config).tolist() == [0.75, 0.75, 0.75, 0.5]
    side_by_side = np.ones((1, 1, 8), np.uint8)
    found = memsim.service.wear_cycles(side_by_side, config)
    assert found.tolist() == [[[0.75, 0.75, 0.75, 0.5] * 2]]
    assert found.dtype == np.float32
    chips = jnp.ones((3, 1, 2, 4), jnp.uint32)
    both = jax.jit(lambda writes: memsim.service.wear_cycles(writes, config))(chips)
    np.testing.assert_array_equal(both, memsim.service.wear_cycles(np.asarray(chips), config))
