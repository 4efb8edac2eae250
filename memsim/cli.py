"""The command line: `memsim report`, `memsim program`, `memsim plan`."""

import dataclasses
import importlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress
import typer
from jaxtyping import Array, Key

from memsim.budget import Trial, budget, budget_json, budget_tables
from memsim.checkpoint import (
    check_output,
    load_chip,
    load_faults,
    load_plan,
    open_checkpoint,
    save_chip,
    save_plan,
    save_tensors,
    write_text,
    write_whole,
)
from memsim.chip import Chip, fault_words, with_faults
from memsim.compare import compare
from memsim.config import ENCODINGS, SCHEDULES, CrossbarConfig, Policy
from memsim.cost import assume, assumptions_json, read_assumptions
from memsim.device import HFO2, PCM, scheme_costs
from memsim.network import program, sample_chip
from memsim.planning import Plan, plan, with_stucking
from memsim.report import policy_table, scheme_table, summarize, to_html, to_json
from memsim.selection import LAYOUTS, select_by_name
from memsim.worth import worth, worth_json, worth_tables

_CELLS = {"hfo2": HFO2, "pcm": PCM}
_CHARTS = ("writes_by_policy", "reduction_against_index_bits")

app = typer.Typer(
    help="Count what it costs to program a neural network onto memristive crossbars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CKPT", help=".safetensors, its .index.json, or .npz")
]
Rows = Annotated[int, typer.Option(help="weights per section: rows of a crossbar")]
Bits = Annotated[int, typer.Option(help="bits per weight, sign included")]
CellBits = Annotated[int, typer.Option(help="bits per cell: 1, 2 or 4")]
Encoding = Annotated[str, typer.Option(help=", ".join(ENCODINGS))]
Crossbars = Annotated[str, typer.Option(help="number of crossbars, or all: one per section")]
ScheduleOption = Annotated[str, typer.Option("--schedule", help=" or ".join(SCHEDULES))]
ScalePer = Annotated[str, typer.Option(help="quantization scale per tensor or output")]
Passes = Annotated[int, typer.Option(help="times the network is programmed")]
Include = Annotated[str | None, typer.Option(metavar="RE", help="map only names that match")]
Exclude = Annotated[str | None, typer.Option(metavar="RE", help="leave names that match digital")]
Layout = Annotated[str, typer.Option(help=f"{', '.join(LAYOUTS)}: auto goes by the names")]
Transposed = Annotated[
    str | None, typer.Option(metavar="RE", help=r"torch weights \[in, out, ...] that match")
]
StuckAt0 = Annotated[float, typer.Option("--stuck-at-0", help="share of cells stuck at 0")]
StuckAt1 = Annotated[float, typer.Option("--stuck-at-1", help="share of cells stuck at 1")]
Faults = Annotated[Path | None, typer.Option(metavar="MAP", help="fault map, .npz or .safetensors")]
Seed = Annotated[int, typer.Option(help="of the chips' draws")]
Force = Annotated[bool, typer.Option("--force", help="replace output files that exist")]


@app.command()
def report(
    checkpoint: Checkpoint,
    policy: Annotated[
        list[str] | None, typer.Option(help='may be repeated; "sws+stuck:p=0.5,low=3"')
    ] = None,
    old: Annotated[
        Path | None,
        typer.Option("--from", metavar="OLD", help="count deploying CKPT over this version of it"),
    ] = None,
    keep_placement: Annotated[
        bool, typer.Option("--keep-placement", help="new weights take the places of the old ones")
    ] = False,
    rows: Rows = 128,
    bits: Bits = 8,
    cell_bits: CellBits = 1,
    encoding: Encoding = "twos_complement",
    crossbars: Annotated[
        str | None,
        typer.Option(help="number, or all: one per section", show_default="1; all with --from"),
    ] = None,
    schedule: ScheduleOption = "block",
    scale_per: ScalePer = "tensor",
    passes: Annotated[
        int | None,
        typer.Option(help="times the network is programmed", show_default="1; 2 with --lifetime"),
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    layout: Layout = "auto",
    transposed: Transposed = None,
    stuck_at_0: StuckAt0 = 0.0,
    stuck_at_1: StuckAt1 = 0.0,
    faults: Faults = None,
    lifetime: Annotated[
        bool, typer.Option("--lifetime", help="years until the first cell fails, by a steady pass")
    ] = False,
    cost: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="prices: with --lifetime, also cost")
    ] = None,
    chips: Annotated[int, typer.Option(help="chips to average over")] = 1,
    seed: Seed = 0,
    cells: Annotated[
        str | None,
        typer.Option(help=f"write time and energy on cells of {' or '.join(_CELLS)}, per scheme"),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT.json")] = None,
    html_out: Annotated[Path | None, typer.Option("--html", metavar="OUT.html")] = None,
    png_out: Annotated[
        Path | None, typer.Option("--png", metavar="FOLDER", help="charts, in a folder")
    ] = None,
    force: Force = False,
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
    if cost and not lifetime:
        raise ValueError("`--cost` is of the lifetime; give --lifetime too.")
    assumptions = read_assumptions(cost) if cost else assume()
    config = _config(rows, bits, cell_bits, encoding, crossbars, schedule, scale_per)
    select = select_by_name(layout, include, exclude, transposed)
    plot = _plot() if html_out or png_out else None
    if png_out and not plot:
        raise ValueError(f'`--png` {png_out} needs matplotlib: pip install "memsim[plot]".')
    charts = {name: png_out / f"{name}.png" for name in _CHARTS} if png_out else {}
    for output in (json_out, html_out, *charts.values()):
        if output:
            check_output(output, force)
    source = open_checkpoint(checkpoint)
    try:
        before = open_checkpoint(old) if old else None
    except (ValueError, OSError) as error:
        raise type(error)(f"--from: {error}") from error
    with _progress() as bar:
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
            faults=load_faults(faults) if faults else None,
            steady=lifetime,
            progress=lambda fraction: bar.update(task, completed=fraction),
        )
    document = to_json(str(checkpoint), config, result.policies, result.digital)
    if old:
        document |= {"from": str(old), "keep_placement": keep_placement}
    if cells:
        schemes = {name: dataclasses.asdict(scheme) for name, scheme in _CELLS[cells].items()}
        document["cells"] = {"name": cells, "schemes": schemes}
        for name, costs in scheme_costs(result.policies, _CELLS[cells]).items():
            document["policies"][name]["schemes"] = costs
    worths = {name: worth(*last, assumptions, seed) for name, last in result.steady.items()}
    if lifetime:
        document |= {"lifetime": assumptions_json(assumptions)}
        for name, found in worths.items():
            document["policies"][name]["lifetime"] = worth_json(found)
    layers = next(iter(result.policies.values())).layers
    console = _console()
    if old:
        placed = "in the places of the old weights" if keep_placement else "placed afresh"
        title = f"Cell writes to deploy the network over {old.name}, weight stationary, {placed}"
        console.print(policy_table(result.policies, title))
    else:
        console.print(policy_table(result.policies))
    if not all(summary.analog_valid for summary in result.policies.values()):
        console.print(
            "analog-valid NO: sections mix outputs or complemented words, so a column current is "
            "no sum of one output"
        )
    if cells:
        console.print(scheme_table(document))
        for name, scheme in _CELLS[cells].items():
            if scheme.placeholders:
                missing = ", ".join(scheme.placeholders)
                console.print(f"{name}*: placeholders, nobody publishes {missing}", markup=False)
    for table in worth_tables(worths, assumptions, cost is not None) if lifetime else ():
        console.print(table)
    mapped = (f"{name} [{layer.inputs} x {layer.outputs}]" for name, layer in layers.items())
    console.print(f"[bold]programmed[/]: {document['weights']:,} weights in {len(layers)} tensors")
    console.print(_listed(mapped), style="dim", highlight=False, markup=False)
    console.print(f"[bold]left digital[/]: {len(result.digital)} tensors")
    console.print(_listed(result.digital) or "none", style="dim", highlight=False, markup=False)
    if json_out:
        write_text(json_out, json.dumps(document, indent=1), force)
    figures = {}
    if plot:
        trade = plot.reduction_against_index_bits(policies, result.policies)
        figures = dict(zip(_CHARTS, (plot.writes_by_policy(result.policies), trade), strict=True))
    for name, path in charts.items():
        write_whole(path, figures[name].savefig, force)
    if html_out:
        pictures = {"Reduction and its price": plot.to_svg(trade)} if plot else {}
        write_text(html_out, to_html(document, pictures=pictures), force)
        if not plot:
            console.print(
                f'{html_out} has no chart: that takes matplotlib, pip install "memsim[plot]"',
                markup=False,
            )


@app.command("program")
def program_command(
    checkpoint: Checkpoint,
    policy: Annotated[str, typer.Option(help='such as "sws+stuck:p=0.5,low=3"')],
    out: Annotated[Path, typer.Option(metavar="OUT", help=".safetensors or .npz")],
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="placement and crossbars from a file; bit stucking by --policy"
        ),
    ] = None,
    chip_file: Annotated[Path | None, typer.Option("--chip", help="the chip, from a file")] = None,
    save_chip_file: Annotated[
        Path | None, typer.Option("--save-chip", help="where to save the chip afterwards")
    ] = None,
    rows: Rows = 128,
    bits: Bits = 8,
    cell_bits: CellBits = 1,
    encoding: Encoding = "twos_complement",
    crossbars: Crossbars = "1",
    schedule: ScheduleOption = "block",
    scale_per: ScalePer = "tensor",
    passes: Passes = 1,
    include: Include = None,
    exclude: Exclude = None,
    layout: Layout = "auto",
    transposed: Transposed = None,
    stuck_at_0: StuckAt0 = 0.0,
    stuck_at_1: StuckAt1 = 0.0,
    faults: Faults = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write the weights that a chip really holds: same names, shapes and dtypes."""
    parsed = Policy.parse(policy)
    config = _config(rows, bits, cell_bits, encoding, crossbars, schedule, scale_per)
    select = select_by_name(layout, include, exclude, transposed)
    if chip_file and (faults or stuck_at_0 or stuck_at_1):
        raise ValueError(
            "`--chip` brings its own stuck cells; leave --faults and --stuck-at-* out."
        )
    for output in (out, save_chip_file):
        if output:
            check_output(output, force)
    source = open_checkpoint(checkpoint)
    tensors = {name: source.load(name) for name in source.tensors}
    # JAX would make float32 of float64 tensors
    double = any(tensor.dtype == np.float64 for tensor in source.tensors.values())
    with jax.enable_x64(double), _progress() as bar:
        bar.add_task(f"programming {checkpoint.name}", total=None)
        if plan_file:
            plan_ = with_stucking(load_plan(plan_file), parsed)
            if config not in (CrossbarConfig(), plan_.config.unflagged):
                raise ValueError(f"`--plan` {plan_file} is for {plan_.config}; leave these out.")
        else:  # stuck cells are avoided once there is a chip: a plain plan has as many crossbars
            avoids = parsed.faults == "avoid"
            plan_ = plan(tensors, config, Policy() if avoids else parsed, select=select)
        key = jax.random.split(jax.random.key(seed), 1)[0]  # the first chip of `memsim report`
        chip = _open_chip(key, chip_file, faults, plan_)
        chip = chip or sample_chip(key, plan_, stuck_at_0, stuck_at_1)
        if parsed.faults == "avoid" and not plan_file:
            plan_ = plan(tensors, config, parsed, select=select, chip=chip)
        mapped = {name: jnp.asarray(tensors[name]) for name in plan_.names if name in tensors}
        effective, programming = program(mapped, plan_, chip, passes=passes)
    save_tensors(out, tensors | effective, force=force)
    if save_chip_file:
        save_chip(save_chip_file, programming.chip, plan_.config, force=force)
    summary = summarize(programming, plan_)
    _console().print(
        f"{summary.writes:,} writes programmed {len(plan_.layers)} tensors; effective weights of "
        f"all {len(tensors)} tensors in {out}"
    )


@app.command("plan")
def plan_command(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(metavar="PLAN", help=".safetensors")],
    policy: Annotated[
        str | None,
        typer.Option(
            help='such as "sws"; what --max-drop shares out',
            show_default="matched:correction=mean with --max-drop",
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="fewest writes whose accuracy drops by at most this share")
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="(tensors) -> (loss_fn, accuracy_fn, data) of memsim.budget; goes with --max-drop",
        ),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT.json", help="how the search went")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the examples held out, and the chips")] = 0,
    rows: Rows = 128,
    bits: Bits = 8,
    cell_bits: CellBits = 1,
    encoding: Encoding = "twos_complement",
    crossbars: Crossbars = "1",
    schedule: ScheduleOption = "block",
    scale_per: ScalePer = "tensor",
    include: Include = None,
    exclude: Exclude = None,
    layout: Layout = "auto",
    transposed: Transposed = None,
    chip_file: Annotated[
        Path | None, typer.Option("--chip", help="a chip whose stuck cells faults=avoid avoids")
    ] = None,
    faults: Faults = None,
    force: Force = False,
) -> None:
    """Write the index that a chip would follow: under a policy, or within a budget of accuracy."""
    if (max_drop is None) != (evaluate is None) or (policy is None and max_drop is None):
        raise ValueError(
            "A plan takes --policy, or --max-drop with --evaluate MODULE:FUNCTION, which says how "
            "accurate the network is."
        )
    if json_out and max_drop is None:
        raise ValueError("`--json` is of the search for --max-drop; leave it out.")
    parsed = Policy.parse(policy) if policy else None
    if chip_file and faults:
        raise ValueError("`--chip` brings its own stuck cells; leave --faults out.")
    if (chip_file or faults) and (parsed is None or parsed.faults == "ignore"):
        raise ValueError(
            "`--chip` and `--faults` are of matched:faults=avoid; leave them out, or give that "
            "--policy."
        )
    config = _config(rows, bits, cell_bits, encoding, crossbars, schedule, scale_per)
    select = select_by_name(layout, include, exclude, transposed)
    for output in (out, json_out):
        if output:
            check_output(output, force)
    source = open_checkpoint(checkpoint)
    tensors = {name: source.load(name) for name in source.tensors}
    chip = None
    if chip_file or faults:  # a plain plan has as many crossbars
        plain = plan(tensors, config, Policy(), select=select)
        chip = _open_chip(jax.random.key(seed), chip_file, faults, plain)
    console = _console()
    if max_drop is None or evaluate is None:
        with _progress() as bar:
            bar.add_task(f"planning {checkpoint.name}", total=None)
            made = plan(tensors, config, parsed or Policy(), select=select, chip=chip)
            save_plan(out, made, force=force)
        console.print(f"plan of {len(made.layers)} tensors under {parsed} in {out}")
        return
    loss_fn, accuracy_fn, data = _load_function(evaluate)(tensors)
    with _progress() as bar:
        task = bar.add_task(f"planning {checkpoint.name}", total=None)

        def show(trial: Trial) -> None:
            reduction = trial.summary.reduction or 1.0
            what = f"last {reduction:.1f}x at {100 * trial.change.mean:+.2f} points"
            bar.update(task, description=f"planning {checkpoint.name}: {what}")

        found = budget(
            tensors, config, loss_fn, accuracy_fn, data, max_drop,
            policy=parsed, select=select, chip=chip, seed=seed, progress=show,
        )  # fmt: skip
    save_plan(out, found.plan, force=force)
    if json_out:
        document = {"checkpoint": str(checkpoint), "config": dataclasses.asdict(config)}
        document |= {"max_drop": max_drop, "seed": seed} | budget_json(found)
        write_text(json_out, json.dumps(document, indent=1), force)
    for table in budget_tables(found):
        console.print(table)
    console.print(f"plan of {len(found.plan.layers)} tensors in {out}")


def _load_function(text: str) -> Callable[..., Any]:
    """The function that `module:function` names; modules are also looked for where one stands."""
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`--evaluate` {text} is no MODULE:FUNCTION ({error}); give one such as "
            "evaluate:resnet20 for the function resnet20 of evaluate.py in this folder."
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    return cast(Callable[..., Any], function)


def _config(
    rows: int,
    bits: int,
    cell_bits: int,
    encoding: str,
    crossbars: str,
    schedule: str,
    scale_per: str,
) -> CrossbarConfig:
    number = None if crossbars == "all" else int(crossbars) if crossbars.isdecimal() else -1
    if number == -1:
        raise ValueError(f"`crossbars` is {crossbars!r}; give a number from 1, or all.")
    return CrossbarConfig(
        rows=rows,
        bits=bits,
        cell_bits=cell_bits,
        encoding=encoding,
        crossbars=number,
        schedule=schedule,
        scale_per=scale_per,
    )


def _plot() -> ModuleType | None:
    """`memsim.plot`, where matplotlib is installed; slow to import."""
    try:
        from memsim import plot
    except ImportError:
        return None
    return plot


def _open_chip(
    key: Key[Array, ""], chip: Path | None, faults: Path | None, plan_: Plan
) -> Chip | None:
    """The chip of a file, or one with the stuck cells of a fault map, or none."""
    if chip:
        return load_chip(chip, plan_.config)
    if faults is None:
        return None
    cells = load_faults(faults)
    low, high = (fault_words(of_level, plan_.crossbars, plan_.config) for of_level in cells)
    return with_faults(key, low, high)


def _repeated(names: Iterable[str]) -> str:
    return ", ".join(name for name, count in Counter(names).items() if count > 1)


def _listed(names: Iterable[str]) -> str:
    """Names on one line; those that differ in numbers alone fold: `blocks.*.norm1.weight (12)`."""
    folded = Counter(re.sub(r"(?<=[./_])[0-9]+(?=[./_])", "*", name) for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in folded.items())


def _console() -> rich.console.Console:
    # a pipe has no width: wide enough for the table, so that it is not folded
    return rich.console.Console(width=None if sys.stdout.isatty() else 140)


def _progress() -> rich.progress.Progress:
    # for whoever watches: nothing in a log or a notebook, not even the blank line it ends with
    console = rich.console.Console(stderr=True)
    return rich.progress.Progress(console=console, transient=True, disable=not sys.stderr.isatty())


def main() -> None:
    """Runs the command line; a wrong input is one line on stderr and exit status 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        rich.console.Console(stderr=True, soft_wrap=True).print(
            f"memsim: {error}", style="red", highlight=False, markup=False
        )
        raise SystemExit(1) from None
