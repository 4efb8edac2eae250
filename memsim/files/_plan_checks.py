"""The contents that a plan may have: its layers are checked when they are saved, and when they
are loaded.
"""

from collections.abc import Mapping

import numpy as np

from memsim.config import CrossbarConfig
from memsim.files.own import Part, check_part
from memsim.placement import check_one_input, mixes_outputs, used_mask
from memsim.planning import LayerPlan
from memsim.schedule import chosen_schedule
from memsim.selection import Matrix

# Every part of a layer but its placement, which has checks of its own, and the matrix, which is no
# array; those with a default may be missing.
PARTS = tuple(name for name in LayerPlan._fields if name not in ("matrix", "placement"))
OPTIONAL = frozenset(LayerPlan._field_defaults)
# Of the placement; its inverse follows from it.
PLACEMENT = ("weights", "used_rows", "used_words")


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


def check_placement(
    arrays: Mapping[str, np.ndarray], matrix: Matrix, config: CrossbarConfig
) -> np.ndarray:
    """Checks that a placement puts every weight in one word, from the first of its section on.

    Args:
      arrays: `weights`, `used_rows` and `used_words` of a `Placement`.

    Returns:
      The words in use, bool [sections, words].

    Raises:
      ValueError: another dtype or shape, weights missing or there twice, gaps, rows of several
        inputs.
    """
    weights, used_rows, used_words = (arrays[part] for part in PLACEMENT)
    size, words = matrix.inputs * matrix.outputs, config.words_per_row
    sections = weights.shape[0] if weights.ndim else 0
    check_part("weights", weights, Part(("int32",), (sections, config.words), 0, size))
    check_part("used_rows", used_rows, Part(("int32",), (sections,), 1, config.rows))
    check_part("used_words", used_words, Part(("int32",), (sections,), 1, words))
    # a section fills rows and words from 0 on; the others hold the number of weights
    used = used_mask(used_rows, used_words, config.rows, words)
    if (weights[~used] != size).any():
        raise ValueError(
            f"`weights` holds numbers other than {size} past `used_rows` or `used_words`"
        )
    placed = weights[used]
    # as many as there are, all below `size` and none missing: then none is there twice
    there = np.zeros(size + 1, bool)
    there[placed] = True
    if placed.size != size or there[size] or not there[:size].all():
        raise ValueError(f"`weights` does not hold each of {size} weights exactly once")
    if words > 1:
        check_one_input(weights, used, matrix.inputs, words)
    return used


def parts_of(matrix: Matrix, sections: int, config: CrossbarConfig) -> dict[str, Part]:
    """Lists what each part of a layer has to be."""
    shape, axes = _slice(matrix)
    scales = [n if axis in axes else 1 for axis, n in enumerate(shape)]
    float32 = np.finfo(np.float32)
    reach = config.max_code - config.min_code  # between the lowest code and the highest
    flags = config.words_per_row if config.flags == "section" else config.words
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
        "index_bits": Part(("float32", "float64"), (), 0, float(float32.max)),
        "analog_valid": Part(("bool",), (), 0, 1),
        "delta": Part(("int8", "int16"), (matrix.inputs * matrix.outputs,), -reach, reach),
        "correction": Part(("float32",), (matrix.outputs,), -reach, reach),
        "flips": Part((config.word_dtype.name,), (sections, flags), 0, sum(config.column_masks)),
        "offset": Part(("int32",), (), -reach, reach),
        "crossbars": Part(("int32",), (sections,), 0, (config.crossbars or 1) - 1),
        "negated": Part(("bool",), (sections, config.rows), 0, 1),
    }


def check_layer(matrix: Matrix, arrays: Mapping[str, np.ndarray], config: CrossbarConfig) -> None:
    """Checks all of a layer.

    Args:
      arrays: those of `PLACEMENT`, and its parts, by name.

    Raises:
      ValueError: a part of another dtype or shape, numbers outside their range, or parts that
        contradict each other.
    """
    check_matrix(matrix)
    used, weights = check_placement(arrays, matrix, config), arrays["weights"]
    for name, part in parts_of(matrix, len(weights), config).items():
        if name in arrays:
            check_part(name, arrays[name], part)
    if "crossbars" in arrays:
        chosen_schedule(arrays["crossbars"], config)
    if ("flips" in arrays) != (config.flags != "none"):
        raise ValueError(f"`flips` and the flag cells of the config ({config.flags}) go together")
    if "flips" in arrays:
        _check_flips(arrays["flips"], used, config)
    if arrays["analog_valid"]:
        mixed = mixes_outputs(weights, used, matrix.inputs, config.words_per_row)
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
