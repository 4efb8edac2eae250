"""Every notebook runs in a fresh kernel, and what it keeps is what it prints."""

import ast
import itertools
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell):
    """The outputs of a cell but for their figures, which differ from machine to machine."""
    said = []
    for output in cell.outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if output.get("name") == "stderr":  # warnings of libraries
            continue
        words = re.findall(r"[A-Za-z_]+", re.sub(r"\x1b\[[\d;]*m", "", data["text/plain"]))
        said.append((sorted(data), words))
    return said


@pytest.mark.slow
@every_notebook
def test_it_runs_and_shows_what_it_keeps(path, monkeypatch, tmp_path):
    programs = Path(sys.executable).parent  # of the command line
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    kept, notebook = read(path), read(path)
    NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": path.parent}}
    ).execute()
    for before, after in zip(code_cells(kept), code_cells(notebook), strict=True):
        assert shown(before) == shown(after), f"cell {before.id}: run the notebook and save it"


@every_notebook
def test_it_opens_with_its_claim_and_installs(path):
    claim, install, *_ = read(path).cells
    assert claim.source.startswith("# ")
    assert "The claim: **" in claim.source
    # one cell for all of them; tests/test_dist.py runs it
    assert install.source == read(NOTEBOOKS[0]).cells[1].source
    assert "google.colab" in install.source


@every_notebook
def test_it_is_short_and_its_outputs_are_small(path):
    notebook = read(path)
    assert 8 <= len(notebook.cells) <= 20
    assert path.stat().st_size < 300_000
    assert notebook.metadata == {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    assert not any(cell.metadata for cell in notebook.cells)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
    assert not re.search(r"/(home|root|tmp|Users)/", path.read_text())


def python(cell):
    """The syntax of a cell; commands of IPython are no Python."""
    if cell.source.startswith("%%"):
        return ast.parse("")
    return ast.parse(re.sub(r"^( *)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


@every_notebook
def test_its_loops_are_its_own_and_its_algorithms_are_those_of_memsim(path):
    for node in itertools.chain(*map(ast.walk, map(python, code_cells(read(path))))):
        if isinstance(node, ast.ClassDef):
            assert [ast.unparse(base) for base in node.bases] == ["nnx.Module"]  # a network
        if isinstance(node, ast.FunctionDef):
            assert len(node.body) <= 5
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
            assert not any(name and name.split(".")[0] == "training" for name in names)
