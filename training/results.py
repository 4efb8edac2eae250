"""What a run leaves in its folder: charts, a page, and the JSON, which is written last."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import memsim
from memsim import plot
from memsim.files.writing import check_output, write_text, write_whole


def check_results(out: Path, name: str, force: bool, goes_on: bool = False) -> None:
    """Makes the folder, and checks before long work that earlier results may be replaced.

    Args:
      name: of the JSON file.
      goes_on: whether a job that was killed may have left its page, but not yet the JSON.

    Raises:
      OSError: see `check_output`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for file in (name, *([] if goes_on else ["report.html"])):
        check_output(out / file, force)


def write_results(
    out: Path,
    name: str,
    document: Mapping[str, Any],
    accuracy: Mapping[str, float],
    figures: Mapping[str, Figure],
    pictures: Mapping[str, str],
    kinds: Sequence[str] = ("png",),
) -> None:
    """Writes charts, `report.html` and the JSON.

    Args:
      out: the folder.
      name: of the JSON file.
      document: the report, see `memsim.to_json`.
      accuracy: shares of 1 by what they are of, for the page.
      figures: by the name of their file.
      pictures: those of them on the page: names by title.
      kinds: of the files.
    """
    for file, figure in figures.items():
        for kind in kinds:
            write_whole(out / f"{file}.{kind}", figure.savefig, force=True)
    drawn = {title: plot.to_svg(figures[file]) for title, file in pictures.items()}
    write_text(out / "report.html", memsim.to_html(document, accuracy, drawn), force=True)
    write_text(out / name, json.dumps(document, indent=1), force=True)
