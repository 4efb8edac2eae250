"""The draws of a chip's next pass, shown: which cells may change, and which pulses succeed."""

from __future__ import annotations

import functools

import jax
from jaxtyping import Array, UInt

from memsim._checks import check_kind
from memsim.chip import Chip
from memsim.config import CrossbarConfig
from memsim.network import check_chip, split, stucking_of
from memsim.planning import Plan
from memsim.programming import Stucking, draws_cells, enable_slots, success_slots
from memsim.schedule import Schedule, Slots, invert_schedule
from memsim.writing import Writing, check_writing

__all__ = ["enable_words", "success_words"]


def enable_words(plan: Plan, chip: Chip) -> dict[str, UInt[Array, "sections words"]]:
    """Gives the write-enable words of the chip's next pass: bit b is 1 where it may change.

    Returns:
      By layer, words [sections, physical_words], sections in programming order. Unused words,
      stuck-at cells and cells left alone by bit stucking are 0.

    Raises:
      ValueError: a chip that belongs to another network.
    """
    _check(plan, chip)
    layers = [plan.layers[name] for name in plan.names]
    stucking = stucking_of(layers, plan.config)
    enable = _enable_sections(
        plan.schedule, plan.slots, stucking, chip, plan.config, draws_cells(stucking)
    )
    return dict(zip(plan.names, split(enable, layers), strict=True))


@functools.partial(jax.jit, static_argnames=("config", "draws"))
def _enable_sections(
    schedule: Schedule,
    slots: Slots,
    stucking: Stucking,
    chip: Chip,
    config: CrossbarConfig,
    draws: bool,
) -> UInt[Array, "sections words"]:
    enable = enable_slots(slots, stucking, chip, chip.passes, config, draws)
    return invert_schedule(enable, schedule)


def success_words(
    plan: Plan, chip: Chip, writing: Writing
) -> dict[str, tuple[UInt[Array, "sections words"], UInt[Array, "sections words"]]]:
    """Gives the pulses of the chip's next pass that do what they should, wherever they are given.

    Returns:
      By layer, (set_ok, reset_ok), words [sections, physical_words] with all bits of a cell set of
      which a SET, or a RESET, would succeed; sections in programming order.

    Raises:
      ValueError: a chip that belongs to another network, or a `writing` of other columns.
    """
    _check(plan, chip)
    check_kind("writing", writing, Writing, "give memsim.Writing(...)")
    check_writing(writing, plan.config)
    layers = [plan.layers[name] for name in plan.names]
    drawn = _success_of_sections(plan.schedule, plan.slots, chip, writing, plan.config)
    set_ok, reset_ok = (split(words, layers) for words in drawn)
    return dict(zip(plan.names, zip(set_ok, reset_ok, strict=True), strict=True))


@functools.partial(jax.jit, static_argnames="config")
def _success_of_sections(
    schedule: Schedule, slots: Slots, chip: Chip, writing: Writing, config: CrossbarConfig
) -> tuple[UInt[Array, "sections words"], UInt[Array, "sections words"]]:
    success = success_slots(slots, chip, chip.passes, writing, config)
    return invert_schedule(success.sets, schedule), invert_schedule(success.resets, schedule)


def _check(plan: Plan, chip: Chip) -> None:
    check_kind("plan", plan, Plan, "give (plan, chip), the plan from `memsim.plan`")
    check_kind("chip", chip, Chip, "give one that `memsim.sample_chip` drew from a key")
    check_chip(plan, chip)
