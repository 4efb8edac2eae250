import json
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import typer.testing

import memsim
import memsim.cli


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {
        "conv.weight": rng.standard_normal((4, 3, 3, 3), np.float32),
        "fc.weight": rng.standard_normal((10, 30), np.float32),
        "fc.bias": rng.standard_normal(10, np.float32),
        "pos_embed.weight": rng.standard_normal((4, 4), np.float32),
        "steps": np.arange(3),
    }
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return path


def test_report_prints_a_table_and_lists_every_tensor(run, checkpoint):
    code, out, errors = run("report", checkpoint, "--rows", 16)
    assert code == 0
    assert not errors  # no progress bar where nobody watches
    for text in ("unsorted", "sws", "matched", "yes", "reduction"):
        assert text in out
    assert "programmed: 408 weights in 2 tensors" in out
    for name in ("conv.weight [27 x 4]", "fc.weight [30 x 10]", "fc.bias", "pos_embed", "steps"):
        assert name in out


def test_report_writes_the_promised_json(run, checkpoint, tmp_path):
    out = tmp_path / "out.json"
    policies = ["unsorted", "sws", "sws+stuck:p=0.50,low=3"]
    options = [text for policy in policies for text in ("--policy", policy)]
    options += ["--rows", 16, "--crossbars", 2, "--passes", 2, "--json", out]
    assert run("report", checkpoint, *options)[0] == 0
    document = json.loads(out.read_text())
    assert document["checkpoint"] == str(checkpoint)
    assert document["config"]["crossbars"] == 2
    assert document["weights"] == 408
    assert document["digital"] == ["fc.bias", "pos_embed.weight", "steps"]
    assert list(document["policies"]) == policies  # as typed
    tensors = safetensors.numpy.load_file(checkpoint)
    for name, entry in document["policies"].items():
        plan = memsim.plan(
            tensors, memsim.CrossbarConfig(rows=16, crossbars=2), memsim.Policy.parse(name)
        )
        if "stuck" not in name:
            chip = memsim.sample_chip(memsim_key(), plan)
            _, programming = memsim.program(tensors, plan, chip, passes=2, wear=True)
            summary = memsim.summarize(programming, plan)
            assert entry["writes"] == summary.writes
            assert entry["writes_per_column"] == summary.writes_per_column
            assert entry["max_cell_writes"] == summary.max_cell_writes
        assert entry["writes"] == entry["sets"] + entry["resets"] == sum(entry["writes_per_pass"])
        assert entry["writes"] == sum(entry["writes_per_column"])
        assert entry["writes"] == sum(layer["writes"] for layer in entry["layers"].values())
        assert len(entry["writes_per_pass"]) == 2
        assert entry["analog_valid"] is True
        assert entry["layers"]["conv.weight"]["inputs"] == 27
        assert entry["layers"]["conv.weight"]["outputs"] == 4
    assert document["policies"]["unsorted"]["reduction"] == 1.0
    assert document["policies"]["sws"]["index_bits_per_weight"] == 5.0


def memsim_key():
    import jax

    return jax.random.key(0)


def test_report_shows_the_errors_beside_the_reduction_of_a_tolerance(run, checkpoint, tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    names = ["sws", "matched:tolerance=3", "matched:tolerance=3,correction=none"]
    options = [text for name in names for text in ("--policy", name)]
    code, printed, _ = run(
        "report", checkpoint, *options, "--rows", 16, "--json", out, "--html", page
    )
    assert code == 0
    exact, corrected, plain = json.loads(out.read_text())["policies"].values()
    assert exact["code_error_rms"] is exact["code_error_mean"] is None
    assert abs(corrected["code_error_mean"]) < 1 / 512 < 0.01 < abs(plain["code_error_mean"])
    assert 0 < corrected["code_error_rms"] < plain["code_error_rms"]
    assert corrected["writes"] == plain["writes"]
    extra = corrected["index_bits_per_weight"] - plain["index_bits_per_weight"]
    assert extra == pytest.approx(16 * (4 + 10) / 408)  # 16 bits for each output
    for entry in (corrected, plain):
        mean = round(entry["code_error_mean"], 2) + 0.0
        text = f"{entry['code_error_rms']:.2f} / {mean:+.2f}"
        assert text in printed
        assert f"<td>{text}</td>" in page.read_text()
    assert "in steps of the codes" in " ".join(printed.split())
    assert "code error" not in run("report", checkpoint, "--policy", "sws", "--rows", 16)[1]


def test_report_averages_over_chips(run, checkpoint, tmp_path):
    out = tmp_path / "out.json"
    options = ["--policy", "sws+stuck:p=0.5,low=3", "--chips", 5, "--stuck-at-0", 0.05]
    assert run("report", checkpoint, "--rows", 16, *options, "--json", out)[0] == 0
    entry = json.loads(out.read_text())["policies"]["sws+stuck:p=0.5,low=3"]
    low, high = entry["intervals"]["writes"]
    assert low < entry["writes"] < high
    assert entry["chips"] == 5


def test_report_on_crossbars_all_writes_every_set_bit_once(run, checkpoint, tmp_path):
    out = tmp_path / "out.json"
    options = ["--rows", 16, "--crossbars", "all", "--passes", 2]
    assert run("report", checkpoint, *options, "--json", out)[0] == 0
    for entry in json.loads(out.read_text())["policies"].values():
        assert entry["writes_per_pass"][1] == 0
        assert entry["resets"] == 0
        assert entry["max_cell_writes"] == 1


def test_report_counts_deploying_over_an_older_version(run, checkpoint, tmp_path):
    tensors = safetensors.numpy.load_file(checkpoint)
    tensors["fc.weight"][0, 0] += 0.5
    new, out, page = (tmp_path / name for name in ("new.safetensors", "out.json", "page.html"))
    safetensors.numpy.save_file(tensors, new)
    options = ["--rows", 16, "--json", out, "--html", page, "--force"]
    writes = {}
    for keep in ([], ["--keep-placement"]):
        code, printed, _ = run("report", new, "--from", checkpoint, *keep, *options)
        assert code == 0
        assert f"Cell writes to deploy the network over {checkpoint.name}" in printed
        document = json.loads(out.read_text())
        assert document["config"]["crossbars"] is None
        assert document["from"] == str(checkpoint)
        assert document["keep_placement"] is bool(keep)
        writes[bool(keep)] = {name: x["writes"] for name, x in document["policies"].items()}
        assert f"deployed over <b>{checkpoint}</b>" in page.read_text()
    assert len(set(writes[True].values())) == 1  # the bits of one weight
    assert 1 <= writes[True]["sws"] <= 8
    assert writes[False]["unsorted"] == writes[True]["unsorted"]
    code, _, error = run("report", new, "--from", checkpoint, "--crossbars", 4)
    assert code == 1
    assert "deploying over an `old` network is weight stationary" in error


def test_report_html_is_self_contained_and_escapes_names(run, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **{"<script>alert(1)</script>.weight": np.ones((3, 4), np.float32)})
    page = tmp_path / "page.html"
    assert run("report", path, "--html", page)[0] == 0
    text = page.read_text()
    assert "Reduction and its price" in text
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # names, not addresses
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "<svg" in text


CHARTS = {"writes_by_policy.png", "reduction_against_index_bits.png"}


def test_report_draws_its_charts_into_a_folder(run, checkpoint, tmp_path):
    folder = tmp_path / "new" / "charts"
    assert run("report", checkpoint, "--rows", 16, "--png", folder)[0] == 0
    assert {path.name for path in folder.iterdir()} == CHARTS
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    code, _, error = run("report", checkpoint, "--rows", 16, "--png", folder)
    assert code == 1
    assert "exists; use --force" in error
    assert run("report", checkpoint, "--rows", 16, "--png", folder, "--force")[0] == 0


def test_without_matplotlib_the_page_lacks_its_chart_and_says_so(
    run, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "memsim.plot", raising=False)
    monkeypatch.delitem(vars(memsim), "plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    page = tmp_path / "page.html"
    code, printed, _ = run("report", checkpoint, "--rows", 16, "--html", page)
    assert code == 0
    assert 'page.html has no chart: that takes matplotlib, pip install "memsim[plot]"' in (
        " ".join(printed.split())
    )
    assert "Reduction and its price" not in page.read_text()
    code, _, error = run("report", checkpoint, "--rows", 16, "--png", tmp_path)
    assert code == 1
    assert 'needs matplotlib: pip install "memsim[plot]"' in error


def test_only_charts_import_matplotlib(checkpoint):
    code = (
        "import sys; from memsim.cli import app; "
        f"app(['report', {str(checkpoint)!r}], standalone_mode=False); "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_report_takes_a_fault_map(run, checkpoint, tmp_path):
    map_ = tmp_path / "map.npz"
    every = np.ones((1, 16, 8), bool)
    np.savez(map_, stuck_at_0=every, stuck_at_1=~every)
    out = tmp_path / "out.json"
    options = ["--rows", 16, "--faults", map_, "--json", out]
    assert run("report", checkpoint, *options)[0] == 0
    assert json.loads(out.read_text())["policies"]["sws"]["writes"] == 0


def test_program_writes_what_the_chip_holds(run, checkpoint, tmp_path):
    out = tmp_path / "held.safetensors"
    code, printed, _ = run("program", checkpoint, "--policy", "sws", "--rows", 16, "--out", out)
    assert code == 0
    assert "writes programmed 2 tensors" in printed
    before = safetensors.numpy.load_file(checkpoint)
    after = safetensors.numpy.load_file(out)
    assert {n: (t.shape, t.dtype) for n, t in before.items()} == {
        n: (t.shape, t.dtype) for n, t in after.items()
    }
    for name in ("fc.bias", "pos_embed.weight", "steps"):
        np.testing.assert_array_equal(before[name], after[name])
    for name in ("conv.weight", "fc.weight"):  # without stucking: the dequantized weights
        scale = np.float32(np.abs(before[name]).max() / np.float32(127))
        np.testing.assert_array_equal(after[name], np.rint(before[name] / scale) * scale)


def test_program_keeps_float64(run, tmp_path):
    weights = np.random.default_rng(2).standard_normal((9, 30))
    path, out = tmp_path / "double.npz", tmp_path / "held.npz"
    np.savez(path, w_weight=weights)
    assert run("program", path, "--policy", "unsorted", "--out", out)[0] == 0
    held = np.load(out)["w_weight"]
    single = weights.astype(np.float32)
    scale = np.abs(single).max() / np.float32(127)
    assert held.dtype == np.float64
    np.testing.assert_array_equal(held, np.rint(single / scale) * np.float64(scale))


def test_program_follows_a_saved_plan_on_a_saved_chip(run, checkpoint, tmp_path):
    plan, chip = tmp_path / "plan", tmp_path / "chip"
    stuck = "sws+stuck:p=0.5,low=4"
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    assert run("plan", checkpoint, "--policy", stuck, "--rows", 16, "--out", plan)[0] == 0
    options = ["--rows", 16, "--stuck-at-1", 0.02, "--save-chip", chip]
    assert run("program", checkpoint, "--policy", stuck, *options, "--out", a)[0] == 0
    options = ["--stuck-at-1", 0.02, "--plan", plan]
    assert run("program", checkpoint, *options, "--out", b)[0] == 0
    assert a.read_bytes() == b.read_bytes()
    options = ["--plan", plan, "--chip", chip]  # the same chip, a second time
    assert run("program", checkpoint, *options, "--out", c)[0] == 0
    assert a.read_bytes() != c.read_bytes()


def test_program_and_report_count_the_same_chip(run, checkpoint, tmp_path):
    stuck = "sws+stuck:p=0.5,low=4"
    options = ["--policy", stuck, "--rows", 16, "--stuck-at-0", 0.05, "--seed", 7]
    out, held = tmp_path / "out.json", tmp_path / "held.npz"
    assert run("report", checkpoint, *options, "--json", out)[0] == 0
    writes = json.loads(out.read_text())["policies"][stuck]["writes"]
    assert f"{writes:,} writes programmed" in run("program", checkpoint, *options, "--out", held)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", 17], "`bits` is 17; a weight has 2 to 16 bits"),
        (["--rows", 0], "`rows` is 0; a crossbar has at least 1 row"),
        (["--cell-bits", 3], "`cell_bits` is 3; choose one of 1, 2, 4"),
        (["--encoding", "gray"], "`encoding` is 'gray'; choose one of 'twos_complement'"),
        (["--crossbars", "some"], "`crossbars` is 'some'; give a number from 1, or all"),
        (["--crossbars", "0"], "`crossbars` is 0; give a number from 1"),
        (["--policy", "best"], "`policy` is 'best'; choose one of unsorted"),
        (["--policy", "sws+stuck:p=2,low=3"], "`p` is 2.0; a probability lies in 0..1"),
        (["--policy", "sws+stuck:p=0.5,low=9"], "`low` is 9, more than the 8 `bits`"),
        (
            ["--policy", "sws+stuck:p=half,low=3"],
            "p is 'half', give a number",
        ),
        (["--policy", "sws", "--policy", "sws"], "`--policy` names sws twice"),
        (["--passes", 0], "`passes` is 0; give at least 1"),
        (["--chips", 0], "`chips` is 0; give at least 1"),
        (["--stuck-at-0", 0.6, "--stuck-at-1", 0.6], "the rates sum to at most 1"),
        (["--stuck-at-0", -1], "`stuck_at_0` is -1.0; a probability lies in 0..1"),
        (["--map", "a=keras"], "`map` has the layout 'keras'; give a word for each axis"),
        (["--include", "("], "`include` is '(', not a regular expression"),
        (["--include", "nothing"], "is chosen as a weight matrix"),
        (["--faults", "none.npz"], "`checkpoint` none.npz is not a file"),
    ],
)
def test_report_refuses_in_one_line(run, checkpoint, arguments, message):
    code, _, error = run("report", checkpoint, *arguments)
    assert code == 1
    assert message in error
    assert "Traceback" not in error


def test_outputs_that_exist_are_kept(run, checkpoint, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("mine")
    code, _, error = run("report", checkpoint, "--json", out)
    assert code == 1
    assert "exists; use --force" in error
    assert out.read_text() == "mine"
    assert run("report", checkpoint, "--rows", 16, "--json", out, "--force")[0] == 0
    assert out.read_text() != "mine"


def test_a_plan_of_another_network_is_refused(run, checkpoint, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, **{"fc.weight": np.ones((4, 4), np.float32)})
    plan = tmp_path / "plan"
    assert run("plan", checkpoint, "--policy", "sws", "--out", plan)[0] == 0
    options = ["--plan", plan, "--out", tmp_path / "x.npz"]
    code, _, error = run("program", other, *options)
    assert code == 1
    assert "`plan` belongs to another network" in error
    code, _, error = run("program", checkpoint, *options, "--rows", 5)
    assert code == 1
    assert "`--rows` beside `--plan` cannot apply" in error
    assert not (tmp_path / "x.npz").exists()


def test_the_version_is_told(run):
    assert run("--version")[:2] == (0, f"{memsim.__version__}\n")
    told = typer.testing.CliRunner().invoke(memsim.cli.app, ["--version"]).output
    assert told == f"{memsim.__version__}\n"


def test_the_version_is_told_without_jax():
    code = (
        "import sys, memsim.cli\nsys.argv = ['memsim', '--version']\n"
        "try:\n    memsim.cli.main()\n"
        "finally:\n    assert not {'jax', 'numpy', 'typer', 'rich'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{memsim.__version__}\n", "")


def test_a_judge_that_is_none_is_told_apart_from_one_that_fails(
    run, checkpoint, tmp_path, monkeypatch
):
    (tmp_path / "verdicts.py").write_text(
        "def one(tensors):\n    return 1\n\n\ndef fails(tensors):\n    raise ValueError('boom')\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ("--max-drop", 0.01, "--out", tmp_path / "plan.safetensors", "--evaluate")
    code, _, error = run("plan", checkpoint, *options, "verdicts:one")
    assert code == 1
    assert "`--evaluate` verdicts:one returned int; it must return (loss_fn, accuracy_fn," in error
    # its own fault: its own lines
    monkeypatch.setattr(
        "sys.argv", ["memsim", "plan", str(checkpoint), *map(str, options), "verdicts:fails"]
    )
    with pytest.raises(RuntimeError, match="verdicts:fails failed") as raised:
        memsim.cli.main()
    assert "boom" in str(raised.value.__cause__)


def test_the_console_script_runs_and_fails_as_a_process(checkpoint, tmp_path):
    command = [sys.executable, "-m", "memsim"]
    done = subprocess.run(
        [*command, "report", checkpoint, "--rows", "16"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Cell writes to program the network" in done.stdout
    done = subprocess.run([*command, "report", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("memsim: `checkpoint`")
    assert "Traceback" not in done.stderr


def test_real_checkpoints_count_as_published(run, assets, tmp_path):
    out = tmp_path / "out.json"
    options = [word for name in ("unsorted", "sws", "sws-layer") for word in ("--policy", name)]
    assert run("report", assets / "resnet20_cifar10.safetensors", *options, "--json", out)[0] == 0
    policies = json.loads(out.read_text())["policies"]
    assert policies["unsorted"]["writes"] == 1_058_119
    assert round(policies["sws"]["reduction"], 2) == 1.68
    assert round(policies["sws-layer"]["reduction"], 2) == 3.54
    assert policies["sws-layer"]["analog_valid"] is False


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("memsim rep", "report"),
        ("memsim report net.npz --encoding tw", "twos_complement"),
        ("memsim report net.npz --policy ma", "matched"),
        ("memsim plan net.npz --minimise en", "energy"),
        ("memsim advise net.npz --hardware isaac-", "isaac-pcm"),
        ("memsim report net.npz --scheme ra", "ramp"),
    ],
)
def test_shells_complete_commands_and_values(run, monkeypatch, typed, offered):
    monkeypatch.setenv("_MEMSIM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert run()[1].split() == [offered]


def test_options_stand_in_panels_and_flags_take_no_value():
    runner = typer.testing.CliRunner()
    panels = {"Policy", "Crossbars", "Physics", "Which tensors", "Chips", "Output"}
    for command in ("report", "program", "plan", "advise"):
        told = runner.invoke(memsim.cli.app, [command, "--help"], env={"COLUMNS": "200"}).output
        found = set(re.findall(r"╭─ ([\w ]+) ─", told))
        assert found - {"Options", "Arguments"} <= panels
        assert {"Policy", "Crossbars", "Which tensors", "Chips", "Output"} <= found
        flags = [line for line in told.splitlines() if re.search("--(force|lifetime|keep-)", line)]
        assert flags
        assert not [line for line in flags if "<bool>" in line]
        loose = told.partition("─ Options ─")[2].partition("╰")[0]
        assert set(re.findall(r"--[a-z-]+", loose)) <= {"--again", "--help"}
