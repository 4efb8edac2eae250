"""`memsim advise`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from memsim.cli import options
from memsim.cli.hardware_options import HardwareOption, on_hardware
from memsim.cli.inference_options import PositionsOptions
from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from memsim.cli.report_files import load_plot, missing_plot
from memsim.files.writing import write_text
from memsim.hardware.files import read_hardware
from memsim.report.documents import advice_json
from memsim.report.hardware_tables import advice_tables
from memsim.report.terminal import progress_bar, results_console, stages
from memsim.service.advising import Service, advise
from memsim.service.costs import make_service_inputs, read_service_inputs

__all__ = ["AdviseOptions", "run_advise"]

_DEFAULT_POLICIES = ("unsorted", "sws")
_HARDWARE = "array-128"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdviseOptions(
    options.ForceOption,
    options.SeedOption,
    options.SelectionOptions,
    PositionsOptions,
    HardwareOption,
    options.CrossbarOptions,
    options.CheckpointOptions,
):
    """The options of `memsim advise`."""

    policy: Annotated[
        list[str],
        typer.Option(
            help="to stream under; repeatable, as memsim report takes it",
            show_default=", ".join(_DEFAULT_POLICIES),
            autocompletion=options.complete_policy,
            rich_help_panel=options.POLICY,
        ),
    ] = dataclasses.field(default_factory=list)
    inferences_per_programming: Annotated[
        float,
        typer.Option(
            help="of a network that is held, until it or its adapters are rewritten",
            rich_help_panel=options.PHYSICS,
        ),
    ] = 1e6
    adapter_rank: Annotated[
        int,
        typer.Option(
            help="rank of the adapters that are rewritten", rich_help_panel=options.POLICY
        ),
    ] = 8
    cost: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="endurance and prices of the service",
            rich_help_panel=options.PHYSICS,
        ),
    ] = None
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT.json", help="all figures", rich_help_panel=options.OUTPUT
        ),
    ] = None
    chart_out: Annotated[
        Path | None,
        typer.Option(
            "--chart",
            metavar="OUT.png",
            help="one chart; or OUT.svg, OUT.pdf",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None


@with_options(AdviseOptions)
def run_advise(chosen: AdviseOptions) -> None:
    """Compares streaming a network with holding it, and with rewriting adapters alone."""
    named = chosen.hardware or _HARDWARE
    chosen = on_hardware(dataclasses.replace(chosen, hardware=named))
    hardware, config = read_hardware(named), chosen.config()
    policies = {name: options.parse_policy(name) for name in chosen.policy or _DEFAULT_POLICIES}
    options.check_outputs({"--json": chosen.json_out, "--chart": chosen.chart_out}, chosen.force)
    plot = load_plot() if chosen.chart_out else None
    if chosen.chart_out:
        if plot is None:
            raise ValueError(missing_plot("--chart", chosen.chart_out))
        plot.saving.check_chart(chosen.chart_out, "--chart")
    kind = hardware.cells.kind
    service = Service(
        batch=chosen.batch,
        inferences_per_programming=chosen.inferences_per_programming,
        adapter_rank=chosen.adapter_rank,
        inputs=read_service_inputs(chosen.cost, kind)
        if chosen.cost
        else make_service_inputs(cells=kind),
    )
    # all that can be wrong, before anything long
    source = chosen.open()
    select = chosen.select(source)
    positions = chosen.read_positions(list(options.read_as(source, select)))
    if positions is None:
        raise ValueError(
            "`--positions` is missing: say how many input vectors every layer sees in an "
            "inference, as a number (the tokens of a sequence) or a file."
        )
    with progress_bar() as bar:
        advice = advise(
            source, hardware, policies, positions, service=service, config=config, select=select,
            seed=chosen.seed, progress=stages(bar),
        )  # fmt: skip
    document = advice_json(options.path_text(chosen.checkpoint), config, advice)
    document["made_by"] = how_made("memsim advise", chosen)
    # files first: who reads the terminal may stop reading
    if chosen.json_out:
        write_text(chosen.json_out, json.dumps(document, indent=1), chosen.force)
    if chosen.chart_out and plot is not None:
        figure = plot.ways_to_run(advice.ways)
        plot.save_chart(chosen.chart_out, figure, document["made_by"], force=chosen.force)
    console = results_console()
    for table in advice_tables(document):
        console.print(table)
    console.print(
        f"least cost: {advice.best('cost_per_million')}; least energy: {advice.best('joules')}; "
        f"fewest arrays: {advice.best('arrays')}; a PLACEHOLDER has no source: give your own in "
        "--hardware and --cost",
        highlight=False,
        markup=False,
    )
