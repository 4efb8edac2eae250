"""`memsim program`."""

import math
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer

import memsim.cli.options as options
from memsim.config import CrossbarConfig
from memsim.files.checkpoints import open_checkpoint
from memsim.files.chips import save_chip
from memsim.files.plans import load_plan
from memsim.files.writing import check_output, save_tensors
from memsim.network import program, sample_chip
from memsim.planning import plan, with_stucking
from memsim.policies import Policy
from memsim.report.terminal import progress_bar, results_console
from memsim.selection import select_by_name
from memsim.summary import summarize


def program_command(
    checkpoint: options.Checkpoint,
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
    rows: options.Rows = 128,
    bits: options.Bits = 8,
    cell_bits: options.CellBits = 1,
    encoding: options.Encoding = "twos_complement",
    crossbars: options.Crossbars = "1",
    schedule: options.Schedule = "block",
    scale_per: options.ScalePer = "tensor",
    passes: options.Passes = 1,
    include: options.Include = None,
    exclude: options.Exclude = None,
    map: options.Map = None,
    stuck_at_0: options.StuckAt0 = 0.0,
    stuck_at_1: options.StuckAt1 = 0.0,
    faults: options.Faults = None,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Write the weights that a chip really holds: same names, shapes and dtypes."""
    parsed = Policy.parse(policy)
    config = options.make_config(rows, bits, cell_bits, encoding, crossbars, schedule, scale_per)
    select = select_by_name(include=include, exclude=exclude, map=map or ())
    if chip_file and (faults or stuck_at_0 or stuck_at_1):
        raise ValueError(
            "`--chip` brings its own stuck cells; leave --faults and --stuck-at-* out."
        )
    if out.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"`--out` is {out}; give a name that ends in .safetensors or .npz.")
    for output in (out, save_chip_file):
        if output:
            check_output(output, force)
    source = open_checkpoint(checkpoint)
    tensors = {name: source.load(name) for name in source.tensors}
    # JAX would make float32 of float64 tensors
    double = any(tensor.dtype == np.float64 for tensor in source.tensors.values())
    with jax.enable_x64(double), progress_bar() as bar:
        bar.add_task(f"programming {checkpoint.name}", total=None)
        if plan_file:
            plan_ = with_stucking(load_plan(plan_file), parsed)
            if config not in (CrossbarConfig(), plan_.config.unflagged):
                raise ValueError(f"`--plan` {plan_file} is for {plan_.config}; leave these out.")
        else:  # stuck cells are avoided once there is a chip: a plain plan has as many crossbars
            avoids = parsed.faults == "avoid"
            plan_ = plan(tensors, config, Policy() if avoids else parsed, select=select)
        key = jax.random.split(jax.random.key(seed), 1)[0]  # the first chip of `memsim report`
        chip = options.open_chip(key, chip_file, faults, plan_)
        chip = chip or sample_chip(key, plan_, stuck_at_0, stuck_at_1)
        if parsed.faults == "avoid" and not plan_file:
            plan_ = plan(tensors, config, parsed, select=select, chip=chip)
        mapped = {name: jnp.asarray(tensors[name]) for name in plan_.names if name in tensors}
        effective, programming = program(mapped, plan_, chip, passes=passes)
    save_tensors(out, tensors | effective, metadata=source.metadata, force=force)
    if save_chip_file:
        save_chip(save_chip_file, programming.chip, plan_.config, force=force)
    summary = summarize(programming, plan_)
    squares = [(np.sum(np.square(tensors[name], dtype=np.float64)),
                np.sum(np.square(np.subtract(effective[name], tensors[name], dtype=np.float64))))
               for name in plan_.names]  # fmt: skip
    weights, errors = np.sum(squares, axis=0)
    share = math.sqrt(errors / weights) if weights else 0.0
    results_console().print(
        f"{summary.writes:,} writes programmed {len(plan_.layers)} tensors, whose weights are off "
        f"by {100 * share:.3g} % (root mean squares); effective weights of all {len(tensors)} "
        f"tensors in {out}"
    )
