import dataclasses
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import memsim
from memsim.cells import Conductance, Readout, Wires
from memsim.cells._columns import codes_of_whole_sums, full_range
from memsim.config import ENCODINGS
from memsim.selection import by_output
from tests.oracles import read_sum

# every encoding, and every policy once
CASES = [
    *itertools.product(ENCODINGS, (1,), ["sws+stuck:p=0.5,low=2"]),
    *(
        pytest.param(encoding, 2, "sws+stuck:p=0.5,low=2", marks=pytest.mark.slow)
        for encoding in ENCODINGS
    ),
    ("twos_complement", 1, "unsorted"),
    ("twos_complement", 1, "matched:tolerance=2,correction=none"),
    ("sign_magnitude", 2, "flip-n-write:flags=section"),
]


def deploy(params, config, policy, stuck_at=0.02):
    policy = memsim.Policy.parse(policy)
    plan = memsim.plan(params, config, policy)
    chip = memsim.sample_chip(jax.random.key(1), plan, stuck_at / 2, stuck_at / 2)
    effective, programming = memsim.program(params, plan, chip, words=True)
    return plan, effective, programming


def held_codes(effective, layer):
    """[outputs, inputs]"""
    held = by_output(np.asarray(effective), layer.matrix.axes)
    return np.round(held / np.asarray(layer.scale)).astype(np.int64)


@pytest.mark.parametrize(("encoding", "cell_bits", "policy"), CASES)
def test_an_ideal_readout_is_the_integer_product(params, key, encoding, cell_bits, policy):
    config = memsim.CrossbarConfig(
        rows=4, bits=6, crossbars=2, encoding=encoding, cell_bits=cell_bits
    )
    plan, effective, programming = deploy({"layer2": params["layer2"]}, config, policy)
    (layer,), (words,) = plan.layers.values(), programming.words.values()
    codes = held_codes(effective["layer2"]["kernel"], layer)
    readout = Readout(input_bits=5)
    inputs = jax.random.randint(key, (layer.matrix.inputs,), -16, 16)
    with jax.disable_jit():  # every case would compile programs of its own
        cells = memsim.cells.program_cells(key, words, plan.config, readout)
        found = memsim.cells.read_layer(key, inputs, cells, layer, plan.config, readout)
        seen = memsim.read_weights(key, effective, plan, programming, readout)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, codes @ np.asarray(inputs))
    jax.tree.map(np.testing.assert_array_equal, seen, effective)


def test_offsets_and_corrections_are_taken_off_digitally(params, key, config):
    for policy, tolerance in (("aras", 0), ("matched:tolerance=3", 1e-3)):
        plan, effective, programming = deploy(params, config, policy)
        for name, layer in plan.layers.items():
            held = by_output(np.asarray(effective[name.split("/")[0]]["kernel"]), layer.matrix.axes)
            cells = memsim.cells.program_cells(key, programming.words[name], plan.config, Readout())
            inputs = jnp.arange(layer.matrix.inputs, dtype=jnp.int32) - 2
            found = memsim.cells.read_layer(key, inputs, cells, layer, plan.config, Readout())
            expected = (held / np.asarray(layer.scale)) @ np.asarray(inputs)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=tolerance)


@pytest.mark.slow
@given(
    encoding=st.sampled_from(ENCODINGS),
    cell_bits=st.sampled_from([1, 2, 4]),
    flags=st.booleans(),
    adc=st.sampled_from([(None, None), (3, None), (4, 9.0), (6, 63.0)]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=16)
def test_sections_are_read_as_by_a_plain_loop(encoding, cell_bits, flags, adc, seed):
    config = memsim.CrossbarConfig(rows=5, bits=6, encoding=encoding, cell_bits=cell_bits)
    rng = np.random.default_rng(seed)
    weights = {"kernel": rng.standard_normal((9, 2)).astype(np.float32)}
    policy = memsim.Policy.parse("flip-n-write:flags=section" if flags else "sws")
    plan = memsim.plan(weights, config, policy)
    layer, config = plan.layers["kernel"], plan.config
    words = rng.integers(0, 2**30, (len(layer.placement.weights), config.physical_rows))
    words = (words & sum(config.column_masks)).astype(config.word_dtype)
    if flags:  # a flag of a cell is all its bits or none
        set_ = rng.integers(0, 2, (len(words), config.cells_per_word))
        words[:, -1] = set_ @ np.asarray(config.column_masks)
    readout = Readout(input_bits=4, adc_bits=adc[0], adc_range=adc[1])
    key, inputs = jax.random.key(0), rng.integers(-8, 8, 9)
    with jax.disable_jit():
        cells = memsim.cells.program_cells(key, jnp.asarray(words), config, readout)
        found = memsim.cells.read_layer(
            key, jnp.asarray(inputs, jnp.int32), cells, layer, config, readout
        )
    expected = np.zeros(2)
    for section, weight_indices in enumerate(np.asarray(layer.placement.weights)):
        driven = [inputs[index % 9] if index < 18 else 0 for index in weight_indices]
        expected[weight_indices[0] // 9] += read_sum(words[section], driven, config, readout)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_sums_of_the_widest_converters_do_not_overflow(key):
    weights = {"kernel": np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)}
    plan = memsim.plan(weights, memsim.CrossbarConfig(rows=8), memsim.policies.Sws())
    _, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan), words=True)
    layer, words = plan.layers["kernel"], programming.words["kernel"]
    inputs = jnp.asarray([-(2**15), 2**15 - 1, 5, 0, -3, 2**14, -1], jnp.int32)
    for adc_bits in (16, None):
        readout = Readout(input_bits=16, adc_bits=adc_bits)
        cells = memsim.cells.program_cells(key, words, plan.config, readout)
        read = memsim.cells.read_layer(key, inputs, cells, layer, plan.config, readout)
        found = read if adc_bits is None else np.round(read)
        codes = held_codes(
            memsim.program(weights, plan, memsim.sample_chip(key, plan))[0]["kernel"], layer
        )
        expected = codes @ np.asarray(inputs, np.int64)
        np.testing.assert_allclose(found, expected, rtol=0 if adc_bits is None else 1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_reference_columns_leave_no_mean_error(key, encoding):
    weights = {"kernel": np.random.default_rng(0).standard_normal((500, 40)).astype(np.float32)}
    plan = memsim.plan(
        weights, memsim.CrossbarConfig(encoding=encoding), memsim.policies.Unsorted()
    )
    held, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan), words=True)
    readout = Readout(cells=Conductance.hfo2())
    seen = memsim.read_weights(key, held, plan, programming, readout)
    (layer,) = plan.layers.values()
    errors = np.asarray((seen["kernel"] - held["kernel"]) / layer.scale)
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(errors.size)


def test_a_wide_enough_converter_changes_nothing(params, key, config):
    plan, _, programming = deploy(params, config, "sws")
    layer = plan.layers["layer2/kernel"]
    cells = memsim.cells.program_cells(key, programming.words["layer2/kernel"], config, Readout())
    inputs = jnp.asarray([3, -4, 5, 0, 1, -128], jnp.int32)
    ideal = memsim.cells.read_layer(key, inputs, cells, layer, config, Readout())
    wide = Readout(adc_bits=3, adc_range=7)  # 4 rows add up to 4 levels
    np.testing.assert_array_equal(
        memsim.cells.read_layer(key, inputs, cells, layer, config, wide), ideal
    )
    narrow = Readout(adc_bits=1)
    coarse = memsim.cells.read_layer(key, inputs, cells, layer, config, narrow)
    assert np.any(np.asarray(coarse) != np.asarray(ideal))


def test_the_weights_read_are_what_the_cells_add_up_to(params, key, config):
    readout = Readout(cells=Conductance.hfo2(), wires=Wires(300.0, 200.0), adc_bits=None)
    plan, effective, programming = deploy(params, config, "sws")
    seen = memsim.read_weights(key, effective, plan, programming, readout)
    for number, name in enumerate(plan.names):
        layer = plan.layers[name]
        cell_key, _ = jax.random.split(jax.random.fold_in(key, number))
        cells = memsim.cells.program_cells(cell_key, programming.words[name], config, readout)
        column_weights = np.asarray(config.column_weights, np.float32)
        codes = np.asarray(cells.mean) @ column_weights
        placed = codes.reshape(-1)[np.asarray(layer.placement.positions)]
        kernel = seen[name.split("/")[0]]["kernel"]
        found = by_output(np.asarray(kernel), layer.matrix.axes).reshape(-1)
        np.testing.assert_allclose(found, placed * np.asarray(layer.scale), rtol=1e-4, atol=1e-5)
        assert np.any(kernel != effective[name.split("/")[0]]["kernel"])


def test_what_is_read_varies_from_chip_to_chip_and_read_to_read(params, config):
    readout = Readout(cells=Conductance.pcm(), seconds=3600.0)
    plan, effective, programming = deploy(params, config, "sws")

    def read(key):
        return memsim.read_weights(key, effective, plan, programming, readout)

    keys = jax.random.split(jax.random.key(3), 3)
    together = jax.jit(jax.vmap(read))(keys)
    loop = jax.tree.map(lambda *each: jnp.stack(each), *[read(key) for key in keys])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, loop
    )
    kernel = together["layer2"]["kernel"]
    assert np.any(kernel[0] != kernel[1])


def test_gradients_go_straight_through(params, key, config):
    readout = Readout(cells=Conductance.hfo2(), wires=Wires(3.0, 3.0), adc_bits=4)
    plan = memsim.plan(params, config, memsim.Policy.parse("sws"))
    chip = memsim.sample_chip(key, plan)

    def loss(params):
        effective, programming = memsim.program(params, plan, chip, words=True)
        seen = memsim.read_weights(key, effective, plan, programming, readout)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(seen))

    for gradient in jax.tree.leaves(jax.grad(loss)(params)):
        np.testing.assert_array_equal(gradient, np.ones_like(gradient))


def test_a_product_inside_a_model(params, key, config):
    plan, effective, programming = deploy(params, config, "sws", stuck_at=0)
    name, layer = "layer2/kernel", plan.layers["layer2/kernel"]
    tensor = effective["layer2"]["kernel"]
    inputs = jax.random.normal(key, (3, 2, 6))
    fine = Readout(input_bits=12)
    cells = memsim.cells.program_cells(key, programming.words[name], config, fine)

    def product(inputs, tensor, readout):
        return memsim.cells.read_matmul(key, inputs, tensor, cells, layer, config, readout)

    np.testing.assert_allclose(product(inputs, tensor, fine), inputs @ tensor, atol=5e-3)
    coarse = product(inputs, tensor, Readout(input_bits=3))
    largest = np.abs(inputs).max(axis=-1, keepdims=True)  # of each vector
    codes = np.round(inputs / (largest / 3))
    np.testing.assert_allclose(coarse, codes @ tensor * (largest / 3), rtol=1e-4, atol=1e-5)
    gradients = jax.grad(lambda *at: jnp.sum(product(*at, fine) ** 2), (0, 1))(inputs, tensor)
    exact = jax.grad(lambda *at: jnp.sum((at[0] @ at[1]) ** 2), (0, 1))(inputs, tensor)
    for found, expected in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.1)
    jitted = jax.jit(product, static_argnums=2)(inputs, tensor, fine)
    np.testing.assert_allclose(jitted, product(inputs, tensor, fine), rtol=1e-5, atol=1e-5)


def test_a_dense_layer_of_a_model_reads_through_its_crossbars(key, config):
    dense = nnx.Linear(6, 3, rngs=nnx.Rngs(0))
    graph, params = nnx.split(dense)
    plan = memsim.plan(params, config, memsim.Policy.parse("sws"))
    held, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), words=True)
    readout = Readout(cells=Conductance.hfo2(), input_bits=12, adc_bits=8)
    cells = memsim.cells.program_cells(key, programming.words["kernel"], config, readout)

    def product(inputs, kernel, *_, **__):
        layer = plan.layers["kernel"]
        return memsim.cells.read_matmul(key, inputs, kernel, cells, layer, config, readout)

    model = nnx.merge(graph, held)
    inputs = jax.random.normal(key, (4, 6))
    ideal = model(inputs)
    model.dot_general = product
    apart = np.abs(model(inputs) - ideal).max()
    assert 0 < apart < 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cells": "pcm"}, r"`cells` is 'pcm'; give a Conductance, such as Conductance.pcm\(\)"),
        ({"wires": (2.97, 2.97)}, r"give a Wires, such as Wires\(2.97, 2.97\)"),
        ({"input_bits": 1}, "`input_bits` is 1; give 2 to 16"),
        ({"input_bits": 16, "adc_bits": 17}, "sums take as many bits as both, of 32"),
        ({"adc_bits": 25}, "`adc_bits` is 25; give 1 to 24"),
        ({"seconds": -1.0}, "`seconds` is -1.0"),
        ({"wires": Wires(-1.0, 0.0)}, "none is negative"),
        ({"adc_range": 4.0}, "give levels above 0, with `adc_bits`"),
    ],
)
def test_wrong_readouts_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Readout(**values)


def test_what_cannot_be_read_is_refused(params, key, config):
    plan, effective, programming = deploy(params, config, "sws-layer")
    layer, words = plan.layers["layer2/kernel"], programming.words["layer2/kernel"]
    cells = memsim.cells.program_cells(key, words, config, Readout())
    with pytest.raises(ValueError, match="`layer` is not analog-valid"):
        memsim.cells.read_layer(key, jnp.zeros(6, jnp.int32), cells, layer, config, Readout())
    with pytest.raises(ValueError, match=r"call program\(..., words=True\)"):
        memsim.read_weights(key, effective, plan, programming._replace(words=None), Readout())
    flagged = dataclasses.replace(config, flags="word")
    with pytest.raises(ValueError, match="has a flag per word"):
        memsim.cells.program_cells(key, words, flagged, Readout())
    wide = memsim.CrossbarConfig(rows=4, bits=16)
    with pytest.raises(ValueError, match="use fewer"):
        memsim.cells.read_layer(
            key, jnp.zeros(6, jnp.int32), cells, plan.layers["layer10/kernel"]._replace(
                analog_valid=True
            ), wide, Readout(input_bits=16),
        )  # fmt: skip


def crossbars_of(weights, key, readout=None, config=None, policy="sws"):
    """A layer of these weights, its cells and how it is read."""
    readout, config = readout or Readout(), config or memsim.CrossbarConfig(rows=16)
    plan = memsim.plan({"kernel": weights}, config, memsim.Policy.parse(policy))
    chip = memsim.sample_chip(jax.random.key(1), plan)
    held, programming = memsim.program({"kernel": weights}, plan, chip, words=True)
    cells = memsim.cells.program_cells(key, programming.words["kernel"], plan.config, readout)
    return held["kernel"], cells, plan.layers["kernel"], plan.config, readout


@pytest.fixture
def weights():
    return np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32,
                                   np.int64, np.uint64])  # fmt: skip
@pytest.mark.parametrize("input_bits", [4, 8])
def test_inputs_out_of_range_saturate_and_are_counted(weights, key, dtype, input_bits):
    _, *arguments = crossbars_of(weights, key, Readout(input_bits=input_bits))
    info = np.iinfo(dtype)
    values = np.asarray([info.min, info.max, 7, 8, 1, 127], dtype)
    inputs = np.resize(values, 16)
    least, most = -(2 ** (input_bits - 1)), 2 ** (input_bits - 1) - 1
    exact = [int(value) for value in inputs]
    clipped = np.asarray([min(max(value, least), most) for value in exact], np.int32)
    found = memsim.cells.read_layer(key, inputs, *arguments)
    np.testing.assert_array_equal(found, memsim.cells.read_layer(key, clipped, *arguments))
    counted = memsim.cells.count_saturated(key, inputs, *arguments)
    assert counted.inputs == sum(not least <= value <= most for value in exact)
    assert counted.above == counted.below == 0


def test_conversions_out_of_range_saturate_and_are_counted(weights, key):
    wide = Readout()
    narrow = Readout(adc_bits=2, adc_range=3.0)  # 16 rows add up to 16 levels
    _, cells, layer, config, _ = crossbars_of(weights, key)
    inputs = np.full(16, -1)  # every bit drives every row
    assert memsim.cells.count_saturated(key, inputs, cells, layer, config, wide)[1:] == (0, 0)
    counted = memsim.cells.count_saturated(key, inputs, cells, layer, config, narrow)
    sums = np.asarray(cells.mean).sum(axis=1)
    assert counted.above == 8 * (sums > 3).sum()  # for each of 8 bits
    assert counted.below == 0
    low = cells._replace(mean=cells.mean - 2)
    counted = memsim.cells.count_saturated(key, inputs, low, layer, config, narrow)
    assert counted.below == 8 * (np.asarray(low.mean).sum(axis=1) < -0.5).sum()


def test_sums_beyond_what_32_bits_hold_saturate_instead_of_wrapping(weights, key):
    _, cells, layer, config, readout = crossbars_of(weights, key)
    positive = cells._replace(mean=jnp.full_like(cells.mean, 1e12).at[..., -1].set(0))
    inputs = np.full(16, 127)
    found = memsim.cells.read_layer(key, inputs, positive, layer, config, readout)
    assert np.all(np.asarray(found) > 2**20)  # large, and of the right sign
    assert memsim.cells.count_saturated(key, inputs, positive, layer, config, readout).above > 0


READOUTS = {
    "ideal": Readout(),
    "pcm": Readout(cells=Conductance.pcm(), seconds=60.0),
    "converter": Readout(adc_bits=4),
}


@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
def test_a_vector_does_not_change_what_those_beside_it_give(weights, key, readout):
    arguments = crossbars_of(weights, key, readout)
    inputs = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    alone = memsim.cells.read_matmul(key, inputs[:1], *arguments)
    for beside in (1e3, 1e30, np.nan, np.inf, -np.inf, 0.0, 1e-30):
        batch = inputs.copy()
        batch[1] *= np.float32(beside)
        batch[3, 2] = beside
        found = memsim.cells.read_matmul(key, batch, *arguments)
        np.testing.assert_array_equal(found[0], alone[0])
        bad = ~np.isfinite(batch).all(axis=1)
        np.testing.assert_array_equal(np.isnan(found).all(axis=1), bad)
        np.testing.assert_array_equal(np.isnan(found).any(axis=1), bad)
    jitted = jax.jit(lambda x: memsim.cells.read_matmul(key, x, *arguments))(batch)
    np.testing.assert_array_equal(jitted, found)


@pytest.mark.parametrize("size", [1e-37, 3e-36, 1e-30, 1e-3, 1e3, 1e30, 1e37])
@pytest.mark.parametrize("of_weights", [1e-30, 1.0, 1e30])
def test_inputs_of_any_size_are_read(weights, key, size, of_weights):
    held, *arguments = crossbars_of(weights * np.float32(of_weights), key, Readout(input_bits=12))
    inputs = np.random.default_rng(1).uniform(-1, 1, (3, 16)).astype(np.float32)
    inputs *= np.float32(size)
    inputs[np.abs(inputs) < np.finfo(np.float32).tiny] = 0  # as processors take them
    found = memsim.cells.read_matmul(key, inputs, held, *arguments)
    exact = inputs.astype(np.float64) @ np.asarray(held, np.float64)
    fits = (np.abs(exact) > 1e-36) & (np.abs(exact) < 3e38)
    atol = 1e-2 * np.abs(exact).max()
    np.testing.assert_allclose(np.asarray(found, np.float64)[fits], exact[fits], rtol=0, atol=atol)
    assert not np.isnan(found).any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_narrow_floats_do_not_overflow_on_the_way(key, dtype):
    weights = np.full((16, 4), 127, np.float32)
    held, *arguments = crossbars_of(weights, key)
    inputs = jnp.full((2, 16), 2, dtype)
    found = memsim.cells.read_matmul(key, inputs, held, *arguments)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(jnp.float32), 16 * 2 * 127, rtol=1e-2)


def test_no_vectors_at_all_give_none(weights, key):
    arguments = crossbars_of(weights, key)
    assert memsim.cells.read_matmul(key, jnp.zeros((0, 16)), *arguments).shape == (0, 4)


@pytest.mark.slow
@given(
    rows=st.sampled_from([1, 3, 16, 100, 128]),
    cell_bits=st.sampled_from([1, 2, 4]),
    adc_bits=st.integers(1, 24),
    adc_range=st.sampled_from([None, 1.0, 2.5, 7.3, 0.1, 96.0]),
)
@settings(max_examples=10)
def test_ties_of_a_converter_go_to_the_even_code(rows, cell_bits, adc_bits, adc_range):
    full = rows * (2**cell_bits - 1)
    config = memsim.CrossbarConfig(rows=rows, cell_bits=cell_bits)
    readout = Readout(adc_bits=adc_bits, adc_range=adc_range, input_bits=2)
    share = Fraction(2**adc_bits - 1) / full_range(config, readout)
    assert share == Fraction(2**adc_bits - 1) / Fraction(str(adc_range or full))
    sums = jnp.arange(full + 1, dtype=jnp.float32)
    expected = np.asarray([round(total * share) for total in range(full + 1)])
    reachable = expected < 2**24
    for off in (-1, 0, 1):  # however the quotient was rounded
        near = jnp.asarray(expected + off, jnp.float32)
        found = codes_of_whole_sums(sums, near, share)
        np.testing.assert_array_equal(found[reachable], expected[reachable])
    between = sums + 0.25
    np.testing.assert_array_equal(codes_of_whole_sums(between, between, share), between)


@pytest.mark.parametrize("adc_bits", [1, 3, 5, 6, 7])
def test_a_sum_between_two_codes_is_converted_alike_everywhere(key, adc_bits):
    rows = 128
    weights = np.full((rows, 1), 1, np.float32)
    readout = Readout(adc_bits=adc_bits, input_bits=2)
    config = memsim.CrossbarConfig(rows=rows, bits=2)
    _, *arguments = crossbars_of(weights, key, readout, config)
    step = Fraction(rows, 2**adc_bits - 1)
    driven = np.arange(rows + 1)
    inputs = (np.arange(rows)[None] < driven[:, None]).astype(np.int32)  # so many levels
    expected = [round(Fraction(int(total)) / step) * step for total in driven]

    def read(vector):
        return memsim.cells.read_layer(key, vector, *arguments)[0]

    for found in (
        jax.vmap(read)(inputs),
        jnp.stack([jax.jit(read)(vector) for vector in inputs[::8]]),
        jax.vmap(read)(inputs[:, ::-1]),  # another order of summation
    ):
        every = expected[:: 8 if len(found) < len(expected) else 1]
        np.testing.assert_allclose(found, [float(value) for value in every], rtol=1e-6)


def test_old_keys_read_as_new_ones(weights, key):
    held, cells, layer, config, readout = crossbars_of(
        weights, key, Readout(cells=Conductance.pcm(), seconds=60.0)
    )
    old, new = jax.random.PRNGKey(7), jax.random.key(7)
    inputs, floats = np.arange(16), np.ones((2, 16), np.float32)
    for read in (
        lambda key: memsim.cells.program_cells(key, cells.words, config, readout).mean,
        lambda key: memsim.cells.read_layer(key, inputs, cells, layer, config, readout),
        lambda key: memsim.cells.read_matmul(key, floats, held, cells, layer, config, readout),
    ):
        np.testing.assert_array_equal(read(old), read(new))
    np.testing.assert_array_equal(
        memsim.cells.read_layer(np.asarray(old), inputs, cells, layer, config, readout),
        memsim.cells.read_layer(new, inputs, cells, layer, config, readout),
    )


def test_arguments_of_another_kind_are_named(weights, key):
    held, cells, layer, config, readout = crossbars_of(weights, key)
    inputs, floats = np.arange(16), np.ones((2, 16), np.float32)
    good = {
        "key": key, "inputs": inputs, "cells": cells, "layer": layer, "config": config,
        "readout": readout,
    }  # fmt: skip
    wrong = [
        ("key", 0, "`key` is a int"), ("key", jax.random.split(key), "`key` is a .* of shape"),
        ("key", "seed", "`key` is a str"), ("key", np.zeros(3, np.uint32), "of shape"),
        ("key", cells, "`key` is a Cells"), ("inputs", floats[0], "integers of shape"),
        ("inputs", inputs[:5], "integers of shape"), ("inputs", inputs[None], "integers of"),
        ("inputs", np.ones(16, bool), "integers"), ("inputs", [0.5] * 16, "integers"),
        ("cells", layer, "`cells` is a LayerPlan"), ("layer", cells, "`layer` is a Cells"),
        ("config", {"rows": 16}, "`config` is a dict"), ("config", readout, "`config` is a Read"),
        ("readout", config, "`readout` is a CrossbarConfig"),
        ("readout", Conductance(), "`readout` is a Conductance"),
        ("config", memsim.CrossbarConfig(rows=8), "`cells` has shape"),
    ]  # fmt: skip
    for name, value, message in wrong:
        for read in (memsim.cells.read_layer, memsim.cells.count_saturated):
            with pytest.raises(ValueError, match=message):
                read(**good | {name: value})
    of_floats = good | {"inputs": floats, "effective": held}
    for name, value, message in [
        *(one for one in wrong if one[0] != "inputs"),
        ("inputs", inputs, "give floats"), ("inputs", floats[:, :3], "give floats"),
        ("inputs", 1.0, "give floats"), ("effective", held.T, "`effective` has shape"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            memsim.cells.read_matmul(**of_floats | {name: value})
    words = {"key": key, "words": cells.words, "config": config, "readout": readout}
    for name, value, message in [
        ("key", 3, "`key` is a int"), ("config", {}, "`config` is a dict"),
        ("readout", config, "`readout` is a CrossbarConfig"),
        ("words", cells.words.astype(jnp.int32), "`words` is .* int32"),
        ("words", cells.words[0], "`words` is "), ("words", cells.words[:, :4], "`words` is "),
        ("words", {"kernel": cells.words}, "`words` is dict"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            memsim.cells.program_cells(**words | {name: value})


def test_arguments_of_read_weights_are_named(params, key, config):
    plan, effective, programming = deploy(params, config, "sws")
    good = [key, effective, plan, programming, Readout()]
    for place, value, message in [
        (0, programming.chip, "`key` is a Chip"), (0, 5, "`key` is a int"),
        (1, {}, "`effective` has 'layer2/kernel' of shape None"),
        (1, jax.tree.map(lambda x: x[:2], effective), "`effective` has"),
        (2, config, "`plan` is a CrossbarConfig"), (3, plan, "`programming` is a Plan"),
        (4, config, "`readout` is a CrossbarConfig"), (4, {"seconds": 1.0}, "`readout` is a dict"),
    ]:  # fmt: skip
        arguments = [*good[:place], value, *good[place + 1 :]]
        with pytest.raises(ValueError, match=message):
            memsim.read_weights(*arguments)
    old = memsim.read_weights(jax.random.PRNGKey(3), *good[1:4], Readout(cells=Conductance.hfo2()))
    new = memsim.read_weights(jax.random.key(3), *good[1:4], Readout(cells=Conductance.hfo2()))
    jax.tree.map(np.testing.assert_array_equal, old, new)


@pytest.mark.parametrize("seconds", [0.0, 3600.0, 1e7])
def test_reference_columns_drift_as_cells_do(key, seconds):
    config = memsim.CrossbarConfig(rows=500, bits=8)
    readout = Readout(cells=Conductance.pcm(), seconds=seconds)
    words = jnp.zeros((40, 500), config.word_dtype)
    erased = np.asarray(memsim.cells.program_cells(key, words, config, readout).mean)
    assert abs(erased.mean()) < 5 * erased.std() / np.sqrt(erased.size)
    assert erased.std() > 0


@pytest.mark.slow
def test_wires_that_are_not_solved_are_not_read(params, key, config):
    plan, effective, programming = deploy(params, config, "sws")
    readout = Readout(cells=Conductance.hfo2(), wires=Wires(200.0, 200.0), wire_tolerance=1e-12)
    words, name = programming.words["layer2/kernel"], "layer2/kernel"
    with pytest.raises(ArithmeticError, match="`wire_tolerance` is 1e-12"):
        memsim.cells.program_cells(key, words, config, readout)
    with pytest.raises(ArithmeticError, match="left a residual"):
        memsim.read_weights(key, effective, plan, programming, readout)
    seen = jax.jit(lambda key: memsim.read_weights(key, effective, plan, programming, readout))(key)
    assert np.isnan(seen["layer2"]["kernel"]).all()  # and says so inside
    cells = jax.jit(lambda key: memsim.cells.program_cells(key, words, config, readout))(key)
    assert cells.residual > 1e-12
    with pytest.raises(ArithmeticError, match="left a residual"):
        memsim.cells.read_layer(key, np.ones(6, int), cells, plan.layers[name], config, readout)
    loose = dataclasses.replace(readout, wire_tolerance=1e-4)
    assert memsim.cells.program_cells(key, words, config, loose).residual < 1e-4


@pytest.mark.parametrize("value", [True, "8", float("nan"), float("inf"), -1, 0.5j])
@pytest.mark.parametrize("name", ["seconds", "input_bits", "adc_bits", "adc_range",
                                  "wire_tolerance"])  # fmt: skip
def test_numbers_of_a_readout_are_checked(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is "):
        Readout(**{"adc_bits": 4} | {name: value})
    for wires in (Wires(value, 1.0), Wires(1.0, value), Wires(jnp.ones(()), 1.0)):
        with pytest.raises(ValueError, match="`wires"):
            Readout(wires=wires)


def test_offsets_of_many_rows_are_taken_off_in_parts_that_float32_holds():
    # 2^10 rows leave 14 bits of 16 to a sum that is exact
    config = memsim.CrossbarConfig(rows=2**10, bits=4, encoding="offset_binary", crossbars=None)
    params = {"kernel": np.float32([[7, -7], [-6, 5], [1, 7]])}
    plan, held, programming = deploy(params, config, "unsorted", stuck_at=0.0)
    readout = Readout(input_bits=16)
    cells = memsim.cells.program_cells(
        jax.random.key(0), programming.words["kernel"], config, readout
    )
    inputs = np.int32([32767, -32768, 12345])
    found = memsim.cells.read_layer(
        jax.random.key(0), jnp.asarray(inputs), cells, plan.layers["kernel"], config, readout
    )
    assert found.tolist() == (inputs @ np.asarray(held["kernel"], np.int32)).tolist()
