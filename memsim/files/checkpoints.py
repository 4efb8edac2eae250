"""Checkpoints of other tools: `.safetensors`, sharded ones, `.npz`. Nothing is ever unpickled."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

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
