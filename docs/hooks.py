"""Pages of the site that are made of other files, and links from public names to the reference."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import nbconvert
import nbformat
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

ROOT = Path(__file__).resolve().parents[1]
COPIED = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "speed.md": "benchmarks/RESULTS.md",
}
JOBS = {
    "training.finetune": "training.finetune.command",
    "training.codesign": "training.codesign.command",
    "training.sweep": "training.sweep.command",
    "training.reproduce": "training.reproduce",
    "training.wearout": "training.wearout",
    "training.redeploy": "training.redeploy",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for name, source in COPIED.items():
        text = (ROOT / source).read_text()
        # links of the repository lead to pages here
        text = re.sub(r"\]\(docs/", "](", text)
        text = re.sub(r"\]\((CHANGELOG|CONTRIBUTING)\.md", lambda m: f"]({m[1].lower()}.md", text)
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    files.append(File.generated(config, "jobs.md", content=jobs_page()))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in pages_of_notebook(path):
            files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links the public names of a page, where they stand as inline code, to the reference."""
    folder = Path(__file__).parent / "reference"
    texts = [path.read_text() for path in folder.glob("*.md")]
    known = {name for text in texts for name in re.findall(r"(?m)^::: (\S+)", text)}

    def link(name: re.Match[str]) -> str:
        return f"[{name[0]}][{name[1]}]" if name[1] in known else name[0]

    parts = re.split(r"(?ms)(^```.*?^```$)", markdown)  # every other one is code
    parts[::2] = [re.sub(r"(?<!\[)`(memsim\.[\w.]+)`", link, part) for part in parts[::2]]
    return "".join(parts)


def commands_page() -> str:
    """Writes the reference of `memsim` from its own options."""
    from memsim.cli import app

    told = help_of(typer.main.get_command(app), "memsim")
    return re.sub(r"^# .*", "# Command line", told)


def jobs_page() -> str:
    """Writes the reference of the jobs of `training/` from their own options."""
    parts = ["# Jobs\n\nThey are in a clone of the repository; `python -m NAME` starts one."]
    for name, module in JOBS.items():
        app = typer.Typer(add_completion=False)
        app.command()(importlib.import_module(module).main)
        told = help_of(typer.main.get_command(app), f"python -m {name}")
        parts.append(re.sub(r"^# .*", f"## {name}", told))
    return "\n\n".join(parts)


def help_of(command: object, name: str) -> str:
    """Writes what `--help` of a command tells, as Markdown."""
    context = typer.Context(command, info_name=name)
    told = get_docs_for_click(obj=command, ctx=context, name=name)
    # a list of commands that cuts off what each one does
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", told)


def pages_of_notebook(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """Renders a notebook with the outputs that it keeps: its page, then its images."""
    notebook = nbformat.read(path, as_version=4)
    del notebook.cells[1]  # installs memsim in Colab
    exporter = nbconvert.MarkdownExporter()
    body, resources = exporter.from_notebook_node(
        notebook, {"unique_key": path.stem, "output_files_dir": path.stem}
    )
    body = re.sub(r"\]\(\.\./docs/", "](../", re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", body))
    body += f"\n\nThis page is `notebooks/{path.name}`, which the tests run.\n"
    yield f"{path.stem}.md", body
    yield from resources["outputs"].items()
