"""`memsim report`."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import rich.console
import typer

from memsim.cli import options
from memsim.cli.again import AgainOption, compare_figures
from memsim.cli.encoding_options import Asked, EncodingOptions, compare_rows, encodings_json
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
from memsim.cli.rules import REPORT_RULES, check_rules
from memsim.cli.service_options import ServiceOptions
from memsim.config import CrossbarConfig
from memsim.files.checkpoints import Checkpoint, open_checkpoint
from memsim.hardware.inference import InferenceCost, inference_cost
from memsim.policies import Policy
from memsim.report.documents import add_hardware, to_json, writing_json
from memsim.report.tables import policy_table, writing_table
from memsim.report.terminal import listed, progress_bar, results_console
from memsim.report.texts import (
    CODE_ERRORS,
    count_text,
    encodings_text,
    net_text,
    printable,
    width_text,
    writing_text,
)
from memsim.selection import Matrix, layout_of
from memsim.streaming import Chips, Comparison, compare
from memsim.summary import mean_over_chips

__all__ = ["ReportOptions", "run_report"]

_DEFAULT_POLICIES = ("unsorted", "sws", "sws-layer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions(
    ReportFiles,
    AgainOption,
    ServiceOptions,
    options.SeedOption,
    options.WritingOption,
    options.FaultOptions,
    options.SelectionOptions,
    PositionsOptions,
    HardwareOption,
    EncodingOptions,
    options.CheckpointOptions,
):
    """The options of `memsim report`."""

    policy: Annotated[
        list[str],
        typer.Option(
            help="repeatable: unsorted, sws, sws-layer, matched:tolerance=T, flip-n-write, aras; "
            "the first four also with bit stucking, as sws+stuck:p=0.5,low=3; or your own, as "
            "module:Class",
            show_default=", ".join(_DEFAULT_POLICIES),
        ),
    ] = dataclasses.field(default_factory=list)
    old: Annotated[
        Path | None,
        typer.Option("--from", metavar="OLD", help="count deploying CKPT over this version of it"),
    ] = None
    keep_placement: Annotated[
        bool, typer.Option("--keep-placement", help="new weights take the places of the old ones")
    ] = False
    crossbars: Annotated[
        str | None,
        typer.Option(
            help="number, or all: one per section",
            show_default="1; all with --from",
            rich_help_panel=options.CROSSBARS,
        ),
    ] = None
    passes: Annotated[
        int | None,
        typer.Option(help="times the network is programmed", show_default="1; 2 with --lifetime"),
    ] = None
    chips: Annotated[
        int, typer.Option(help="chips to average over", rich_help_panel=options.CHIPS)
    ] = 1

    def policies(self) -> dict[str, Policy]:
        """Reads the policies, by their names as typed.

        Raises:
          ValueError: none such, or one given twice.
        """
        names = self.policy or list(_DEFAULT_POLICIES)
        if len(set(names)) < len(names):
            raise ValueError(f"`--policy` names {_repeated(names)} twice; give each policy once.")
        return {name: options.parse_policy(name) for name in names}

    @property
    def title(self) -> str:
        """The heading of what is counted."""
        if not self.old:
            return "Cell writes to program the network"
        placed = "in the places of the old weights" if self.keep_placement else "placed afresh"
        old = printable(self.old.name)
        return f"Cell writes to deploy the network over {old}, weight stationary, {placed}"


@with_options(ReportOptions)
def run_report(chosen: ReportOptions) -> None:
    """Counts the cell writes of programming a checkpoint under each policy.

    With --from, of deploying it over an older version, weight stationary.
    """
    chosen = on_hardware(chosen)
    crossbars = "all" if chosen.old else "1"
    config = chosen.config(crossbars)
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
    inputs = chosen.inputs()
    hardware = priced_hardware(chosen, config)
    chosen.check_again()
    outputs = chosen.check_files(_more_charts(chosen, config))
    source = chosen.open()
    writing = chosen.read_writing(config)
    positions = chosen.read_positions(list(options.read_as(source, chosen.select(source))))
    if positions and hardware is None:
        raise ValueError(
            f"`--positions` is of an inference, but there are no prices of cells of "
            f"{config.cell_bits} bits; give --hardware that has them."
        )
    result, asked = _compare(chosen, source, asked)
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
    if chosen.old:
        document |= {"from": options.path_text(chosen.old), "keep_placement": chosen.keep_placement}
    if writing is not None:
        document["writing"] = writing_json(str(chosen.writing), writing)
    if hardware is not None:
        baselines = dict.fromkeys(result.policies, mean_over_chips(result.baseline))
        add_hardware(document, result.policies, baselines, hardware, positions, costs)
    chosen.add_to(document, result, config, inputs, lives)
    document["made_by"] = how_made("memsim report", chosen)
    # files first: who reads the terminal may stop reading
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
    console.print(policy_table(result.policies, chosen.title))
    console.print(f"crossbars: {width_text(document['config'])}", highlight=False)
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


def _compare(chosen: ReportOptions, source: Checkpoint, asked: Asked) -> tuple[Comparison, Asked]:
    """Counts all rows, with a bar for whoever watches; gives those that are shown."""
    select = chosen.select(source)
    before = options.naming("--from", open_checkpoint, chosen.old) if chosen.old else None
    chips = Chips(
        number=chosen.chips,
        seed=chosen.seed,
        stuck_at_0=chosen.stuck_at_0,
        stuck_at_1=chosen.stuck_at_1,
        faults=chosen.fault_map(),
    )
    passes = (2 if chosen.lifetime else 1) if chosen.passes is None else chosen.passes
    matrices = options.read_as(source, select)
    for row in asked.rows.values():
        options.check_memory(matrices, row.config, chips=chosen.chips, passes=passes)

    def compare_in(config: CrossbarConfig, *arguments: Any, **words: Any) -> Comparison:
        return compare(
            source,
            config,
            *arguments,
            old=before,
            keep_placement=chosen.keep_placement,
            select=select,
            passes=passes,
            chips=chips,
            steady=chosen.lifetime,
            writing=chosen.read_writing(config),
            **words,
        )

    with progress_bar() as bar:
        task = bar.add_task(f"programming {printable(chosen.checkpoint.name)}", total=1.0)
        return compare_rows(asked, compare_in, lambda share: bar.update(task, completed=share))


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


def _repeated(names: Iterable[str]) -> str:
    return ", ".join(name for name, count in Counter(names).items() if count > 1)
