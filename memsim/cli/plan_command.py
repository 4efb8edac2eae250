"""`memsim plan`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import rich.console
import typer

from memsim._checks import check_choice
from memsim.budgeting import Judge, Trial, budget
from memsim.chip import Chip
from memsim.cli import options
from memsim.cli.evaluate_option import load_function
from memsim.cli.failures import JudgeError
from memsim.cli.hardware_options import HardwareOption, on_hardware
from memsim.cli.made_by import how_made
from memsim.cli.records import given_options, with_options
from memsim.cli.rules import PLAN_RULES, check_rules
from memsim.config import CrossbarConfig
from memsim.files.plans import save_plan
from memsim.files.raw import RawTensor
from memsim.files.writing import write_text
from memsim.hardware.files import default_hardware, read_hardware
from memsim.hardware.objectives import OBJECTIVES, Objective
from memsim.planning import plan
from memsim.policies import Policy, Unsorted
from memsim.report.documents import budget_json
from memsim.report.tables import budget_tables
from memsim.report.terminal import progress_bar, results_console, stages
from memsim.report.texts import count_text, printable
from memsim.selection import Select

__all__ = ["PlanOptions", "run_plan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions(
    options.ForceOption,
    options.SeedOption,
    options.SelectionOptions,
    HardwareOption,
    options.CrossbarOptions,
    options.CheckpointOptions,
):
    """The options of `memsim plan`."""

    out: Annotated[
        Path, typer.Option(metavar="PLAN", help=".safetensors", rich_help_panel=options.OUTPUT)
    ]
    policy: Annotated[
        str | None,
        typer.Option(
            help='such as "sws"; what --max-drop shares out',
            show_default="matched with --max-drop",
            autocompletion=options.complete_policy,
            rich_help_panel=options.POLICY,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="the plan whose accuracy drops by at most this share",
            rich_help_panel=options.POLICY,
        ),
    ] = None
    minimise: Annotated[
        str,
        typer.Option(
            help=f"what is to be least within --max-drop: {', '.join(OBJECTIVES)}, by the prices "
            "of --hardware",
            autocompletion=options.one_of(OBJECTIVES),
            rich_help_panel=options.POLICY,
        ),
    ] = "writes"
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="(tensors) -> (loss_fn, accuracy_fn, data) of memsim.budget; goes with --max-drop",
            rich_help_panel=options.POLICY,
        ),
    ] = None
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT.json", help="how the search went", rich_help_panel=options.OUTPUT
        ),
    ] = None
    chip_file: Annotated[
        Path | None,
        typer.Option(
            "--chip",
            metavar="CHIP",
            help="a chip whose stuck cells faults=avoid avoids",
            rich_help_panel=options.CHIPS,
        ),
    ] = None
    faults: Annotated[
        Path | None,
        typer.Option(
            metavar="MAP",
            help="its fault map, .npz or .safetensors",
            rich_help_panel=options.CHIPS,
        ),
    ] = None


@with_options(PlanOptions)
def run_plan(chosen: PlanOptions) -> None:
    """Writes the index that a chip would follow: under a policy, or within a budget of accuracy."""
    check_rules(PLAN_RULES, given_options())
    chosen = on_hardware(chosen)
    policy = options.parse_policy(chosen.policy) if chosen.policy is not None else None
    avoids = policy is not None and policy.avoids_faults
    if (chosen.chip_file or chosen.faults) and not avoids:
        raise ValueError(
            "`--chip` and `--faults` are of matched:faults=avoid; leave them out, or give that "
            "--policy."
        )
    check_choice("--minimise", chosen.minimise, tuple(OBJECTIVES))
    config = chosen.config()
    options.check_outputs({"--out": chosen.out, "--json": chosen.json_out}, chosen.force)
    source = chosen.open()
    select = chosen.select(source)
    options.check_memory(options.read_as(source, select), config)
    with progress_bar() as bar:
        tensors = options.read_all(source, stages(bar))
    chip = None
    if chosen.chip_file or chosen.faults:  # a plain plan has as many crossbars
        plain = plan(tensors, config, Unsorted(), select=select)
        key = jax.random.key(chosen.seed)
        chip = options.chip_of_files(key, chosen.chip_file, chosen.faults, plain)
    console = results_console()
    if chosen.max_drop is not None:
        _plan_in_budget(chosen, policy, config, select, chip, tensors, console)
        return
    with progress_bar() as bar:
        made = plan(
            tensors, config, policy or Unsorted(), select=select, chip=chip, progress=stages(bar)
        )
        save_plan(chosen.out, made, force=chosen.force)
    _print_plan(console, chosen, len(made.layers), f" under {policy}")


def _print_plan(console: rich.console.Console, chosen: PlanOptions, layers: int, how: str) -> None:
    text = f"plan of {count_text(layers, 'tensor')}{how} in {printable(str(chosen.out))}"
    console.print(text, markup=False, soft_wrap=True)


def _plan_in_budget(
    chosen: PlanOptions,
    policy: Policy | None,
    config: CrossbarConfig,
    select: Select,
    chip: Chip | None,
    tensors: Mapping[str, np.ndarray | RawTensor],
    console: rich.console.Console,
) -> None:
    """Searches the plan of fewest writes within the budget, and writes and prints what it found."""
    assert chosen.evaluate is not None and chosen.max_drop is not None, "rules"  # noqa: S101, PT018
    objective: Any = Objective(
        what=chosen.minimise,  # type: ignore[arg-type]
        hardware=read_hardware(chosen.hardware).on(config)
        if chosen.hardware is not None
        else default_hardware(config),
    )
    judge = _judge(chosen.evaluate, dict(tensors))
    title = f"planning {printable(chosen.checkpoint.name)}"
    with progress_bar() as bar:
        tell = stages(bar)
        tell(None, title)

        def show(trial: Trial) -> None:
            reduction = trial.summary.reduction or 1.0
            what = f"last {reduction:.1f}x at {100 * trial.change.mean:+.2f} points"
            tell(None, f"{title}: {what}")

        found = budget(
            tensors, config, judge, chosen.max_drop, policy=policy, select=select, chip=chip,
            seed=chosen.seed, objective=objective, progress=show,
        )  # fmt: skip
    save_plan(chosen.out, found.plan, force=chosen.force)
    if chosen.json_out:
        document = {
            "checkpoint": options.path_text(chosen.checkpoint),
            "config": dataclasses.asdict(config),
        }
        document |= {"max_drop": chosen.max_drop, "seed": chosen.seed} | budget_json(found)
        document["made_by"] = how_made("memsim plan", chosen)
        write_text(chosen.json_out, json.dumps(document, indent=1), chosen.force)
    for table in budget_tables(found):
        console.print(table)
    _print_plan(console, chosen, len(found.plan.layers), "")


def _judge(text: str, tensors: dict[str, Any]) -> Judge:
    """Gives what the function gives; what it raises is its own, and shown with its lines."""
    function = load_function(text)
    try:
        found = function(tensors)
    except Exception as error:
        raise JudgeError(f"`--evaluate` {text} failed.") from error
    if not isinstance(found, tuple) or len(found) != 3:
        raise ValueError(
            f"`--evaluate` {text} returned {type(found).__name__}; it must return (loss_fn, "
            "accuracy_fn, data), see memsim.budget."
        )
    return Judge(*found)
