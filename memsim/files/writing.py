"""Outputs that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memsim._checks import check_kind, check_path, check_truth
from memsim.files import _npz, _safetensors
from memsim.files._json import is_text
from memsim.files.raw import RawTensor

__all__ = ["check_output", "check_tensors", "save_tensors", "write_text", "write_whole"]


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
    # in the same folder, so that it can replace `path` in one step
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
    # also when the run is interrupted
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
    """Saves arrays by name: as npz if `path` ends in `.npz`, else as safetensors.

    What `open_checkpoint` reads of the file is what was saved: bit for bit, of the same dtypes, in
    this machine's byte order, with the metadata. In an npz the names of bfloat16 and float8, which
    NumPy stores as bytes, and the metadata stand in a member `memsim.json` beside the arrays.

    >>> weights = np.eye(3, dtype=np.float32)
    >>> save_tensors("out.safetensors", {"fc.weight": weights}, metadata={"format": "pt"})

    Args:
      path: of the file.
      tensors: arrays of NumPy or JAX, or what `Checkpoint.load` gives.
      metadata: texts by name.
      force: replace a file that exists.

    Raises:
      OSError: the file exists and `force` is off, or its folder cannot be written.
      ValueError: a tensor of a dtype that this kind of file cannot hold, see `check_tensors`.
    """
    check_path("path", path)
    check_truth("force", force)
    check_kind("tensors", tensors, Mapping, "give arrays by name")
    arrays = {
        name: x if isinstance(x, RawTensor) else np.asarray(x, order="C")
        for name, x in tensors.items()
    }
    check_tensors(path, arrays)
    texts = dict(metadata or {})

    def write(temporary: Path) -> None:
        if temporary.suffix == ".npz":
            _npz.write_file(temporary, arrays, texts)
        else:
            _safetensors.write_file(temporary, arrays, texts)

    write_whole(path, write, force)


def check_tensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Checks, before long work, that a file of the kind of `path` can hold tensors exactly.

    Args:
      path: `.npz`, or else safetensors.
      tensors: arrays or `RawTensor`, by name.

    Raises:
      ValueError: their dtypes are not of that kind, or their names cannot stand in it.
    """
    # zip ends a name at a null byte, and safetensors keeps a name for its metadata
    to_npz = Path(path).suffix == ".npz"
    for name in tensors:
        bad = "\0" in name if to_npz else name == "__metadata__"
        if bad or not is_text(name):
            raise ValueError(f"`{path}` cannot hold a tensor called {name!a}; rename it.")
    lost = []
    for name, tensor in tensors.items():
        if not (_npz.holds(tensor) if to_npz else _safetensors.code_of(tensor)):
            kind = tensor.stored if isinstance(tensor, RawTensor) else tensor.dtype
            lost.append(f"`{name}` ({kind})")
    if lost:
        others = f" and {len(lost) - 5} others" if len(lost) > 5 else ""
        kind, other = (".npz", ".safetensors") if to_npz else (".safetensors", ".npz")
        raise ValueError(
            f"`{path}`: no {kind} file holds {', '.join(lost[:5])}{others} exactly; save as "
            f"{other}, or leave them out."
        )
