"""A policy from outside the library, the one of docs/your-own-policy.md, wherever policies go."""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import rich.progress
import typer
from typer.testing import CliRunner

import memsim
from memsim.selection import named_leaves
from tests import oracles
from training import sweep
from training.tasks import digits_task

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gray(monkeypatch, tmp_path):
    """The module of the page, in the current folder; forgotten afterwards."""
    page = (ROOT / "docs" / "your-own-policy.md").read_text()
    (tmp_path / "gray.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gray", raising=False)
    yield importlib.import_module("gray")
    sys.modules.pop("gray", None)


def rank_in_gray_code(word):
    """Counts along the Gray code until the word comes."""
    n = 0
    while n ^ (n >> 1) != word:
        n += 1
    return n


def count(tensors, config):
    """SETs, RESETs and row operations from erased crossbars, one cell after another."""
    held = np.zeros((config.crossbars, config.rows, config.bits), int)
    sets = resets = operations = 0
    for name in oracles.natural_order(tensors):
        matrix = tensors[name]  # [inputs, outputs]
        scale = np.float32(np.abs(matrix).max()) / np.float32(2 ** (config.bits - 1) - 1)
        codes = oracles.quantize(matrix.T, np.full(matrix.shape[1], scale, np.float32), config)
        lines = []
        for line in codes:
            words = [int(code) % 2**config.bits for code in line]
            words.sort(key=rank_in_gray_code)
            lines.append([words[i : i + config.rows] for i in range(0, len(words), config.rows)])
        sections = [line[s] for s in range(len(lines[0])) for line in lines]
        for s, section in enumerate(sections):
            c = oracles.crossbar_of(s, len(sections), config)
            for r, word in enumerate(section):
                changed = False
                for b in range(config.bits):
                    bit = (word >> b) & 1
                    sets += bit > held[c, r, b]
                    resets += bit < held[c, r, b]
                    changed |= bit != held[c, r, b]
                    held[c, r, b] = bit
                operations += changed
    return sets, resets, operations


def tensors_of(params):
    return {"layer2": params["layer2"]["kernel"], "layer10": params["layer10"]["kernel"]}


def counts_of(summary):
    return summary.sets, summary.resets, summary.row_operations


def test_plan_and_program_follow_it(gray, params, config, key):
    plan = memsim.plan(params, config, gray.GrayCode())
    held, programming = memsim.program(params, plan, memsim.sample_chip(key, plan))
    assert counts_of(memsim.summarize(programming, plan)) == count(tensors_of(params), config)
    plain = memsim.plan(params, config, memsim.policies.Unsorted())
    expected, _ = memsim.program(params, plain, memsim.sample_chip(key, plain))
    assert jax.tree.all(jax.tree.map(np.array_equal, held, expected))
    layer = plan.layers["layer2/kernel"]
    assert (layer.index_bits, bool(layer.analog_valid)) == (3, True)


def test_compare_counts_it(gray, params, config):
    found = memsim.compare(
        {f"{name}.kernel": tensor for name, tensor in tensors_of(params).items()},
        config,
        {"gray": gray.GrayCode(), "stucked": gray.GrayCode(p=0.0, low=2)},
    )
    assert counts_of(found.policies["gray"]) == count(tensors_of(params), config)
    assert 0 < found.policies["stucked"].writes < found.policies["gray"].writes


def test_the_command_line_reports_it(gray, params, run, tmp_path):
    tensors = tensors_of(params)
    memsim.save_tensors("net.npz", {f"{name}.kernel": t for name, t in tensors.items()})
    sizes = ("--rows", 4, "--crossbars", 2)
    texts = ("gray:GrayCode", "gray:GrayCode:descending=True")
    status, out, _ = run(
        "report", "net.npz", *sizes, "--policy", texts[0], "--policy", texts[1], "--json", "r.json"
    )
    assert status == 0
    assert texts[0] in out
    found = json.loads((tmp_path / "r.json").read_text())["policies"]
    wanted = count(tensors, memsim.CrossbarConfig(rows=4, crossbars=2))
    assert (found[texts[0]]["sets"], found[texts[0]]["resets"]) == wanted[:2]
    assert found[texts[1]]["writes"] != found[texts[0]]["writes"]


@pytest.mark.slow
def test_a_sweep_takes_it(gray, tmp_path):
    app = typer.Typer()
    app.command()(sweep.main)
    with jax.numpy_dtype_promotion("standard"):
        with rich.progress.Progress(disable=True) as bar:
            task = digits_task(0, bar, epochs=1)
        memsim.save_tensors("digits.safetensors", named_leaves(task.params))
        options = (
            "--weights", "digits.safetensors", "--policy", "gray:GrayCode", "--p", 0.5, "--low", 0,
            "--low", 3, "--chips", 2, "--chunk", 2, "--crossbars", 8, "--out", "out",
        )  # fmt: skip
        done = CliRunner().invoke(app, [*map(str, options)])
    assert done.exit_code == 0, done.output
    rows = pq.read_table(tmp_path / "out" / "sweep.parquet").to_pylist()
    config = memsim.CrossbarConfig(crossbars=8)
    for row in rows:
        plan = memsim.plan(task.params, config, memsim.Policy.parse(row["policy"]))
        key = jax.random.fold_in(jax.random.key(0), row["chip"])
        _, programming = memsim.program(task.params, plan, memsim.sample_chip(key, plan))
        assert row["writes"] == memsim.summarize(programming, plan).writes
    assert {row["policy"] for row in rows} == {"gray:GrayCode", "gray:GrayCode:p=0.5,low=3"}


def test_its_text_reads_back(gray):
    for policy in (gray.GrayCode(), gray.GrayCode(descending=True), gray.GrayCode(p=0.25, low=2)):
        assert memsim.Policy.parse(str(policy)) == policy
    assert str(gray.GrayCode(p=0.5, low=3)) == "gray:GrayCode:p=0.5,low=3"


@pytest.mark.parametrize("text", ["gray:NoSuch", "nowhere:GrayCode", "gray:GrayCode:rows=3"])
def test_a_text_of_no_policy_is_an_error(gray, text):
    with pytest.raises(ValueError, match="`policy`"):
        memsim.Policy.parse(text)


@pytest.mark.parametrize(
    "text", ["memsim.policies:Policy", "memsim:Policy", "memsim.policies:Stuckable"]
)
def test_an_abstract_policy_is_an_error(text):
    with pytest.raises(ValueError, match="an abstract class; it lacks index_bits, place"):
        memsim.Policy.parse(text)


def test_a_placement_that_repeats_a_weight_is_an_error(gray, params, config):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Twice(gray.GrayCode):
        def place(self, codes, config):
            placed = super().place(codes, config)
            weights = placed.weights.copy()
            weights[0, 0] = weights[0, 1]
            return placed._replace(weights=weights)

    with pytest.raises(ValueError, match="no permutation"):
        memsim.plan(params, config, Twice())


def test_a_mix_of_outputs_that_is_said_to_be_analog_valid_is_an_error(gray, params, config):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mixed(gray.GrayCode):
        def place(self, codes, config):
            return memsim.policies.sorted_placement(codes, config.rows, "layer")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Honest(Mixed):
        def analog_valid(self, outputs):
            return False

    with pytest.raises(ValueError, match="analog-valid"):
        memsim.plan(params, config, Mixed())
    assert not memsim.plan(params, config, Honest()).layers["layer2/kernel"].analog_valid
