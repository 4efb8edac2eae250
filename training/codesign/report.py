"""Results of co-design: the network and its plan, the rounds as a table, JSON and a page."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import memsim
from memsim import plot
from memsim.report.layout import Column, FittingTable
from memsim.report.terminal import results_console
from memsim.report.texts import index_bits_text, width_text
from memsim.selection import named_leaves
from training.codesign.measuring import Outcome, Round
from training.finetune import complete
from training.runs import write_results
from training.scoring import Score
from training.tasks import Task


def describe(task: Task, settings: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Puts the figures down as `codesign.json` holds them."""
    rounds = _by_name(outcome) | outcome.pruned
    summaries = {name: one.summary for name, one in rounds.items()}
    config = outcome.plan.config
    mapped = outcome.baseline.layers
    digital = [name for name in named_leaves(task.params) if name not in mapped]
    document = memsim.report.to_json(task.name, config, summaries, digital)
    score, reference = task.score, outcome.reference
    for name, one in rounds.items():
        document["policies"][name] |= {
            "price": one.price,
            score.name: score.changed(reference.mean, one.held_out.mean),
            score.change: one.held_out.mean,
            f"{score.change}_interval": [one.held_out.low, one.held_out.high],
            f"planning_{score.change}": one.planning.mean,
            f"everywhere_{score.change}": one.everywhere.mean,
            f"everywhere_{score.change}_interval": [one.everywhere.low, one.everywhere.high],
        }
    return document | {
        f"float_{score.name}": reference.mean,
        f"float_{score.name}_interval": [reference.low, reference.high],
        "baseline": dataclasses.asdict(outcome.baseline),
        "against": outcome.against,
        "kept": None if outcome.kept is None else list(rounds)[outcome.kept],
        "settings": dict(settings),
    }


def save(
    out: Path, task: Task, policy: memsim.Policy, document: dict[str, Any], outcome: Outcome
) -> None:
    """Writes the network that is kept, its plan, the chart, the page, and `codesign.json` last."""
    score = task.score
    if outcome.kept is not None:
        kept = outcome.rounds[outcome.kept]
        whole = complete(kept.network, task.params)
        memsim.save_tensors(out / "codesigned.safetensors", named_leaves(whole), force=True)
        memsim.save_plan(out / "plan.safetensors", outcome.plan, force=True)
    rounds = _by_name(outcome)
    # a tolerance that only places makes no errors: the chart names none
    placed = memsim.Policy.parse(policy.name)
    labels = {name: name.rpartition(", ")[2] for name in rounds}
    chart = plot.accuracy_against_reduction(
        dict.fromkeys(rounds, placed),
        {name: one.summary for name, one in rounds.items()},
        {name: one.held_out for name, one in rounds.items()},
        outcome.reference.mean,
        measure=score.name,
        labels=labels,
    )
    shown = {score.name: {"float network": outcome.reference.mean}}
    figures, pictures = {"rounds": chart}, {"Rounds of co-design": "rounds"}
    write_results(out, "codesign.json", document, shown, figures, pictures)


def show(out: Path, document: Mapping[str, Any], score: Score, outcome: Outcome) -> None:
    """Prints the rounds, and which is kept."""
    reference, low, high = (score.text(end, 2) for end in outcome.reference)
    title = (
        f"Co-design of {document['checkpoint']}: float network {reference} ({low} to {high}) "
        f"on {outcome.examples:,} {score.examples} held out"
    )
    headings = (
        "price of a write", "writes", "reduction", "net energy", score.name, "change (95 %)",
        "index bits",
    )  # fmt: skip
    rows = []
    for number, one in enumerate(outcome.rounds):
        kept = " (kept)" if number == outcome.kept else ""
        rows.append(_row(f"{one.price:g}{kept}" if number else "untrained", one, score, outcome))
    for name, one in outcome.pruned.items():
        rows.append(_row(name, one, score, outcome))
    console = results_console()
    console.print(FittingTable(title, [Column(heading) for heading in headings], rows))
    if outcome.kept is not None:
        ends = [score.change_text(end, 2) for end in outcome.rounds[outcome.kept].everywhere]
        console.print(
            f"kept: {ends[0]} ({ends[1]} to {ends[2]}) on all {score.examples}, those that chose "
            "it included", highlight=False,
        )  # fmt: skip
    console.print(
        f"{outcome.against}; {width_text(document['config'])}; results in {out}/",
        highlight=False, markup=False,
    )  # fmt: skip


def _row(name: str, one: Round, score: Score, outcome: Outcome) -> tuple[str, ...]:
    summary, change = one.summary, [score.change_text(end, 2) for end in one.held_out]
    return (
        name,
        f"{summary.writes:,}",
        "" if summary.reduction is None else f"{summary.reduction:.2f}x",
        "" if summary.net_reduction is None else f"{summary.net_reduction:.2f}x",
        score.text(score.changed(outcome.reference.mean, one.held_out.mean), 2),
        f"{change[0]} ({change[1]} to {change[2]})",
        index_bits_text(summary.index_bits_per_weight),
    )


def _by_name(outcome: Outcome) -> dict[str, Round]:
    first, *others = outcome.rounds
    trained = enumerate(others, start=1)
    return {"untrained": first} | {f"round {n}, price {one.price:g}": one for n, one in trained}
