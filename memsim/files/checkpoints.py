"""Checkpoints of other tools, of every kind that `KINDS` lists. Nothing is unpickled freely."""

import functools
from collections.abc import Callable
from pathlib import Path

from memsim._checks import check_path
from memsim.files import (
    _flax,
    _gguf,
    _hdf5,
    _hub,
    _npz,
    _onnx,
    _orbax,
    _pytorch,
    _safetensors,
)
from memsim.files._dtypes import numpy_dtype
from memsim.files._json import parse_json
from memsim.files._opening import Checkpoint, Stored, as_checkpoint

__all__ = ["KINDS", "Checkpoint", "open_checkpoint"]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a checkpoint: a file or folder of any kind that `KINDS` lists, or what the hub has.

    The libraries that read a kind are imported when such a file is opened. Tensors are read when
    they are asked for, except those of an npz, an ONNX or a Flax file. The index of a sharded
    checkpoint is followed exactly: a tensor is read from the shard that the index gives it, copies
    in other shards are left out. Metadata is that on which all shards agree. The states of an
    optimizer are no tensors of the network. `hf:owner/name` is the repository of that name on the
    Hugging Face hub, `hf:owner/name/FILE` one of its files.

    >>> import numpy as np, memsim
    >>> memsim.save_tensors("model.safetensors", {"fc.weight": np.eye(2, 3)})
    >>> open_checkpoint("model.safetensors").load("fc.weight").shape
    (2, 3)

    Raises:
      FileNotFoundError: there is no such file (or shard), or the hub did not give it.
      ValueError: it is truncated, another kind of file, or holds pickled objects; a library that
        reads it is not installed; an index names tensors that are not where it says, leaves some
        out, or names shards that are no plain `.safetensors` or `.bin` files beside it.
    """
    check_path("path", path)
    if str(path).startswith(_hub.PREFIX):
        path = _hub.fetch(str(path))
    path = Path(path)
    if path.is_dir():
        return _orbax.open_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {path} is not a file; check the path.")
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    if path.suffix not in _OPENERS:
        raise ValueError(
            f"`checkpoint` {path} is not a checkpoint that memsim reads ({', '.join(KINDS)}); "
            "save the weights as safetensors first."
        )
    return _OPENERS[path.suffix](path)


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        with path.open("rb") as file:
            header = _safetensors.read_header(file)
    except ValueError as error:
        raise ValueError(
            f"`checkpoint` {path} is truncated or not a safetensors file: {error}; fetch or "
            "save it again."
        ) from error
    # wherever the process goes meanwhile
    load = functools.partial(_safetensors.load_tensor, path.absolute(), header)
    stored = {
        name: Stored(
            entry.shape, numpy_dtype(entry.stored) or entry.stored, functools.partial(load, name)
        )
        for name, entry in header.entries.items()
    }
    return as_checkpoint(stored, metadata=header.metadata)


# What opens a file, by how its name ends.
_OPENERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".safetensors": _open_safetensors,
    ".npz": _npz.open_file,
    **dict.fromkeys(_pytorch.SUFFIXES, _pytorch.open_file),
    ".onnx": _onnx.open_file,
    **dict.fromkeys(_hdf5.SUFFIXES, _hdf5.open_file),
    ".keras": _hdf5.open_keras,
    ".msgpack": _flax.open_file,
    ".gguf": _gguf.open_file,
}

_LONGEST_INDEX = 2**24  # bytes: a hundred thousand tensors

KINDS = (*_OPENERS, ".index.json of .safetensors or .bin", "a folder of Orbax", "hf:owner/name")


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
    paths = {shard: _shard(index, shard) for shard in sorted(set(assigned.values()))}
    opened = {shard: _OPENERS[path.suffix](path) for shard, path in paths.items()}
    # the index and the shards must tell the same: first all that the index names
    found = {shard: source.tensors for shard, source in opened.items()}
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
    places = {name: shard for shard in found for name in found[shard] if assigned[name] == shard}
    return Checkpoint(
        {name: found[shard][name] for name, shard in places.items()},
        lambda name: opened[places[name]].load(name),
        _agreed([source.metadata for source in opened.values()]),
        {n: opened[s].reasons[n] for n, s in places.items() if n in opened[s].reasons},
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Reads the shard of every tensor, as the index gives it."""
    try:
        if (size := index.stat().st_size) > _LONGEST_INDEX:
            raise ValueError(f"{size} bytes are too many")
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
    if not shard.endswith((".safetensors", ".bin")):
        raise ValueError(
            f"`checkpoint` {index} names the shard {shard}, not a .safetensors or .bin file; fetch "
            "the safetensors of this model, or save it so: save_pretrained(..., "
            "safe_serialization=True)."
        )
    if not (index.parent / shard).is_file():
        raise FileNotFoundError(f"`checkpoint` {index} names the shard {shard}, missing beside it.")
    return index.parent / shard
