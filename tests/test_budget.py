import inspect
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from sklearn.linear_model import LogisticRegression

import memsim
from memsim.report.documents import budget_json
from memsim.report.tables import budget_tables
from memsim.sensitivity import layer_sensitivity
from training.data import digits
from training.evaluation import classification
from training.models.pretrained import open_network


def apply(params, images):
    hidden = jax.nn.relu(images.reshape(len(images), -1) @ params["hidden.weight"].T)
    return hidden @ params["out.weight"].T + params["out.bias"][None]


loss_fn, accuracy_fn = classification(apply)


@pytest.fixture(scope="module")
def network():
    """Random features and a fitted classifier: 96 % of the digits in a second."""
    data, rng = digits(), np.random.default_rng(0)
    hidden = np.float32(rng.laplace(size=(150, 64)) / 8)
    features = np.maximum(data.train_images.reshape(-1, 64) @ hidden.T, 0)
    fitted = LogisticRegression(max_iter=300).fit(features, data.train_labels)
    return {
        "hidden.weight": hidden,
        "out.weight": fitted.coef_.astype(np.float32),
        "out.bias": fitted.intercept_.astype(np.float32),
    }


@pytest.fixture(scope="module")
def examples():
    data = digits()
    return data.test_images, data.test_labels


@pytest.fixture(scope="module")
def config():
    return memsim.CrossbarConfig(rows=32)


@pytest.fixture(scope="module")
def found(network, examples, config):
    seen = []
    found = memsim.budget(
        network, config, memsim.Judge(loss_fn, accuracy_fn, examples), 0.03, progress=seen.append
    )
    assert seen == found.trials
    return found


@pytest.mark.slow
def test_the_plan_takes_fewer_writes_within_the_budget(network, examples, config, found):
    exact = memsim.plan(network, config, memsim.policies.Matched())
    held, counted = memsim.program(network, exact, memsim.sample_chip(jax.random.key(0), exact))
    chosen = found.chosen
    assert chosen.summary.writes < 0.7 * memsim.summarize(counted, exact).writes
    assert chosen.accepted > 0
    assert chosen.change.mean >= -0.03
    assert any(not trial.accepted for trial in found.trials)  # it went as far as it could
    # as many halves chose fewer writes as more, but for itself
    writes = sorted(choice.summary.writes for choice in found.choices)
    assert len(writes) == 20
    assert chosen.summary.writes == writes[10]
    lowest, highest = found.spread
    assert lowest <= chosen.summary.reduction <= highest
    # what is reported of the plan is what it does
    held, counted = memsim.program(
        network, found.plan, memsim.sample_chip(jax.random.key(5), found.plan)
    )
    assert memsim.summarize(counted, found.plan).writes == chosen.summary.writes
    right = np.asarray(accuracy_fn(network, examples)), np.asarray(accuracy_fn(held, examples))
    drop = right[0].mean() - right[1].mean()
    assert found.examples == 500
    np.testing.assert_allclose(-drop, chosen.change.mean, atol=1e-6)
    assert found.held_out.low <= found.held_out.mean <= found.held_out.high


def test_examples_have_no_say_in_what_judges_them(network, examples, config, monkeypatch):
    """What is wrong in one half alone changes no choice of the other, and is judged by that."""
    half = np.arange(500) % 2 == 0
    monkeypatch.setattr(memsim.budgeting, "_halves", lambda *_: np.stack([half, ~half]))

    def accuracy_where(chosen):
        judge = memsim.Judge(
            lambda params, batch: loss_fn(params, batch[:2]),
            lambda params, batch: accuracy_fn(params, batch[:2]) & batch[2],
            (*examples, chosen),
        )
        return memsim.budget(network, config, judge, 0.05)

    everywhere, in_half = accuracy_where(np.ones(500, bool)), accuracy_where(half)
    assert in_half.choices[0].summary == everywhere.choices[0].summary
    # where nothing is ever right, nothing is lost: that half chooses the most errors
    assert in_half.choices[1].summary.writes == min(
        trial.summary.writes for trial in in_half.trials
    )
    assert in_half.float_accuracy < 0.51 < 0.9 < everywhere.float_accuracy
    # on the half that has right ones, judged by the choice of the other
    held, _ = memsim.program(
        network, memsim.plan(network, config, in_half.choices[1].policies), _chip(network, config)
    )
    mine = jax.tree.map(lambda x: x[half], examples)
    change = np.mean(accuracy_fn(held, mine)) - np.mean(accuracy_fn(network, mine))
    np.testing.assert_allclose(in_half.held_out.mean, change / 2, atol=1e-6)


def _chip(network, config):
    return memsim.sample_chip(
        jax.random.key(0), memsim.plan(network, config, memsim.policies.Unsorted())
    )


@pytest.mark.slow
def test_the_choice_is_steady_over_seeds(network, examples, config):
    judge = memsim.Judge(loss_fn, accuracy_fn, examples)
    found = [memsim.budget(network, config, judge, 0.03, seed=seed) for seed in range(4)]
    reductions = [one.chosen.summary.reduction for one in found]
    assert max(reductions) <= 1.5 * min(reductions)
    assert len({one.held_out for one in found}) > 1  # they split the examples otherwise


@pytest.mark.slow
def test_every_layer_pays_by_one_exchange_rate(found):
    assert len({trial.exchange for trial in found.trials}) == len(found.trials)
    for trial in found.trials:
        for name, policy in trial.policies.items():
            price = round(trial.exchange / found.sensitivity[name])
            assert (policy.price or 0) == min(price, 10**4)
            assert policy.tolerance == min(15, math.isqrt(2 * min(price, 10**4)))


def test_sensitivity_is_half_the_mean_squared_gradient_of_a_code(network, examples, config):
    few = jax.tree.map(lambda x: x[:16], examples)
    found = layer_sensitivity(network, config, loss_fn, few)
    for name in ("hidden.weight", "out.weight"):
        scale = np.abs(network[name]).max() / 127
        squares = []
        for i in range(16):
            one = jax.tree.map(lambda x, i=i: x[i : i + 1], examples)
            gradient = jax.grad(loss_fn)(jax.tree.map(jnp.asarray, network), one)[name]
            squares.append(np.mean((np.asarray(gradient) * scale) ** 2))
        np.testing.assert_allclose(found[name], np.mean(squares) / 2, rtol=1e-4)


def test_low_columns_are_shared_out_for_bit_stucking(network, examples, config):
    policy = memsim.policies.Sws(p=0.5, low=1)
    found = memsim.budget(
        network, config, memsim.Judge(loss_fn, accuracy_fn, examples), 0.05, policy=policy, chips=2
    )
    sws = memsim.plan(network, config, memsim.policies.Sws())
    _, counted = memsim.program(network, sws, memsim.sample_chip(jax.random.key(0), sws))
    assert found.chosen.summary.writes < memsim.summarize(counted, sws).writes
    low = {name: policy.stucking.low for name, policy in found.chosen.policies.items()}
    low_first, low_last = sorted(low, key=found.sensitivity.get)
    assert low[low_first] >= low[low_last]
    assert low[low_first] > 0
    assert all(policy.stucking.p == 0.5 for policy in found.chosen.policies.values())


@pytest.mark.slow
def test_a_budget_for_one_chip_avoids_its_stuck_cells(network, examples, config):
    plain = memsim.plan(network, config, memsim.policies.Unsorted())
    signs = jnp.zeros((1, 32), jnp.uint8).at[0, ::8].set(128)  # of four rows: stuck at 1
    chip = memsim.with_faults(jax.random.key(1), jnp.zeros_like(signs), signs)
    held, _ = memsim.program(network, plain, chip)
    broken = np.asarray(accuracy_fn(held, examples)).mean()
    policy = memsim.policies.Matched(correction="mean", faults="avoid")
    found = memsim.budget(
        network,
        config,
        memsim.Judge(loss_fn, accuracy_fn, examples),
        0.04,
        policy=policy,
        chip=chip,
    )
    held, _ = memsim.program(network, found.plan, chip)
    assert np.asarray(accuracy_fn(held, examples)).mean() > max(broken + 0.05, 0.9)
    assert found.chosen.summary.reduction > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 1.5}, "`max_drop` is 1.5; a drop of accuracy is a share"),
        ({"policy": memsim.policies.Sws()}, "`policy` sws has nothing to share out"),
        (
            {"data": (np.zeros((4, 8, 8, 1)), np.zeros(3))},
            r"`data` has leaves of \[3, 4\] examples",
        ),
        (
            {"accuracy": lambda p, b: accuracy_fn(p, b).mean()},
            r"`accuracy_fn` gives float32 \(\)",
        ),
        ({"config": memsim.CrossbarConfig(bits=12)}, "`tolerance` is 1 at 12 `bits`"),
        pytest.param(
            {"config": memsim.CrossbarConfig(bits=2), "max_drop": 0.0},
            "`max_drop` is 0.0, but the",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_wrong_budgets_say_what_is_wrong(network, examples, config, options, message):
    judge = {"loss": loss_fn, "accuracy": accuracy_fn, "data": examples}
    judge |= {name: options[name] for name in judge if name in options}
    others = {name: value for name, value in options.items() if name not in judge}
    with pytest.raises(ValueError, match=message):
        memsim.budget(network, others.pop("config", config), memsim.Judge(**judge), **others)


def test_the_search_is_reported(found):
    document = json.loads(json.dumps(budget_json(found)))
    assert document["chosen"] in document["trials"]
    assert document["examples"] == 500
    assert len(document["choices"]) == 20
    assert document["spread"] == list(found.spread)
    layers, trials, plan = budget_tables(found)
    assert layers.row_count == 2
    assert trials.row_count == len(found.trials)
    assert "index bits per weight; analog-valid" in str([row[1] for row in plan.rows])


def test_the_command_line_plans_within_a_budget(run, network, tmp_path, monkeypatch):
    checkpoint, out = tmp_path / "net.safetensors", tmp_path / "plan.safetensors"
    safetensors.numpy.save_file(network, checkpoint)
    (tmp_path / "judge.py").write_text(f"""
import jax

from training.data import digits
from training.evaluation import classification
from training.models.pretrained import open_network

{inspect.getsource(apply)}

def digits_of(tensors):
    assert set(tensors) == {{"hidden.weight", "out.weight", "out.bias"}}
    data = digits()
    return *classification(apply), (data.test_images, data.test_labels)
""")
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", checkpoint, "--max-drop", "0.03", "--rows", "32", "--out", out]
    status, printed, error = run(
        *arguments, "--evaluate", "judge:digits_of", "--json", tmp_path / "search.json"
    )
    assert (status, error) == (0, "")
    assert "each of 500 examples judged by halves without it" in printed.replace("\n", " ")
    assert "chosen" in printed
    document = json.loads((tmp_path / "search.json").read_text())
    assert memsim.load_plan(out).names == ["hidden.weight", "out.weight"]
    status, printed, _ = run(
        "program", checkpoint, "--plan", out, "--out", tmp_path / "held.safetensors",
    )  # fmt: skip
    assert f"{document['chosen']['writes']:,} writes" in printed
    for options, message in (
        (["--evaluate", "judge:nothing"], "has no attribute 'nothing'"),
        (["--evaluate", "nowhere:f"], "No module named 'nowhere'"),
        ([], "or --max-drop with --evaluate"),
    ):
        status, _, error = run(*arguments, "--force", *options)
        assert status == 1
        assert message in error


@pytest.mark.slow
def test_a_trained_network_takes_twenty_times_fewer_writes_within_a_point(assets):
    checkpoint = memsim.open_checkpoint(assets / "resnet20_cifar10.safetensors")
    tensors = {name: checkpoint.load(name) for name in checkpoint.tensors}
    network = open_network("resnet20", assets / "resnet20_cifar10.safetensors")
    test = np.load(assets / "cifar10_test2000.npz")
    found = memsim.budget(
        tensors,
        memsim.CrossbarConfig(),
        memsim.Judge(*classification(network.apply), (test["image"], test["label"])),
        max_drop=0.01,
    )
    assert found.examples == 2000
    assert found.chosen.summary.reduction >= 20
    assert found.held_out.mean >= -0.01
