"""Writes that may fail: how likely a pulse does what it should, and what its controller goes by."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from memsim._checks import check_choice, check_kind, check_number, is_known
from memsim.config import CrossbarConfig

__all__ = ["Controller", "Writing", "by_column", "check_writing", "never_fails"]

Controller = Literal["read", "blind"]

_NUMBERS = {
    "set_success": ("a probability lies in 0..1", 0.0, 1.0),
    "reset_success": ("a probability lies in 0..1", 0.0, 1.0),
    "set_pulses": ("give a number of pulses, at least 1", 1.0, 1e6),
    "reset_pulses": ("give a number of pulses, at least 1", 1.0, 1e6),
}


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=list(_NUMBERS), meta_fields=["controller"]
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing:
    """Writing of cells that may fail: a cell whose pulse fails stays as it is.

    A pytree: other numbers never recompile. Every number is one for all columns, or one for each
    column of a word, column 0 (low order) first; flag cells are written as the last column is.

    Attributes:
      set_success, reset_success: probability that a cell that is SET, or RESET, changes; drawn to
        20 binary digits, so that what is nearer to 0 or 1 than half a millionth is taken for it.
      set_pulses, reset_pulses: pulses that a cell is given for it, on average: 1 without feedback,
        more where they are verified.
      controller: `read`: a row is read first, and the cells that differ from the target are pulsed.
        `blind`: those are pulsed that the plan changes, as if nothing had ever failed (static).

    Raises:
      ValueError: a value outside its range or choices.

    >>> Writing(set_success=0.55, reset_success=0.55).controller
    'read'
    """

    set_success: float | tuple[float, ...] = 1.0
    reset_success: float | tuple[float, ...] = 1.0
    set_pulses: float | tuple[float, ...] = 1.0
    reset_pulses: float | tuple[float, ...] = 1.0
    controller: Controller = "read"

    def __post_init__(self) -> None:
        check_choice("controller", self.controller, ("read", "blind"))
        for name, (remedy, least, most) in _NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, list):  # cannot be hashed
                raise ValueError(f"`{name}` is {value!r}; give a number, or a tuple by column.")
            for one in value if isinstance(value, tuple) else (value,):
                # inside JAX any object may stand for a number
                if isinstance(one, numbers.Number | bool | str):
                    check_number(name, one, remedy, least, most)


def by_column(writing: Writing, name: str, config: CrossbarConfig) -> Float32[Array, " columns"]:
    """Gives one of the numbers of `writing` for every column of a word, flag cells last."""
    value = getattr(writing, name)
    if isinstance(value, tuple):
        value = jnp.stack([jnp.asarray(one, jnp.float32) for one in value])
    numbers = jnp.asarray(value, jnp.float32)
    if numbers.ndim and config.flags == "word":
        numbers = jnp.append(numbers, numbers[-1])
    return jnp.broadcast_to(numbers, (config.cells_per_word,))


def check_writing(writing: Writing | None, config: CrossbarConfig) -> None:
    """Checks that a writing has as many numbers as a word of `config` has columns.

    Raises:
      ValueError: it has not, a number is out of its range, or it is no writing.
    """
    check_kind("writing", writing, (Writing, type(None)), "give memsim.Writing(...), or None")
    columns = config.unflagged.cells_per_word
    for name, (remedy, least, most) in _NUMBERS.items() if writing is not None else ():
        value = getattr(writing, name)
        shape = (len(value),) if isinstance(value, tuple) else np.shape(value)
        if shape not in ((), (columns,)):
            raise ValueError(
                f"`{name}` of `writing` has {shape[-1]} numbers, but a word has {columns} columns; "
                "give one for each, or one for all."
            )
        if not isinstance(value, tuple) and shape and is_known(value):  # not checked when made
            for one in np.asarray(value):
                check_number(name, float(one), remedy, least, most)


def never_fails(writing: Writing | None) -> bool:
    """Says whether every pulse is known to succeed."""
    if writing is None:
        return True
    leaves = jax.tree.leaves((writing.set_success, writing.reset_success))
    return all(is_known(leaf) and bool(np.all(np.asarray(leaf) == 1)) for leaf in leaves)
