"""An index of words: what is held stays, bits are the number of ways, and it can be undone."""

import math
from collections import Counter, defaultdict

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

import memsim
from memsim.policies import Matched


def sections_of(plan, weights):
    """By section: the outputs of its slots, and (input, words) of each row."""
    config, layer = plan.config, plan.layers["kernel"]
    inputs = weights.shape[0]
    codes = np.asarray(memsim.codes.quantize(weights, layer.scale, config)).T.reshape(-1)
    delta = 0 if layer.delta is None else np.asarray(layer.delta)
    programmed = codes.astype(int) + delta
    placed = np.asarray(layer.placement.weights).reshape(-1, config.rows, config.words_per_row)
    for number, section in enumerate(placed):
        rows = int(layer.placement.used_rows[number])
        used = section[:rows, : int(layer.placement.used_words[number])]
        yield (
            frozenset((used[0] // inputs).tolist()),
            [(int(row[0]) % inputs, tuple(programmed[row])) for row in used],
        )


def ways_of(rows, left):
    """Ways to deal `left` inputs to rows, told apart by the words of an input alone."""
    ways = math.factorial(left) // math.factorial(left - len(rows))
    for count in Counter(words for _, words in rows).values():
        ways //= math.factorial(count)
    return ways


@hypothesis.given(
    st.integers(0, 2**31), st.sampled_from((None, 4, 8)), st.sampled_from((1, 3, None)),
    st.sampled_from((0, 1)), st.sampled_from(("output", "section")),
)  # fmt: skip
@hypothesis.settings(max_examples=12)
def test_words_tell_the_inputs(seed, columns, crossbars, tolerance, pool):
    rng = np.random.default_rng(seed)
    weights = rng.laplace(size=(23, 9)).astype(np.float32)
    config = memsim.CrossbarConfig(rows=8, bits=4, columns=columns, crossbars=crossbars)
    policies = [Matched(tolerance=tolerance, pool=pool, index=x) for x in ("rows", "words")]
    plans = [memsim.plan({"kernel": weights}, config, policy) for policy in policies]
    chips = [memsim.sample_chip(jax.random.key(0), plan) for plan in plans]
    done = [
        memsim.program({"kernel": weights}, plan, chip, passes=2)
        for plan, chip in zip(plans, chips, strict=True)
    ]
    # nothing changes but the index
    np.testing.assert_array_equal(done[0][0]["kernel"], done[1][0]["kernel"])
    before, after = (memsim.summarize(x[1], plan) for x, plan in zip(done, plans, strict=True))
    assert before.writes_per_pass == after.writes_per_pass
    assert before.data_bits == after.data_bits
    assert after.index_bits <= before.index_bits
    # its bits are those of the number of ways, by whole numbers
    left = defaultdict(lambda: 23)
    bits = 0
    for outputs, rows in sections_of(plans[1], weights):
        there = len(rows) if pool == "section" else left[outputs]
        bits += (ways_of(rows, there) - 1).bit_length()
        left[outputs] -= len(rows)
        # and who knows the words of the rows finds the inputs: those of one word stand in order
        by_words = defaultdict(list)
        for one, words in sorted(rows):
            by_words[words].append(one)
        assert [(by_words[words].pop(0), words) for _, words in rows] == rows
    table = sum(
        (23 - 1 if pool == "output" else min(8, 23) - 1).bit_length() * 23
        for _ in range(0, 9, config.words_per_row)
    )
    assert after.index_bits == before.index_bits + 2 * (bits - table)


def test_equal_words_need_no_index():
    weights = np.ones((8, 2), np.float32)
    plan = memsim.plan({"kernel": weights}, memsim.CrossbarConfig(rows=8), Matched(index="words"))
    plain = memsim.plan({"kernel": weights}, memsim.CrossbarConfig(rows=8), Matched())
    of_rows = plain.layers["kernel"].index_bits - plan.layers["kernel"].index_bits
    assert of_rows == 3  # of 8 rows


@pytest.mark.parametrize(
    ("words", "remedy"),
    [({"faults": "avoid"}, "leave out faults=avoid"), ({"pool": "none"}, "leave out pool=none")],
)
def test_an_index_of_words_needs_rows_that_may_change_places(words, remedy):
    with pytest.raises(ValueError, match=f"`index` is 'words', but .*{remedy}"):
        Matched(index="words", **words)


def test_its_text_is_read_back():
    policy = Matched(index="words", tolerance=3)
    assert str(policy) == "matched:tolerance=3,index=words"
    assert memsim.Policy.parse(str(policy)) == policy
