"""Tables of what a file holds: a plan, a chip, a checkpoint, a report, two reports side by side."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memsim.files.checkpoints import Checkpoint
from memsim.planning import LayerPlan, Plan
from memsim.report.texts import count_text, index_bits_text
from memsim.selection import Matrix, layout_of

if TYPE_CHECKING:  # rich is slow to import
    from memsim.report.layout import FittingTable

# Rows of a table that fit on one screen beside the rest; the others are counted in the last row.
_MOST_ROWS = 12
# What a layer of a plan has where its policy does more than sort, and the words for it.
_PARTS = {
    "delta": "errors within a tolerance",
    "correction": "means corrected",
    "negated": "rows negated",
    "flips": "words flipped",
    "offset": "offset of codes",
    "crossbars": "crossbars chosen",
}


def plan_table(plan: Plan) -> "FittingTable":
    """Shows the layers of a plan, and what each is programmed with where they differ in that."""
    from memsim.report.layout import Column, FittingTable

    layers = plan.layers.values()
    # what all layers have is told once, above
    same = len({how_stored(layer) for layer in layers}) == 1
    headings = ("inputs", "outputs", "sections", "index bits\na weight")
    rows = [
        (
            name,
            f"{layer.matrix.inputs:,}",
            f"{layer.matrix.outputs:,}",
            f"{len(layer.placement.used_rows):,}",
            index_bits_text(float(layer.index_bits)),
            "yes" if layer.analog_valid else "NO",
            *([] if same else [how_stored(layer)]),
        )
        for name, layer in plan.layers.items()
    ]
    columns = [Column("layer"), *map(Column, headings), Column("analog-valid", left=True)]
    columns += [] if same else [Column("stored with", left=True, folds=True)]
    return FittingTable("Layers", columns, _shortened(rows, "layer"))


def how_stored(layer: LayerPlan) -> str:
    """Says what a layer is programmed with, beside an order of its weights."""
    said = [text for part, text in _PARTS.items() if getattr(layer, part) is not None]
    if low := int(layer.low_columns):
        fixed = ", the same cells each time" if bool(layer.fixed) else ""
        said.insert(0, f"bit stucking p={float(layer.reprogram):g}, low={low}{fixed}")
    return "; ".join(said)


def chip_table(tensors: Mapping[str, np.ndarray], masks: Sequence[int]) -> "FittingTable":
    """Shows the cells of a chip: how many there are, are stuck, and hold a level.

    Args:
      tensors: of its file, by name.
      masks: bits of a word that each of its cells holds.
    """
    from memsim.report.layout import Column, FittingTable

    # of several bits, a cell is stuck or above level 0 by any of them
    cells = tensors["state"].size * len(masks)

    def row(what: str, words: np.ndarray) -> tuple[str, str, str]:
        number = sum(int(np.count_nonzero(words & mask)) for mask in masks)
        return what, f"{number:,}", f"{100 * number / max(cells, 1):.3g} %"

    rows = [
        ("all", f"{cells:,}", "100 %"),
        row("stuck at 0", tensors["stuck_at_0"]),
        row("stuck at 1", tensors["stuck_at_1"]),
        row("above level 0", tensors["state"]),
    ]
    return FittingTable("Cells", [Column("cells"), Column("number"), Column("share")], rows)


def tensors_table(source: Checkpoint, matrices: Mapping[str, Matrix]) -> "FittingTable":
    """Shows the tensors of a checkpoint, and how each would be read; alike ones in one row.

    Args:
      source: the checkpoint.
      matrices: as which the tensors are read, by name of the tensor; the others stay digital.
    """
    from memsim.report.layout import Column, FittingTable

    alike: Counter[tuple[str, ...]] = Counter()
    for name, tensor in source.tensors.items():
        size, read = "", source.reasons.get(name, "digital")
        if name in matrices:
            matrix = matrices[name]
            size, read = f"{matrix.inputs:,} x {matrix.outputs:,}", layout_of(matrix)
        shape = " x ".join(map(str, tensor.shape)) or "scalar"
        # as `listed` has them: layers that repeat are one row
        folded = re.sub(r"(?<=[./_])[0-9]+(?=[./_])", "*", name)
        alike[folded, shape, size, read] += 1
    # what is mapped first
    order = sorted(alike, key=lambda row: not row[2])
    rows = [(f"{row[0]} ({alike[row]})" if alike[row] > 1 else row[0], *row[1:]) for row in order]
    columns = [Column("tensor"), Column("shape"), Column("inputs x\noutputs")]
    columns.append(Column("read as", left=True, folds=True))
    rows = _shortened(rows, "tensor", number=sum(alike[row] for row in order[_MOST_ROWS - 1 :]))
    return FittingTable("Tensors", columns, rows)


def check_figures(document: Mapping[str, Any]) -> None:
    """Checks that a document is a report with the figures that tables take of it.

    Raises:
      ValueError: it is none.
    """
    policies = document.get("policies")
    if not isinstance(policies, dict) or not policies:
        raise ValueError("there are no policies in it")
    if not isinstance(document.get("config"), dict):
        raise ValueError("there is no config in it")
    # 0.1 has none, but what is there is whole
    made_by = document.get("made_by", {"options": {}, "files": {}})
    whole = isinstance(made_by, dict) and isinstance(made_by.get("options"), dict)
    if not whole or not isinstance(made_by.get("files"), dict):
        raise ValueError("its `made_by` lacks options or files")
    for name, entry in policies.items():
        figures = [entry.get(key) for key in _FIGURES] if isinstance(entry, dict) else [None]
        if not isinstance(figures[0], (int, float)):
            raise ValueError(f"{name} has no number of writes")
        if not all(isinstance(x, (int, float, type(None))) for x in figures):
            raise ValueError(f"a figure of {name} is no number")


# Figures of a report that tables take, and how each is written.
_FIGURES = {
    "writes": "{:,.0f}".format,
    "reduction": "{:.2f}x".format,
    "net_reduction": "{:.2f}x".format,
    "index_bits_per_weight": index_bits_text,
}
_HEADINGS = ("writes", "reduction", "net energy\nreduction", "index bits")


def figures_table(document: Mapping[str, Any]) -> "FittingTable":
    """Shows the policies of a report that was read from a file."""
    from memsim.report.layout import Column, FittingTable

    rows = [
        (name, *(_figure(entry, key) for key in _FIGURES), "yes" if entry["analog_valid"] else "NO")
        for name, entry in document["policies"].items()
    ]
    columns = [Column("policy"), *map(Column, _HEADINGS), Column("analog-valid", left=True)]
    return FittingTable("Policies", columns, _shortened(rows, "policy", "policies"))


def figures_side_by_side(first: Mapping[str, Any], second: Mapping[str, Any]) -> "FittingTable":
    """Shows the policies of two reports, A and B; what one lacks stays empty."""
    from memsim.report.layout import Column, FittingTable

    rows = []
    for name in dict.fromkeys([*first["policies"], *second["policies"]]):
        for letter, document in (("A", first), ("B", second)):
            entry = document["policies"].get(name, {})
            # the policy once, beside A
            policy = name if letter == "A" else ""
            rows.append((policy, letter, *(_figure(entry, key) for key in _FIGURES)))
    columns = [Column("policy"), Column("of", left=True), *map(Column, _HEADINGS)]
    return FittingTable("Policies of A and B", columns, rows, range(1, len(rows), 2), keys=2)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Lists what two reports, A and B, were made with that differs, by name.

    Crossbars count as their config has them, other options as they were typed.
    """
    found = {}
    a, b = _made_with(first), _made_with(second)
    for name in dict.fromkeys([*a, *b]):
        texts = (_value_text(a.get(name)), _value_text(b.get(name)))
        if texts[0] != texts[1]:
            found[name] = texts
    return found


def differences_table(found: Mapping[str, tuple[str, str]]) -> "FittingTable":
    """Shows what `differences` gives."""
    from memsim.report.layout import Column, FittingTable

    columns = [Column("option"), *(Column(letter, left=True, folds=True) for letter in "AB")]
    rows = [(name, *texts) for name, texts in found.items()]
    return FittingTable("What differs", columns, rows)


def _made_with(document: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what a report was made with, by option; crossbars whether they were typed or not."""
    made_by: Mapping[str, Any] = document.get("made_by", {})
    config: dict[str, Any] = {
        f"--{name.replace('_', '-')}": value for name, value in document["config"].items()
    }
    config.pop("--words-per-row", None)  # follows from the others
    if config.get("--crossbars") is None:
        config["--crossbars"] = "all"
    files = {f"SHA-256 of {name}": x for name, x in made_by.get("files", {}).items()}
    versions = {f"version of {n}": made_by.get(key) for n, key in _VERSIONS.items()}
    # what was typed stands in the order of the command, the config has the last word
    typed: dict[str, Any] = made_by.get("options", {})
    return {"checkpoint": document.get("checkpoint")} | typed | config | files | versions


_VERSIONS = {"memsim": "version", "JAX": "jax"}


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "not given" if value is None else value if isinstance(value, str) else json.dumps(value)


def _figure(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return "" if value is None else _FIGURES[key](value)


def _shortened(
    rows: Sequence[tuple[str, ...]], noun: str, plural: str = "", number: int = 0
) -> list[tuple[str, ...]]:
    """Keeps the rows that fit on a screen, and says in the last one how many things there are more.

    Args:
      rows: all of them.
      noun, plural: of a thing, see `count_text`.
      number: of things that are left out; 0: one for each row.
    """
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    shown, left = rows[: _MOST_ROWS - 1], number or len(rows) - _MOST_ROWS + 1
    more = count_text(left, f"more {noun}", f"more {plural}" if plural else "")
    return [*shown, (f"and {more}", *[""] * (len(rows[0]) - 1))]
