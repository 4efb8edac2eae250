"""Plans, to a file and back."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memsim._checks import check_kind, check_path, check_truth
from memsim.config import CrossbarConfig
from memsim.files import _format_1
from memsim.files._plan_checks import OPTIONAL, PARTS, PLACEMENT, check_layer
from memsim.files.own import check_keys, load_own, read_record
from memsim.files.writing import save_tensors
from memsim.placement import Placement, inverse_positions
from memsim.planning import LayerPlan, Plan, whole_plan
from memsim.selection import Matrix, in_natural_order

__all__ = ["load_plan", "save_plan"]

# 1 is that of memsim 0.1, which does not say so, nor which parts a layer has
_FORMAT = 2


def save_plan(path: str | Path, plan: Plan, *, force: bool = False) -> None:
    """Saves a plan as safetensors: the index that a chip would follow, 4 bytes a weight and more.

    >>> import numpy as np, memsim
    >>> config, policy = memsim.CrossbarConfig(rows=4), memsim.Policy.parse("sws")
    >>> save_plan("index.safetensors", memsim.plan({"kernel": np.eye(4)}, config, policy))
    >>> load_plan("index.safetensors").names
    ['kernel']

    Raises:
      OSError: as `save_tensors`.
      ValueError: the plan is none that `load_plan` would accept.
    """
    check_path("path", path)
    check_kind("plan", plan, Plan)
    check_truth("force", force)
    tensors: dict[str, np.ndarray] = {}
    layers = []
    for i, name in enumerate(plan.names):
        layer = plan.layers[name]
        parts = [part for part in PARTS if getattr(layer, part) is not None]
        arrays = {part: np.asarray(getattr(layer, part)) for part in parts}
        arrays |= {part: np.asarray(getattr(layer.placement, part)) for part in PLACEMENT}
        # what could not be loaded is not saved
        try:
            check_layer(layer.matrix, arrays, plan.config)
        except ValueError as error:
            raise ValueError(f"`plan` cannot be saved: of layer `{name}`, {error}.") from error
        tensors |= {f"{i}.{part}": array for part, array in arrays.items()}
        matrix = dataclasses.asdict(layer.matrix)
        layers.append({"name": name, "matrix": matrix, "parts": parts})
    description = {
        "format": _FORMAT,
        "config": dataclasses.asdict(plan.config),
        "layers": layers,
    }
    save_tensors(path, tensors, metadata={"memsim.plan": json.dumps(description)}, force=force)


def load_plan(path: str | Path) -> Plan:
    """Loads a plan, of memsim 0.1 too, and believes nothing in it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a whole plan: a part is missing or unknown, a placement is no
        permutation, a number is of another dtype, not finite or outside its range, or the
        description is not that of a plan.
    """
    check_path("path", path)
    tensors, description = load_own(path, "plan")
    try:
        # the description first: it says which tensors there must be
        config, entries = _description(description)
        wanted = [f"{i}.{part}" for i, entry in enumerate(entries) for part in entry["parts"]]
        # 0.1 did not list optional parts; index bits tell which ones belong to a layer
        optional: list[str] = []
        if "format" not in description:
            optional = [f"{i}.{part}" for i in range(len(entries)) for part in OPTIONAL]
        check_keys("it", tensors, set(wanted) - set(optional), optional)
        # then layer by layer
        layers = {}
        for i, entry in enumerate(entries):
            there = {part: tensors.get(f"{i}.{part}") for part in (*PLACEMENT, *PARTS)}
            arrays = {part: array for part, array in there.items() if array is not None}
            if "format" not in description:  # crossbars were one word wide
                arrays["used_words"] = np.ones_like(arrays["used_rows"])
            layers[entry["name"]] = _layer(entry, arrays, config)
            if optional:
                there_too = OPTIONAL & set(arrays)
                _format_1.check_optional(there_too, entry["matrix"], arrays["index_bits"], config)
        if list(layers) != in_natural_order(layers) or len(layers) < len(entries):
            raise ValueError(
                "its layers are not in the order of their names, or one is there twice"
            )
        _check_crossbars(config, layers)
    except ValueError as error:
        raise ValueError(
            f"`plan` {path} is no whole plan: {error}; plan the network again."
        ) from error
    return whole_plan(layers.items(), config)


def _check_crossbars(config: CrossbarConfig, layers: Mapping[str, LayerPlan]) -> None:
    """Checks that 32-bit numbers count the steps of all crossbars."""
    crossbars = config.crossbars or 1
    steps = sum(-(-len(layer.placement.used_rows) // crossbars) for layer in layers.values())
    if steps * crossbars >= 2**31:
        raise ValueError(f"its config has {crossbars} crossbars, more than there are")


def _description(description: Mapping[str, Any]) -> tuple[CrossbarConfig, list[dict[str, Any]]]:
    """Describes the config, and of each layer its `name`, `matrix` and `parts`.

    Raises:
      ValueError: it is not that of a plan.
    """
    first = "format" not in description
    needed = ("config", "layers") if first else ("format", "config", "layers")
    check_keys("its description", description, needed)
    if not first and (type(description["format"]) is not int or description["format"] != _FORMAT):
        raise ValueError(
            f"its format is {description['format']!r}, and this memsim reads formats up to "
            f"{_FORMAT}"
        )
    later = {field.name for field in dataclasses.fields(CrossbarConfig)} - _format_1.CONFIG
    config = read_record(
        CrossbarConfig, description["config"], "its config", later if first else ()
    )
    entries = description["layers"]
    if not isinstance(entries, list) or not entries:
        raise ValueError("its description lists no layers")
    if not first:
        return config, [_entry(i, entry) for i, entry in enumerate(entries)]
    parts = [*_format_1.PLACEMENT, *(part for part in PARTS if part not in OPTIONAL)]
    named = [_format_1.read_entry(i, entry) for i, entry in enumerate(entries)]
    return config, [{"name": name, "matrix": matrix, "parts": parts} for name, matrix in named]


def _entry(number: int, entry: object) -> dict[str, Any]:
    """Reads what the description says of one layer."""
    what = f"layer {number} of its description"
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is no JSON object")
    check_keys(what, entry, ("name", "matrix", "parts"))
    name, parts = entry["name"], entry["parts"]
    if not isinstance(name, str):
        raise ValueError(f"{what} has a name that is no text")
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{what} has parts that are no list of texts")
    check_keys(f"`parts` of {what}", parts, set(PARTS) - OPTIONAL, OPTIONAL)
    matrix = read_record(Matrix, entry["matrix"], f"the matrix of {what}")
    return {"name": name, "matrix": matrix, "parts": [*PLACEMENT, *parts]}


def _layer(
    entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray], config: CrossbarConfig
) -> LayerPlan:
    """Checks one layer and puts it together.

    Raises:
      ValueError: see `load_plan`.
    """
    matrix = entry["matrix"]
    try:
        check_layer(matrix, arrays, config)
    except ValueError as error:
        raise ValueError(f"of layer `{entry['name']}`, {error}") from error
    weights, used_rows, used_words = (arrays[part] for part in PLACEMENT)
    # the inverse is not in the file: it follows from the placement
    positions = inverse_positions(weights, matrix.inputs * matrix.outputs)
    placement = Placement(weights, positions, used_rows, used_words)
    parts = {part: arrays.get(part) for part in PARTS}
    return LayerPlan(matrix, placement=placement, **parts)  # type: ignore[arg-type]
