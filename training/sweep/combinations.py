"""The combinations of a sweep: which crossbars, policies and stuck rates go together."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import memsim
from memsim.config import Encoding
from training import policies


class Combination(NamedTuple):
    """Crossbars, a policy and a stuck rate, on which many chips are measured.

    Attributes:
      number: from 0, in the order of the sweep.
      config: the crossbars.
      policy: how they are programmed.
      stuck_at: share of cells that are stuck, half of them at each level.
      readout: how chips are read; None for ideal cells and wires.
      writing: how writes fail, in words; None where none does.
    """

    number: int
    config: memsim.CrossbarConfig
    policy: memsim.Policy
    stuck_at: float
    readout: memsim.Readout | None = None
    writing: str | None = None

    @property
    def chips_differ(self) -> bool:
        """Says whether chips differ: by stuck cells, bit stucking, how they are written or read."""
        return policies.differ(self.policy, self.stuck_at, self.readout, self.read_writing())

    def read_writing(self) -> memsim.Writing | None:
        """Gives the writing of these crossbars; None where no write fails."""
        if self.writing is None:
            return None
        return memsim.cells.parse_writing(self.writing, self.config)

    def __str__(self) -> str:
        config = self.config
        columns = f"{config.columns} columns, " if config.columns else ""
        return (
            f"{config.bits} bits, {config.rows} rows, {columns}{config.encoding}, {self.policy}, "
            f"{100 * self.stuck_at:g} % stuck"
        )


def list_combinations(
    configs: Sequence[memsim.CrossbarConfig],
    wanted: Sequence[memsim.Policy],
    stuck_at: Sequence[float] = (0.0,),
    readout: memsim.Readout | None = None,
    writing: str | None = None,
) -> list[Combination]:
    """Lists every combination once; whether memsim takes it shows when it is planned.

    Combinations that share a placement follow each other.

    Raises:
      ValueError: a stuck rate that is no share.
    """
    for rate in stuck_at:
        if not 0 <= rate <= 1:  # also refuses NaN
            raise ValueError(f"`stuck_at` is {rate}; a share lies in 0..1.")
    every = dict.fromkeys(itertools.product(configs, wanted, stuck_at))
    return [Combination(number, *one, readout, writing) for number, one in enumerate(every)]


def list_configs(
    bits: Sequence[int],
    rows: Sequence[int],
    encodings: Sequence[Encoding],
    crossbars: int | None = 1,
    columns: Sequence[int | None] = (None,),
) -> list[memsim.CrossbarConfig]:
    """Lists crossbars of every size and encoding.

    Raises:
      ValueError: a value that no crossbar has.
    """
    return [
        memsim.CrossbarConfig(rows=n, columns=m, bits=b, encoding=encoding, crossbars=crossbars)
        for b, n, m, encoding in itertools.product(bits, rows, columns, encodings)
    ]


def list_policies(
    texts: Sequence[str],
    p: Sequence[float] = (),
    low: Sequence[int] = (),
    tolerances: Sequence[int] = (),
) -> list[memsim.Policy]:
    """Lists policies, with every value of the words that they take and do not state themselves.

    Args:
      texts: of `memsim.Policy.parse`.
      p, low: bit stucking; `low` 0 is none.
      tolerances: tolerance of the placement.

    Raises:
      ValueError: a text that is no policy; p without low; words that no policy takes.
    """
    if bool(p) != bool(low):
        raise ValueError(f"`p` is {list(p)} and `low` is {list(low)}; bit stucking takes both.")
    parsed = [memsim.Policy.parse(text) for text in texts]
    if tolerances and not any(policies.takes(policy, "tolerance") for policy in parsed):
        raise ValueError(
            f"`tolerance` is {list(tolerances)}, but no policy is matched or takes one otherwise."
        )
    if p and not any(policies.takes(policy, "low") for policy in parsed):
        raise ValueError(f"`p` is {list(p)}, but no policy takes bit stucking.")
    return [one for policy in parsed for one in _variants(policy, p, low, tolerances)]


def _variants(
    policy: memsim.Policy, p: Sequence[float], low: Sequence[int], tolerances: Sequence[int]
) -> list[memsim.Policy]:
    def varied(word: str) -> bool:
        return policies.takes(policy, word) and not policies.states(policy, word)

    every = [policy]
    if tolerances and varied("tolerance"):
        every = [policies.with_words(policy, tolerance=tolerance) for tolerance in tolerances]
    if p and varied("low"):
        every = [
            # without stucked columns p says nothing
            policies.with_words(one, low=n, p=share if n else 1.0)
            for one, share, n in itertools.product(every, p, low)
        ]
    return every
