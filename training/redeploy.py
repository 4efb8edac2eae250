"""One model after another on the same chips: accuracy against updates while cells wear out.

    python -m training.redeploy --updates 8

Each update of the digits CNN, trained a little further, is programmed again and again for a while,
as weight streaming does, and worn cells are stuck from then on. Three ways to live with them: take
the network as it is; fine-tune every update for the stuck cells of its chip; or steer the share p
of cells that bit stucking reprograms by the accuracy that is monitored while the chip serves.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax
import rich.progress
import typer
from jaxtyping import Array, Float32, PyTree

import memsim
from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from memsim.report.layout import Column, FittingTable
from memsim.report.terminal import results_console
from memsim.report.texts import pool_text
from training import options, runs
from training.evaluation import Apply
from training.finetune.steps import Objective, stuck_aware_step
from training.finetune.tuning import stack
from training.float_training import TrainState, float_step
from training.policies import states, with_share
from training.progress import progress_bar
from training.tasks import Task, digits_task

_BATCH = 64
_WAYS = ("as it is", "fine-tuned", "p steered")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RedeployOptions(options.DigitsOptions):
    """The options of `python -m training.redeploy`."""

    policy: Annotated[str, typer.Option(help="policy with bit stucking")] = "sws+stuck:p=0.5,low=4"
    chips: Annotated[int, typer.Option(min=1, help="chips, all in one vmap")] = 8
    count: Annotated[
        int, typer.Option("--updates", min=1, help="models deployed, the first included")
    ] = 8
    age: Annotated[
        float, typer.Option(min=0, help="cycles of the mean cell at the end / median endurance")
    ] = 0.3
    drop: Annotated[
        float, typer.Option(help="accuracy that the control loop may lose, share of 1")
    ] = 0.01
    gain: Annotated[float, typer.Option(help="change of p per unit of accuracy")] = 5.0
    steps: Annotated[
        int, typer.Option(min=1, help="steps of training an update, and of fine-tuning it")
    ] = 100
    learning_rate: Annotated[float, typer.Option(help="learning rate of fine-tuning")] = 1e-3
    median: Annotated[float, typer.Option(help="median endurance, cycles")] = (
        memsim.service.Lognormal().median
    )
    sigma_ln: Annotated[
        float, typer.Option(help="deviation of the logarithm of endurance; a placeholder")
    ] = memsim.service.Lognormal().sigma_ln
    crossbars: options.Crossbars = 16
    out: options.OutFile = Path("runs/redeploy.json")
    force: options.Replace = False


class Fleet(NamedTuple):
    """Chips in the middle of their lives; every field has a leading axis of chips.

    Attributes:
      chip: with the cells stuck that have failed so far.
      cycles: that each cell has taken.
      share: p, of the cells in low columns that are reprogrammed.
    """

    chip: memsim.Chip
    cycles: Float32[Array, "chips crossbars rows columns"]
    share: Float32[Array, " chips"]


class Record(NamedTuple):
    """One update as it went on each chip.

    Attributes:
      accuracy: on images that nothing else looks at, share of 1.
      monitored: on those that the control loop sees.
      writes: of a steady pass.
      failed: share of cells that were stuck when it was deployed.
      share: p at that time.
    """

    accuracy: Float32[Array, " chips"]
    monitored: Float32[Array, " chips"]
    writes: Float32[Array, " chips"]
    failed: Float32[Array, " chips"]
    share: Float32[Array, " chips"]


def make_deploy(
    apply: Apply,
    images: Array,
    labels: Array,
    endurance: memsim.service.CellLives,
    period: float,
    writing: memsim.Writing | None = None,
) -> Callable[[PyTree, memsim.Plan, Fleet], tuple[Fleet, Record]]:
    """Makes `(networks, plan, fleet) -> (fleet, record)`: one update that serves for `period`.

    Args:
      images, labels: the first half is monitored, the second tells the accuracy.
      endurance: of the cells of every chip.
      period: programmings that an update is in service for.
      writing: how writes fail; None where none does.
    """
    half = len(labels) // 2

    def deploy(
        params: PyTree, plan: memsim.Plan, fleet: Fleet, lives: memsim.service.CellLives
    ) -> tuple[Fleet, Record]:
        steered = with_share(plan, fleet.share)
        _, first = memsim.program(params, steered, fleet.chip, writing=writing)
        held, steady = memsim.program(params, steered, first.chip, wear=True, writing=writing)
        wear = jnp.asarray(steady.wear)
        writes = jnp.sum(wear, dtype=jnp.float32)
        spent = memsim.service.wear_cycles(wear, plan.config)
        cycles = jnp.asarray(fleet.cycles + period * spent, jnp.float32)
        right = jnp.argmax(apply(held, images), axis=-1) == labels
        stuck = (
            memsim.codes.bit_slice(fleet.chip.stuck_at_0 | fleet.chip.stuck_at_1, plan.config) != 0
        )
        record = Record(right[half:].mean(), right[:half].mean(), writes, stuck.mean(), fleet.share)
        chip = memsim.service.wear_out(steady.chip, lives, cycles, plan.config)
        return Fleet(chip, cycles, fleet.share), record

    every = jax.jit(jax.vmap(deploy, in_axes=(0, None, 0, 0)))
    return lambda networks, plan, fleet: every(networks, plan, fleet, endurance)


def steer(
    share: Float32[Array, " chips"],
    monitored: Float32[Array, " chips"],
    target: float,
    gain: float,
) -> Float32[Array, " chips"]:
    """Controls p by an integral: more cells are reprogrammed as long as accuracy is below target.

    Args:
      share: p so far.
      monitored: accuracy, share of 1.
      target: for it.
      gain: change of p per unit of accuracy and update.
    """
    return jnp.clip(share + gain * (target - monitored), 0.0, 1.0)


def updates(task: Task, count: int, steps: int, seed: int) -> Iterator[PyTree]:
    """Yields the network, and versions of it that were each trained `steps` further."""
    assert task.training is not None  # noqa: S101 - the digits have images to train on
    optimizer = optax.adam(1e-3)
    step = jax.jit(functools.partial(float_step, apply=task.apply, optimizer=optimizer))
    state = TrainState(task.params, optimizer.init(task.params))
    batches = task.training(_BATCH, seed + 1, 0)
    for number in range(count):
        for _ in range(steps if number else 0):
            state, _ = step(state, *next(batches))
        yield state.params


def run(
    task: Task,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    law: memsim.service.Lognormal,
    chosen: RedeployOptions,
    bar: rich.progress.Progress,
) -> dict[str, list[Record]]:
    """Deploys updates on the same chips, in each of the three ways.

    Args:
      law: endurance of the cells.

    Returns:
      The records of all updates, by way.
    """
    assert task.training is not None  # noqa: S101 - as above
    chips, count = chosen.chips, chosen.count
    images, labels = map(jnp.asarray, next(iter(task.batches())))
    plan = memsim.plan(task.params, config, policy)
    chip_key, life_key = jax.random.split(jax.random.key(chosen.seed))
    new = jax.vmap(lambda key: memsim.sample_chip(key, plan))(jax.random.split(chip_key, chips))
    one = jax.tree.map(lambda x: x[0], new)
    wear = memsim.service.steady_wear(task.params, plan, one)  # were no write to fail
    # so many programmings of each update that the mean cell ends at the age asked for
    period = chosen.age * law.median / float(wear.mean()) / count

    def draw(key: Array) -> memsim.service.CellLives:
        return memsim.service.sample_lives(key, wear.shape, law, chosen.share_at_1)

    lives = jax.vmap(draw)(jax.random.split(life_key, chips))
    writing = chosen.read_writing(config)
    deploy = make_deploy(task.apply, images, labels, lives, period, writing)
    tune = make_tune(task, chosen, writing)
    unworn = jnp.zeros((chips, *wear.shape), jnp.float32)
    start = Fleet(new, unworn, jnp.full(chips, policy.stucking.p, jnp.float32))
    fleets = dict.fromkeys(_WAYS, start)
    records: dict[str, list[Record]] = {way: [] for way in _WAYS}
    target = None
    versions = updates(task, count, chosen.steps, chosen.seed)
    for params in bar.track(versions, total=count, description="updates"):
        plan = memsim.plan(params, config, policy)
        if target is None:
            right = jnp.argmax(task.apply(params, images), axis=-1) == labels
            target = float(right.mean()) - chosen.drop
        for way, fleet in fleets.items():
            steps = chosen.steps if way == "fine-tuned" else 0
            after, record = deploy(tune(params, plan, fleet.chip, steps), plan, fleet)
            if way == "p steered":
                share = steer(fleet.share, record.monitored, target, chosen.gain)
                after = after._replace(share=share)
            fleets[way] = after
            records[way].append(record)
    return records


def make_tune(
    task: Task, chosen: RedeployOptions, writing: memsim.Writing | None
) -> Callable[[PyTree, memsim.Plan, memsim.Chip, int], PyTree]:
    """Makes `(params, plan, chips, steps) -> networks`: one for each chip, fine-tuned for it."""
    assert task.training is not None  # noqa: S101 - as above
    optimizer = optax.adam(chosen.learning_rate)
    objective = Objective(apply=task.apply, writing=writing)
    one_step = functools.partial(stuck_aware_step, optimizer=optimizer, objective=objective)
    step = jax.jit(jax.vmap(one_step, in_axes=(0, None, 0, None, None)))
    batches = task.training(_BATCH, chosen.seed + 2, 0)

    def tune(params: PyTree, plan: memsim.Plan, chips: memsim.Chip, steps: int) -> PyTree:
        state = stack([TrainState(params, optimizer.init(params))] * chosen.chips)
        for number in range(steps):
            # what is stuck stays, what is stucked is drawn afresh: later passes, not these two
            later = chips._replace(passes=chips.passes + 2 + number)
            state, _ = step(state, plan, later, *next(batches))
        return state.params

    return tune


@with_options(RedeployOptions)
def main(chosen: RedeployOptions) -> None:
    """Accuracy against model updates on chips that wear out."""
    chosen = options.on_hardware(chosen)
    config = memsim.CrossbarConfig(
        rows=chosen.rows, columns=chosen.columns, crossbars=chosen.crossbars
    )
    policy = memsim.Policy.parse(chosen.policy)
    law = memsim.service.Lognormal(median=chosen.median, sigma_ln=chosen.sigma_ln)
    if not states(policy, "p"):
        raise ValueError(f"`--policy` {chosen.policy} has no p to steer; give one with +stuck.")
    runs.check_file(chosen.out, chosen.force)
    with progress_bar() as bar:
        task = digits_task(chosen.seed, bar, chosen.weights, chosen.epochs)
        records = run(task, config, policy, law, chosen, bar)
    names = ("chips", "count", "age", "drop", "gain", "steps", "learning_rate", "share_at_1",
             "seed", "writing")  # fmt: skip
    document = {name: getattr(chosen, name) for name in names}
    document |= {
        "policy": chosen.policy,
        "config": dataclasses.asdict(config),
        "endurance": dataclasses.asdict(law),
        "placeholders": ["endurance.sigma_ln", "share_at_1"],
        "updates": {
            way: [
                {name: value.tolist() for name, value in record._asdict().items()}
                for record in of_way
            ]
            for way, of_way in records.items()
        },
    }
    document["made_by"] = how_made("python -m training.redeploy", chosen)
    runs.write_document(chosen.out, document, chosen.force)
    pool = pool_text(dataclasses.asdict(config))
    show(f"digits CNN, {chosen.policy}, on wearing chips with {pool}", records)


def show(title: str, records: dict[str, list[Record]]) -> None:
    """Prints the table: means over chips."""
    ways = [f"{way}\n{what}" for way in records for what in ("accuracy", "stuck", "writes")]
    columns, rows = [Column(heading) for heading in ("update", *ways, "p")], []
    for number, of_ways in enumerate(zip(*records.values(), strict=True)):
        cells = [
            text
            for record in of_ways
            for text in (
                f"{100 * record.accuracy.mean():.2f} %",
                f"{100 * record.failed.mean():.2f} %",
                f"{record.writes.mean():,.0f}",
            )
        ]
        rows.append((str(number), *cells, f"{of_ways[-1].share.mean():.2f}"))
    results_console().print(FittingTable(title, columns, rows))


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"redeploy: {error}")
