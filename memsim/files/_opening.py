"""An open checkpoint of any kind, and what files of every kind are refused for."""

import contextlib
import importlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memsim.files._dtypes import why_digital
from memsim.files._json import is_text
from memsim.files.raw import RawTensor

# with a type, which JAX does not give it
_shape_of: Callable[..., jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct

# Compressed files may unpack to so many times their size, or to so many bytes; weights, which are
# all but random, compress to a third at best.
_MOST_TIMES, _FREE_BYTES = 100, 2**26

_MOST_AXES = 32  # arrays of more have no use, and JAX none of more than 64


class Checkpoint(NamedTuple):
    """An open checkpoint.

    Attributes:
      tensors: shape and dtype of every tensor, by name; `|V1` where `load` gives a `RawTensor`.
      load: reads the tensor of a name, exactly: an array in this machine's byte order, or a
        `RawTensor` of a dtype that NumPy cannot compute with.
      metadata: texts that the file carries (`format: pt`), for `save_tensors`.
      reasons: why a tensor cannot be a weight matrix, by name, for all of which the file, or their
        dtype, tells: `{"head.scale": "powers of two (F8_E8M0), which scale other tensors"}`.
      layouts: how a tensor is to be read, by name, for all of which the file itself tells more than
        a name does, for `select_by_name`: `{"onnx::MatMul_12": "in-out"}`; alternatives joined by
        `|` where it leaves a doubt.
    """

    tensors: dict[str, jax.ShapeDtypeStruct]
    load: Callable[[str], np.ndarray | RawTensor]
    metadata: dict[str, str]
    reasons: dict[str, str]
    layouts: Mapping[str, str] = {}


class Stored(NamedTuple):
    """A tensor of an open file.

    Attributes:
      shape: its elements along each axis.
      dtype: of the array that `load` gives; what the file calls it where that is a `RawTensor`.
      load: reads it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | str
    load: Callable[[], np.ndarray | RawTensor]


def in_memory(tensor: np.ndarray | RawTensor) -> Stored:
    """Gives a tensor that was read already."""
    dtype = tensor.stored if isinstance(tensor, RawTensor) else tensor.dtype
    return Stored(tensor.shape, dtype, lambda: tensor)


def as_checkpoint(
    stored: Mapping[str, Stored],
    *,
    metadata: Mapping[str, str] | None = None,
    reasons: Mapping[str, str] | None = None,
    layouts: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Makes a checkpoint of tensors that are read one by one.

    Args:
      stored: by name.
      metadata, layouts: see `Checkpoint`.
      reasons: why tensors stay digital, beside those whose dtype tells.

    Raises:
      ValueError: a name that is no text.
    """
    tensors: dict[str, jax.ShapeDtypeStruct] = {}
    why = dict(reasons or {})
    for name, tensor in stored.items():
        if not isinstance(name, str) or not is_text(name):
            raise ValueError(f"`checkpoint` has a tensor called {name!a}, no text; rename it.")
        raw = isinstance(tensor.dtype, str)
        tensors[name] = _shape_of(tensor.shape, np.dtype("V1") if raw else tensor.dtype)
        # a dtype of NumPy is the plainest reason, one of the file's own may have a better
        if (reason := why_digital(tensor.dtype)) and not (raw and name in why):
            why[name] = reason
    return Checkpoint(
        tensors, lambda name: stored[name].load(), dict(metadata or {}), why, dict(layouts or {})
    )


def need_library(library: str, path: Path, remedy: str = 'pip install "memsim[files]"') -> Any:
    """Imports the library that reads a kind of file, now that there is such a file.

    Raises:
      ValueError: it is not installed, or does not work.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        broken = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise ValueError(
            f"`checkpoint` {path} takes {name} to be read, which is not installed{broken}: {remedy}"
        ) from error


@contextlib.contextmanager
def refusing(path: Path, kind: str, remedy: str = "fetch or save it again") -> Iterator[None]:
    """Turns whatever a library says of a broken or hostile file into one line.

    Args:
      path: of the file.
      kind: of file, with its article.
      remedy: what helps.

    Raises:
      ValueError: anything went wrong; what memsim itself says of a checkpoint stays as it is.
    """
    try:
        yield
    # libraries fail in every way on files that were made to make them fail
    except Exception as error:
        if isinstance(error, ValueError | OSError) and str(error).startswith("`checkpoint`"):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"`checkpoint` {path} cannot be read as {kind}: {said}; {remedy}."
        ) from error


def check_shape(name: str, shape: tuple[int, ...], itemsize: int, limit: float) -> None:
    """Checks the shape that a file claims for a tensor, before anything of its size is made.

    Raises:
      ValueError: no array has that shape, or it takes more than `limit` bytes.
    """
    size = itemsize
    for length in shape:
        size *= length
    if len(shape) > _MOST_AXES or any(length < 0 for length in shape):
        raise ValueError(f"`{name}` has a shape that no array has")
    if size > limit:
        raise ValueError(f"`{name}` is said to be {size} bytes, more than the file can hold")


def most_bytes(size: int) -> int:
    """Gives how many bytes a compressed file of `size` bytes may unpack to."""
    return max(_MOST_TIMES * size, _FREE_BYTES)


def check_members(path: Path, archive: zipfile.ZipFile, *, stored: bool = True) -> None:
    """Checks the members of a zip archive before one is read.

    Args:
      path: of the archive.
      archive: it, open.
      stored: whether its kind of file compresses nothing.

    Raises:
      ValueError: names that are twice there or lead out of it, or what unpacks to far more than
        there is.
    """
    size, seen, total = path.stat().st_size, set[str](), 0
    for info in archive.infolist():
        name = info.filename
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise ValueError(f"{name!a} leads out of the archive")
        if name in seen:
            raise ValueError(f"{name!a} is there twice")
        seen.add(name)
        if stored and (info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1):
            raise ValueError(f"{name!a} is compressed, which files of this kind never are")
        total += info.file_size
    # members that overlap are no more than the file only one by one
    if total > (size if stored else most_bytes(size)):
        raise ValueError(f"it would unpack to {total} bytes, far more than its {size}")
