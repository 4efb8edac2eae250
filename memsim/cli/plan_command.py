"""`memsim plan`."""

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import jax
import typer

import memsim.cli.options as options
from memsim.budgeting import Trial, budget
from memsim.config import Policy
from memsim.files.checkpoints import open_checkpoint
from memsim.files.plans import save_plan
from memsim.files.writing import check_output, write_text
from memsim.planning import plan
from memsim.report.documents import budget_json
from memsim.report.tables import budget_tables
from memsim.report.terminal import progress_bar, results_console
from memsim.selection import select_by_name


def plan_command(
    checkpoint: options.Checkpoint,
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
    rows: options.Rows = 128,
    bits: options.Bits = 8,
    cell_bits: options.CellBits = 1,
    encoding: options.Encoding = "twos_complement",
    crossbars: options.Crossbars = "1",
    schedule: options.Schedule = "block",
    scale_per: options.ScalePer = "tensor",
    include: options.Include = None,
    exclude: options.Exclude = None,
    layout: options.Layout = "auto",
    transposed: options.Transposed = None,
    chip_file: Annotated[
        Path | None, typer.Option("--chip", help="a chip whose stuck cells faults=avoid avoids")
    ] = None,
    faults: options.Faults = None,
    force: options.Force = False,
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
    config = options.make_config(rows, bits, cell_bits, encoding, crossbars, schedule, scale_per)
    select = select_by_name(layout, include, exclude, transposed)
    for output in (out, json_out):
        if output:
            check_output(output, force)
    source = open_checkpoint(checkpoint)
    tensors = {name: source.load(name) for name in source.tensors}
    chip = None
    if chip_file or faults:  # a plain plan has as many crossbars
        plain = plan(tensors, config, Policy(), select=select)
        chip = options.open_chip(jax.random.key(seed), chip_file, faults, plain)
    console = results_console()
    if max_drop is None or evaluate is None:
        with progress_bar() as bar:
            bar.add_task(f"planning {checkpoint.name}", total=None)
            made = plan(tensors, config, parsed or Policy(), select=select, chip=chip)
            save_plan(out, made, force=force)
        console.print(f"plan of {len(made.layers)} tensors under {parsed} in {out}")
        return
    loss_fn, accuracy_fn, data = _judge(evaluate, tensors)
    with progress_bar() as bar:
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


def _judge(text: str, tensors: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What the function gives; what it raises is its own, and shown with its lines."""
    function = _load_function(text)
    try:
        found = function(tensors)
    except (ValueError, OSError) as error:
        raise RuntimeError(f"`--evaluate` {text} failed.") from error
    if not isinstance(found, tuple) or len(found) != 3:
        raise ValueError(
            f"`--evaluate` {text} returned {type(found).__name__}; it must return (loss_fn, "
            "accuracy_fn, data), see memsim.budget."
        )
    return found
