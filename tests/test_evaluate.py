"""`memsim report --evaluate`: a function of the user says how good held weights are."""

import hashlib
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import memsim
import memsim.cli

CODE = """
import numpy as np

rng = np.random.default_rng(7)
INPUTS, seen = rng.standard_normal((200, 20)).astype(np.float32), []


def right(tensors):
    return INPUTS @ tensors["fc.weight"].T + tensors["fc.bias"]


def accuracy(tensors):
    seen.append({name: tensor.copy() for name, tensor in tensors.items()})
    answers = right(tensors).argmax(1)
    tensors["fc.weight"][:] = 0  # its own copy
    return np.float32((answers == LABELS).mean())


def fails(tensors):
    raise ValueError("boom")


LABELS = right(dict(np.load("given.npz"))).argmax(1)
"""
NAMES = ("sws+stuck:p=0.5,low=5", "matched:tolerance=3", "matched:faults=avoid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and a function that knows which answers are right."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(1)
    tensors = {
        "fc.weight": rng.standard_normal((10, 20), np.float32),
        "fc.bias": rng.standard_normal(10, np.float32),
        "steps": np.arange(3),
    }
    safetensors.numpy.save_file(tensors, folder / "net.safetensors", {"format": "pt"})
    np.savez(folder / "given.npz", **tensors)
    (folder / "judge_of_test.py").write_text(CODE)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_every_policy_is_evaluated_on_the_weights_that_chips_hold(run, folder, here):
    options = ["--rows", 16, "--stuck-at-1", 0.02, "--seed", 3, "--passes", 2]
    policies = [word for name in NAMES for word in ("--policy", name)]
    code, printed, error = run(
        "report", "net.safetensors", *options, *policies, "--chips", 2, "--evaluate",
        "judge_of_test:accuracy", "--json", "o.json",
    )  # fmt: skip
    assert code == 0, error
    import judge_of_test

    document = json.loads((folder / "o.json").read_text())
    assert document["evaluation"] == {"function": "judge_of_test:accuracy", "checkpoint": 1.0}
    digest = hashlib.sha256((folder / "judge_of_test.py").read_bytes()).hexdigest()
    assert document["made_by"]["files"]["--evaluate"] == digest
    before, *held = judge_of_test.seen  # the checkpoint, then two chips of each policy
    given = safetensors.numpy.load_file("net.safetensors")
    for name, tensor in given.items():
        np.testing.assert_array_equal(before[name], tensor)
        assert before[name].dtype == tensor.dtype
    assert len(held) == 2 * len(NAMES)
    for number, name in enumerate(NAMES):
        found = document["policies"][name]["evaluation"]
        assert found["per_chip"] == pytest.approx(
            [(judge_of_test.right(x).argmax(1) == judge_of_test.LABELS).mean()
             for x in held[2 * number : 2 * number + 2]]
        )  # fmt: skip
        assert found["mean"] == pytest.approx(np.mean(found["per_chip"]))
        low, high = found["interval"]
        assert low <= found["mean"] <= high
        assert f"{found['mean']:.5g}" in printed
        # the first chip holds what `memsim program` says that it holds
        out = f"{number}.safetensors"
        assert run("program", "net.safetensors", *options, "--policy", name, "--out", out)[0] == 0
        for tensor, array in safetensors.numpy.load_file(out).items():
            np.testing.assert_array_equal(held[2 * number][tensor], array)
    assert "What judge_of_test:accuracy returns of the weights held" in printed


def test_the_page_prints_what_its_command_prints(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text()
    module, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "digits.py").write_text(module)
    monkeypatch.delitem(sys.modules, "digits", raising=False)
    exec(code, {})  # noqa: S102
    ((command,), (table,)) = (re.findall(rf"```{of}\n(.*?)```", page, re.DOTALL)
                              for of in ("sh", "text"))  # fmt: skip
    code, printed, error = run(*shlex.split(command.replace("\\\n", ""))[1:])
    assert code == 0, error
    for line in table.splitlines():
        assert line in printed


def test_chips_that_hold_the_same_are_evaluated_once(run, folder, here):
    code, printed, _ = run(
        "report", "net.safetensors", "--policy", "sws", "--rows", 16, "--chips", 5, "--evaluate",
        "judge_of_test:accuracy", "--json", "o.json", "--html", "o.html", "--force",
    )  # fmt: skip
    assert code == 0
    found = json.loads((folder / "o.json").read_text())["policies"]["sws"]["evaluation"]
    assert len(found["per_chip"]) == 1
    assert found["interval"] is None
    assert "mean of the chips" not in printed
    assert f"{found['mean']:.5g}" in (folder / "o.html").read_text()


def test_float64_stays_so(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("net.npz", **{"fc.weight": np.linspace(-1, 1, 40).reshape(4, 10)})
    (tmp_path / "judge_of_dtype.py").write_text(
        "def size(tensors):\n    return tensors['fc.weight'].dtype.itemsize\n"
    )
    options = ("--policy", "sws", "--rows", 16, "--evaluate", "judge_of_dtype:size")
    assert run("report", "net.npz", *options, "--json", "o.json")[0] == 0
    assert json.loads((tmp_path / "o.json").read_text())["policies"]["sws"]["evaluation"] == {
        "mean": 8.0, "interval": None, "per_chip": [8.0],
    }  # fmt: skip


def test_a_function_that_fails_shows_its_own_lines(here, monkeypatch):
    command = ["memsim", "report", "net.safetensors", "--evaluate", "judge_of_test:fails"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(RuntimeError, match="judge_of_test:fails failed") as raised:
        memsim.cli.main()
    assert "boom" in str(raised.value.__cause__)
