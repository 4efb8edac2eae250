"""The safetensors format: a header of JSON, then the bytes of every tensor.

Read and written here, not by the library of that name, which gives NumPy no tensor of the newer
dtypes and refuses files of dtypes that came after it: they must pass through unchanged.

References:
  https://github.com/huggingface/safetensors, section "Format".
"""

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from memsim.files._dtypes import SORTED, bytes_of, numpy_dtype, safetensors_code
from memsim.files._json import compact_json, parse_json
from memsim.files.raw import RawTensor

# bytes, of a hundred thousand tensors; the 100 MB of the format take a gigabyte to parse
_LONGEST_HEADER = 2**23
_MOST_AXES = 32  # arrays of more have no use, and JAX none of more than 64


class Entry(NamedTuple):
    """The place of a tensor in its file.

    Attributes:
      stored: its dtype, as the format calls it.
      shape: its elements along each axis.
      begin, end: its bytes in the file.
    """

    stored: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """The header of a file: its entries and texts.

    Attributes:
      entries: where each tensor lies, by name, names sorted.
      metadata: texts by name.
      stamp: tells whether the file is still the one whose header this is.
    """

    entries: dict[str, Entry]
    metadata: dict[str, str]
    stamp: tuple[int, ...]


def read_header(file: BinaryIO) -> Header:
    """Reads and checks the header of an open file.

    Raises:
      ValueError: it is truncated, no safetensors file, or its tensors overlap or leave gaps.
    """
    stamp = _stamp(file)
    size = stamp[0]
    # the length of the header comes first, then the header, then all tensors
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ValueError(f"{size} bytes are too few")
    (length,) = struct.unpack("<Q", prefix)
    # nothing is read by a length that the file cannot have
    if length > min(_LONGEST_HEADER, size - 8):
        raise ValueError(f"its header of {length} bytes is longer than the file, or too long")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise ValueError("its metadata is no JSON object of texts")
    entries = {name: _entry(name, header[name], 8 + length) for name in sorted(header)}
    # tensors follow each other without gap or overlap, to the very end
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.begin != end:
            raise ValueError(f"`{name}` begins at byte {entry.begin}, not at {end}")
        end = entry.end
    if end != size:
        raise ValueError(f"its tensors end at byte {end} of {size}")
    return Header(entries, metadata, stamp)


def _entry(name: str, value: object, start: int) -> Entry:
    """Checks what the header says of one tensor.

    Args:
      start: where the bytes of tensors begin in the file.

    Raises:
      ValueError: keys, types or numbers that the format does not allow.
    """
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"`{name}` needs a dtype, a shape and data_offsets, and nothing else")
    stored, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(stored, str):
        raise ValueError(f"`{name}` has a dtype that is no text")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"`{name}` has a shape or data_offsets that are no sizes")
    # begin and end are counted from the end of the header
    begin, end = offsets
    needed = bytes_of(stored, tuple(shape))
    span = 8  # NumPy takes no array of 2**63 bytes, even where an axis of 0 leaves none of them
    for length in shape:
        span *= max(length, 1)
    if len(shape) > _MOST_AXES or span >= 2**63:
        raise ValueError(f"`{name}` has a shape that no array has")
    if end < begin or (needed is not None and end - begin != needed):
        raise ValueError(f"`{name}` is {stored} {shape}, not {end - begin} bytes")
    return Entry(stored, tuple(shape), start + begin, start + end)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(x) is int and 0 <= x < 2**63 for x in value)


def _stamp(file: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def read_tensor(file: BinaryIO, entry: Entry) -> np.ndarray | RawTensor:
    """Reads one tensor of an open file; no other is in memory."""
    file.seek(entry.begin)
    data = np.fromfile(file, np.uint8, entry.end - entry.begin)
    if data.size != entry.end - entry.begin:
        raise ValueError("the file became shorter while it was read")
    dtype = numpy_dtype(entry.stored)
    # packed and unknown numbers stay as they are
    if dtype is None:
        return RawTensor(entry.stored, entry.shape, data)
    return data.view(dtype).reshape(entry.shape)


def load_tensor(path: Path, header: Header, name: str) -> np.ndarray | RawTensor:
    """Reads one tensor of a file whose header was read before.

    Raises:
      FileNotFoundError, ValueError: the file has gone, or changed, since.
    """
    with path.open("rb") as file:
        if _stamp(file) != header.stamp:
            raise ValueError(f"`checkpoint` {path} changed while it was open; open it again.")
        return read_tensor(file, header.entries[name])


def write_file(
    path: Path, tensors: Mapping[str, np.ndarray | RawTensor], metadata: Mapping[str, str]
) -> None:
    """Writes tensors that `code_of` knows, in the order and with the padding of the format."""
    codes = {name: code_of(tensor) for name, tensor in tensors.items()}
    # wide dtypes first, so that every tensor lies at a multiple of its item
    order = sorted(tensors, key=lambda name: (-_rank(codes[name]), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": codes[name],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = compact_json(header).encode()
    # spaces after the JSON let the tensors begin at a multiple of 8
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            tensor = tensors[name]
            if isinstance(tensor, RawTensor):
                tensor.data.tofile(file)
            else:
                little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
                np.ascontiguousarray(little).reshape(-1).view(np.uint8).tofile(file)


def code_of(tensor: np.ndarray | RawTensor) -> str | None:
    """Finds the dtype of safetensors that holds a tensor exactly; None if there is none."""
    if not isinstance(tensor, RawTensor):
        return safetensors_code(tensor.dtype)
    # what other kinds of file call their numbers (`gguf:Q4_K`) is no dtype of this one
    other = tensor.stored[:1] in "<>=|" or re.search(r"[:.]", tensor.stored)
    return None if other else tensor.stored


def _rank(code: str | None) -> int:
    return SORTED.index(code) if code in SORTED else -1
