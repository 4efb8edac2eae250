"""How a report says that it was made, and how it is made anew."""

import json
import re

import numpy as np
import PIL.Image
import pytest

import memsim
from memsim.files._digests import digest_of

SHORT = ("--rows", 16, "--policy", "sws", "--policy", "unsorted")


@pytest.fixture
def network(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "net.npz"
    memsim.save_tensors(path, {"fc.weight": rng.standard_normal((10, 30), np.float32)})
    return path


@pytest.fixture
def report(run, network, tmp_path):
    """Makes a report with options of every kind; gives the path of its JSON."""
    path = tmp_path / "report.json"
    options = (*SHORT, "--seed", 3, "--chips", 2, "--stuck-at-0", 0.05, "--json", path)
    assert run("report", network, *options)[0] == 0
    return path


def changed(report, **entries):
    """The report with other entries in `made_by`."""
    document = json.loads(report.read_text())
    document["made_by"] |= entries
    path = report.with_name("changed.json")
    path.write_text(json.dumps(document))
    return path


def test_a_report_says_how_it_was_made(report, network):
    made_by = json.loads(report.read_text())["made_by"]
    assert made_by["version"] == memsim.__version__
    assert made_by["command"] == (
        f"memsim report {network} --policy sws --policy unsorted --rows 16 --stuck-at-0 0.05 "
        f"--seed 3 --json {report} --chips 2"
    )
    assert made_by["seed"] == 3
    assert made_by["rates"] == {"stuck_at_0": 0.05, "stuck_at_1": 0.0, "writing": None}
    assert made_by["hardware"] == "published"
    assert made_by["options"] == {
        "checkpoint": str(network), "--rows": 16, "--stuck-at-0": 0.05, "--seed": 3,
        "--policy": ["sws", "unsorted"], "--chips": 2,
    }  # fmt: skip
    assert made_by["files"] == {"checkpoint": digest_of(network)}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made_by["date"])


def test_page_and_charts_say_it_too(run, network, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    json_, page, charts = tmp_path / "r.json", tmp_path / "p.html", tmp_path / "charts"
    options = (*SHORT, "--json", json_, "--html", page, "--png", charts, "--svg", charts)
    assert run("report", network, *options)[0] == 0
    made_by = json.loads(json_.read_text())["made_by"]
    assert made_by["date"] == "1970-01-02T00:00:00+00:00"
    footer = page.read_text().partition("<footer>")[2]
    for text in (made_by["command"], made_by["date"], memsim.__version__, "none drawn"):
        assert text in footer
    assert {path.suffix for path in charts.iterdir()} == {".png", ".svg"}
    for path in charts.glob("*.png"):
        with PIL.Image.open(path) as image:
            assert image.text["Software"] == f"memsim {memsim.__version__}"
            assert image.text["Creation Time"] == made_by["date"]
            assert json.loads(image.text["made_by"]) == made_by
    # and so a file can be made byte for byte
    before = page.read_bytes(), json_.read_bytes()
    assert run("report", network, *options, "--force")[0] == 0
    command = made_by["command"].encode()
    again = json.loads(json_.read_text())["made_by"]["command"].encode()
    assert again == command.replace(b" --json", b" --force --json")
    assert json_.read_bytes().replace(again, command) == before[1]
    assert page.read_bytes().replace(again, command) == before[0]


def test_advice_says_how_it_was_made(run, network, tmp_path):
    out, png = tmp_path / "advice.json", tmp_path / "ways.png"
    options = ("--positions", 4, "--json", out, "--chart", png)
    assert run("advise", network, *options)[0] == 0
    made_by = json.loads(out.read_text())["made_by"]
    assert made_by["command"].startswith(f"memsim advise {network} --positions 4")
    assert made_by["hardware"] == "array-128"
    with PIL.Image.open(png) as image:
        assert image.text["Description"] == made_by["command"]


def test_a_chart_of_no_kind_is_refused_before_any_work(run, network, tmp_path):
    words = ("advise", network, "--positions", 4, "--json", tmp_path / "a.json")
    code, _, error = run(*words, "--chart", tmp_path / "ways.gif")
    assert code == 1
    assert "\n" not in error
    assert "`--chart` is" in error
    assert "charts are .png, .svg or .pdf, by the ending of their file" in " ".join(error.split())
    assert not (tmp_path / "a.json").exists()


def test_a_report_is_made_anew(run, report, tmp_path):
    out = tmp_path / "again.json"
    code, printed, errors = run("report", "--again", report, "--json", out)
    assert (code, errors) == (0, "")
    assert f"the figures are those of {report}" in printed
    before, now = (json.loads(path.read_text()) for path in (report, out))
    assert now["made_by"]["options"] == before["made_by"]["options"]
    assert "--again" not in now["made_by"]["command"]
    del before["made_by"], now["made_by"]
    assert now == before


def test_other_options_count_beside_a_report(run, report, tmp_path):
    out = tmp_path / "again.json"
    code, printed, _ = run("report", "--again", report, "--rows", 8, "--json", out)
    assert code == 0
    assert "the figures DIFFER from those of" in printed
    made_by = json.loads(out.read_text())["made_by"]
    assert made_by["options"]["--rows"] == 8
    assert made_by["options"]["--chips"] == 2


def test_what_is_not_as_it_was_is_told(run, report, network):
    rng = np.random.default_rng(2)
    tensors = {"fc.weight": rng.standard_normal((10, 30), np.float32)}
    memsim.save_tensors(network, tensors, force=True)
    code, printed, errors = run("report", "--again", changed(report, version="0.1.0"))
    assert code == 0
    assert f"was made by memsim 0.1.0, and this is {memsim.__version__}: figures may" in errors
    assert f"CKPT {network} is not the file that" in errors
    assert "the figures DIFFER from those of" in printed


def test_a_missing_checkpoint_is_told_with_its_remedy(run, report, network, tmp_path):
    moved = tmp_path / "moved.npz"
    network.rename(moved)
    code, _, errors = run("report", "--again", report)
    assert code == 1
    assert f"was made of the CKPT {network}, which is not a file here; give its place" in errors
    assert f"memsim report PATH --again {report}" in errors
    code, printed, errors = run("report", moved, "--again", report)
    assert (code, errors) == (0, "")
    assert "the figures are those of" in printed


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"options": None}, "does not say how it was made"),
        ({"files": []}, "does not say how it was made"),
        ({"options": {"checkpoint": {"a": 1}}}, "does not say how it was made"),
        ({"options": {"checkpoint": "x", "--speed": 3}}, "has --speed, which `memsim report` of"),
        ({"options": {"checkpoint": "x", "--json": "y"}}, "has --json, which `memsim report` of"),
        ({"options": {"--rows": 3}}, "has no checkpoint, which `memsim report` of"),
    ],
)
def test_a_report_that_cannot_be_made_anew_is_refused(run, report, entries, message):
    code, _, errors = run("report", "--again", changed(report, **entries))
    assert code == 1
    assert message in errors
    assert "give the options themselves" in errors.lower()
    assert "Traceback" not in errors


def test_a_report_that_is_none_is_refused(run, tmp_path):
    code, _, errors = run("report", "--again", tmp_path / "none.json")
    assert code == 1
    assert "is not a file; check the path" in errors
    text = tmp_path / "text.json"
    text.write_text("[1]")
    assert "is no JSON object" in run("report", "--again", text)[2]


def test_digests_are_of_all_that_belongs_to_a_checkpoint(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"a")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    found = {digest_of(folder), digest_of(index), digest_of(folder / "a.safetensors")}
    assert "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" in found
    assert digest_of(folder) == digest_of(index)  # the same files
    (folder / "a.safetensors").write_bytes(b"b")
    assert not {digest_of(folder), digest_of(index)} & found
    assert digest_of(folder / "none") is None
