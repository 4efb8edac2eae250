"""The report as JSON values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from memsim.config import CrossbarConfig
from memsim.summary import Summary


def to_json(
    checkpoint: str,
    config: CrossbarConfig,
    policies: Mapping[str, Summary],
    digital: Sequence[str],
) -> dict[str, Any]:
    """The report as JSON values, with the keys that the command line promises."""
    weights = sum(layer.weights for layer in next(iter(policies.values())).layers.values())
    return {
        "checkpoint": checkpoint,
        "config": dataclasses.asdict(config),
        "weights": weights,
        "digital": list(digital),
        "policies": {name: dataclasses.asdict(summary) for name, summary in policies.items()},
    }
