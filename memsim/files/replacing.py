"""Files like one that was opened, with other weights: of the same kind, all else in it kept."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from memsim.files import _flax, _gguf, _hdf5, _onnx, _pytorch
from memsim.files.writing import write_whole

__all__ = ["replace_tensors", "same_kind"]

# What writes a file of a kind, by how its name ends; (out, source, tensors).
_Writer = Callable[[Path, Path, Mapping[str, np.ndarray]], None]
_WRITERS: dict[str, _Writer] = {
    **dict.fromkeys(_pytorch.SUFFIXES, _pytorch.replace_tensors),
    ".onnx": _onnx.replace_tensors,
    **dict.fromkeys((*_hdf5.SUFFIXES, ".keras"), _hdf5.replace_tensors),
    ".msgpack": _flax.replace_tensors,
    ".gguf": _gguf.replace_tensors,
}


def same_kind(path: Path, source: Path) -> bool:
    """Says whether `replace_tensors` writes `path` from a checkpoint.

    >>> same_kind(Path("held.onnx"), Path("hf:owner/name/model.onnx"))  # which is no file here
    False
    """
    writer = _WRITERS.get(path.suffix)
    alike = writer is not None and writer is _WRITERS.get(source.suffix) and source.is_file()
    # a .keras archive is no file of HDF5
    return alike and (path.suffix == ".keras") == (source.suffix == ".keras")


def replace_tensors(
    path: Path, source: Path, tensors: Mapping[str, np.ndarray], *, force: bool = False
) -> None:
    """Writes a file like a checkpoint of `same_kind`, whole or not at all, with other weights.

    Args:
      path: of the new file.
      source: the checkpoint; all that it holds beside these tensors is kept.
      tensors: by name, of the shapes and dtypes that they have there.
      force: replace a file that exists.

    Raises:
      OSError: see `check_output`.
      ValueError: the checkpoint keeps its tensors where they cannot be replaced.
    """

    def write(temporary: Path) -> None:
        _WRITERS[path.suffix](temporary, source, tensors)

    write_whole(path, write, force)
