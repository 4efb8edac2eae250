"""Assignments of rows to columns, against those of another solver and against all there are."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import scipy.optimize

from memsim.policies._matching.assignment import assign_rows


@hypothesis.given(
    seed=st.integers(0, 9999),
    rows=st.integers(1, 40),
    more=st.integers(0, 60),
    most=st.sampled_from([0, 1, 3, 30, 10**6]),
)
@hypothesis.settings(max_examples=200)
def test_rows_take_columns_at_the_least_cost(seed, rows, more, most):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, most + 1, (rows, rows + more)).astype(np.int32)
    column = np.empty(rows, np.int32)
    dual = assign_rows(costs, column)
    assert len(set(column.tolist())) == rows
    assert 0 <= column.min() <= column.max() < rows + more
    best = scipy.optimize.linear_sum_assignment(costs)
    assert costs[np.arange(rows), column].sum() == costs[best].sum()
    # a bound that is reached: no columns cost less
    assert np.all(dual <= 0)
    assert (costs - dual).min(axis=1).sum() + dual.sum() == costs[best].sum()


def test_no_other_columns_cost_less():
    rng = np.random.default_rng(0)
    for columns in (4, 6):
        costs = rng.integers(0, 5, (4, columns)).astype(np.int32)
        column = np.empty(4, np.int32)
        assign_rows(costs, column)
        every = itertools.permutations(range(columns), 4)
        assert costs[np.arange(4), column].sum() == min(
            sum(costs[i, j] for i, j in enumerate(order)) for order in every
        )
