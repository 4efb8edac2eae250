"""`memsim report`."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, cast

import rich.console
import typer

import memsim.cli.options as options
from memsim.cells.pulses import HFO2, PCM, ConstantPulses, scheme_costs
from memsim.config import Policy
from memsim.files.checkpoints import open_checkpoint
from memsim.files.chips import load_faults
from memsim.files.writing import check_output, write_text, write_whole
from memsim.report.documents import Upkeep, lifetime_json, service_life_json, to_json
from memsim.report.page import to_html
from memsim.report.tables import lifetime_tables, policy_table, scheme_table
from memsim.report.terminal import progress_bar, results_console
from memsim.report.texts import count_text, lifetime_title, pool_text, printable, wear_text
from memsim.selection import select_by_name
from memsim.service.costs import make_service_inputs, read_service_inputs
from memsim.service.ownership import LEVELLING, Levelling, ServiceLife, life_in_service
from memsim.service.wear import wear_cycles
from memsim.streaming import Comparison, compare

_CELLS = {"hfo2": HFO2, "pcm": PCM}
_ALWAYS = ConstantPulses()  # that succeed, on no cells in particular
_CHARTS = ("writes_by_policy", "reduction_against_index_bits", "chips_at_work")
# of charts in the page, which shows the others as tables
_TITLES = {
    "reduction_against_index_bits": "Reduction and its price",
    "chips_at_work": "Lifetime",
}


def report_command(
    checkpoint: options.Checkpoint,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="repeatable: unsorted, sws, sws-layer, matched:tolerance=T, flip-n-write, aras; "
            "the first four also with bit stucking, as sws+stuck:p=0.5,low=3",
            show_default="unsorted, sws, sws-layer",
        ),
    ] = None,
    old: Annotated[
        Path | None,
        typer.Option("--from", metavar="OLD", help="count deploying CKPT over this version of it"),
    ] = None,
    keep_placement: Annotated[
        bool, typer.Option("--keep-placement", help="new weights take the places of the old ones")
    ] = False,
    rows: options.Rows = 128,
    bits: options.Bits = 8,
    cell_bits: options.CellBits = 1,
    encoding: options.Encoding = "twos_complement",
    crossbars: Annotated[
        str | None,
        typer.Option(help="number, or all: one per section", show_default="1; all with --from"),
    ] = None,
    schedule: options.Schedule = "block",
    scale_per: options.ScalePer = "tensor",
    passes: Annotated[
        int | None,
        typer.Option(help="times the network is programmed", show_default="1; 2 with --lifetime"),
    ] = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    layout: options.Layout = "auto",
    transposed: options.Transposed = None,
    stuck_at_0: options.StuckAt0 = 0.0,
    stuck_at_1: options.StuckAt1 = 0.0,
    faults: options.Faults = None,
    chips: Annotated[int, typer.Option(help="chips to average over")] = 1,
    seed: options.Seed = 0,
    cells: Annotated[
        str | None,
        typer.Option(help=f"write time and energy on cells of {' or '.join(_CELLS)}, per scheme"),
    ] = None,
    lifetime: Annotated[
        bool, typer.Option("--lifetime", help="years until a cell fails, by a steady pass")
    ] = False,
    cost: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="prices: with --lifetime, also cost")
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            help="of --cells, whose write time and energy --lifetime takes", show_default="constant"
        ),
    ] = None,
    levelling: Annotated[
        str, typer.Option(help=f"what rotates for --lifetime: {', '.join(LEVELLING)}")
    ] = "none",
    spares: Annotated[
        int, typer.Option(min=0, help="rows per crossbar that replace worn ones for --lifetime")
    ] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT.json")] = None,
    html_out: Annotated[Path | None, typer.Option("--html", metavar="OUT.html")] = None,
    png_out: Annotated[
        Path | None, typer.Option("--png", metavar="FOLDER", help="charts, in a folder")
    ] = None,
    force: options.Force = False,
) -> None:
    """Cell writes of programming a checkpoint under each policy.

    With --from, of deploying it over an older version, weight stationary.
    """
    names = policy or ["unsorted", "sws", "sws-layer"]
    if len(set(names)) < len(names):
        raise ValueError(f"`--policy` names {_repeated(names)} twice; give each policy once.")
    policies = {name: Policy.parse(name) for name in names}
    crossbars = crossbars or ("all" if old else "1")
    if cells not in (None, *_CELLS):
        raise ValueError(f"`--cells` is {cells!r}; give {' or '.join(_CELLS)}.")
    if lifetime and (old or crossbars == "all"):
        raise ValueError(
            "`--lifetime` is of weight streaming; weight stationary, a steady pass writes nothing. "
            "Give a number of --crossbars and no --from."
        )
    if keep_placement and not old:
        raise ValueError("`--keep-placement` is of an older version; give it, --from OLD.")
    if (cost or scheme or levelling != "none" or spares) and not lifetime:
        raise ValueError(
            "`--cost`, `--scheme`, `--levelling` and `--spares` are of the lifetime; give "
            "--lifetime too."
        )
    schemes, scheme = _CELLS[cells] if cells else {"constant": _ALWAYS}, scheme or "constant"
    if scheme not in schemes:
        raise ValueError(
            f"`--scheme` is {scheme!r}; choose one of {', '.join(schemes)}"
            + ("." if cells else ", or give --cells, which has more.")
        )
    kind = cells or "hfo2"
    inputs = read_service_inputs(cost, kind) if cost else make_service_inputs(cells=kind)
    config = options.make_config(rows, bits, cell_bits, encoding, crossbars, schedule, scale_per)
    select = select_by_name(layout, include, exclude, transposed)
    plot = _plot() if html_out or png_out else None
    if png_out and not plot:
        raise ValueError(f'`--png` {png_out} needs matplotlib: pip install "memsim[plot]".')
    drawn = _CHARTS if lifetime else _CHARTS[:-1]
    charts = {name: png_out / f"{name}.png" for name in drawn} if png_out else {}
    if png_out:
        png_out.mkdir(parents=True, exist_ok=True)
    for output in (json_out, html_out, *charts.values()):
        if output:
            check_output(output, force)
    source = open_checkpoint(checkpoint)
    try:
        before = open_checkpoint(old) if old else None
    except (ValueError, OSError) as error:
        raise type(error)(f"--from: {error}") from error
    stuck = None
    if faults:
        try:
            stuck = load_faults(faults)
        except (ValueError, OSError) as error:
            raise type(error)(f"--faults: {error}") from error
    with progress_bar() as bar:
        task = bar.add_task(f"programming {checkpoint.name}", total=1.0)
        result = compare(
            source.tensors,
            config,
            policies,
            load=source.load,
            old=before.tensors if before else None,
            load_old=before.load if before else None,
            keep_placement=keep_placement,
            select=select,
            passes=(2 if lifetime else 1) if passes is None else passes,
            chips=chips,
            seed=seed,
            stuck_at_0=stuck_at_0,
            stuck_at_1=stuck_at_1,
            faults=stuck,
            steady=lifetime,
            progress=lambda fraction: bar.update(task, completed=fraction),
        )
    document = to_json(str(checkpoint), config, result.policies, result.digital)
    if old:
        document |= {"from": str(old), "keep_placement": keep_placement}
    if cells:
        fields = {name: dataclasses.asdict(each) for name, each in schemes.items()}
        document["cells"] = {"name": cells, "schemes": fields}
        for name, costs in scheme_costs(result.policies, schemes).items():
            document["policies"][name]["schemes"] = costs
    lives = {
        name: life_in_service(
            last.summary,
            inputs,
            cycles=[wear_cycles(writes, config) for writes in last.wear],
            seed=seed,
            scheme=schemes[scheme],
            levelling=cast(Levelling, levelling),
            spares=spares,
        )
        for name, last in result.steady.items()
    }
    if lifetime:
        upkeep = Upkeep(cells, scheme, cast(Levelling, levelling), spares)
        document["lifetime"] = lifetime_json(inputs, config, upkeep, bool(cost))
        for name, life in lives.items():
            document["policies"][name]["lifetime"] = service_life_json(life)
    title = "Cell writes to program the network"
    if old:
        placed = "in the places of the old weights" if keep_placement else "placed afresh"
        title = f"Cell writes to deploy the network over {old.name}, weight stationary, {placed}"
    console = results_console()
    console.print(policy_table(result.policies, title))
    if not all(summary.analog_valid for summary in result.policies.values()):
        console.print(
            "analog-valid NO: sections mix outputs or complemented words, so a column current is "
            "no sum of one output"
        )
    if cells:
        console.print(scheme_table(document))
        for name, each in schemes.items():
            if each.placeholders:
                missing = ", ".join(each.placeholders)
                console.print(f"{name}*: placeholders, nobody publishes {missing}", markup=False)
    if lifetime:
        for table in lifetime_tables(lives, inputs, lifetime_title(document), bool(cost)):
            console.print(table)
        console.print(
            f"{wear_text(document)} With a batch of 1 every inference takes a programming of its "
            "own."
        )
    _print_tensors(console, result)
    if json_out:
        write_text(json_out, json.dumps(document, indent=1), force)
    figures = _draw(plot, policies, result, lives, pool_text(document["config"])) if plot else {}
    for name, path in charts.items():
        write_whole(path, figures[name].savefig, force)
    if html_out:
        pictures = {}
        if plot:
            pictures = {
                _TITLES[name]: plot.to_svg(x) for name, x in figures.items() if name in _TITLES
            }
        write_text(html_out, to_html(document, pictures=pictures), force)
        if not plot:
            console.print(
                f'{html_out} has no chart: that takes matplotlib, pip install "memsim[plot]"',
                markup=False,
            )


def _print_tensors(console: rich.console.Console, result: Comparison) -> None:
    """Lists what was programmed and what was left digital."""
    layers = next(iter(result.policies.values())).layers
    weights = sum(layer.weights for layer in layers.values())
    mapped = (f"{name} [{layer.inputs} x {layer.outputs}]" for name, layer in layers.items())
    what = f"{count_text(weights, 'weight')} in {count_text(len(layers), 'tensor')}"
    console.print(f"[bold]programmed[/]: {what}")
    console.print(_listed(mapped), style="dim", highlight=False, markup=False)
    console.print(f"[bold]left digital[/]: {count_text(len(result.digital), 'tensor')}")
    console.print(_listed(result.digital) or "none", style="dim", highlight=False, markup=False)


def _draw(
    plot: ModuleType,
    policies: Mapping[str, Policy],
    result: Comparison,
    lives: Mapping[str, ServiceLife],
    pool: str,
) -> dict[str, Any]:
    """The figures of `_CHARTS`, by name; the last where there are lifetimes."""
    figures = (
        plot.writes_by_policy(result.policies),
        plot.reduction_against_index_bits(policies, result.policies),
        *(
            [plot.chips_at_work(policies, {k: w.years for k, w in lives.items()}, pool)]
            if lives
            else []
        ),
    )
    return dict(zip(_CHARTS, figures, strict=False))


def _plot() -> ModuleType | None:
    """`memsim.plot`, where matplotlib is installed; slow to import."""
    try:
        from memsim import plot
    except ImportError:
        return None
    return plot


def _repeated(names: Iterable[str]) -> str:
    return ", ".join(name for name, count in Counter(names).items() if count > 1)


def _listed(names: Iterable[str]) -> str:
    """Names on one line; those that differ in numbers alone fold: `blocks.*.norm1.weight (12)`."""
    folded = Counter(re.sub(r"(?<=[./_])[0-9]+(?=[./_])", "*", printable(name)) for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in folded.items())
