"""Weight matrices: which slice of a tensor each one is, and the way there and back."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "Matrix",
    "Reading",
    "by_output",
    "from_output",
    "from_slices",
    "matrix_name",
    "slice_of",
    "slices",
    "tensor_name",
]

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A reading of a tensor as weight matrices: what a `select` may return.

    Attributes:
      axes: the output axes, in the order in which outputs are numbered.
      stacked: the axes along which independent matrices are stacked, one for each index (layers of
        a scan, experts). All other axes are inputs.

    >>> Reading(axes=(2,), stacked=(0,))  # six layers [6, inputs, outputs]
    Reading(axes=(2,), stacked=(0,))
    """

    axes: tuple[int, ...]
    stacked: tuple[int, ...] = ()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """One weight matrix of a tensor; static.

    Attributes:
      shape: the shape of the tensor.
      axes: its output axes, in the order in which outputs are numbered.
      stacked: the axes along which independent matrices are stacked; all others are inputs.
      index: the place of this matrix along `stacked`.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    stacked: tuple[int, ...] = ()
    index: tuple[int, ...] = ()

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return math.prod(self.shape[axis] for axis in self.axes)

    @property
    def inputs(self) -> int:
        """The number of inputs, which is that of the weights of each output."""
        return math.prod(self.shape[axis] for axis in self.input_axes)

    @property
    def input_axes(self) -> tuple[int, ...]:
        """The input axes of the tensor, in its own order."""
        others = {*self.axes, *self.stacked}
        return tuple(axis for axis in range(len(self.shape)) if axis not in others)

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """The shape of this matrix's slice of the tensor: `shape` without the stacked axes."""
        return tuple(size for axis, size in enumerate(self.shape) if axis not in self.stacked)

    @property
    def slice_axes(self) -> tuple[int, ...]:
        """The output axes of this matrix's slice of the tensor."""
        kept = [axis for axis in range(len(self.shape)) if axis not in self.stacked]
        return tuple(kept.index(axis) for axis in self.axes)


def slices(matrix: Matrix) -> list[Matrix]:
    """Gives all matrices of the tensor that `matrix` is one of, in the order of their indices."""
    sizes = [range(matrix.shape[axis]) for axis in matrix.stacked]
    return [dataclasses.replace(matrix, index=index) for index in itertools.product(*sizes)]


def matrix_name(tensor: str, index: tuple[int, ...] = ()) -> str:
    """Names a matrix after its tensor: `layers/mlp/kernel[3]`; a tensor of one keeps its name.

    >>> matrix_name("layers/mlp/kernel", (3, 1))
    'layers/mlp/kernel[3,1]'
    """
    return f"{tensor}[{','.join(map(str, index))}]" if index else tensor


def tensor_name(name: str, matrix: Matrix) -> str:
    """Names the tensor that holds a matrix: the inverse of `matrix_name`."""
    return name.removesuffix(matrix_name("", matrix.index)) if matrix.index else name


def slice_of(tensor: AnyArray, matrix: Matrix) -> AnyArray:
    """Takes the slice [*matrix.slice_shape] out of a tensor; all of it where nothing is stacked."""
    if not matrix.stacked:
        return tensor
    place = dict(zip(matrix.stacked, matrix.index, strict=True))
    return tensor[tuple(place.get(axis, slice(None)) for axis in range(tensor.ndim))]


def by_output(tensor: AnyArray, matrix: Matrix | tuple[int, ...]) -> AnyArray:
    """Lays a weight matrix out by output: [outputs, inputs], each in the tensor's own order.

    Args:
      tensor: the NumPy or JAX array [*matrix.shape] that holds the matrix.
      matrix: which one of its matrices, or the output axes of a tensor that is one matrix.
    """
    if isinstance(matrix, Matrix):
        tensor, axes = slice_of(tensor, matrix), matrix.slice_axes
    else:
        axes = matrix
    inputs = [axis for axis in range(tensor.ndim) if axis not in axes]
    outputs = math.prod(tensor.shape[axis] for axis in axes)
    return tensor.transpose(*axes, *inputs).reshape(outputs, -1)


def from_output(values: AnyArray, matrix: Matrix) -> AnyArray:
    """Gives [outputs, inputs], in any shape, back as a slice [*matrix.slice_shape] of the tensor.

    The inverse of `by_output`; where nothing is stacked the slice is the tensor.
    """
    order = (*matrix.axes, *matrix.input_axes)
    moved = values.reshape([matrix.shape[axis] for axis in order])
    return moved.transpose(_places(order))


def from_slices(parts: Sequence[AnyArray], matrix: Matrix) -> AnyArray:
    """Puts the slices of a tensor, in the order of `slices(matrix)`, back together.

    Args:
      parts: arrays [*matrix.slice_shape], all NumPy or all JAX.
      matrix: any of the tensor's matrices.

    Returns:
      The tensor [*matrix.shape].
    """
    if not matrix.stacked:
        return parts[0]
    library: Any = np if all(isinstance(part, np.ndarray) for part in parts) else jnp
    # the stacked axes come first: each axis goes back to where it was
    order = (*matrix.stacked, *sorted({*range(len(matrix.shape))} - {*matrix.stacked}))
    joined: AnyArray = library.stack(parts).reshape([matrix.shape[axis] for axis in order])
    return joined.transpose(_places(order))


def _places(order: tuple[int, ...]) -> list[int]:
    """Ranks axes, which may have gaps: where each of them, the lowest first, stands in `order`."""
    return sorted(range(len(order)), key=order.__getitem__)
