"""Which weight sits in which (section, row). Offline, on the host, once per layer."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped

from memsim.codes import AnyArray
from memsim.config import COMPETITORS, CrossbarConfig, Policy


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
    """Output by output; within an output section by section, inputs in their own order.

    Args:
      outputs, inputs: shape of the weight matrix.
      rows: weights per section.
    """
    order = np.arange(outputs * inputs).reshape(outputs, inputs)
    return _section(order, rows, section_major=False)


def sorted_placement(codes: np.ndarray, rows: int, scope: str = "output") -> Placement:
    """Sorted weight sectioning: similar weights share a section, similar sections are neighbours.

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
    if scope not in ("output", "layer"):
        raise ValueError(f"`scope` is {scope!r}; choose 'output' or 'layer'.")
    groups = codes if scope == "output" else codes.reshape(1, -1)
    # NumPy's stable sort of integers up to 16 bits is a radix sort
    order = np.argsort(groups, axis=1, kind="stable")
    order += np.arange(groups.shape[0])[:, None] * groups.shape[1]
    return _section(order, rows, section_major=True)


def _section(order: np.ndarray, rows: int, section_major: bool) -> Placement:
    """Cuts each line of `order` [groups, members], the weights of one group, into sections."""
    groups, members = order.shape
    per_group = -(-members // rows)
    weights = np.full((groups, per_group * rows), order.size, np.int32)
    weights[:, :members] = order
    used_rows = np.full((groups, per_group), rows, np.int32)
    used_rows[:, -1] = members - (per_group - 1) * rows
    slots = np.arange(weights.size, dtype=np.int32)
    sections = weights.reshape(groups, per_group, rows)
    if section_major:
        sections, used_rows = sections.swapaxes(0, 1), used_rows.swapaxes(0, 1)
        by_group = slots.reshape(per_group, groups, rows).swapaxes(0, 1)
    else:
        by_group = slots.reshape(groups, per_group, rows)
    positions = np.empty(order.size, np.int32)
    positions[order] = by_group.reshape(groups, -1)[:, :members]
    return Placement(sections.reshape(-1, rows), positions, used_rows.reshape(-1))


def inverse_positions(weights: np.ndarray, size: int) -> np.ndarray:
    """`Placement.positions` of `Placement.weights` [sections, rows] alone."""
    positions = np.empty(size + 1, np.int32)  # the one more catches the unused rows
    positions[weights.reshape(-1)] = np.arange(weights.size, dtype=np.int32)
    return positions[:size]


def place(policy: Policy, config: CrossbarConfig, codes: np.ndarray) -> Placement:
    """The placement `policy` gives a layer with these codes, signed integers [outputs, inputs]."""
    if policy.placement in ("unsorted", *COMPETITORS):
        outputs, inputs = codes.shape
        return unsorted_placement(outputs, inputs, config.rows)
    scope = "output" if policy.placement == "sws" else "layer"
    return sorted_placement(codes, config.rows, scope)


def index_bits(policy: Policy, config: CrossbarConfig, inputs: int, outputs: int) -> float:
    """Bits of routing memory per weight that tell each input which row it goes to.

    For `matched` with the order of the outputs, one number of ceil(log2 outputs) bits per output,
    and their corrections, 16 bits per output. For `flip-n-write` its flag cells per weight, for
    `aras` an offset of bits + 1 bits per layer.
    """
    if policy.placement == "aras":
        return (config.bits + 1) / (inputs * outputs)
    if policy.placement == "flip-n-write":
        columns = policy.stored_on(config).columns
        return 1 if policy.flags == "word" else columns * -(-inputs // config.rows) / inputs
    pool = min(config.rows, inputs) if policy.pool == "section" else inputs
    reach = {"unsorted": 1, "sws": inputs, "sws-layer": inputs * outputs, "matched": pool}
    per_output = (outputs - 1).bit_length() if policy.placement == "matched" else 0
    per_output += 16 if policy.correction == "mean" else 0
    return (reach[policy.placement] - 1).bit_length() + per_output / inputs


def apply_placement(
    values: Shaped[Array, " weights"], placement: Placement
) -> Shaped[Array, "sections rows"]:
    """Values of a layer's weights, in the order of their indices, laid out in sections.

    Unused rows hold 0.
    """
    return values.at[jnp.asarray(placement.weights)].get(mode="fill", fill_value=0)


def invert_placement(
    sections: Shaped[Array, "sections rows"], placement: Placement
) -> Shaped[Array, " weights"]:
    """The inverse of `apply_placement`: one value per weight, in the order of their indices."""
    return sections.reshape(-1)[jnp.asarray(placement.positions)]
