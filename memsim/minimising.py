"""The least writes, energy, time or wear within a budget of accuracy, over encodings too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import PyTree

from memsim._checks import check_choice, check_kind
from memsim.budgeting import Budget, Judge, Trial, budget
from memsim.config import ENCODINGS
from memsim.hardware.objectives import Objective
from memsim.hardware.parts import Hardware
from memsim.policies import Policy
from memsim.selection import Select

__all__ = ["Minimum", "minimise"]


class Minimum(NamedTuple):
    """The plan that `minimise` found.

    Attributes:
      best: the budget of the best encoding.
      encoding: that one.
      by_encoding: what was found in each.
      refused: why a network has no plan in an encoding, by encoding.
    """

    best: Budget
    encoding: str
    by_encoding: dict[str, Budget]
    refused: dict[str, str]


def minimise(
    params: PyTree,
    hardware: Hardware,
    judge: Judge,
    what: str = "energy",
    max_drop: float = 0.01,
    *,
    encodings: Sequence[str] = ENCODINGS,
    policy: Policy | None = None,
    select: Select | None = None,
    batch: int = 250,
    seed: int = 0,
    progress: Callable[[str, Trial], None] | None = None,
) -> Minimum:
    """Plans a network for the least of one thing whose accuracy stays within a budget.

    The search of `budget`, once for each encoding, on the arrays of the hardware: a word that is
    shorter to move may make up for more writes.

    Args:
      params: any pytree of arrays.
      hardware: arrays and prices.
      judge: how good a network is.
      what: `writes`, `energy`, `time` or `wear`, see `Objective`.
      max_drop: of the accuracy, a share of 1, against `params` themselves.
      encodings: to try.
      policy, select, batch, seed: see `budget`.
      progress: called with the encoding after every trial.

    Raises:
      ValueError: an encoding that there is not, or none; no encoding whose plan keeps to the
        budget; as `budget`.
    """
    check_kind("hardware", hardware, Hardware, "give what `memsim.hardware.read_hardware` returns")
    check_kind("encodings", encodings, (list, tuple), f"give some of {', '.join(ENCODINGS)}")
    for encoding in encodings:
        check_choice("encodings", encoding, ENCODINGS)
    if not encodings:
        raise ValueError("`encodings` is empty; give at least one.")
    found: dict[str, Budget] = {}
    refused: dict[str, str] = {}
    objectives: dict[str, Objective] = {}
    last: ValueError | None = None
    for encoding in dict.fromkeys(encodings):
        config = hardware.config(encoding=encoding)
        objective: Any = Objective(what=what, hardware=hardware.on(config))  # type: ignore[arg-type]

        def tell(trial: Trial, encoding: str = encoding) -> None:
            if progress:
                progress(encoding, trial)

        try:
            found[encoding] = budget(
                params, config, judge, max_drop, policy=policy, select=select, batch=batch,
                seed=seed, objective=objective, progress=tell,
            )  # fmt: skip
            objectives[encoding] = objective
        except ValueError as error:  # another encoding may do
            refused[encoding], last = str(error), error
    if not found:
        assert last is not None  # noqa: S101 - one was tried
        raise last
    best = min(found, key=lambda each: objectives[each](found[each].chosen.summary))
    return Minimum(found[best], best, found, refused)
