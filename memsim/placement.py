"""Places of weights: which one is in which (section, row). Offline, on the host, once per layer."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Shaped

from memsim._checks import check_array, check_kind, check_whole
from memsim.codes import AnyArray

__all__ = [
    "Placement",
    "apply_placement",
    "check_one_input",
    "check_one_output",
    "check_placement",
    "inverse_positions",
    "invert_placement",
    "mixes_outputs",
    "negate_rows",
    "sorted_placement",
    "unsorted_placement",
    "used_mask",
]

# Weights that are sorted at once: what that takes beside the placement stays small.
_SORTED_AT_ONCE = 2**21


# Arrays of NumPy or JAX: what comes in goes out.
Values = TypeVar("Values", Array, np.ndarray)


class Placement(NamedTuple):
    """A permutation of a layer's weights into sections, in programming order, and its inverse.

    Weight (input i, output o) of a matrix with n inputs has index `o * n + i`. The words of a
    section are numbered row by row: word `row * words_per_row + slot`. All words of a row are
    weights of one input.

    Attributes:
      weights: int32 [sections, words], the index of the weight in each word; an unused one holds
        the number of weights, one past the last index.
      positions: int32 [weights], the inverse: `section * words + word` of each weight.
      used_rows: int32 [sections], rows in use: 0..used_rows - 1.
      used_words: int32 [sections], words in use in each of these rows: 0..used_words - 1.
    """

    weights: Int32[AnyArray, "sections words"]
    positions: Int32[AnyArray, " weights"]
    used_rows: Int32[AnyArray, " sections"]
    used_words: Int32[AnyArray, " sections"]


def unsorted_placement(outputs: int, inputs: int, rows: int, words: int = 1) -> Placement:
    """Goes by groups of outputs, within a group section by section, inputs in their own order.

    Args:
      outputs, inputs: shape of the weight matrix.
      rows: of a crossbar.
      words: that stand side by side in a row, one of each output of a group.
    """
    check_whole("outputs", outputs, "give a number from 1", 1)
    check_whole("inputs", inputs, "give a number from 1", 1)
    _check_size(outputs * inputs)
    _check_section(outputs, inputs, rows, words)
    groups, per_group = -(-outputs // words), -(-inputs // rows)
    numbers = np.arange(outputs * inputs, dtype=np.int32).reshape(outputs, inputs)
    # the words of a row are one weight of each output of the group
    weights = np.full((groups, per_group * rows, words), numbers.size, np.int32)
    full = outputs // words
    grouped = numbers[: full * words].reshape(full, words, inputs)
    weights[:full, :inputs] = grouped.swapaxes(1, 2)
    weights[full:, :inputs, : outputs - full * words] = numbers[full * words :].T
    del numbers, grouped  # as large as the placement
    # a weight is in the row of its input, counted from the first of its group
    group, slot = np.divmod(np.arange(outputs, dtype=np.int32)[:, None], np.int32(words))
    positions = np.arange(inputs, dtype=np.int32) + group * (per_group * rows)
    positions *= np.int32(words)
    positions += slot
    used = _used(outputs, inputs, rows, words)
    return Placement(
        weights.reshape(-1, rows * words),
        positions.reshape(-1),
        *(of_group.reshape(-1) for of_group in used),
    )


def sorted_placement(
    codes: np.ndarray, rows: int, scope: str = "output", words: int = 1
) -> Placement:
    """Sorts weights: similar ones share a section, similar sections are neighbours.

    Args:
      codes: signed integers [outputs, inputs].
      rows: of a crossbar.
      scope: `output` sorts the inputs of each group of outputs by the sum of their codes
        (ascending, stable) and goes section-major; `layer` sorts all codes together, ties in
        output-major order, and is not analog-valid.
      words: that stand side by side in a row, one of each output of a group; 1 in scope `layer`.

    Raises:
      ValueError: another `scope`; words of a row in scope `layer`.

    References:
      Farias and Kung, arXiv 2410.21730, sorted weight sectioning.
    """
    check_array("codes", codes, "integers", "[outputs, inputs]", axes=2)
    outputs, inputs = codes.shape
    _check_section(outputs, inputs, rows, words)
    if not isinstance(scope, str) or scope not in ("output", "layer"):
        raise ValueError(f"`scope` is {scope!r}; choose 'output' or 'layer'.")
    if scope == "layer" and words > 1:
        raise ValueError(f"`words` is {words}; a row of scope 'layer' is one word wide.")
    if not codes.size:
        raise ValueError(f"`codes` has shape {codes.shape}; a layer has weights.")
    if scope == "layer":
        codes = codes.reshape(1, -1)
    sums = _group_sums(codes, words)
    groups, inputs = sums.shape
    size, per_group, section = codes.size, -(-inputs // rows), rows * words
    # section s of every group in turn; short ones are filled up with one past the last weight
    sections = np.full((per_group, groups, section), size, np.int32)
    positions = np.empty(groups * words * inputs, np.int32)
    step = max(1, _SORTED_AT_ONCE // (inputs * words))
    for first in range(0, groups, step):
        # NumPy's stable sort of integers up to 16 bits is a radix sort
        order = np.argsort(sums[first : first + step], axis=1, kind="stable")
        some = slice(first, first + len(order))
        numbers = np.arange(some.start, some.stop)[:, None]
        # numbers past the last weight are those of slots that a short group leaves
        outputs_of = numbers[:, :, None] * words + np.arange(words)
        index = order[:, :, None] + inputs * outputs_of
        weights = np.full((len(order), per_group * rows, words), size, np.int32)
        weights[:, :inputs] = np.minimum(index, size) if len(codes) % words else index
        sections[:, some] = weights.reshape(len(order), per_group, section).swapaxes(0, 1)
        starts = (np.arange(per_group) * groups + numbers) * section
        slots = starts.astype(np.int32)[:, :, None] + np.arange(section, dtype=np.int32)
        positions[index] = slots.reshape(weights.shape)[:, :inputs]
    used_rows, used_words = _used(len(codes), inputs, rows, words)
    return Placement(
        sections.reshape(-1, section),
        positions[:size],
        used_rows.T.reshape(-1),
        used_words.T.reshape(-1),
    )


def _group_sums(codes: np.ndarray, words: int) -> np.ndarray:
    """Sums the codes of every group of outputs, in the smallest dtype: [groups, inputs]."""
    if words == 1:
        return codes
    sums = np.add.reduceat(codes, np.arange(0, len(codes), words), axis=0, dtype=np.int32)
    most = max(-int(sums.min()), int(sums.max()))
    return sums.astype(np.min_scalar_type(-most - 1))


def _check_section(outputs: int, inputs: int, rows: int, words: int) -> None:
    """Checks the size of sections, and that those of a layer have 32-bit numbers."""
    check_whole("rows", rows, "give rows of a crossbar, from 1", 1)
    check_whole("words", words, "give words of a row, from 1", 1)
    filled = -(-outputs // words) * -(-inputs // rows) * rows * words
    if filled >= 2**31:
        raise ValueError(
            f"`rows` is {rows} and `words` {words}: the sections of the layer would have {filled} "
            "words, more than 2**31 - 1; give fewer."
        )


def _check_size(weights: int) -> None:
    """Checks that weights can be numbered in 32 bits."""
    if weights >= 2**31:
        raise ValueError(f"`outputs` * `inputs` is {weights}; give at most 2**31 - 1 weights.")


def _used(outputs: int, inputs: int, rows: int, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts used rows, and used words of each, of the sections of groups: [groups, sections]."""
    groups, per_group = -(-outputs // words), -(-inputs // rows)
    used_rows = np.full((groups, per_group), rows, np.int32)
    used_rows[:, -1] = inputs - (per_group - 1) * rows
    used_words = np.full((groups, per_group), words, np.int32)
    used_words[-1] = outputs - (groups - 1) * words
    return used_rows, used_words


def inverse_positions(weights: np.ndarray, size: int) -> np.ndarray:
    """Works out `Placement.positions` from `Placement.weights` [sections, words] alone."""
    positions = np.empty(size + 1, np.int32)  # the one more catches the unused words
    positions[weights.reshape(-1)] = np.arange(weights.size, dtype=np.int32)
    return positions[:size]


def apply_placement(
    values: Shaped[Array, " weights"], placement: Placement
) -> Shaped[Array, "sections words"]:
    """Lays out values of a layer's weights, in the order of their indices, in sections.

    Unused words hold 0.
    """
    check_array("values", values, "numbers", "[weights]", axes=1)
    check_kind("placement", placement, Placement)
    if values.shape != placement.positions.shape:
        raise ValueError(f"`values` has shape {values.shape}; give {placement.positions.shape}.")
    return values.at[jnp.asarray(placement.weights)].get(mode="fill", fill_value=0)


def invert_placement(
    sections: Shaped[Array, "sections words"], placement: Placement
) -> Shaped[Array, " weights"]:
    """Undoes `apply_placement`: gives one value per weight, in the order of their indices."""
    check_array("sections", sections, "numbers", "[sections, words]", axes=2)
    check_kind("placement", placement, Placement)
    if sections.shape != placement.weights.shape:
        raise ValueError(
            f"`sections` has shape {sections.shape}; `placement` fills {placement.weights.shape}."
        )
    return sections.reshape(-1)[jnp.asarray(placement.positions)]


def negate_rows(
    values: Shaped[Values, " weights"],
    negated: Bool[AnyArray, "sections rows"] | None,
    placement: Placement,
) -> Shaped[Values, " weights"]:
    """Changes the sign of the values whose weights sit in negated rows; done twice, undone.

    Args:
      values: signed numbers, in the order of the indices of weights; those of NumPy stay there.
      negated: the rows; None for none.

    Raises:
      ValueError: values or rows of another number than those of the placement.

    >>> import jax.numpy as jnp, numpy as np
    >>> placement = unsorted_placement(outputs=2, inputs=2, rows=2)
    >>> negated = np.asarray([[False, True], [False, False]])
    >>> negate_rows(jnp.asarray([1, 2, 3, 4]), negated, placement).tolist()
    [1, -2, 3, 4]
    """
    check_array("values", values, "numbers", "[weights]", axes=1)
    check_kind("placement", placement, Placement)
    if values.shape != placement.positions.shape:
        raise ValueError(
            f"`values` has shape {values.shape}; `placement` is of {placement.positions.shape}."
        )
    if negated is None:
        return values
    # a row is as many words of its section as go into one
    check_array("negated", negated, "truth values", "[sections, rows]", axes=2)
    sections, in_section = placement.weights.shape
    words = in_section // max(1, negated.shape[1])
    if negated.shape != (sections, in_section // max(1, words)):
        raise ValueError(
            f"`negated` has shape {negated.shape}; give a bool for every row of {sections} "
            f"sections of {in_section} words."
        )
    of_weight = negated.repeat(words, axis=1).reshape(-1)[placement.positions]
    signed: Values = values * (1 - 2 * of_weight.astype(values.dtype))
    return signed


def check_placement(placement: Placement, matrix: tuple[int, int], rows: int, words: int) -> None:
    """Checks that a placement is one: every weight of a layer in exactly one word; host arrays.

    Args:
      matrix: (inputs, outputs) of the layer.
      rows, words: of a crossbar, and of a row.

    Raises:
      ValueError: it is not, or the words of a row are not of one input.
    """
    inputs, outputs = matrix
    count = inputs * outputs
    weights, positions, used, across = (np.asarray(part) for part in placement)
    shape = (used.size, rows * words)
    what = f"`placement` of {count:,} weights"
    if (
        weights.shape != shape
        or positions.shape != (count,)
        or used.ndim != 1
        or across.shape != used.shape
    ):
        raise ValueError(
            f"{what} has weights {weights.shape}, positions {positions.shape}, used_rows "
            f"{used.shape} and used_words {across.shape}; give [sections, {rows * words}], "
            f"[{count}], [sections] and [sections]."
        )
    if any(part.dtype != np.int32 for part in (weights, positions, used, across)):
        raise ValueError(
            f"{what} is of {weights.dtype}, {positions.dtype}, {used.dtype} and {across.dtype}; "
            "give int32."
        )
    if used.size == 0 or any(
        part.min() < 1 or part.max() > most for part, most in ((used, rows), (across, words))
    ):
        raise ValueError(
            f"{what} uses rows that are not 1 to {rows} per section, or words that are not 1 to "
            f"{words} per row."
        )
    # rows 0 to k - 1 hold weights in words 0 to v - 1, the others the number one past the last
    filled = used_mask(used, across, rows, words)
    if np.count_nonzero(filled) != count:
        raise ValueError(f"{what} uses {np.count_nonzero(filled):,} words, not {count:,}.")
    if np.any(weights[~filled] != count):
        raise ValueError(
            f"{what} has unused words that do not hold {count}, one past the last weight."
        )
    placed = weights[filled]
    if placed.min() < 0 or placed.max() >= count or np.bincount(placed, minlength=count).max() > 1:
        raise ValueError(f"{what} is no permutation: a weight is missing, or in two words.")
    if not np.array_equal(positions[placed], np.flatnonzero(filled)):
        raise ValueError(f"{what} has positions that are not the inverse of its weights.")
    if words > 1:
        check_one_input(weights, filled, inputs, words)


def used_mask(used_rows: np.ndarray, used_words: np.ndarray, rows: int, words: int) -> np.ndarray:
    """Marks the words of sections that are in use: bool [sections, words]."""
    row = np.arange(rows, dtype=np.int32) < used_rows[:, None]
    slot = np.arange(words, dtype=np.int32) < used_words[:, None]
    marked: np.ndarray = (row[:, :, None] & slot[:, None]).reshape(len(used_rows), -1)
    return marked


def check_one_input(weights: np.ndarray, filled: np.ndarray, inputs: int, words: int) -> None:
    """Checks that the words of every row, which share its input, are weights of one.

    Raises:
      ValueError: they are not.
    """
    of_rows = (weights % inputs).reshape(len(weights), -1, words)
    differs = (of_rows != of_rows[:, :, :1]).reshape(weights.shape)
    if np.any(differs & filled):
        raise ValueError(
            "`placement` has rows whose words are weights of several inputs; they share the input "
            "of their row, so place whole rows."
        )


def check_one_output(placement: Placement, inputs: int, words: int, policy: object) -> None:
    """Checks that every slot of a section holds weights of one output only; host arrays.

    Raises:
      ValueError: one mixes outputs.
    """
    weights, _, used_rows, used_words = (np.asarray(part) for part in placement)
    filled = used_mask(used_rows, used_words, weights.shape[1] // words, words)
    if mixes_outputs(weights, filled, inputs, words):
        raise ValueError(
            f"`policy` {policy} says that it is analog-valid, but a section holds weights of "
            "several outputs in one column; place each output by itself, or let `analog_valid` "
            "say False."
        )


def mixes_outputs(weights: np.ndarray, filled: np.ndarray, inputs: int, words: int) -> bool:
    """Says whether a slot of a section holds weights of several outputs."""
    output = (weights // inputs).reshape(len(weights), -1, words)
    # every row of a slot against its first row
    return bool(np.any((output != output[:, :1]).reshape(weights.shape) & filled))
