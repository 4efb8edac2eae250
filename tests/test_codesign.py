"""Words chosen for few writes: no other choice costs less, by plain loops; the job that trains."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import memsim
from tests import processes
from training import codesign
from training.runs import METRICS

ENCODINGS = ("sign_magnitude", "twos_complement", "offset_binary")


@functools.cache
def words_by_code(config):
    codes = np.arange(config.min_code, config.max_code + 1)
    words = memsim.codes.encode(jnp.asarray(codes), config)
    return dict(zip(codes.tolist(), map(int, words), strict=True))


def cells_changed(one, other, config):
    return sum(((one ^ other) & mask) != 0 for mask in config.column_masks)


def cost_of(codes, asked, before, price, config):
    """Squared errors and writes of the codes that follow one another in one place."""
    words, last, cost = words_by_code(config), before, 0.0
    for code, wanted in zip(codes, asked, strict=True):
        cost += (code - wanted) ** 2 + price * cells_changed(last, words[code], config)
        last = words[code]
    return cost


@pytest.mark.parametrize("cell_bits", [1, 2])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_other_words_cost_less(encoding, cell_bits):
    config = memsim.CrossbarConfig(rows=3, bits=3, encoding=encoding, cell_bits=cell_bits)
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    weights[2] = [9, 0, 0, 0]  # the last row has the largest weight, which is not free to choose
    plan = memsim.plan({"kernel": weights}, config, memsim.policies.Unsorted())
    scale = float(plan.layers["kernel"].scale)
    weights[:2] *= 3 * scale
    chains, words = memsim.WordChains(plan), words_by_code(config)
    asked = np.clip(np.rint(weights / scale), -3, 3)
    codes = range(-config.max_code, config.max_code + 1)
    for price, row in itertools.product((0.0, 0.7, 2.3, 9.0), range(2)):
        chosen = np.rint(chains.cheapest({"kernel": weights}, price)["kernel"] / scale)
        # the pass before left the last word of the row
        before = words[int(asked[row, -1])]
        least = min(
            cost_of(others, asked[row], before, price, config)
            for others in itertools.product(codes, repeat=4)
        )
        cost = cost_of(map(int, chosen[row]), asked[row], before, price, config)
        assert cost == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("cell_bits", [1, 2])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_around_stuck_cells_no_other_words_cost_less(encoding, cell_bits):
    config = memsim.CrossbarConfig(rows=3, bits=3, encoding=encoding, cell_bits=cell_bits)
    rng = np.random.default_rng(1)
    params = {"kernel": rng.standard_normal((3, 3)).astype(np.float32)}
    plan = memsim.plan(params, config, memsim.policies.Unsorted())
    chains, words = memsim.WordChains(plan), words_by_code(config)
    scale = float(plan.layers["kernel"].scale)
    codes = range(-config.max_code, config.max_code + 1)
    asked = np.rint(params["kernel"] / scale)
    every = jnp.arange(1 << config.bits, dtype=config.word_dtype)
    read = memsim.codes.decode(every, config).tolist()
    for seed, price in itertools.product(range(5), (0.0, 0.7, 5.0)):
        chip = memsim.sample_chip(jax.random.key(seed), plan, 0.25, 0.25)
        chosen = np.rint(chains.cheapest(params, price, chip)["kernel"] / scale).astype(int)
        for row in range(3):
            at_0, at_1 = int(chip.stuck_at_0[0, row]), int(chip.stuck_at_1[0, row])

            def left(code, at_0=at_0, at_1=at_1):
                return words[code] & ~at_0 | at_1

            def cost(codes, row=row, left=left, price=price):
                """Squared errors of what is read, and writes, of codes programmed in turn."""
                last, total = left(int(asked[row, -1])), 0.0
                for code, wanted in zip(codes, asked[row], strict=True):
                    total += (read[left(code)] - wanted) ** 2
                    total += price * cells_changed(last, left(code), config)
                    last = left(code)
                return total

            least = min(map(cost, itertools.product(codes, repeat=3)))
            assert cost(chosen[row]) == pytest.approx(least, abs=1e-4)


def forced_error(chip, crossbar, row, words, read, asked):
    """Squared errors that the stuck cells of a row force on codes, at the words that fit best."""
    total = 0
    for step in asked:
        for slot, code in enumerate(step):
            if code is None:
                continue
            word = row * len(step) + slot
            at_0, at_1 = int(chip.stuck_at_0[crossbar, word]), int(chip.stuck_at_1[crossbar, word])
            total += min((read[one & ~at_0 | at_1] - code) ** 2 for one in words.values())
    return total


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("columns", [None, 8])
def test_no_other_order_of_rows_forces_less(columns, encoding):
    config = memsim.CrossbarConfig(
        rows=4, columns=columns, crossbars=2, bits=4, encoding=encoding, scale_per="output"
    )
    params = {"kernel": np.random.default_rng(2).standard_normal((7, 6)).astype(np.float32)}
    plan = memsim.plan(params, config, memsim.policies.Unsorted())
    layer, words = plan.layers["kernel"], words_by_code(config)
    every = jnp.arange(1 << config.bits, dtype=config.word_dtype)
    read = memsim.codes.decode(every, config).tolist()
    scales = np.asarray(layer.scale).reshape(-1)
    codes = np.rint(params["kernel"] / scales).T.reshape(-1).astype(int).tolist()
    weights, sections = np.asarray(layer.placement.weights), np.asarray(plan.schedule.sections)
    for seed in range(3):
        chip = memsim.sample_chip(jax.random.key(seed), plan, 0.2, 0.2)
        _, programming = memsim.program(params, plan, chip)
        chip = programming.chip
        ordered, rows = memsim.WordChains(plan).match_rows(params, chip)
        for field in ("stuck_at_0", "stuck_at_1", "state"):
            before, after = (
                np.asarray(getattr(one, field)).reshape(2, 4, -1) for one in (chip, ordered)
            )
            for crossbar in range(2):
                np.testing.assert_array_equal(after[crossbar], before[crossbar, rows[crossbar]])
        for crossbar in range(2):
            mine = [step for step in sections[:, crossbar] if step < len(weights)]
            held = [
                [[codes[i] if i < len(codes) else None for i in row] for row in section]
                for section in weights[mine].reshape(len(mine), 4, -1).tolist()
            ]
            cost = [
                [
                    forced_error(chip, crossbar, row, words, read, [one[place] for one in held])
                    for row in range(4)
                ]
                for place in range(4)
            ]
            assert sorted(rows[crossbar]) == [0, 1, 2, 3]
            least = min(
                sum(cost[place][row] for place, row in enumerate(order))
                for order in itertools.permutations(range(4))
            )
            assert sum(cost[place][row] for place, row in enumerate(rows[crossbar])) == least


@pytest.fixture
def network():
    rng = np.random.default_rng(1)
    shapes = {"a": (40, 12), "b": (12, 30), "c": (30, 7)}
    return {
        name: {"kernel": rng.laplace(size=shape).astype(np.float32), "bias": np.ones(shape[1])}
        for name, shape in shapes.items()
    }


CONFIGS = (
    memsim.CrossbarConfig(rows=16),
    memsim.CrossbarConfig(rows=16, columns=40, crossbars=3, encoding="sign_magnitude"),
    memsim.CrossbarConfig(rows=8, crossbars=5, schedule="interleaved", scale_per="output"),
)


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        (CONFIGS[0], "unsorted"),
        (CONFIGS[1], "matched"),
        (CONFIGS[2], "sws"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in itertools.product(CONFIGS, ("unsorted", "sws", "matched"))
        ),
    ],
)
def test_a_higher_price_takes_fewer_writes(network, config, policy):
    plan = memsim.plan(network, config, memsim.Policy.parse(policy))
    chains, chip = memsim.WordChains(plan), memsim.sample_chip(jax.random.key(0), plan)
    writes, errors = [], []
    for price in (0.0, 10.0, 100.0, 1000.0):
        held = chains.cheapest(network, price)
        on_chip, programming = memsim.program(held, plan, chip, passes=2)
        # on the grid already, on any chip and in any plan made afresh
        again = memsim.plan(held, config, memsim.Policy.parse(policy))
        for name, layer in plan.layers.items():
            tensor = name.split("/")[0]
            np.testing.assert_allclose(on_chip[tensor]["kernel"], held[tensor]["kernel"], rtol=1e-6)
            np.testing.assert_allclose(again.layers[name].scale, layer.scale, rtol=1e-6)
        writes.append(memsim.summarize(programming, plan).writes_per_pass[-1])
        errors.append(sum(np.square(held[x]["kernel"] - network[x]["kernel"]).sum() for x in held))
        np.testing.assert_array_equal(held["a"]["bias"], network["a"]["bias"])
    assert writes == sorted(writes, reverse=True)
    assert writes[-1] < 0.5 * writes[0]
    assert errors == sorted(errors)
    exact = memsim.program(network, plan, chip)[0]
    np.testing.assert_allclose(chains.cheapest(network, 0.0)["b"]["kernel"], exact["b"]["kernel"])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", ["sws", "matched"])
def test_a_newer_network_follows_on_an_older_one(network, policy, encoding):
    config = memsim.CrossbarConfig(rows=16, columns=40, crossbars=None, bits=4, encoding=encoding)
    rng = np.random.default_rng(2)
    newer = jax.tree.map(lambda x: np.float32(x + 0.4 * rng.standard_normal(x.shape)), network)
    plan = memsim.plan(network, config, memsim.Policy.parse(policy))
    chains, words = memsim.WordChains(plan, network), words_by_code(config)
    _, first = memsim.program(network, plan, memsim.sample_chip(jax.random.key(0), plan))
    counted = []
    for price in (0.0, 0.7, 3.0, 1e6):
        held = chains.cheapest(newer, price)
        _, second = memsim.program(held, plan, first.chip)
        counted.append(memsim.summarize(second, plan).writes)
        writes = 0
        for name, layer in plan.layers.items():
            old, new, chosen = (
                np.ravel(np.rint(np.clip(params[name[0]]["kernel"] / layer.scale, -7, 7)))
                for params in (network, newer, held)
            )
            end = np.argmax(np.abs(old))
            for k, code in enumerate(chosen.astype(int)):
                cost = {
                    other: (other - new[k]) ** 2
                    + price * cells_changed(words[int(old[k])], words[other], config)
                    for other in range(-7, 8)
                }
                assert code == old[k] if k == end else cost[code] <= min(cost.values()) + 1e-3
                writes += cells_changed(words[int(old[k])], words[code], config)
        assert counted[-1] == writes
    assert counted == sorted(counted, reverse=True)
    assert counted[0] > 0 == counted[-1]


def test_the_errors_of_a_tolerance_are_left_out(network):
    policy = memsim.Policy.parse("matched:tolerance=5,correction=none")
    plan = memsim.plan(network, CONFIGS[1], policy)
    assert any(np.any(layer.delta) for layer in plan.layers.values())
    chains = memsim.WordChains(plan)
    held = chains.cheapest(network, 40.0)
    chip = memsim.sample_chip(jax.random.key(0), plan)
    on_chip, _ = memsim.program(held, chains.plan, chip)
    for name, layer in chains.plan.layers.items():
        assert layer.index_bits == plan.layers[name].index_bits
        tensor = name.split("/")[0]
        np.testing.assert_allclose(on_chip[tensor]["kernel"], held[tensor]["kernel"], rtol=1e-6)


def test_each_layer_has_its_price(network):
    plan = memsim.plan(network, CONFIGS[0], memsim.policies.Sws())
    chains = memsim.WordChains(plan)
    free, dear = chains.cheapest(network, 0.0), chains.cheapest(network, 300.0)
    prices = {"a/kernel": 0.0, "b/kernel": 300.0, "c/kernel": 0.0}
    mixed = chains.cheapest(network, prices)
    for name in ("a", "c"):
        np.testing.assert_array_equal(mixed[name]["kernel"], free[name]["kernel"])
    far, near = (np.square(x["b"]["kernel"] - network["b"]["kernel"]).mean() for x in (mixed, free))
    assert far == pytest.approx(np.square(dear["b"]["kernel"] - network["b"]["kernel"]).mean(), 0.2)
    assert far > 100 * near


@pytest.mark.parametrize(
    ("config", "policy", "message"),
    [
        ({"crossbars": None}, "sws", "`plan` is weight stationary"),
        ({"encoding": "differential"}, "sws", "`plan` has differential words of 8 bits"),
        ({"bits": 12}, "sws", "`plan` has twos_complement words of 12 bits"),
        ({}, "matched:tolerance=3", "`plan` stores or corrects other words"),
        ({}, "aras", "`plan` stores or corrects other words"),
        ({}, "flip-n-write", "`plan` stores or corrects other words"),
    ],
)
def test_plans_that_store_other_words_are_refused(network, config, policy, message):
    config = memsim.CrossbarConfig(**config)
    plan = memsim.plan(network, config, memsim.Policy.parse(policy))
    with pytest.raises(ValueError, match=message):
        memsim.WordChains(plan)


def test_wrong_prices_and_networks_are_refused(network):
    chains = memsim.WordChains(memsim.plan(network, CONFIGS[0], memsim.policies.Sws()))
    with pytest.raises(ValueError, match="`price of a/kernel` is -1"):
        chains.cheapest(network, -1.0)
    with pytest.raises(ValueError, match="`price of b/kernel` is None"):
        chains.cheapest(network, {"a/kernel": 1.0})
    with pytest.raises(ValueError, match="b/kernel"):
        chains.cheapest(network | {"b": {"kernel": np.ones((2, 2), np.float32)}}, 1.0)


# --- the job


@pytest.fixture
def run(digits_weights):
    app = typer.Typer()
    app.command()(codesign.main)
    small = ("--weights", digits_weights, "--steps", 4, "--words-every", 2, "--save-every", 2,
             "--log-every", 2, "--max-drop", 0.5)  # fmt: skip

    def invoke(*options, prices=(50, 200)):
        of_rounds = (word for price in prices for word in ("--price", price))
        return CliRunner().invoke(app, [*map(str, (*small, *of_rounds, *options))])

    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield invoke


def test_images_are_mixed_and_texts_are_not():
    images = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    mixed = np.asarray(codesign.job.mix_images(jax.random.key(0), jnp.asarray(images)))
    low, high = np.minimum(images, images[::-1]), np.maximum(images, images[::-1])
    assert np.all((low <= mixed) & (mixed <= high))
    assert not np.allclose(mixed, images)
    tokens = jnp.arange(6).reshape(2, 3)
    assert codesign.job.mix_images(jax.random.key(0), tokens) is tokens


def test_the_job_leaves_a_network_that_programs_as_reported(run, tmp_path):
    result = run("--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "codesign.json").read_text())
    assert list(report["policies"]) == [
        "untrained", "round 1, price 50", "round 2, price 200",
    ]  # fmt: skip
    entries = list(report["policies"].values())
    assert entries[0]["writes"] > entries[1]["writes"] > entries[2]["writes"]
    kept = report["policies"][report["kept"]]
    # anybody who programs the file counts the same
    plan = memsim.load_plan(tmp_path / "plan.safetensors")
    source = memsim.open_checkpoint(tmp_path / "codesigned.safetensors")
    params = {name: source.load(name) for name in source.tensors}
    _, programming = memsim.program(
        params, plan, memsim.sample_chip(jax.random.key(3), plan), passes=2
    )
    assert memsim.summarize(programming, plan).writes_per_pass[-1] == kept["writes"]
    assert report["baseline"]["writes"] / kept["writes"] == pytest.approx(kept["reduction"])
    assert "250 images held out" in result.output
    halves = kept["planning_accuracy_change"], kept["accuracy_change"]
    assert kept["everywhere_accuracy_change"] == pytest.approx(sum(halves) / 2)
    assert f"kept: {100 * kept['everywhere_accuracy_change']:+.2f} (" in result.output
    assert (tmp_path / "rounds.png").is_file()
    assert "Rounds of co-design" in (tmp_path / "report.html").read_text()
    assert isinstance(run("--out", tmp_path).exception, FileExistsError)


def test_on_chips_with_stuck_cells_words_go_around_them(run, tmp_path):
    options = ("--stuck-at", 0.02, "--chips", 2, "--writing", "write-verify")
    result = run(*options, "--out", tmp_path, prices=(50,))
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "codesign.json").read_text())
    plan = memsim.load_plan(tmp_path / "plan.safetensors")
    source = memsim.open_checkpoint(tmp_path / "codesigned.safetensors")
    params = {name: source.load(name) for name in source.tensors}
    chip = memsim.sample_chip(jax.random.key(7), plan, 0.01, 0.01)
    chains = memsim.WordChains(plan)
    ordered, _ = chains.match_rows(params, chip)
    words = chains.cheapest(params, 1.0, ordered)
    for name, layer in plan.layers.items():
        tensor = name.split("[")[0]
        scale = np.asarray(layer.scale)
        error, nearest = (
            np.abs(memsim.program(one, plan, on)[0][tensor] - params[tensor]).mean() / scale
            for one, on in ((params, chip), (words, ordered))
        )
        assert nearest < 0.6 * error
    assert report["policies"]["untrained"]["accuracy"] > 0.9
    # the chips of the report, programmed from the files; what they are against goes around nothing
    writing = memsim.cells.parse_writing("write-verify", plan.config)
    writes = []
    for key in jax.random.split(jax.random.key(0), 2):
        chip, _ = chains.match_rows(params, memsim.sample_chip(key, plan, 0.01, 0.01))
        words = chains.cheapest(params, 1.0, chip)
        _, programming = memsim.program(words, plan, chip, passes=2, writing=writing)
        writes.append(memsim.summarize(programming, plan).writes_per_pass[-1])
    kept = report["policies"][report["kept"]]
    assert kept["writes"] == pytest.approx(np.mean(writes), abs=0.5)
    assert report["baseline"]["writes"] > report["policies"]["untrained"]["writes"]


@pytest.mark.slow
def test_a_killed_job_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    assert run("--out", tmp_path / "whole").exit_code == 0
    run_steps = codesign.job.run_steps

    def killed(step, state, batches, steps, **words):
        run_steps(step, state, batches, steps - 2, **words)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(codesign.job, "run_steps", killed)
        assert run("--out", tmp_path / "killed").exit_code != 0
    assert run("--out", tmp_path / "killed").exit_code == 0
    for name in ("codesign.json", "codesigned.safetensors", METRICS):
        whole, again = (tmp_path / x / name for x in ("whole", "killed"))
        assert processes.figures_of(whole) == processes.figures_of(again)


def test_over_an_old_network_the_job_takes_its_places(run, digits_weights, tmp_path):
    source = memsim.open_checkpoint(digits_weights)
    newer = {name: source.load(name) for name in source.tensors}
    rng = np.random.default_rng(0)
    moved = {
        name: x + 0.02 * x.std() * rng.standard_normal(x.shape).astype(x.dtype)
        for name, x in newer.items()
    }
    old = tmp_path / "old.safetensors"
    memsim.save_tensors(old, moved)
    result = run("--from", old, "--out", tmp_path / "out", prices=(0.5, 1))
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "codesign.json").read_text())
    assert report["config"]["crossbars"] is None
    assert "placed afresh" in report["against"] or "in kept places" in report["against"]
    assert " ".join(report["against"].split()[-7:]) in " ".join(result.output.split())
    # by the old plan, over the old network, anybody counts the same
    plan = memsim.load_plan(tmp_path / "out" / "plan.safetensors")
    ours = memsim.open_checkpoint(tmp_path / "out" / "codesigned.safetensors")
    kept = {name: ours.load(name) for name in ours.tensors}
    chip = memsim.program(moved, plan, memsim.sample_chip(jax.random.key(1), plan))[1].chip
    taken = report["policies"][report["kept"]]
    counted = memsim.summarize(memsim.program(kept, plan, chip)[1], plan)
    assert counted.writes == taken["writes"]
    assert report["baseline"]["writes"] / counted.writes == pytest.approx(taken["reduction"])
    pruned = [report["policies"][f"pruned to {share} %"]["writes"] for share in (30, 10, 3)]
    assert report["policies"]["untrained"]["writes"] > pruned[0] > pruned[1] > pruned[2] > 0
    # the network as it is takes the places and scales of the old one: but for these, a kept place
    plain = memsim.compare(
        newer, plan.config, {"sws": memsim.policies.Sws()}, old=moved, keep_placement=True
    )
    as_it_is = report["policies"]["untrained"]["writes"]
    assert as_it_is == pytest.approx(plain.policies["sws"].writes, rel=0.03)


def test_a_pruned_update_takes_over_what_moved_furthest():
    rng = np.random.default_rng(0)
    old = {"kernel": rng.standard_normal((20, 10)).astype(np.float32), "bias": np.zeros(10)}
    new = {"kernel": old["kernel"].copy(), "bias": np.ones(10)}
    new["kernel"][3:5] += 5
    new["kernel"][5:] += 0.01
    plan = memsim.plan(old, memsim.CrossbarConfig(), memsim.policies.Unsorted())
    pruned = codesign.measuring.prune_update(new, old, plan, 0.1)
    np.testing.assert_array_equal(pruned["kernel"][3:5], new["kernel"][3:5])
    np.testing.assert_array_equal(pruned["kernel"][5:], old["kernel"][5:])
    np.testing.assert_array_equal(pruned["bias"], new["bias"])


def test_a_network_that_is_there_already_takes_no_writes(run, digits_weights, tmp_path):
    losses = {}
    for teacher in ("--distill", "--no-distill"):
        out = tmp_path / teacher
        result = run("--from", digits_weights, "--out", out, teacher, prices=(1000,))
        assert result.exit_code == 0, result.output
        report = json.loads((out / "codesign.json").read_text())
        untrained, trained, *_ = report["policies"].values()
        assert untrained["writes"] == trained["writes"] == report["baseline"]["writes"] == 0
        assert untrained["reduction"] == 1
        losses[teacher] = json.loads((out / METRICS).read_text().splitlines()[0])["loss"]
    # it is as its teacher is; the labels still teach it something
    assert losses["--distill"] < 0.5 * losses["--no-distill"]


def test_rounds_that_lose_too_much_are_told_and_none_is_kept(run, digits_weights, tmp_path):
    options = ("--stuck-at", 0.5, "--chips", 1, "--steps", 1, "--max-drop", 0)
    result = run(*options, "--out", tmp_path, prices=(9000,))
    assert "`--max-drop` is 0, but every round loses more" in str(result.exception)
    assert "untrained" in result.output  # the table is there, and so are the figures
    report = json.loads((tmp_path / "codesign.json").read_text())
    assert report["kept"] is None
    assert len(report["policies"]) == 2
    assert not (tmp_path / "codesigned.safetensors").exists()


def test_crossbars_are_not_counted_over_an_old_network(run, digits_weights, tmp_path):
    result = run("--from", digits_weights, "--crossbars", 4, "--out", tmp_path)
    assert isinstance(result.exception, ValueError)
    assert "`--crossbars` is 4" in str(result.exception)
