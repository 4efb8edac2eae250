"""The grid of a sweep: which crossbars, policies and stuck rates go together."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import memsim
from memsim.config import STUCKABLE


class Cell(NamedTuple):
    """One combination.

    Attributes:
      number: from 0, in the order of the grid.
      config: the crossbars.
      policy: how they are programmed.
      stuck_at: share of cells that are stuck, half of them at each level.
      read: whether chips differ by how their cells are read.
    """

    number: int
    config: memsim.CrossbarConfig
    policy: memsim.Policy
    stuck_at: float
    read: bool = False

    @property
    def drawn(self) -> bool:
        """Whether chips differ: by stuck cells, bit stucking or how their cells are read."""
        stucked = self.policy.low_columns > 0 and self.policy.reprogram < 1
        return self.stuck_at > 0 or stucked or self.read

    def __str__(self) -> str:
        config = self.config
        return (
            f"{config.bits} bits, {config.rows} rows, {config.encoding}, {self.policy}, "
            f"{100 * self.stuck_at:g} % stuck"
        )


def grid(
    bits: Sequence[int],
    rows: Sequence[int],
    encodings: Sequence[str],
    policies: Sequence[str],
    p: Sequence[float] = (),
    low: Sequence[int] = (),
    tolerances: Sequence[int] = (),
    stuck_at: Sequence[float] = (0.0,),
    crossbars: int | None = 1,
) -> list[Cell]:
    """Every combination once; whether memsim takes it shows when it is planned.

    Cells that share a placement follow each other.

    Args:
      policies: texts of `memsim.Policy.parse`.
      p, low: bit stucking of policies that take it and do not state their own; `low` 0 is none.
      tolerances: of `matched` that does not state its own.

    Raises:
      ValueError: a value that fits no combination; p without low.
    """
    if bool(p) != bool(low):
        raise ValueError(f"`p` is {list(p)} and `low` is {list(low)}; bit stucking takes both.")
    for rate in stuck_at:
        if not 0 <= rate <= 1:  # also refuses NaN
            raise ValueError(f"`stuck_at` is {rate}; a share lies in 0..1.")
    configs = [
        memsim.CrossbarConfig(rows=n, bits=b, encoding=encoding, crossbars=crossbars)
        for b, n, encoding in itertools.product(bits, rows, encodings)
    ]
    every = [
        policy
        for text in policies
        for policy in _variants(memsim.Policy.parse(text), p, low, tolerances)
    ]
    if tolerances and not any(policy.placement == "matched" for policy in every):
        raise ValueError(f"`tolerance` is {list(tolerances)}, but no policy is matched.")
    if p and not any(policy.placement in STUCKABLE for policy in every):
        raise ValueError(f"`p` is {list(p)}, but no policy takes bit stucking.")
    combinations = dict.fromkeys(itertools.product(configs, every, stuck_at))
    return [Cell(number, *combination) for number, combination in enumerate(combinations)]


def _variants(
    policy: memsim.Policy, p: Sequence[float], low: Sequence[int], tolerances: Sequence[int]
) -> list[memsim.Policy]:
    every = [policy]
    if policy.placement == "matched" and not policy.tolerance and tolerances:
        every = [dataclasses.replace(policy, tolerance=tolerance) for tolerance in tolerances]
    if policy.placement in STUCKABLE and not policy.low_columns and p:
        every = [
            # without stucked columns p says nothing
            dataclasses.replace(one, low_columns=n, reprogram=share if n else 1.0)
            for one, share, n in itertools.product(every, p, low)
        ]
    return every
