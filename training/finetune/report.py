"""Results of fine-tuning: weights, plans, charts, a page, tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.table
from jaxtyping import Bool, PyTree

import memsim
from memsim import plot
from memsim.intervals import accuracy_change
from memsim.report.tables import policy_table
from memsim.report.terminal import results_console
from memsim.selection import named_leaves
from training.finetune.settings import FinetuneOptions
from training.runs import write_results

_LABELS = {
    "programmed": "programmed",
    "finetuned": "fine-tuned",
}


class Evaluation(NamedTuple):
    """Chips in the steady state of weight streaming, tested on every test image.

    Attributes:
      held: weights of each chip.
      writes: of each chip, in that pass.
    """

    correct: Bool[np.ndarray, "chips images"]
    held: list[PyTree]
    writes: list[int]


class Outcome(NamedTuple):
    """The accuracy and the writes of a network.

    Attributes:
      reference: which images the float network gets right.
      comparison: writes of its weights under each policy.
      before, after: chips programmed with the weights as they were, and as fine-tuned.
      trained: its tensors, by name.
      tuned: as fine-tuned, with a leading axis of chips unless one network is for all.
      plans: by the name of their file.
    """

    reference: Bool[np.ndarray, " images"]
    comparison: memsim.Comparison
    before: Evaluation
    after: Evaluation
    trained: dict[str, Any]
    tuned: dict[str, Any]
    plans: dict[str, memsim.Plan]


def describe(
    name: str,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    settings: Mapping[str, Any],
    outcome: Outcome,
) -> dict[str, Any]:
    """Puts the figures down as `report.json` holds them.

    Args:
      name: of the network.
      policy: that it was fine-tuned for.
      settings: as they are on record.
    """
    reference, comparison = outcome.reference, outcome.comparison
    accuracy: dict[str, Any] = {"float": float(reference.mean())}
    accuracy |= spread("programmed", outcome.before.correct, reference)
    accuracy |= spread("finetuned", outcome.after.correct, reference)
    writes = {
        "policy": str(policy),
        "before_finetuning": float(np.mean(outcome.before.writes)),
        "after_finetuning": float(np.mean(outcome.after.writes)),
    }
    document = memsim.report.to_json(name, config, comparison.policies, comparison.digital)
    return document | {"accuracy": accuracy, "writes": writes, "settings": dict(settings)}


def spread(
    name: str, correct: Bool[np.ndarray, "chips images"], reference: Bool[np.ndarray, " images"]
) -> dict[str, Any]:
    """Describes accuracy under keys that start with `name`: mean, minimum and maximum over chips,
    and every chip, with 95 % intervals of the change against the float network.
    """
    values, whole = correct.mean(axis=1), accuracy_change(correct, reference)
    each = [accuracy_change(correct[i : i + 1], reference) for i in range(len(correct))]
    return {
        name: float(values.mean()),
        f"{name}_min": float(values.min()),
        f"{name}_max": float(values.max()),
        f"{name}_change_interval": [whole.low, whole.high],
        f"{name}_per_chip": values.tolist(),
        f"{name}_change_interval_per_chip": [[change.low, change.high] for change in each],
    }


def save(out: Path, document: dict[str, Any], outcome: Outcome) -> None:
    """Writes the results, `report.json` last."""
    memsim.save_tensors(out / "trained.safetensors", outcome.trained, force=True)
    memsim.save_tensors(out / "finetuned.safetensors", outcome.tuned, force=True)
    for name, plan in outcome.plans.items():
        memsim.save_plan(out / f"{name}.safetensors", plan, force=True)
    held = jax.tree.map(lambda *chips: np.stack(chips), *outcome.after.held)
    memsim.save_tensors(out / "programmed.safetensors", named_leaves(held), force=True)
    accuracy = document["accuracy"]
    series, shown = {}, {"float network": accuracy["float"]}
    for name, label in _LABELS.items():
        if name in accuracy:
            series[label] = accuracy[f"{name}_per_chip"]
            shown[f"{label}, mean of the chips"] = accuracy[name]
    policies = outcome.comparison.policies
    figures = {
        "accuracy": plot.accuracy_over_chips(accuracy["float"], series),
        "writes": plot.writes_by_policy(policies),
        "columns": plot.writes_per_column(policies),
    }
    pictures = {"Every chip, before and after": "accuracy"}
    write_results(out, "report.json", document, shown, figures, pictures)


def show(chosen: FinetuneOptions, document: Mapping[str, Any], outcome: Outcome) -> None:
    """Prints the tables."""
    accuracy, writes = document["accuracy"], document["writes"]
    console = results_console()
    console.print(policy_table(outcome.comparison.policies))
    chips, stuck_at = chosen.chips, chosen.stuck_at
    kind = ("unseen " if chosen.robust else "") + ("chips" if chips > 1 else "chip")
    table = rich.table.Table(
        title=f"Accuracy on {chips} {kind} in a steady pass: {writes['policy']}"
        + (f", {100 * stuck_at:g} % of cells stuck" if stuck_at else ""),
        title_justify="left",
    )
    table.add_column("")
    for heading in ("mean", "change, 95 %", "worst chip", "best chip"):
        table.add_column(heading, justify="right")
    table.add_row("float network", f"{100 * accuracy['float']:.1f} %", "", "", "")
    for name, label in _LABELS.items():
        if name in accuracy:
            figures = [accuracy[key] for key in (name, f"{name}_min", f"{name}_max")]
            mean, worst, best = (f"{100 * figure:.1f} %" for figure in figures)
            low, high = (100 * end for end in accuracy[f"{name}_change_interval"])
            table.add_row(label, mean, f"{low:+.1f} to {high:+.1f}", worst, best)
    console.print(table)
    console.print(
        f"writes of a steady pass {writes['before_finetuning']:,.0f} before, "
        f"{writes['after_finetuning']:,.0f} after fine-tuning (each under its plan); results in "
        f"{chosen.out}/",
        highlight=False,
    )
