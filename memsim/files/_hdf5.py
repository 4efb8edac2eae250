"""Files of HDF5, and the `.keras` archives that hold one: their datasets, by path."""

import contextlib
import functools
import io
import os
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from memsim.files._dtypes import dtype_named
from memsim.files._json import parse_json
from memsim.files._keras import Layers, layers_of
from memsim.files._opening import (
    Checkpoint,
    Stored,
    as_checkpoint,
    check_members,
    check_shape,
    most_bytes,
    need_library,
    refusing,
)

SUFFIXES = (".h5", ".hdf5")
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_KINDS = {".h5": "an HDF5 file", ".keras": "a .keras archive"}
_DEEPEST = 64  # groups within groups
_OPTIMIZERS = ("optimizer", "optimizer_weights")  # states of one, at the top of a file


def open_file(path: Path) -> Checkpoint:
    """Opens a file of HDF5, such as Keras writes; datasets are read when they are asked for.

    Nothing of the model is built. Which axes are outputs goes by the classes of its layers, where
    the file tells them.

    Raises:
      ValueError: it is truncated, no such file, has links, or data in other files.
    """
    return _open(path, ".h5")


def open_keras(path: Path) -> Checkpoint:
    """Opens a `.keras` archive, see `open_file`."""
    return _open(path, ".keras")


def _open(path: Path, suffix: str) -> Checkpoint:
    h5py = need_library("h5py", path)
    place = path.absolute()
    metadata: dict[str, str] = {}
    with refusing(path, _KINDS[suffix]), _file_of(h5py, path, suffix) as (file, config):
        text = config if config is not None else file.attrs.get("model_config")
        layers = layers_of(parse_json(text) if isinstance(text, str | bytes) else None)
        stored: dict[str, Stored] = {}
        reasons: dict[str, str] = {}
        layouts: dict[str, str] = {}
        first: dict[Any, str] = {}
        limit = most_bytes(path.stat().st_size)
        for name, dataset in _datasets(h5py, file, "", set()):
            # one dataset under several names is one tensor
            if (same := first.setdefault(_identity(h5py, dataset), name)) != name:
                metadata[name] = same
                continue
            dtype = _dtype(dataset)
            if dtype is None:
                continue
            _check_dataset(name, dataset, limit)
            load = functools.partial(_load, h5py, place, suffix, name, dtype)
            stored[name] = Stored(dataset.shape, dtype, load)
            if dataset.ndim > 1:
                _read_layer(layers, name, dataset, layouts, reasons)
    return as_checkpoint(stored, metadata=metadata, reasons=reasons, layouts=layouts)


def _read_layer(
    layers: Layers, name: str, dataset: Any, layouts: dict[str, str], reasons: dict[str, str]
) -> None:
    """Notes how the layer of a dataset multiplies by it, or why that is not known."""
    called = dataset.parent.attrs.get("name")
    layout = layers.layout(name, called if isinstance(called, str) else "", dataset.shape)
    if layout is not None:
        layouts[name] = layout
    elif "/vars/" in f"/{name}":
        reasons[name] = "the file does not tell what its layer does with it; --map 'RE=LAYOUT' does"


@contextlib.contextmanager
def _file_of(h5py: Any, path: Path, suffix: str) -> Iterator[tuple[Any, bytes | None]]:
    """Opens the file of HDF5, with the configuration that lies beside it in an archive."""
    if suffix != ".keras":
        with h5py.File(path, "r") as file:
            yield file, None
        return
    with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        check_members(path, archive)
        if not {_WEIGHTS, _CONFIG} <= set(archive.namelist()):
            raise ValueError(f"it has no {_WEIGHTS} or no {_CONFIG}")
        config = archive.read(_CONFIG)
        member = archive.getinfo(_WEIGHTS)
        # its bytes follow 30 others, its name and what is said beside it
        raw.seek(member.header_offset + 26)
        begin = member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
        with h5py.File(_Window(raw, begin, member.file_size), "r") as file:
            yield file, config


class _Window(io.RawIOBase):
    """Shows a part of a file as a file: a member of an archive that is not compressed."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self.file, self.begin, self.size, self.at = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.begin + self.at)
        data = self.file.read(min(len(buffer), max(self.size - self.at, 0)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def _datasets(h5py: Any, group: Any, prefix: str, above: set[Any]) -> Iterator[tuple[str, Any]]:
    """Goes through the datasets of a group and of those in it, links refused.

    Raises:
      ValueError: a link, or a group within itself.
    """
    identity = _identity(h5py, group)
    # a group that holds itself never ends, and one that is held twice doubles at every level
    if identity in above or prefix.count("/") > _DEEPEST:
        raise ValueError(f"{prefix.rstrip('/')!a} is a group that is there twice, or too deep")
    above.add(identity)
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!a} is a link to elsewhere, which memsim does not follow")
        if not prefix and key in _OPTIMIZERS:
            continue
        entry = group[key]
        if isinstance(entry, h5py.Group):
            yield from _datasets(h5py, entry, f"{name}/", above)
        elif isinstance(entry, h5py.Dataset):
            yield name, entry


def _identity(h5py: Any, entry: Any) -> Any:
    """Tells objects of a file apart."""
    info = h5py.h5o.get_info(entry.id)
    return info.fileno, info.addr


def _check_dataset(name: str, dataset: Any, limit: int) -> None:
    """Checks that a dataset lies in this file, and all of it.

    Raises:
      ValueError: it does not.
    """
    if dataset.shape is None:
        raise ValueError(f"{name!a} is a dataset without a shape")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name!a} has its data in other files, which memsim does not open")
    check_shape(name, dataset.shape, dataset.dtype.itemsize, limit)
    if dataset.size and not dataset.id.get_storage_size():
        raise ValueError(f"{name!a} has a shape, but no data")


def _dtype(dataset: Any) -> np.dtype | None:
    """Finds the dtype of a dataset; None where it holds texts or references."""
    dtype: np.dtype = dataset.dtype
    if dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16":  # as Keras says it
        return dtype_named("bfloat16")
    return None if dtype.hasobject else dtype.newbyteorder("=")


def _load(h5py: Any, path: Path, suffix: str, name: str, dtype: np.dtype) -> np.ndarray:
    with refusing(path, _KINDS[suffix]), _file_of(h5py, path, suffix) as (file, _):
        array = np.asarray(file[name][()])
        same_bits = array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize
        return array.view(dtype) if same_bits else array.astype(dtype, copy=False)


def replace_tensors(out: Path, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file like `source` with other weights."""
    h5py = need_library("h5py", source)
    if source.suffix != ".keras":
        shutil.copyfile(source, out)
        _put(h5py, out, tensors)
        return
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(out, "w") as copy:
        for info in archive.infolist():
            data = archive.read(info)
            if info.filename == _WEIGHTS:
                memory = io.BytesIO(data)
                _put(h5py, memory, tensors)
                data = memory.getvalue()
            copy.writestr(info, data)


def _put(h5py: Any, file: Path | io.BytesIO, tensors: Mapping[str, np.ndarray]) -> None:
    with h5py.File(file, "r+") as opened:
        for name, array in tensors.items():
            opened[name][...] = array
