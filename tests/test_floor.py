"""The floor under the writes of a layer: no placement and no words fall below it, by trying all."""

import itertools
import re

import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim.codes import encode


def layers(seed, outputs, inputs, bits):
    """A layer of random codes on the grid, [inputs, outputs], one of them the largest."""
    rng = np.random.default_rng(seed)
    most = 2 ** (bits - 1) - 1
    codes = rng.integers(-most, most + 1, (inputs, outputs))
    codes[0, 0] = most
    return {"kernel": np.float32(codes)}


def fewest_writes(codes, squared_error, config):
    """Fewest writes of a steady pass of [outputs, inputs], over all orders, rows and words."""
    outputs, inputs = codes.shape
    known = [int(x) for x in range(config.min_code, config.max_code + 1)]
    words = dict(zip(known, map(int, encode(jnp.asarray(known), config)), strict=True))

    def row(asked):
        """By squared error, the fewest writes of the codes that follow one another in a row."""
        best = {}
        for chosen in itertools.product(known, repeat=outputs):
            error = sum((a - b) ** 2 for a, b in zip(asked, chosen, strict=True))
            if error <= squared_error:
                writes = sum(
                    ((words[chosen[k - 1]] ^ words[chosen[k]]) & mask) != 0
                    for k in range(outputs)
                    for mask in config.column_masks
                )
                best[error] = min(best.get(error, writes), writes)
        return best

    def together(rows):
        totals = {0: 0}
        for best in rows:
            sums = [(e + f, w + v) for e, w in totals.items() for f, v in best.items()]
            totals = {}
            for error, writes in sums:
                if error <= squared_error:
                    totals[error] = min(totals.get(error, writes), writes)
        return min(totals.values())

    rows = {}
    least = np.inf
    # the first output stays; the others in any order, their inputs in any rows
    for order in itertools.permutations(range(1, outputs)):
        for inside in itertools.product(itertools.permutations(range(inputs)), repeat=outputs - 1):
            placed = [codes[0], *(codes[o][list(p)] for o, p in zip(order, inside, strict=True))]
            asked = [tuple(int(x) for x in one) for one in zip(*placed, strict=True)]
            for one in asked:
                if one not in rows:
                    rows[one] = row(one)
            least = min(least, together([rows[one] for one in asked]))
    return least


@pytest.mark.parametrize("encoding", ["twos_complement", "sign_magnitude"])
@pytest.mark.parametrize("squared_error", [0, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_no_placement_and_no_words_fall_below_it(seed, squared_error, encoding):
    config = memsim.CrossbarConfig(rows=3, bits=3, encoding=encoding)
    params = layers(seed, 3, 3, 3)
    floor = memsim.writes_floor(params, config, squared_error)["kernel"]
    least = fewest_writes(params["kernel"].T.astype(int), squared_error, config)
    assert floor <= least
    if squared_error == 0:  # and not far: what follows on the last output is not free in truth
        assert least <= floor + 4


def test_of_two_outputs_it_is_what_matched_takes(key):
    config = memsim.CrossbarConfig(rows=20, bits=6, cell_bits=2)
    params = layers(0, 2, 20, 6)
    plan = memsim.plan(params, config, memsim.policies.Matched())
    chip = memsim.sample_chip(key, plan)
    _, programming = memsim.program(params, plan, chip, passes=2)
    floor = memsim.writes_floor(params, config)["kernel"]
    assert memsim.summarize(programming, plan).writes_per_pass[-1] == floor


def test_what_is_found_stays_above_it(key):
    config = memsim.CrossbarConfig(rows=30, bits=6, encoding="sign_magnitude")
    params = layers(1, 9, 30, 6)
    plan = memsim.plan(params, config, memsim.policies.Matched())
    chains, chip = memsim.WordChains(plan), memsim.sample_chip(key, plan)
    before = np.inf
    for price in (0.0, 2.0, 20.0):
        held = chains.cheapest(params, price)
        _, programming = memsim.program(held, plan, chip, passes=2)
        found = memsim.summarize(programming, plan).writes_per_pass[-1]
        error = float(np.square(held["kernel"] - params["kernel"]).sum())
        floor = memsim.writes_floor(params, config, error)["kernel"]
        assert floor <= found
        assert floor <= before  # more errors, fewer writes
        before = floor


def test_one_output_or_equal_ones_take_no_writes():
    config = memsim.CrossbarConfig(rows=4)
    assert memsim.writes_floor(layers(0, 1, 4, 8), config) == {"kernel": 0}
    equal = {"kernel": np.float32([[3] * 5, [127] * 5])}
    assert memsim.writes_floor(equal, config) == {"kernel": 0}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rows": 2}, "`kernel` has 4 inputs, but a crossbar 2 `rows`"),
        ({"crossbars": 2}, "`config` has 2 crossbars and 1 words a row"),
        ({"columns": 32}, "`config` has 1 crossbars and 4 words a row"),
        ({"encoding": "differential"}, "`config` has differential words of 8 bits"),
        ({"bits": 12}, "`config` has twos_complement words of 12 bits"),
    ],
)
def test_what_it_says_nothing_of_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        memsim.writes_floor(layers(0, 3, 4, 4), memsim.CrossbarConfig(**config))
    with pytest.raises(ValueError, match="`squared_error` is -1"):
        memsim.writes_floor(layers(0, 3, 4, 4), memsim.CrossbarConfig(), -1)
