"""The examples of docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import memsim
import training

MODULES = [
    module.name
    for package in (memsim, training)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]
FEWEST = 60  # examples of docstrings that there are at least: none is lost unseen


@pytest.fixture(scope="module")
def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [one for name in MODULES for one in finder.find(importlib.import_module(name), name)]
    return {one.name: one for one in found if one.examples}


def test_examples_of_docstrings_print_what_they_say(examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    assert len(examples) >= FEWEST
    runner, told = doctest.DocTestRunner(verbose=False), []
    for one in examples.values():
        runner.run(one, out=told.append)
    assert "".join(told) == ""
