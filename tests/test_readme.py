import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_prints_what_the_readme_says(capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == blocks("text")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


def test_the_example_on_a_real_network_runs(assets, monkeypatch, capsys):
    (code,) = blocks("py")
    monkeypatch.chdir(assets)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert float(capsys.readouterr().out) > 0.91


def test_the_map_names_every_module():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "memsim").glob("[!_]*.py"):
        assert f"`memsim/{path.name}`" in readme
