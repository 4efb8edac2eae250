"""Type checkers see the right types: a network stays what it was, and a wrong word is an error."""

import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
# a line that is to be refused says so
PROGRAM = """
from typing import assert_type

import jax
import jax.numpy as jnp
from flax import nnx

import memsim

config = memsim.CrossbarConfig(encoding="sign_magnitude")
policy = memsim.Policy.parse("sws")

# a network of dicts
params = {"dense": {"kernel": jnp.ones((4, 4))}}
plan = memsim.plan(params, config, policy)
assert_type(plan, memsim.Plan)
chip = memsim.sample_chip(jax.random.key(0), plan)
assert_type(chip, memsim.Chip)
held, programming = memsim.program(params, plan, chip, words=True)
assert_type(held, dict[str, dict[str, jax.Array]])
assert_type(programming, memsim.Programming)
assert_type(programming.chip, memsim.Chip)
assert_type(memsim.summarize(programming, plan), memsim.Summary)

# a network of Flax NNX: its state, and the module itself
model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
graphdef, state = nnx.split(model)
of_state, _ = memsim.program(state, memsim.plan(state, config, policy), chip)
assert_type(of_state, nnx.State)
assert_type(nnx.merge(graphdef, of_state), nnx.Linear)
of_model, _ = memsim.program(model, memsim.plan(model, config, policy), chip)
assert_type(of_model, nnx.Linear)
"""
# not run here: they compile for long
MORE = """
readout = memsim.Readout(cells=memsim.Conductance.hfo2())
seen = memsim.read_weights(jax.random.key(1), held, plan, programming, readout)
assert_type(seen, dict[str, dict[str, jax.Array]])
assert_type(memsim.WordChains(plan).cheapest(params, 1.0), dict[str, dict[str, jax.Array]])

memsim.CrossbarConfig(encoding="diff")  # wrong
memsim.CrossbarConfig(schedule="blocks")  # wrong
memsim.CrossbarConfig(128)  # wrong
memsim.plan(params, policy, config)  # wrong
memsim.program(params, chip, plan)  # wrong
held.kernel  # wrong
"""
WRONG = {
    number for number, line in enumerate((PROGRAM + MORE).splitlines(), 1) if "# wrong" in line
}


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + MORE)
    return path


def refused(command, form):
    """The lines that a type checker calls errors."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {int(line) for line in re.findall(form, done.stdout)}
    assert found, done.stdout + done.stderr
    assert found == WRONG, done.stdout


def test_types_hold_for_mypy(program):
    command = [sys.executable, "-m", "mypy", program]  # with the cache of `make lint`
    refused(command, r"program\.py:(\d+): error")


def test_types_hold_for_pyright_in_basic_mode(program):
    pytest.importorskip("basedpyright", reason="pip install basedpyright: pyright and its node")
    settings = {"typeCheckingMode": "basic", "extraPaths": [str(ROOT)]}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "-p", program.parent]
    refused([*command, "--pythonpath", sys.executable], r"program\.py:(\d+):\d+ - error")


@pytest.mark.slow
def test_what_checkers_are_told_is_so(monkeypatch):
    def is_one(value, kind):
        assert isinstance(value, typing.get_origin(kind) or kind)
        if kind == dict[str, dict[str, jax.Array]]:
            assert list(map(list, value.values())) == [["kernel"]]

    monkeypatch.setattr(typing, "assert_type", is_one)
    exec(PROGRAM, {})  # noqa: S102
