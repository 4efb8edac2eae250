"""Works out what cells hold step after step, where pulses may fail too."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt

from memsim.codes import cell_changes, whole_cells
from memsim.config import CrossbarConfig


def program_words(
    target: UInt[Array, "steps *shape"],
    enable: UInt[Array, "steps *shape"],
    state: UInt[Array, "*shape"],
) -> UInt[Array, "steps *shape"]:
    """Works out the words held after each step: `(target & enable) | (previous & ~enable)`.

    Args:
      target: words to program.
      enable: bits that may change.
      state: words held before the first step.

    Returns:
      Achieved words, same shape and dtype as `target`.
    """
    # A prefix over (enable, value) pairs, in about sqrt(steps) blocks side by side: a loop over
    # every single step leaves a GPU idle. First what each block does as a whole, then the state
    # each block meets, then all blocks again from that state.
    steps = target.shape[0]
    if steps == 0:
        return target
    block = math.ceil(math.sqrt(steps))
    blocks = -(-steps // block)
    pad = [(0, blocks * block - steps)] + [(0, 0)] * state.ndim
    values = jnp.pad(target & enable, pad).reshape(blocks, block, *state.shape)
    enables = jnp.pad(enable, pad).reshape(blocks, block, *state.shape)

    def step(words: Array, index: Array) -> Array:
        return jnp.asarray(jax.lax.dynamic_index_in_dim(words, index, axis=1, keepdims=False))

    # what a block does to any state: bits it sets, bits it touches
    def compose(pair: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
        value, touched = pair
        enable = step(enables, index)
        return (step(values, index) | (value & ~enable), touched | enable), None

    # what each block meets
    def enter(held: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        value, touched = pair
        return value | (held & ~touched), held

    # what is held after every step
    def replay(held: Array, index: Array) -> tuple[Array, Array]:
        held = step(values, index) | (held & ~step(enables, index))
        return held, held

    indices = jnp.arange(block, dtype=jnp.int32)
    nothing = jnp.zeros((blocks, *state.shape), state.dtype)
    whole, _ = jax.lax.scan(compose, (nothing, nothing), indices)
    _, entered = jax.lax.scan(enter, state, whole)
    _, achieved = jax.lax.scan(replay, entered, indices)
    words: Array = achieved.swapaxes(0, 1).reshape(blocks * block, *state.shape)[:steps]
    return words


class Success(NamedTuple):
    """Cells whose SET, and whose RESET, would do what it should; words, all bits of such a cell."""

    sets: UInt[Array, "steps crossbars words"]
    resets: UInt[Array, "steps crossbars words"]


def program_failing(
    target: UInt[Array, "steps crossbars words"],
    enable: UInt[Array, "steps crossbars words"],
    state: UInt[Array, "crossbars words"],
    planned: UInt[Array, "crossbars words"] | None,
    success: Success,
    config: CrossbarConfig,
) -> tuple[Array, Array | None, tuple[Array, Array]]:
    """Programs steps of which some pulses fail.

    Args:
      target, enable, state: see `program_words`.
      planned: what a blind controller goes by; None if it reads each row first.
      success: of the pulses.

    Returns:
      (words, planned, pulsed): words held after each step; what a blind controller goes by
      afterwards; cells pulsed to SET and to RESET, as `cell_changes` gives them.
    """
    pulsed = None
    if planned is not None:
        # pulses go where something changes if nothing ever fails
        plan = program_words(target, enable, planned)
        pulsed = cell_changes(held_before(planned, plan), plan, config)
        enable = enable & whole_cells(pulsed[0] | pulsed[1], config)
        planned = plan[-1]
    words = _program_successful(target, enable, state, success, config)
    if pulsed is None:
        held = held_before(state, words)
        pulsed = cell_changes(held, (target & enable) | (held & ~enable), config)
    return words, planned, pulsed


def _program_successful(
    target: UInt[Array, "steps *shape"],
    enable: UInt[Array, "steps *shape"],
    state: UInt[Array, "*shape"],
    success: Success,
    config: CrossbarConfig,
) -> UInt[Array, "steps *shape"]:
    """Works out the words held after each step: cells rise, or fall, where that succeeds."""
    if config.cell_bits == 1:  # a cell that differs from a target of 1 rises
        ok = (target & success.sets) | (~target & success.resets)
        return program_words(target, enable & ok, state)

    # whether a cell of more levels rises is known when its turn has come
    def step(held: Array, given: tuple[Array, Array, Success]) -> tuple[Array, Array]:
        target, enable, success = given
        rising, falling = (whole_cells(x, config) for x in cell_changes(held, target, config))
        enable = enable & ((rising & success.sets) | (falling & success.resets))
        held = (target & enable) | (held & ~enable)
        return held, held

    words: Array = jax.lax.scan(step, state, (target, enable, success))[1]
    return words


def held_before(
    state: UInt[Array, "*shape"], words: UInt[Array, "steps *shape"]
) -> UInt[Array, "steps *shape"]:
    """Gives what was held before each step."""
    return jnp.concatenate([state[None], words[:-1]])
