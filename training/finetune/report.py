"""Results of fine-tuning: weights, plans, charts, a page, tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Num, PyTree

import memsim
from memsim import plot
from memsim.report.layout import Column, FittingTable
from memsim.report.tables import policy_table
from memsim.report.terminal import results_console
from memsim.selection import named_leaves
from training.finetune.settings import FinetuneOptions
from training.runs import write_results
from training.scoring import Score

_LABELS = {
    "programmed": "programmed",
    "finetuned": "fine-tuned",
}


class Evaluation(NamedTuple):
    """Chips in the steady state of weight streaming, tested on every test image.

    Attributes:
      values: what each chip scores on each image, or window of a text.
      held: weights of each chip.
      writes: of each chip, in that pass.
    """

    values: Num[np.ndarray, "chips images"]
    held: list[PyTree]
    writes: list[int]


class Outcome(NamedTuple):
    """The accuracy, or perplexity, and the writes of a network.

    Attributes:
      score: says which of the two.
      reference: what the float network scores on each image, or window of a text.
      comparison: writes of its weights under each policy.
      before, after: chips programmed with the weights as they were, and as fine-tuned.
      trained: its tensors, by name.
      tuned: as fine-tuned, with a leading axis of chips unless one network is for all.
      plans: by the name of their file.
    """

    score: Score
    reference: Num[np.ndarray, " images"]
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
    score, reference, comparison = outcome.score, outcome.reference, outcome.comparison
    scores: dict[str, Any] = {"float": float(score.figure(reference))}
    scores |= spread("programmed", score, outcome.before.values, reference)
    scores |= spread("finetuned", score, outcome.after.values, reference)
    writes = {
        "policy": str(policy),
        "before_finetuning": float(np.mean(outcome.before.writes)),
        "after_finetuning": float(np.mean(outcome.after.writes)),
    }
    document = memsim.report.to_json(name, config, comparison.policies, comparison.digital)
    return document | {score.name: scores, "writes": writes, "settings": dict(settings)}


def spread(
    name: str,
    score: Score,
    values: Num[np.ndarray, "chips images"],
    reference: Num[np.ndarray, " images"],
) -> dict[str, Any]:
    """Describes scores under keys that start with `name`: mean, minimum and maximum over chips, and
    every chip, with 95 % intervals of the change against the float network.
    """
    figures, whole = score.figure(values), score.compare(values, reference)
    each = [score.compare(values[i : i + 1], reference) for i in range(len(values))]
    return {
        name: float(score.figure(values.reshape(-1))),
        f"{name}_min": float(figures.min()),
        f"{name}_max": float(figures.max()),
        f"{name}_change_interval": [whole.low, whole.high],
        f"{name}_per_chip": figures.tolist(),
        f"{name}_change_interval_per_chip": [[change.low, change.high] for change in each],
    }


def save(
    out: Path, config: memsim.CrossbarConfig, document: dict[str, Any], outcome: Outcome
) -> None:
    """Writes the results, `report.json` last."""
    memsim.save_tensors(out / "trained.safetensors", outcome.trained, force=True)
    memsim.save_tensors(out / "finetuned.safetensors", outcome.tuned, force=True)
    for name, plan in outcome.plans.items():
        memsim.save_plan(out / f"{name}.safetensors", plan, force=True)
    held = jax.tree.map(lambda *chips: np.stack(chips), *outcome.after.held)
    memsim.save_tensors(out / "programmed.safetensors", named_leaves(held), force=True)
    measure = outcome.score.name
    scores = document[measure]
    series, shown = {}, {"float network": scores["float"]}
    for name, label in _LABELS.items():
        series[label] = scores[f"{name}_per_chip"]
        shown[f"{label}, mean of the chips"] = scores[name]
    policies = outcome.comparison.policies
    figures = {
        measure: plot.accuracy_over_chips(scores["float"], series, measure),
        "writes": plot.writes_by_policy(policies),
        "columns": plot.writes_per_column(policies, config),
    }
    # of one chip the figures above say all
    several = len(scores["programmed_per_chip"]) > 1
    pictures = {"Every chip, before and after": measure} if several else {}
    write_results(out, "report.json", document, {measure: shown}, figures, pictures)


def show(chosen: FinetuneOptions, document: Mapping[str, Any], outcome: Outcome) -> None:
    """Prints the tables."""
    score, writes = outcome.score, document["writes"]
    scores = document[score.name]
    console = results_console()
    console.print(policy_table(outcome.comparison.policies))
    chips, stuck_at = chosen.chips, chosen.stuck_at
    kind = ("unseen " if chosen.robust else "") + ("chips" if chips > 1 else "chip")
    title = f"{score.name.capitalize()} on {chips} {kind} in a steady pass: {writes['policy']}"
    title += f", {100 * stuck_at:g} % of cells stuck" if stuck_at else ""
    rows = [("float network", score.text(scores["float"], 1), "", "", "")]
    ends = ("min", "max") if score.higher_is_better else ("max", "min")
    for name, label in _LABELS.items():
        figures = [scores[name], *(scores[f"{name}_{end}"] for end in ends)]
        low, high = (score.change_text(end, 1) for end in scores[f"{name}_change_interval"])
        mean, worst, best = (score.text(figure, 1) for figure in figures)
        rows.append((label, mean, f"{low} to {high}", worst, best))
    headings = ("network", "mean", "change, 95 %", "worst chip", "best chip")
    console.print(FittingTable(title, [Column(heading) for heading in headings], rows))
    console.print(
        f"writes of a steady pass {writes['before_finetuning']:,.0f} before, "
        f"{writes['after_finetuning']:,.0f} after fine-tuning (each under its plan); results in "
        f"{chosen.out}/",
        highlight=False,
    )
