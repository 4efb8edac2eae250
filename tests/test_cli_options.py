"""Options that go together, and how commands fail: one line, an exit status, no traceback."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from typing import Annotated

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import typer
import typer.testing

import memsim
import memsim.cli
from memsim.cli.records import given_options, with_options
from memsim.cli.rules import PLAN_RULES, PROGRAM_RULES, REPORT_RULES, Rule, check_rules

# A value that each option takes; flags take none.
VALUES = {
    "--policy": ["sws"], "--plan": ["p.safetensors"], "--rows": [128], "--bits": [8],
    "--cell-bits": [1], "--encoding": ["twos_complement"], "--crossbars": [1],
    "--schedule": ["block"], "--scale-per": ["tensor"], "--include": ["x"], "--exclude": ["x"],
    "--map": ["x=out-in"], "--chip": ["c.safetensors"], "--faults": ["f.npz"],
    "--stuck-at-0": [0.0], "--stuck-at-1": [0.0], "--seed": [0], "--from": ["old.npz"],
    "--keep-placement": [], "--cost": ["c.toml"], "--scheme": ["constant"],
    "--levelling": ["none"], "--spares": [0], "--lifetime": [], "--cells": ["hfo2"],
    "--force": [], "--json": ["o.json"], "--max-drop": [0.01], "--evaluate": ["a:b"],
    "--minimise": ["wear"], "--batch": [2], "--positions": [3], "--hardware": ["isaac"],
}  # fmt: skip
# What a command takes besides, so that one rule alone is broken; needs come before.
BASIS = {"report": [], "program": ["--out", "o.npz"], "plan": ["--out", "o.safetensors"]}
COMPANIONS = {"--scheme": ["--lifetime"]}
RULES = {"report": REPORT_RULES, "program": PROGRAM_RULES, "plan": PLAN_RULES}
COLUMNS_TO_COME = {"--columns"}  # the option of a later version


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    tensors = {"fc.weight": rng.standard_normal((10, 30), np.float32)}
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    return path


def typed(*options):
    return [word for option in options for word in (option, *VALUES[option])]


def broken_rules():
    """(command, arguments, what the message names): every way to break every rule."""
    for command, rules in RULES.items():
        for rule in rules:
            basis = BASIS[command]
            if command == "plan" and rule.option not in ("*", "--max-drop"):
                basis = [*basis, *typed("--policy")]
            if rule.option == "*":
                yield command, basis, rule.needs
            elif rule.needs:
                have = [*typed(rule.option), *COMPANIONS.get(rule.option, [])]
                if rule.needs == ("--lifetime",):
                    have = typed(rule.option)
                yield command, [*basis, *have], (rule.option, rule.needs[0])
            for excluded in sorted(set(rule.excludes) - COLUMNS_TO_COME):
                extra = typed("--policy") if rule.option in ("--chip", "--faults") else []
                extra = extra if command == "program" else []
                yield (
                    command,
                    [*basis, *extra, *typed(rule.option, excluded)],
                    (
                        rule.option,
                        excluded,
                    ),
                )


@pytest.mark.parametrize(("command", "arguments", "names"), list(broken_rules()))
def test_what_cannot_apply_is_refused_by_name(run, checkpoint, command, arguments, names):
    code, printed, error = run(command, checkpoint, *arguments)
    assert code == 1
    assert error.startswith("memsim: ")
    assert not printed
    for name in names:
        assert f"`{name}`" in error


def test_every_option_of_a_rule_is_one_of_its_command():
    commands = {c.name: c for c in memsim.cli.app.registered_commands}
    runner = typer.testing.CliRunner()
    assert set(commands) == {*RULES, "advise", "show", "diff"}
    for command, rules in RULES.items():
        help_ = runner.invoke(memsim.cli.app, [command, "--help"], env={"COLUMNS": "200"}).output
        named = {name for rule in rules for name in (rule.option, *rule.needs, *rule.excludes)}
        for name in named - {"*"} - COLUMNS_TO_COME:
            assert f"{name} " in help_


def test_rules_tell_what_was_typed_from_defaults():
    rules = [Rule("--a", "because", needs=("--b", "--c")), Rule("--d", "so", excludes=("--e",))]
    check_rules(rules, frozenset())
    check_rules(rules, frozenset({"--a", "--c", "--d"}))
    with pytest.raises(ValueError, match="`--a` needs `--b` or `--c`: because; give --b or --c"):
        check_rules(rules, frozenset({"--a"}))
    with pytest.raises(ValueError, match="`--e` beside `--d` cannot apply: so; leave --e out"):
        check_rules(rules, frozenset({"--d", "--e"}))


def test_a_plan_needs_no_policy(run, checkpoint, tmp_path):
    plan, held, direct = (tmp_path / f"{name}.safetensors" for name in ("p", "h", "d"))
    options = ["--policy", "matched:tolerance=1", "--rows", 16]
    assert run("plan", checkpoint, *options, "--out", plan)[0] == 0
    code, printed, _ = run("program", checkpoint, "--plan", plan, "--out", held)
    assert code == 0
    assert run("program", checkpoint, *options, "--out", direct)[1].split("in ")[0] in printed
    assert held.read_bytes() == direct.read_bytes()
    with safetensors.safe_open(held, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("seed", [2**63, 2**64, 2**32, -1, 10**30])
@pytest.mark.parametrize("command", ["report", "program"])
def test_a_seed_that_is_none_is_told(run, checkpoint, command, seed):
    out = ["--policy", "sws", "--out", "o.npz"] if command == "program" else []
    code, _, error = run(command, checkpoint, *out, "--seed", seed)
    assert code == 1
    assert error == f"memsim: `--seed` is {seed}; give a whole number from 0 to 4,294,967,295."


def test_a_seed_that_is_no_number_is_a_usage_error(run, checkpoint):
    code, _, error = run("report", checkpoint, "--seed", "1.5")
    assert code == 2
    assert "--seed" in error
    assert run("report", checkpoint, "--rows", 16, "--policy", "sws", "--seed", 2**32 - 1)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rows", 2 * 10**9], ["--rows", 10**30], ["--crossbars", 10**11], ["--chips", 10**12],
        ["--passes", 2**70], ["--passes", 2**31 - 1],
        ["--crossbars", "all", "--rows", 10**9],
    ],
)  # fmt: skip
def test_crossbars_that_no_machine_holds_are_refused(run, checkpoint, arguments):
    code, _, error = run("report", checkpoint, *arguments)
    assert code == 1
    assert "GB" in error
    assert "give fewer `rows`, `crossbars`, `chips` or `passes`" in error


def test_passes_that_no_counter_holds_are_refused(run, checkpoint, tmp_path):
    plan = tmp_path / "p.safetensors"
    assert run("plan", checkpoint, "--policy", "sws", "--rows", 16, "--out", plan)[0] == 0
    for given in (["--plan", plan], ["--policy", "sws", "--rows", 16]):
        code, _, error = run("program", checkpoint, *given, "--out", "o.npz", "--passes", 2**70)
        assert code == 1
        assert "give fewer `rows`, `crossbars`, `chips` or `passes`" in error


def test_cells_stuck_beside_weights_that_vanish_are_told(run, tmp_path):
    for name, size in (("none", 0.0), ("net", 1e-300)):
        np.savez(tmp_path / f"{name}.npz", **{"fc.weight": np.full((10, 30), size)})
    plan = tmp_path / "p.safetensors"  # of another network: by itself it would be refused
    assert run("plan", tmp_path / "none.npz", "--policy", "sws", "--out", plan)[0] == 0
    options = ["--plan", plan, "--stuck-at-1", 0.1, "--out", tmp_path / "h.npz"]
    code, printed, error = run("program", tmp_path / "net.npz", *options)
    assert code == 0, error
    assert re.search(r"off by \S*e\+30\d %", printed)


def test_two_outputs_of_one_name_are_refused(run, checkpoint):
    code, _, error = run("report", checkpoint, "--json", "o.json", "--html", "./o.json")
    assert code == 1
    assert "`--html` and `--json` are both o.json; name two files" in error


def test_weights_beyond_the_scale_of_a_plan_are_counted(run, tmp_path):
    weights = np.linspace(-1, 1, 40, dtype=np.float32).reshape(4, 10)
    for name, factor in (("one", 1), ("ten", 10)):
        np.savez(tmp_path / f"{name}.npz", **{"fc.weight": weights * np.float32(factor)})
    plan, out = tmp_path / "p.safetensors", tmp_path / "h.npz"
    assert run("plan", tmp_path / "one.npz", "--policy", "sws", "--out", plan)[0] == 0
    code, printed, _ = run("program", tmp_path / "ten.npz", "--plan", plan, "--out", out)
    assert code == 0
    clipped = int(np.sum(np.rint(np.abs(10 * weights) * 127) > 127))
    assert f"{clipped} weights ({100 * clipped / 40:.1f} %) clipped" in printed
    assert "clipped" not in run("program", tmp_path / "one.npz", "--plan", plan, "--out", out,
                                "--force")[1]  # fmt: skip


@pytest.mark.parametrize("size", [1e-300, 1e-60, 1e-39, 5e-324])
def test_float64_that_vanishes_is_told(run, tmp_path, size):
    np.savez(tmp_path / "net.npz", **{"fc.weight": np.full((4, 10), size)})
    code, printed, error = run("program", tmp_path / "net.npz", "--policy", "sws", "--out",
                               tmp_path / "h.npz")  # fmt: skip
    if code:  # refused by name is right too
        assert "fc.weight" in error
        return
    held = np.load(tmp_path / "h.npz")["fc.weight"]
    if (held == 0).all():
        assert "40 weights (100.0 %) held as 0" in printed
        assert "off by 100 %" in printed


def test_errors_too_small_to_show_are_not_none(run, tmp_path):
    # every weight is one of 16 bits' codes, all but a tiny one
    weights = np.float64([[32767.0, 1.0, 2.0, 5.0 + 1e-3]])
    np.savez(tmp_path / "net.npz", **{"fc.weight": weights})
    options = ["--policy", "unsorted", "--bits", 16, "--out", tmp_path / "h.npz"]
    assert "off by <0.001 %" in run("program", tmp_path / "net.npz", *options)[1]


def test_names_never_steer_the_terminal(run, tmp_path):
    name = "\x1b[31mred\x07\u202e\n.weight"
    array = np.ones((3, 4), np.float32)
    safetensors.numpy.save_file({name: array, f"{name}x": array}, tmp_path / "net.safetensors")
    net, plan = tmp_path / "net.safetensors", tmp_path / "p.safetensors"
    outputs = [
        run("report", net, "--policy", "sws"),
        run("program", net, "--policy", "sws", "--out", tmp_path / "h.safetensors"),
        run("plan", net, "--policy", "sws", "--out", plan),
        run("report", net, "--include", name, "--exclude", "red"),  # the error lists names
    ]
    for _, printed, error in outputs:
        for letter in ("\x1b", "\x07", "\u202e"):
            assert letter not in printed + error
    assert r"\x1b[31mred\x07\u202e\n.weight [4 x 3] out-in" in outputs[0][1]
    assert outputs[3][0] == 1


def test_one_is_singular(run, checkpoint, tmp_path):
    one = tmp_path / "one.npz"
    np.savez(one, **{"a.weight": np.ones((1, 1), np.float32), "b": np.ones(3)})
    printed = run("report", one, "--policy", "sws", "--rows", 4)[1]
    assert "programmed: 1 weight in 1 tensor\n" in printed
    assert "left digital: 1 tensor\n" in printed
    options = ["--policy", "sws", "--out", tmp_path / "h.npz"]
    assert "programmed 1 tensor," in run("program", checkpoint, *options)[1]
    options = ["--policy", "sws", "--out", tmp_path / "p.safetensors"]
    assert "plan of 1 tensor under sws" in run("plan", checkpoint, *options)[1]


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_an_ascii_terminal_loses_nothing(tmp_path, environment):
    array = np.ones((3, 4), np.float32)
    safetensors.numpy.save_file({"größe/重み.weight": array}, tmp_path / "net.safetensors")
    command = [sys.executable, "-m", "memsim", "report", tmp_path / "net.safetensors"]
    command += ["--policy", "unsorted", "--json", tmp_path / "o.json"]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    layers = json.loads((tmp_path / "o.json").read_text())["policies"]["unsorted"]["layers"]
    assert list(layers) == ["größe/重み.weight"]
    assert b"[4 x 3]" in done.stdout


def test_files_are_written_though_nobody_reads(checkpoint, tmp_path):
    json_, page = tmp_path / "o.json", tmp_path / "o.html"
    command = [sys.executable, "-m", "memsim", "report", checkpoint, "--policy", "unsorted"]
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does, once it has enough
    done = subprocess.run([*command, "--json", json_, "--html", page], stdout=writing,
                          stderr=subprocess.PIPE)  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(json_.read_text())["weights"] == 300
    assert page.read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "memsim: interrupted"),
        (MemoryError(), 1, "memsim: out of memory"),
        (MemoryError("Unable to allocate 8 GiB"), 1, "(Unable to allocate 8 GiB)"),
        (OverflowError("too large"), 1, "memsim: too large"),
        (EOFError(), 1, "memsim: EOFError"),
        (PermissionError(13, "denied"), 1, "denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 1, "can't decode byte"),
        (ValueError("a\nb\x1b[31m"), 1, r"memsim: a b\x1b[31m"),
        (KeyError("config"), 70, "memsim: unexpected KeyError: 'config'. This is a defect"),
        (ZeroDivisionError("x"), 70, "MEMSIM_DEBUG=1 shows where"),
    ],
)
def test_whatever_happens_is_one_line(run, checkpoint, monkeypatch, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("memsim.cli.report_command.compare", fail)
    status, printed, told = run("report", checkpoint)
    assert status == code
    assert message in told
    assert "Traceback" not in told
    assert not printed


def test_failures_show_where_on_request(run, checkpoint, monkeypatch):
    def fail(*_, **__):
        raise KeyError("config")

    monkeypatch.setattr("memsim.cli.report_command.compare", fail)
    code, _, error = run("--debug", "report", checkpoint)
    assert code == 70
    assert "Traceback" in error
    assert "in fail" in error
    assert "Traceback" not in run("report", checkpoint)[2]  # of that call alone
    monkeypatch.setenv("MEMSIM_DEBUG", "1")
    code, _, error = run("report", checkpoint)
    assert code == 70
    assert "Traceback" in error


def test_errors_of_files_are_told_with_their_option(run, checkpoint, tmp_path):
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no archive")
    for option in ("--from", "--faults"):
        code, _, error = run("report", checkpoint, option, bad)
        assert code == 1
        assert error.startswith(f"memsim: {option}: `checkpoint` {bad}")


def test_a_policy_from_the_present_folder(run, checkpoint, tmp_path):
    (tmp_path / "my_policies_of_cli.py").write_text(
        "import dataclasses\n"
        "import memsim.policies\n\n\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\n"
        "class Plain(memsim.policies.Policy):\n"
        "    def place(self, codes, config):\n"
        "        return memsim.policies.unsorted_placement(*codes.shape, config.rows)\n\n"
        "    def index_bits(self, inputs, outputs, config):\n"
        "        return 0.0\n"
    )
    name, out = "my_policies_of_cli:Plain", tmp_path / "o.json"
    code, _, error = run("report", checkpoint, "--policy", "unsorted", "--policy", name,
                         "--rows", 16, "--json", out)  # fmt: skip
    assert code == 0, error
    policies = json.loads(out.read_text())["policies"]
    assert policies[name]["writes"] == policies["unsorted"]["writes"]
    code, _, error = run("report", checkpoint, "--policy", "my_policies_of_cli:Nothing")
    assert code == 1
    assert "Nothing" in error


def test_report_says_how_each_tensor_was_read(run, tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "h.0.attn.c_attn.weight": rng.standard_normal((48, 144), np.float32),
        "odd": rng.standard_normal((6, 8, 4), np.float32),
    }
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(tensors, path)
    options = ["--policy", "unsorted", "--rows", 16, "--map", "^odd$=stacked-in-out"]
    printed = run("report", path, *options)[1]
    assert "odd [6 x (8 x 4)] stacked-in-out" in printed
    assert "h.*.attn.c_attn.weight [48 x 144] in-out" in printed or (
        "h.0.attn.c_attn.weight [48 x 144] in-out" in printed
    )
    assert "programmed: 7,104 weights in 2 tensors" in printed


@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_fit_their_width(run, checkpoint, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    options = ["--policy", "unsorted", "--policy", "sws+stuck:p=0.5,low=3", "--rows", 16]
    printed = run("report", checkpoint, *options, "--lifetime", "--cells", "hfo2")[1]
    assert max(map(len, printed.splitlines())) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed


@pytest.mark.parametrize("width", [60, 80])
def test_numbers_are_whole_at_every_width(run, tmp_path, monkeypatch, width):
    rng = np.random.default_rng(3)
    path, out = tmp_path / "net.npz", tmp_path / "out.json"
    np.savez(path, **{"fc.weight": rng.standard_normal((700, 2100), np.float32)})  # long numbers
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["unsorted", "sws+stuck:p=0.5,low=3", "sws-layer"]
    options = [text for name in names for text in ("--policy", name)]
    options += ["--hardware", "published", "--writing", "success:set=0.9,reset=0.8", "--json", out]
    code, printed, _ = run("report", path, *options)
    assert code == 0
    # a number is never cut or folded: each stands between the lines of a cell
    cells = [cell.strip() for cell in re.split(r"[│┃\n]", printed)]
    document = json.loads(out.read_text())
    for entry in document["policies"].values():
        for key in ("writes", "sets", "resets", "row_operations", "pulses", "wrong_cells"):
            assert f"{entry[key]:,}" in cells
        assert f"{entry['max_cell_writes']:,}" in cells
        for key in ("reduction", "net_reduction"):
            assert f"{entry[key]:.2f}x" in cells
        assert f"{entry['index_bits_per_weight']:.1f}" in cells
    assert document["policies"]["unsorted"]["writes"] > 1e6
    assert max(map(len, printed.splitlines())) <= width


# Records.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parent:
    rows: Annotated[int, typer.Option(help="how many")] = 128
    names: Annotated[list[str], typer.Option("--name")] = dataclasses.field(
        default_factory=lambda: ["x"]
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Child(Parent):
    path: Annotated[str, typer.Argument(metavar="PATH")]
    force: Annotated[bool, typer.Option("--force")] = False


@with_options(Child)
def show(chosen: Child) -> tuple[Child, frozenset[str]]:
    """Shows its options."""
    typer.echo(f"{chosen} {sorted(given_options())}")
    return chosen, given_options()


def test_a_record_is_a_command():
    app = typer.Typer()
    app.command()(show)
    runner = typer.testing.CliRunner()
    printed = runner.invoke(app, ["here", "--rows", "128", "--name", "a", "--name", "b"]).output
    assert "Child(rows=128, names=['a', 'b'], path='here', force=False)" in printed
    assert "['--name', '--rows', 'path']" in printed
    printed = runner.invoke(app, ["here"]).output
    assert "names=['x']" in printed
    assert "['path']" in printed
    help_ = runner.invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "Shows its options." in help_
    assert help_.index("--rows") < help_.index("--name") < help_.index("--force")
    assert "context" not in help_
    assert runner.invoke(app, []).exit_code == 2  # the argument has no default


def test_a_command_of_a_record_is_a_function_too():
    chosen, given = show(path="there", force=True)
    assert chosen == Child(path="there", force=True)
    assert given == {"--path", "--force"}
    assert given_options() == frozenset()  # outside of a command
