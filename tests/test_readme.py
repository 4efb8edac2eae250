"""The README runs; it and the pages of docs have commands that parse, links, names, a whole map."""

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
import typer
import yaml

import memsim
from memsim.cli import app

ROOT = Path(__file__).resolve().parents[1]
SITE = re.findall(r"\S+\.md", (ROOT / "mkdocs.yml").read_text())  # some pages are made
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(kind, name="README.md"):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def execute(code, name):
    names = {"__name__": name.replace("/", "_")}
    # dataclasses look their module up
    exec(compile(code, name, "exec"), names)  # noqa: S102
    return names


def test_the_example_prints_what_the_readme_says(capsys):
    (code,) = blocks("python")
    execute(code, "README.md")
    assert capsys.readouterr().out == blocks("text")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


def test_pages_are_long_enough_to_say_it_and_no_longer():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1500
    assert re.search(r"(?m)^make test\b", text)  # the command that is run on every change


def test_the_citation_has_the_version_and_the_fields_that_it_needs():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "title", "message", "authors"} <= set(cited)
    assert cited["version"] == memsim.__version__


def test_the_judge_of_a_budget_runs(assets, monkeypatch):
    monkeypatch.chdir(assets)
    (code,) = blocks("py", "docs/budget.md")
    judge = execute(code, "docs/budget.md")
    tensors = memsim.open_checkpoint("resnet20_cifar10.safetensors")
    params = {name: tensors.load(name) for name in tensors.tensors}
    loss_fn, accuracy_fn, data = judge["cifar10"](params)
    few = [part[::50] for part in data]
    assert 0 < loss_fn(params, few) < 1
    assert accuracy_fn(params, few).mean() > 0.8


def test_the_example_on_a_real_network_runs(assets, monkeypatch, capsys):
    (code,) = blocks("py", "docs/results.md")
    monkeypatch.chdir(assets)
    execute(code, "docs/results.md")
    assert float(capsys.readouterr().out) > 0.91


def test_the_example_of_reading_runs(capsys):
    (code,) = blocks("py", "docs/reading.md")
    execute(code, "docs/reading.md")
    assert 0.01 < float(capsys.readouterr().out) < 0.5


def test_the_example_of_positions_prints_what_its_page_says(capsys):
    (code,) = blocks("py", "docs/hardware.md")
    execute(code, "docs/hardware.md")
    assert f"prints `{capsys.readouterr().out.strip()}`" in (ROOT / "docs/hardware.md").read_text()


def test_the_file_of_hardware_is_read(tmp_path):
    text, _ = blocks("toml", "docs/hardware.md")  # the other in test_components.py
    (tmp_path / "mine.toml").write_text(text)
    hardware = memsim.hardware.read_hardware(tmp_path / "mine.toml")
    assert (hardware.arrays.number, hardware.cells.kind) == (16, "pcm")


def commands_of(page, start="memsim "):
    """Every call of a command in a page, its comment dropped and its lines joined."""
    text = "\n".join(re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(), re.DOTALL))
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


@every_page
def test_its_commands_have_these_options(page):
    program = typer.main.get_command(app)
    for _, name, *arguments in commands_of(page):
        if arguments != ["--help"]:
            command = program.commands[name]
            command.make_parser(click.Context(command)).parse_args(arguments)


@every_page
def test_its_jobs_have_these_options(page):
    for _, _, name, *arguments in commands_of(page, "python -m training."):
        folder = (ROOT / name.replace(".", "/")).is_dir()
        job = typer.Typer(add_completion=False)
        job.command()(importlib.import_module(f"{name}.command" if folder else name).main)
        command = typer.main.get_command(job)
        command.make_parser(click.Context(command)).parse_args(arguments)


@every_page
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        there = target in SITE or (page.parent / target).exists()
        assert there or target.startswith("http"), target


@every_page
def test_its_names_are_public(page):
    for path in set(re.findall(r"\bmemsim((?:\.\w+)+)", page.read_text())):
        value = memsim
        for name in path.split(".")[1:]:
            if name in ("org", "egg", "md"):
                break
            exported = getattr(value, "__all__", None)
            assert exported is None or name in exported or hasattr(value, name), f"memsim{path}"
            value = getattr(value, name)


def test_the_map_names_every_module():
    page = (ROOT / "docs" / "map.md").read_text()
    for folder in ("memsim", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            named = path.parent if path.name == "__init__.py" else path
            where = named.relative_to(ROOT).as_posix()
            assert path == ROOT / "memsim/__init__.py" or f"`{where}" in page, where
