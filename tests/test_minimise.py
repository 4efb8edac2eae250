"""What plans are to need least of, within a budget of accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim import hardware as hw
from memsim.hardware import Objective
from memsim.report.documents import budget_json
from memsim.report.tables import budget_tables

HARDWARE = hw.Hardware(name="small", arrays=hw.Arrays(rows=8, columns=24))


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 40)).astype(np.float32)
    inputs = rng.normal(size=(400, 40)).astype(np.float32)
    labels = (inputs @ weights.T).argmax(1)

    def outputs(params, batch):
        return batch[0] @ params["fc.weight"].T

    def loss(params, batch):
        scores = outputs(params, batch)
        return -jnp.take_along_axis(scores, batch[1][:, None], 1).mean()

    def right(params, batch):
        return outputs(params, batch).argmax(1) == batch[1]

    return {"fc.weight": weights}, memsim.Judge(loss, right, (inputs, labels))


def counted(network, config, **words):
    plan = memsim.plan(network, config, memsim.policies.Matched())
    chip = memsim.sample_chip(jax.random.key(0), plan)
    return memsim.summarize(memsim.program(network, plan, chip, **words)[1], plan)


def test_an_objective_is_a_number_of_a_summary(network):
    config = HARDWARE.config()
    summary = counted(network[0], config, wear=True)
    cost = hw.pass_cost(summary, HARDWARE)
    found = {what: Objective(what=what, hardware=HARDWARE)(summary) for what in hw.OBJECTIVES}
    assert found == {
        "writes": summary.writes,
        "energy": cost.total_joules,
        "time": cost.total_seconds,
        "wear": summary.max_cell_writes,
    }
    with pytest.raises(ValueError, match="`summary` has no wear"):
        Objective(what="wear")(counted(network[0], config))
    with pytest.raises(ValueError, match="`what` is 'power'; choose one of 'writes'"):
        Objective(what="power")
    with pytest.raises(ValueError, match="`energy` is that of hardware"):
        Objective(what="energy")


@pytest.fixture(scope="module")
def minimum(network):
    seen = []
    params, judge = network
    found = memsim.minimise(
        params, HARDWARE, judge, "energy", 0.1, encodings=("twos_complement", "sign_magnitude"),
        batch=100, progress=lambda encoding, trial: seen.append((encoding, trial)),
    )  # fmt: skip
    trials = [(e, trial) for e, budget in found.by_encoding.items() for trial in budget.trials]
    assert seen == trials
    return found


def test_the_least_energy_within_a_budget_is_found(minimum):
    assert set(minimum.by_encoding) == {"twos_complement", "sign_magnitude"}
    values = {name: found.chosen.value for name, found in minimum.by_encoding.items()}
    assert minimum.best is minimum.by_encoding[minimum.encoding]
    assert min(values, key=values.get) == minimum.encoding
    for name, found in minimum.by_encoding.items():
        values_chosen = sorted(choice.value for choice in found.choices)
        assert found.chosen.value == values_chosen[len(values_chosen) // 2]
        priced = HARDWARE.on(HARDWARE.config(encoding=name))
        assert found.chosen.value == hw.pass_cost(found.chosen.summary, priced).total_joules
        assert found.plan.config.encoding == name
        assert found.chosen.accepted > 0


def test_what_was_minimised_is_told(minimum):
    document = budget_json(minimum.best)
    assert document["minimised"] == "energy"
    assert document["chosen"]["value"] == minimum.best.chosen.value
    _, trials, plan = budget_tables(minimum.best)
    assert "energy" in [column.heading for column in trials.columns]
    assert any("index and words included" in text for row in plan.rows for text in row)


def test_a_budget_that_no_encoding_keeps_to_is_named(network):
    params, judge = network
    with pytest.raises(ValueError, match="`encodings` is empty"):
        memsim.minimise(params, HARDWARE, judge, encodings=())
    with pytest.raises(ValueError, match="`encodings` is 'gray'"):
        memsim.minimise(params, HARDWARE, judge, encodings=("gray",))
    few = memsim.Judge(judge.loss, judge.accuracy, tuple(x[:8] for x in judge.data))
    with pytest.raises(ValueError, match="`max_drop` is 0"):
        memsim.minimise(params, HARDWARE, few, max_drop=0, encodings=("offset_binary",))


def test_a_plan_of_least_wear_on_the_command_line(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    np.savez("net.npz", **{"fc.weight": weights})
    (tmp_path / "judging.py").write_text(
        "import numpy as np\n"
        "def judge(tensors):\n"
        "    inputs = np.random.default_rng(1).normal(size=(200, 20)).astype(np.float32)\n"
        "    scores = lambda p, x: x @ p['fc.weight'].T\n"
        "    labels = scores(tensors, inputs).argmax(1)\n"
        "    loss = lambda p, b: (scores(p, b[0]) ** 2).mean()\n"
        "    return loss, lambda p, b: scores(p, b[0]).argmax(1) == b[1], (inputs, labels)\n"
    )
    words = ("plan", "net.npz", "--rows", 8, "--out", "plan.safetensors")
    code, _, error = run(*words, "--policy", "sws", "--minimise", "wear")
    assert code != 0
    assert "`--minimise` needs `--max-drop`" in error
    budget = ("--max-drop", 0.2, "--evaluate", "judging:judge", "--json", "found.json")
    code, printed, error = run(*words, *budget, "--minimise", "wear")
    assert code == 0, error
    assert "writes of one cell" in printed
    wide = (*words, *budget, "--force", "--cell-bits", 4)  # cells that have no prices
    code, printed, error = run(*wide)
    assert code == 0, error
    assert "net energy │ not known" in printed
    code, _, error = run(*wide, "--minimise", "energy")
    assert code != 0
    assert "`energy` is that of hardware" in error
    code, _, error = run(*words, *budget, "--force", "--minimise", "power")
    assert code != 0
    assert "`--minimise` is 'power'" in error
