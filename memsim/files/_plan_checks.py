"""The contents that a plan may have: its layers are checked when they are saved, and when they
are loaded.
"""

from collections.abc import Mapping

import numpy as np

from memsim.config import CrossbarConfig
from memsim.files.own import Part, check_part
from memsim.planning import LayerPlan
from memsim.selection import Matrix

# Every part of a layer but its placement, which has checks of its own, and the matrix, which is no
# array; those with a default may be missing.
PARTS = tuple(name for name in LayerPlan._fields if name not in ("matrix", "placement"))
OPTIONAL = frozenset(LayerPlan._field_defaults)


def check_matrix(matrix: Matrix) -> None:
    """Checks that a weight matrix is one of its tensor.

    Raises:
      ValueError: axes or a place that the tensor does not have.
    """
    shape, axes = matrix.shape, (*matrix.axes, *matrix.stacked)
    # axes of the tensor, each once
    known = all(0 <= axis < len(shape) for axis in axes) and len(set(axes)) == len(axes)
    if not known or not matrix.axes or min(shape, default=0) < 1:
        stacked = f", stacked along {list(matrix.stacked)}," if matrix.stacked else ""
        raise ValueError(
            f"output axes {list(matrix.axes)} of a tensor {list(shape)}{stacked} make no matrix"
        )
    sizes = [shape[axis] for axis in matrix.stacked]
    places = len(matrix.index) == len(sizes)
    if not places or not all(0 <= i < n for i, n in zip(matrix.index, sizes, strict=True)):
        raise ValueError(f"index {list(matrix.index)} is no place along stacked axes of {sizes}")


def _slice(matrix: Matrix) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Gives (shape, output axes) of what the matrix takes of its tensor."""
    return matrix.slice_shape, matrix.slice_axes


def check_placement(weights: np.ndarray, used_rows: np.ndarray, matrix: Matrix, rows: int) -> None:
    """Checks that a placement puts every weight in one row, from row 0 of its section on.

    Args:
      weights, used_rows: see `Placement`.
      rows: of a crossbar.

    Raises:
      ValueError: another dtype or shape, weights missing or there twice, gaps.
    """
    size = matrix.inputs * matrix.outputs
    sections = weights.shape[0] if weights.ndim else 0
    check_part("weights", weights, Part(("int32",), (sections, rows), 0, size))
    check_part("used_rows", used_rows, Part(("int32",), (sections,), 1, rows))
    # a section fills rows from 0 on; the others hold the number of weights
    used = np.arange(rows) < used_rows[:, None]
    if (weights[~used] != size).any():
        raise ValueError(f"`weights` holds numbers other than {size} in rows past `used_rows`")
    placed = weights[used]
    # as many as there are, all below `size` and none missing: then none is there twice
    there = np.zeros(size + 1, bool)
    there[placed] = True
    if placed.size != size or there[size] or not there[:size].all():
        raise ValueError(f"`weights` does not hold each of {size} weights exactly once")


def parts_of(matrix: Matrix, sections: int, config: CrossbarConfig) -> dict[str, Part]:
    """Lists what each part of a layer has to be."""
    shape, axes = _slice(matrix)
    scales = [n if axis in axes else 1 for axis, n in enumerate(shape)]
    float32 = np.finfo(np.float32)
    reach = config.max_code - config.min_code  # between the lowest code and the highest
    flags = 1 if config.flags == "section" else config.rows
    return {
        # smaller ones are flushed to zero
        "scale": Part(
            ("float32",),
            tuple(scales) if config.scale_per == "output" else (),
            float(float32.tiny),
            float(float32.max),
        ),
        "low_columns": Part(("int32",), (), 0, config.bits),
        "reprogram": Part(("float32",), (), 0, 1),
        "fixed": Part(("bool",), (), 0, 1),
        "index_bits": Part(("float32",), (), 0, float(float32.max)),
        "analog_valid": Part(("bool",), (), 0, 1),
        "delta": Part(("int8", "int16"), (matrix.inputs * matrix.outputs,), -reach, reach),
        "correction": Part(("float32",), (matrix.outputs,), -reach, reach),
        "flips": Part((config.word_dtype.name,), (sections, flags), 0, sum(config.column_masks)),
        "offset": Part(("int32",), (), -reach, reach),
    }


def check_layer(matrix: Matrix, arrays: Mapping[str, np.ndarray], config: CrossbarConfig) -> None:
    """Checks all of a layer.

    Args:
      arrays: `weights` and `used_rows` of its placement, and its parts, by name.

    Raises:
      ValueError: a part of another dtype or shape, numbers outside their range, or parts that
        contradict each other.
    """
    check_matrix(matrix)
    weights, used_rows = arrays["weights"], arrays["used_rows"]
    check_placement(weights, used_rows, matrix, config.rows)
    for name, part in parts_of(matrix, len(used_rows), config).items():
        if name in arrays:
            check_part(name, arrays[name], part)
    if ("flips" in arrays) != (config.flags != "none"):
        raise ValueError(f"`flips` and the flag cells of the config ({config.flags}) go together")
    used = np.arange(config.rows) < used_rows[:, None]
    if "flips" in arrays:
        _check_flips(arrays["flips"], used, config)
    if arrays["analog_valid"]:
        # every row of a section holds a weight of the output that its first row holds one of
        outputs = weights // matrix.inputs
        mixed = ((outputs != outputs[:, :1]) & used).any()
        if mixed or config.flags == "word":
            raise ValueError("`analog_valid` is true of sections that mix outputs, or complements")


def _check_flips(flips: np.ndarray, used: np.ndarray, config: CrossbarConfig) -> None:
    """Checks that whole words, or whole columns, are complemented."""
    # a flag of a word complements all of it, one of a section a whole column
    if config.flags == "word":
        whole = sum(config.column_masks)
        good = (flips == 0) | ((flips == whole) & used)
    else:
        cells = [(flips & mask == 0) | (flips & mask == mask) for mask in config.column_masks]
        good = np.logical_and.reduce(cells)
    if not good.all():
        raise ValueError("`flips` complements parts of a word or of a cell, or unused rows")
