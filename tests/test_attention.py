"""Products of attention: keys and values as operands that are written."""

import jax
import numpy as np
import pytest

import memsim
from memsim import hardware as hw
from memsim.attention import attention_cost

ARRAY = hw.read_hardware("array-128")


@pytest.fixture(scope="module")
def activations():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(3, 2, 20, 8)).astype(np.float32) for _ in range(2)]


def test_keys_and_values_are_written_over_those_before(activations):
    """The plain way: every operand a matrix [inputs, outputs], sequence after sequence."""
    config = memsim.CrossbarConfig(rows=16, columns=32)
    hardware = hw.read_hardware("published").on(config)
    keys, values = activations
    params, writes = {}, 0
    for sequence in range(3):
        for head in range(2):
            params[f"{sequence}/{head}/a/kernel"] = keys[sequence, head].T
            params[f"{sequence}/{head}/b/kernel"] = values[sequence, head]
    plan = memsim.plan(params, config, memsim.policies.Unsorted())
    chip = memsim.sample_chip(jax.random.key(0), plan)
    _, programming = memsim.program(params, plan, chip)
    for i, name in enumerate(plan.names):
        if not name.startswith("0/"):
            counts = programming.counts
            writes += int(counts.sets[0, i].sum() + counts.resets[0, i].sum())
    cost = attention_cost(keys, values, config, hardware)
    assert cost.writes == writes / 2


def test_products_are_worked_out_by_hand(activations):
    config = ARRAY.config(crossbars=1)
    cost = attention_cost(*activations, config, ARRAY)
    # 20 queries of 8 bits; keys [8, 20] in 2 sections, values [20, 8] in 1; 2 heads
    cycles = 20 * 8 * 2
    assert cost.analog["arrays"] == pytest.approx(cycles * 3 * 30e-12)
    assert cost.analog["drivers"] == pytest.approx(cycles * (2 * 8 + 20) * 0.417e-12)
    columns = (20 + 8) * 8
    assert cost.analog["converters"] == pytest.approx(cycles * columns * 1.667e-12)
    products = 2 * 2 * 20 * 20 * 8
    assert cost.digital["multiply_adds"] == pytest.approx(products * 0.23e-12)
    bits = products * 8 + 2 * 20 * (8 + 20) * (8 + 16)
    assert cost.digital["buffers"] == pytest.approx(bits * 0.1e-12)
    # words come from the buffer: at most all of them, of 8 bits
    assert 0 < cost.analog["data"] <= 2 * 2 * 20 * 8 * 8 * 0.1e-12
    assert cost.analog["reads"] == pytest.approx(2 * 2 * 20 * 8 * 8 * 1e-12)


def test_what_is_no_attention_is_named(activations):
    keys, values = activations
    config = ARRAY.config(crossbars=1)
    for wrong, message in (
        ((keys[:1], values[:1]), "`keys` is of 1 sequence"),
        ((keys, values[:, :1]), "`values` has shape"),
        ((keys[0], values[0]), "`keys`"),
        ((None, values), "`keys`"),
    ):
        with pytest.raises(ValueError, match=message):
            attention_cost(*wrong, config, ARRAY)
