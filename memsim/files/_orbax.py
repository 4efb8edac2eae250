"""Folders of Orbax: the checkpoints of Flax jobs."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memsim.files._flax import OPTIMIZERS
from memsim.files._opening import (
    Checkpoint,
    Stored,
    as_checkpoint,
    check_shape,
    most_bytes,
    need_library,
    refusing,
)
from memsim.selection import named_leaves

_METADATA = "_METADATA"
_LONGEST_METADATA = 2**26  # bytes


def open_folder(path: Path) -> Checkpoint:
    """Opens a checkpoint of Orbax, or the only one in a folder; arrays are read when asked for.

    Raises:
      ValueError: there is none, or there are several; it is truncated, or claims what cannot be.
    """
    folder = _find(path).absolute()
    library = need_library("orbax.checkpoint", path)
    with refusing(path, "a checkpoint of Orbax"):
        size = sum(file.lstat().st_size for file in folder.rglob("*"))
        if (folder / _METADATA).stat().st_size > min(_LONGEST_METADATA, size):
            raise ValueError(f"its {_METADATA} is too long")
        tree = library.PyTreeCheckpointHandler().metadata(folder)
        tree = getattr(tree, "tree", tree)
        stored: dict[str, Stored] = {}
        for name, leaf in named_leaves(tree).items():
            shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
            # a text or nothing, or what an optimizer keeps
            if shape is None or dtype is None or name.split("/")[0] in OPTIMIZERS:
                continue
            check_shape(name, shape, np.dtype(dtype).itemsize, most_bytes(size))
            load = functools.partial(_load, library, folder, tree, name)
            stored[name] = Stored(tuple(shape), np.dtype(dtype), load)
    return as_checkpoint(stored)


def _find(path: Path) -> Path:
    """Finds the folder of the arrays: this one, or the only one below it that has any."""
    found = path
    for _ in range(3):  # of all steps, of a step, of the parameters in it
        if (found / _METADATA).is_file():
            return found
        inner = sorted(p for p in found.iterdir() if p.is_dir() and not p.is_symlink())
        inner = [p for p in inner if _is_above(p)]
        if len(inner) > 1:
            names = ", ".join(p.name for p in inner[:8])
            raise ValueError(
                f"`checkpoint` {path} has several checkpoints of Orbax ({names}); give the folder "
                f"of one: {inner[-1]}."
            )
        if not inner:
            break
        found = inner[0]
    raise ValueError(
        f"`checkpoint` {path} is a folder without a checkpoint of Orbax (no {_METADATA} in it); "
        "name a file, or the folder of a step."
    )


def _is_above(folder: Path) -> bool:
    """Says whether there are arrays in a folder, or in one below it."""
    return any(next(folder.glob(at), None) for at in (_METADATA, f"*/{_METADATA}"))


def _load(library: Any, folder: Path, tree: Any, name: str) -> np.ndarray:
    """Reads one array, and nothing of the others."""
    names = iter(named_leaves(tree))
    asked = jax.tree.map(lambda leaf: leaf if next(names) == name else library.PLACEHOLDER, tree)
    how = jax.tree.map(lambda _: library.RestoreArgs(restore_type=np.ndarray), tree)
    with refusing(folder, "a checkpoint of Orbax"):
        restored = library.PyTreeCheckpointHandler().restore(
            folder, args=library.args.PyTreeRestore(item=asked, restore_args=how)
        )
        return np.asarray(named_leaves(restored)[name])
