import math

import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import memsim

SIZES = [(1, 1), (1, 4), (7, 1), (7, 2), (7, 3), (7, 7), (7, 9), (8, 3), (9, 4), (5, None)]
MAKE = {
    "block": memsim.schedule.block_schedule,
    "interleaved": memsim.schedule.interleaved_schedule,
}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(("sections", "crossbars"), SIZES)
def test_every_section_goes_on_the_crossbar_of_the_definition(kind, sections, crossbars):
    schedule = MAKE[kind](sections, crossbars)
    config = memsim.CrossbarConfig(schedule=kind, crossbars=crossbars)
    steps = math.ceil(sections / (crossbars or sections))
    assert schedule.sections.shape == (steps, crossbars or sections)
    queues = [[] for _ in range(crossbars or sections)]
    for section in range(sections):
        queues[oracles.crossbar_of(section, sections, config)].append(section)
    for queue, column in zip(queues, schedule.sections.T, strict=True):
        idle = [sections] * (steps - len(queue))
        np.testing.assert_array_equal(column, queue + idle)


def test_a_policy_may_choose_the_crossbars():
    config = memsim.CrossbarConfig(crossbars=4)
    chosen = memsim.schedule.chosen_schedule(np.asarray([3, 0, 3, 1, 0]), config)
    np.testing.assert_array_equal(chosen.sections, [[1, 3, 5, 0], [4, 5, 5, 2]])
    for sections, crossbars in SIZES[:-1]:
        config = memsim.CrossbarConfig(crossbars=crossbars)
        block = memsim.schedule.block_schedule(sections, crossbars)
        again = memsim.schedule.chosen_schedule(block.slots % crossbars, config)
        for one, other in zip(block, again, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("crossbars", "of_all", "message"),
    [
        ([0, 4], 4, "not 0 to 3"),
        ([0, -1], 4, "not 0 to 3"),
        ([1, 1, 0], 4, "puts 2 of 3 sections on one of 4; give it at most 1"),
        ([0], None, "weight stationary"),
    ],
)
def test_crossbars_that_cannot_be_are_refused(crossbars, of_all, message):
    config = memsim.CrossbarConfig(crossbars=of_all)
    with pytest.raises(ValueError, match=message):
        memsim.schedule.chosen_schedule(np.asarray(crossbars), config)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(("sections", "crossbars"), SIZES)
def test_inverting_what_was_applied_gives_the_values_back(kind, sections, crossbars):
    schedule = MAKE[kind](sections, crossbars)
    values = jnp.arange(1, 1 + 3 * sections, dtype=jnp.int32).reshape(sections, 3)
    dealt = memsim.schedule.apply_schedule(values, schedule)
    assert dealt.shape == (*schedule.sections.shape, 3)
    np.testing.assert_array_equal(memsim.schedule.invert_schedule(dealt, schedule), values)
    np.testing.assert_array_equal(dealt[schedule.sections == sections], 0)
