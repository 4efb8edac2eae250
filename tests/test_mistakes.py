"""Usual mistakes, at the command line and in Python: each is told in one line, with what was given
and what would be right."""

import sys

import jax
import numpy as np
import pytest

import memsim
from memsim.cli import main

# (what was typed, what was given as the message has it, what would be right)
TYPED = [
    # commands and options
    ("reprt net.npz", "reprt", "Did you mean 'report'"),
    ("report", "CKPT", "memsim report --help"),
    ("report net.npz --colums 128", "--colums", "--columns"),
    ("report net.npz --rows", "--rows", "requires an argument"),
    ("report net.npz --rows many", "many", "integer"),
    ("report net.npz --rows 1.5", "1.5", "integer"),
    ("report net.npz --rows=1e3", "1e3", "integer"),
    ("report net.npz --spares -1", "-1", "greater than or equal to 0"),
    ("report net.npz --stuck-at-0 1%", "1%", "number"),
    ("report net.npz more.npz", "more.npz", "memsim report --help"),
    ("program net.npz --policy sws", "--out", "memsim program --help"),
    # files
    ("report none.npz", "none.npz", "check the path"),
    ("report text.txt", "text.txt", "save the weights as safetensors"),
    ("report noise.safetensors", "noise.safetensors", "fetch or save it again"),
    ("report ints.npz", "int32", "floating numbers"),
    ("report complex.npz", "complex64", "floating numbers"),
    ("report nan.npz", "fc.weight", "mend them"),
    ("report --again net.npz", "net.npz", "give one that memsim wrote"),
    ("report net.npz --from none.npz", "--from", "check the path"),
    ("report net.npz --faults net.npz", "['fc.weight']", "a fault map holds `stuck_at_0`"),
    ("program net.npz --plan net.npz --out h.npz", "net.npz", "give one that memsim saved"),
    ("program net.npz --policy sws --chip net.npz --out h.npz", "net.npz", "that memsim saved"),
    ("program net.npz --policy sws --out h.txt", "h.txt", "ends in .safetensors or .npz"),
    ("report net.npz --json net.npz", "net.npz", "use --force"),
    ("report net.npz --json none/o.json", "none", "make it first"),
    ("report net.npz --json .", "`.`", "name a file"),
    ("report net.npz --json o.x --html o.x", "o.x", "name two files"),
    ("show none.json", "none.json", "check the path"),
    ("show text.txt", "text.txt", "save the weights as safetensors"),
    ("diff net.npz net.npz", "net.npz", "give one that memsim wrote"),
    # crossbars and tensors
    ("report net.npz --rows 0", "0", "at least 1 row"),
    ("report net.npz --bits 17", "17", "2 to 16 bits"),
    ("report net.npz --cell-bits 3", "3", "choose one of 1, 2, 4"),
    ("report net.npz --columns 4", "4", "give more"),
    ("report net.npz --encoding diff", "'diff'", "'differential'"),
    ("report net.npz --crossbars many", "'many'", "give a number from 1, or all"),
    ("report net.npz --schedule random", "'random'", "'interleaved'"),
    ("report net.npz --scale-per row", "'row'", "'output'"),
    ("report net.npz --hardware isac", "'isac'", "isaac"),
    ("report net.npz --hardware bad.toml", "`kindd`", "kind, bits"),
    ("report net.npz --include [", "'['", "backslash"),
    ("report net.npz --include conv", "'conv'", "Choose others"),
    ("report net.npz --map fc=keras", "'keras'", "give a word for each axis"),
    ("report net.npz --map fc", "'fc'", "give RE=LAYOUT"),
    # policies
    ("report net.npz --policy sorted", "'sorted'", "choose one of unsorted, sws"),
    ("report net.npz --policy sws:tolerance=1", "sws:tolerance=1", "leave them out"),
    ("report net.npz --policy sws+stuck:p=2,low=3", "2.0", "lies in 0..1"),
    ("report net.npz --policy sws+stuck:p=.5,low=9", "9", "8 `bits`"),
    ("report net.npz --policy matched:tolerance=x", "'x'", "give a whole number"),
    ("report net.npz --policy sws --policy sws", "sws", "give each policy once"),
    ("report net.npz --columns 128 --policy sws-layer", "128", "use sws"),
    ("program net.npz --out h.npz", "`--policy` nor `--plan`", "give one of them"),
    ("plan net.npz --out p.safetensors", "`--policy` nor `--max-drop`", "a plan takes --policy"),
    # chips and physics
    ("report net.npz --stuck-at-0 2", "2.0", "lies in 0..1"),
    ("report net.npz --seed -1", "-1", "from 0 to 4,294,967,295"),
    ("report net.npz --chips 0", "0", "at least 1"),
    ("report net.npz --passes 0", "0", "at least 1"),
    ("report net.npz --writing often", "'often'", "choose success:set=P,reset=P or one of"),
    ("report net.npz --cells flash", "'flash'", "give hfo2 or pcm"),
    ("report net.npz --scheme ramp", "'ramp'", "give --cells"),
    ("report net.npz --lifetime --crossbars all", "--lifetime", "Give a number of --crossbars"),
    ("report net.npz --lifetime --cost bad_cost.toml", "`batches`", "batch"),
    ("report net.npz --lifetime --levelling all", "'all'", "choose one of none, rows"),
    ("report net.npz --positions many", "'many'", "give a whole number, or a JSON file"),
    ("report net.npz --positions positions.json", "'fc.weight'", "add one"),
    ("report net.npz --batch 2", "--batch", "give --positions too"),
    ("report net.npz --keep-placement", "--keep-placement", "give --from too"),
    ("advise net.npz", "--positions", "say how many input vectors"),
    # functions
    ("report net.npz --evaluate nowhere:f", "nowhere:f", "give one such as"),
    ("report net.npz --evaluate mistaken", "mistaken", "give one such as"),
    ("report net.npz --evaluate mistaken:gone", "mistaken:gone", "give one such as"),
    ("report net.npz --evaluate mistaken:NUMBER", "NUMBER is int", "give one such as"),
    ("report net.npz --evaluate mistaken:text", "'good'", "return one number"),
    ("report net.npz --evaluate mistaken:truth", "'True'", "return one number"),
    ("report net.npz --evaluate mistaken:three", "'[1. 1. 1.]'", "return one number"),
    ("report net.npz --evaluate mistaken:nan", "nan", "return a finite number"),
    ("report net.npz --evaluate mistaken:nan --from net.npz", "--from", "leave --from out"),
    ("plan net.npz --out p --max-drop 1 --minimise money --evaluate a:b", "'money'", "'energy'"),
]

PARAMS = {"fc": {"kernel": np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)}}
FLAT = {"kernel": PARAMS["fc"]["kernel"]}
CONFIG = memsim.CrossbarConfig(rows=4)
SWS = memsim.Policy.parse("sws")
KEY = jax.random.key(0)
PLAN = memsim.plan(PARAMS, CONFIG, SWS)


def chip():
    return memsim.sample_chip(KEY, PLAN)


CALLED = [
    # wrong values
    (lambda: memsim.CrossbarConfig(rows="128"), "'128'", "a whole number"),
    (lambda: memsim.CrossbarConfig(rows=True), "True", "a whole number"),
    (lambda: memsim.CrossbarConfig(encoding="diff"), "'diff'", "'differential'"),
    (lambda: memsim.CrossbarConfig(bits=1), "1", "2 to 16 bits"),
    (lambda: memsim.CrossbarConfig(columns=-1), "-1", "give the bit lines"),
    (lambda: memsim.CrossbarConfig(crossbars="all"), "'all'", "or None"),
    (lambda: memsim.Policy.parse("swss"), "'swss'", "choose one of"),
    (lambda: memsim.Policy.parse(None), "None", "give a text"),
    (lambda: memsim.policies.Sws(p=1.5, low=3), "1.5", "lies in 0..1"),
    (lambda: memsim.policies.Matched(tolerance=-1), "-1", "may be 0 to 15"),
    (lambda: memsim.sample_chip(KEY, PLAN, 1.5), "1.5", "lies in 0..1"),
    (lambda: memsim.sample_chip(KEY, PLAN, "1%"), "'1%'", "lies in 0..1"),
    (lambda: memsim.sample_chip(KEY, PLAN, 0.6, 0.6), "1.2", "sum to at most 1"),
    (lambda: memsim.sample_chip(0, PLAN), "int", "jax.random.key(0)"),
    (lambda: memsim.program(PARAMS, PLAN, chip(), passes=0), "0", "at least once"),
    (lambda: memsim.program(PARAMS, PLAN, chip(), writing="read"), "'read'", "memsim.Writing"),
    (lambda: memsim.Writing(set_success=1.5, reset_success=1.0), "1.5", "lies in 0..1"),
    (lambda: memsim.expected_writes(PARAMS, PLAN, chip(), width=0.0), "0.0", "at least 1"),
    (lambda: memsim.select_by_name(include="["), "'['", "backslash"),
    (lambda: memsim.hardware.read_hardware("isac"), "'isac'", "isaac"),
    # wrong dtypes
    (lambda: memsim.plan({"kernel": np.ones((3, 3), np.int32)}, CONFIG, SWS), "int32", "floating"),
    (lambda: memsim.plan({"kernel": np.ones((3, 3), complex)}, CONFIG, SWS), "complex128", "float"),
    (lambda: memsim.plan({"kernel": [[1.0, 2.0]]}, CONFIG, SWS), "float", "arrays"),
    (lambda: memsim.plan({"kernel": np.full((3, 3), np.nan)}, CONFIG, SWS), "kernel", "mend them"),
    # swapped and misplaced arguments
    (lambda: memsim.plan(CONFIG, PARAMS, SWS), "dict", "give a memsim.CrossbarConfig"),
    (lambda: memsim.plan(PARAMS, SWS, CONFIG), "Sws", "give a memsim.CrossbarConfig"),
    (lambda: memsim.plan(PARAMS, CONFIG, "sws"), "'sws'", "give Policy.parse"),
    (lambda: memsim.plan(PARAMS, {"rows": 4}, SWS), "'rows': 4", "give a memsim.CrossbarConfig"),
    (lambda: memsim.plan(PARAMS, CONFIG, SWS, select="kernel"), "str", "give a function"),
    (lambda: memsim.sample_chip(PLAN, KEY), "PRNGKeyArray", "give what `memsim.plan` returns"),
    (lambda: memsim.program(PLAN, PARAMS, chip()), "dict", "(params, plan, chip)"),
    (lambda: memsim.program(PARAMS, chip(), PLAN), "Chip", "(params, plan, chip)"),
    (lambda: memsim.program(PARAMS, PLAN, KEY), "PRNGKeyArray", "memsim.sample_chip"),
    (lambda: memsim.program({"fc": {"kernel": np.ones((9, 4))}}, PLAN, chip()), "(9, 4)",
     "plan this network"),
    (lambda: memsim.summarize(PLAN, None), "Plan", "what `program` returned second"),
    (lambda: memsim.enable_words(chip(), PLAN), "Chip", "give (plan, chip)"),
    (lambda: memsim.compare(FLAT, CONFIG, ["sws"]), "['sws']", "policies by name"),
    (lambda: memsim.compare(FLAT, CONFIG, {"sws": "sws"}), "'sws'", "give a memsim.Policy"),
    (lambda: memsim.compare(FLAT, CONFIG, {"sws": SWS}, chips=3), "3", "memsim.Chips(number=8)"),
    (lambda: memsim.compare(PARAMS, CONFIG, {"sws": SWS}), "dict", "arrays"),
    (lambda: memsim.compare("net.npz", CONFIG, {"sws": SWS}), "str", "memsim.open_checkpoint"),
    (lambda: memsim.advise(FLAT, CONFIG, {"sws": SWS}, 1), "CrossbarConfig", "read_hardware"),
    # files
    (lambda: memsim.open_checkpoint("none.npz"), "none.npz", "check the path"),
    (lambda: memsim.open_checkpoint(3), "int", "give the path of a file"),
    (lambda: memsim.load_plan("net.npz"), "net.npz", "give one that memsim saved"),
    (lambda: memsim.load_chip(CONFIG, "net.npz"), "CrossbarConfig", "give the path of a file"),
    (lambda: memsim.load_faults("net.npz"), "['fc.weight']", "a fault map holds"),
    (lambda: memsim.save_plan(PLAN, "plan.safetensors"), "Plan", "give the path of a file"),
    (lambda: memsim.save_tensors("net.npz", FLAT), "net.npz", "force=True"),
    (lambda: memsim.save_tensors("new.npz", PARAMS), "`fc` (object)", "leave them out"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    shape = (10, 30)
    for name, array in (
        ("net", np.linspace(-1, 1, 300, dtype=np.float32).reshape(shape)),
        ("ints", np.ones(shape, np.int32)),
        ("complex", np.ones(shape, np.complex64)),
        ("nan", np.full(shape, np.nan, np.float32)),
    ):
        np.savez(folder / f"{name}.npz", **{"fc.weight": array})
    for name, text in (
        ("text.txt", "weights"),
        ("noise.safetensors", "x" * 40),
        ("bad.toml", "[cells]\nkindd = 'hfo2'\n"),
        ("bad_cost.toml", "[cost]\nbatches = 3\n"),
        ("positions.json", '{"other": 4}'),
        (
            "mistaken.py",
            "import numpy as np\n\nNUMBER = 3\ntext = lambda tensors: 'good'\n"
            "truth = lambda tensors: True\nthree = lambda tensors: np.ones(3)\n"
            "nan = lambda tensors: float('nan')\n",
        ),
    ):
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("typed", "given", "remedy"), TYPED, ids=[typed for typed, *_ in TYPED])
def test_a_mistake_at_the_command_line(typed, given, remedy, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "mistaken", raising=False)
    monkeypatch.setattr(sys, "argv", ["memsim", *typed.split()])
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(SystemExit) as exit_:
        main()
    printed = capsys.readouterr()
    assert exit_.value.code in (1, 2)
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("memsim: ")
    assert given in line
    assert remedy in line
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


@pytest.mark.parametrize(("call", "given", "remedy"), CALLED)
def test_a_mistake_in_python(call, given, remedy, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises((ValueError, OSError)) as raised:
        call()
    (line,) = str(raised.value).splitlines()
    assert "`" in line  # the argument
    assert given in line
    assert remedy in line


def test_there_are_forty_of_them():
    assert min(len(TYPED), len(CALLED)) >= 40
