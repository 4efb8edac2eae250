"""The published experiment: its policies, how each is programmed, what an inference takes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

import memsim
from memsim.hardware import find_positions, inference_cost
from memsim.report.documents import add_hardware
from training.tasks import Task


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
    """Lists every policy under every way of writing; those of one policy follow each other.

    Of several ways their text is part of the name.
    """
    if not writings:
        return {name: Case(policy) for name, policy in policies.items()}
    return {
        f"{name} {text}" if len(writings) > 1 else name: Case(
            policy, memsim.cells.parse_writing(text, config)
        )
        for name, policy in policies.items()
        for text in writings
    }


def make_program(
    task: Task, config: memsim.CrossbarConfig, passes: int, stuck_at: float
) -> Callable[[Case, Array], tuple[PyTree, memsim.Summary]]:
    """Makes `(case, key) -> (weights held, what they took)` of the chip of a key."""
    unsorted = memsim.plan(task.params, config, memsim.policies.Unsorted())

    @functools.lru_cache(maxsize=1)  # policies of one placement follow each other
    def place(placing: memsim.Policy) -> memsim.Plan:
        return memsim.plan(task.params, config, placing)

    def program(case: Case, key: Array) -> tuple[PyTree, memsim.Summary]:
        policy = case.policy
        if policy.avoids_faults:  # a placement for every chip
            blind = memsim.sample_chip(key, unsorted, stuck_at / 2, stuck_at / 2)
            plan = memsim.plan(task.params, config, policy, chip=blind)
        else:
            plan = memsim.with_stucking(place(policy.placing), policy)
        chip = memsim.sample_chip(key, plan, stuck_at / 2, stuck_at / 2)
        held, programming = memsim.program(
            task.params, plan, chip, passes=passes, writing=case.writing
        )
        return held, memsim.summarize(programming, plan)

    return program


def add_inference(
    document: dict[str, Any],
    task: Task,
    summaries: Mapping[str, memsim.Summary],
    baselines: Mapping[str, memsim.Summary],
    config: memsim.CrossbarConfig,
    hardware: memsim.Hardware,
) -> None:
    """Adds to a report what a pass and an inference of the task take; its input vectors are traced.

    Args:
      document: what `memsim.report.to_json` gives; changed.
      summaries, baselines: by policy.
      hardware: whose parts have prices.
    """
    inputs = np.asarray(next(iter(task.batches()))[0])
    one = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
    positions = find_positions(task.apply, task.params, one)
    costs = {
        name: inference_cost(summary, positions, config, hardware)
        for name, summary in summaries.items()
    }
    add_hardware(document, summaries, baselines, hardware, positions, costs)
