import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memsim

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")
LAYOUTS = list(itertools.product(ENCODINGS, (1, 2, 4)))
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def configs(encoding, cell_bits, precisions=range(2, 17)):
    return [
        memsim.CrossbarConfig(encoding=encoding, cell_bits=cell_bits, bits=bits)
        for bits in precisions
    ]


def some_words(config, rng, count=60):
    """Packed words of every kind: those that bit stucking and faults leave behind as well."""
    parts = [rng.integers(0, 2**bits, count) for bits in oracles.part_bits(config)]
    return [oracles.pack([int(part) for part in word], config) for word in zip(*parts, strict=True)]


def ieee_codes(weights, scale, config):
    quotients = np.rint(weights.astype(np.float32) / np.float32(scale))
    return np.clip(quotients, -config.max_code, config.max_code)


@pytest.mark.parametrize(("encoding", "cell_bits"), LAYOUTS)
def test_words_are_those_of_the_encoding_and_decode_again(encoding, cell_bits):
    rng = np.random.default_rng(0)
    for config in configs(encoding, cell_bits):
        every = np.arange(-config.max_code, config.max_code + 1, dtype=config.code_dtype)
        codes = np.resize(every, 65_535)  # one shape compiles once
        words = memsim.codes.encode(jnp.asarray(codes), config)
        assert words.dtype == config.word_dtype
        back = memsim.codes.decode(words, config)
        assert back.dtype == config.code_dtype
        np.testing.assert_array_equal(back, codes)
        for at in rng.integers(0, codes.size, 20):
            assert words[at] == oracles.pack(oracles.word(codes[at], config), config)


@pytest.mark.parametrize(("encoding", "cell_bits"), LAYOUTS)
def test_every_word_decodes_as_the_oracle_says(encoding, cell_bits):
    rng = np.random.default_rng(1)
    for config in configs(encoding, cell_bits):
        words = some_words(config, rng)
        codes = memsim.codes.decode(jnp.asarray(words, config.word_dtype), config)
        expected = [oracles.code_of(oracles.unpack(word, config), config) for word in words]
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize(("encoding", "cell_bits"), LAYOUTS)
def test_slices_are_the_levels_of_the_cells(encoding, cell_bits):
    rng = np.random.default_rng(2)
    for config in configs(encoding, cell_bits, (2, 5, 8, 9, 15, 16)):
        words = some_words(config, rng)
        packed = jnp.asarray(words, config.word_dtype)
        levels = memsim.codes.bit_slice(packed, config)
        expected = [oracles.to_cells(oracles.unpack(word, config), config) for word in words]
        np.testing.assert_array_equal(levels, expected)
        joined = memsim.codes.join_slices(levels, config)
        assert joined.dtype == config.word_dtype
        np.testing.assert_array_equal(joined, packed)


@pytest.mark.parametrize(("encoding", "cell_bits"), LAYOUTS)
def test_a_set_is_a_level_that_rises_and_a_reset_one_that_falls(encoding, cell_bits):
    rng = np.random.default_rng(3)
    for config in configs(encoding, cell_bits, (2, 5, 8, 9, 15, 16)):
        old = jnp.asarray(some_words(config, rng), config.word_dtype)
        new = jnp.asarray(some_words(config, rng), config.word_dtype)
        sets, resets = memsim.codes.cell_changes(old, new, config)
        before, after = (
            np.array([oracles.to_cells(oracles.unpack(word, config), config) for word in words])
            for words in (old, new)
        )
        np.testing.assert_array_equal(memsim.codes.bit_slice(sets, config), after > before)
        np.testing.assert_array_equal(memsim.codes.bit_slice(resets, config), after < before)
        distance = memsim.codes.hamming_distance(old, new, config)
        assert distance.dtype == config.word_dtype
        np.testing.assert_array_equal(distance, np.sum(before != after, axis=1))


@given(words=st.tuples(*[st.integers(0, 255)] * 3))
def test_hamming_distance_is_a_metric(words):
    config = memsim.CrossbarConfig(cell_bits=2)
    a, b, c = jnp.asarray(words, jnp.uint8)

    def distance(old, new):
        return int(memsim.codes.hamming_distance(old, new, config))

    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == bool(a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


@pytest.mark.parametrize("rows", [1, 3, 128, 255, 256, 1020, 1021, 4099])
@pytest.mark.parametrize(
    "config",
    [
        memsim.CrossbarConfig(),
        memsim.CrossbarConfig(bits=12, cell_bits=4),
        memsim.CrossbarConfig(bits=16, encoding="differential"),
    ],
    ids=["uint8", "uint16", "uint32"],
)
def test_column_counts_do_not_overflow(config, rows):
    rng = np.random.default_rng(rows)
    lowest = sum(mask & -mask for mask in config.column_masks)
    for words in (np.full((2, rows), lowest), rng.integers(0, 2**31, (2, rows)) & lowest):
        counts = memsim.codes.column_counts(jnp.asarray(words, config.word_dtype), config)
        marked = [np.sum(words & mask != 0, axis=1) for mask in config.column_masks]
        assert counts.dtype == jnp.int32
        np.testing.assert_array_equal(counts, np.stack(marked, axis=-1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 8, 11, 16])
def test_a_million_codes_equal_the_ieee_quotient(dtype, bits):
    weights = np.random.default_rng(bits).standard_normal(1_000_000).astype(dtype)
    config = memsim.CrossbarConfig(bits=bits)
    scale = memsim.codes.quantization_scale(weights, bits)
    expected = ieee_codes(weights, scale, config)
    jitted = jax.jit(memsim.codes.quantize, static_argnames="config")
    for quantize in (memsim.codes.quantize, jitted):
        codes = quantize(jnp.asarray(weights), jnp.asarray(scale), config)
        assert codes.dtype == config.code_dtype
        np.testing.assert_array_equal(codes, expected)
    baked_in = jax.jit(lambda w: memsim.codes.quantize(w, jnp.asarray(scale), config))
    np.testing.assert_array_equal(baked_in(weights), expected)


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-30, 30))
def test_codes_equal_the_ieee_quotient_at_every_scale(seed, exponent):
    config = memsim.CrossbarConfig(bits=16)
    weights = np.random.default_rng(seed).standard_normal(4096) * 10.0**exponent
    weights = weights.astype(np.float32)
    scale = memsim.codes.quantization_scale(weights, 16)
    codes = memsim.codes.quantize(jnp.asarray(weights), jnp.asarray(scale), config)
    np.testing.assert_array_equal(codes, ieee_codes(weights, scale, config))


def test_halves_round_to_even_and_codes_clip():
    config = memsim.CrossbarConfig(bits=4)
    weights = jnp.asarray([0.5, 1.5, 2.5, -0.5, -1.5, 7.4, 7.6, -7.6, 1e30, -1e30], jnp.float32)
    codes = memsim.codes.quantize(weights, jnp.float32(1), config)
    np.testing.assert_array_equal(codes, [0, 2, 2, 0, -2, 7, 7, -7, 7, -7])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_scale_is_the_largest_magnitude_over_the_largest_code(dtype):
    weights = np.array([[0.5, -3.0, 1.0], [0.25, 0.125, 0.0], [0.0, 0.0, 0.0]], dtype)
    scale = memsim.codes.quantization_scale(weights, 8)
    assert scale.shape == ()
    assert scale.dtype == np.float32
    assert scale == np.float32(3) / np.float32(127)
    per_output = memsim.codes.quantization_scale(weights, 8, output_axes=(0,))
    assert per_output.shape == (3, 1)
    assert per_output.dtype == np.float32
    expected = np.array([3, 0.25, 127], np.float32) / np.float32(127)
    np.testing.assert_array_equal(per_output[:, 0], expected)
    assert memsim.codes.quantization_scale(np.zeros((2, 2), dtype), 8) == 1


@pytest.mark.parametrize("largest", [1e-37, 1e-40, 1e-44, np.float64(1e-300)])
def test_scales_below_the_smallest_float32_are_refused(largest):
    weights = np.array([[1, -1], [0, 0.5]]) * largest
    weights = weights if isinstance(largest, np.float64) else weights.astype(np.float32)
    with pytest.raises(ValueError, match=r"`weights` reach .*e-.* at most"):
        memsim.codes.quantization_scale(weights, 8)
    with pytest.raises(ValueError, match="of an output reach"):
        memsim.codes.quantization_scale(weights, 8, output_axes=(0,))
    with pytest.raises(ValueError, match=r"`a/kernel`: `weights` reach"):
        memsim.plan({"a": {"kernel": weights}}, memsim.CrossbarConfig(), memsim.policies.Sws())


def test_one_scale_for_every_index_of_several_output_axes():
    weights = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    scale = memsim.codes.quantization_scale(weights, 8, output_axes=(1, 2))
    assert scale.shape == (1, 2, 3)
    np.testing.assert_array_equal(scale[0], np.abs(weights).max(0) / np.float32(127))


@settings(max_examples=20)
@given(bits=st.integers(2, 16), seed=st.integers(0, 1000))
def test_quantizing_dequantized_weights_changes_nothing(bits, seed):
    config = memsim.CrossbarConfig(bits=bits)
    weights = np.random.default_rng(seed).standard_normal(64).astype(np.float32)
    scale = jnp.asarray(memsim.codes.quantization_scale(weights, bits))
    codes = memsim.codes.quantize(jnp.asarray(weights), scale, config)
    held = memsim.codes.dequantize(codes, scale, jnp.float32)
    np.testing.assert_array_equal(held, np.asarray(codes, np.float32) * np.float32(scale))
    np.testing.assert_array_equal(memsim.codes.quantize(held, scale, config), codes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantizing_rounds_to_the_dtype(dtype):
    codes = jnp.arange(-127, 128, dtype=jnp.int8)
    held = memsim.codes.dequantize(codes, jnp.float32(0.0123), dtype)
    assert held.dtype == dtype
    np.testing.assert_array_equal(held, (np.arange(-127, 128) * np.float32(0.0123)).astype(dtype))
