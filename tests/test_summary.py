import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import memsim
from memsim.report.texts import index_bits_text

LIMIT = 2**31 - 1


@pytest.fixture
def plan(params, config):
    return memsim.plan(params, config, memsim.policies.Sws())


def programming_of(plan, sets, resets, row_operations, wear=None):
    rows = (row_operations,) * 3  # as if each were SET and RESET
    moved = (row_operations, np.zeros_like(row_operations))
    each = (sets, resets, *rows, sets, resets, *moved)
    counts = memsim.Counts(*(jnp.asarray(x, jnp.int32) for x in each))
    chip = memsim.sample_chip(jax.random.key(0), plan)
    return memsim.Programming(counts, wear, None, chip)


def test_sums_are_exact_past_32_bits(plan):
    everything = np.full((3, 2, 8), LIMIT)
    summary = memsim.summarize(
        programming_of(plan, everything, everything, everything[..., 0]), plan
    )
    assert summary.sets == summary.resets == 48 * LIMIT
    assert summary.writes == 96 * LIMIT > 2**32
    assert summary.writes_per_pass == [32 * LIMIT] * 3
    assert summary.writes_per_column == [12 * LIMIT] * 8
    assert summary.row_operations == 6 * LIMIT
    assert [layer.writes for layer in summary.layers.values()] == [48 * LIMIT] * 2
    assert [layer.row_operations for layer in summary.layers.values()] == [3 * LIMIT] * 2


def test_figures_are_python_integers(plan):
    counts = np.ones((1, 2, 8))
    wear = jnp.full((2, 4, 8), 2**32 - 1, jnp.uint32)
    summary = memsim.summarize(programming_of(plan, counts, counts, counts[..., 0], wear), plan)
    assert summary.max_cell_writes == 2**32 - 1
    figures = jax.tree.leaves(dataclasses.asdict(summary), is_leaf=lambda x: x is None)
    assert {type(figure) for figure in figures} == {int, float, bool, type(None)}


def test_a_summary_sums_the_counts_of_the_programming(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.SwsLayer(low=2, p=0.5))
    _, programming = memsim.program(
        params, plan, memsim.sample_chip(key, plan), passes=2, wear=True
    )
    summary = memsim.summarize(programming, plan)
    counts = programming.counts
    sets, resets, row_operations = (np.asarray(count, int) for count in counts[:3])
    assert (summary.sets, summary.resets) == (sets.sum(), resets.sum())
    assert summary.writes == summary.sets + summary.resets == programming.wear.sum()
    assert summary.writes_per_pass == (sets + resets).sum((1, 2)).tolist()
    assert summary.writes_per_column == (sets + resets).sum((0, 1)).tolist()
    assert summary.row_operations == row_operations.sum()
    assert summary.set_rows == counts.set_rows.sum()
    assert summary.reset_rows == counts.reset_rows.sum()
    assert summary.max_cell_writes == programming.wear.max()
    assert not summary.analog_valid
    assert summary.index_bits_per_weight == (30 * 5 + 9 * 4) / 39
    layer = summary.layers["layer10/kernel"]
    assert (layer.inputs, layer.outputs, layer.weights, layer.index_bits) == (3, 3, 9, 4)
    assert layer.writes == (sets + resets)[:, 1].sum()
    assert list(summary.layers) == plan.names


def held_errors(params, plan, chip):
    """Errors of the weights held, in steps of the codes, layer by layer."""
    held, programming = memsim.program(params, plan, chip)
    errors = {}
    for name, layer in plan.layers.items():
        scale, w = np.float64(layer.scale), np.float64(params[name])
        errors[name] = np.float64(held[name]) / scale - np.clip(np.rint(w / scale), -127, 127)
    return errors, memsim.summarize(programming, plan)


@pytest.mark.parametrize("columns", [None, 32])
@pytest.mark.parametrize(
    "text",
    [
        "tolerance=3",
        "tolerance=3,correction=none",
        pytest.param("tolerance=15", marks=pytest.mark.slow),
    ],
)
def test_code_errors_are_those_of_the_weights_held(key, columns, text):
    rng = np.random.default_rng(1)
    params = {
        name: np.float32(rng.laplace(size=(40, n)))
        for name, n in (("a.weight", 5), ("b.weight", 9))
    }
    config = memsim.CrossbarConfig(rows=16, columns=columns)
    policy = memsim.Policy.parse(f"matched:{text}")
    plan = memsim.plan(params, config, policy)
    errors, summary = held_errors(params, plan, memsim.sample_chip(key, plan))
    every = np.concatenate([error.ravel() for error in errors.values()])
    assert summary.code_error_rms == pytest.approx(np.sqrt(np.mean(every**2)), rel=1e-4)
    assert summary.code_error_mean == pytest.approx(every.mean(), abs=1e-4)
    assert (abs(summary.code_error_mean) < 1 / 512) == (policy.correction is None)
    for name, error in errors.items():
        layer = summary.layers[name]
        assert layer.code_error_rms == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
        assert layer.code_error_mean == pytest.approx(error.mean(), abs=1e-4)
    compared = memsim.compare(params, config, {"x": policy}).policies["x"]
    none = {"reduction": None, "net_reduction": None, "max_cell_writes": None}
    assert dataclasses.replace(compared, **none) == summary


def test_what_is_held_exactly_has_no_code_error(params, config):
    for text in ("unsorted", "sws+stuck:p=0.5,low=2", "matched", "aras"):
        tensors = {"a.weight": params["layer2"]["kernel"]}
        summary = memsim.compare(tensors, config, {"x": memsim.Policy.parse(text)}).policies["x"]
        assert summary.code_error_rms is summary.code_error_mean is None
        assert all(layer.code_error_rms is None for layer in summary.layers.values())


@pytest.mark.parametrize(
    "encoding", ["twos_complement", pytest.param("differential", marks=pytest.mark.slow)]
)
def test_code_errors_beside_stuck_cells_are_of_each_chip(encoding):
    params = {"a.weight": np.float32(np.random.default_rng(2).laplace(size=(30, 40)))}
    config = memsim.CrossbarConfig(rows=8, encoding=encoding)
    policy = memsim.policies.Matched(tolerance=1, faults="avoid")
    plain = memsim.plan(params, config, memsim.policies.Unsorted())
    measured = []
    for key in jax.random.split(jax.random.key(5), 3):
        chip = memsim.sample_chip(key, plain, 0.05, 0.05)
        (error,), summary = (
            list(x.values()) if isinstance(x, dict) else x
            for x in held_errors(params, memsim.plan(params, config, policy, chip=chip), chip)
        )
        measured.append(np.sqrt(np.mean(error**2)))
        if encoding == "differential":  # several words for a code: the plan does not tell
            assert summary.code_error_rms is None
        else:
            assert summary.code_error_rms == pytest.approx(measured[-1], rel=1e-4)
    chips = memsim.Chips(number=3, seed=5, stuck_at_0=0.05, stuck_at_1=0.05)
    found = memsim.compare(params, config, {"x": policy}, chips=chips).policies["x"]
    assert len(set(measured)) == 3
    expected = None if encoding == "differential" else pytest.approx(np.mean(measured), rel=1e-4)
    assert found.code_error_rms == expected


def test_without_wear_the_most_written_cell_is_unknown(plan):
    counts = np.ones((1, 2, 8))
    summary = memsim.summarize(programming_of(plan, counts, counts, counts[..., 0]), plan)
    assert summary.max_cell_writes is None
    assert summary.reduction is None


def test_reduction_is_against_the_baseline(plan):
    def summary(count, baseline=None):
        counts = np.full((1, 2, 8), count)
        programming = programming_of(plan, counts, counts, counts[..., 0])
        return memsim.summarize(programming, plan, baseline)

    assert summary(2, baseline=summary(5)).reduction == 2.5
    assert summary(5, baseline=summary(5)).reduction == 1
    assert summary(0, baseline=summary(0)).reduction == 1
    assert summary(0, baseline=summary(5)).reduction is None  # not infinity, which JSON lacks


def chip_summaries(plan, writes):
    summaries = []
    for count in writes:
        sets = np.zeros((2, 2, 8))
        sets[1, 0, 3] = count
        summary = memsim.summarize(programming_of(plan, sets, sets * 0, sets[..., 3]), plan)
        summaries.append(dataclasses.replace(summary, reduction=1000 / count))
    return summaries


def test_means_over_chips_come_with_their_interval(plan):
    writes = [100, 140, 150, 133]
    mean = memsim.mean_over_chips(chip_summaries(plan, writes))
    assert mean.chips == 4
    assert mean.writes == mean.sets == mean.writes_per_pass[1] == 131  # 130.75
    assert mean.writes_per_column == [0, 0, 0, 131, 0, 0, 0, 0]
    assert mean.layers["layer2/kernel"].writes == 131
    assert mean.layers["layer2/kernel"].inputs == 6
    assert mean.analog_valid is True
    assert mean.max_cell_writes is None
    reductions = [1000 / count for count in writes]
    assert mean.reduction == pytest.approx(np.mean(reductions))
    for name, values in (("writes", writes), ("reduction", reductions)):
        expected = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
        assert mean.intervals[name] == pytest.approx(expected)


def test_one_chip_is_its_own_mean(plan):
    (summary,) = chip_summaries(plan, [7])
    assert memsim.mean_over_chips([summary]) == summary
    assert summary.chips == 1


def test_means_of_large_counts_are_exact(plan):
    summaries = chip_summaries(plan, [LIMIT, LIMIT - 2])
    summaries = [dataclasses.replace(s, writes=s.writes * 2**10) for s in summaries]
    assert memsim.mean_over_chips(summaries).writes == (LIMIT - 1) * 2**10


def test_json_has_the_keys_the_design_fixes(plan):
    counts = np.full((2, 2, 8), LIMIT)
    summary = memsim.summarize(programming_of(plan, counts, counts, counts[..., 0]), plan)
    name = "sws+stuck:p=0.50,low=3"
    report = memsim.report.to_json("model.safetensors", plan.config, {name: summary}, ["bias"])
    assert json.loads(json.dumps(report)) == report
    assert report["checkpoint"] == "model.safetensors"
    assert report["weights"] == 39
    assert report["digital"] == ["bias"]
    assert report["config"].pop("words_per_row") == 1
    assert memsim.CrossbarConfig(**report["config"]) == plan.config
    assert {
        "writes",
        "sets",
        "resets",
        "writes_per_pass",
        "row_operations",
        "reduction",
        "index_bits_per_weight",
        "analog_valid",
        "max_cell_writes",
        "writes_per_column",
        "layers",
    } <= set(report["policies"][name])
    layer = report["policies"][name]["layers"]["layer2/kernel"]
    assert {"inputs", "outputs", "weights", "writes"} <= set(layer)
    assert report["policies"][name]["writes"] == 64 * LIMIT


def test_a_programming_of_many_chips_or_another_plan_is_refused(params, plan, key):
    chips = jax.vmap(lambda k: memsim.sample_chip(k, plan))(jax.random.split(key, 2))
    _, programming = jax.vmap(lambda chip: memsim.program(params, plan, chip))(chips)
    message = r"`programming` counts have shape \(2, 1, 2\), expected \[passes, 2 layers\]"
    with pytest.raises(ValueError, match=message):
        memsim.summarize(programming, plan)
    first = jax.tree.map(lambda x: x[0], programming)
    assert memsim.summarize(first, plan).writes > 0
    other = memsim.plan({"kernel": np.ones((2, 2))}, plan.config, memsim.policies.Sws())
    with pytest.raises(ValueError, match=r"shape \(1, 2\), expected \[passes, 1 layers\]"):
        memsim.summarize(first, other)


@pytest.mark.parametrize(
    ("bits", "text"), [(0, "0.0"), (0.001, "<0.1"), (0.06, "0.1"), (9.62, "9.6")]
)
def test_a_small_price_is_not_called_nothing(bits, text):
    assert index_bits_text(bits) == text
