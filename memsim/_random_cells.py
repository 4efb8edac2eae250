"""Random draws of cells, as words: many cells of one random number."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Key, UInt, UInt32

from memsim.codes import whole_cells, word_constant
from memsim.config import CrossbarConfig

# Bit stucking draws p to this many binary digits.
_DRAW_DIGITS = 16
# Pulses succeed with a probability of this many, the first of which every cell has of its own.
_SUCCESS_DIGITS, _OWN_DIGITS, _SHARED_BY = 20, 8, 8
_THREEFRY_TURNS = ((13, 15, 26, 6), (17, 29, 16, 24))


def bernoulli_cells(
    keys: Key[Array, "*shape"],
    probability: Float32[Array, "*shape"],
    mask: UInt[Array, "*shape"],
    config: CrossbarConfig,
) -> UInt[Array, "*shape words"]:
    """Draws cells of `config.physical_words` words per key; a drawn cell has all its bits set.

    Args:
      keys: one per section or crossbar; consumed.
      probability: of a cell to be drawn, rounded to `_DRAW_DIGITS` binary digits.
      mask: words, all bits of the cells that are wanted.
    """
    # Many cells per random word: from the last binary digit of p to the first, OR with random bits
    # where the digit is 1 and AND where it is 0. p = 1/2 takes one round, 1/4 two. The bits above
    # the wanted ones serve the digits before: three low columns of eight take two from a word.
    one = jnp.uint32(1 << _DRAW_DIGITS)
    threshold = jnp.round(probability * jnp.float32(1 << _DRAW_DIGITS)).astype(jnp.uint32)
    numerator = threshold | one  # 0 and 1 then need no round at all
    trailing_zeros = jax.lax.population_count((numerator & -numerator) - jnp.uint32(1))
    rounds = _DRAW_DIGITS - trailing_zeros.astype(jnp.int32)
    word_bits = 8 * config.word_dtype.itemsize
    width = jnp.maximum(word_bits - jax.lax.clz(mask).astype(jnp.int32), 1)
    per_word = word_bits // width
    most = jnp.max(-(-rounds // per_word))

    def add_word(number: Array, cells: Array) -> Array:
        from_last = jnp.asarray(most - 1 - number, jnp.int32)
        word = jnp.broadcast_to(_DRAW_DIGITS - 1 - from_last, keys.shape)
        random = _random_words(fold_in(keys, word), config.physical_words, config)

        def add_digit(number: Array, cells: Array) -> Array:
            part = jnp.max(parts) - 1 - number
            digit = (from_last * per_word + part).astype(jnp.uint32)  # 0 is the first
            is_one = (((threshold << digit) >> jnp.uint32(_DRAW_DIGITS - 1)) & 1)[..., None] == 1
            bits = random >> (width * part).astype(config.word_dtype)[..., None]
            added = jnp.where(is_one, cells | bits, cells & bits)
            return jnp.where((part < parts)[..., None], added, cells)

        parts = jnp.clip(rounds - from_last * per_word, 0, per_word)
        return jnp.asarray(jax.lax.fori_loop(0, jnp.max(parts), add_digit, cells))

    cells = jnp.zeros((*keys.shape, config.physical_words), config.word_dtype)
    cells = jax.lax.fori_loop(0, most, add_word, cells)
    cells = jnp.where((threshold == one)[..., None], ~jnp.zeros_like(cells), cells)
    lowest_bits = word_constant(sum(mask & -mask for mask in config.column_masks), config)
    wanted: Array = whole_cells(cells & lowest_bits, config) & mask[..., None]
    return wanted


def successful_cells(
    keys: Key[Array, "*shape"],
    set_success: Float32[Array, " columns"],
    reset_success: Float32[Array, " columns"],
    config: CrossbarConfig,
) -> tuple[UInt[Array, "*shape words"], UInt[Array, "*shape words"]]:
    """Draws the cells of which a SET, and of which a RESET, would do what it should.

    Args:
      keys: one per section; consumed.
      set_success, reset_success: probability by column, rounded to `_SUCCESS_DIGITS` binary digits.
      config: of the words.

    Returns:
      (set_ok, reset_ok): `config.physical_words` words per key, all bits of such a cell set.
    """
    # One uniform number a cell, compared with both probabilities. Binary digits of it are drawn
    # for many cells at once, from the last to the first: `ok` where the number is below, or where
    # the digit is the same and the digits after it are below. The first eight decide on all but
    # one cell in 256: eight words share the digits after them.
    per_lane = 4 // config.word_dtype.itemsize
    lanes = -(-config.physical_words // per_lane)  # of 32 bits each
    one = 1 << _SUCCESS_DIGITS
    success = jnp.stack([set_success, reset_success])
    thresholds = jnp.round(success * jnp.float32(one)).astype(jnp.uint32)

    def lanes_of(flags: Array) -> Array:  # of SET and of RESET, [2, columns], 0 or 1
        places = [(mask & -mask).bit_length() - 1 for mask in config.column_masks]
        bits = flags.astype(jnp.uint32) << np.asarray(places, np.uint32)[None]
        word = jax.lax.reduce_or(bits, axes=(1,))
        repeated = sum(1 << (lane * 32 // per_lane) for lane in range(per_lane))
        repeated_word: Array = word * jnp.uint32(repeated)
        return repeated_word.reshape(2, *[1] * (keys.ndim + 1))

    def add_two(number: Array, ok: Array, *, pairs: Array) -> Array:
        pair = pairs - 1 - number
        drawn = _threefry(seeds, jnp.asarray(pair, jnp.uint32), ok.shape[-1])
        for half in (1, 0):  # the later digit first
            shift = jnp.asarray(_SUCCESS_DIGITS - 1 - half - 2 * pair, jnp.uint32)
            digits = lanes_of((thresholds >> shift) & 1)
            below = ~drawn[half][None]
            ok = (digits & (ok | below)) | (ok & below)
        return ok

    seeds = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys.reshape(-1))
    seeds = seeds.reshape(*keys.shape, 2)
    # digits past the last 1 of all thresholds change nothing: a half takes one
    used = jax.lax.reduce_or(thresholds | jnp.uint32(one), axes=(0, 1))
    zeros = jax.lax.population_count((used & -used) - jnp.uint32(1)).astype(jnp.int32)
    pairs = (_SUCCESS_DIGITS - zeros + 1) // 2
    own = jnp.minimum(pairs, _OWN_DIGITS // 2)
    ok = jnp.zeros((2, *keys.shape, -(-lanes // _SHARED_BY)), jnp.uint32)
    ok = jax.lax.fori_loop(0, pairs - own, functools.partial(add_two, pairs=pairs), ok)
    ok = jnp.tile(ok, _SHARED_BY)[..., :lanes]
    ok = jax.lax.fori_loop(0, own, functools.partial(add_two, pairs=own), ok)
    ok = ok | lanes_of(thresholds == one)
    words = jax.lax.bitcast_convert_type(ok, config.word_dtype)
    words = words.reshape(2, *keys.shape, -1)[..., : config.physical_words]
    set_ok, reset_ok = whole_cells(words, config)
    return set_ok, reset_ok


def _threefry(
    seeds: UInt32[Array, "*shape 2"], counter: UInt32[Array, ""], count: int
) -> tuple[UInt32[Array, "*shape count"], UInt32[Array, "*shape count"]]:
    """Draws twice so many uniform numbers of 32 bits per seed, a function of seed and counter.

    Threefry-2x32 of 20 rounds, as in JAX, whose own is a loop of loops on a CPU: five times slower.

    References:
      Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
    """
    first, second = seeds[..., :1], seeds[..., 1:]
    key = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    place = jnp.arange(count, dtype=jnp.uint32).reshape(*[1] * (seeds.ndim - 1), count)
    x, y = place + key[0], jnp.broadcast_to(counter + key[1], (*seeds.shape[:-1], count))
    for block in range(5):
        for turn in _THREEFRY_TURNS[block % 2]:
            x = x + y
            y = ((y << jnp.uint32(turn)) | (y >> jnp.uint32(32 - turn))) ^ x
        x = x + key[(block + 1) % 3]
        y = y + key[(block + 2) % 3] + jnp.uint32(block + 1)
    return x, y


def fold_in(keys: Key[Array, "*shape"], data: Int32[Array, "*shape"]) -> Key[Array, "*shape"]:
    """Folds data into keys, `jax.random.fold_in`, elementwise."""
    return jax.vmap(jax.random.fold_in)(keys.reshape(-1), data.reshape(-1)).reshape(keys.shape)


def _random_words(
    keys: Key[Array, "*shape"], count: int, config: CrossbarConfig
) -> UInt[Array, "*shape words"]:
    """Draws uniform words, so many per key; 32 bits at a time, which costs a quarter."""
    per_draw = 4 // config.word_dtype.itemsize
    draws = -(-count // per_draw)

    def row(key: Key[Array, ""]) -> UInt32[Array, " draws"]:
        return jax.random.bits(key, (draws,), jnp.uint32)

    bits = jax.vmap(row)(keys.reshape(-1))
    words = jax.lax.bitcast_convert_type(bits, config.word_dtype)
    return words.reshape(*keys.shape, draws * per_draw)[..., :count]
