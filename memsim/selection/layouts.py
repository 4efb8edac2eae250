"""Layouts: what each axis of a tensor is, in words; from a text to a reading and back."""

import itertools
from typing import Literal, get_args

from memsim.selection.matrices import Matrix, Reading

__all__ = ["LAYOUTS", "Word", "describe", "layout_of", "read_layout"]

# A layout has a word for each axis, in order, joined by `-`.
Word = Literal[
    "in",  # inputs; where it is the only `in` it stands for one axis or more
    "out",  # outputs
    "heads",  # heads of attention, and
    "dim",  # features of a head: outputs where the layout has an `in`, else inputs
    "window",  # inputs: one axis or more, as many as the tensor has beyond the other words
    "stacked",  # independent matrices, one for each index
]
"""What one axis of a tensor is."""

LAYOUTS: dict[str, str] = {
    "out-in": "torch linear and convolutional layers [out, in, ...]",
    "in-out": "Flax, Keras and Haiku layers [..., in, out]; Conv1D of GPT-2",
    "in-out-window": "torch transposed convolutions [in, out, ...]",
    "window-out-in": "Keras and Haiku transposed convolutions [..., out, in]",
    "in-heads-dim": "query, key and value of Flax attention",
    "heads-dim-out": "output of Flax attention",
    "heads-in-dim": "query of Gemma",
    "stacked-out-in": "experts or layers, each [out, in, ...]",
    "stacked-in-out": "experts or layers of a scan, each [..., in, out]",
    "in-stacked-out": "layers of a scan along the second axis",
    "stacked-in-heads-dim": "query, key and value of the layers of a scan",
    "stacked-heads-in-dim": "key and value of Gemma",
    "stacked-stacked-in-out": "experts of the layers of a scan",
    "depthwise": "one matrix per channel: Keras [..., channels, multiplier], "
    "torch [channels, 1, ...], Flax [..., 1, channels]",
    "digital": "no weight matrix",
}
"""Layouts and what has them; others follow from the words."""


def read_layout(layout: str, name: str, shape: tuple[int, ...]) -> Reading | None:
    """Reads the layout of one tensor.

    Args:
      layout: a word for each axis, as `stacked-in-out`, or `depthwise`, or `digital`; see `Word`.
      name: of the tensor, for `depthwise` and for messages.
      shape: of the tensor.

    Returns:
      The reading; None for `digital`.

    Raises:
      ValueError: no layout, or one that does not fit the number of dimensions.

    >>> read_layout("out-in", "conv.weight", (16, 3, 5, 5))
    Reading(axes=(0,), stacked=())
    """
    if layout == "digital":
        return None
    words = layout.split("-") if layout != "depthwise" else _depthwise(name, shape)
    check_layout("-".join(words))
    # one word may stand for several axes
    growing = "window" if "window" in words else "in"
    if growing in words and words.count(growing) == 1 and not {"heads", "dim"} & {*words}:
        at = words.index(growing)
        words[at : at + 1] = [growing] * max(1, len(shape) - len(words) + 1)
    if len(words) != len(shape):
        raise ValueError(
            f"`map` reads `{name}` as {layout}, but its shape {shape} has {len(shape)} dimensions; "
            "give a word for each axis (command line: --map RE=LAYOUT)."
        )
    outputs = {"out", "heads", "dim"} if "in" in words else {"out"}
    axes = tuple(axis for axis, word in enumerate(words) if word in outputs)
    stacked = tuple(axis for axis, word in enumerate(words) if word == "stacked")
    return Reading(axes, stacked)


def may_fit(layout: str, dimensions: int) -> bool:
    """Tells whether a tensor of so many dimensions may be read so."""
    words = layout.split("-")
    return (
        layout == "digital"
        or len(words) == dimensions
        or (len(words) < dimensions and not {"heads", "dim"} & {*words})
    )


def check_layout(layout: str) -> None:
    """Checks that a text is a layout, for whatever number of dimensions.

    Raises:
      ValueError: it has another word, no output, or several windows.
    """
    if layout in ("digital", "depthwise"):
        return
    words = layout.split("-")
    unknown = [word for word in words if word not in get_args(Word)]
    no_output = "out" not in words and not ({"heads", "dim"} & {*words} and "in" in words)
    if unknown or no_output or words.count("window") > 1:
        raise ValueError(
            f"`map` has the layout {layout!r}; give a word for each axis of the tensor "
            f"({', '.join(get_args(Word))}), outputs among them and at most one window, as in "
            f"{', '.join(LAYOUTS)}."
        )


def _depthwise(name: str, shape: tuple[int, ...]) -> list[str]:
    """Gives the words of a depthwise kernel, whose axis of one input tells how it is stored."""
    window = ["in"] * (len(shape) - 2)
    if len(shape) < 3:
        words = []
    elif name.endswith("weight"):
        words = ["stacked", "out", *window] if shape[1] == 1 else []
    elif shape[-2] == 1:
        words = [*window, "out", "stacked"]
    else:
        words = [*window, "stacked", "out"]
    if not words:
        raise ValueError(
            f"`map` reads `{name}` as depthwise, but its shape is {shape}; that takes [..., "
            "channels, multiplier] or [channels, 1, ...], 3 dimensions or more (command line: "
            "--map RE=LAYOUT)."
        )
    return words


def layout_of(matrix: Matrix) -> str:
    """Says in words how the tensor of a matrix is read; `read_layout` gives the same back."""
    words = ["in"] * len(matrix.shape)
    # two output axes next to inputs are heads and their features
    names = ("heads", "dim") if len(matrix.axes) == 2 and matrix.input_axes else ()
    for axis, word in itertools.zip_longest(sorted(matrix.axes), names, fillvalue="out"):
        words[int(axis)] = word
    for axis in matrix.stacked:
        words[axis] = "stacked"
    if names:
        return "-".join(words)
    # neighbouring inputs share a word, where one word may stand for all of them
    runs = [(word, len(list(run))) for word, run in itertools.groupby(words)]
    inputs = [(count, i) for i, (word, count) in enumerate(runs) if word == "in"]
    short: list[str] = []
    for i, (word, count) in enumerate(runs):
        if (count, i) in inputs and len(inputs) == 1:
            short.append("in")
        elif (count, i) in inputs and (count, i) == max(inputs):
            short.append("window")
        else:
            short += [word] * count
    return "-".join(short)


def describe(matrix: Matrix) -> str:
    """Says how the tensor of a matrix is read, for people.

    >>> describe(Matrix(shape=(48, 144), axes=(1,)))
    '48 inputs x 144 outputs, in-out'
    """
    size = f"{_count(matrix.inputs, 'input')} x {_count(matrix.outputs, 'output')}"
    if matrix.stacked:
        number = 1
        for axis in matrix.stacked:
            number *= matrix.shape[axis]
        size = f"{number} x ({size})"
    return f"{size}, {layout_of(matrix)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
