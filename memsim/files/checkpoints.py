"""Checkpoints of other tools: `.safetensors`, sharded ones, `.npz`. Nothing is ever unpickled."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from memsim._checks import check_path
from memsim.files import _npz, _safetensors
from memsim.files._dtypes import numpy_dtype, why_digital
from memsim.files._json import parse_json
from memsim.files.raw import RawTensor

__all__ = ["Checkpoint", "open_checkpoint"]


# with a type, which JAX does not give it
_shape_of: Callable[..., jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct


class Checkpoint(NamedTuple):
    """An open checkpoint.

    Attributes:
      tensors: shape and dtype of every tensor, by name; `|V1` where `load` gives a `RawTensor`.
      load: reads the tensor of a name, exactly: an array in this machine's byte order, or a
        `RawTensor` of a dtype that NumPy cannot compute with.
      metadata: texts that the file carries (`format: pt`), for `save_tensors`.
      reasons: why a tensor cannot be a weight matrix, by name, for all whose dtype is the reason:
        `{"head.scale": "powers of two (F8_E8M0), which scale other tensors"}`.
    """

    tensors: dict[str, jax.ShapeDtypeStruct]
    load: Callable[[str], np.ndarray | RawTensor]
    metadata: dict[str, str]
    reasons: dict[str, str]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a `.safetensors` file, the `.index.json` of a sharded one, or an `.npz`.

    Reads a tensor of safetensors when it is asked for, and an npz at once. The index of a sharded
    checkpoint is followed exactly: a tensor is read from the shard that the index gives it, copies
    in other shards are left out. Metadata is that on which all shards agree.

    >>> import numpy as np, memsim
    >>> memsim.save_tensors("model.safetensors", {"fc.weight": np.eye(2, 3)})
    >>> open_checkpoint("model.safetensors").load("fc.weight").shape
    (2, 3)

    Raises:
      FileNotFoundError: there is no such file (or shard).
      ValueError: it is truncated, another kind of file, or holds pickled objects; an index names
        tensors that are not where it says, leaves some out, or names shards that are no plain
        `.safetensors` files beside it.
    """
    check_path("path", path)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {path} is not a file; check the path.")
    if path.suffix == ".safetensors":
        header = _header(path)
        return _lazy(dict.fromkeys(header.entries, path), {path: header})
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    if path.suffix == ".npz":
        arrays, metadata = _npz.read_file(path)
        shapes = {name: _shape_of(x.shape, x.dtype) for name, x in arrays.items()}
        return Checkpoint(shapes, arrays.__getitem__, metadata, _reasons(arrays))
    raise ValueError(
        f"`checkpoint` {path} is not a checkpoint that memsim reads (.safetensors, its "
        ".index.json, or .npz); save the weights as safetensors first."
    )


def _reasons(tensors: Mapping[str, np.ndarray | RawTensor]) -> dict[str, str]:
    why = {
        name: why_digital(x.stored if isinstance(x, RawTensor) else x.dtype)
        for name, x in tensors.items()
    }
    return {name: reason for name, reason in why.items() if reason}


def _header(path: Path) -> _safetensors.Header:
    try:
        with path.open("rb") as file:
            return _safetensors.read_header(file)
    except ValueError as error:
        raise ValueError(
            f"`checkpoint` {path} is truncated or not a safetensors file: {error}; fetch or "
            "save it again."
        ) from error


def _lazy(files: Mapping[str, Path], headers: Mapping[Path, _safetensors.Header]) -> Checkpoint:
    """Opens a checkpoint of which each tensor is read when it is asked for.

    Args:
      files: of each tensor, by name.
      headers: of each file.
    """
    tensors: dict[str, jax.ShapeDtypeStruct] = {}
    reasons: dict[str, str] = {}
    for name, path in files.items():
        entry = headers[path].entries[name]
        dtype = numpy_dtype(entry.stored)
        reason = why_digital(entry.stored if dtype is None else dtype)
        tensors[name] = _shape_of(entry.shape, np.dtype("V1") if dtype is None else dtype)
        if reason:
            reasons[name] = reason
    places = {name: path.absolute() for name, path in files.items()}

    def load(name: str) -> np.ndarray | RawTensor:
        return _safetensors.load_tensor(places[name], headers[files[name]], name)

    return Checkpoint(tensors, load, _agreed([h.metadata for h in headers.values()]), reasons)


def _agreed(metadata: list[dict[str, str]]) -> dict[str, str]:
    """Gives the texts that all shards which have them give alike."""
    values: dict[str, set[str]] = {}
    for of_shard in metadata:
        for name, text in of_shard.items():
            values.setdefault(name, set()).add(text)
    return {name: texts.pop() for name, texts in values.items() if len(texts) == 1}


def _open_shards(index: Path) -> Checkpoint:
    """Opens a sharded checkpoint by its index.

    Raises:
      FileNotFoundError, ValueError: see `open_checkpoint`.
    """
    assigned = _weight_map(index)
    shards = {shard: _shard(index, shard) for shard in sorted(set(assigned.values()))}
    headers = {path: _header(path) for path in shards.values()}
    # the index and the shards must tell the same: first all that the index names
    found = {shard: headers[path].entries for shard, path in shards.items()}
    for name, shard in assigned.items():
        if name not in found[shard]:
            others = [other for other, entries in found.items() if name in entries]
            where = f"it is in {', '.join(others)}" if others else "no shard has it"
            raise ValueError(
                f"`checkpoint` {index} says that `{name}` is in {shard}, but {where}; fetch the "
                "shards and their index again, or mend its `weight_map`."
            )
    # then all that the shards hold, but for copies that the index gives to others
    forgotten = {name: shard for shard in found for name in found[shard] if name not in assigned}
    if forgotten:
        name, shard = next(iter(forgotten.items()))
        raise ValueError(
            f"`checkpoint` {index} does not name `{name}`, which is in {shard} ({len(forgotten)} "
            "such tensors); fetch the shards and their index again, or mend its `weight_map`."
        )
    # shard after shard, as they are read from the disk
    files = {name: shards[s] for s in found for name in found[s] if assigned[name] == s}
    return _lazy(files, headers)


def _weight_map(index: Path) -> dict[str, str]:
    """Reads the shard of every tensor, as the index gives it."""
    try:
        document = parse_json(index.read_bytes())
        weight_map = document["weight_map"] if isinstance(document, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("there is no tensor in it")
        if not all(isinstance(shard, str) for shard in weight_map.values()):
            raise ValueError("a shard is no text")
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"`checkpoint` {index} is not the index of a sharded checkpoint (a JSON object with a "
            f"`weight_map`): {error}."
        ) from error
    return weight_map


def _shard(index: Path, shard: str) -> Path:
    """Finds the file of a shard: beside the index, which comes from strangers, and nowhere else."""
    plain = Path(shard).name == shard and shard not in ("", ".", "..")
    if not plain or not shard.isprintable() or "\\" in shard:
        raise ValueError(f"`checkpoint` {index} names the shard {shard!r}, not a plain file name.")
    if not shard.endswith(".safetensors"):
        raise ValueError(
            f"`checkpoint` {index} names the shard {shard}, not a .safetensors file; others may "
            "run code when they are read: fetch the safetensors of this model, or save it so: "
            "save_pretrained(..., safe_serialization=True)."
        )
    if not (index.parent / shard).is_file():
        raise FileNotFoundError(f"`checkpoint` {index} names the shard {shard}, missing beside it.")
    return index.parent / shard
