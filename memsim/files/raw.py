"""Tensors that no weight matrix can be made of, kept byte for byte."""

import dataclasses
import math
from typing import NoReturn

import numpy as np

__all__ = ["RawTensor"]


@dataclasses.dataclass(frozen=True, eq=False)
class RawTensor:
    """Carries a tensor whose numbers memsim does not read from one file to another, unchanged.

    It has the `shape`, `ndim`, `size`, `nbytes` and `dtype` of an array, but its dtype is no
    floating one (`|V1`), so that it stays digital. A pytree takes it as one leaf.

    Attributes:
      stored: the dtype as the file calls it: `F4` or `F8_E8M0` in safetensors, `<f16` in npz,
        `gguf:Q4_K` in GGUF.
      shape: number of elements along each axis.
      data: uint8 [bytes], the elements as they lie in the file.
    """

    stored: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """`|V1`: bytes without a meaning."""
        return np.dtype("V1")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.data.nbytes

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        raise ValueError(
            f"a tensor of {self.stored} {list(self.shape)} is no array: memsim carries it from "
            "file to file without reading its numbers; leave it digital."
        )
