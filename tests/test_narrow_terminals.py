"""Tables in narrow terminals: no number is cut, wherever it stands; the bar that shows progress."""

import io
import json
import re
import types

import numpy as np
import pytest
import rich.console

from memsim.report.layout import Column, FittingTable
from memsim.report.terminal import progress_bar, stages
from memsim.report.texts import number_text, quantity_text, time_text
from training.codesign.report import show as show_codesign
from training.redeploy import show as show_redeploy
from training.scoring import ACCURACY

WIDTHS = (80, 60, 40)


def rendered(table, width):
    out = io.StringIO()
    rich.console.Console(file=out, width=width).print(table)
    return out.getvalue()


def check_width(text, width):
    assert "…" not in text
    assert "..." not in text
    assert max(map(len, text.splitlines())) <= width


def words_of(text):
    """What stands between lines and blanks, unbroken."""
    return set(re.split(r"[\s│┃]+", text))


@pytest.mark.parametrize("width", [*WIDTHS, 24, 12])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (2, 2), (3, 1), (12, 1), (40, 2)])
def test_numbers_of_any_table_are_whole(width, rows, keys):
    """Held against the texts that went in: of each cell, all characters in their order."""
    rng = np.random.default_rng(rows)
    columns = [Column("policy"), Column("scheme", left=True)]
    columns += [Column(f"figure\nnumber {n}") for n in range(7)]
    numbers = [[f"{n:,}" for n in rng.integers(10**9, 10**10, 7)] for _ in range(rows)]
    names = [(f"my_module_{n}:APolicyOfMine:tolerance={n}", f"s{n}") for n in range(rows)]
    table = FittingTable(
        "Table", columns, [(*n, *f) for n, f in zip(names, numbers, strict=True)], keys=keys
    )
    text = rendered(table, width)
    check_width(text, width)
    if width >= 24:  # a number of ten digits has room
        assert {each for row in numbers for each in row} <= words_of(text)
    for number, (_, scheme) in enumerate(names):
        assert scheme in words_of(text.replace(":", " ").replace(",", " ")), number


def test_a_table_that_does_not_fit_is_turned_on_its_side():
    columns = [Column(heading) for heading in ("policy", "a", "b", "c", "d")]
    rows = [("sws", "1,111,111", "2,222,222", "3,333,333", "4,444,444")]
    assert len(rendered(FittingTable("T", columns, rows), 80).splitlines()) == 6
    turned = rendered(FittingTable("T", columns, rows), 40)
    assert len(turned.splitlines()) == 9
    assert "│ c      │ 3,333,333 │" in turned


def test_parts_of_a_table_repeat_what_says_which_row_it_is():
    columns = [Column(heading) for heading in ("policy", "scheme", *"abcdef")]
    rows = [(f"p{n}", f"s{n}", *(f"{n}{m:07d}" for m in range(6))) for n in range(9)]
    text = rendered(FittingTable("T", columns, rows, keys=2), 60)
    assert text.count("scheme") == text.count("s3") == text.count("p3") > 1


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    rng = np.random.default_rng(1)
    np.savez(
        folder / "net.npz",
        **{"encoder.block.0.attention.output.dense.weight": rng.standard_normal((24, 40))
           .astype(np.float32)},
    )  # fmt: skip
    (folder / "narrow_judge.py").write_text(
        "def error(tensors):\n"
        "    (weights,) = tensors.values()\n"
        "    return 1234.5 + float(abs(weights).sum())\n"
    )
    return folder


class Consoles:
    """Prints to terminals of several widths at once, so that a report is counted once for all."""

    def __init__(self):
        self.all = {
            width: rich.console.Console(file=io.StringIO(), width=width) for width in WIDTHS
        }

    def print(self, *things, **how):
        for console in self.all.values():
            console.print(*things, **how)


def test_a_report_cuts_no_number(run, network, monkeypatch):
    """All tables of a report at once, held against its JSON."""
    monkeypatch.chdir(network)
    consoles = Consoles()
    monkeypatch.setattr("memsim.cli.report_command.results_console", lambda: consoles)
    names = ["sws+stuck:p=0.5,low=3", "matched:tolerance=1"]
    options = [word for name in names for word in ("--policy", name)]
    options += ["--hardware", "array-128", "--crossbars", 2, "--cells", "hfo2"]
    options += ["--positions", 7, "--lifetime", "--cost", "cost.toml"]
    (network / "cost.toml").write_text("[cost]\nchip_price = 1234567\n")
    options += ["--evaluate", "narrow_judge:error", "--json", "o.json"]
    code, _, error = run("report", "net.npz", *options)
    assert code == 0, error
    document = json.loads((network / "o.json").read_text())
    pool = document["lifetime"]["pool"]
    assert pool == "2 crossbars of 128 rows x 128 columns, block schedule"
    for width, console in consoles.all.items():
        printed = console.file.getvalue()
        check_width(printed, width)
        flat = " ".join(re.sub(r"[│┃]", " ", printed).split())
        assert f"Lifetime of a chip with {pool}" in flat
        for name, entry in document["policies"].items():
            for text in figures_of(entry):
                assert text in flat, (width, name, text)


def figures_of(entry):
    """The texts of figures that stand in the tables of a report."""
    for figure in ("writes", "sets", "resets", "row_operations", "pulses", "wrong_cells"):
        yield f"{entry[figure]:,}"
    yield f"{entry['reduction']:.2f}x"
    yield f"{entry['evaluation']['mean']:.5g}"
    for joules in (*entry["pass"]["joules"].values(), entry["inference"]["joules"]["total"]):
        yield quantity_text(joules, "J")
    for scheme in entry["schemes"].values():
        yield f"{scheme['failed_writes']:,.0f}"
    yield time_text(entry["lifetime"]["years_to_first_failure"])
    yield number_text(entry["lifetime"]["figures"]["total_cost"]["value"])


def outcome_of_codesign():
    change = type("Change", (tuple,), {"mean": -0.001234})((-0.001234, -0.0045, 0.0021))
    summary = types.SimpleNamespace(
        writes=123_456_789, reduction=12.34, net_reduction=5.67, index_bits_per_weight=8.9
    )
    one = types.SimpleNamespace(price=0.25, summary=summary, held_out=change, everywhere=change)
    reference = type("Reference", (tuple,), {"mean": 0.92345})((0.92345, 0.91, 0.94))
    return types.SimpleNamespace(
        reference=reference, examples=10_000, rounds=[one, one], kept=1, pruned={}, against="it"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_of_jobs_cut_no_number(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    config = {"columns": None, "rows": 128, "words_per_row": 1}
    document = {"checkpoint": "net", "config": config}
    show_codesign("out", document, ACCURACY, outcome_of_codesign())
    printed = capsys.readouterr().out
    check_width(printed, width)
    assert {"123,456,789", "12.34x", "5.67x", "8.9"} <= words_of(printed)
    record = types.SimpleNamespace(
        accuracy=np.float64(0.9), failed=np.float64(0.1234), writes=np.float64(123_456_789),
        share=np.float64(0.5),
    )  # fmt: skip
    show_redeploy("chips", {"kept as it is": [record] * 3, "tuned": [record] * 3})
    printed = capsys.readouterr().out
    check_width(printed, width)
    assert printed.count("123,456,789") == 6
    assert printed.count("12.34 %") == 6


def test_the_bar_names_its_stage_and_moves_while_nothing_is_told(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_bar() as bar:
        tell = stages(bar)
        tell(None, "reading \x1b[31mnet.npz")
        (task,) = bar.tasks
        assert task.total is None  # it moves by itself
        assert task.description == r"reading \x1b[31mnet.npz"
        tell(0.25, "planning fc.weight")
        (task,) = bar.tasks
        assert (task.percentage, task.description) == (25, "planning fc.weight")
        out = rich.console.Console(width=60, file=io.StringIO(), record=True)
        out.print(bar.get_renderable())
        first = out.export_text()
        assert "planning fc.weight" in first
        assert "25%" in first
        tell(None, "writing files")
        assert bar.tasks[-1].total is None
        assert len(bar.tasks) == 1
