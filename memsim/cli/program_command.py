"""`memsim program`."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer

from memsim.chip import Chip
from memsim.cli import options
from memsim.cli.hardware_options import HardwareOption, on_hardware
from memsim.cli.records import given_options, with_options
from memsim.cli.rules import PROGRAM_RULES, check_rules
from memsim.files.checkpoints import Checkpoint
from memsim.files.chips import save_chip
from memsim.files.plans import load_plan
from memsim.files.raw import RawTensor
from memsim.files.replacing import replace_tensors, same_kind
from memsim.files.writing import check_tensors, save_tensors
from memsim.network import program, sample_chip
from memsim.planning import Plan, plan
from memsim.policies import Policy, Unsorted
from memsim.report.terminal import progress_bar, results_console, stages
from memsim.report.texts import count_text, printable
from memsim.selection import slice_of, tensor_name
from memsim.summary import Summary, summarize

__all__ = ["ProgramOptions", "run_program"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramOptions(
    options.ForceOption,
    options.SeedOption,
    options.WritingOption,
    options.FaultOptions,
    options.SelectionOptions,
    HardwareOption,
    options.CrossbarOptions,
    options.CheckpointOptions,
):
    """The options of `memsim program`."""

    policy: Annotated[
        str | None,
        typer.Option(
            help='such as "sws+stuck:p=0.5,low=3"; a plan brings its own',
            autocompletion=options.complete_policy,
            rich_help_panel=options.POLICY,
        ),
    ] = None
    out: Annotated[
        Path,
        typer.Option(
            metavar="OUT",
            help=".safetensors, .npz, or the kind of CKPT",
            rich_help_panel=options.OUTPUT,
        ),
    ]
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="policy, crossbars and matrices, from a file",
            rich_help_panel=options.POLICY,
        ),
    ] = None
    chip_file: Annotated[
        Path | None,
        typer.Option(
            "--chip",
            metavar="CHIP",
            help="the chip, from a file",
            rich_help_panel=options.CHIPS,
        ),
    ] = None
    save_chip_file: Annotated[
        Path | None,
        typer.Option(
            "--save-chip",
            metavar="CHIP",
            help="where to save the chip afterwards",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    passes: Annotated[
        int, typer.Option(help="times the network is programmed", rich_help_panel=options.POLICY)
    ] = 1


class Deviation(NamedTuple):
    """How far the weights that a chip holds are from those of the checkpoint.

    Attributes:
      weights: how many there are.
      share: root mean square of the errors, over that of the weights; of finite weights.
      clipped: weights beyond the largest code of their scale.
      vanished: weights other than 0 that are held as 0.
      not_finite: weights that are NaN or infinite.
    """

    weights: int
    share: float
    clipped: int
    vanished: int
    not_finite: int


@with_options(ProgramOptions)
def run_program(chosen: ProgramOptions) -> None:
    """Writes the weights that a chip really holds: same names, shapes and dtypes."""
    check_rules(PROGRAM_RULES, given_options())
    chosen = on_hardware(chosen)
    policy = options.parse_policy(chosen.policy) if chosen.policy is not None else None
    alike = same_kind(chosen.out, chosen.checkpoint)
    if chosen.out.suffix not in (".safetensors", ".npz") and not alike:
        raise ValueError(
            f"`--out` is {chosen.out}; give a name that ends in .safetensors or .npz, or one of "
            "the kind of CKPT where that is a file which memsim writes."
        )
    outputs = {"--out": chosen.out, "--save-chip": chosen.save_chip_file}
    options.check_outputs(outputs, chosen.force)
    source = chosen.open()
    with progress_bar() as bar:
        tensors = options.read_all(source, stages(bar))
    if not alike:
        check_tensors(chosen.out, tensors)
    # JAX would make float32 of float64 tensors
    double = any(tensor.dtype == np.float64 for tensor in source.tensors.values())
    with jax.enable_x64(double), progress_bar() as bar:
        tell, name = stages(bar), printable(chosen.checkpoint.name)
        tell(None, f"planning {name}")
        made, chip = _plan_and_chip(chosen, policy, source, tensors)
        tell(None, f"programming {name}")
        # a stacked tensor has a layer for each of its matrices
        read = {tensor_name(name, layer.matrix) for name, layer in made.layers.items()}
        mapped = {name: jnp.asarray(tensors[name]) for name in tensors if name in read}
        writing = chosen.read_writing(made.config.unflagged)
        effective, programming = program(mapped, made, chip, passes=chosen.passes, writing=writing)
    held = {name: np.asarray(tensor) for name, tensor in effective.items()}
    if alike:
        replace_tensors(chosen.out, chosen.checkpoint, held, force=chosen.force)
    else:
        save_tensors(chosen.out, tensors | held, metadata=source.metadata, force=chosen.force)
    if chosen.save_chip_file:
        save_chip(chosen.save_chip_file, programming.chip, made.config, force=chosen.force)
    deviation = _deviation(tensors, held, made)
    _print_result(chosen, summarize(programming, made), deviation, len(tensors))


def _plan_and_chip(
    chosen: ProgramOptions,
    policy: Policy | None,
    source: Checkpoint,
    tensors: Mapping[str, np.ndarray | RawTensor],
) -> tuple[Plan, Chip]:
    """Makes the plan of the options, and the chip that it is for."""
    key = jax.random.split(jax.random.key(chosen.seed), 1)[0]  # the first chip of `memsim report`
    if chosen.plan_file:
        made = load_plan(chosen.plan_file)
        matrices = {name: layer.matrix for name, layer in made.layers.items()}
        options.check_memory(matrices, made.config, passes=chosen.passes)
        return made, _chip(chosen, key, made)
    assert policy is not None, "rules"  # noqa: S101
    config, select = chosen.config(), chosen.select(source)
    matrices = options.read_as(source, select)
    options.check_memory(matrices, config, passes=chosen.passes)
    # stuck cells are avoided once there is a chip: a plain plan has as many crossbars
    avoids = policy.avoids_faults
    made = plan(tensors, config, Unsorted() if avoids else policy, select=select)
    chip = _chip(chosen, key, made)
    if avoids:
        made = plan(tensors, config, policy, select=select, chip=chip)
    return made, chip


def _chip(chosen: ProgramOptions, key: Any, made: Plan) -> Chip:
    """Gives the chip of a file, or one with stuck cells of a map or by rates."""
    chip = options.chip_of_files(key, chosen.chip_file, chosen.faults, made)
    return chip or sample_chip(key, made, chosen.stuck_at_0, chosen.stuck_at_1)


def _deviation(
    before: Mapping[str, np.ndarray | RawTensor], held: Mapping[str, np.ndarray], made: Plan
) -> Deviation:
    """Measures how far the weights held are from those before."""
    weights = clipped = vanished = not_finite = 0
    norms, errors = [], []
    for name, layer in made.layers.items():
        tensor = tensor_name(name, layer.matrix)
        was, now = (
            slice_of(np.asarray(tensors[tensor]), layer.matrix).astype(np.float64)
            for tensors in (before, held)
        )
        finite = np.isfinite(was)
        scale = np.broadcast_to(np.asarray(layer.scale), was.shape)[finite]
        weights += was.size
        was, now = was[finite], now[finite]
        not_finite += int(np.sum(~finite))
        vanished += int(np.sum((was != 0) & (now == 0)))
        with np.errstate(over="ignore"):  # beyond float32 is beyond the largest code too
            codes = np.rint(was.astype(np.float32) / scale)
        clipped += int(np.sum(np.abs(codes) > made.config.max_code))
        norms.append(_norm(was))
        errors.append(_norm(now - was))
    norm, error = math.hypot(*norms), math.hypot(*errors)
    share = error / norm if norm else 0.0
    return Deviation(weights, share, clipped, vanished, not_finite)


def _norm(numbers: np.ndarray) -> float:
    """Gives the Euclidean norm, also where squares would vanish or overflow."""
    unit = float(np.abs(numbers).max(initial=0.0))
    return unit * math.sqrt(np.sum(np.square(numbers / unit))) if unit else 0.0


def _print_result(
    chosen: ProgramOptions, summary: Summary, deviation: Deviation, tensors: int
) -> None:
    """Says what was written, and what the chip holds other than it was asked to."""
    percent = min(100 * deviation.share, 1e300)
    off = "<0.001" if 0 < percent < 0.001 else f"{percent:.3g}"
    lines = [
        f"{summary.writes:,} writes programmed {count_text(len(summary.layers), 'tensor')}, whose "
        f"weights are off by {off} % (root mean squares)"
    ]
    if summary.wrong_share is not None:
        lines.append(
            f"{summary.pulses:,} pulses; {summary.wrong_cells:,} cells "
            f"({100 * summary.wrong_share:.3g} %) are wrong"
        )
    for number, what in (
        (deviation.clipped, "clipped: beyond the largest code of the plan's scale"),
        (deviation.vanished, "held as 0 without being 0"),
        (deviation.not_finite, "NaN or infinite, and left out of these figures"),
    ):
        if number:
            of_all = 100 * number / deviation.weights
            share = "<0.1" if of_all < 0.1 else f"{of_all:.1f}"
            lines.append(f"{count_text(number, 'weight')} ({share} %) {what}")
    lines.append(
        f"effective weights of all {count_text(tensors, 'tensor')} in {printable(str(chosen.out))}"
    )
    results_console().print("\n".join(lines), markup=False, soft_wrap=True)
