"""`memsim show` and `memsim diff`: files on one screen."""

import json
import re

import numpy as np
import pytest

import memsim

SCREEN = 40  # lines


@pytest.fixture
def network(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {f"layers.{i}.weight": rng.standard_normal((10, 30), np.float32) for i in range(20)}
    tensors |= {"conv.weight": rng.standard_normal((4, 3, 3, 3), np.float32)}
    tensors |= {f"{name}.bias": np.zeros(4, np.float32) for name in "abcdefghijklmn"}
    path = tmp_path / "net.safetensors"
    memsim.save_tensors(path, tensors)
    return path


@pytest.fixture
def show(run, monkeypatch):
    """What `memsim show` prints of a file at 80 columns, which fits on a screen."""

    def show(path):
        monkeypatch.setenv("COLUMNS", "80")
        code, printed, errors = run("show", path)
        assert (code, errors) == (0, "")
        lines = printed.splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= SCREEN
        return printed

    return show


def report_of(run, network, path, *options):
    options = (*options, "--policy", "sws", "--policy", "unsorted", "--json", path)
    assert run("report", network, "--rows", 16, *options)[0] == 0
    return json.loads(path.read_text())


def test_a_checkpoint_is_shown(show, network):
    printed = show(network)
    assert printed.startswith(f"checkpoint: {network.name}, ")
    assert "tensors: 35, of which 21 would be mapped" in printed
    assert "weights: 6,108 in 21 matrices" in printed
    assert "dtypes: float32 (35)" in printed
    assert re.search(r"layers.\*.weight \(20\) +│ +10 x 30 │ +30 x 10 │ out-in", printed)
    assert re.search(r"a.bias +│ +4 │ +│ digital", printed)
    assert "and 5 more tensors" in printed


def test_a_checkpoint_in_doubt_is_shown_too(show, tmp_path):
    path = tmp_path / "doubt.npz"
    memsim.save_tensors(path, {"odd.kernel": np.ones((2, 3, 4, 5, 6, 7), np.float32)})
    printed = show(path)
    assert "of which 0 would be mapped" in printed
    assert "nothing is mapped yet: " in printed


def test_a_plan_is_shown(run, show, network, tmp_path):
    plan = tmp_path / "plan"
    options = ("--policy", "sws+stuck:p=0.5,low=3", "--rows", 16, "--crossbars", 2)
    assert run("plan", network, *options, "--out", plan)[0] == 0
    printed = show(plan)
    assert printed.startswith(f"plan: {plan.name}, ")
    assert "crossbars: 2 crossbars of 16 rows, one word wide, block schedule" in printed
    assert "weights: 8 bits in twos complement, 1 bit per cell, scale per tensor" in printed
    assert "6,108 weights in 21 layers; 5.00 index bits a weight, 30,540 bits in all" in printed
    assert "every layer is stored with bit stucking p=0.5, low=3" in printed
    assert re.search(r"conv.weight +│ +27 │ +4 │ +8 │ +5.0 │ yes", printed)
    assert "and 10 more layers" in printed


def test_a_chip_is_shown(run, show, network, tmp_path):
    chip, held = tmp_path / "chip", tmp_path / "held.npz"
    options = ("--policy", "sws", "--rows", 16, "--columns", 24, "--stuck-at-0", 0.1)
    assert run("program", network, *options, "--save-chip", chip, "--out", held)[0] == 0
    printed = show(chip)
    assert printed.startswith(f"chip: {chip.name}, ")
    assert "crossbars: 1, each of 16 rows" in printed
    assert "of 3 words" in printed
    assert "cells: 8 a word" in printed
    assert "programmed 1 time" in printed
    config = memsim.CrossbarConfig(rows=16, columns=24)
    loaded = memsim.load_chip(chip, config)
    low, high = (np.asarray(words) for words in (loaded.stuck_at_0, loaded.stuck_at_1))
    stuck, held_1 = (
        int(np.unpackbits(words.view(np.uint8)).sum()) for words in (low, np.asarray(loaded.state))
    )
    assert not high.any()
    assert re.search(r"all +│ +384 │", printed)
    assert re.search(rf"stuck at 0 +│ +{stuck} │", printed)
    assert re.search(rf"above level 0 +│ +{held_1} │", printed)


def test_a_report_is_shown(run, show, network, tmp_path):
    path = tmp_path / "report.json"
    document = report_of(run, network, path, "--seed", 5, "--columns", 128)
    printed = show(path)
    assert printed.startswith(f"report: {path.name}, ")
    assert "width: 128 columns, 16 words a row that share its input" in printed
    for name, entry in document["policies"].items():
        assert re.search(rf"{name} +│ +{entry['writes']:,} │ +{entry['reduction']:.2f}x", printed)
    assert f"made by: memsim {memsim.__version__} with JAX" in printed
    assert "seed: 5" in printed
    assert document["made_by"]["files"]["checkpoint"] in printed


def test_two_reports_are_put_side_by_side(run, network, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    documents = [
        report_of(run, network, a),
        report_of(run, network, b, "--seed", 5, "--crossbars", 3, "--policy", "sws-layer"),
    ]
    code, printed, _ = run("diff", a, b)
    assert code == 0
    assert max(len(line) for line in printed.splitlines()[2:]) <= 60
    for letter, document in zip("AB", documents, strict=True):
        for entry in document["policies"].values():
            writes, reduction = f"{entry['writes']:,}", f"{entry['reduction']:.2f}x"
            row = next(x for x in printed.splitlines() if f" {letter} " in x and writes in x)
            assert reduction in row
    assert re.search(r"--crossbars +│ 1 +│ 3 ", printed)
    assert re.search(r"--seed +│ not given +│ 5 ", printed)
    assert "--rows" not in printed
    assert "both were made with the same options" in run("diff", a, a)[1]


def test_reports_of_0_1_are_compared_as_far_as_they_go(run, network, tmp_path):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    document = report_of(run, network, a)
    del document["made_by"], document["config"]["columns"]
    for entry in document["policies"].values():
        del entry["net_reduction"]
    b.write_text(json.dumps(document))
    code, printed, _ = run("diff", a, b)
    assert code == 0
    assert "B does not say how it was made" in printed
    code, printed, _ = run("show", b)
    assert code == 0
    assert "made by: not on record" in printed


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "is no JSON object"),
        ({"policies": {}}, "there are no policies in it"),
        ({"policies": {"sws": {"writes": 3}}}, "there is no config in it"),
        ({"policies": {"sws": {"writes": "3"}}, "config": {}}, "sws has no number of writes"),
        (
            {"policies": {"sws": {"writes": 3, "reduction": "2"}}, "config": {}},
            "a figure of sws is no number",
        ),
        (
            {"policies": {"sws": {"writes": 3}}, "config": {}, "made_by": {"options": 3}},
            "its `made_by` lacks options or files",
        ),
    ],
)
def test_what_is_no_report_is_refused(run, tmp_path, document, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    for arguments in (("diff", path, path), ("show", path)):
        if document == [] and arguments[0] == "show":
            continue  # it is not even begun as a report
        code, _, errors = run(*arguments)
        assert code == 1
        assert message in errors
        assert "Traceback" not in errors


def test_what_cannot_be_shown_is_refused(run, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"policies": {"sws": {"writes": 3}}, "config": {"rows": "x"}}))
    code, _, errors = run("show", path)
    assert code == 1
    assert "is no whole report" in errors
    code, _, errors = run("show", tmp_path / "none")
    assert code == 1
    assert "is not a file; check the path" in errors
    path = tmp_path / "x.txt"
    path.write_text("weights")
    code, _, errors = run("show", path)
    assert code == 1
    assert "is not a checkpoint that memsim reads" in errors
