"""The rules of the house, by reading the code: what is public, imports, lengths, words."""

import ast
import functools
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Left never imports right; `_stream` and `_checks` are internal and stand where they are used.
ORDER = """
    _ahead _batching _checks _moved _words config codes selection placement schedule _random_cells
    chip writing _steps policies planning programming network draws expectation codesign floor
    intervals summary _stream cells hardware streaming sensitivity budgeting minimising attention
    service files report plot cli
""".split()  # noqa: SIM905
HEAVY = (
    "scipy", "rich", "jinja2", "safetensors", "numba", "typer", "matplotlib", "hwcomponents",
)  # fmt: skip
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS, LEAST_COMMENTS = 400, 80, 12, 0.04
OLD_NAMES = {"worth", "assume", "settle", "seat", "trace", "together", "Kinds"}
OLD_WORDS = re.compile(r"\b(worth|assume[sd]?|settle[sd]?|seat(?:s|ed)?|Kinds)\b")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in python_files("memsim")}


def public_names(module: str) -> set[str] | None:
    """The names in `__all__`; None if there is none."""
    for node in parsed(MODULES[module]).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def is_internal(module: str) -> bool:
    parts = module.split(".")
    if parts[1:2] == ["cli"]:  # a command line is no library
        # what training jobs share with it
        return module not in ("memsim.cli", "memsim.cli.records", "memsim.cli.made_by")
    return any(part.startswith("_") for part in parts[1:])


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """(module, name) of what is imported from memsim, inside functions too; no name: the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "memsim":
            assert not node.level, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if a.name.split(".")[0] == "memsim")


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_module_is_public_or_internal():
    public = {module for module in MODULES if not is_internal(module)}
    assert sorted(module for module in public if public_names(module) is None) == []


def test_public_names_exist():
    for module, path in MODULES.items():
        names = public_names(module)
        if names is None:
            continue
        tree = parsed(path)
        there = {n.name for n in tree.body if hasattr(n, "name")}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                there |= {a.asname or a.name.split(".")[0] for a in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                there.add(node.id)
        there |= {other.split(".")[-1] for other in MODULES if other.rpartition(".")[0] == module}
        assert names <= there, module


def outside_code() -> list[tuple[str, ast.Module]]:
    """All code that uses memsim from outside. Tests do not count: they hold kernels to oracles."""
    found = [
        (str(path.relative_to(ROOT)), parsed(path))
        for path in python_files("training", "benchmarks")
    ]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = "\n".join(
            "".join(c["source"])
            for c in cells
            if c["cell_type"] == "code" and not c["source"][0].startswith("%%")
        )
        # commands of IPython are no Python
        found.append((path.name, ast.parse(re.sub(r"(?m)^( *)[%!].*", r"\1pass", code))))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
        code = "\n".join(
            block.replace(">>> ", "") if ">>> " in block else block for block in blocks
        )
        found.append((path.name, ast.parse(code)))
    return found


def resolve(module: str, name: str | None) -> str | None:
    """What is wrong with the use of a name of a module of memsim from outside."""
    if is_internal(module):
        return f"{module} is internal"
    if name is None:
        return None
    if name in (public_names(module) or ()) or (module, name) == ("memsim", "__version__"):
        return None
    if f"{module}.{name}" in MODULES and not is_internal(f"{module}.{name}"):
        return None  # a public submodule
    return f"{name} is not in {module}.__all__"


def attribute_uses(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) for every `memsim.x.y`, and `x.y` of an `x` that is a module of memsim."""
    bound = {"memsim": "memsim"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "memsim":
            for alias in node.names:
                if f"{node.module}.{alias.name}" in MODULES:
                    bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname and alias.name in MODULES:
                    bound[alias.asname] = alias.name
    imported = any(True for _ in imports(tree))
    for node in ast.walk(tree):
        if not (imported and isinstance(node, ast.Attribute)):
            continue
        base, _, rest = ast.unparse(node.value).partition(".")
        module = ".".join(part for part in (bound.get(base), rest) if part)
        if base in bound and module in MODULES:
            yield module, node.attr


def test_outside_code_uses_public_names_only():
    wrong = []
    for place, tree in outside_code():
        used = {*imports(tree), *attribute_uses(tree)}
        wrong += [f"{place}: {fault}" for use in used if (fault := resolve(*use))]
    assert sorted(wrong) == []


def members(path: Path) -> list[ast.stmt]:
    """Methods and properties, which are looked up in their class and shadow no module."""
    classes = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
    return [member for node in classes for member in node.body]


@pytest.mark.parametrize("package", ["memsim", "training"])
def test_nothing_has_the_name_of_a_module(package):
    paths = python_files(package)
    names = {path.stem for path in paths} | {path.parent.name for path in paths} - {package}
    names -= {"__init__", "__main__"}
    shadows = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in paths
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and node.name in names
        and node not in members(path)
    ]
    assert shadows == []


def edges() -> dict[str, set[str]]:
    """Modules, by the module that imports them."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module in ("memsim", "memsim.__main__"):
            continue  # hand names on, and nothing but the command line imports them
        targets = set()
        for source, name in imports(parsed(path)):
            inner = f"{source}.{name}"
            targets.add(inner if inner in MODULES else source)
        found[module] = targets - {module}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that lie on, or lead into, a circle."""
    left = {node: set(targets) for node, targets in graph.items()}
    while free := [node for node, targets in left.items() if not targets & left.keys()]:
        for node in free:
            del left[node]
    return sorted(left)


def folder_of(module: str) -> str:
    """The module or folder at the top of memsim that a module is (in)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "memsim"


def test_imports_make_no_circle():
    graph = edges()
    assert circle(graph) == []


def test_imports_run_one_way():
    place = {name: number for number, name in enumerate(ORDER)}
    top = {"memsim", "__main__"}  # hand names on
    assert {folder_of(module) for module in MODULES} - top == set(ORDER)
    up = [
        f"{module} imports {target}"
        for module, targets in edges().items()
        for target in targets
        if folder_of(module) not in top | {"cli"}
        and (folder_of(target) in top or place[folder_of(target)] > place[folder_of(module)])
    ]
    assert sorted(up) == []


def test_files_are_short():  # tests are not held to it: a table of cases is long
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in python_files("memsim", "training", "benchmarks")
    }
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_functions_are_short():
    long = [
        f"{path.relative_to(ROOT)}: {function.name}"
        for path in python_files("memsim", "training", "benchmarks")
        for function in functions(parsed(path))
        if (function.end_lineno or 0) - function.lineno + 1 > LONGEST_FUNCTION
        and not any(
            "njit" in ast.unparse(d) or "compiled" in ast.unparse(d)
            for d in function.decorator_list
        )
    ]
    assert long == []


def test_signatures_are_short():
    long = [
        f"{path.relative_to(ROOT)}: {function.name}"
        for path in python_files("memsim", "training", "benchmarks")
        for function in functions(parsed(path))
        if len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs)
        > MOST_PARAMETERS
    ]
    assert long == []


def test_code_is_commented():
    comments = lines = 0
    for path in python_files("memsim"):
        text = path.read_text()
        lines += len(text.splitlines())
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments += sum(token.type == tokenize.COMMENT for token in tokens)
    assert comments >= LEAST_COMMENTS * lines, f"{comments} of {lines} lines"


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


@pytest.mark.parametrize("package", ["memsim", "training"])
def test_docstrings_say_what_a_thing_does(package):
    # nouns and questions for a summary need a second reading; verbs do not
    start = re.compile(r"(What|Which|How many|How much|Whether|Where|Why|When|Who)\b")
    wrong = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in python_files(package)
        for text in docstrings(parsed(path))
        if start.match(text)
    ]
    assert wrong == []


# Summaries that start with one of these are no sentences with a verb first.
NOUNS = """
    Arrays Bits Cells Chips Codes Columns Figures Files Layers Levels Lines Numbers Parts Policies
    Probabilities Rows Scalars Sections Settings Tensors Values Weights Words Images Labels Tasks
    This As Results Options Tables Texts
""".split()  # noqa: SIM905


def summary_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return (ast.get_docstring(function) or "").partition("\n")[0]


def verb_first(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Third person; a property is what it is called, a command line speaks to its user."""
    first = summary_of(function).partition(" ")[0].rstrip(",.;:")
    decorators = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    if not first or "property" in decorators or function.name in COMMANDS:
        return True
    return bool(re.fullmatch(r"[A-Z][a-z]*s", first)) and first not in NOUNS


COMMANDS = ("main", "plan_command", "program_command", "report_command", "_common")


@pytest.mark.parametrize("package", ["memsim", "training"])
def test_docstrings_of_functions_start_with_a_verb(package):
    wrong = [
        f"{path.relative_to(ROOT)}: {function.name}: {summary_of(function)}"
        for path in python_files(package)
        for function in functions(parsed(path))
        if not verb_first(function)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["memsim", "training"])
def test_names_and_prose_are_free_of_old_words(package):
    """Names hold none of the words of an earlier vocabulary; prose none that it alone had."""
    wrong = []
    for path in python_files(package):
        place = path.relative_to(ROOT)
        if path.name == "_moved.py":  # it knows the names of 0.1
            continue
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.NAME:
                parts = {*token.string.split("_"), *re.findall("^Kinds$", token.string)}
                wrong += [f"{place}: {token.string}" for part in parts if part in OLD_NAMES]
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                said = OLD_WORDS.findall(token.string)
                wrong += [f"{place}:{token.start[0]}: {word}" for word in said]
    assert wrong == []


def test_import_is_light():
    code = f"import sys, memsim; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []
