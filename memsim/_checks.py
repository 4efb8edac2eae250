"""Checks of arguments, all in one form: the argument in backticks, its value, the remedy."""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key


def check_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    """Checks that a value is one of a few.

    Raises:
      ValueError: it is another.
    """
    # True equals 1, and lists cannot be hashed: kinds and values are compared one by one
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` is {value!r}; choose one of {listed}.")


def check_seed(seed: object) -> None:
    """Checks the seed of a key: JAX drops what is past 32 bits, so that two seeds draw the same.

    Raises:
      ValueError: no whole number of 32 bits.
    """
    check_whole("seed", seed, "give a whole number from 0, of 32 bits", 0, 2**32 - 1)


def check_number(
    name: str, value: object, remedy: str, least: float = -math.inf, most: float = math.inf
) -> None:
    """Checks a finite number within its bounds.

    Args:
      name: of the argument.
      value: what was given; a truth value or a text is no number.
      remedy: what to give instead.
      least, most: bounds, both allowed.

    Raises:
      ValueError: anything else.
    """
    # `True` is an integer to Python; NaN fails every comparison below
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type, operator]
        raise ValueError(f"`{name}` is {value!r}; {remedy}.")


def check_positive(name: str, value: object, remedy: str, most: float = math.inf) -> None:
    """Checks a finite number above zero, at most `most`."""
    check_number(name, value, remedy, math.nextafter(0.0, 1.0), most)


def check_whole(name: str, value: object, remedy: str, least: int, most: float = math.inf) -> None:
    """Checks a whole number of an integer type within its bounds.

    Raises:
      ValueError: anything else.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value <= most:  # type: ignore[operator]
        raise ValueError(f"`{name}` is {value!r}; {remedy}.")


def check_round(name: str, value: object, remedy: str, least: int, most: float = math.inf) -> None:
    """Checks a whole number within its bounds; 4.0 counts as whole."""
    check_number(name, value, remedy, least, most)
    # a value that got here is finite
    if value != int(value):  # type: ignore[call-overload]
        raise ValueError(f"`{name}` is {value!r}; {remedy}.")


def check_numbers(name: str, values: object, names: str) -> None:
    """Checks a tuple of finite numbers, one for each of `names`."""
    # lists cannot be hashed, and what holds them is static under `jit`
    count = len(names.split(", "))
    if not isinstance(values, tuple) or len(values) != count:
        raise ValueError(f"`{name}` is {values!r}; give a tuple of {count} numbers: {names}.")
    for value in values:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real or not math.isfinite(value):
            raise ValueError(f"`{name}` is {values!r}; give finite numbers: {names}.")


def check_kind(name: str, value: object, kind: type | tuple[type, ...], remedy: str = "") -> None:
    """Checks that an argument is of its kind: swapped arguments and dicts are named here.

    Raises:
      ValueError: an argument of another kind.
    """
    if not isinstance(value, kind):
        # a pytree may be pages long, and an array has lines
        text = " ".join(repr(value).split())
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        remedy = remedy or f"give a {getattr(kind, '__name__', kind)}"
        raise ValueError(f"`{name}` is a {type(value).__name__} ({shown}); {remedy}.")


_KINDS_OF_NUMBERS = {
    "numbers": (np.number, np.bool_),
    "integers": (np.integer,),
    "floating numbers": (np.floating,),
    "unsigned words": (np.unsignedinteger,),
    "truth values": (np.bool_,),
}


def check_array(
    name: str,
    value: object,
    kind: Literal["numbers", "integers", "floating numbers", "unsigned words", "truth values"],
    shape: str = "",
    axes: int | None = None,
) -> None:
    """Checks that an argument is an array of numbers of a kind; traced ones too.

    Args:
      name: of the argument.
      value: what was given; arrays of NumPy and JAX are looked at, nothing else is one.
      kind: of its numbers.
      shape: what its axes are, for the message.
      axes: how many they are, if that is known.

    Raises:
      ValueError: anything else.
    """
    of_shape = f" {shape}" if shape else ""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise ValueError(
            f"`{name}` is a {type(value).__name__}; give an array of {kind}{of_shape}."
        )
    right = any(jnp.issubdtype(value.dtype, one) for one in _KINDS_OF_NUMBERS[kind])
    if not right or (axes is not None and value.ndim != axes):
        raise ValueError(
            f"`{name}` is {value.dtype} {value.shape}; give an array of {kind}{of_shape}."
        )


def check_path(name: str, value: object) -> None:
    """Checks that an argument is the path of a file."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"`{name}` is a {type(value).__name__}; give the path of a file.")


def check_truth(name: str, value: object) -> None:
    """Checks that an argument is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` is a {type(value).__name__}; give True or False.")


def is_known(value: object) -> bool:
    """Says whether the numbers of an array can be looked at: outside `jit`, `grad`, `vmap`."""
    return not isinstance(value, jax.core.Tracer)


def as_key(name: str, key: object) -> Key[Array, ""]:
    """Makes sure of a random key, as JAX makes them today.

    Args:
      name: of the argument.
      key: from `jax.random.key`, or an old-style one from `jax.random.PRNGKey`, uint32 [2].

    Raises:
      ValueError: anything else, such as a seed, a chip or several keys.
    """
    # tracers of `jit` and `vmap` are arrays too, of one key each
    if isinstance(key, jax.Array) and key.shape == ():
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return key
    elif isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32 and key.ndim == 1:
        # the words of an old-style key, as many as the default implementation has
        with contextlib.suppress(TypeError, ValueError):  # words of another length are no key
            wrapped: Key[Array, ""] = jax.random.wrap_key_data(jnp.asarray(key))
            return wrapped
    shape = getattr(key, "shape", None)
    of_shape = f" of shape {shape}" if shape is not None else ""
    raise ValueError(
        f"`{name}` is a {type(key).__name__}{of_shape}; give one key, such as jax.random.key(0)."
    )
