"""Files: checkpoints in, effective weights out; plans, chips and fault maps both ways.

Outputs appear whole or not at all. Nothing is ever unpickled.
"""

import dataclasses
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from memsim.chip import Chip, fault_cells
from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.planning import LayerPlan, Matrix, Plan
from memsim.schedule import network_schedule

_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


class Checkpoint(NamedTuple):
    """An open checkpoint.

    Attributes:
      tensors: shape and dtype of every tensor, by name.
      load: reads the tensor of a name.
    """

    tensors: dict[str, jax.ShapeDtypeStruct]
    load: Callable[[str], np.ndarray]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a `.safetensors` file, the `.index.json` of a sharded one, or an `.npz`.

    Tensors of safetensors are read when asked for; an npz is read at once.

    Raises:
      FileNotFoundError: there is no such file (or shard).
      ValueError: it is truncated, another kind of file, or holds pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {path} is not a file; check the path.")
    if path.suffix == ".safetensors":
        return _open_safetensors({None: path})
    if path.name.endswith(".index.json"):
        return _open_safetensors(_shards(path))
    if path.suffix == ".npz":
        arrays = _read_npz(path)
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
        return Checkpoint(shapes, arrays.__getitem__)
    raise ValueError(
        f"`checkpoint` {path} is not a checkpoint that memsim reads (.safetensors, its "
        ".index.json, or .npz); save the weights as safetensors first."
    )


def _open_safetensors(shards: Mapping[str | None, Path]) -> Checkpoint:
    tensors: dict[str, jax.ShapeDtypeStruct] = {}
    sources: dict[str, Any] = {}
    for path in dict.fromkeys(shards.values()):
        try:
            source = safetensors.safe_open(path, framework="numpy")
            for name in source.keys():  # noqa: SIM118 - no mapping
                lazy = source.get_slice(name)
                # a dtype that NumPy lacks is carried as bytes and stays digital
                dtype = _SAFETENSORS_DTYPES.get(lazy.get_dtype(), np.dtype(np.uint8))
                tensors[name] = jax.ShapeDtypeStruct(tuple(lazy.get_shape()), dtype)
                sources[name] = source
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"`checkpoint` {path} is truncated or not a safetensors file: {error}; fetch or "
                "save it again."
            ) from error
    return Checkpoint(tensors, lambda name: sources[name].get_tensor(name))


def _shards(index: Path) -> dict[str | None, Path]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`checkpoint` {index} is not the index of a sharded checkpoint (a JSON object with a "
            "`weight_map`)."
        ) from error
    shards: dict[str | None, Path] = {}
    for name in names:
        if Path(name).name != name:  # an index comes from strangers: no way out of its folder
            raise ValueError(
                f"`checkpoint` {index} names the shard {name!r}, not a plain file name."
            )
        if not (index.parent / name).is_file():
            raise FileNotFoundError(
                f"`checkpoint` {index} names the shard {name}, missing beside it."
            )
        shards[name] = index.parent / name
    return shards


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # opened here: given a path, NumPy leaves a broken file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        pickled = "pickle" in str(error)
        what = (
            "holds pickled objects, which memsim never unpickles"
            if pickled
            else "is truncated or not an npz file"
        )
        raise ValueError(
            f"`checkpoint` {path} {what}; save plain arrays with numpy.savez."
        ) from error


def check_output(path: str | Path, force: bool) -> None:
    """Checks, before long work, that an output can be written.

    Raises:
      FileExistsError: it exists and `force` is off.
      OSError: its folder is missing or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"`{path}` is a folder; name a file.")
    if path.exists() and not force:
        raise FileExistsError(f"`{path}` exists; use --force (force=True) to replace it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`{path.parent}` is not a folder; make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"`{path.parent}` cannot be written; choose another folder.")


def write_whole(path: str | Path, write: Callable[[Path], None], force: bool = False) -> None:
    """Calls `write` on a temporary file beside `path`, which replaces it only once complete.

    Raises:
      OSError: see `check_output`.
    """
    path = Path(path)
    check_output(path, force)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    try:
        write(Path(name))
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes private files
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_text(path: str | Path, text: str, force: bool = False) -> None:
    """Writes a text file, whole or not at all, as UTF-8.

    Raises:
      OSError: see `check_output`.
    """

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write, force)


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> None:
    """Saves arrays by name: as npz if `path` ends in `.npz`, else as safetensors (with metadata).

    Raises:
      OSError: the file exists and `force` is off, or its folder cannot be written.
    """
    arrays = {name: np.asarray(x, order="C") for name, x in tensors.items()}

    def write(temporary: Path) -> None:
        if temporary.suffix == ".npz":
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
        else:
            safetensors.numpy.save_file(arrays, temporary, dict(metadata or {}))

    write_whole(path, write, force)


def _load_own(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and description of a plan or chip file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`{kind}` {path} is not a file; check the path.")
    try:
        with safetensors.safe_open(path, framework="numpy") as source:
            description = json.loads((source.metadata() or {}).get(f"memsim.{kind}", "null"))
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"`{kind}` {path} is truncated or no {kind} file: {error}.") from error
    if description is None:
        raise ValueError(f"`{kind}` {path} was not saved by memsim as a {kind}.")
    return tensors, description


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
    tensors, description = _load_own(path, "plan")
    config = CrossbarConfig(**description["config"])
    layers = {}
    for i, entry in enumerate(description["layers"]):
        name = entry.pop("name")
        shape, axes = tuple(entry.pop("shape")), tuple(entry.pop("axes"))
        matrix = Matrix(shape, axes, **entry)
        weights, used_rows = tensors[f"{i}.weights"], tensors[f"{i}.used_rows"]
        positions = inverse_positions(weights, matrix.inputs * matrix.outputs)
        fields: Any = {field: tensors.get(f"{i}.{field}") for field in _PLAN_FIELDS}
        layers[name] = LayerPlan(
            matrix, placement=Placement(weights, positions, used_rows), **fields
        )
    schedule = network_schedule([layer.placement.used_rows for layer in layers.values()], config)
    return jax.tree.map(jnp.asarray, Plan(config, layers, *schedule))


def save_chip(path: str | Path, chip: Chip, config: CrossbarConfig, *, force: bool = False) -> None:
    """Saves a chip as safetensors: its key, stuck cells and present state.

    Raises:
      OSError: as `save_tensors`.
    """
    tensors = {
        "key": jax.random.key_data(chip.key),
        "passes": chip.passes,
        "stuck_at_0": chip.stuck_at_0,
        "stuck_at_1": chip.stuck_at_1,
        "state": chip.state,
    }
    description = {"key": str(jax.random.key_impl(chip.key)), "cells": config.column_masks}
    save_tensors(path, tensors, metadata={"memsim.chip": json.dumps(description)}, force=force)


def load_chip(path: str | Path, config: CrossbarConfig) -> Chip:
    """Loads a chip.

    Raises:
      FileNotFoundError, ValueError: there is no such file; it is not a whole chip; its words
        are not cut into cells as `config` says.
    """
    tensors, description = _load_own(path, "chip")
    if tuple(description["cells"]) != config.column_masks:
        raise ValueError(
            f"`chip` {path} has {len(description['cells'])} other columns than the config's "
            f"{config.columns} ({config.encoding}, {config.bits} bits, {config.cell_bits} per "
            "cell); program it with the config that it was made for."
        )
    key = jax.random.wrap_key_data(jnp.asarray(tensors.pop("key")), impl=description["key"])
    return Chip(key, **{name: jnp.asarray(x) for name, x in tensors.items()})


def save_faults(
    path: str | Path, chip: Chip, config: CrossbarConfig, *, force: bool = False
) -> None:
    """Saves which cells are stuck: `stuck_at_0`, `stuck_at_1`, bool [crossbars, rows, columns].

    Raises:
      OSError: as `save_tensors`.
    """
    low, high = fault_cells(chip, config)
    save_tensors(path, {"stuck_at_0": low, "stuck_at_1": high}, force=force)


def load_faults(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Loads a fault map, `.npz` or `.safetensors`, measured or saved by `save_faults`.

    Returns:
      (stuck_at_0, stuck_at_1), bool [crossbars, rows, columns].

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it is no fault map.
    """
    source = open_checkpoint(path)
    if set(source.tensors) != {"stuck_at_0", "stuck_at_1"}:
        raise ValueError(
            f"`faults` {path} holds {sorted(source.tensors)}; a fault map holds `stuck_at_0` and "
            "`stuck_at_1`, bool [crossbars, rows, columns]."
        )
    low, high = source.load("stuck_at_0"), source.load("stuck_at_1")
    if low.shape != high.shape or low.ndim != 3 or not np.isin([*np.unique(low), *np.unique(high)],
                                                              (0, 1)).all():  # fmt: skip
        raise ValueError(
            f"`faults` {path} holds {low.dtype} {low.shape} and {high.dtype} {high.shape}; both "
            "must be bool (or 0 and 1) [crossbars, rows, columns]."
        )
    low, high = low.astype(bool), high.astype(bool)
    if (low & high).any():
        raise ValueError(f"`faults` {path} has {(low & high).sum()} cells stuck at both 0 and 1.")
    return low, high
