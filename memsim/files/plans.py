"""Plans, to a file and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from memsim.config import CrossbarConfig
from memsim.files.own import load_own
from memsim.files.writing import save_tensors
from memsim.placement import Placement, inverse_positions
from memsim.planning import LayerPlan, Matrix, Plan
from memsim.schedule import network_schedule


def save_plan(path: str | Path, plan: Plan, *, force: bool = False) -> None:
    """Saves a plan as safetensors: the index that a chip would follow, 4 bytes a weight and more.

    Raises:
      OSError: as `save_tensors`.
    """
    tensors: dict[str, Any] = {}
    layers = []
    for i, name in enumerate(plan.names):
        layer = plan.layers[name]
        layers.append({"name": name, **dataclasses.asdict(layer.matrix)})
        tensors[f"{i}.weights"] = layer.placement.weights
        tensors[f"{i}.used_rows"] = layer.placement.used_rows
        for field in _PLAN_FIELDS:
            if getattr(layer, field) is not None:
                tensors[f"{i}.{field}"] = getattr(layer, field)
    description = {"config": dataclasses.asdict(plan.config), "layers": layers}
    save_tensors(path, tensors, metadata={"memsim.plan": json.dumps(description)}, force=force)


_PLAN_FIELDS = (
    "scale", "low_columns", "reprogram", "fixed", "index_bits", "analog_valid", "delta",
    "correction", "flips", "offset",
)  # fmt: skip


def load_plan(path: str | Path) -> Plan:
    """Loads a plan.

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it is not a whole plan.
    """
    tensors, description = load_own(path, "plan")
    config = CrossbarConfig(**description["config"])
    layers = {}
    for i, entry in enumerate(description["layers"]):
        name = entry.pop("name")
        places = {key: entry.get(key, ()) for key in ("shape", "axes", "stacked", "index")}
        matrix = Matrix(**{key: tuple(place) for key, place in places.items()})
        weights, used_rows = tensors[f"{i}.weights"], tensors[f"{i}.used_rows"]
        positions = inverse_positions(weights, matrix.inputs * matrix.outputs)
        fields: Any = {field: tensors.get(f"{i}.{field}") for field in _PLAN_FIELDS}
        layers[name] = LayerPlan(
            matrix, placement=Placement(weights, positions, used_rows), **fields
        )
    schedule = network_schedule([layer.placement.used_rows for layer in layers.values()], config)
    return jax.tree.map(jnp.asarray, Plan(config, layers, *schedule))
