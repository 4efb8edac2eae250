import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracles
import pytest

import memsim

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")
POLICIES = {
    "word": memsim.policies.FlipNWrite(),
    "section": memsim.policies.FlipNWrite(flags="section"),
    "aras": memsim.policies.Aras(),
}


def network(seed, shapes, dtype=np.float32):
    rng = np.random.default_rng(seed)
    # weights with a bias: only then has a layer offsets to choose from
    return {
        f"layer{i}.weight": (rng.laplace(size=shape) + rng.choice([-1, 0, 1])).astype(dtype)
        for i, shape in enumerate(shapes)
    }


def axes_of(tensors):
    return dict.fromkeys(tensors, (0,))


def check_against_loops(tensors, config, form, key, rates=(0.0, 0.0), passes=1):
    plan = memsim.plan(tensors, config, POLICIES[form])
    chip = memsim.sample_chip(key, plan, *rates)
    held, programming = memsim.program(tensors, plan, chip, passes=passes, wear=True)
    stuck = memsim.chip.fault_cells(chip, plan.config)
    expected, _ = oracles.competitor(tensors, axes_of(tensors), config, form, stuck, passes)
    for k, of_pass in enumerate(expected.counts):
        for i, name in enumerate(plan.names):
            np.testing.assert_array_equal(programming.counts.sets[k, i], of_pass[name].sets)
            np.testing.assert_array_equal(programming.counts.resets[k, i], of_pass[name].resets)
            row_operations = programming.counts.row_operations[k, i]
            assert row_operations == of_pass[name].row_operations
            if not any(rates):
                moved = programming.counts.moved_words[k, i] * sum(oracles.part_bits(config))
                assert moved + programming.counts.row_flags[k, i] == of_pass[name].data_bits
    np.testing.assert_array_equal(programming.wear, expected.wear)
    levels = memsim.codes.bit_slice(programming.chip.state, plan.config)
    levels = memsim.chip.on_bit_lines(levels, plan.config)
    np.testing.assert_array_equal(levels, expected.state)
    for name, weights in tensors.items():
        np.testing.assert_array_equal(held[name], expected.effective[name])
        if not any(rates):
            scale = plan.layers[name].scale
            codes = memsim.codes.quantize(jnp.asarray(weights), scale, config)
            exact = memsim.codes.dequantize(codes, scale, weights.dtype)
            np.testing.assert_array_equal(held[name], exact)


@hypothesis.given(
    seed=st.integers(0, 999),
    form=st.sampled_from(["word", "section"]),
    encoding=st.sampled_from(ENCODINGS),
    bits=st.sampled_from([2, 5, 8]),
    cell_bits=st.sampled_from([1, 2, 4]),
    crossbars=st.sampled_from([1, 3, None]),
    schedule=st.sampled_from(["block", "interleaved"]),
    passes=st.integers(1, 2),
    rate=st.sampled_from([0.0, 0.1]),
    columns=st.sampled_from([None, 34]),
)
@hypothesis.settings(max_examples=3)
def test_flips_are_those_of_plain_loops(
    seed, form, encoding, bits, cell_bits, crossbars, schedule, passes, rate, columns
):
    config = memsim.CrossbarConfig(
        rows=4, encoding=encoding, bits=bits, cell_bits=cell_bits, crossbars=crossbars,
        schedule=schedule, columns=columns,
    )  # fmt: skip
    tensors = network(seed, [(5, 6), (3, 9)])
    check_against_loops(tensors, config, form, jax.random.key(seed), (rate, rate / 2), passes)


@pytest.mark.slow
@hypothesis.given(
    seed=st.integers(0, 999),
    encoding=st.sampled_from(ENCODINGS[:2]),
    bits=st.sampled_from([2, 4, 6]),
    cell_bits=st.sampled_from([1, 2]),
    crossbars=st.sampled_from([1, 3, None]),
    schedule=st.sampled_from(["block", "interleaved"]),
    passes=st.integers(1, 2),
    rate=st.sampled_from([0.0, 0.1]),
    columns=st.sampled_from([None, 34]),
)
@hypothesis.settings(max_examples=8)
def test_offsets_are_the_best_of_all(
    seed, encoding, bits, cell_bits, crossbars, schedule, passes, rate, columns
):
    config = memsim.CrossbarConfig(
        rows=4, encoding=encoding, bits=bits, cell_bits=cell_bits, crossbars=crossbars,
        schedule=schedule, columns=columns,
    )  # fmt: skip
    tensors = network(seed, [(5, 6), (3, 9)])
    check_against_loops(tensors, config, "aras", jax.random.key(seed), (rate, rate / 2), passes)


@pytest.mark.parametrize("form", POLICIES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_scale_per_output_and_other_dtypes(form, dtype, key):
    config = memsim.CrossbarConfig(rows=4, bits=10, scale_per="output")
    tensors = {"weight": network(1, [(3, 9)], dtype)["layer0.weight"]}
    plan = memsim.plan(tensors, config, POLICIES[form])
    held, _ = memsim.program(tensors, plan, memsim.sample_chip(key, plan))
    scale = plan.layers["weight"].scale
    codes = memsim.codes.quantize(jnp.asarray(tensors["weight"]), scale, config)
    exact = memsim.codes.dequantize(codes, scale, tensors["weight"].dtype)
    np.testing.assert_array_equal(held["weight"], exact)


def test_an_offset_is_chosen_where_there_is_one():
    config = memsim.CrossbarConfig(rows=4, bits=4)
    # codes -1 and 0 differ in all cells; 2 and 3 in one
    weights = np.tile(np.array([[-7, -1, -1, -1], [-7, 0, 0, 0]], np.float32), (8, 1))
    layer = memsim.plan({"weight": weights}, config, POLICIES["aras"]).layers["weight"]
    assert layer.offset.dtype == np.int32
    assert int(layer.offset) == 1
    symmetric = np.concatenate([weights, -weights])
    layer = memsim.plan({"weight": symmetric}, config, POLICIES["aras"]).layers["weight"]
    assert int(layer.offset) in (-1, 0)  # a word has one code more below than above


@pytest.mark.parametrize(
    "name",
    ["streams", *(pytest.param(name, marks=pytest.mark.slow) for name in ("faults", "stationary"))],
)
def test_compared_counts_are_those_of_whole_networks(name):
    config, passes, rates = {
        "streams": (memsim.CrossbarConfig(rows=4), 2, (0.0, 0.0)),
        "faults": (memsim.CrossbarConfig(rows=4, crossbars=3), 1, (0.1, 0.05)),
        "stationary": (memsim.CrossbarConfig(rows=4, crossbars=None), 2, (0.0, 0.0)),
    }[name]
    tensors = network(3, [(5, 6), (3, 9), (4, 4)])
    result = memsim.compare(
        tensors,
        config,
        POLICIES,
        passes=passes,
        chips=memsim.Chips(stuck_at_0=rates[0], stuck_at_1=rates[1]),
    )
    key = jax.random.split(jax.random.key(0), 1)[0]
    for form, policy in (POLICIES | {"unsorted": memsim.policies.Unsorted()}).items():
        plan = memsim.plan(tensors, config, policy)
        chip = memsim.sample_chip(key, plan, *rates)
        _, programming = memsim.program(tensors, plan, chip, passes=passes, wear=True)
        summary = memsim.summarize(programming, plan)
        if form == "unsorted":
            baseline = summary
        else:
            none = {"reduction": None, "net_reduction": None}
            expected = dataclasses.replace(result.policies[form], **none)
            assert summary == expected
    for summary in result.policies.values():
        assert summary.reduction == baseline.writes / summary.writes


@pytest.mark.parametrize("keep_placement", [False, True])
@pytest.mark.parametrize("form", POLICIES)
def test_a_new_version_is_chosen_against_what_the_old_one_left(form, keep_placement):
    config = memsim.CrossbarConfig(rows=4, bits=5, crossbars=None)
    old, new = (network(seed, [(5, 6), (3, 9)]) for seed in (1, 2))
    result = memsim.compare(
        new, config, {form: POLICIES[form]}, old=old, keep_placement=keep_placement
    )
    before, left = oracles.competitor(old, axes_of(old), config, form)
    after, now = oracles.competitor(new, axes_of(new), config, form, left=left)
    expected = sum(level != left.get(cell, 0) for cell, level in now.items())
    assert result.policies[form].writes == expected
    assert before.effective.keys() == after.effective.keys()


def test_data_cells_have_the_faults_they_have_without_flags(key):
    tensors = network(0, [(9, 30)])
    config = memsim.CrossbarConfig(rows=8, crossbars=3, cell_bits=2, bits=7)
    faults = {}
    for form, policy in (POLICIES | {"unsorted": memsim.policies.Unsorted()}).items():
        plan = memsim.plan(tensors, config, policy)
        chip = memsim.sample_chip(key, plan, 0.2, 0.1)
        faults[form] = np.stack(memsim.chip.fault_cells(chip, plan.config))
    for form in POLICIES:
        np.testing.assert_array_equal(faults[form][:, :, :8, :4], faults["unsorted"])
    assert faults["word"].shape == (2, 3, 8, 5)
    assert faults["section"].shape == (2, 3, 9, 4)
    assert faults["aras"].shape == (2, 3, 8, 4)


def test_flag_cells_are_stuck_as_often_as_others(key):
    tensors = network(0, [(4, 2000)])
    config = memsim.CrossbarConfig(rows=1, crossbars=8000)
    for form in ("word", "section"):
        plan = memsim.plan(tensors, config, POLICIES[form])
        low, high = memsim.chip.fault_cells(memsim.sample_chip(key, plan, 0.2, 0.1), plan.config)
        flags = (..., -1) if form == "word" else (slice(None), -1)
        np.testing.assert_allclose(low[flags].mean(), 0.2, atol=0.02)
        np.testing.assert_allclose(high[flags].mean(), 0.1, atol=0.02)
        assert not (low & high).any()


@pytest.mark.parametrize("form", ["word", "section"])
def test_a_map_without_flag_cells_leaves_them_whole(form, key):
    tensors = network(0, [(5, 6), (3, 9)])
    config = memsim.CrossbarConfig(rows=4, crossbars=2)
    plan = memsim.plan(tensors, config, POLICIES[form])
    drawn = np.random.default_rng(0).random((2, 4, 8))
    faults = drawn < 0.1, drawn > 0.9
    chip = memsim.with_faults(key, *(memsim.chip.fault_words(x, 2, plan.config) for x in faults))
    held, programming = memsim.program(tensors, plan, chip, wear=True)
    of_all = [np.zeros(programming.wear.shape, bool) for _ in faults]
    for all_cells, given in zip(of_all, faults, strict=True):
        all_cells[:, :4, :8] = given
    expected, _ = oracles.competitor(tensors, axes_of(tensors), config, form, of_all)
    np.testing.assert_array_equal(programming.wear, expected.wear)
    for name in tensors:
        np.testing.assert_array_equal(held[name], expected.effective[name])
    compared = memsim.compare(
        tensors,
        config,
        {form: POLICIES[form]},
        chips=memsim.Chips(faults=faults),
    )
    assert compared.policies[form].writes == expected.wear.sum()
    # and one with flag cells is taken as it is
    words = memsim.chip.fault_words(of_all[0], 2, plan.config)
    np.testing.assert_array_equal(words, chip.stuck_at_0)


@pytest.mark.parametrize("form", ["word", "section"])
def test_a_stuck_flag_turns_what_is_stored_round(form, key):
    config = memsim.CrossbarConfig(rows=4)
    tensors = {"weight": np.full((1, 4), -1, np.float32)}  # code -127: 10000001
    plan = memsim.plan(tensors, config, POLICIES[form])
    stuck = np.zeros((1, plan.config.physical_rows, plan.config.cells_per_word), bool)
    stuck[(0, 1, 8) if form == "word" else (0, 4, 1)] = True
    nothing = memsim.chip.fault_words(np.zeros_like(stuck), 1, plan.config)
    chip = memsim.with_faults(key, nothing, memsim.chip.fault_words(stuck, 1, plan.config))
    held, _ = memsim.program(tensors, plan, chip)
    codes = np.rint(np.asarray(held["weight"])[0] * 127)
    # the complement of 10000001 is 01111110; of its column 1 alone, 10000011
    expected = [-127, 126, -127, -127] if form == "word" else [-125] * 4
    np.testing.assert_array_equal(codes, expected)


@hypothesis.given(seed=st.integers(0, 999), encoding=st.sampled_from(ENCODINGS))
@hypothesis.settings(max_examples=4)
def test_no_word_takes_more_writes_than_half_its_cells(seed, encoding):
    config = memsim.CrossbarConfig(rows=1, bits=6, encoding=encoding)
    tensors = {"weight": np.random.default_rng(seed).uniform(-1, 1, (200, 1)).astype(np.float32)}
    plan = memsim.plan(tensors, config, POLICIES["word"])
    scale = plan.layers["weight"].scale
    words = np.asarray(memsim.codes.quantize(jnp.asarray(tensors["weight"]), scale, config))
    words = np.asarray(memsim.codes.encode(jnp.asarray(words), plan.config)).astype(int)
    stored = np.concatenate([[0], (words ^ np.asarray(plan.layers["weight"].flips))[:, 0]])
    writes = np.bitwise_count(stored[1:] ^ stored[:-1])
    assert writes.max() <= plan.config.cells_per_word // 2
    chip = memsim.sample_chip(jax.random.key(0), plan)
    _, programming = memsim.program(tensors, plan, chip)
    assert memsim.summarize(programming, plan).writes == writes.sum()


@pytest.mark.slow
def test_words_and_their_complements_in_turn_take_a_flag_each(key):
    weights = np.tile(np.array([[0], [-1]], np.float32), (8, 1)) / 127  # words 0 and 11111111
    weights[0] = 1
    config = memsim.CrossbarConfig(rows=1)
    writes = {
        form: memsim.compare({"weight": weights}, config, {form: policy}).policies[form].writes
        for form, policy in (POLICIES | {"unsorted": memsim.policies.Unsorted()}).items()
        if form != "aras"
    }
    # 01111111, then 11111111 is one cell away; from there on whole words turn
    assert writes == {"unsorted": 7 + 1 + 14 * 8, "word": 2 + 1 + 14, "section": 7 + 1 + 14 * 8}


@pytest.mark.slow
def test_under_jit_vmap_and_grad(key):
    params = {"kernel": jax.random.normal(key, (20, 4)), "bias": jnp.ones(4)}
    config = memsim.CrossbarConfig(rows=8)
    for form, policy in POLICIES.items():
        plan = memsim.plan(params, config, policy)

        def one(key, params, plan=plan):
            chip = memsim.sample_chip(key, plan, 0.05, 0.05)
            held, programming = memsim.program(params, plan, chip)
            return held["kernel"], programming.counts, memsim.enable_words(plan, chip)

        keys = jax.random.split(key, 2)
        batched = jax.jit(jax.vmap(one, (0, None)))(keys, params)
        singles = [one(k, params) for k in keys]
        jax.tree.map(np.testing.assert_array_equal, batched, jax.tree.map(lambda *x: jnp.stack(x),
                                                                          *singles))  # fmt: skip
        enable = batched[2]["kernel"]
        assert enable.shape == (2, 12, 9 if form == "section" else 8)
        if form == "section":  # short sections of 4 rows have flags too
            assert np.all(np.any(np.asarray(enable)[..., 8] != 0, axis=0))
            assert not np.any(np.asarray(enable)[:, 2::3, 4:8])
        gradient = jax.grad(lambda params, one=one: one(key, params)[0].sum())(params)
        np.testing.assert_array_equal(gradient["kernel"], np.ones((20, 4)))


@pytest.mark.parametrize("form", POLICIES)
def test_weights_may_move_after_planning(form, key):
    params = {"kernel": np.asarray(jax.random.normal(key, (20, 4))) + 1}
    config = memsim.CrossbarConfig(rows=8)
    plan = memsim.plan(params, config, POLICIES[form])
    moved = {"kernel": params["kernel"][::-1] * np.float32(1.5)}  # codes clip, and stay words
    held, _ = memsim.program(moved, plan, memsim.sample_chip(key, plan))
    scale = plan.layers["kernel"].scale
    codes = np.asarray(memsim.codes.quantize(jnp.asarray(moved["kernel"]), scale, config)).astype(
        int
    )
    if form == "aras":
        offset = int(plan.layers["kernel"].offset)
        codes = np.clip(codes + offset, -128, 127) - offset
    np.testing.assert_array_equal(held["kernel"], np.float32(codes) * np.asarray(scale))


@pytest.mark.parametrize("form", POLICIES)
def test_plans_and_chips_are_saved_whole(tmp_path, form, key):
    params = {"kernel": jax.random.normal(key, (20, 4)), "other/kernel": jnp.ones((3, 3))}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=8, crossbars=2), POLICIES[form])
    memsim.save_plan(tmp_path / "plan.safetensors", plan)
    loaded = memsim.load_plan(tmp_path / "plan.safetensors")
    assert loaded.config == plan.config
    jax.tree.map(np.testing.assert_array_equal, loaded, plan)
    chip = memsim.sample_chip(key, plan, 0.1, 0.1)
    memsim.save_chip(tmp_path / "chip", chip, plan.config)
    again = memsim.load_chip(tmp_path / "chip", plan.config)
    np.testing.assert_array_equal(again.stuck_at_1, chip.stuck_at_1)
    memsim.save_faults(tmp_path / "map.npz", chip, plan.config)
    low, _ = memsim.load_faults(tmp_path / "map.npz")
    words = memsim.chip.fault_words(low, plan.crossbars, plan.config)
    np.testing.assert_array_equal(words, chip.stuck_at_0)


@pytest.mark.slow
def test_the_flag_is_a_column_above_all_others():
    for encoding in ENCODINGS:
        for bits in range(2, 14):
            for cell_bits in (1, 2, 4):
                plain = memsim.CrossbarConfig(bits=bits, cell_bits=cell_bits, encoding=encoding)
                config = POLICIES["word"].stored_on(plain)
                assert config.unflagged == plain
                assert config.cells_per_word == plain.cells_per_word + 1
                assert config.column_masks[:-1] == plain.column_masks
                flag = config.column_masks[-1]
                assert flag > sum(plain.column_masks)
                assert config.column_weights == (*plain.column_weights, 0)
                assert not config.low_mask(bits) & flag
                codes = np.arange(-plain.max_code, plain.max_code + 1)
                words = memsim.codes.encode(jnp.asarray(codes), config)
                assert words.dtype == config.word_dtype
                whole = jnp.asarray(sum(config.column_masks), config.word_dtype)
                for stored in (words, words ^ whole):
                    np.testing.assert_array_equal(memsim.codes.decode(stored, config), codes)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("flip-n-write", memsim.policies.FlipNWrite()),
        ("flip-n-write:flags=section", memsim.policies.FlipNWrite(flags="section")),
        ("aras", memsim.policies.Aras()),
    ],
)
def test_policies_are_read_as_they_are_written(text, policy):
    assert memsim.Policy.parse(text) == policy
    assert str(policy) == text
    assert memsim.Policy.parse("flip-n-write:flags=word") == memsim.policies.FlipNWrite()


def planned(text, **options):
    config = memsim.CrossbarConfig(**options)
    return memsim.plan({"kernel": np.ones((3, 3))}, config, memsim.Policy.parse(text))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: memsim.Policy.parse("aras:p=0.5"), r"aras takes no options\.$"),
        (lambda: memsim.Policy.parse("aras+stuck:p=0.5,low=1"), "choose one of unsorted, sws"),
        (lambda: memsim.Policy.parse("flip-n-write+stuck:p=1,low=1"), "choose one of unsorted"),
        (lambda: memsim.Policy.parse("flip-n-write:p=1"), "flip-n-write takes flags"),
        (
            lambda: memsim.Policy.parse("flip-n-write:flags=row"),
            "`flags` is 'row'; choose one of 'word', 'section'",
        ),
        (lambda: memsim.policies.Sws(flags="section"), "unexpected keyword argument 'flags'"),
        (lambda: memsim.policies.Aras(low=2), "unexpected keyword argument 'low'"),
        (
            lambda: memsim.with_stucking(planned("aras"), memsim.policies.Unsorted(low=2, p=0.5)),
            "`low` is 2, but this plan of flip-n-write or aras takes no bit stucking",
        ),
        (lambda: memsim.CrossbarConfig(flags="row"), "`flags` is 'row'; choose one of 'none'"),
        (
            lambda: planned("aras", encoding="differential"),
            "`encoding` is 'differential', but aras stores unsigned words; use 'twos_complement'",
        ),
        (lambda: planned("aras", bits=11), "`bits` is 11, but aras searches .* at most 10 bits"),
        (
            lambda: planned("flip-n-write", bits=16, cell_bits=2, encoding="differential"),
            "`flags` is 'word', but differential words of 16 bits in cells of 2",
        ),
        (
            lambda: memsim.chip.fault_words(
                np.zeros((1, 128, 9), bool), 1, planned("flip-n-write:flags=section").config
            ),
            r"but this chip is \(1, 129, 8\)",
        ),
    ],
)
def test_wrong_policies_say_what_is_wrong(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_flags_and_offsets_have_their_price():
    weights = {"kernel": np.ones((300, 50), np.float32)}
    compared = memsim.compare(weights, memsim.CrossbarConfig(), POLICIES).policies
    index_bits = {form: summary.index_bits_per_weight for form, summary in compared.items()}
    expected = {"word": 1, "section": 8 * 3 / 300, "aras": 9 / 15000}
    assert index_bits == pytest.approx(expected, rel=1e-6)
    valid = {form: summary.analog_valid for form, summary in compared.items()}
    assert valid == {"word": False, "section": True, "aras": True}
    assert len(compared["word"].writes_per_column) == 9


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    import json

    import memsim.cli

    memsim.save_tensors(tmp_path / "net.npz", network(0, [(5, 60), (3, 90)]))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["memsim", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            memsim.cli.main()
        assert not done.value.code, capsys.readouterr().err

    net, options = tmp_path / "net.npz", ["--rows", "16"]
    names = ["flip-n-write", "flip-n-write:flags=section", "aras"]
    chosen = [word for name in names for word in ("--policy", name)]
    run("report", net, *chosen, *options, "--json", tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["config"]["flags"] == "none"
    assert list(document["policies"]) == names
    assert "complemented words" in " ".join(capsys.readouterr().out.split())
    for i, name in enumerate(names):
        plan, held = tmp_path / f"plan{i}", tmp_path / f"held{i}.npz"
        run("plan", net, "--policy", name, "--out", plan, *options)
        run("program", net, "--plan", plan, "--out", held)
        assert f"{document['policies'][name]['writes']:,} writes" in capsys.readouterr().out
        tensors = memsim.open_checkpoint(held)
        np.testing.assert_array_equal(
            tensors.load("layer0.weight"),
            memsim.open_checkpoint(tmp_path / "held0.npz").load("layer0.weight"),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "reductions"),
    [
        ("resnet20_cifar10", (1.362, 1.074, 1.119)),
        pytest.param("deit_tiny_patch16_224", (1.447, 1.071, 1.161), marks=pytest.mark.slow),
        pytest.param("resnet50_stages1to4", (1.747, 1.069, 1.532), marks=pytest.mark.slow),
    ],
)
def test_trained_weights_gain_what_the_readme_says(assets, network, reductions):
    checkpoint = memsim.open_checkpoint(assets / f"{network}.safetensors")
    result = memsim.compare(checkpoint, memsim.CrossbarConfig(), POLICIES).policies
    measured = tuple(result[form].reduction for form in POLICIES)
    assert measured == pytest.approx(reductions, abs=6e-4)
