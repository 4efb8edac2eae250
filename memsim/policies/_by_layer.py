"""The policy of each layer of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memsim._checks import check_kind
from memsim.config import CrossbarConfig
from memsim.policies.base import Policy


def policy_of_layers(
    policy: Policy | Mapping[str, Policy], names: Iterable[str]
) -> dict[str, Policy]:
    """Gives the policy of each layer.

    Raises:
      ValueError: policies of other layers than these, or of several kinds.
    """
    if isinstance(policy, str):
        raise ValueError(f"`policy` is {policy!r}, a text; give Policy.parse({policy!r}).")
    check_kind("policy", policy, (Policy, Mapping), "give a memsim.Policy, or one for every layer")
    if isinstance(policy, Policy):
        return dict.fromkeys(names, policy)
    for name, one in policy.items():
        check_kind(f"policy[{name!r}]", one, Policy, "give a memsim.Policy")
    # names of neither more nor fewer layers
    different = sorted(set(policy) ^ set(names))
    if different:
        raise ValueError(
            f"`policy` names {len(policy)} tensors, but not the ones that are programmed: "
            f"{', '.join(different[:5])} differ; give one for every selected tensor."
        )
    kinds = sorted({_kind_text(one) for one in policy.values()})
    if len(kinds) > 1:
        raise ValueError(
            f"`policy` mixes placements ({', '.join(kinds)}); give all layers the same one."
        )
    return {name: policy[name] for name in names}


def _kind_text(policy: Policy) -> str:
    """Names what layers of one plan share: the kind of policy, and its flag cells."""
    flags = policy.stored_on(CrossbarConfig()).flags
    return policy.name if flags in ("none", "word") else f"{policy.name}:flags={flags}"
