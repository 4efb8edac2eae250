"""`memsim report`."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import rich.console
import typer

from memsim.cli import options
from memsim.cli.again import AgainOption, compare_figures
from memsim.cli.encoding_options import Asked, EncodingOptions, compare_rows, encodings_json
from memsim.cli.evaluate_option import EvaluateOption, load_function
from memsim.cli.hardware_options import (
    HardwareOption,
    low_columns_differ,
    on_hardware,
    price,
    priced_hardware,
    print_hardware,
)
from memsim.cli.inference_options import PositionsOptions
from memsim.cli.made_by import how_made
from memsim.cli.records import given_options, with_options
from memsim.cli.report_files import ReportFiles, draw_charts
from memsim.cli.report_policies import PolicyOptions
from memsim.cli.rules import REPORT_RULES, check_rules
from memsim.cli.service_options import ServiceOptions
from memsim.config import CrossbarConfig
from memsim.files.checkpoints import Checkpoint, open_checkpoint
from memsim.hardware.inference import InferenceCost, inference_cost
from memsim.hardware.parts import Hardware
from memsim.report._made_by import setup_lines
from memsim.report.documents import add_hardware, to_json, writing_json
from memsim.report.tables import evaluation_table, policy_table, writing_table
from memsim.report.terminal import listed, progress_bar, results_console, stages
from memsim.report.texts import (
    CODE_ERRORS,
    count_text,
    encodings_text,
    net_text,
    writing_text,
)
from memsim.selection import Matrix, layout_of
from memsim.streaming import Chips, Comparison, compare
from memsim.summary import mean_over_chips

__all__ = ["ReportOptions", "run_report"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions(
    ReportFiles,
    AgainOption,
    ServiceOptions,
    EvaluateOption,
    options.SeedOption,
    options.WritingOption,
    options.FaultOptions,
    options.SelectionOptions,
    PositionsOptions,
    HardwareOption,
    EncodingOptions,
    PolicyOptions,
    options.CheckpointOptions,
):
    """The options of `memsim report`."""

    crossbars: Annotated[
        str | None,
        typer.Option(
            help="number, or all: one per section",
            show_default="1; all with --from",
            rich_help_panel=options.CROSSBARS,
        ),
    ] = None
    chips: Annotated[
        int, typer.Option(help="chips to average over", rich_help_panel=options.CHIPS)
    ] = 1

    @property
    def times(self) -> int:
        """The passes: a lifetime is of a steady one, which the first is not."""
        return (2 if self.lifetime else 1) if self.passes is None else self.passes


@with_options(ReportOptions)
def run_report(chosen: ReportOptions) -> None:
    """Counts the cell writes of programming a checkpoint under each policy.

    With --from, of deploying it over an older version, weight stationary.
    """
    chosen = on_hardware(chosen)
    crossbars = "all" if chosen.old else "1"
    config = chosen.config(crossbars)
    asked = _checked(chosen, config, crossbars)
    inputs = chosen.inputs()
    hardware = priced_hardware(chosen, config)
    chosen.check_again()
    outputs = chosen.check_files(_more_charts(chosen, config))
    with progress_bar() as bar:
        tell = stages(bar)
        tell(None, f"reading {chosen.checkpoint.name}")
        source = chosen.open()
        positions = _positions(chosen, source, config, hardware)
        begun = chosen.start_evaluation(source)
        result, asked = _compare(chosen, source, asked, tell)
        evaluation = begun and chosen.evaluate_rows(
            begun, source, asked.rows, chosen.select(source), chosen.chips, chosen.times, tell
        )
        tell(None, "counting")
        configs = {row: each.config for row, each in asked.rows.items()}
        lives = chosen.lives(result, configs, inputs, chosen.seed)
        costs: dict[str, InferenceCost] = {}
        if hardware is not None:
            result = price(result, hardware)
            # an inference only where it is said what layers see
            for name, summary in result.policies.items() if positions else ():
                costs[name] = inference_cost(
                    summary, positions or {}, configs[name], hardware, batch=chosen.batch
                )
        document = to_json(
            options.path_text(chosen.checkpoint), config, result.policies, result.digital
        )
        encodings_json(document, asked, result)
        chosen.old_json(document)
        writing = chosen.read_writing(config)
        if writing is not None:
            document["writing"] = writing_json(str(chosen.writing), writing)
        if hardware is not None:
            baselines = dict.fromkeys(result.policies, mean_over_chips(result.baseline))
            add_hardware(document, result.policies, baselines, hardware, positions, costs)
        chosen.add_to(document, result, config, inputs, lives)
        if evaluation:
            evaluation.add_to(document)
        tell(None, f"reading {chosen.checkpoint.name} for its SHA-256")
        document["made_by"] = how_made("memsim report", chosen)
        # files first: who reads the terminal may stop reading
        tell(None, "writing files")
        figures: dict[str, Any] = {}
        if outputs.plot:
            figures = draw_charts(outputs.plot, asked, result, lives, costs, document)
        chosen.write_files(outputs, document, figures)
    console = results_console()
    _print_counts(console, chosen, asked, result, document)
    chosen.print_to(console, document, inputs, lives)
    _print_tensors(console, result, source.reasons)
    if chosen.html_out and not outputs.plot:
        console.print(
            f'{chosen.html_out} has no chart: that takes matplotlib, pip install "memsim[plot]"',
            markup=False,
        )
    if chosen.again:
        compared = compare_figures(chosen.again, document)
        console.print(compared, highlight=False, markup=False, soft_wrap=True)


def _checked(chosen: ReportOptions, config: CrossbarConfig, crossbars: str) -> Asked:
    """Checks options that go together, and gives the rows that are asked for."""
    chosen.check(config)
    check_rules(REPORT_RULES, given_options())
    asked = chosen.asked(chosen.policies(), crossbars)
    widths = sorted({row.config.bit_lines for row in asked.rows.values()})
    if chosen.faults and len(widths) > 1:
        raise ValueError(
            f"`--faults` is a map of one width, but words take {widths[0]} to {widths[-1]} cells; "
            "give --columns, which makes crossbars of all encodings alike, or one --encoding."
        )
    if chosen.lifetime and config.crossbars is None:
        raise ValueError(
            "`--lifetime` is of weight streaming; weight stationary, a steady pass writes nothing. "
            "Give a number of --crossbars."
        )
    # what is only read here is checked before anything long
    chosen.read_writing(config)
    if chosen.evaluate:
        load_function(chosen.evaluate)
    return asked


def _positions(
    chosen: ReportOptions, source: Checkpoint, config: CrossbarConfig, hardware: Hardware | None
) -> dict[str, int] | None:
    """Reads the input vectors of an inference, where they are given."""
    positions = chosen.read_positions(list(options.read_as(source, chosen.select(source))))
    if positions and hardware is None:
        raise ValueError(
            f"`--positions` is of an inference, but there are no prices of cells of "
            f"{config.cell_bits} bits; give --hardware that has them."
        )
    return positions


def _more_charts(chosen: ReportOptions, config: CrossbarConfig) -> list[str]:
    """Lists the charts that not every report has."""
    charts = ["chips_at_work"] if chosen.lifetime else []
    return charts + (["arrays_at_work"] if chosen.positions and config.crossbars else [])


def _print_counts(
    console: rich.console.Console,
    chosen: ReportOptions,
    asked: Asked,
    result: Comparison,
    document: dict[str, Any],
) -> None:
    """Prints what was counted, and what it takes on the hardware."""
    for name, text in setup_lines(document).items():
        console.print(f"{name}: {text}", highlight=False, markup=False)
    console.print(policy_table(result.policies, chosen.title))
    if "evaluation" in document:
        console.print(evaluation_table(document))
    # where prices are the default, one line says so
    if chosen.hardware is not None or "positions" in document:
        print_hardware(console, document)
    elif net_text(document):
        console.print(f"{net_text(document)}; --hardware has more", highlight=False)
    if "writing" in document:
        console.print(writing_table(result.policies, writing_text(document)))
        if low_columns_differ(chosen):
            console.print(
                "energy is an upper bound: low-order columns are priced as if they were verified"
            )
    if asked.choice:
        console.print(encodings_text(document), highlight=False)
        for row, why in asked.left_out.items():
            console.print(f"left out: {row}: {why}", highlight=False, markup=False)
    if any(summary.code_error_rms is not None for summary in result.policies.values()):
        console.print(CODE_ERRORS)
    if not all(summary.analog_valid for summary in result.policies.values()):
        console.print(
            "analog-valid NO: sections mix outputs or complemented words, so a column current is "
            "no sum of one output"
        )


def _compare(
    chosen: ReportOptions,
    source: Checkpoint,
    asked: Asked,
    tell: Callable[[float | None, str], None],
) -> tuple[Comparison, Asked]:
    """Counts all rows, and tells how far it is; gives those that are shown."""
    select = chosen.select(source)
    before = options.naming("--from", open_checkpoint, chosen.old) if chosen.old else None
    chips = Chips(
        number=chosen.chips,
        seed=chosen.seed,
        stuck_at_0=chosen.stuck_at_0,
        stuck_at_1=chosen.stuck_at_1,
        faults=chosen.fault_map(),
    )
    matrices = options.read_as(source, select)
    for row in asked.rows.values():
        options.check_memory(matrices, row.config, chips=chosen.chips, passes=chosen.times)

    def compare_in(config: CrossbarConfig, *arguments: Any, **words: Any) -> Comparison:
        return compare(
            source,
            config,
            *arguments,
            old=before,
            keep_placement=chosen.keep_placement,
            select=select,
            passes=chosen.times,
            chips=chips,
            steady=chosen.lifetime,
            writing=chosen.read_writing(config),
            **words,
        )

    return compare_rows(asked, compare_in, tell)


def _print_tensors(
    console: rich.console.Console, result: Comparison, reasons: Mapping[str, str]
) -> None:
    """Lists what was programmed, and how it was read, and what was left digital, and why."""
    tensors = {each.tensor: each.matrix for each in result.matrices.values()}
    slices = Counter(each.tensor for each in result.matrices.values())
    weights = sum(slices[name] * each.inputs * each.outputs for name, each in tensors.items())
    sizes = f"{count_text(weights, 'weight')} in {count_text(len(tensors), 'tensor')}"
    console.print(f"[bold]programmed[/]: {sizes}")
    read = (_read_as(name, slices[name], matrix) for name, matrix in tensors.items())
    console.print(listed(read), style="dim", highlight=False, markup=False)
    console.print(f"[bold]left digital[/]: {count_text(len(result.digital), 'tensor')}")
    digital = (f"{name}: {reasons[name]}" if name in reasons else name for name in result.digital)
    console.print(listed(digital) or "none", style="dim", highlight=False, markup=False)


def _read_as(name: str, slices: int, matrix: Matrix) -> str:
    """Says how a tensor was read."""
    size = f"{matrix.inputs} x {matrix.outputs}"
    size = f"{slices} x ({size})" if matrix.stacked else size
    return f"{name} [{size}] {layout_of(matrix)}"
