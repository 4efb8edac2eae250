import re
from pathlib import Path

import memsim

ROOT = Path(__file__).resolve().parents[1]


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_prints_what_the_readme_says(capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == blocks("text")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


def test_the_judge_of_a_budget_runs(assets, monkeypatch):
    monkeypatch.chdir(assets)
    judge = {}
    exec(compile(blocks("py")[0], "README.md", "exec"), judge)  # noqa: S102
    tensors = memsim.open_checkpoint("resnet20_cifar10.safetensors")
    params = {name: tensors.load(name) for name in tensors.tensors}
    loss_fn, accuracy_fn, data = judge["cifar10"](params)
    few = [part[::50] for part in data]
    assert 0 < loss_fn(params, few) < 1
    assert accuracy_fn(params, few).mean() > 0.8


def test_the_example_on_a_real_network_runs(assets, monkeypatch, capsys):
    code = blocks("py")[1]
    monkeypatch.chdir(assets)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert float(capsys.readouterr().out) > 0.91


def test_the_example_of_reading_runs(capsys):
    exec(compile(blocks("py")[2], "README.md", "exec"), {})  # noqa: S102
    assert 0.01 < float(capsys.readouterr().out) < 0.5


def test_the_map_names_every_module():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "memsim").glob("[!_]*.py"):
        assert f"`memsim/{path.name}`" in readme
