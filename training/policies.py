"""What jobs ask of a policy: all that they know of its inside stands here."""

import dataclasses

from jaxtyping import Array, Float32

import memsim
from memsim.config import COMPETITORS, STUCKABLE, validate

# The words of text whose values a sweep varies, and the fields of a policy that hold them.
_FIELDS = {"p": "reprogram", "low": "low_columns", "tolerance": "tolerance"}


def takes(policy: memsim.Policy, word: str) -> bool:
    """Tells whether a policy takes the word `p`, `low` or `tolerance`."""
    return policy.placement == "matched" if word == "tolerance" else policy.placement in STUCKABLE


def states(policy: memsim.Policy, word: str) -> bool:
    """Tells whether a policy has a value of its own for `p`, `low` or `tolerance`."""
    return policy.tolerance > 0 if word == "tolerance" else policy.low_columns > 0


def with_words(policy: memsim.Policy, **words: float) -> memsim.Policy:
    """Returns the policy with other values of `p`, `low` or `tolerance`."""
    given = {_FIELDS[word]: value for word, value in words.items()}
    return dataclasses.replace(policy, **given)  # type: ignore[arg-type]


def share_reprogrammed(policy: memsim.Policy) -> float:
    """Returns the p of bit stucking."""
    return policy.reprogram


def with_share(plan: memsim.Plan, share: Float32[Array, ""]) -> memsim.Plan:
    """Returns the plan with another p of bit stucking."""
    layers = {name: layer._replace(reprogram=share) for name, layer in plan.layers.items()}
    return plan._replace(layers=layers)


def draws_afresh(policy: memsim.Policy) -> bool:
    """Tells whether bit stucking draws other cells in every pass."""
    return policy.low_columns > 0 and policy.draws == "fresh"


def avoids_faults(policy: memsim.Policy) -> bool:
    """Tells whether a policy is planned for the stuck cells of one chip."""
    return policy.faults == "avoid"


def columns(policy: memsim.Policy) -> dict[str, str | float]:
    """Returns what a table tells of each policy: its text, its name, the words that vary."""
    return {
        "policy": str(policy),
        "placement": policy.placement,
        "p": policy.reprogram,
        "low": policy.low_columns,
        "tolerance": policy.tolerance,
    }


def check_fits(config: memsim.CrossbarConfig, policy: memsim.Policy) -> None:
    """Checks that a policy can be programmed onto these crossbars.

    Raises:
      ValueError: it cannot.
    """
    validate(policy.stored_on(config), policy)


def check_trainable(text: str, policy: memsim.Policy) -> None:
    """Checks that weights can be trained by a plan that stays as it is for many steps.

    Raises:
      ValueError: what the policy stores beside the words depends on the weights.
    """
    if policy.placement in COMPETITORS:
        raise ValueError(
            f"`--policy` is {text!r}; fine-tuning takes {', '.join(STUCKABLE)}, or a policy of "
            "your own."
        )


def chips_differ(
    policy: memsim.Policy, stuck_at: float, readout: memsim.Readout | None = None
) -> bool:
    """Tells whether chips differ: by stuck cells, bit stucking or how their cells are read."""
    stucked = policy.low_columns > 0 and policy.reprogram < 1
    # wires alone are the same on every chip
    varied = readout is not None and readout.cells != memsim.Conductance()
    return stuck_at > 0 or stucked or varied
