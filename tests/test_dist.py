"""Releases: what is in the wheel and in the source, and the README from each of them alone."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import memsim

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SOURCES = ("memsim", "training", "benchmarks", "notebooks", "docs", "tests")


def call(*command, **words):
    """What a command prints; where it fails, the test does with what it said."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source, built as `make dist` does."""
    for tool in ("build", "hatchling"):
        pytest.importorskip(tool, reason=f"releases are built by {tool}: pip install {tool}")
    folder = tmp_path_factory.mktemp("dist")
    (command,) = re.findall(r"-m (build .*)", (ROOT / "Makefile").read_text())
    call(sys.executable, "-m", *command.split(), "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def files_of(folder):
    """The files of a folder, as a release has them."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(p.relative_to(ROOT)) for p in found if not {"__pycache__"} & set(p.parts)}


def test_the_wheel_has_the_library_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if name.startswith(f"memsim-{memsim.__version__}.dist-info/")}
    assert names - about == files_of("memsim")
    assert {Path(name).name for name in about} == {
        "METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt"
    }  # fmt: skip
    needed = ("py.typed", "hardware/presets/isaac.toml", "report/page.html.jinja")
    assert {f"memsim/{name}" for name in needed} < names


def unpacked(built, folder):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"memsim-{memsim.__version__}"


def test_the_source_has_what_a_clone_has(built, tmp_path):
    clone = unpacked(built, tmp_path)
    found = {str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file()}
    expected = set().union(*map(files_of, SOURCES))
    assert {name for name in found if "/" in name} == expected
    at_the_top = {"Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    added = {"PKG-INFO", ".gitignore"}  # by what builds it
    assert found - expected <= at_the_top | added | {"CITATION.cff", "mkdocs.yml", "pyproject.toml"}
    assert at_the_top <= found


@pytest.fixture
def libraries(tmp_path):
    """A folder of all that is installed here but memsim, for environments without a network."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    for place in filter(lambda path: path.endswith("site-packages"), sys.path):
        for path in Path(place).iterdir():
            link = folder / path.name
            if "memsim" not in path.name and path.suffix != ".pth" and not link.exists():
                link.symlink_to(path)
    return folder


def sees(environment, libraries):
    """Lets an environment import these, after its own."""
    (site,) = Path(environment).glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")


# what would lead from an environment to this clone, or to an index
QUIET = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | {
    "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",  # 0: without it
    "PIP_DISABLE_PIP_VERSION_CHECK": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}  # fmt: skip
WHERE = """
import importlib.util, memsim
print(memsim.__file__)
print(importlib.util.find_spec("training"), importlib.util.find_spec("tests"))
"""


@pytest.mark.slow
def test_the_readme_runs_from_the_wheel_alone(wheel, libraries, tmp_path):
    words = {"cwd": tmp_path, "env": QUIET}
    call(sys.executable, "-m", "venv", tmp_path / "env", **words)
    programs = tmp_path / "env" / "bin"
    call(programs / "pip", "install", wheel, **words)
    sees(tmp_path / "env", libraries)
    place, others = call(programs / "python", "-c", WHERE, **words).splitlines()
    assert Path(place).is_relative_to(tmp_path / "env")
    assert others == "None None"
    # the first example, and what it prints
    example, printed = (
        re.search(rf"```{kind}\n(.*?)```", README, re.DOTALL)[1] for kind in ("python", "text")
    )
    assert call(programs / "python", "-c", example, **words) == printed
    # a report with all that the wheel brings: the page, hardware
    np.savez(tmp_path / "x.npz", kernel=np.eye(40, 30, dtype=np.float32))
    said = call(
        programs / "memsim", "report", "x.npz", "--policy", "sws", "--hardware", "isaac",
        "--html", "x.html", **words,
    )  # fmt: skip
    assert "kernel [40 x 30]" in " ".join(said.split())
    assert "<html" in (tmp_path / "x.html").read_text()
    assert call(programs / "memsim", "--version", **words) == f"{memsim.__version__}\n"


COLAB = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell

sys.modules["google.colab"] = types.ModuleType("google.colab")
shell = InteractiveShell.instance()
shell.run_cell(sys.argv[1]).raise_error()
import memsim
print(memsim.__file__)
"""


@pytest.mark.slow
def test_the_first_cell_of_a_notebook_installs_a_wheel_in_colab(wheel, libraries, tmp_path):
    pytest.importorskip("IPython")
    notebook = json.loads((ROOT / "notebooks" / "quick_start.ipynb").read_text())
    cell = "".join(notebook["cells"][1]["source"])
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    sees(tmp_path / "env", libraries)
    words = {"cwd": tmp_path, "env": QUIET | {"IPYTHONDIR": str(tmp_path / "ipython")}}
    python = tmp_path / "env" / "bin" / "python"
    with pytest.raises(AssertionError, match="upload the wheel of"):
        call(python, "-c", COLAB, cell, **words)
    shutil.copy(wheel, tmp_path)
    said = call(python, "-c", COLAB, cell, **words)
    assert Path(said.splitlines()[-1]).is_relative_to(tmp_path / "env")


def test_addresses_of_the_project_are_those_that_pyproject_gives():
    """Until it gives one there is no badge, clone or citation that leads nowhere."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    pages = [ROOT / "CITATION.cff", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    for page in [*pages, *ROOT.glob("notebooks/*.ipynb")]:
        for address in re.findall(r"https?://[^\s)\"'>\\]+", page.read_text()):
            if "memsim" in address or "colab" in address:
                assert address.startswith(tuple(given.values()) or "none is given"), page


def first_commands():
    """The commands of the README that lead from a bare Python to a page."""
    block = re.search(r"```sh\n(python3 -m venv.*?)```", README, re.DOTALL)[1]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_a_page_is_at_most_five_commands_away():
    commands = [" ".join(command) for command in first_commands()]
    assert len(commands) <= 5
    assert any("pip install ." in command for command in commands)
    assert "memsim report model.pth" in commands[-1]
    assert "--html" in commands[-1]


@pytest.mark.slow
def test_the_readme_leads_from_a_bare_python_and_a_pth_to_a_page(built, libraries, tmp_path):
    torch = pytest.importorskip("torch", reason="a .pth is made by torch: pip install torch")
    clone = unpacked(built, tmp_path)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(16, 4))
    torch.save(network.state_dict(), clone / "model.pth")
    bare = QUIET | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in first_commands():
        said = call(*command, cwd=clone, env=bare)
        if "venv" in command:
            sees(clone / "env", libraries)  # torch and what memsim requires, without an index
    assert "0.weight [27 x 8] out-in" in " ".join(said.split())
    assert "matched" in (clone / "report.html").read_text()
