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


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(("sections", "crossbars"), SIZES)
def test_inverting_what_was_applied_gives_the_values_back(kind, sections, crossbars):
    schedule = MAKE[kind](sections, crossbars)
    values = jnp.arange(1, 1 + 3 * sections, dtype=jnp.int32).reshape(sections, 3)
    dealt = memsim.schedule.apply_schedule(values, schedule)
    assert dealt.shape == (*schedule.sections.shape, 3)
    np.testing.assert_array_equal(memsim.schedule.invert_schedule(dealt, schedule), values)
    np.testing.assert_array_equal(dealt[schedule.sections == sections], 0)
