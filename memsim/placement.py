"""Places of weights: which one is in which (section, row). Offline, on the host, once per layer."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped

from memsim._checks import check_array, check_kind, check_whole
from memsim.codes import AnyArray

__all__ = [
    "Placement",
    "apply_placement",
    "check_one_output",
    "check_placement",
    "inverse_positions",
    "invert_placement",
    "sorted_placement",
    "unsorted_placement",
]


class Placement(NamedTuple):
    """A permutation of a layer's weights into sections, in programming order, and its inverse.

    Weight (input i, output o) of a matrix with n inputs has index `o * n + i`.

    Attributes:
      weights: int32 [sections, rows], the index of the weight in each row; an unused row (the end
        of a short section) holds the number of weights, one past the last index.
      positions: int32 [weights], the inverse: `section * rows + row` of each weight.
      used_rows: int32 [sections], weights in each section; they fill rows 0..used_rows - 1.
    """

    weights: Int32[AnyArray, "sections rows"]
    positions: Int32[AnyArray, " weights"]
    used_rows: Int32[AnyArray, " sections"]


def unsorted_placement(outputs: int, inputs: int, rows: int) -> Placement:
    """Goes output by output; within an output section by section, inputs in their own order.

    Args:
      outputs, inputs: shape of the weight matrix.
      rows: weights per section.
    """
    check_whole("outputs", outputs, "give a number from 1", 1)
    check_whole("inputs", inputs, "give a number from 1", 1)
    check_whole("rows", rows, "give weights per section, from 1", 1)
    _check_size(outputs * inputs)
    per_output = -(-inputs // rows)
    positions = np.arange(outputs * inputs, dtype=np.int32).reshape(outputs, inputs)
    weights = np.full((outputs, per_output * rows), positions.size, np.int32)
    weights[:, :inputs] = positions
    # every output before has skipped the unused rows of its last section
    positions += (per_output * rows - inputs) * np.arange(outputs, dtype=np.int32)[:, None]
    return Placement(
        weights.reshape(-1, rows),
        positions.reshape(-1),
        _used_rows(outputs, inputs, rows).reshape(-1),
    )


def sorted_placement(codes: np.ndarray, rows: int, scope: str = "output") -> Placement:
    """Sorts weights: similar ones share a section, similar sections are neighbours.

    Args:
      codes: signed integers [outputs, inputs].
      rows: weights per section.
      scope: `output` sorts each output (ascending, stable) and goes section-major; `layer` sorts
        all codes together, ties in output-major order, and is not analog-valid.

    Raises:
      ValueError: another `scope`.

    References:
      Farias and Kung, arXiv 2410.21730, sorted weight sectioning.
    """
    check_array("codes", codes, "integers", "[outputs, inputs]", axes=2)
    check_whole("rows", rows, "give weights per section, from 1", 1)
    if not isinstance(scope, str) or scope not in ("output", "layer"):
        raise ValueError(f"`scope` is {scope!r}; choose 'output' or 'layer'.")
    if not codes.size:
        raise ValueError(f"`codes` has shape {codes.shape}; a layer has weights.")
    groups = codes if scope == "output" else codes.reshape(1, -1)
    # NumPy's stable sort of integers up to 16 bits is a radix sort
    order = np.argsort(groups, axis=1, kind="stable")
    count, members = groups.shape
    order += members * np.arange(count)[:, None]
    # short sections are filled up with one past the last weight
    per_group = -(-members // rows)
    weights = np.full((count, per_group * rows), order.size, np.int32)
    weights[:, :members] = order
    # section s of every group in turn
    sections = weights.reshape(count, per_group, rows).swapaxes(0, 1)
    slots = np.arange(weights.size, dtype=np.int32).reshape(per_group, count, rows)
    positions = np.empty(order.size, np.int32)
    positions[order] = slots.swapaxes(0, 1).reshape(count, -1)[:, :members]
    return Placement(
        sections.reshape(-1, rows), positions, _used_rows(count, members, rows).T.reshape(-1)
    )


def _check_size(weights: int) -> None:
    """Checks that weights can be numbered in 32 bits."""
    if weights >= 2**31:
        raise ValueError(f"`outputs` * `inputs` is {weights}; give at most 2**31 - 1 weights.")


def _used_rows(groups: int, members: int, rows: int) -> np.ndarray:
    """Counts the used rows [groups, sections] of groups that are each cut into sections."""
    per_group = -(-members // rows)
    used_rows = np.full((groups, per_group), rows, np.int32)
    used_rows[:, -1] = members - (per_group - 1) * rows
    return used_rows


def inverse_positions(weights: np.ndarray, size: int) -> np.ndarray:
    """Works out `Placement.positions` from `Placement.weights` [sections, rows] alone."""
    positions = np.empty(size + 1, np.int32)  # the one more catches the unused rows
    positions[weights.reshape(-1)] = np.arange(weights.size, dtype=np.int32)
    return positions[:size]


def apply_placement(
    values: Shaped[Array, " weights"], placement: Placement
) -> Shaped[Array, "sections rows"]:
    """Lays out values of a layer's weights, in the order of their indices, in sections.

    Unused rows hold 0.
    """
    check_array("values", values, "numbers", "[weights]", axes=1)
    check_kind("placement", placement, Placement)
    if values.shape != placement.positions.shape:
        raise ValueError(f"`values` has shape {values.shape}; give {placement.positions.shape}.")
    return values.at[jnp.asarray(placement.weights)].get(mode="fill", fill_value=0)


def invert_placement(
    sections: Shaped[Array, "sections rows"], placement: Placement
) -> Shaped[Array, " weights"]:
    """Undoes `apply_placement`: gives one value per weight, in the order of their indices."""
    check_array("sections", sections, "numbers", "[sections, rows]", axes=2)
    check_kind("placement", placement, Placement)
    if sections.shape != placement.weights.shape:
        raise ValueError(
            f"`sections` has shape {sections.shape}; `placement` fills {placement.weights.shape}."
        )
    return sections.reshape(-1)[jnp.asarray(placement.positions)]


def check_placement(placement: Placement, inputs: int, outputs: int, rows: int) -> None:
    """Checks that a placement is one: every weight of a layer in exactly one row; host arrays.

    Raises:
      ValueError: it is not.
    """
    count = inputs * outputs
    weights, positions, used = (np.asarray(part) for part in placement)
    shape = (used.size, rows)
    what = f"`placement` of {count:,} weights"
    if weights.shape != shape or positions.shape != (count,) or used.ndim != 1:
        raise ValueError(
            f"{what} has weights {weights.shape}, positions {positions.shape} and used_rows "
            f"{used.shape}; give [sections, {rows}], [{count}] and [sections]."
        )
    if any(part.dtype != np.int32 for part in (weights, positions, used)):
        raise ValueError(
            f"{what} is of {weights.dtype}, {positions.dtype} and {used.dtype}; give int32."
        )
    if (
        used.size == 0
        or used.min() < 1
        or used.max() > rows
        or int(used.sum(dtype=np.int64)) != count
    ):
        raise ValueError(
            f"{what} uses rows that are not 1 to {rows} per section, {count:,} in all."
        )
    # rows 0 to k - 1 hold weights, the others the number one past the last
    filled = np.arange(rows, dtype=np.int32) < used[:, None]
    if np.any(weights[~filled] != count):
        raise ValueError(
            f"{what} has unused rows that do not hold {count}, one past the last weight."
        )
    placed = weights[filled]
    if placed.min() < 0 or placed.max() >= count or np.bincount(placed, minlength=count).max() > 1:
        raise ValueError(f"{what} is no permutation: a weight is missing, or in two rows.")
    if not np.array_equal(positions[placed], np.flatnonzero(filled)):
        raise ValueError(f"{what} has positions that are not the inverse of its weights.")


def check_one_output(placement: Placement, inputs: int, policy: object) -> None:
    """Checks that every section holds weights of one output only; host arrays.

    Raises:
      ValueError: one mixes outputs.
    """
    weights, used = np.asarray(placement.weights), np.asarray(placement.used_rows)
    filled = np.arange(weights.shape[1], dtype=np.int32) < used[:, None]
    output = weights // inputs
    if np.any((output != output[:, :1]) & filled):
        raise ValueError(
            f"`policy` {policy} says that it is analog-valid, but a section holds weights of "
            "several outputs; place each output by itself, or let `analog_valid` say False."
        )
