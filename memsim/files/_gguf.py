"""Files of GGUF (llama.cpp): texts and numbers, the place of every tensor, then the tensors.

The header is read here: the reader of the library `gguf` makes an object of every token of the
vocabulary, which takes seconds and hundreds of megabytes for a real one, and it believes counts.
What its numbers of types mean comes from the library.

References:
  https://github.com/ggml-org/ggml, docs/gguf.md.
"""

import functools
import math
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from memsim.files._dtypes import dtype_named
from memsim.files._opening import (
    Checkpoint,
    Stored,
    as_checkpoint,
    check_shape,
    need_library,
    refusing,
)
from memsim.files.raw import RawTensor

# types of values in the header: bytes of each; 8 is a text, 9 an array
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY, _UINT32 = 8, 9, 4

# what is not quantized, by its name in the library
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64",
          "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}  # fmt: skip

_TABLE = re.compile(r"(?<!patch)_embd(_norm)?\.weight$|token_types\.weight$|(^|[._])rope_")


class Place(NamedTuple):
    """The place of a tensor.

    Attributes:
      kind: its type, as the library calls it.
      shape: its elements along each axis; in the file the last axis comes first.
      begin, nbytes: its bytes in the file.
    """

    kind: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class _Header:
    """Reads a header value by value, within the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def number(self, form: str) -> int:
        """Reads one number, of a format of `struct`."""
        width = struct.calcsize(form)
        (number,) = struct.unpack(f"<{form}", self.bytes(width))
        return int(number)

    def bytes(self, count: int) -> bytes:
        """Reads so many bytes."""
        self.check(count)
        return self.file.read(count)

    def check(self, count: int) -> None:
        """Checks that there are so many bytes."""
        if count > self.size - self.file.tell():
            raise ValueError("its header is longer than the file")

    def text(self) -> str:
        """Reads a text."""
        return self.bytes(self.number("Q")).decode()

    def skip(self, kind: int, depth: int = 0) -> None:
        """Passes over a value of a type."""
        if kind == _TEXT:
            length = self.number("Q")
            self.check(length)
            self.file.seek(length, 1)
        elif kind == _ARRAY and depth < 4:
            inner, count = self.number("I"), self.number("Q")
            width = _WIDTHS.get(inner)
            # texts and arrays are 8 bytes at least
            self.check(count * (width or 8))
            if width:
                self.file.seek(count * width, 1)
            else:
                for _ in range(count):
                    self.skip(inner, depth + 1)
        elif kind in _WIDTHS:
            self.file.seek(_WIDTHS[kind], 1)
        else:
            raise ValueError(f"its header has a value of type {kind}")


def open_file(path: Path) -> Checkpoint:
    """Opens a file of GGUF: tensors that are not quantized are arrays, as `shape` in it reversed.

    Weights are [outputs, inputs], those of experts stacked. What is quantized stays digital.

    Raises:
      ValueError: it is truncated, of another version, or its header claims what cannot be.
    """
    places = read_places(path)
    stored: dict[str, Stored] = {}
    layouts: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, place in places.items():
        dtype = dtype_named(_PLAIN[place.kind]) if place.kind in _PLAIN else f"gguf:{place.kind}"
        stored[name] = Stored(
            place.shape, dtype, functools.partial(_load, path.absolute(), place, dtype)
        )
        if isinstance(dtype, str):
            reasons[name] = (
                f"quantized ({place.kind}): its blocks share scales; use a file of F32, F16 or BF16"
            )
        elif len(place.shape) > 1:
            layouts[name] = _read_as(name, place.shape)
    return as_checkpoint(stored, reasons=reasons, layouts=layouts)


def _read_as(name: str, shape: tuple[int, ...]) -> str:
    """Says how llama.cpp multiplies by a tensor, as its names go."""
    if _TABLE.search(name):
        return "digital"
    if "ssm_conv1d" in name or not name.endswith(".weight"):
        return "digital"  # a window for each channel; numbers beside matrices
    if "_exps." in name and len(shape) == 3:
        return "stacked-out-in"
    return "out-in" if len(shape) in (2, 4) else "out-in|stacked-out-in"


def _load(path: Path, place: Place, dtype: np.dtype | str) -> np.ndarray | RawTensor:
    # a page of the file is read when it is used
    data = np.memmap(path, np.uint8, "r", place.begin, (place.nbytes,)) if place.nbytes else b""
    numbers = np.array(np.frombuffer(data, np.uint8))
    if isinstance(dtype, str):
        return RawTensor(dtype, place.shape, numbers)
    return numbers.view(dtype).reshape(place.shape)


def read_places(path: Path) -> dict[str, Place]:
    """Reads the place of every tensor, by name.

    Raises:
      ValueError: see `open_file`.
    """
    library = need_library("gguf.constants", path)
    with refusing(path, "a GGUF file"), path.open("rb") as file:
        header = _Header(file, path.stat().st_size)
        if header.bytes(4) != b"GGUF":
            raise ValueError("it begins as no such file does")
        if (version := header.number("I")) not in (2, 3):
            raise ValueError(f"it is of version {version & 0xFFFF:#x}, and memsim reads 2 and 3")
        tensors, values = header.number("Q"), header.number("Q")
        alignment = 32
        # a value is 13 bytes at least, and a tensor 24
        header.check(13 * values + 24 * tensors)
        for _ in range(values):
            name, kind = header.text(), header.number("I")
            if name == "general.alignment" and kind == _UINT32:
                alignment = header.number("I")
                if alignment == 0 or alignment & (alignment - 1):
                    raise ValueError(f"its alignment is {alignment}, no power of two")
            else:
                header.skip(kind)
        found = [_read_info(header, library) for _ in range(tensors)]
        start = -(-file.tell() // alignment) * alignment
        places: dict[str, Place] = {}
        for name, place in found:
            if name in places:
                raise ValueError(f"`{name}` is there twice")
            places[name] = place._replace(begin=start + place.begin)
            if places[name].begin + place.nbytes > header.size:
                raise ValueError(f"`{name}` ends after the file")
        return places


def _read_info(header: _Header, library: Any) -> tuple[str, Place]:
    """Reads name, shape, type and offset of a tensor."""
    name = header.text()
    axes = header.number("I")
    if axes > 8:
        raise ValueError(f"`{name}` has {axes} axes")
    shape = tuple(header.number("Q") for _ in range(axes))[::-1]
    kind = library.GGMLQuantizationType(header.number("I"))
    block, width = library.GGML_QUANT_SIZES[kind]
    check_shape(name, shape, 1, block * header.size)
    if axes and shape[-1] % block:
        raise ValueError(f"`{name}` has rows of {shape[-1]} numbers, no whole blocks of {block}")
    return name, Place(kind.name, shape, header.number("Q"), math.prod(shape) // block * width)


def replace_tensors(out: Path, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file like `source`, with other weights in the places of its own."""
    places = read_places(source)
    shutil.copyfile(source, out)
    with out.open("r+b") as file:
        for name, array in tensors.items():
            file.seek(places[name].begin)
            file.write(np.ascontiguousarray(array).tobytes())
