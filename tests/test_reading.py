import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import memsim
from memsim import Conductance, Readout, Wires
from memsim.config import ENCODINGS
from memsim.selection import by_output
from tests.oracles import read_sum

# every encoding, and every policy once
CASES = [
    *itertools.product(ENCODINGS, (1, 2), ["sws+stuck:p=0.5,low=2"]),
    ("twos_complement", 1, "unsorted"),
    ("twos_complement", 1, "matched:tolerance=2"),
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
        cells = memsim.program_cells(key, words, plan.config, readout)
        found = memsim.read_layer(key, inputs, cells, layer, plan.config, readout)
        seen = memsim.read_weights(key, effective, plan, programming, readout)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, codes @ np.asarray(inputs))
    jax.tree.map(np.testing.assert_array_equal, seen, effective)


def test_offsets_and_corrections_are_taken_off_digitally(params, key, config):
    for policy, tolerance in (("aras", 0), ("matched:tolerance=3,correction=mean", 1e-3)):
        plan, effective, programming = deploy(params, config, policy)
        for name, layer in plan.layers.items():
            held = by_output(np.asarray(effective[name.split("/")[0]]["kernel"]), layer.matrix.axes)
            cells = memsim.program_cells(key, programming.words[name], plan.config, Readout())
            inputs = jnp.arange(layer.matrix.inputs, dtype=jnp.int32) - 2
            found = memsim.read_layer(key, inputs, cells, layer, plan.config, Readout())
            expected = (held / np.asarray(layer.scale)) @ np.asarray(inputs)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=tolerance)


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
        set_ = rng.integers(0, 2, (len(words), config.columns))
        words[:, -1] = set_ @ np.asarray(config.column_masks)
    readout = Readout(input_bits=4, adc_bits=adc[0], adc_range=adc[1])
    key, inputs = jax.random.key(0), rng.integers(-8, 8, 9)
    with jax.disable_jit():
        cells = memsim.program_cells(key, jnp.asarray(words), config, readout)
        found = memsim.read_layer(
            key, jnp.asarray(inputs, jnp.int32), cells, layer, config, readout
        )
    expected = np.zeros(2)
    for section, weight_indices in enumerate(np.asarray(layer.placement.weights)):
        driven = [inputs[index % 9] if index < 18 else 0 for index in weight_indices]
        expected[weight_indices[0] // 9] += read_sum(words[section], driven, config, readout)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_sums_of_the_widest_converters_do_not_overflow(key):
    weights = {"kernel": np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)}
    plan = memsim.plan(weights, memsim.CrossbarConfig(rows=8), memsim.Policy.sws())
    _, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan), words=True)
    layer, words = plan.layers["kernel"], programming.words["kernel"]
    inputs = jnp.asarray([-(2**15), 2**15 - 1, 5, 0, -3, 2**14, -1], jnp.int32)
    for adc_bits in (16, None):
        readout = Readout(input_bits=16, adc_bits=adc_bits)
        cells = memsim.program_cells(key, words, plan.config, readout)
        read = memsim.read_layer(key, inputs, cells, layer, plan.config, readout)
        found = read if adc_bits is None else np.round(read)
        codes = held_codes(
            memsim.program(weights, plan, memsim.sample_chip(key, plan))[0]["kernel"], layer
        )
        expected = codes @ np.asarray(inputs, np.int64)
        np.testing.assert_allclose(found, expected, rtol=0 if adc_bits is None else 1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_reference_columns_leave_no_mean_error(key, encoding):
    weights = {"kernel": np.random.default_rng(0).standard_normal((500, 40)).astype(np.float32)}
    plan = memsim.plan(weights, memsim.CrossbarConfig(encoding=encoding), memsim.Policy.unsorted())
    held, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan), words=True)
    readout = Readout(cells=Conductance.hfo2())
    seen = memsim.read_weights(key, held, plan, programming, readout)
    (layer,) = plan.layers.values()
    errors = np.asarray((seen["kernel"] - held["kernel"]) / layer.scale)
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(errors.size)


def test_a_wide_enough_converter_changes_nothing(params, key, config):
    plan, _, programming = deploy(params, config, "sws")
    layer = plan.layers["layer2/kernel"]
    cells = memsim.program_cells(key, programming.words["layer2/kernel"], config, Readout())
    inputs = jnp.asarray([3, -4, 5, 0, 1, -128], jnp.int32)
    ideal = memsim.read_layer(key, inputs, cells, layer, config, Readout())
    wide = Readout(adc_bits=3, adc_range=7)  # 4 rows add up to 4 levels
    np.testing.assert_array_equal(memsim.read_layer(key, inputs, cells, layer, config, wide), ideal)
    narrow = Readout(adc_bits=1)
    coarse = memsim.read_layer(key, inputs, cells, layer, config, narrow)
    assert np.any(np.asarray(coarse) != np.asarray(ideal))


def test_the_weights_read_are_what_the_cells_add_up_to(params, key, config):
    readout = Readout(cells=Conductance.hfo2(), wires=Wires(300.0, 200.0), adc_bits=None)
    plan, effective, programming = deploy(params, config, "sws")
    seen = memsim.read_weights(key, effective, plan, programming, readout)
    for number, name in enumerate(plan.names):
        layer = plan.layers[name]
        cell_key, _ = jax.random.split(jax.random.fold_in(key, number))
        cells = memsim.program_cells(cell_key, programming.words[name], config, readout)
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
    cells = memsim.program_cells(key, programming.words[name], config, fine)

    def product(inputs, tensor, readout):
        return memsim.read_matmul(key, inputs, tensor, cells, layer, config, readout)

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
    cells = memsim.program_cells(key, programming.words["kernel"], config, readout)

    def product(inputs, kernel, *_, **__):
        layer = plan.layers["kernel"]
        return memsim.read_matmul(key, inputs, kernel, cells, layer, config, readout)

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
    cells = memsim.program_cells(key, words, config, Readout())
    with pytest.raises(ValueError, match="`layer` is not analog-valid"):
        memsim.read_layer(key, jnp.zeros(6, jnp.int32), cells, layer, config, Readout())
    with pytest.raises(ValueError, match=r"call program\(..., words=True\)"):
        memsim.read_weights(key, effective, plan, programming._replace(words=None), Readout())
    flagged = dataclasses.replace(config, flags="word")
    with pytest.raises(ValueError, match="has a flag per word"):
        memsim.program_cells(key, words, flagged, Readout())
    wide = memsim.CrossbarConfig(rows=4, bits=16)
    with pytest.raises(ValueError, match="use fewer"):
        memsim.read_layer(
            key, jnp.zeros(6, jnp.int32), cells, plan.layers["layer10/kernel"]._replace(
                analog_valid=True
            ), wide, Readout(input_bits=16),
        )  # fmt: skip
