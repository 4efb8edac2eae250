"""What people read: names, counts, titles, tables in narrow terminals."""

import io
import json
import sys

import numpy as np
import pytest
import rich.console
import safetensors.numpy

import memsim
from memsim.report.documents import Upkeep, lifetime_json
from memsim.report.tables import lifetime_tables, policy_table
from memsim.report.terminal import results_console
from memsim.report.texts import (
    count_text,
    fold_name,
    lifetime_title,
    pool_text,
    printable,
    wear_text,
)
from memsim.service.costs import make_service_inputs

LONG = "matched+stuck:p=0.5,low=3,tolerance=1,price=8,correction=none"
ODD = ["a\x1b[31mred", "b\rover", "c\x07bell", "d\u202eright", "e\udcff", "f[bold]x[/]", "g\n2"]


@pytest.fixture(scope="module")
def summaries():
    weights = {"kernel": np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)}
    config = memsim.CrossbarConfig(rows=16)
    policies = {"unsorted": memsim.policies.Sws(), LONG: memsim.Policy.parse(LONG)}
    return memsim.compare(weights, config, policies, passes=2, steady=True)


def shown(table, width, encoding="utf-8"):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    rich.console.Console(file=out, width=width).print(table)
    out.seek(0)
    return out.read()


def numbers_of(summary):
    found = (summary.writes, summary.sets, summary.resets, summary.row_operations)
    return [f"{number:,}" for number in found]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 300])
def test_tables_fit_and_cut_no_number_short(summaries, width):
    lines = shown(policy_table(summaries.policies), width)
    assert max(map(len, lines.splitlines())) <= width
    assert "…" not in lines
    for summary in summaries.policies.values():
        for number in (*numbers_of(summary), "index bits", "analog-valid"):
            assert number in lines or " " in number
    erring = summaries.policies[LONG]
    errors = f"{erring.code_error_rms:.2f} / {erring.code_error_mean:+.2f}"
    assert erring.code_error_rms > 0
    assert lines.count(errors) == lines.count("rms / mean") == 1
    whole = "".join(lines.split()).replace("│", "")
    assert all(part in whole for part in ("tolerance=1,", "correction=none"))


def test_a_wide_terminal_has_one_table_with_whole_names(summaries):
    lines = shown(policy_table(summaries.policies), 200)
    assert lines.count("policy") == 1
    assert LONG in lines


@pytest.mark.parametrize("name", ODD)
def test_names_steer_neither_terminal_nor_page(name, summaries):
    (summary, *_) = summaries.policies.values()
    lines = shown(policy_table({name: summary}, title=name), 140)
    assert all(letter.isprintable() or letter == "\n" for letter in lines)
    if "\n" not in name:
        assert lines.count(printable(name)) == 2
    report = memsim.report.to_json(name, memsim.CrossbarConfig(), {"sws": summary}, [name, "plain"])
    report["policies"]["sws"]["layers"] = {name: report["policies"]["sws"]["layers"].popitem()[1]}
    page = memsim.report.to_html(report)
    page.encode()
    assert all(letter.isprintable() or letter == "\n" for letter in page)
    assert page.count(printable(name)) >= 4


def test_pictures_are_left_as_they_are(summaries):
    report = memsim.report.to_json("x", memsim.CrossbarConfig(), summaries.policies, [])
    assert "<svg>\n\t</svg>" in memsim.report.to_html(report, pictures={"a": "<svg>\n\t</svg>"})


@pytest.mark.parametrize("name", ["größe.weight", "層.weight", "e\x1b[2J.weight"])
def test_an_ascii_terminal_still_gets_everything(name, tmp_path, monkeypatch, run):
    rng = np.random.default_rng(0)
    path, out = tmp_path / "net.safetensors", tmp_path / "out.json"
    safetensors.numpy.save_file({name: rng.standard_normal((8, 4), np.float32)}, path)
    raw = io.BytesIO()
    with monkeypatch.context() as patched:
        terminal = io.TextIOWrapper(raw, encoding="ascii")
        patched.setattr(sys, "stdout", terminal)
        results_console().print(name, "±", markup=False)
        terminal.flush()
    assert b"+-" in raw.getvalue()
    code, printed, errors = run("report", path, "--rows", 4, "--policy", "sws", "--json", out)
    assert code == 0, errors
    assert list(json.loads(out.read_text())["policies"]["sws"]["layers"]) == [name]
    assert printable(name) in printed
    assert "\x1b" not in printed
    assert "32 weights in 1 tensor\n" in printed


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (0, "tensor", "", "0 tensors"),
        (1, "tensor", "", "1 tensor"),
        (3183, "tensor", "", "3,183 tensors"),
        (1, "pass", "", "1 pass"),
        (2, "pass", "", "2 passes"),
        (2, "matrix", "matrices", "2 matrices"),
        (1.0, "inference", "", "1 inference"),
        (1e6, "inference", "", "1e+06 inferences"),
    ],
)
def test_things_are_counted_in_words(number, noun, plural, text):
    assert count_text(number, noun, plural) == text


def test_a_page_counts_one_thing_as_one(summaries):
    (summary, *_) = summaries.policies.values()
    report = memsim.report.to_json("x", memsim.CrossbarConfig(rows=1), {"sws": summary}, ["bias"])
    page = memsim.report.to_html(report)
    assert "1 tensor is not on a crossbar" in page
    assert "1 crossbar of 1 row, one word wide<" in page
    assert "2,400 weights</b> in <b>1 tensor</b>" in page


@pytest.mark.parametrize("width", [1, 12, 26])
def test_folded_names_are_whole(width):
    lines = fold_name(LONG, width).split("\n")
    assert "".join(lines) == LONG
    assert all(len(line) <= max(width, len("correction=none")) for line in lines)
    assert fold_name("sws", width) == "sws"
    assert fold_name("", width) == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "1 crossbar of 128 rows, one word wide"),
        ({"crossbars": 64, "rows": 1}, "64 crossbars of 1 row, one word wide, block schedule"),
        ({"crossbars": 2, "columns": 128}, "2 crossbars of 128 rows x 128 columns, block schedule"),
        ({"crossbars": 3, "schedule": "interleaved"},
         "3 crossbars of 128 rows, one word wide, interleaved schedule"),
        ({"crossbars": None}, "one crossbar per section, of 128 rows, one word wide"),
    ],
)  # fmt: skip
def test_the_pool_of_crossbars_is_said_in_words(options, text, summaries):
    config = memsim.CrossbarConfig(**options)
    report = memsim.report.to_json("x", config, summaries.policies, [])
    assert pool_text(report["config"]) == text
    report["lifetime"] = lifetime_json(make_service_inputs(), config, Upkeep(), priced=False)
    assert report["lifetime"]["pool"] == text
    assert f"Lifetime of a chip with {text}, until a cell fails" in lifetime_title(report)


@pytest.mark.parametrize(
    ("cell_bits", "share", "text"),
    [(1, 0.5, "half a cycle a write"), (2, 0.75, "0.75 cycles a write, the most"),
     (4, 0.9375, "0.9375 cycles a write, the most")],
)  # fmt: skip
def test_what_wears_is_said_with_its_unit(cell_bits, share, text, summaries):
    config = memsim.CrossbarConfig(cell_bits=cell_bits)
    report = memsim.report.to_json("x", config, summaries.policies, [])
    report["lifetime"] = lifetime_json(make_service_inputs(), config, Upkeep(), priced=False)
    assert report["lifetime"]["cycles_per_write"] == share
    assert report["lifetime"]["cycles_counted"] == (cell_bits == 1)
    assert text in wear_text(report)


def test_lifetime_tables_fit_80_columns_and_name_units(summaries):
    inputs = make_service_inputs()
    lives = {
        name: memsim.service.life_in_service(
            last.summary, inputs, cycles=[last.wear[0] / np.float32(2)]
        )
        for name, last in summaries.steady.items()
    }
    texts = [shown(table, 80) for table in lifetime_tables(lives, inputs, "Lifetime", cost=True)]
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
    everything = " ".join(texts)
    for text in ("1e+06 cycles", "cycles", "programmings", "PLACEHOLDER"):
        assert text in everything
