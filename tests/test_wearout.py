import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import memsim
from training import redeploy, wearout
from training.redeploy import steer
from training.wearout import make_accuracy, until_accuracy


def runner(main):
    app = typer.Typer()
    app.command()(main)
    return lambda *options: CliRunner().invoke(app, [*map(str, options)])


@pytest.fixture
def plain():
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield


@pytest.mark.slow
def test_the_bar_is_crossed_where_counting_one_failure_after_another_says(key):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.standard_normal((12, 3)).astype(np.float32)}
    images = rng.standard_normal((40, 12)).astype(np.float32)
    labels = np.argmax(images @ params["kernel"], axis=1)

    def apply(params, images):
        return images @ params["kernel"]

    config = memsim.CrossbarConfig(rows=12)
    plan = memsim.plan(params, config, memsim.policies.Sws())
    keys = jax.random.split(key, 4)
    chips = jax.vmap(lambda key: memsim.sample_chip(key, plan))(keys)
    wear = jax.vmap(lambda chip: memsim.service.steady_wear(params, plan, chip))(chips)
    lives = jax.vmap(
        lambda key: memsim.service.sample_lives(key, wear.shape[1:], memsim.service.Lognormal())
    )(keys)
    accuracy = make_accuracy(apply, params, plan, jnp.asarray(images), jnp.asarray(labels))
    found = until_accuracy(accuracy, 0.7, chips, lives, wear, config)
    for number in range(4):
        chip, life, worn = jax.tree.map(lambda x, i=number: x[i], (chips, lives, wear))
        fails = np.sort(np.asarray(life.endurance / worn).reshape(-1))
        count = found.failures[number]

        def after(failures, chip=chip, life=life, worn=worn, fails=fails):
            when = 0 if failures == 0 else fails[failures - 1] * (1 + 1e-6)
            aged = memsim.service.wear_out(chip, life, worn * np.float32(when), config)
            held, _ = memsim.program(params, plan, aged)
            return np.mean(np.argmax(images @ np.asarray(held["kernel"]), 1) == labels)

        if np.isinf(found.programmings[number]):
            assert after(np.isfinite(fails).sum()) >= 0.7
        else:
            assert found.programmings[number] == fails[count - 1]
            assert after(count) < 0.7 <= after(count - 1)
    assert np.isfinite(found.programmings).any()
    always = until_accuracy(accuracy, 0.0, chips, lives, wear, config)
    assert np.all(np.isinf(always.programmings))
    never = until_accuracy(accuracy, 1.1, chips, lives, wear, config)
    assert np.all(never.programmings == 0)


@pytest.mark.slow
def test_the_job_ends_with_one_table(tmp_path, plain):
    out = tmp_path / "wearout.json"
    run = runner(wearout.main)
    options = ("--epochs", 2, "--chips", 2, "--policy", "unsorted", "--policy", "sws", "--out", out)
    result = run(*options)
    assert result.exit_code == 0, result.output
    pool = "1 crossbar of 128 rows, one word wide"
    assert f"Lifetime of a chip with {pool}" in " ".join(result.output.split())
    assert json.loads(out.read_text())["lifetime"]["pool"] == pool
    for text in (
        "unsorted",
        "writes",
        "accuracy",
        "energy",
        "lifetime",
        "USD a year",
        "PLACEHOLDERS",
    ):
        assert text in result.output
    document = json.loads(out.read_text())
    assert "share_at_1" in document["lifetime"]["placeholders"]
    entries = document["policies"]
    for entry in entries.values():
        first = entry["years_to_first_failure"]
        assert all(years is None or years > 0.3 * first for years in entry["years_to_bar"])
        assert entry["figures_at_bar"]["total_cost"]["formula"] == "hardware_cost + energy_cost"
    assert entries["sws"]["writes"] < entries["unsorted"]["writes"]
    result = run(*options)
    assert isinstance(result.exception, OSError)


@pytest.mark.slow
def test_updates_wear_chips_out_and_p_is_steered(tmp_path, plain):
    out = tmp_path / "redeploy.json"
    run = runner(redeploy.main)
    result = run("--epochs", 2, "--chips", 2, "--updates", 3, "--steps", 3, "--age", 0.6,
                 "--crossbars", 4, "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "on wearing chips with 4 crossbars of 128 rows" in " ".join(result.output.split())
    for text in ("as it is", "fine-tuned", "p steered", "stuck"):
        assert text in result.output
    ways = json.loads(out.read_text())["updates"]
    assert list(ways) == ["as it is", "fine-tuned", "p steered"]
    for records in ways.values():
        failed = np.array([record["failed"] for record in records])
        assert np.all(failed[0] == 0)
        assert np.all(failed[1:] > failed[:-1])
    assert ways["as it is"][0] == ways["p steered"][0]  # until there is something to steer by
    shares = [record["share"] for record in ways["as it is"]]
    assert shares == [[0.5, 0.5]] * 3
    assert ways["p steered"][1]["share"] != [0.5, 0.5]


def test_p_follows_the_accuracy():
    share = steer(jnp.float32([0.5, 0.5, 0.9, 0.1]), jnp.float32([0.9, 1.0, 0.5, 1.0]), 0.95, 4)
    np.testing.assert_allclose(share, [0.7, 0.3, 1.0, 0.0], atol=1e-6)


def test_a_policy_without_p_is_refused(tmp_path):
    result = runner(redeploy.main)("--policy", "sws", "--out", tmp_path / "x.json")
    assert isinstance(result.exception, ValueError)
    assert "has no p to steer; give one with +stuck" in str(result.exception)
