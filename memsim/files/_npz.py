"""The npz format: a zip archive of one `.npy` for each array.

NumPy stores bfloat16 and float8 as bytes without a meaning (`|V2`). Their names, and what a
safetensors file has as metadata, then stand in a member `memsim.json` of the archive:
`{"dtypes": {NAME: "bfloat16"}, "metadata": {"format": "pt"}}`. Without it such bytes are never
taken for numbers.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from memsim.files._dtypes import EXTENDED, dtype_named
from memsim.files._json import compact_json, parse_json
from memsim.files._opening import Checkpoint, as_checkpoint, check_members, in_memory
from memsim.files.raw import RawTensor

_BESIDE = "memsim.json"
_BROKEN = (
    ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError,
    OverflowError, SyntaxError, TypeError,
)  # fmt: skip


class Archive(NamedTuple):
    """The tensors and texts of an npz.

    Attributes:
      tensors: by name.
      metadata: texts by name.
    """

    tensors: dict[str, np.ndarray | RawTensor]
    metadata: dict[str, str]


def open_file(path: Path) -> Checkpoint:
    """Opens an npz: reads it at once, and checks it all."""
    arrays, metadata = read_file(path)
    return as_checkpoint({name: in_memory(x) for name, x in arrays.items()}, metadata=metadata)


def read_file(path: Path) -> Archive:
    """Reads an npz at once; numbers of either byte order come as this machine has them.

    Raises:
      ValueError: it is truncated, no npz, holds pickled objects, two arrays of a name, or
        something that is no array.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            check_members(path, archive, stored=False)
            return _read_archive(archive)
    except _BROKEN as error:
        with path.open("rb") as file:
            pickled = "pickle" in str(error) or file.read(1) == b"\x80"
        what = (
            "holds pickled objects, which memsim never unpickles"
            if pickled
            else f"is truncated or not an npz file ({error})"
        )
        raise ValueError(
            f"`checkpoint` {path} {what}; save plain arrays with numpy.savez."
        ) from error


def _read_archive(archive: zipfile.ZipFile) -> Archive:
    tensors: dict[str, np.ndarray | RawTensor] = {}
    beside: object = {}
    # member by member: numpy.load would take one of two members of a name
    for info in archive.infolist():
        with archive.open(info) as member:
            if info.filename == _BESIDE:
                beside = parse_json(member.read())
            elif info.filename.endswith(".npy"):
                array = npy.read_array(member, allow_pickle=False)
                if member.read(1):  # to the end: only there the checksum is compared
                    raise ValueError(f"{info.filename!r} is longer than its array")
                tensors[info.filename.removesuffix(".npy")] = array
            elif not info.is_dir():
                raise ValueError(f"{info.filename!r} is no array")
    # the names of dtypes that NumPy lacks give bytes their meaning back
    dtypes, metadata = _read_beside(beside)
    for name, dtype in dtypes.items():
        tensors[name] = _with_dtype(name, tensors.get(name), dtype)
    return Archive({name: _native(array) for name, array in tensors.items()}, metadata)


def _read_beside(beside: object) -> tuple[dict[str, str], dict[str, str]]:
    """Reads (dtypes, metadata) of `memsim.json`."""
    if not isinstance(beside, dict) or not set(beside) <= {"dtypes", "metadata"}:
        raise ValueError(f"{_BESIDE} holds more than dtypes and metadata")
    found = [beside.get("dtypes", {}), beside.get("metadata", {})]
    for texts in found:
        if not isinstance(texts, dict) or not all(isinstance(x, str) for x in texts.values()):
            raise ValueError(f"{_BESIDE} holds something that is no text")
    return found[0], found[1]


def _with_dtype(name: str, array: np.ndarray | RawTensor | None, dtype: str) -> np.ndarray:
    """Gives bytes without a meaning the dtype that stands beside them."""
    if isinstance(array, np.ndarray) and dtype in EXTENDED and array.dtype.kind == "V":
        named = dtype_named(dtype)
        if array.dtype.names is None and array.dtype.itemsize == named.itemsize:
            return array.view(named)
    found = "missing" if array is None else f"{array.dtype}"
    raise ValueError(f"{_BESIDE} says that `{name}` is {dtype}, but it is {found}")


def _native(array: np.ndarray | RawTensor) -> np.ndarray | RawTensor:
    """Gives the array in this machine's byte order; extended floats, which JAX lacks, as they
    are.
    """
    if isinstance(array, RawTensor):
        return array
    # where long doubles are as wide as doubles, NumPy reads them as such
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        data = np.frombuffer(array.tobytes(), np.uint8)
        return RawTensor(array.dtype.str, array.shape, data)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def holds(tensor: np.ndarray | RawTensor) -> bool:
    """Says whether an npz holds a tensor exactly."""
    if isinstance(tensor, RawTensor):
        return tensor.stored[:1] in "<>=|"
    if tensor.dtype.name in EXTENDED:
        return True
    try:  # NumPy writes other dtypes than its own as bytes, or as something that it cannot read
        again: np.dtype = npy.descr_to_dtype(npy.dtype_to_descr(tensor.dtype))
    except (TypeError, ValueError):
        return False
    return again == tensor.dtype and not again.hasobject


def write_file(
    path: Path, tensors: Mapping[str, np.ndarray | RawTensor], metadata: Mapping[str, str]
) -> None:
    """Writes tensors that `holds`; the same ones give the same bytes at any time."""
    dtypes = {name: x.dtype.name for name, x in tensors.items() if x.dtype.name in EXTENDED}
    # numpy.savez is not used: it takes no array called `file`
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            if isinstance(tensor, RawTensor):
                array = tensor.data.view(tensor.stored).reshape(tensor.shape)
            elif name in dtypes:
                array = tensor.view(np.dtype((np.void, tensor.dtype.itemsize)))
            else:
                array = tensor
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
        # plain arrays make the file that numpy.savez makes
        if dtypes or metadata:
            beside = {"dtypes": dtypes, "metadata": dict(metadata)}
            archive.writestr(zipfile.ZipInfo(_BESIDE), compact_json(beside))
