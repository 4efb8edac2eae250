"""Outputs that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy


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
