import math

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import memsim

CODES = hnp.arrays(
    np.int8,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.integers(-3, 3),  # many ties
)


def placed(codes, placement, rows, words=1):
    if placement == "unsorted":
        return memsim.placement.unsorted_placement(*codes.shape, rows, words)
    scope = {"sws": "output", "sws-layer": "layer"}[placement]
    return memsim.placement.sorted_placement(codes, rows, scope, words)


@pytest.mark.parametrize("placement", ["unsorted", "sws", "sws-layer"])
@given(codes=CODES, rows=st.integers(1, 7), words=st.integers(1, 6))
def test_sections_equal_the_oracle(placement, codes, rows, words):
    words = 1 if placement == "sws-layer" else words
    result = placed(codes, placement, rows, words)
    expected = oracles.sections(codes, placement, rows, words)
    assert result.weights.shape == (len(expected), rows * words)
    for number, (section, line) in enumerate(zip(expected, result.weights, strict=True)):
        assert result.used_rows[number] == 1 + max(row for row, _ in section)
        assert result.used_words[number] == 1 + max(slot for _, slot in section)
        weights = np.full((rows, words), codes.size)
        for place, (output, i) in section.items():
            weights[place] = output * codes.shape[1] + i
        np.testing.assert_array_equal(line, weights.reshape(-1))
    memsim.placement.check_placement(result, codes.shape[::-1], rows, words)


@pytest.mark.parametrize("placement", ["unsorted", "sws", "sws-layer"])
@given(codes=CODES, rows=st.integers(1, 7), words=st.integers(1, 6))
def test_positions_are_the_inverse_permutation(placement, codes, rows, words):
    result = placed(codes, placement, rows, 1 if placement == "sws-layer" else words)
    np.testing.assert_array_equal(
        result.weights.reshape(-1)[result.positions], np.arange(codes.size)
    )
    assert sorted(result.weights[result.weights < codes.size]) == list(range(codes.size))


@pytest.mark.parametrize("placement", ["unsorted", "sws", "sws-layer"])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_inverting_what_was_applied_gives_the_values_back(placement, seed):
    codes = np.random.default_rng(seed).integers(-9, 10, (3, 7))
    values = jnp.asarray(codes.reshape(-1) + 20, jnp.uint8)
    result = placed(codes, placement, 4)
    sections = memsim.placement.apply_placement(values, result)
    assert sections.shape == result.weights.shape
    np.testing.assert_array_equal(memsim.placement.invert_placement(sections, result), values)
    np.testing.assert_array_equal(sections[result.weights == codes.size], 0)


def test_ties_keep_their_order():
    codes = np.array([[1, 0, 1, 0], [0, 1, 0, 1]])
    by_output = memsim.placement.sorted_placement(codes, 4)
    np.testing.assert_array_equal(by_output.weights, [[1, 3, 0, 2], [4, 6, 5, 7]])
    by_layer = memsim.placement.sorted_placement(codes, 8, "layer")
    np.testing.assert_array_equal(by_layer.weights, [[1, 3, 4, 6, 0, 2, 5, 7]])


def test_sorted_sections_are_programmed_section_major():
    codes = np.array([[3, 1, 2], [6, 5, 4]])
    result = memsim.placement.sorted_placement(codes, 2)
    np.testing.assert_array_equal(result.weights, [[1, 2], [5, 4], [0, 6], [3, 6]])
    np.testing.assert_array_equal(result.used_rows, [2, 2, 1, 1])


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 3), (2, 1), (5, 7), (8, 4), (9, 2)])
def test_index_bits_and_validity_are_those_of_the_policy(inputs, outputs):
    params = {"kernel": np.ones((inputs, outputs), np.float32)}
    expected = {
        "unsorted": (0, True),
        "sws": (math.ceil(math.log2(inputs)), True),
        "sws-layer": (math.ceil(math.log2(inputs * outputs)), outputs == 1),
    }
    for name, (index_bits, analog_valid) in expected.items():
        plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.parse(name))
        assert plan.layers["kernel"].index_bits == index_bits
        assert plan.layers["kernel"].analog_valid == analog_valid


def test_another_scope_is_refused():
    with pytest.raises(ValueError, match="`scope` is 'network'; choose 'output' or 'layer'"):
        memsim.placement.sorted_placement(np.ones((2, 2), np.int8), 2, "network")
