"""Exchanges of slots, against all exchanges there are, each with the rows of another solver."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize

from memsim.policies._matching import exchange, rows_and_slots
from memsim.policies._matching.assignment import FAR


def drawn(seed, slots, rows, inputs, most):
    """Words held [slots, rows], codes [slots, inputs] and prices of small random numbers."""
    rng = np.random.default_rng(seed)
    price = rng.integers(0, most + 1, (7, 5)).astype(np.int16 if most < 99 else np.int32)
    held = rng.integers(0, 7, (slots, rows)).astype(np.int32)
    return held, rng.integers(0, 5, (slots, inputs)).astype(np.uint16), price


def costs_of(held, codes, order, price):
    """What each input costs in each row, [rows, inputs]."""
    slots = range(len(held))
    return sum(price[held[slot]][:, codes[order[slot]]].astype(np.int64) for slot in slots)


def least_cost(held, codes, signs, order, price):
    costs = costs_of(held, codes, order, price)
    costs = costs.reshape(len(costs), signs, -1).min(axis=1)
    return costs[scipy.optimize.linear_sum_assignment(costs)].sum()


@hypothesis.given(
    seed=st.integers(0, 9999),
    slots=st.integers(2, 6),
    rows=st.integers(1, 12),
    more=st.integers(0, 12),
    most=st.sampled_from([1, 8, 1000]),
    signs=st.sampled_from([1, 2]),
)
@hypothesis.settings(max_examples=60)
def test_no_exchange_is_left_that_costs_less(seed, slots, rows, more, most, signs):
    inputs = rows + more
    held, codes, price = drawn(seed, slots, rows, signs * inputs, most)
    first = np.random.default_rng(seed).permutation(slots).astype(np.int32)
    listed = exchange.costs_in_slots(held, codes, price)
    cost, order, row = exchange.exchange_slots(held, codes, signs, first, price, listed)
    assert sorted(order) == list(range(slots))
    assert len(set(row % inputs)) == rows  # each input with one sign alone
    assert costs_of(held, codes, order, price)[np.arange(rows), row].sum() == cost
    assert cost == least_cost(held, codes, signs, order, price)
    assert cost <= least_cost(held, codes, signs, first, price)
    if slots <= 5:  # no more exchanges than are tried
        for a, b in itertools.combinations(range(slots), 2):
            other = order.copy()
            other[[a, b]] = order[[b, a]]
            assert cost <= least_cost(held, codes, signs, other, price)


def test_costs_are_listed_in_every_slot():
    held, codes, price = drawn(0, 3, 5, 8, 9)
    listed = exchange.costs_in_slots(held, codes, price)
    expected = price[held.T[:, :, None, None], codes[None, None]]
    np.testing.assert_array_equal(listed, expected)


@pytest.mark.parametrize(("most", "rows"), [(40, [0]), (200, [0, 2]), (300, [0, 1, 2, 3])])
def test_of_too_many_costs_those_of_some_rows_are_listed(monkeypatch, most, rows):
    held, codes, price = drawn(0, 3, 5, 8, 9)
    every = exchange.costs_in_slots.py_func(held, codes, price)
    monkeypatch.setattr(exchange, "_MOST", most)
    some = exchange.costs_in_slots.py_func(held, codes, price)
    np.testing.assert_array_equal(some, every[rows])


def test_sums_of_forced_errors_stay_within_what_an_assignment_takes():
    held, codes = np.zeros((2, 40), np.int32), np.zeros((3, 40), np.uint16)
    price = np.full((1, 1), FAR // 32, np.int32)
    costs = rows_and_slots._slot_costs(held, codes, price)
    np.testing.assert_array_equal(costs, np.full((2, 3), FAR - 1))
