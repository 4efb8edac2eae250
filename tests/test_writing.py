"""Writes that may fail: success, controllers, pulses, schemes by column; counts in test_network."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

import memsim
from memsim.cells import HFO2, PCM, cell_writes, parse_writing, scheme_writing
from training import finetune, redeploy, sweep, wearout
from training.evaluation import cross_entropy
from training.finetune.steps import Objective, stuck_aware_loss

ENCODINGS = ("twos_complement", "differential")


@pytest.fixture
def tensors():
    rng = np.random.default_rng(5)
    shapes = {"a/kernel": (40, 12), "b/kernel": (17, 9)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def planned(tensors, policy="sws", **words):
    return memsim.plan(tensors, memsim.CrossbarConfig(**words), memsim.Policy.parse(policy))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("controller", ["read", "blind"])
@pytest.mark.parametrize(
    "policy",
    [
        "sws+stuck:p=0.5,low=3",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("matched", "flip-n-write")),
    ],
)
def test_pulses_that_all_succeed_change_nothing(tensors, key, controller, policy):
    plan = planned(tensors, policy, rows=8, columns=24, crossbars=3)
    chip = memsim.sample_chip(key, plan, 0.01, 0.01)
    plain = memsim.program(tensors, plan, chip, passes=2, wear=True, words=True)
    writing = memsim.Writing(controller=controller)
    held, programming = memsim.program(
        tensors, plan, chip, passes=2, wear=True, words=True, writing=writing
    )
    same(held, plain[0])
    counts = programming.counts._replace(wrong=None)
    same((counts, programming.wear, programming.words), plain[1][:3])
    same(programming.chip.state, plain[1].chip.state)
    # pulses of every write, and no other
    np.testing.assert_array_equal(counts.set_pulses, counts.sets)
    np.testing.assert_array_equal(counts.reset_pulses, counts.resets)


def test_pulses_that_all_fail_leave_every_cell(tensors, key):
    plan = planned(tensors, rows=8)
    chip = memsim.sample_chip(key, plan)
    for controller in ("read", "blind"):
        writing = memsim.Writing(set_success=0.0, reset_success=0.0, controller=controller)
        _, programming = memsim.program(tensors, plan, chip, passes=2, writing=writing)
        summary = memsim.summarize(programming, plan)
        assert summary.writes == 0
        assert not np.asarray(programming.chip.state).any()
        ideal = memsim.summarize(memsim.program(tensors, plan, chip, passes=2)[1], plan)
        # a blind controller gives the pulses of the plan; one that reads sees erased cells
        if controller == "blind":
            assert summary.pulses == ideal.writes
        else:
            assert summary.reset_pulses == 0
            assert summary.set_pulses > ideal.sets


def test_a_blind_controller_goes_on_with_its_plan(tensors, key):
    plan = planned(tensors, rows=8)
    chip = memsim.sample_chip(key, plan)
    writing = memsim.Writing(set_success=0.7, reset_success=0.6, controller="blind")
    held, both = memsim.program(tensors, plan, chip, passes=2, writing=writing)
    _, first = memsim.program(tensors, plan, chip, writing=writing)
    again, second = memsim.program(tensors, plan, first.chip, writing=writing)
    same(held, again)
    same(both.chip.state, second.chip.state)
    same(both.chip.planned, second.chip.planned)
    # what it goes by is what a chip holds on which nothing fails
    same(both.chip.planned, memsim.program(tensors, plan, chip, passes=2)[1].chip.state)
    assert memsim.program(tensors, plan, first.chip)[1].chip.planned is None


def test_shares_are_those_asked_for(key):
    # of many cells of every column: SET and RESET apart, and columns too
    config = memsim.CrossbarConfig(rows=512, crossbars=8)
    rng = np.random.default_rng(0)
    tensors = {"kernel": rng.normal(size=(512, 64)).astype(np.float32)}
    plan = memsim.plan(tensors, config, memsim.policies.Unsorted())
    sets = (0.55, 0.9974, 0.1, 0.5, 0.999, 0.3, 1.0, 0.75)
    writing = memsim.Writing(set_success=sets, reset_success=0.9)
    chip = memsim.sample_chip(key, plan)
    set_ok, reset_ok = memsim.draws.success_words(plan, chip, writing)["kernel"]
    for ok, shares in ((set_ok, sets), (reset_ok, [0.9] * 8)):
        drawn = np.asarray(memsim.codes.bit_slice(ok, config)).reshape(-1, 8)
        deviation = np.sqrt(np.multiply(shares, np.subtract(1, shares)) / len(drawn))
        assert np.all(np.abs(drawn.mean(axis=0) - shares) <= 4.5 * deviation + 1e-12)


def test_cells_are_drawn_apart(key):
    # neighbours in a word, a row, a crossbar, a pass: each pair as often as chance has it
    config = memsim.CrossbarConfig(rows=512, crossbars=4)
    tensors = {"kernel": np.ones((512, 16), np.float32)}
    plan = memsim.plan(tensors, config, memsim.policies.Unsorted())
    writing = memsim.Writing(set_success=0.55, reset_success=0.55)
    chip = memsim.sample_chip(key, plan)
    cells = []
    for passed in (0, 1):
        later = chip._replace(passes=jnp.int32(passed))
        words = memsim.draws.success_words(plan, later, writing)["kernel"][0]
        cells.append(np.asarray(memsim.codes.bit_slice(words, config)) - 0.55)
    one, other = cells
    pairs = {
        "passes": (one, other),
        "sections": (one[1:], one[:-1]),
        "words": (one[:, 1:], one[:, :-1]),
        "an eighth": (one[:, 64:], one[:, :-64]),
        "columns": (one[..., 1:], one[..., :-1]),
    }
    for name, (left, right) in pairs.items():
        products = left * right
        assert abs(products.mean()) < 4.5 * 0.55 * 0.45 / np.sqrt(products.size), name


@pytest.mark.parametrize("controller", ["read", pytest.param("blind", marks=pytest.mark.slow)])
def test_compiled_mapped_and_eager_agree(tensors, key, controller):
    plan = planned(tensors, "matched", rows=8, columns=17, crossbars=2)
    chips = [memsim.sample_chip(one, plan, 0.02, 0.02) for one in jax.random.split(key, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chips)

    def program(chip, writing):
        held, programming = memsim.program(tensors, plan, chip, passes=2, writing=writing)
        return held, programming.counts, programming.chip.state

    writing = memsim.Writing(set_success=0.8, reset_success=(0.9,) * 8, controller=controller)
    compiled = jax.jit(program)
    mapped = jax.vmap(program, in_axes=(0, None))(stacked, writing)
    for number, chip in enumerate(chips):
        eager = program(chip, writing)
        same(eager, compiled(chip, writing))
        same(eager, jax.tree.map(lambda x, n=number: x[n], mapped))
    # other numbers are no other program
    compiled(chips[0], memsim.Writing(
        set_success=0.1, reset_success=(0.2,) * 8, controller=controller
    ))  # fmt: skip
    assert compiled._cache_size() == 1


def test_gradients_go_straight_through(tensors, key):
    plan = planned(tensors, rows=8)
    chip = memsim.sample_chip(key, plan)
    writing = memsim.Writing(set_success=0.5, reset_success=0.5)

    def total(params):
        held = memsim.program(params, plan, chip, writing=writing)[0]
        return sum(jnp.sum(leaf) for leaf in held.values())

    for gradient in jax.grad(total)(tensors).values():
        np.testing.assert_array_equal(gradient, np.ones_like(gradient))


@pytest.mark.parametrize("controller", ["read", "blind"])
@pytest.mark.parametrize(
    "crossbars", [1, *(pytest.param(number, marks=pytest.mark.slow) for number in (3, None))]
)
def test_compare_counts_what_program_does(tensors, controller, crossbars):
    config = memsim.CrossbarConfig(rows=8, columns=16, crossbars=crossbars)
    policies = {name: memsim.Policy.parse(name) for name in ("unsorted", "matched")}
    writing = memsim.Writing(
        set_success=0.9, reset_success=0.8, set_pulses=2.5, controller=controller
    )
    chips = memsim.Chips(number=2, seed=3, stuck_at_0=0.02, stuck_at_1=0.01)
    found = memsim.compare(
        tensors, config, policies, passes=2, chips=chips, writing=writing
    ).policies
    keys = jax.random.split(jax.random.key(3), 2)
    for name, policy in policies.items():
        plan = memsim.plan(tensors, config, policy)
        each = []
        for one in keys:
            chip = memsim.sample_chip(one, plan, 0.02, 0.01)
            programming = memsim.program(tensors, plan, chip, passes=2, wear=True, writing=writing)[
                1
            ]
            each.append(memsim.summarize(programming, plan))
        mean = memsim.mean_over_chips(each)
        for field in ("writes", "pulses", "set_pulses", "wrong_cells", "row_operations"):
            assert getattr(found[name], field) == getattr(mean, field), field
        for one in each:
            pulses = 2.5 * one.set_pulses + one.reset_pulses
            assert abs(one.pulses - pulses) <= 0.5


def test_chips_differ_where_writes_fail(tensors):
    config = memsim.CrossbarConfig(rows=8)
    policies = {"unsorted": memsim.policies.Unsorted()}
    chips = memsim.Chips(number=4)
    surely, maybe = (
        memsim.compare(
            tensors, config, policies, chips=chips, writing=memsim.Writing(set_success=p)
        ).policies["unsorted"]
        for p in (1.0, 0.5)
    )
    assert surely.intervals["writes"][0] == surely.intervals["writes"][1]
    assert maybe.intervals["writes"][0] < maybe.intervals["writes"][1]
    assert surely.wrong_cells == 0
    assert maybe.wrong_share > 0.1


def test_a_scheme_says_how_often_it_gives_up():
    config = memsim.CrossbarConfig()
    writing = scheme_writing(HFO2["write-verify"], config)
    sets, resets = cell_writes(HFO2["write-verify"])
    assert writing.set_success == 1 - sets.residual_error
    assert writing.reset_success == 1 - resets.residual_error
    # the published residuals, and means
    assert (round(1e4 * sets.residual_error), round(1e4 * resets.residual_error)) == (26, 16)
    assert writing.set_pulses == pytest.approx(3.2, abs=0.01)
    assert writing.reset_pulses == pytest.approx(4.35, abs=0.01)
    once = scheme_writing(PCM["constant"], config)
    assert (once.set_success, once.set_pulses) == (1.0, 1.0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_low_columns_take_one_pulse(encoding):
    config = memsim.CrossbarConfig(encoding=encoding)
    writing = parse_writing("write-verify:low=3", config)
    verified = np.asarray(writing.set_success) > 0.9
    of_half = config.cells_per_word // len(config.halves)
    low = np.arange(config.cells_per_word) % of_half < 3
    np.testing.assert_array_equal(verified, ~low)
    np.testing.assert_array_equal(np.asarray(writing.set_pulses)[low], 1)
    assert parse_writing("write-verify:low=0", config) == parse_writing("write-verify", config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sometimes", "choose success:set=P,reset=P or one of constant, write-verify, ramp"),
        ("success", "give set, reset too"),
        ("success:set=1.2,reset=1", "`set_success` is 1.2; a probability lies in 0..1"),
        ("success:set=1,reset=1,controller=deaf", "`controller` is 'deaf'"),
        ("ramp:cells=pcm", "pcm has constant, write-verify, no ramp"),
        ("write-verify:cells=tin", "`cells` is 'tin'"),
        ("write-verify:low=9", "`low` is 9; a half of a word has 8 columns"),
        ("constant:low=2", "a constant pulse verifies none"),
        ("write-verify:row=2", "write-verify takes cells, low, controller"),
    ],
)
def test_texts_that_are_no_writing_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_writing(text, memsim.CrossbarConfig())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"set_success": -0.1}, "`set_success` is -0.1"),
        ({"reset_success": float("nan")}, "`reset_success` is nan"),
        ({"reset_success": (0.5, 2.0)}, "`reset_success` is 2.0"),
        ({"set_success": [0.5, 0.5]}, "give a number, or a tuple by column"),
        ({"set_success": "often"}, "`set_success` is 'often'"),
        ({"set_pulses": 0.5}, "`set_pulses` is 0.5; give a number of pulses"),
        ({"controller": "both"}, "`controller` is 'both'; choose one of 'read', 'blind'"),
    ],
)
def test_numbers_that_are_no_writing_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        memsim.Writing(**words)


def test_a_writing_of_other_columns_is_refused(tensors, key):
    plan = planned(tensors, rows=8)
    chip = memsim.sample_chip(key, plan)
    writing = memsim.Writing(set_success=(0.5,) * 14)
    with pytest.raises(ValueError, match="`set_success` of `writing` has 14 numbers, but a word"):
        memsim.program(tensors, plan, chip, writing=writing)
    with pytest.raises(ValueError, match="`writing` is a float"):
        memsim.program(tensors, plan, chip, writing=0.5)
    with pytest.raises(ValueError, match="8 columns"):
        memsim.compare(tensors, plan.config, {}, writing=writing)
    with pytest.raises(ValueError, match="figures for cells of 2 levels"):
        parse_writing("constant", memsim.CrossbarConfig(cell_bits=2))


def test_a_chip_keeps_what_a_blind_controller_goes_by(tensors, key, tmp_path):
    plan = planned(tensors, rows=8)
    chip = memsim.sample_chip(key, plan, 0.05, 0.05)
    writing = memsim.Writing(set_success=0.6, controller="blind")
    after = memsim.program(tensors, plan, chip, writing=writing)[1].chip
    path = tmp_path / "chip.safetensors"
    memsim.save_chip(path, after, plan.config)
    loaded = memsim.load_chip(path, plan.config)
    same(
        jax.tree.leaves(after._replace(key=jax.random.key_data(after.key))),
        jax.tree.leaves(loaded._replace(key=jax.random.key_data(loaded.key))),
    )
    spoiled = after._replace(planned=~after.stuck_at_1 & after.planned)
    with pytest.raises(ValueError, match="`planned` has stuck cells at another level"):
        memsim.save_chip(tmp_path / "other.safetensors", spoiled, plan.config)


def test_report_and_program_let_writes_fail(run, tensors, tmp_path):
    path = tmp_path / "net.safetensors"
    memsim.save_tensors(path, tensors)
    out = tmp_path / "report.json"
    text = "write-verify:low=3,controller=blind"
    status, shown, _ = run(
        "report", path, "--policy", "sws", "--policy", "matched", "--writing", text,
        "--chips", 2, "--json", out, "--html", tmp_path / "report.html",
    )  # fmt: skip
    assert status == 0
    document = json.loads(out.read_text())
    assert document["writing"]["text"] == text
    assert document["writing"]["controller"] == "blind"
    for entry in document["policies"].values():
        assert entry["pulses"] > entry["writes"]
        assert entry["set_pulses"] + entry["reset_pulses"] > entry["writes"]
        assert 0 < entry["wrong_share"] < 1
        assert f"{entry['wrong_cells']:,}" in shown
    page = (tmp_path / "report.html").read_text()
    assert "Failed writes" in page
    assert "goes by the plan alone" in page
    _, shown, _ = run(
        "program", path, "--policy", "sws", "--out", tmp_path / "held.safetensors",
        "--writing", "success:set=0.5,reset=0.5",
    )  # fmt: skip
    assert "are wrong" in shown


@pytest.fixture
def job():
    """A job of `training`: `job(main, *options)` leaves its result, or what went wrong."""

    def job(main, *options):
        app = typer.Typer()
        app.command()(main)
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
            result = CliRunner().invoke(app, [*map(str, options)])
        assert result.exit_code == 0, result.output + repr(result.exception)

    return job


@pytest.mark.slow
def test_a_sweep_counts_what_program_does(job, digits_weights, tmp_path):
    text = "success:set=0.8,reset=0.7,controller=blind"
    job(
        sweep.main, "--weights", digits_weights, "--policy", "sws", "--chips", 2, "--passes", 2,
        "--writing", text, "--out", tmp_path,
    )  # fmt: skip
    source = memsim.open_checkpoint(digits_weights)
    params = {name: jnp.asarray(source.load(name)) for name in source.tensors}
    plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.policies.Sws())
    for row in pq.read_table(tmp_path / "sweep.parquet").to_pylist():
        own = jax.random.fold_in(jax.random.key(0), row["chip"])
        chip = memsim.sample_chip(own, plan)
        writing = parse_writing(text, plan.config)
        programming = memsim.program(params, plan, chip, passes=2, writing=writing)[1]
        summary = memsim.summarize(programming, plan)
        assert row["writing"] == text
        found = (row["writes"], row["pulses"], row["wrong_cells"])
        assert found == (summary.writes, summary.pulses, summary.wrong_cells)


@pytest.mark.slow
def test_fine_tuning_sees_the_weights_that_were_written(job, tmp_path):
    job(
        finetune.main, "--epochs", 2, "--steps", 2, "--chips", 2, "--stuck-at", 0, "--policy",
        "sws", "--writing", "success:set=0.97,reset=0.97", "--out", tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["writing"] == "success:set=0.97,reset=0.97"
    assert report["policies"]["sws"]["wrong_share"] > 0
    # chips differ by their failed writes alone
    assert len(set(report["accuracy"]["programmed_per_chip"])) == 2


def test_the_loss_is_of_failed_writes(key):
    params = {"kernel": np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=12), memsim.policies.Sws())
    chip, images = memsim.sample_chip(key, plan), jnp.eye(12)
    labels = jnp.arange(12) % 3

    def apply(held, images):
        return images @ held["kernel"]

    writing = memsim.Writing(set_success=0.3)
    objective = Objective(apply=apply, writing=writing)
    total, _ = stuck_aware_loss(params, plan, chip, images, labels, objective)
    held = memsim.program(params, plan, chip, writing=writing)[0]
    assert total == cross_entropy(apply(held, images), labels)
    assert total != cross_entropy(apply(memsim.program(params, plan, chip)[0], images), labels)


@pytest.mark.slow
def test_wearing_chips_fail_too(job, digits_weights, tmp_path):
    common = ("--weights", digits_weights, "--chips", 2, "--writing")
    job(wearout.main, *common, "write-verify", "--policy", "matched", "--out", tmp_path / "w.json")
    assert json.loads((tmp_path / "w.json").read_text())["writing"] == "write-verify"
    text = "write-verify:controller=blind"
    job(redeploy.main, *common, text, "--updates", 2, "--steps", 2, "--out", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["writing"] == text
