"""Rows that store negatives: what is held, counted, read, trained, kept in files and refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import memsim

POLICY = memsim.policies.Matched(negate="rows")


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(3)
    shapes = {"a/kernel": (20, 9), "b/kernel": (9, 14), "c/kernel": (14, 5)}
    # outputs and their negatives, and those that resemble neither
    made = {name: rng.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["a/kernel"][:, 4:8] = -made["a/kernel"][:, :4]
    return made


def width(encoding, cell_bits=1, **others):
    sizes = {"rows": 4, "bits": 6, "encoding": encoding, "cell_bits": cell_bits} | others
    cells = memsim.CrossbarConfig(**sizes).cells_per_word
    return memsim.CrossbarConfig(columns=3 * cells, **sizes)


def loop_writes(plan, params):
    """Writes of a first pass, in plain loops over what every row stores."""
    config, state, writes = plan.config, {}, 0
    words_per_row, first = config.words_per_row, 0
    step_of = {
        (int(section), int(crossbar)): step
        for step, of_step in enumerate(np.asarray(plan.schedule.sections))
        for crossbar, section in enumerate(of_step)
    }
    every = sorted(step_of.items(), key=lambda item: item[1])
    for name in plan.names:
        layer = plan.layers[name]
        matrix, delta = params[name], np.asarray(layer.delta)
        codes = np.rint(matrix / np.asarray(layer.scale)).astype(int).T.reshape(-1) + delta
        placed = np.asarray(layer.placement.weights)
        for (section, crossbar), _ in every:
            if not first <= section < first + len(placed):
                continue
            for word, weight in enumerate(placed[section - first]):
                if weight == codes.size:
                    continue
                negated = layer.negated[section - first, word // words_per_row]
                code = -codes[weight] if negated else codes[weight]
                cells = oracles.to_cells(oracles.word(int(code), config), config)
                before = state.get((crossbar, word), [0] * len(cells))
                writes += sum(a != b for a, b in zip(before, cells, strict=True))
                state[crossbar, word] = cells
        first += len(placed)
    return writes


@pytest.mark.parametrize(
    ("encoding", "cell_bits", "crossbars"),
    [("twos_complement", 1, 1), ("sign_magnitude", 1, 3), ("differential", 2, 1),
     pytest.param("twos_complement", 2, 3, marks=pytest.mark.slow),
     pytest.param("offset_binary", 1, 3, marks=pytest.mark.slow)],
)  # fmt: skip
def test_chips_hold_the_weights_and_plain_loops_count_the_writes(
    network, encoding, cell_bits, crossbars
):
    config = width(encoding, cell_bits, crossbars=crossbars)
    plan = memsim.plan(network, config, POLICY)
    assert any(np.asarray(layer.negated).any() for layer in plan.layers.values())
    chip = memsim.sample_chip(jax.random.key(0), plan)
    held, programming = memsim.program(network, plan, chip)
    as_they_are = memsim.plan(network, config, memsim.policies.Matched())
    expected, _ = memsim.program(
        network, as_they_are, memsim.sample_chip(jax.random.key(0), as_they_are)
    )
    for name, tensor in expected.items():
        np.testing.assert_array_equal(held[name], tensor)
    assert memsim.summarize(programming, plan).writes == loop_writes(plan, network)


def test_a_tolerance_leaves_no_more_than_it_says_and_means_are_corrected(network):
    config = width("twos_complement")
    policy = dataclasses.replace(POLICY, tolerance=2)
    plan = memsim.plan(network, config, policy)
    held, programming = memsim.program(network, plan, memsim.sample_chip(jax.random.key(0), plan))
    for name, tensor in network.items():
        layer = plan.layers[name]
        off = (np.asarray(held[name]) - tensor) / np.asarray(layer.scale)
        corrected = off + np.asarray(layer.correction)
        assert np.abs(corrected).max() <= 2.5 + 1e-4  # rounding included
        codes = np.rint(tensor / np.asarray(layer.scale)) * np.asarray(layer.scale)
        means = ((np.asarray(held[name]) - codes) / np.asarray(layer.scale)).mean(axis=0)
        np.testing.assert_allclose(means, 0, atol=1 / 256)
    assert memsim.summarize(programming, plan).writes == loop_writes(plan, network)


def test_rows_are_negated_where_that_saves_writes():
    # outputs that follow on their negatives, in a section of their own: a bit of each row in place
    # of nearly all cells
    rng = np.random.default_rng(0)
    ahead = rng.integers(-31, 32, (3, 8)).astype(np.float32)
    params = {"kernel": np.concatenate([ahead, -ahead]).T}
    config = memsim.CrossbarConfig(rows=8, columns=18, bits=6, encoding="sign_magnitude")
    plan = memsim.plan(params, config, POLICY)
    erased_to_first = sum(
        min(
            sum(sum(oracles.to_cells(oracles.word(int(c), config), config)) for c in row)
            for row in (column, -column)
        )
        for column in ahead.T
    )
    assert loop_writes(plan, params) == erased_to_first


@pytest.mark.parametrize(
    ("encoding", "cell_bits", "inputs"),
    [("twos_complement", 2, 20), ("twos_complement", 1, 6), ("offset_binary", 1, 6),
     pytest.param("differential", 1, 20, marks=pytest.mark.slow),
     pytest.param("sign_magnitude", 1, 20, marks=pytest.mark.slow)],
)  # fmt: skip
def test_products_are_those_of_the_weights(encoding, cell_bits, inputs):
    rng = np.random.default_rng(1)
    matrix = {"kernel": rng.laplace(size=(inputs, 7)).astype(np.float32)}
    config = width(encoding, cell_bits, crossbars=2)
    plan = memsim.plan(matrix, config, POLICY)
    layer, key = plan.layers["kernel"], jax.random.key(0)
    assert np.asarray(layer.negated).any()
    held, programming = memsim.program(matrix, plan, memsim.sample_chip(key, plan), words=True)
    readout = memsim.cells.Readout()
    cells = memsim.cells.program_cells(key, programming.words["kernel"], config, readout)
    codes = np.rint(np.asarray(held["kernel"]) / np.asarray(layer.scale)).astype(int)
    vector = rng.integers(-127, 128, inputs)
    found = memsim.cells.read_layer(key, jnp.asarray(vector), cells, layer, config, readout)
    np.testing.assert_array_equal(found, vector @ codes)
    # a batch of vectors, and weights that are read
    batch = rng.integers(-127, 128, (5, inputs)).astype(np.float32)
    batch[:, 0] = 127  # of each the largest: its scale is 1
    product = memsim.cells.read_matmul(
        key, jnp.asarray(batch), held["kernel"], cells, layer, config, readout
    )
    exact = batch @ codes * np.asarray(layer.scale)
    np.testing.assert_allclose(product, exact, rtol=1e-6, atol=1e-4)
    seen = memsim.cells.read_weights(key, held, plan, programming, readout)
    np.testing.assert_array_equal(seen["kernel"], held["kernel"])


def test_what_cells_conduct_too_much_counts_with_the_sign_of_the_row():
    matrix = {"kernel": np.full((4, 3), -31, np.float32)}
    config = memsim.CrossbarConfig(rows=4, columns=18, bits=6, encoding="sign_magnitude")
    plan = memsim.plan(matrix, config, POLICY)
    assert np.asarray(plan.layers["kernel"].negated).all()  # no sign to write
    key = jax.random.key(0)
    held, programming = memsim.program(matrix, plan, memsim.sample_chip(key, plan), words=True)
    drifted = memsim.cells.Readout(cells=memsim.Conductance.hfo2(), seconds=1e6)
    seen = memsim.cells.read_weights(key, held, plan, programming, drifted)
    cells = memsim.cells.program_cells(
        jax.random.split(jax.random.fold_in(key, 0))[0],
        programming.words["kernel"],
        config,
        drifted,
    )
    weights = jnp.asarray(config.column_weights, jnp.float32)
    expected = -(cells.mean[0].reshape(4, 3, -1) @ weights)
    inputs = np.asarray(plan.layers["kernel"].placement.weights)[0].reshape(4, 3)[:, 0] % 4
    np.testing.assert_allclose(seen["kernel"][inputs], expected, rtol=1e-5)


def test_the_lowest_input_saturates_since_its_negative_has_no_room(network):
    config, key = width("twos_complement"), jax.random.key(0)
    for policy, outside in ((POLICY, 2), (memsim.policies.Matched(), 1)):
        plan = memsim.plan(network, config, policy)
        chip = memsim.sample_chip(key, plan)
        _, programming = memsim.program(network, plan, chip, words=True)
        readout = memsim.cells.Readout(input_bits=4)
        cells = memsim.cells.program_cells(key, programming.words["a/kernel"], config, readout)
        inputs = jnp.asarray([-8, 8, *[0] * 18])
        arguments = inputs, cells, plan.layers["a/kernel"], config, readout
        found = memsim.cells.count_saturated(key, *arguments)
        assert int(found.inputs) == outside


@pytest.mark.parametrize("crossbars", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_expected_writes_are_exact_on_the_grid_and_moved_weights_stay_where_they_are(
    network, crossbars
):
    config = width("sign_magnitude", crossbars=crossbars)
    plan = memsim.plan(network, config, POLICY)
    chip = memsim.sample_chip(jax.random.key(0), plan)
    chains = memsim.WordChains(plan)
    for price in (0.0, 3.0, 30.0):
        moved = chains.cheapest(network, price)
        held, programming = memsim.program(moved, chains.plan, chip)
        for name, tensor in moved.items():
            np.testing.assert_array_equal(held[name], tensor)
        counted = memsim.summarize(programming, plan)
        expected = memsim.expected_writes(moved, chains.plan, chip, width=1)
        assert float(sum(expected)) == pytest.approx(counted.writes, rel=1e-5)


def test_jit_and_vmap_give_the_same(network):
    config = width("twos_complement", crossbars=2)
    plan = memsim.plan(network, config, POLICY)
    chips = [
        memsim.sample_chip(key, plan, 0.02, 0.02) for key in jax.random.split(jax.random.key(0))
    ]
    alone = [memsim.program(network, plan, chip)[0] for chip in chips]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *chips)
    batched = jax.jit(jax.vmap(lambda chip: memsim.program(network, plan, chip)[0]))(stacked)
    for name in network:
        np.testing.assert_array_equal(batched[name], jnp.stack([held[name] for held in alone]))


def test_stuck_cells_are_avoided_in_negated_rows_too(network):
    config = width("sign_magnitude", crossbars=2)
    policy = dataclasses.replace(POLICY, faults="avoid")
    blank = memsim.plan(network, config, memsim.Policy.parse("unsorted"))
    chip = memsim.sample_chip(jax.random.key(2), blank, 0.03, 0.03)
    errors = []
    for one in (policy, POLICY):
        plan = memsim.plan(network, config, one, chip=chip)
        held, _ = memsim.program(network, plan, chip)
        errors.append(sum(float(np.square(held[n] - w).sum()) for n, w in network.items()))
    assert errors[0] < errors[1]


def test_plans_keep_them(tmp_path, network):
    plan = memsim.plan(network, width("twos_complement"), POLICY)
    memsim.save_plan(tmp_path / "plan.safetensors", plan)
    again = memsim.load_plan(tmp_path / "plan.safetensors")
    for name, layer in plan.layers.items():
        np.testing.assert_array_equal(again.layers[name].negated, layer.negated)
    # a file that says it of other rows than there are is refused
    layer = plan.layers["a/kernel"]
    broken = {**plan.layers, "a/kernel": layer._replace(negated=np.asarray(layer.negated)[:, 1:])}
    with pytest.raises(ValueError, match="negated"):
        memsim.save_plan(tmp_path / "other.safetensors", plan._replace(layers=broken))


def test_an_order_takes_the_logarithm_of_its_number():
    # 2 of 5 inputs, then 2 of 3, then the last: 20, 6 and 1 ways, for each of 2 groups of 3 and 2
    config = memsim.CrossbarConfig(rows=2, columns=24)
    table, order = (memsim.policies.Matched(index=by) for by in ("rows", "order"))
    rows = (5 + 3) * 2 / 25
    assert order._row_bits(5, 5, config) == pytest.approx(rows)
    assert table._row_bits(5, 5, config) == pytest.approx(3 * 2 / 5)
    # within a section: 2 ways twice
    apart = memsim.policies.Matched(index="order", pool="section")
    assert apart._row_bits(5, 5, config) == pytest.approx(2 * 2 / 25)
    # nothing is placed elsewhere for it
    codes = np.random.default_rng(0).integers(-9, 9, (7, 11)).astype(np.int8)
    placed = [policy.place(codes, config).weights for policy in (table, order)]
    np.testing.assert_array_equal(*placed)
    # so is that of a network that takes the order of `sws`
    layer = memsim.policies.LayerCodes(codes, "", None)
    for policy in (table, order):
        found = policy._in_order("sws", layer, config).index_bits
        assert found == policy._row_bits(11, 7, config)
    assert table._row_bits(11, 7, config) == memsim.policies.Sws().index_bits(11, 7, config)
    negating = memsim.policies.Matched(index="order", negate="rows")
    assert negating._in_order("sws", layer, config).index_bits == order._row_bits(11, 7, config)


def test_a_row_takes_a_bit_more_of_index():
    config = memsim.CrossbarConfig(columns=128)
    more = POLICY.index_bits(576, 64, config) - memsim.policies.Matched().index_bits(
        576, 64, config
    )
    assert more == pytest.approx(1 / 16)


@pytest.mark.parametrize(
    ("policy", "config", "message"),
    [
        ("matched:negate=rows", {}, "rows of several words"),
        ("matched:negate=rows", {"bits": 12, "columns": 96}, "at most 10 bits"),
        ("matched:negate=rows,pool=none", {"columns": 128}, "leave out pool=none"),
        ("matched:negate=rows,index=words", {"columns": 128}, "use index=order"),
        ("matched:negate=columns", {"columns": 128}, "negate"),
    ],
)
def test_where_rows_cannot_be_negated(policy, config, message, network):
    with pytest.raises(ValueError, match=message):
        memsim.plan(network, memsim.CrossbarConfig(**config), memsim.Policy.parse(policy))
