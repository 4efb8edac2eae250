"""Crossbars of several words a row: what is placed, counted, kept in files, read and matched."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memsim

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")


def network(seed, shapes=((11, 21), (9, 5), (20, 16))):
    rng = np.random.default_rng(seed)
    return {
        f"layer{i}/kernel": rng.laplace(size=(inputs, outputs)).astype(np.float32)
        for i, (inputs, outputs) in enumerate(shapes)
    }


def policies(*texts):
    return {text: memsim.Policy.parse(text) for text in texts}


@pytest.mark.parametrize(
    ("columns", "words", "idle"), [(None, 1, 0), (8, 1, 0), (15, 1, 7), (16, 2, 0), (128, 16, 0)]
)
def test_words_stand_side_by_side_as_far_as_columns_go(columns, words, idle):
    config = memsim.CrossbarConfig(columns=columns)
    assert config.words_per_row == words
    assert config.bit_lines - words * config.cells_per_word == idle
    assert memsim.CrossbarConfig(columns=128, encoding="differential").words_per_row == 9


def test_the_flag_of_a_word_takes_a_column_too():
    config = memsim.CrossbarConfig(columns=128)
    stored = memsim.Policy.parse("flip-n-write").stored_on(config)
    assert (stored.words_per_row, stored.bit_lines) == (14, 128)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: memsim.CrossbarConfig(columns=7), "`columns` is 7, fewer than the 8 cells"),
        (lambda: memsim.CrossbarConfig(columns=0), "`columns` is 0"),
        (
            lambda: memsim.plan(
                network(0), memsim.CrossbarConfig(columns=16), memsim.policies.SwsLayer()
            ),
            "sws-layer sorts single words",
        ),
    ],
)
def test_widths_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_one_word_and_idle_columns_change_no_count():
    tensors, of = network(1), policies("unsorted", "sws", "matched", "flip-n-write", "aras")
    narrow, wide = (
        memsim.compare(tensors, memsim.CrossbarConfig(rows=4, columns=columns), of, passes=2)
        for columns in (None, 12)
    )
    for name, summary in narrow.policies.items():
        assert summary == wide.policies[name]


@pytest.mark.parametrize("crossbars", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_program_and_compare_count_the_same(crossbars, key):
    tensors = network(2)
    config = memsim.CrossbarConfig(rows=4, columns=35, crossbars=crossbars)
    of = policies(
        "unsorted", "sws", "matched", "matched:tolerance=1,correction=none",
        "flip-n-write:flags=section",
    )  # fmt: skip
    compared = memsim.compare(tensors, config, of, passes=2).policies
    for name, policy in of.items():
        plan = memsim.plan(tensors, config, policy)
        chip = memsim.sample_chip(key, plan)
        held, programming = memsim.program(tensors, plan, chip, passes=2, wear=True)
        summary = memsim.summarize(programming, plan)
        assert programming.wear.shape == (plan.crossbars, plan.config.physical_rows, 35)
        assert summary.writes == compared[name].writes == int(programming.wear.sum())
        assert summary.row_operations == compared[name].row_operations
        tolerance = getattr(policy, "tolerance", 0)
        for layer, tensor in tensors.items():
            off = np.abs(np.asarray(held[layer]) - tensor) / np.asarray(plan.layers[layer].scale)
            assert off.max() <= tolerance + 0.5 + 1e-3


@pytest.mark.parametrize(
    ("encoding", "cell_bits"),
    [
        ("sign_magnitude", 2),
        *(
            pytest.param(*kind, marks=pytest.mark.slow)
            for kind in itertools.product(ENCODINGS, (1, 2, 4))
        ),
    ],
)
def test_ideal_products_are_exact(encoding, cell_bits, key):
    config = memsim.CrossbarConfig(
        rows=4, bits=6, cell_bits=cell_bits, columns=34, encoding=encoding
    )
    tensors = network(3, ((11, 7), (5, 9)))
    readout = memsim.Readout(input_bits=5)
    rng = np.random.default_rng(0)
    for policy in policies("sws", "matched", "flip-n-write:flags=section").values():
        plan = memsim.plan(tensors, config, policy)
        chip = memsim.sample_chip(key, plan, 0.05, 0.05)
        held, programming = memsim.program(tensors, plan, chip, passes=2, words=True)
        read = memsim.cells.read_weights(key, held, plan, programming, readout)
        for name, layer in plan.layers.items():
            np.testing.assert_array_equal(read[name], held[name])
            cells = memsim.cells.program_cells(key, programming.words[name], plan.config, readout)
            inputs = rng.integers(-16, 16, layer.matrix.inputs)
            found = memsim.cells.read_layer(
                key, jnp.asarray(inputs), cells, layer, plan.config, readout
            )
            codes = np.rint(np.asarray(held[name]) / np.asarray(layer.scale)).astype(int)
            np.testing.assert_array_equal(found, inputs @ codes)


def test_wires_are_those_of_the_whole_row(key):
    tensors = {"kernel": np.ones((8, 4), np.float32)}
    wires = memsim.Readout(
        cells=memsim.Conductance(on=1e-4, off=1e-6), wires=memsim.cells.Wires(20.0, 20.0)
    )
    seen = {}
    for columns in (None, 32):
        config = memsim.CrossbarConfig(rows=8, columns=columns)
        plan = memsim.plan(tensors, config, memsim.policies.Unsorted())
        held, programming = memsim.program(tensors, plan, memsim.sample_chip(key, plan), words=True)
        seen[columns] = memsim.cells.read_weights(key, held, plan, programming, wires)["kernel"]
    # four words load their word line more than one, the last of them most
    assert np.all(np.asarray(seen[32])[:, 3] < np.asarray(seen[None])[:, 3])
    assert np.all(np.asarray(seen[32])[:, 3] < np.asarray(seen[32])[:, 0])


def test_plans_chips_and_fault_maps_come_back(tmp_path, key):
    config = memsim.CrossbarConfig(rows=4, columns=35, crossbars=2)
    tensors = network(4)
    plan = memsim.plan(tensors, config, memsim.Policy.parse("matched:tolerance=1"))
    chip = memsim.sample_chip(key, plan, 0.1, 0.1)
    memsim.save_plan(tmp_path / "plan.safetensors", plan)
    memsim.save_chip(tmp_path / "chip.safetensors", chip, plan.config)
    memsim.save_faults(tmp_path / "faults.npz", chip, plan.config)
    again = memsim.load_plan(tmp_path / "plan.safetensors")
    same = memsim.load_chip(tmp_path / "chip.safetensors", plan.config)
    low, high = memsim.load_faults(tmp_path / "faults.npz")
    assert low.shape == (2, 4, 35)
    assert not (low | high)[:, :, 32:].any()  # idle columns are whole
    made = memsim.with_faults(
        key, *(memsim.chip.fault_words(cells, 2, plan.config) for cells in (low, high))
    )
    held = [
        memsim.program(tensors, of, on)[0]["layer0/kernel"]
        for of, on in ((plan, chip), (again, same), (again, made))
    ]
    np.testing.assert_array_equal(held[0], held[1])
    np.testing.assert_array_equal(held[0], held[2])
    # as many words in all, but otherwise arranged
    other = memsim.CrossbarConfig(rows=16, columns=8, crossbars=2)
    with pytest.raises(ValueError, match="has 4 words a row, the config 1"):
        memsim.load_chip(tmp_path / "chip.safetensors", other)


def test_a_placement_of_several_inputs_a_row_is_refused():
    placement = memsim.placement.unsorted_placement(2, 3, rows=2, words=2)
    weights = placement.weights.copy()
    weights[0, [0, 2]] = weights[0, [2, 0]]  # the first word of both rows changes places
    positions = memsim.placement.inverse_positions(weights, 6)
    mixed = placement._replace(weights=weights, positions=positions)
    memsim.placement.check_placement(placement, (3, 2), 2, 2)
    with pytest.raises(ValueError, match="words are weights of several inputs"):
        memsim.placement.check_placement(mixed, (3, 2), 2, 2)


@settings(max_examples=2)
@given(seed=st.integers(0, 99), shape=st.sampled_from([(None, 3), (32, 1), (32, 4), (None, 40)]))
def test_matching_takes_no_more_writes_than_sorting(seed, shape):
    columns, crossbars = shape
    config = memsim.CrossbarConfig(rows=8, columns=columns, crossbars=crossbars)
    of = policies("unsorted", "sws", "matched", "matched:tolerance=1")
    tensors = network(seed, ((30, 20), (20, 33), (40, 16)))
    found = memsim.compare(tensors, config, of, passes=2, steady=True).steady
    writes = {name: last.summary.writes for name, last in found.items()}
    assert writes["matched"] <= min(writes["unsorted"], writes["sws"])
    assert writes["matched:tolerance=1"] <= writes["matched"]


def test_matching_is_the_same_every_time():
    config = memsim.CrossbarConfig(rows=8, columns=32, crossbars=2)
    plans = [memsim.plan(network(5), config, memsim.policies.Matched()) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *plans)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        (
            "resnet20_cifar10",
            {"twos_complement": (1_059_220, 16_793, 1_058_715), "sign_magnitude": (844_104,)},
        ),
        pytest.param(
            "deit_tiny_patch16_224",
            {"twos_complement": (22_524_064, 353_087, 22_256_042)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "resnet50_stages1to4",
            {"twos_complement": (36_077_264, 564_812, 35_504_929)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_counts_of_real_networks_at_128_columns(assets, file, counts):
    source = memsim.open_checkpoint(assets / f"{file}.safetensors")
    for encoding, expected in counts.items():
        config = memsim.CrossbarConfig(columns=128, encoding=encoding)
        found = memsim.compare(source, config, policies("unsorted", "sws")).policies
        unsorted = found["unsorted"]
        every = (unsorted.writes, unsorted.row_operations, found["sws"].writes)
        assert every[: len(expected)] == expected


def test_reports_say_how_wide_crossbars_are(tmp_path, run):
    np.savez(tmp_path / "net.npz", **{"a.weight": network(6)["layer0/kernel"].T})
    for columns, text in ((None, "one word wide, the published model"), ("34", "4 words a row")):
        out = tmp_path / f"{columns}.json"
        words = ["--columns", columns] if columns else []
        code, printed, error = run("report", tmp_path / "net.npz", *words, "--policy", "sws",
                                   "--json", out)  # fmt: skip
        assert code == 0, error
        assert text in printed
        config = json.loads(out.read_text())["config"]
        assert config["columns"] == (int(columns) if columns else None)
        assert config["words_per_row"] == (4 if columns else 1)
