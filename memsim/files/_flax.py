"""Files of Flax: the MessagePack of `flax.serialization`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memsim.files._opening import Checkpoint, as_checkpoint, in_memory, need_library, refusing

OPTIMIZERS = ("opt_state", "optimizer", "opt")  # states of one, beside the parameters
_REMEDY = 'pip install "memsim[files]"'
_DEEPEST = 64  # dictionaries in dictionaries


def open_file(path: Path) -> Checkpoint:
    """Opens a file that `flax.serialization.to_bytes` wrote; it is read at once.

    Raises:
      ValueError: it is truncated, no such file, or holds what is no array.
    """
    with refusing(path, "a file of Flax"):
        arrays = {"/".join(at): x for at, x in _arrays(_restore(path), ())}
        if not arrays:
            raise ValueError("it holds no array by name")
    return as_checkpoint({name: in_memory(x) for name, x in arrays.items()})


def _restore(path: Path) -> Any:
    library = need_library("flax.serialization", path, _REMEDY)
    return library.msgpack_restore(path.read_bytes())


def _arrays(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Goes through the arrays of dictionaries and lists, but for those of an optimizer."""
    if len(path) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(tree, Mapping | list | tuple):
        entries = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, value in entries:
            if path or key not in OPTIMIZERS:
                yield from _arrays(value, (*path, str(key)))
    elif isinstance(tree, np.ndarray | np.generic) and path:
        yield path, np.asarray(tree)


def replace_tensors(out: Path, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file like `source` with other weights."""
    library = need_library("flax.serialization", source, _REMEDY)
    tree = _restore(source)
    for name, array in tensors.items():
        *path, last = name.split("/")
        parent = tree
        for key in path:
            parent = parent[key]
        parent[last] = array
    out.write_bytes(library.msgpack_serialize(tree, in_place=True))
