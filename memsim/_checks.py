"""Checks of arguments, all in one form: the argument in backticks, its value, the remedy."""

import math
from typing import Any

import numpy as np


def check_choice(argument: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Checks that a value is one of a few.

    Raises:
      ValueError: it is another.
    """
    # True equals 1 and lists cannot be hashed: compare kinds and values one by one
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{argument}` is {value!r}; choose one of {listed}.")


def check_whole(argument: str, value: Any, low: int, high: float, remedy: str) -> None:
    """Checks that a value is a whole number within limits.

    Raises:
      ValueError: it is not.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise ValueError(f"`{argument}` is {value!r}; {remedy}.")


def check_number(argument: str, value: Any, low: float, high: float, remedy: str) -> None:
    """Checks that a value is a finite real number within limits, both included.

    Raises:
      ValueError: it is not.
    """
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"`{argument}` is {value!r}; {remedy}.")


def check_kind(argument: str, value: Any, kind: type | tuple[type, ...], remedy: str) -> None:
    """Checks that a value is of a kind: swapped arguments are named, not run into.

    Raises:
      TypeError: it is of another.
    """
    if not isinstance(value, kind):
        found = type(value).__name__
        article = "an" if found[:1].lower() in "aeiou" else "a"
        raise TypeError(f"`{argument}` is {article} {found}; {remedy}.")
