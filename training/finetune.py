"""The main job: fine-tune a network for the chips that it is programmed onto.

    python -m training.finetune                       # digits, one network for each of 32 chips
    python -m training.finetune --assets DIR --robust # ResNet-20, one network for chips unseen

Stuck-aware fine-tuning programs inside the loss: the forward pass runs on the weights that the chip
really holds, the gradient passes straight through to the weights that were asked for. A run that
was killed goes on where it stopped when it is started again.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress
import typer
from jaxtyping import Array, PyTree

import memsim
from memsim.config import COMPETITORS, STUCKABLE, validate
from memsim.selection import is_floating, leaf_name, named_leaves
from training import options
from training.evaluation import make_classify, program_chips, unstack
from training.finetune_report import Evaluation, Outcome, report, save, show
from training.loop import CHECKPOINTS, METRICS, run
from training.progress import progress_bar
from training.results import check_results
from training.settings import check_settings, write_settings
from training.steps import weight_limits, within
from training.tasks import Task, choose_task, load_like, measure_float
from training.tuning import tune_each, tune_robust

_SETTINGS = "finetune.json"
# Programmings of a chip: in the last it is in the steady state of weight streaming.
_PASSES = 2
# Statistics that a network only collects.
_FROZEN = re.compile(r"running_(mean|var)$")


def sample_chips(keys: Array, plan: memsim.Plan, stuck_at: float) -> memsim.Chip:
    """One chip per key, a share `stuck_at` of its cells stuck, half at 0 and half at 1."""
    return jax.vmap(lambda key: memsim.sample_chip(key, plan, stuck_at / 2, stuck_at / 2))(keys)


def learned(params: PyTree) -> PyTree:
    """The tensors that are fine-tuned; None in place of the others, statistics and integers."""

    def choose(path: tuple[Any, ...], leaf: Any) -> Any:
        return leaf if is_floating(leaf) and not _FROZEN.search(leaf_name(path)) else None

    return jax.tree_util.tree_map_with_path(choose, params)


def complete(some: PyTree, params: PyTree) -> PyTree:
    """`some`, as `learned` gives it, with the tensors that are missing there."""
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf,
        some,
        params,
        is_leaf=lambda leaf: leaf is None,
    )


def main(
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    split: options.Split = None,
    train_data: Annotated[
        str | None, typer.Option(help="images to fine-tune on, as --data")
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="of them, by default train")] = None,
    data_dir: options.DataDir = None,
    assets: options.Assets = None,
    limit: options.Limit = None,
    test_batch: options.BatchSize = 250,
    start: Annotated[
        Path | None, typer.Option(help="weights to go on from, as an earlier run left them")
    ] = None,
    policy: Annotated[str, typer.Option(help="how chips are programmed")] = "sws+stuck:p=0.5,low=4",
    robust: Annotated[
        bool, typer.Option("--robust", help="one network for chips unseen, not one for each chip")
    ] = False,
    chips: Annotated[int, typer.Option(min=1, help="chips tuned for; robust, tested on")] = 32,
    together: Annotated[
        int | None,
        typer.Option(min=1, help="chips in one vmap; default: all, of a --model on a CPU 1"),
    ] = None,
    crossbars: options.Crossbars = 16,
    rows: options.Rows = 128,
    bits: options.Bits = 8,
    stuck_at: options.StuckAt = 0.03,
    cells: options.CellKind = "ideal",
    seconds: options.Seconds = 0.0,
    ohm: options.Ohm = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="of fine-tuning")] = 300,
    batch: Annotated[int, typer.Option(min=1, help="images per step")] = 64,
    learning_rate: Annotated[float, typer.Option(help="of Adam, at its highest")] = 3e-3,
    warmup: Annotated[
        int, typer.Option(min=0, help="steps until then; a cosine leads down to 0")
    ] = 0,
    refresh: Annotated[
        int, typer.Option(min=0, help="plan afresh every so many steps; 0: never")
    ] = 0,
    clip: Annotated[
        float, typer.Option(min=0, help="limit of weights, in deviations of their tensor; 0: none")
    ] = 0.0,
    distill: Annotated[
        bool, typer.Option(help="imitate the float network rather than learn the labels")
    ] = True,
    write_price: Annotated[
        float, typer.Option(min=0, help="loss that a write per weight is worth")
    ] = 0.0,
    write_width: Annotated[
        float, typer.Option(min=1, help="codes that weights are dithered by to foresee writes")
    ] = 4.0,
    epochs: options.Epochs = 40,
    seed: Annotated[int, typer.Option(help="of weights, batches and chips")] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = 100,
    log_every: Annotated[int, typer.Option(min=1, help="steps between lines of metrics")] = 10,
    out: options.OutFolder = Path("runs/finetune"),
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Fine-tune a network for the chips that it is programmed onto."""
    # a CPU is slow where a convolution has a kernel for every chip
    one_by_one = jax.default_backend() == "cpu" and (model or assets)
    at_once = together or (1 if one_by_one else chips)
    settings: dict[str, Any] = {
        "model": model, "weights": weights, "data": data, "split": split,
        "train_data": train_data, "train_split": train_split, "limit": limit,
        "assets": assets and str(assets), "start": start and str(start), "policy": policy,
        "robust": robust, "chips": chips, "together": at_once, "crossbars": crossbars,
        "rows": rows, "bits": bits, "stuck_at": stuck_at, "cells": cells, "seconds": seconds,
        "ohm": ohm, "steps": steps, "batch": batch,
        "learning_rate": learning_rate, "warmup": warmup, "refresh": refresh,
        "clip": clip, "distill": distill, "write_price": write_price, "write_width": write_width,
        "epochs": epochs, "seed": seed, "save_every": save_every, "log_every": log_every,
        "memsim": memsim.__version__, "jax": jax.__version__,
    }  # fmt: skip
    if (model or data) and not train_data:
        raise ValueError("`--train-data` is missing; give images to fine-tune on.")
    if assets and not train_data:
        train_data = str(assets / options.CIFAR10_TRAIN)
    options.choose_readout(cells, seconds, ohm)
    if warmup >= steps:
        raise ValueError(f"`--warmup` is {warmup}; it ends before the {steps} `--steps` do.")
    open_chosen = choose_task(
        model, weights, data, split, data_dir, assets, limit, test_batch, train_data, train_split,
        epochs,
    )  # fmt: skip
    config = memsim.CrossbarConfig(crossbars=crossbars, rows=rows, bits=bits)
    tuned_policy = memsim.Policy.parse(policy)
    validate(config, tuned_policy)
    avoids = tuned_policy.faults == "avoid"
    if tuned_policy.placement in COMPETITORS:
        raise ValueError(f"`--policy` is {policy!r}; fine-tuning takes {', '.join(STUCKABLE)}.")
    if robust and together:
        raise ValueError("`--together` is of chips that each have a network, not of `--robust`.")
    if start and not start.is_file():
        raise ValueError(f"`--start` {start} is not a file; check the path.")
    if robust and avoids:
        raise ValueError("`--robust` is for chips unseen; `faults=avoid` needs to know its chip.")
    if not dry_run:
        check_results(out, "report.json", force, goes_on=(out / _SETTINGS).is_file())
    if not force:
        check_settings(out / _SETTINGS, settings)
    if dry_run:
        show_plan(out, settings, force)
        return
    if force:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        for name in (METRICS, "report.json", _SETTINGS):
            (out / name).unlink(missing_ok=True)

    with progress_bar() as bar:
        task = open_chosen(seed, bar)
        _, _, fingerprints = measure_float(task)
        if start:
            fingerprints["start"] = hashlib.sha256(start.read_bytes()).hexdigest()
        settings |= {f"{name}_sha256": digest for name, digest in fingerprints.items()}
        check_settings(out / _SETTINGS, settings)  # what is in the files, too
        write_settings(out / _SETTINGS, settings)
        outcome = fine_tune(task, config, tuned_policy, settings, out, bar)
    document = report(task.name, config, tuned_policy, settings, outcome)
    save(out, document, outcome)
    show(out, document, outcome)


def fine_tune(
    task: Task,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    settings: dict[str, Any],
    out: Path,
    bar: rich.progress.Progress,
) -> Outcome:
    """Programs the network, fine-tunes it for the chips and programs it again.

    Args:
      settings: the options of `main` by name.
      out: folder of checkpoints and metrics.
    """
    assert task.training is not None  # noqa: S101 - `main` asked for it
    training, start, seed = task.training, learned(task.params), settings["seed"]
    chips, stuck_at, refresh = settings["chips"], settings["stuck_at"], settings["refresh"]
    avoids = policy.faults == "avoid"
    readout = options.choose_readout(settings["cells"], settings["seconds"], settings["ohm"])
    unsorted = memsim.plan(start, config, memsim.Policy.unsorted())
    keys = jax.random.split(jax.random.key(seed), chips)  # the chips of `compare`
    known = sample_chips(keys, unsorted, stuck_at)

    def replan(params: PyTree, chip: memsim.Chip | None) -> memsim.Plan:
        return memsim.plan(params, config, policy, chip=chip if avoids else None)

    def apply(params: PyTree, images: Array) -> Array:
        return task.apply(complete(params, task.params), images)

    classify = make_classify(apply)

    def evaluate(
        networks: Sequence[PyTree], plans: Sequence[memsim.Plan], chips: memsim.Chip
    ) -> Evaluation:
        held, programmings = program_chips(networks, plans, chips, _PASSES, readout)
        counted = zip(programmings, plans, strict=True)
        writes = [memsim.summarize(*pair).writes_per_pass[-1] for pair in counted]
        return Evaluation(classify(held, task.batches()), held, writes)

    progress = bar.add_task("programming and testing", total=3)
    (reference,) = classify([start], task.batches())
    comparison = memsim.compare(
        {name: np.asarray(leaf) for name, leaf in named_leaves(start).items()},
        config,
        {str(p): p for p in (memsim.Policy.unsorted(), policy.placing, policy)},
        chips=chips, seed=seed, stuck_at_0=stuck_at / 2, stuck_at_1=stuck_at / 2,
    )  # fmt: skip
    bar.advance(progress)
    own = [replan(start, chip) for chip in unstack(known)] if avoids else []
    before = evaluate([start] * chips, own or [replan(start, None)] * chips, known)
    bar.advance(progress)

    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings["learning_rate"], settings["warmup"], settings["steps"]
    )
    optimizer, params = optax.adam(schedule), start
    if settings["start"]:
        params = load_like("start", settings["start"], start)
    if settings["clip"]:
        limits = weight_limits(start, settings["clip"])
        params = jax.tree.map(lambda w, limit: jnp.clip(w, -limit, limit), params, limits)
        optimizer = optax.chain(optimizer, within(limits))
    every: dict[str, Any] = {
        "apply": apply, "refresh": refresh, "write_price": settings["write_price"],
        "write_width": settings["write_width"], "readout": readout, "passes": _PASSES,
        "teacher": (lambda images: apply(start, images)) if settings["distill"] else None,
    }  # fmt: skip
    method = (params, replan, optimizer, schedule)
    if settings["robust"]:
        unseen = jax.random.fold_in(jax.random.key(seed), 2**31 - 1)  # by none of `keys`
        tuning, step = tune_robust(*method, key=unseen, stuck_at=stuck_at, **every)
    else:
        tuning, step = tune_each(*method, chips=known, together=settings["together"], **every)
    tuning = run(
        step, tuning, lambda number: training(settings["batch"], seed + 1, number),
        settings["steps"], folder=out, save_every=settings["save_every"],
        log_every=settings["log_every"], bar=bar,
        description="fine-tuning" if settings["robust"] else f"fine-tuning {chips} chips",
    )  # fmt: skip
    if settings["robust"]:
        networks, plans = [tuning.states[0].params] * chips, [tuning.plans[0]] * chips
        tuned = complete(networks[0], task.params)
    else:
        networks, plans = tuning.each()
        tuned = jax.tree.map(lambda *of_chips: np.stack(of_chips), *networks)
    after = evaluate(networks, plans, known)
    bar.advance(progress)
    of_chips = {f"plan-{chip}": plan for chip, plan in enumerate(plans)}
    shared = settings["robust"] or not (refresh or avoids)
    return Outcome(
        reference, comparison, before, after, named_leaves(task.params), named_leaves(tuned),
        {"plan": plans[0]} if shared else of_chips,
    )  # fmt: skip


def show_plan(out: Path, settings: dict[str, Any], force: bool) -> None:
    """Prints what a run would do."""
    saved = [] if force else [path.name for path in (out / CHECKPOINTS).glob("[0-9]*")]
    start = max((int(name) for name in saved if name.isdecimal()), default=0)
    chips, steps = settings["chips"], settings["steps"]
    network = settings["model"] or ("resnet20" if settings["assets"] else "digits CNN")
    if settings["robust"]:
        what = f"one network, another chip every step; tested on {chips} chips unseen"
    else:
        what = f"a network for each of {chips} chips, {settings['together']} in one vmap"
    lines = {
        "network": network,
        "policy": settings["policy"],
        "crossbars": f"{settings['crossbars']} of {settings['rows']} rows, {settings['bits']} "
        f"bits, {100 * settings['stuck_at']:g} % of cells stuck",
        "read": f"{settings['cells']} cells after {settings['seconds']:g} s, wires of "
        f"{settings['ohm']:g} ohm from cell to cell",
        "fine-tuning": what,
        "steps": f"{start} to {steps} of {settings['batch']} images each",
        "plan": f"made afresh every {settings['refresh']} steps"
        if settings["refresh"]
        else "made once",
        "results": f"{out}/",
    }
    for name, line in lines.items():
        typer.echo(f"{name:12} {line}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"finetune: {error}")
