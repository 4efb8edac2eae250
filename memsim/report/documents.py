"""Turns results into JSON values."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memsim.budgeting import Budget, Trial
from memsim.config import CrossbarConfig
from memsim.hardware.inference import InferenceCost
from memsim.hardware.parts import Hardware
from memsim.hardware.passes import PassCost, pass_cost
from memsim.report.texts import pool_text
from memsim.service.advising import Advice
from memsim.service.costs import LAWS, Figure, ServiceInputs
from memsim.service.ownership import Levelling, ServiceLife, quantiles
from memsim.service.wear import cycles_per_write
from memsim.summary import Summary
from memsim.writing import Writing

__all__ = [
    "Upkeep",
    "add_hardware",
    "advice_json",
    "budget_json",
    "figures_json",
    "finite",
    "hardware_json",
    "inference_json",
    "lifetime_json",
    "pass_cost_json",
    "service_inputs_json",
    "service_life_json",
    "to_json",
    "writing_json",
]


def to_json(
    checkpoint: str,
    config: CrossbarConfig,
    policies: Mapping[str, Summary],
    digital: Sequence[str],
) -> dict[str, Any]:
    """Turns a report into JSON values, with the keys that the command line promises.

    Args:
      checkpoint: name of the file.
      config: the crossbars.
      policies: by the name to report them under; at least one.
      digital: names of the tensors left out.
    """
    weights = sum(layer.weights for layer in next(iter(policies.values())).layers.values())
    return {
        "checkpoint": checkpoint,
        "config": dataclasses.asdict(config) | {"words_per_row": config.words_per_row},
        "weights": weights,
        "digital": list(digital),
        "policies": {name: dataclasses.asdict(summary) for name, summary in policies.items()},
    }


def writing_json(text: str, writing: Writing) -> dict[str, Any]:
    """Turns how writes fail into JSON values: the entry `writing` of a report, and its text."""
    return {"text": text} | dataclasses.asdict(writing)


def add_hardware(
    document: dict[str, Any],
    policies: Mapping[str, Summary],
    baselines: Mapping[str, Summary],
    hardware: Hardware,
    positions: Mapping[str, int] | None,
    costs: Mapping[str, InferenceCost],
) -> None:
    """Adds to a report the hardware, and what every policy takes on it.

    Args:
      document: what `to_json` gives for these policies; changed.
      policies: what was counted.
      baselines: that of each policy.
      positions: input vectors of an inference, by layer; None where they are not known.
      costs: of an inference, by policy; empty where they are not.
    """
    document["hardware"] = hardware_json(hardware)
    for name, summary in policies.items():
        before = pass_cost(baselines[name], hardware)
        document["policies"][name]["pass"] = pass_cost_json(pass_cost(summary, hardware), before)
    if positions is not None:
        document["positions"] = dict(positions)
    for name, of_inference in costs.items():
        document["policies"][name]["inference"] = inference_json(of_inference)


def hardware_json(hardware: Hardware) -> dict[str, Any]:
    """Turns hardware into JSON values: by `table.key` its number and where that is from."""
    numbers = {
        name: {"value": value, "source": hardware.source_of(name)}
        for name, value in hardware.numbers().items()
    }
    return {"name": hardware.name, "numbers": numbers}


def pass_cost_json(cost: PassCost, baseline: PassCost) -> dict[str, Any]:
    """Turns what passes take into JSON values.

    Args:
      cost: of a policy.
      baseline: of what its reductions are against.
    """

    def reduction(*parts: str) -> float | None:
        own = sum(cost.joules[part] for part in parts)
        return sum(baseline.joules[part] for part in parts) / own if own else None

    return {
        "joules": cost.joules | {"total": cost.total_joules},
        "seconds": cost.seconds | {"total": cost.total_seconds},
        "reduction_of_pulses": reduction("pulses"),
        "reduction_with_index": reduction("pulses", "index"),
        "net_reduction": reduction(*cost.joules),
    }


def inference_json(cost: InferenceCost) -> dict[str, Any]:
    """Turns what an inference takes into JSON values: energy by part, time, area, bottleneck."""
    timeline = cost.timeline
    busy = None if timeline is None else timeline.busy()
    return {
        "joules": cost.joules | {"total": cost.total_joules},
        "seconds": cost.seconds,
        "batch": cost.batch,
        "arrays": cost.arrays,
        "area": cost.area,
        "busy_seconds": busy,
        "bottleneck": None if timeline is None else timeline.bottleneck(),
    }


def advice_json(checkpoint: str, config: CrossbarConfig, advice: Advice) -> dict[str, Any]:
    """Turns advice into JSON values: each figure of each way with its formula and its inputs."""
    return {
        "checkpoint": checkpoint,
        "config": dataclasses.asdict(config) | {"words_per_row": config.words_per_row},
        "hardware": hardware_json(advice.hardware),
        "inputs": service_inputs_json(advice.inputs),
        # the crossbars that each lifetime is of
        "pools": {
            way: pool_text(dataclasses.asdict(config) | {"crossbars": round(of["arrays"].value)})
            for way, of in advice.ways.items()
        },
        "ways": {way: figures_json(figures) for way, figures in advice.ways.items()},
    }


class Upkeep(NamedTuple):
    """Says how chips are written and kept.

    Attributes:
      cells: kind of the cells; None for no kind in particular.
      scheme: of writing them.
      levelling, spares: see `life_in_service`.
    """

    cells: str | None = None
    scheme: str = "constant"
    levelling: Levelling = "none"
    spares: int = 0


def lifetime_json(
    inputs: ServiceInputs, config: CrossbarConfig, upkeep: Upkeep, priced: bool
) -> dict[str, Any]:
    """Turns what all lifetimes of a report share into JSON values: its entry `lifetime`.

    Its `pool` says in words which crossbars wear; endurance and `cycles_per_write` are in cycles.

    Args:
      inputs: endurance and prices.
      config: the crossbars of a chip.
      upkeep: how it is written and kept.
      priced: whether prices were given.
    """
    wear = {
        "pool": pool_text(dataclasses.asdict(config)),
        "cycles_per_write": float(cycles_per_write(config).max()),
        "cycles_counted": config.cell_bits == 1,  # else they are a bound
    }
    return service_inputs_json(inputs) | wear | upkeep._asdict() | {"priced": priced}


def service_inputs_json(inputs: ServiceInputs) -> dict[str, Any]:
    """Turns the inputs of a service into JSON values; endurance is in cycles."""
    law = next(name for name, kind in LAWS.items() if isinstance(inputs.endurance, kind))
    return {
        "endurance": {"law": law} | dataclasses.asdict(inputs.endurance),
        "cost": dataclasses.asdict(inputs.costs),
        "placeholders": list(inputs.placeholders),
        "given": list(inputs.given),
    }


def service_life_json(life: ServiceLife) -> dict[str, Any]:
    """Turns the lifetime under one policy into JSON values; None where nothing wears out."""
    # JSON has no infinity: what never fails is null
    low, median, high = map(finite, quantiles(life.years))
    return {
        "writes": life.summary.writes,
        "write_joules": life.write_joules,
        "write_seconds": life.write_seconds,
        "chips_drawn": len(life.years),
        "inferences_to_first_failure": finite(quantiles(life.inferences)[1]),
        "years_to_first_failure": median,
        "years_to_first_failure_90": [low, high],
        "figures": figures_json(life.figures),
    }


def figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Turns figures into JSON values; None for infinity."""
    return {
        name: figure._asdict()
        | {
            "value": finite(figure.value),
            "inputs": {key: finite(value) for key, value in figure.inputs.items()},
        }
        for name, figure in figures.items()
    }


def finite(value: float) -> float | None:
    """Returns the number, or None for infinity, which JSON lacks."""
    return float(value) if math.isfinite(value) else None


def budget_json(found: Budget) -> dict[str, Any]:
    """Turns what `budget` found, and how, into JSON values."""

    def of_trial(trial: Trial) -> dict[str, Any]:
        return {
            "exchange": trial.exchange,
            "accepted": trial.accepted,
            "writes": trial.summary.writes,
            "reduction": trial.summary.reduction,
            "net_reduction": trial.summary.net_reduction,
            "value": trial.value,
            "code_error_rms": trial.summary.code_error_rms,
            "code_error_mean": trial.summary.code_error_mean,
            "index_bits_per_weight": trial.summary.index_bits_per_weight,
            "analog_valid": trial.summary.analog_valid,
            "change": trial.change._asdict(),
            "policies": {name: str(policy) for name, policy in trial.policies.items()},
        }

    return {
        "minimised": found.objective.what,
        "chosen": of_trial(found.chosen),
        "held_out_change": found.held_out._asdict(),
        "float_accuracy": found.float_accuracy,
        "examples": found.examples,
        "choices": [found.trials.index(choice) for choice in found.choices],
        "spread": list(found.spread),
        "sensitivity": found.sensitivity,
        "trials": [of_trial(trial) for trial in found.trials],
    }
