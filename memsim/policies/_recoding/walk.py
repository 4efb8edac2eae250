"""Tables for a walk over the sections of a layer, in the order they are programmed."""

import functools

import jax.numpy as jnp
import numpy as np

from memsim.codes import AnyArray, encode
from memsim.config import CrossbarConfig
from memsim.schedule import layer_schedule


def scheduled(
    sections: int, held: np.ndarray | None, config: CrossbarConfig
) -> tuple[AnyArray, np.ndarray]:
    """Gives the sections of each step [steps, crossbars], and a copy of what is held, int32.

    A word and its flag take 31 bits at most.
    """
    # a layer by itself starts at crossbar 0, as in the schedule of the network
    steps = layer_schedule(sections, config).sections
    erased = np.zeros((steps.shape[1], config.physical_words), np.int32)
    return steps, erased if held is None else held.astype(np.int32)


@functools.cache
def words_of_codes(config: CrossbarConfig) -> np.ndarray:
    """Lists, int32 [codes], the word of the code `config.min_code + i`."""
    codes = np.arange(config.min_code, config.max_code + 1, dtype=np.int32)
    return np.asarray(encode(jnp.asarray(codes), config)).astype(np.int32)
