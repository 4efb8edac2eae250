"""The published experiment: writes saved, accuracy kept, time and energy, under each policy.

    python -m training.reproduce --model resnet50 --weights FILE --data imagenet2012
    python -m training.reproduce --model gpt2 --weights openai-community/gpt2 --data lm1b

Policies are those of Farias and Kung, arXiv 2410.21730: sorted weight sectioning within an output
and over the whole layer, alone and with bit stucking over p and low; Flip-N-Write and offsets in
the style of ARAS; and our own matching in Hamming space, exact and within tolerances, their mean
errors corrected or not. Without a model it is the ResNet-20 of `--assets`, or the digits CNN of the
demo. With --writing, each policy under each way that writes fail: pulses, wrong cells, accuracy. A
language model has a perplexity in place of an accuracy; --model gpt-small is trained on the spot.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import jax
import numpy as np
import rich.progress
import typer
from jaxtyping import Num, PyTree
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

import memsim
from memsim import plot
from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from memsim.config import Encoding
from memsim.hardware import with_net_reduction
from memsim.intervals import Interval
from memsim.report.hardware_tables import energy_table, inference_table
from memsim.report.layout import Column, FittingTable
from memsim.report.terminal import results_console
from memsim.report.texts import index_bits_text
from memsim.selection import named_leaves
from memsim.summary import with_reduction
from training import options, runs
from training.data import Batch
from training.evaluation import make_test, same_weights
from training.experiment import Case, add_inference, list_cases, list_policies, make_program
from training.policies import differ
from training.progress import progress_bar
from training.scoring import Score
from training.tasks import Task, choose_task

_PULSES = memsim.cells.ConstantPulses()
# Titles of the charts on the page, by their files.
_TITLES = {
    "accuracy_against_pulses": "Accuracy and pulses",
    "accuracy_against_reduction": "Accuracy and reduction",
    "perplexity_against_pulses": "Perplexity and pulses",
    "perplexity_against_reduction": "Perplexity and reduction",
    "reduction_against_index_bits": "Reduction and its price",
}


class Outcome(NamedTuple):
    """The writes, accuracy, time and energy under one policy.

    Attributes:
      summary: its writes, means over chips.
      change: of the accuracy against the float network on the same images, a share of 1; of a
        perplexity, the ratio.
      seconds, joules: of writing; None where writes fail, which takes pulses of several kinds.
      baseline: what the same takes `unsorted`, written the same way.
    """

    summary: memsim.Summary
    change: Interval
    seconds: float | None
    joules: float | None
    baseline: memsim.Summary


class Result(NamedTuple):
    """The figures of the experiment.

    Attributes:
      images: tested on; windows of a text.
      float_network: accuracy or perplexity of the float network.
      outcomes: by policy.
      digital: tensors left out.
    """

    images: int
    float_network: Interval
    outcomes: dict[str, Outcome]
    digital: list[str]


def run(
    task: Task,
    config: memsim.CrossbarConfig,
    cases: Mapping[str, Case],
    chips: int,
    seed: int,
    passes: int,
    pulses: memsim.cells.ConstantPulses,
    hardware: memsim.Hardware,
    bar: rich.progress.Progress,
    stuck_at: float = 0.0,
) -> Result:
    """Programs the network under each policy and tests what the chips hold.

    Args:
      cases: by name; those of one placement follow each other.
      chips: programmed where they differ, by stuck cells, bit stucking or failed writes; elsewhere
        one stands for all.
      hardware: whose prices net reductions are of.
      stuck_at: share of cells that are stuck, half of them at each level.
    """
    measure = make_test(task.apply, task.score)
    progress = bar.add_task("", total=task.rounds * (1 + len(cases)))

    def test(what: str, networks: Sequence[PyTree]) -> Num[np.ndarray, "networks images"]:
        def ticking() -> Iterator[Batch]:
            for batch in task.batches():
                yield batch
                bar.advance(progress)

        bar.update(progress, description=what)
        return measure(networks, ticking())

    (reference,) = test("testing the float network", [task.params])
    keys = jax.random.split(jax.random.key(seed), chips)
    program = make_program(task, config, passes, stuck_at)
    unsorted = memsim.policies.Unsorted()

    @functools.cache
    def baselines(writing: memsim.Writing | None) -> list[memsim.Summary]:
        some = keys if differ(unsorted, stuck_at, writing=writing) else keys[:1]
        return [program(Case(unsorted, writing), key)[1] for key in some]

    exact: tuple[PyTree, Num[np.ndarray, "networks images"]] | None = None
    outcomes: dict[str, Outcome] = {}
    for name, case in cases.items():
        bar.update(progress, description=f"programming {name}")
        some = keys if differ(case.policy, stuck_at, writing=case.writing) else keys[:1]
        programmed = [program(case, key) for key in some]
        held = [network for network, _ in programmed]
        others = baselines(case.writing)
        baseline = memsim.mean_over_chips(others)
        summary = memsim.mean_over_chips(
            [
                with_reduction(one, others[number % len(others)])
                for number, (_, one) in enumerate(programmed)
            ]
        )
        summary = with_net_reduction(summary, baseline, hardware)
        if exact and len(held) == 1 and same_weights(held[0], exact[0]):
            values = exact[1]  # most placements hold the same weights: one test for all
            bar.advance(progress, task.rounds)
        else:
            values = test(f"testing {name}", held)
        if exact is None and len(held) == 1:
            exact = held[0], values
        sure = case.writing is None
        outcomes[name] = Outcome(
            summary,
            task.score.compare(values, reference),
            memsim.cells.write_time(summary, pulses) if sure else None,
            memsim.cells.write_energy(summary, pulses) if sure else None,
            baseline,
        )
    mapped = next(iter(outcomes.values())).summary.layers
    digital = [name for name in named_leaves(task.params) if name not in mapped]
    return Result(reference.size, task.score.interval(reference), outcomes, digital)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceOptions(options.TaskOptions):
    """The options of `python -m training.reproduce`."""

    batch: options.BatchSize = 250
    policy: Annotated[
        list[str] | None,
        typer.Option(help="policy instead of those of the experiment; repeatable"),
    ] = None
    writing: Annotated[
        list[str] | None,
        typer.Option(help="how writes fail, as `memsim report` takes it; repeatable"),
    ] = None
    p: Annotated[list[float], typer.Option(help="share of low cells reprogrammed; repeatable")] = (
        dataclasses.field(default_factory=lambda: [0.5, 0.25])
    )
    low: Annotated[list[int], typer.Option(help="low columns; repeatable")] = dataclasses.field(
        default_factory=lambda: [1, 2, 3]
    )
    tolerance: Annotated[list[int], typer.Option(help="tolerance of matched; repeatable")] = (
        dataclasses.field(default_factory=lambda: [1, 2, 3])
    )
    stuck_at: options.StuckAt = 0.0
    chips: Annotated[int, typer.Option(min=1, help="chips, where they differ")] = 8
    passes: options.Passes = 1
    rows: options.Rows = 128
    columns: options.Columns = None
    bits: options.Bits = 8
    encoding: options.EncodingName = "twos_complement"
    crossbars: options.Crossbars = 1
    set_width: Annotated[float, typer.Option(help="width of a SET pulse, seconds")] = (
        _PULSES.set_width
    )
    reset_width: Annotated[float, typer.Option(help="width of a RESET pulse, seconds")] = (
        _PULSES.reset_width
    )
    set_energy: Annotated[float, typer.Option(help="energy of a SET pulse, joules")] = (
        _PULSES.set_energy
    )
    reset_energy: Annotated[float, typer.Option(help="energy of a RESET pulse, joules")] = (
        _PULSES.reset_energy
    )
    parallel_rows: Annotated[int, typer.Option(help="rows programmed at once")] = (
        _PULSES.parallel_rows
    )
    seed: options.Seed = 0
    out: options.OutFolder = Path("runs/reproduce")
    force: options.Replace = False

    def pulses(self) -> memsim.cells.ConstantPulses:
        """Returns the pulses that write time and energy are of."""
        return memsim.cells.ConstantPulses(
            set_width=self.set_width,
            reset_width=self.reset_width,
            set_energy=self.set_energy,
            reset_energy=self.reset_energy,
            parallel_rows=self.parallel_rows,
        )


@with_options(ReproduceOptions)
def main(chosen: ReproduceOptions) -> None:
    """Writes saved, accuracy kept, write time and energy, under each policy."""
    chosen = options.on_hardware(chosen)
    open_chosen = choose_task(chosen, chosen.batch)
    config = memsim.CrossbarConfig(
        rows=chosen.rows,
        columns=chosen.columns,
        bits=chosen.bits,
        encoding=cast(Encoding, chosen.encoding),
        crossbars=chosen.crossbars,
    )
    policies = list_policies(chosen.p, chosen.low, chosen.tolerance, avoid=chosen.stuck_at > 0)
    if chosen.policy:
        policies = {name: memsim.Policy.parse(name) for name in chosen.policy}
    for policy in policies.values():
        policy.check(policy.stored_on(config))
    cases = list_cases(policies, chosen.writing or (), config)
    pulses = chosen.pulses()
    runs.check_results(chosen.out, "reproduce.json", chosen.force)
    with progress_bar() as bar:
        task = open_chosen(chosen.seed, bar)
        result = run(
            task, config, cases, chosen.chips, chosen.seed, chosen.passes, pulses,
            chosen.priced(config), bar, chosen.stuck_at,
        )  # fmt: skip
    settings = task.source | {
        task.score.examples: result.images,
        "stuck_at": chosen.stuck_at,
        "chips": chosen.chips,
        "seed": chosen.seed,
        "passes": chosen.passes,
        "writing": chosen.writing,
        "pulses": dataclasses.asdict(pulses),
    }
    hardware = chosen.priced(config) if chosen.hardware else None
    made = how_made("python -m training.reproduce", chosen)
    document = save(chosen.out, task, config, cases, settings, result, hardware, made)
    show(chosen.out, task, result, document)


def save(
    out: Path,
    task: Task,
    config: memsim.CrossbarConfig,
    cases: Mapping[str, Case],
    settings: dict[str, Any],
    result: Result,
    hardware: memsim.Hardware | None,
    made_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the charts, as PNG and PDF, `report.html`, and `reproduce.json` last; returns it.

    With hardware also `positions.json`, as `memsim report` and `memsim advise` take it.
    """
    summaries = {policy: outcome.summary for policy, outcome in result.outcomes.items()}
    score, reference = task.score, result.float_network
    document = memsim.report.to_json(task.name, config, summaries, result.digital)
    document |= {
        f"float_{score.name}": reference.mean,
        f"float_{score.name}_interval": [reference.low, reference.high],
        "settings": settings,
        "made_by": made_by,
    }
    for policy, outcome in result.outcomes.items():
        document["policies"][policy] |= {
            score.name: score.changed(reference.mean, outcome.change.mean),
            score.change: outcome.change.mean,
            f"{score.change}_interval": [outcome.change.low, outcome.change.high],
            "write_seconds": outcome.seconds,
            "write_joules": outcome.joules,
        }
    if hardware is not None:
        baselines = {policy: outcome.baseline for policy, outcome in result.outcomes.items()}
        add_inference(document, task, summaries, baselines, config, hardware)
        runs.write_document(out / "positions.json", document["positions"])
    shown = {score.name: {"float network": reference.mean}}
    figures = draw(score, cases, result)
    # of one or two points the table says more
    pictures = {t: file for file, t in _TITLES.items() if file in figures and len(summaries) > 2}
    runs.write_results(
        out, "reproduce.json", document, shown, figures, pictures, kinds=("png", "pdf")
    )
    return document


def draw(score: Score, cases: Mapping[str, Case], result: Result) -> dict[str, Figure]:
    """Draws what is kept against what is saved, by the name of the file of each chart."""
    summaries = {policy: outcome.summary for policy, outcome in result.outcomes.items()}
    change = {policy: outcome.change for policy, outcome in result.outcomes.items()}
    policies = {policy: case.policy for policy, case in cases.items()}
    kept = (change, result.float_network.mean)
    if any(case.writing for case in cases.values()):
        pulses = {name: summary.pulses for name, summary in summaries.items()}
        chart = plot.accuracy_against_pulses(policies, pulses, *kept, measure=score.name)
        return {f"{score.name}_against_pulses": chart}
    chart = plot.accuracy_against_reduction(policies, summaries, *kept, measure=score.name)
    return {
        f"{score.name}_against_reduction": chart,
        "reduction_against_index_bits": plot.reduction_against_index_bits(policies, summaries),
    }


def show(out: Path, task: Task, result: Result, document: Mapping[str, Any]) -> None:
    """Prints the table, and what a pass and an inference take on the hardware that was named."""
    score, (reference, *ends) = task.score, result.float_network
    low, high = (score.text(end, 2) for end in ends)
    title = (
        f"{task.name}: float network {score.text(reference, 2)} ({low} to {high}) "
        f"on {result.images:,} {score.examples}"
    )
    fail = any(outcome.seconds is None for outcome in result.outcomes.values())
    written = document["settings"]["writing"] or []
    name = "policy" + ", how it is written" * (len(written) > 1)
    price = ("pulses", "wrong cells") if fail else ("write time", "energy")
    headings = (
        name, "reduction", "net energy", score.name, "change (95 %)", *price, "index bits"
    )  # fmt: skip
    columns = [*(Column(heading) for heading in headings), Column("analog-valid", left=True)]
    rows = []
    for policy, outcome in result.outcomes.items():
        summary = outcome.summary
        change, low, high = (score.change_text(end, 2) for end in outcome.change)
        rows.append((
            policy,
            "" if summary.reduction is None else f"{summary.reduction:.2f}x",
            "" if summary.net_reduction is None else f"{summary.net_reduction:.2f}x",
            score.text(score.changed(reference, outcome.change.mean), 2),
            f"{change} ({low} to {high})",
            *_price_texts(outcome),
            index_bits_text(summary.index_bits_per_weight),
            "yes" if summary.analog_valid else "NO",
        ))  # fmt: skip
    console = results_console()
    console.print(FittingTable(title, columns, rows))
    if "hardware" in document:
        console.print(energy_table(document))
        console.print(inference_table(document))
    chips = max(outcome.summary.chips for outcome in result.outcomes.values())
    over = f"{score.examples} and {chips} chips" if chips > 1 else f"{score.examples}, of one chip"
    how = f"written by {', '.join(written)}; "
    if not fail:
        how = "one constant-amplitude pulse per write, taken to succeed; "
    console.print(
        f"reductions against `unsorted` in {document['config']['encoding']}; intervals over "
        f"{over}; {how}"
        f"{len(result.digital)} tensors left digital; results in {out}/",
        highlight=False,
    )


def _price_texts(outcome: Outcome) -> tuple[str, str]:
    """Writes time and energy, or pulses and the share of wrong cells where writes fail."""
    if outcome.seconds is None or outcome.joules is None:
        summary = outcome.summary
        return f"{summary.pulses:,}", f"{100 * (summary.wrong_share or 0):.3g} %"
    seconds, joules = EngFormatter(unit="s", places=1), EngFormatter(unit="J", places=1)
    return seconds(outcome.seconds), joules(outcome.joules)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"reproduce: {error}")
