import dataclasses
import itertools

import jax
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memsim

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")
EVERY = [
    memsim.CrossbarConfig(encoding=encoding, cell_bits=cell_bits, bits=bits)
    for encoding, cell_bits, bits in itertools.product(ENCODINGS, (1, 2, 4), range(2, 17))
]


def test_a_config_is_frozen_hashable_and_static():
    config = memsim.CrossbarConfig(rows=64)
    assert hash(config) == hash(memsim.CrossbarConfig(rows=64))
    assert config != memsim.CrossbarConfig()
    assert jax.tree.leaves(config) == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rows = 3
    with pytest.raises(TypeError):
        memsim.CrossbarConfig(64)


def test_defaults_are_those_of_the_design():
    config = memsim.CrossbarConfig()
    assert (config.rows, config.bits, config.cell_bits, config.crossbars) == (128, 8, 1, 1)
    assert (config.encoding, config.schedule) == ("twos_complement", "block")
    assert config.scale_per == "tensor"


def test_columns_and_masks_are_the_cells_of_a_word():
    for config in EVERY:
        top = [2**bits - 1 for bits in oracles.part_bits(config)]
        assert (
            config.cells_per_word == len(config.column_masks) == len(oracles.to_cells(top, config))
        )
        assert sum(config.column_masks) == oracles.pack(top, config)
        for column, mask in enumerate(config.column_masks):
            levels = oracles.to_cells(oracles.unpack(mask, config), config)
            full = oracles.top_levels(config)[column]
            assert levels == [full if b == column else 0 for b in range(config.cells_per_word)]


def test_dtypes_are_the_smallest_that_hold_words_and_codes():
    for config in EVERY:
        largest = oracles.pack([2**bits - 1 for bits in oracles.part_bits(config)], config)
        assert config.word_dtype == next(
            dtype for dtype in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(dtype).max
        )
        assert config.code_dtype == (np.int8 if config.bits <= 8 else np.int16)
        assert config.max_code == 2 ** (config.bits - 1) - 1


def test_low_columns_of_differential_are_the_low_ones_of_each_half():
    config = memsim.CrossbarConfig(encoding="differential", bits=4)
    assert config.column_masks == (1, 2, 4, 8, 16, 32)
    assert [config.low_mask(low) for low in range(4)] == [0, 0b001001, 0b011011, 0b111111]
    config = memsim.CrossbarConfig(encoding="differential", bits=6, cell_bits=2)
    assert config.low_mask(1) == 0b000011_000011
    assert memsim.CrossbarConfig(bits=8, cell_bits=4).low_mask(1) == 0b1111


def test_column_weights_read_one_bit_words_as_codes():
    for config in EVERY:
        if config.cell_bits > 1 or config.encoding == "sign_magnitude":
            continue
        offset = 2 ** (config.bits - 1) if config.encoding == "offset_binary" else 0
        for code in (-config.max_code, -1, 0, 1, config.max_code // 2, config.max_code):
            levels = oracles.to_cells(oracles.word(code, config), config)
            assert np.dot(levels, config.column_weights) - offset == code


@given(
    kind=st.sampled_from([memsim.policies.Unsorted, memsim.policies.Sws, memsim.policies.SwsLayer]),
    p=st.floats(0, 1),
    low=st.integers(1, 16),
    draws=st.sampled_from(["fresh", "fixed"]),
)
def test_a_policy_reads_back_what_it_prints(kind, p, low, draws):
    policy = kind(p=p, low=low, draws=draws)
    assert memsim.Policy.parse(str(policy)) == policy
    printed = str(dataclasses.replace(policy, p=np.float64(p)))
    assert memsim.Policy.parse(printed) == policy


def test_policies_parse_as_they_are_typed():
    parse, policies = memsim.Policy.parse, memsim.policies
    assert parse("unsorted") == policies.Unsorted()
    assert parse("sws") == policies.Sws()
    assert parse("sws-layer") == policies.SwsLayer()
    assert parse("sws+stuck:p=0.5,low=3") == policies.Sws(low=3, p=0.5)
    assert parse("sws-layer+stuck:low=2,p=.25") == policies.SwsLayer(low=2, p=0.25)
    stucked = policies.Unsorted(low=3, p=1.0, draws="fixed")
    assert parse("unsorted+stuck:p=1,low=3,draws=fixed") == stucked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "`rows` is 0; a crossbar has at least 1 row"),
        ({"rows": 2.0}, "`rows` is 2.0"),
        ({"bits": 1}, "`bits` is 1; a weight has 2 to 16 bits"),
        ({"bits": 17}, "`bits` is 17"),
        ({"bits": True}, "`bits` is True"),
        ({"cell_bits": 3}, "`cell_bits` is 3; choose one of 1, 2, 4"),
        ({"encoding": "gray"}, "`encoding` is 'gray'; choose one of 'twos_complement'"),
        ({"crossbars": 0}, "`crossbars` is 0; give a number from 1, or None"),
        ({"crossbars": "all"}, "`crossbars` is 'all'"),
        ({"schedule": "random"}, "`schedule` is 'random'; choose one of 'block'"),
        ({"scale_per": "row"}, "`scale_per` is 'row'; choose one of 'tensor', 'output'"),
    ],
)
def test_a_wrong_config_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        memsim.CrossbarConfig(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": -1}, "`low` is -1; bit stucking takes 0 to"),
        ({"low": 17}, "`low` is 17"),
        ({"low": 1.5}, "`low` is 1.5"),
        ({"p": 1.5}, "`p` is 1.5; a probability lies in 0..1"),
        ({"p": float("nan")}, "`p` is nan"),
        ({"draws": "once"}, "`draws` is 'once'; choose one of 'fresh', 'fixed'"),
    ],
)
def test_a_wrong_policy_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        memsim.policies.Sws(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sort",
            "`policy` is 'sort'; choose one of unsorted, sws, sws-layer, matched, unsorted.stuck",
        ),
        ("sws+matched:p=1,low=1", "`policy` is 'sws.matched:p=1,low=1'; choose one of"),
        ("sws+stuck", "`policy` is 'sws.stuck'; give p and low, as in sws.stuck:p=0.5,low=3"),
        ("sws+stuck:p=0.5", "give p and low"),
        ("sws+stuck:p=0.5,low=3,q=1", "sws.stuck takes p, low, draws"),
        ("sws:p=0.5", "sws takes no options"),
        ("sws+stuck:p=0.5,low=3,p=0.7", "give p once"),
        ("sws+stuck:p=half,low=3", "p is .half., give a number"),
        ("sws+stuck:p=0.5,low=2.5", "low is .2.5., give a whole number"),
        ("sws+stuck:p=2,low=3", "`p` is 2.0; a probability lies in 0..1"),
        ("sws+stuck:p=0.5,low=3,draws=once", "`draws` is 'once'"),
    ],
)
def test_a_wrong_policy_text_says_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        memsim.Policy.parse(text)


def test_more_low_columns_than_bits_are_refused():
    params = {"weight": np.ones((2, 3), np.float32)}
    config = memsim.CrossbarConfig(bits=4)
    message = "`low` is 5, more than the 4 `bits` of a weight; use low <= 4"
    plan = memsim.plan(params, config, memsim.policies.Sws(low=4, p=0.5))
    with pytest.raises(ValueError, match=message):
        memsim.plan(params, config, memsim.policies.Sws(low=5, p=0.5))
    with pytest.raises(ValueError, match=message):
        memsim.with_stucking(plan, memsim.policies.Sws(low=5, p=0.5))
    with pytest.raises(ValueError, match=message):
        memsim.compare(params, config, {"stuck": memsim.policies.Sws(low=5, p=0.5)})
