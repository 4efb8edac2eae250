"""The site: its pages run, its reference has every public name, it builds without a broken link."""

import contextlib
import doctest
import html.parser
import importlib
import inspect
import re
import subprocess
import sys
import types
import urllib.parse
from pathlib import Path

import jax
import pytest

import memsim

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if "```python\n" in page.read_text())
# its file if it has one, its code, and what it prints if the page says so
BLOCK = re.compile(
    r"(?:Save this as `(\w+)\.py`:\n\n)?```python\n(.*?)```(?:\n+(?:prints\n+)?```text\n(.*?)```)?",
    re.DOTALL,
)
PREPARED = {"budget", "hardware", "reading", "results"}  # their `py` runs in test_readme.py
TOPICS = [name for name in memsim.__all__ if isinstance(getattr(memsim, name), types.ModuleType)]
MODULES = ["memsim", *(f"memsim.{topic}" for topic in TOPICS)]

every_module = pytest.mark.parametrize("module", MODULES)


def reference(module):
    return (DOCS / "reference" / f"{module.rpartition('.')[2]}.md").read_text()


def blocks(kind, text):
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def as_users_have_it():
    """JAX as it is without the strictness of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_says(page, monkeypatch, tmp_path, capsys, as_users_have_it):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = page.read_text()
    if "import equinox" in text:
        pytest.importorskip("equinox", reason="a page on training loops, of Equinox too")
    names = {"__name__": "builtins"}  # dataclasses look their module up
    for module, code, printed in BLOCK.findall(text):
        if module:
            (tmp_path / f"{module}.py").write_text(code)
            monkeypatch.delitem(sys.modules, module, raising=False)
            continue
        exec(compile(code, page.name, "exec"), names)  # noqa: S102
        found = capsys.readouterr().out
        assert not printed or found == printed


def test_no_example_is_left_out():
    kept = {page.stem for page in DOCS.glob("*.md") if blocks("py", page.read_text())}
    assert kept == PREPARED


@every_module
def test_the_reference_has_every_public_name_with_an_example(module):
    page, found = reference(module), importlib.import_module(module)
    parts = re.split(r"(?m)^(?:::: |`\w+` is \[)([\w.]+).*\n", page)
    follows = dict(zip(parts[1::2], parts[2::2], strict=True))
    names = [name for name in found.__all__ if module != "memsim" or name not in TOPICS]
    at_the_top = [n for n in names if module != "memsim" and n in memsim.__all__]
    at_the_top = [n for n in at_the_top if getattr(memsim, n) is getattr(found, n)]
    expected = {f"{'memsim' if name in at_the_top else module}.{name}": name for name in names}
    assert set(follows) == set(expected)
    for path in expected:
        if path.rpartition(".")[0] != module:
            continue  # described there
        value = getattr(found, path.rpartition(".")[2])
        told = inspect.getdoc(value) or "" if inspect.isclass(value) or callable(value) else ""
        assert ">>> " in told or ">>> " in follows[path], f"{path} has no example"


@every_module
def test_examples_of_the_reference_print_what_they_say(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # some write files
    text = "\n".join(blocks("pycon", reference(module)))
    parser, told = doctest.DocTestParser(), []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(parser.get_doctest(text, {"__name__": "page"}, module, None, 0), out=told.append)
    assert "".join(told) == ""


class Links(html.parser.HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "link", "script"):
            self.loads += [given[name] for name in ("href", "src") if given.get(name)]


@pytest.mark.slow
def test_the_site_builds_strictly_and_no_link_is_broken(tmp_path):
    for library in ("material", "mkdocs", "mkdocstrings", "nbconvert"):
        pytest.importorskip(library, reason="the site needs the extra `docs`")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        check=True,
    )
    pages = {path: Links(path) for path in tmp_path.rglob("*.html")}
    assert len(pages) > 50
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links start at the root of a server
        outside = [load for load in page.loads if urllib.parse.urlsplit(load).netloc]
        assert outside == [], f"{path.name} loads from elsewhere"
        for target in (*page.links, *page.loads):
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = path.parent / urllib.parse.unquote(parts.path) if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            with contextlib.suppress(OSError):
                other = other.resolve()
            there = other.exists() and (not anchor or anchor in pages[other].anchors)
            if not there and not anchor.startswith("__"):
                broken.append(f"{path.relative_to(tmp_path)}: {target}")
    assert broken == []
