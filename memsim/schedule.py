"""Schedules: which section goes on which crossbar at which step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped

from memsim._checks import check_array, check_kind, check_whole
from memsim.codes import AnyArray
from memsim.config import CrossbarConfig
from memsim.placement import Placement

__all__ = [
    "Schedule",
    "Slots",
    "apply_schedule",
    "block_schedule",
    "chosen_schedule",
    "interleaved_schedule",
    "invert_schedule",
    "layer_schedule",
    "network_schedule",
]


class Schedule(NamedTuple):
    """Sections dealt out over steps and crossbars, and the inverse.

    Attributes:
      sections: int32 [steps, crossbars], the section programmed there; an idle crossbar holds the
        number of sections, one past the last index.
      slots: int32 [sections], the inverse: `step * crossbars + crossbar` of each section.
    """

    sections: Int32[AnyArray, "steps crossbars"]
    slots: Int32[AnyArray, " sections"]


def block_schedule(sections: int, crossbars: int | None) -> Schedule:
    """Keeps consecutive sections on one crossbar: section i goes on crossbar i // steps.

    Args:
      sections: sections of one layer.
      crossbars: physical crossbars; None gives every section its own (one step).
    """
    _check_sizes(sections, crossbars)
    crossbars = crossbars or sections
    steps = -(-sections // crossbars)
    section = np.arange(sections, dtype=np.int32)
    return _schedule(section % steps, section // steps, steps, crossbars)


def interleaved_schedule(sections: int, crossbars: int | None) -> Schedule:
    """Deals sections in turn: section i goes on crossbar i mod crossbars."""
    _check_sizes(sections, crossbars)
    crossbars = crossbars or sections
    steps = -(-sections // crossbars)
    section = np.arange(sections, dtype=np.int32)
    return _schedule(section // crossbars, section % crossbars, steps, crossbars)


def _check_sizes(sections: int, crossbars: int | None) -> None:
    """Checks sections and crossbars; both fit in 32 bits."""
    check_whole("sections", sections, "give a number from 1", 1, 2**31 - 1)
    if crossbars is not None:
        check_whole("crossbars", crossbars, "give a number from 1, or None", 1, 2**31 - 1)


def _schedule(step: np.ndarray, crossbar: np.ndarray, steps: int, crossbars: int) -> Schedule:
    slots = (step * crossbars + crossbar).astype(np.int32)
    sections = np.full(steps * crossbars, slots.size, np.int32)
    sections[slots] = np.arange(slots.size, dtype=np.int32)
    return Schedule(sections.reshape(steps, crossbars), slots)


def chosen_schedule(crossbars: np.ndarray, config: CrossbarConfig) -> Schedule:
    """Schedules the sections of one layer on the crossbars that a policy chose.

    Those of one crossbar follow in their order; there are no more steps than there must be.

    Args:
      crossbars: int32 [sections], the crossbar of each.

    Raises:
      ValueError: crossbars that there are not, or more sections on one than there are steps.
    """
    check_kind("config", config, CrossbarConfig)
    check_array("crossbars", crossbars, "integers", "[sections]", axes=1)
    sections, of_all = len(crossbars), config.crossbars
    _check_sizes(sections, of_all)
    if of_all is None:
        raise ValueError("`crossbars` are chosen, but weight stationary each section has its own.")
    if crossbars.min() < 0 or crossbars.max() >= of_all:
        raise ValueError(f"`crossbars` has numbers that are not 0 to {of_all - 1}.")
    # the step of a section: how many are before it on its crossbar
    order = np.argsort(crossbars, kind="stable")
    in_order = crossbars[order]
    step = np.empty(sections, np.int64)
    step[order] = np.arange(sections) - np.searchsorted(in_order, in_order)
    steps = -(-sections // of_all)
    if step.max() >= steps:
        raise ValueError(
            f"`crossbars` puts {step.max() + 1} of {sections} sections on one of {of_all}; "
            f"give it at most {steps}."
        )
    return _schedule(step, crossbars.astype(np.int64), steps, of_all)


class Slots(NamedTuple):
    """The contents of each step on each crossbar; every field is int32 [steps, crossbars].

    Attributes:
      used_rows: rows the section uses; 0 where the crossbar idles.
      used_words: words it uses in each of these rows.
      layer: place of its layer in the natural order of names.
      section: its number within the layer.
    """

    used_rows: Int32[AnyArray, "steps crossbars"]
    used_words: Int32[AnyArray, "steps crossbars"]
    layer: Int32[AnyArray, "steps crossbars"]
    section: Int32[AnyArray, "steps crossbars"]


def layer_schedule(sections: int, config: CrossbarConfig) -> Schedule:
    """Schedules the sections of one layer, from crossbar 0, as `config.schedule` says."""
    check_kind("config", config, CrossbarConfig)
    make = block_schedule if config.schedule == "block" else interleaved_schedule
    return make(sections, config.crossbars)


def network_schedule(
    placements: Sequence[Placement],
    config: CrossbarConfig,
    first_layer: int = 0,
    crossbars: Sequence[AnyArray | None] | None = None,
) -> tuple[Schedule, Slots]:
    """Schedules consecutive layers, their sections numbered through; says what is in its slots.

    Layers follow one another in time, each from crossbar 0; if weight stationary
    (`config.crossbars` is None) they sit side by side.

    Args:
      placements: of each layer.
      first_layer: layers of the network before these.
      crossbars: of each layer those of its sections, where the policy chose them; None where not.

    Raises:
      ValueError: an argument of another kind; crossbars that cannot be.
    """
    check_kind("config", config, CrossbarConfig)
    check_whole("first_layer", first_layer, "count layers from 0", 0, 2**31 - 1)
    check_kind("placements", placements, (list, tuple), "give a list, one of each layer")
    for one in placements:
        check_kind("placements", one, Placement, "give the Placement of each layer")
    sizes = [one.used_rows.shape[0] for one in placements]
    total = sum(sizes)
    # sections are numbered through; each layer starts at crossbar 0
    parts, first = [], 0
    for size, chosen in zip(sizes, crossbars or [None] * len(sizes), strict=True):
        if chosen is None:
            part = layer_schedule(size, config).sections
        else:
            part = chosen_schedule(np.asarray(chosen), config).sections
        parts.append(np.where(part < size, part + first, total))
        first += size
    sections = np.concatenate(parts, axis=1 if config.crossbars is None else 0).astype(np.int32)
    slots = np.empty(total + 1, np.int32)  # the one more catches the idle slots
    slots[sections.reshape(-1)] = np.arange(sections.size, dtype=np.int32)

    def in_slots(of_layers: Sequence[AnyArray]) -> np.ndarray:
        return np.concatenate([*of_layers, [0]]).astype(np.int32)[sections]

    numbers = range(first_layer, first_layer + len(sizes))
    return Schedule(sections, slots[:total]), Slots(
        used_rows=in_slots([one.used_rows for one in placements]),
        used_words=in_slots([one.used_words for one in placements]),
        layer=in_slots([np.full(size, i) for i, size in zip(numbers, sizes, strict=True)]),
        section=in_slots([np.arange(size) for size in sizes]),
    )


def apply_schedule(
    values: Shaped[Array, "sections ..."], schedule: Schedule
) -> Shaped[Array, "steps crossbars ..."]:
    """Puts values of each section at its step and crossbar; idle slots hold 0."""
    check_array("values", values, "numbers")
    check_kind("schedule", schedule, Schedule)
    if values.shape[:1] != schedule.slots.shape:
        raise ValueError(
            f"`values` has shape {values.shape}; `schedule` has {schedule.slots.shape[0]} sections."
        )
    return values.at[jnp.asarray(schedule.sections)].get(mode="fill", fill_value=0)


def invert_schedule(
    values: Shaped[Array, "steps crossbars ..."], schedule: Schedule
) -> Shaped[Array, "sections ..."]:
    """Undoes `apply_schedule`."""
    check_array("values", values, "numbers")
    check_kind("schedule", schedule, Schedule)
    if values.shape[:2] != schedule.sections.shape:
        raise ValueError(f"`values` has shape {values.shape}; give {schedule.sections.shape}, ...")
    return values.reshape(-1, *values.shape[2:])[jnp.asarray(schedule.slots)]
