"""The policies of the published experiment, each under every way that cells are written."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import memsim


class Case(NamedTuple):
    """A policy, and the way that cells are written.

    Attributes:
      policy: how the network is programmed.
      writing: how writes fail; None where none does.
    """

    policy: memsim.Policy
    writing: memsim.Writing | None = None


def list_policies(
    shares: Sequence[float], low: Sequence[int], tolerances: Sequence[int], avoid: bool = False
) -> dict[str, memsim.Policy]:
    """Lists the policies of the experiment: those of the paper, others published, and our own.

    Args:
      shares, low: p and low columns of bit stucking.
      tolerances: of matched.
      avoid: also with stuck cells avoided.
    """
    names = ["unsorted", "flip-n-write", "flip-n-write:flags=section", "aras"]
    for placement in ("sws", "sws-layer"):
        names.append(placement)
        names += [f"{placement}+stuck:p={p:g},low={columns}" for p in shares for columns in low]
    near = [f"matched:tolerance={tolerance}" for tolerance in tolerances]
    names += ["matched", *near, *(f"{name},correction=none" for name in near)]
    if avoid:
        names += ["matched:faults=avoid"]
        names += [f"{name},faults=avoid" for name in near]
    return {name: memsim.Policy.parse(name) for name in names}


def list_cases(
    policies: Mapping[str, memsim.Policy], writings: Sequence[str], config: memsim.CrossbarConfig
) -> dict[str, Case]:
    """Lists every policy under every way of writing; those of one policy follow each other."""
    if not writings:
        return {name: Case(policy) for name, policy in policies.items()}
    return {
        f"{name} {text}": Case(policy, memsim.cells.parse_writing(text, config))
        for name, policy in policies.items()
        for text in writings
    }
