import dataclasses
import importlib
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

# name -> (shape, dtype, output axes), by section 2 of the design
NETWORKS = (
    {
        "block10.conv.weight": ((3, 2, 3), np.float32, (0,)),  # after block2
        "block2.weight": ((2, 9), ml_dtypes.bfloat16, (0,)),
    },
    {
        "query/kernel": ((5, 2, 2), np.float16, (1, 2)),
        "decoder.conv_transpose.weight": ((3, 2, 4), np.float32, (1,)),
    },
    {
        "out/kernel": ((2, 2, 3), ml_dtypes.bfloat16, (2,)),
        "a/kernel": ((1, 4), np.float32, (1,)),
    },
)


def cases():
    """Every encoding with every width of cell, every precision; each compiles its own program."""
    kinds = [*itertools.product(ENCODINGS, (1, 2, 4)), *itertools.product(ENCODINGS[:3], (1,))]
    widths = [(kind, None) for kind in kinds]
    # rows of one word and idle columns, of several, of more than there are outputs
    shapes = ((1, 2), (2, 0), (3, 1), (7, 0), (2, 3))
    widths += [(kind, shapes[i % 5]) for i, kind in enumerate(kinds[:12])]
    for number, ((encoding, cell_bits), width) in enumerate(widths):
        i = number % len(kinds)
        config = memsim.CrossbarConfig(
            rows=(4, 3, 1, 8, 5, 16, 2)[i % 7],
            bits=i * 7 % 15 + 2,
            cell_bits=cell_bits,
            encoding=encoding,
            crossbars=(1, 3, None, 2, 11)[i % 5],
            schedule=("block", "interleaved")[i // 3 % 2],
            scale_per=("tensor", "output")[i // 5 % 2],
        )
        if width is not None:
            words, idle = width
            columns = config.cells_per_word * words + idle
            config = dataclasses.replace(config, columns=columns)
        network, passes = NETWORKS[(i + i // 3) % 3], i // 2 % 3 + 1
        name = f"{encoding}-{cell_bits}-of-{config.bits}" + (
            f"-on-{config.columns}" if width else ""
        )
        marks = [] if number % 5 == 0 else [pytest.mark.slow]
        yield pytest.param(config, network, passes, ("unsorted", "sws"), id=name, marks=marks)
        if width is None and i in (0, 4, 7, 8, 11):
            id_ = f"{name}-by-layer"
            yield pytest.param(config, network, passes, ("sws-layer",), id=id_, marks=marks)


def draw_weights(network, rng, kind="normal"):
    def tensor(shape, dtype):
        values = rng.standard_normal(shape)
        if kind == "ties":
            values = np.round(values)
        if kind == "zero":
            values = np.zeros(shape)
        return values.astype(dtype)

    return {name: tensor(shape, dtype) for name, (shape, dtype, _) in network.items()}


def output_axes(network):
    return {name: axes for name, (_, _, axes) in network.items()}


def enabled_cells(plan, chip, passes):
    """(pass, name, section) -> packed words, for the oracle."""
    enable = {}
    for k in range(passes):
        words = memsim.enable_words(plan, chip._replace(passes=chip.passes + k))
        for name, sections in words.items():
            enable |= {(k, name, s): row for s, row in enumerate(np.asarray(sections))}
    return enable


def successful_cells(plan, chip, passes, writing):
    """(pass, name, section) -> packed words of the SETs and RESETs that succeed, for the oracle."""
    success = {}
    for k in range(passes):
        drawn = memsim.draws.success_words(plan, chip._replace(passes=chip.passes + k), writing)
        for name, (sets, resets) in drawn.items():
            pairs = zip(np.asarray(sets), np.asarray(resets), strict=True)
            success |= {(k, name, s): pair for s, pair in enumerate(pairs)}
    return success


def draw_writing(rng, config, controller):
    """Success by column or for all, of sure and of hopeless pulses too."""
    chances = [0.0, 0.3, 0.55, 0.9, 1.0]
    by_column = tuple(rng.choice(chances, config.cells_per_word).tolist())
    success = by_column if rng.random() < 0.5 else float(rng.choice(chances))
    return memsim.Writing(set_success=success, reset_success=0.5, controller=controller)


def draw_chip(rng, plan, faults, used):
    """A chip with cells stuck at these rates; if `used`, an earlier network has left its words."""
    config = plan.config
    drawn = rng.random((plan.crossbars, config.rows, config.bit_lines))
    cells = drawn < faults[0], drawn > 1 - faults[1]
    stuck = [memsim.chip.fault_words(marked, plan.crossbars, config) for marked in cells]
    chip = memsim.with_faults(jax.random.key(rng.integers(2**31)), *stuck)
    if used:
        words = rng.integers(0, 2**31, chip.state.shape) & sum(config.column_masks)
        words = jnp.asarray(words, config.word_dtype)
        chip = chip._replace(state=(words & ~stuck[0]) | stuck[1], passes=jnp.int32(7))
    return chip


def assert_equals_oracle(params, planned, network, config, policy, chip, passes, writing=None):
    plan = memsim.plan(planned, config, policy)
    effective, programming = memsim.program(
        params, plan, chip, passes=passes, wear=True, writing=writing
    )
    expected = oracles.program(
        params,
        output_axes(network),
        config,
        policy.name,
        enable=enabled_cells(plan, chip, passes) if policy.stucking.low else None,
        stuck=(np.asarray(chip.stuck_at_0 | chip.stuck_at_1), np.asarray(chip.stuck_at_1)),
        state=np.asarray(chip.state),
        passes=passes,
        plans=planned,
        success=writing and successful_cells(plan, chip, passes, writing),
        controller=writing.controller if writing else "read",
    )
    counts = programming.counts
    names = oracles.natural_order(network)
    assert plan.names == names
    for k, (i, name) in itertools.product(range(passes), enumerate(names)):
        layer = expected.counts[k][name]
        np.testing.assert_array_equal(counts.sets[k, i], layer.sets)
        np.testing.assert_array_equal(counts.resets[k, i], layer.resets)
        np.testing.assert_array_equal(counts.set_pulses[k, i], layer.set_pulses)
        np.testing.assert_array_equal(counts.reset_pulses[k, i], layer.reset_pulses)
        assert counts.row_operations[k, i] == layer.row_operations
        assert counts.set_rows[k, i] == layer.set_rows
        assert counts.reset_rows[k, i] == layer.reset_rows
        moved = counts.moved_words[k, i] * sum(oracles.part_bits(config))
        assert moved + counts.row_flags[k, i] == layer.data_bits
        if writing:
            assert counts.wrong[k, i] == layer.wrong
    summary = memsim.summarize(programming, plan)
    every = [x.data_bits for of_pass in expected.counts for x in of_pass.values()]
    assert summary.data_bits == sum(every)
    np.testing.assert_array_equal(programming.wear, expected.wear)
    np.testing.assert_array_equal(programming.chip.state, expected.state)
    assert programming.chip.passes == chip.passes + passes
    for name in names:
        assert effective[name].dtype == params[name].dtype
        np.testing.assert_array_equal(effective[name], expected.effective[name])


@pytest.mark.parametrize(("config", "network", "passes", "placements"), list(cases()))
@settings(max_examples=20)
@given(data=st.data())
def test_everything_counted_equals_the_oracle(config, network, passes, placements, data):
    check_against_oracle(config, network, passes, placements, data, None)


def failing_cases():
    """Every case under both controllers; three encodings, wider cells among them, are fast."""
    fast = ((2, "read"), (4, "blind"), (29, "blind"))
    for number, case in enumerate(cases()):
        for controller in ("read", "blind"):
            marks = [] if (number, controller) in fast else [pytest.mark.slow]
            yield pytest.param(*case.values, controller, id=f"{case.id}-{controller}", marks=marks)


@pytest.mark.parametrize(
    ("config", "network", "passes", "placements", "controller"), list(failing_cases())
)
@settings(max_examples=5)
@given(data=st.data())
def test_failed_writes_equal_the_oracle(config, network, passes, placements, controller, data):
    check_against_oracle(config, network, passes, placements, data, controller)


def check_against_oracle(config, network, passes, placements, data, controller):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    kind = data.draw(st.sampled_from(["normal", "ties", "zero"]), label="weights")
    planned = draw_weights(network, rng, kind)
    moved = data.draw(st.booleans(), label="moved")
    params = draw_weights(network, rng) if moved else planned
    policy = memsim.Policy.parse(data.draw(st.sampled_from(placements), label="placement"))
    policy = policy.stucked(
        low=data.draw(st.integers(0, config.bits), label="low"),
        p=data.draw(st.sampled_from([0.5, 0.3, 0.0, 1.0]), label="p"),
        draws=data.draw(st.sampled_from(["fresh", "fixed"]), label="draws"),
    )
    faults = data.draw(st.sampled_from([(0, 0), (0.1, 0.1), (0, 0.4)]), label="faults")
    plan = memsim.plan(planned, config, policy)
    chip = draw_chip(rng, plan, faults, used=data.draw(st.booleans(), label="used"))
    writing = controller and draw_writing(rng, config, controller)
    assert_equals_oracle(params, planned, network, config, policy, chip, passes, writing)


@pytest.mark.slow
def test_a_network_larger_than_a_tile_equals_the_oracle(monkeypatch):
    # shapes of its own: what is compiled for another size of tile cannot serve it
    monkeypatch.setattr(importlib.import_module("memsim.programming"), "_TILE_WORDS", 64)
    network = {"weight": ((7, 33), np.float32, (0,))}
    rng = np.random.default_rng(0)
    for crossbars, policy in [
        (2, memsim.policies.Sws(low=3, p=0.5)),
        (None, memsim.policies.Unsorted(low=8, p=0.5)),
    ]:
        config = memsim.CrossbarConfig(rows=3, crossbars=crossbars)
        params = draw_weights(network, rng)
        chip = draw_chip(rng, memsim.plan(params, config, policy), (0.1, 0.1), used=True)
        assert_equals_oracle(params, params, network, config, policy, chip, passes=2)


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 16, 17])
def test_programmed_words_follow_the_definition(steps):
    rng = np.random.default_rng(steps)
    target, enable = rng.integers(0, 256, (2, steps, 3, 5)).astype(np.uint8)
    held = state = rng.integers(0, 256, (3, 5)).astype(np.uint8)
    achieved = memsim.programming.program_words(*map(jnp.asarray, (target, enable, state)))
    assert achieved.shape == target.shape
    for step in range(steps):
        held = (target[step] & enable[step]) | (held & ~enable[step])
        np.testing.assert_array_equal(achieved[step], held)


def test_without_stucking_weights_are_exactly_the_dequantized_ones(key):
    weights = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
    config = memsim.CrossbarConfig(rows=4)
    scale = np.abs(weights).max() / np.float32(127)
    for policy in (memsim.policies.Unsorted(), memsim.policies.Sws(low=3, p=1.0)):
        plan = memsim.plan({"kernel": weights}, config, policy)
        effective, _ = memsim.program({"kernel": weights}, plan, memsim.sample_chip(key, plan))
        np.testing.assert_array_equal(effective["kernel"], np.rint(weights / scale) * scale)


def test_digital_tensors_pass_through_unchanged(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Sws())
    effective, _ = memsim.program(params, plan, memsim.sample_chip(key, plan))
    assert plan.names == ["layer2/kernel", "layer10/kernel"]
    assert effective["bias"] is params["bias"]


def test_cells_carry_over_from_layer_to_layer(key):
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    params = {"layer2.weight": weights[:1], "layer10.weight": weights[:1] * 7}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=4), memsim.policies.Unsorted())
    _, programming = memsim.program(params, plan, memsim.sample_chip(key, plan))
    writes = programming.counts.sets + programming.counts.resets
    assert plan.names == ["layer2.weight", "layer10.weight"]
    assert writes[0, 0].sum() > 0
    assert writes[0, 1].sum() == 0
    assert programming.counts.row_operations[0, 1] == 0


def test_a_pass_over_stationary_weights_overwrites_nothing(params, key):
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=4, crossbars=None), memsim.policies.Sws())
    _, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), passes=3)
    assert plan.crossbars == 13
    assert programming.counts.resets.sum() == 0
    assert programming.counts.sets[0].sum() > 0
    assert programming.counts.sets[1:].sum() == 0


def test_a_redeployment_writes_what_differs_from_the_old_model(params, key):
    config = memsim.CrossbarConfig(rows=4, crossbars=None)
    plan = memsim.plan(params, config, memsim.policies.Sws())
    _, old = memsim.program(params, plan, memsim.sample_chip(key, plan))
    new_params = jax.tree.map(lambda w: w[::-1].copy(), params)
    new_plan = memsim.plan(new_params, config, memsim.policies.Sws())
    _, new = memsim.program(new_params, new_plan, old.chip)
    differing = memsim.codes.hamming_distance(old.chip.state, new.chip.state, config)
    assert memsim.summarize(new, new_plan).writes == np.sum(differing, dtype=int)
    _, again = memsim.program(params, plan, old.chip)
    assert memsim.summarize(again, plan).writes == 0


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
def test_programming_twice_is_programming_two_passes(params, config, key, draws):
    plan = memsim.plan(params, config, memsim.policies.Sws(low=3, p=0.5, draws=draws))
    chip = memsim.sample_chip(key, plan, 0.05, 0.05)
    effective, both = memsim.program(params, plan, chip, passes=2)
    _, first = memsim.program(params, plan, chip)
    last, second = memsim.program(params, plan, first.chip)
    joined = jax.tree.map(lambda *each: jnp.concatenate(each), first.counts, second.counts)
    jax.tree.map(np.testing.assert_array_equal, both.counts, joined)
    np.testing.assert_array_equal(both.chip.state, second.chip.state)
    assert both.chip.passes == second.chip.passes == 2
    jax.tree.map(np.testing.assert_array_equal, effective, last)


def test_wear_is_off_by_default_and_sums_to_the_writes(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Unsorted())
    chip = memsim.sample_chip(key, plan)
    assert memsim.program(params, plan, chip)[1].wear is None
    _, programming = memsim.program(params, plan, chip, wear=True)
    assert programming.wear.shape == (2, 4, 8)
    writes = programming.counts.sets + programming.counts.resets
    np.testing.assert_array_equal(programming.wear.sum((0, 1)), writes.sum((0, 1)))


def test_wear_past_255_writes_does_not_wrap(key):
    params = {"kernel": np.tile(np.array([1, -1], np.float32), 200)[None]}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=1), memsim.policies.Unsorted())
    _, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), wear=True)
    np.testing.assert_array_equal(programming.wear[0, 0], [1, *[400] * 6, 399])


def test_idle_crossbars_stay_erased(key):
    params = {"kernel": np.ones((4, 2), np.float32)}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=4, crossbars=5), memsim.policies.Sws())
    _, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), wear=True)
    np.testing.assert_array_equal(programming.chip.state[:, 0], [127, 127, 0, 0, 0])
    np.testing.assert_array_equal(programming.wear[2:], 0)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("cell_bits", [1, 2, 4])
def test_only_low_cells_that_work_are_ever_left_alone(encoding, cell_bits):
    config = memsim.CrossbarConfig(
        rows=4, bits=7, cell_bits=cell_bits, encoding=encoding, crossbars=2
    )
    params = {"kernel": np.ones((6, 3), np.float32)}
    plan = memsim.plan(params, config, memsim.policies.Sws())
    chip = draw_chip(np.random.default_rng(0), plan, (0.1, 0.1), used=False)
    low, high = memsim.chip.fault_cells(chip, config)
    broken = low | high
    half = config.cells_per_word // len(oracles.part_bits(config))
    full = oracles.top_levels(config)
    for policy in (
        memsim.policies.Sws(low=1, p=0.5),
        memsim.policies.Sws(low=1, p=0.5, draws="fixed"),
    ):
        words = memsim.enable_words(memsim.with_stucking(plan, policy), chip)["kernel"]
        left_alone = 0
        for (s, row), word in np.ndenumerate(words):
            crossbar = oracles.crossbar_of(s, 6, config)
            used = row < (4 if s < 3 else 2)
            for b, level in enumerate(oracles.to_cells(oracles.unpack(word, config), config)):
                works = used and not broken[crossbar, row, b]
                if works and b % half < 1:
                    assert level in (0, full[b])
                    left_alone += level == 0
                else:
                    assert level == (full[b] if works else 0)
        assert left_alone > 0


def test_new_stucking_on_a_plan_is_the_plan_with_that_stucking(params, config):
    policy = memsim.policies.Sws(low=3, p=0.25, draws="fixed")
    expected = memsim.plan(params, config, policy)
    plan = memsim.with_stucking(memsim.plan(params, config, memsim.policies.Sws()), policy)
    assert jax.tree.structure(plan) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, plan, expected)


def test_jax_and_numpy_tensors_are_planned_alike(params, config):
    policy = memsim.policies.Sws(low=2, p=0.5)
    plans = [
        memsim.plan(tree, config, policy) for tree in (params, jax.tree.map(jnp.asarray, params))
    ]
    jax.tree.map(np.testing.assert_array_equal, *plans)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_scales_are_float32_whatever_the_dtype(dtype):
    weights = np.random.default_rng(0).standard_normal((6, 3)).astype(dtype)
    for scale_per, axis in [("tensor", None), ("output", 0)]:
        config = memsim.CrossbarConfig(scale_per=scale_per)
        plan = memsim.plan({"kernel": weights}, config, memsim.policies.Sws())
        largest = np.abs(weights.astype(np.float32)).max(axis)
        scale = plan.layers["kernel"].scale
        assert scale.dtype == jnp.float32
        np.testing.assert_array_equal(scale.reshape(largest.shape), largest / np.float32(127))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    params = {"a.weight": np.array([[1, value]], np.float32)}
    message = "`a.weight` holds NaN or infinite weights; mend them before planning"
    for policy in (memsim.policies.Unsorted(), memsim.policies.Sws()):
        for config in (memsim.CrossbarConfig(), memsim.CrossbarConfig(scale_per="output")):
            with pytest.raises(ValueError, match=message):
                memsim.plan(params, config, policy)


def test_planning_traced_tensors_is_refused(params, config):
    with pytest.raises(ValueError, match="`layer2/kernel` is traced; call `plan` outside `jit`"):
        jax.jit(lambda tree: memsim.plan(tree, config, memsim.policies.Sws()))(params)


@pytest.mark.parametrize("policy", ["unsorted", "sws", "matched"])
def test_too_many_rows_for_32_bits_are_refused(policy):
    params = {"weight": np.ones((2, 2), np.float32)}
    config = memsim.CrossbarConfig(rows=2**30)
    with pytest.raises(ValueError, match="`weight` fills 2147483648 words; the limit is"):
        memsim.plan(params, config, memsim.Policy.parse(policy))


def test_another_network_or_chip_is_refused(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Sws())
    chip = memsim.sample_chip(key, plan)
    program = memsim.program
    with pytest.raises(ValueError, match="`passes` is 0; program the network at least once"):
        program(params, plan, chip, passes=0)
    message = r"`plan` belongs to another network: it has `layer2/kernel` of shape \(6, 5\), but "
    with pytest.raises(ValueError, match=message + "there is no such tensor"):
        program({"layer10": params["layer10"]}, plan, chip)
    other = params | {"layer2": {"kernel": np.ones((5, 6), np.float32)}}
    with pytest.raises(ValueError, match=message + r"the tensor is \(5, 6\); plan this network"):
        program(other, plan, chip)
    for config in (
        memsim.CrossbarConfig(rows=4, crossbars=3),
        memsim.CrossbarConfig(rows=4, crossbars=2, bits=9),
    ):
        stranger = memsim.sample_chip(key, memsim.plan(params, config, memsim.policies.Sws()))
        message = r"`chip` belongs to another network or config: .* the plan needs uint8 \(2, 4\)"
        with pytest.raises(ValueError, match=message):
            program(params, plan, stranger)
        with pytest.raises(ValueError, match=message):
            memsim.enable_words(plan, stranger)


def test_a_policy_in_words_is_told_how_to_be_one(params, config):
    with pytest.raises(ValueError, match=r"`policy` is 'sws', a text; give Policy.parse\('sws'\)"):
        memsim.plan(params, config, "sws")


def test_slices_of_a_stack_are_programmed_as_layers_apart(key):
    weights = np.random.default_rng(0).standard_normal((3, 10, 6)).astype(np.float32)
    config = memsim.CrossbarConfig(rows=8, scale_per="output")
    stacked, apart = {"layers/mlp/kernel": weights}, {f"{i}/kernel": weights[i] for i in range(3)}
    for text in ("unsorted", "matched:tolerance=2", "flip-n-write:flags=section"):
        policy = memsim.Policy.parse(text)
        (held, one), (each, many) = (
            memsim.program(tree, plan, memsim.sample_chip(key, plan), passes=2)
            for tree in (stacked, apart)
            for plan in [memsim.plan(tree, config, policy)]
        )
        jax.tree.map(np.testing.assert_array_equal, one.counts, many.counts)
        for i in range(3):
            np.testing.assert_array_equal(held["layers/mlp/kernel"][i], each[f"{i}/kernel"])
    gradient = jax.grad(
        lambda tree: memsim.program(tree, plan, memsim.sample_chip(key, plan))[0][
            "layers/mlp/kernel"
        ].sum()
    )
    plan = memsim.plan(stacked, config, memsim.policies.Sws())
    np.testing.assert_array_equal(gradient(stacked)["layers/mlp/kernel"], np.ones((3, 10, 6)))


def test_layers_of_one_shape_share_what_is_compiled(key, compilations):
    rng = np.random.default_rng(0)

    def compiled(count):
        params = {f"{i}.weight": np.float32(rng.normal(size=(5, 11))) for i in range(count)}
        plan = memsim.plan(params, memsim.CrossbarConfig(rows=4), memsim.policies.Sws())
        chip, before = memsim.sample_chip(key, plan), compilations()
        memsim.program(params, plan, chip)
        return compilations() - before

    compiled(3)  # what is the same however many layers there are
    assert compiled(60) <= compiled(30) + 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_held_as_none(key, value):
    weights = {"weight": np.ones((3, 4), np.float32)}
    plan = memsim.plan(weights, memsim.CrossbarConfig(rows=4), memsim.policies.Sws())
    broken = {"weight": weights["weight"].copy()}
    broken["weight"][1, 2] = value
    chip = memsim.sample_chip(key, plan)
    for call in (memsim.program, jax.jit(memsim.program)):
        held = np.asarray(call(broken, plan, chip)[0]["weight"])
        np.testing.assert_array_equal(held[1, 2], np.float32(value))
        assert np.isfinite(np.delete(held.reshape(-1), 6)).all()
