"""Questions that jobs ask of a policy and of its plans, whatever policy it is."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float32

import memsim
from memsim.policies import Policy, chips_differ, words_of


def takes(policy: Policy, word: str) -> bool:
    """Tells whether a policy takes a word such as `p`, `low` or `tolerance`."""
    return word in words_of(type(policy))


def states(policy: Policy, word: str) -> bool:
    """Tells whether a policy has a value of its own for a word that it takes."""
    fields = {field.name: field.default for field in dataclasses.fields(policy)}
    return word in fields and getattr(policy, word) != fields[word]


def with_words(policy: Policy, **words: Any) -> Policy:
    """Returns the policy with other values of its words; p says nothing where `low` is 0."""
    if words.get("low") == 0:
        words["p"] = 1.0
    return dataclasses.replace(policy, **words)


def with_share(plan: memsim.Plan, share: Float32[Array, ""]) -> memsim.Plan:
    """Returns the plan with another p of bit stucking."""
    layers = {name: layer._replace(reprogram=share) for name, layer in plan.layers.items()}
    return plan._replace(layers=layers)


def columns(policy: Policy) -> dict[str, str | float]:
    """Returns what a table tells of each policy: its text, its name, the words that vary."""
    return {
        "policy": str(policy),
        "placement": policy.name,
        "p": policy.stucking.p,
        "low": policy.stucking.low,
        "tolerance": getattr(policy, "tolerance", 0),
    }


def check_trainable(text: str, policy: Policy) -> None:
    """Checks that weights can be trained by a plan that stays as it is for many steps.

    Raises:
      ValueError: what the policy stores beside the words depends on the weights.
    """
    if policy.recodes:
        raise ValueError(
            f"`--policy` is {text!r}; fine-tuning takes unsorted, sws, sws-layer, matched, or a "
            "policy of your own that stores the words of the weights."
        )


def differ(
    policy: Policy,
    stuck_at: float,
    readout: memsim.Readout | None = None,
    writing: memsim.Writing | None = None,
) -> bool:
    """Tells whether chips differ: by stuck cells, bit stucking, or how they are written or read."""
    # wires alone are the same on every chip
    varied = readout is not None and readout.cells != memsim.Conductance()
    return chips_differ(
        policy.stucking, stuck_at / 2, stuck_at / 2, readout if varied else None, writing
    )
