"""Life and cost of a service on one chip: the digits CNN under several policies.

    python -m training.wearout --policy unsorted --policy matched --cost prices.toml

Cells wear by the cycles of a steady pass, counted; a worn cell is stuck from then on. The first
failure is rarely the end: a chip serves until its accuracy falls below a bar.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Array, Float, Float32, Int32, PyTree

import memsim
from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from memsim.report.documents import figures_json, service_inputs_json, service_life_json
from memsim.report.layout import Column, FittingTable
from memsim.report.terminal import results_console
from memsim.report.texts import number_text, pool_text, quantity_text, time_text
from memsim.service.costs import (
    Figure,
    ServiceInputs,
    make_service_inputs,
    read_service_inputs,
    total_cost,
)
from memsim.service.ownership import ServiceLife, life_in_service
from training import options, runs
from training.evaluation import Apply, unstack
from training.progress import progress_bar
from training.tasks import Task, digits_task

_POLICIES = ["unsorted", "sws", "matched", "matched:tolerance=1"]

# Passes whose wear is averaged, where bit stucking draws afresh in each.
_AVERAGED = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class WearoutOptions(options.DigitsOptions):
    """The options of `python -m training.wearout`."""

    policy: Annotated[list[str], typer.Option(help="policy to wear chips out by; repeatable")] = (
        dataclasses.field(default_factory=lambda: list(_POLICIES))
    )
    drop: Annotated[
        float, typer.Option(min=0, max=1, help="accuracy that may be lost, share of 1")
    ] = 0.02
    cost: Annotated[
        Path | None, typer.Option(help=".toml of endurance and prices, see memsim report")
    ] = None
    chips: Annotated[int, typer.Option(min=1, help="chips to wear out")] = 16
    crossbars: options.Crossbars = 1
    bits: options.Bits = 8
    out: options.OutFile = Path("runs/wearout.json")
    force: options.Replace = False


class Decline(NamedTuple):
    """The time at which each chip falls below the bar.

    Attributes:
      failures: cells that have failed by then.
      programmings: until then; infinity where it never does.
    """

    failures: Int32[np.ndarray, " chips"]
    programmings: Float[np.ndarray, " chips"]


class Service(NamedTuple):
    """The service of chips under one policy.

    Attributes:
      accuracy: of new chips, share of 1.
      life: of a chip that is replaced at its first failure.
      years: until the accuracy of each chip falls below the bar.
      failures: cells that have failed by then.
      figures: cost of chips that are replaced then, of the median one; none if that is below the
        bar when it is new.
    """

    accuracy: float
    life: ServiceLife
    years: Float[np.ndarray, " chips"]
    failures: Int32[np.ndarray, " chips"]
    figures: dict[str, Figure]


def make_accuracy(
    apply: Apply,
    params: PyTree,
    plan: memsim.Plan,
    images: Array,
    labels: Array,
    writing: memsim.Writing | None = None,
) -> Callable[[memsim.Chip], Float32[Array, " chips"]]:
    """Makes `chips -> share of images right` on each; compiles once."""

    def accuracy(chip: memsim.Chip) -> Array:
        held, _ = memsim.program(params, plan, chip, writing=writing)
        return jnp.mean(jnp.argmax(apply(held, images), axis=-1) == labels)

    return jax.jit(jax.vmap(accuracy))


def until_accuracy(
    accuracy: Callable[[memsim.Chip], Array],
    bar: float,
    chips: memsim.Chip,
    lives: memsim.service.CellLives,
    wear: Float32[Array, "chips crossbars rows columns"],
    config: memsim.CrossbarConfig,
) -> Decline:
    """Counts programmings until the accuracy of each chip falls below `bar`.

    Bisects over the cells of all chips at once, in the order in which they fail. Where accuracy
    goes up and down about the bar, it is one of the times at which it falls below.

    Args:
      accuracy: see `make_accuracy`.
      chips, lives: with a leading axis of chips.
      wear: cycles per cell of a programming.
    """
    count = wear.shape[0]
    fails = np.asarray(lives.endurance / wear).reshape(count, -1)
    order = np.sort(fails, axis=1)
    age = jax.jit(jax.vmap(memsim.service.wear_out, (0, 0, 0, None)), static_argnums=3)

    def holds(failures: np.ndarray) -> np.ndarray:
        when = np.where(failures > 0, order[np.arange(count), failures - 1], 0)
        when = when * (1 + 1e-6)  # cycles are rounded
        cycles = jnp.asarray(when, jnp.float32)[:, None, None, None] * wear
        return np.asarray(accuracy(age(chips, lives, cycles, config))) >= bar

    most = np.isfinite(order).sum(axis=1)
    never = holds(most)
    good, bad = np.zeros(count, int), most  # `bad` cells failed are too many, `good` are not
    while np.any(bad - good > 1):
        middle = (good + bad) // 2
        held = holds(middle)
        good, bad = np.where(held, middle, good), np.where(held, bad, middle)
    bad = np.where(holds(np.zeros(count, int)), bad, 0)
    ends = np.where(bad > 0, order[np.arange(count), bad - 1], 0)
    return Decline(bad.astype(np.int32), np.where(never, np.inf, ends))


def serve(
    task: Task,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    inputs: ServiceInputs,
    bar: float,
    chosen: WearoutOptions,
) -> Service:
    """Wears chips out under one policy.

    Args:
      bar: accuracy, share of 1, below which a chip is replaced.
    """
    ((images, labels),) = task.batches()
    plan = memsim.plan(task.params, config, policy)
    writing = chosen.read_writing(config)
    chip_key, life_key = jax.random.split(jax.random.key(chosen.seed))
    fresh = jax.vmap(lambda key: memsim.sample_chip(key, plan))(
        jax.random.split(chip_key, chosen.chips)
    )

    def steady(chip: memsim.Chip) -> memsim.Programming:
        _, first = memsim.program(task.params, plan, chip, writing=writing)
        return memsim.program(task.params, plan, first.chip, wear=True, writing=writing)[1]

    passes = jax.vmap(steady)(fresh)
    wear = jnp.asarray(memsim.service.wear_cycles(jnp.asarray(passes.wear), config))
    drawn = policy.stucking.drawn and policy.stucking.draws == "fresh"
    if drawn or writing is not None:  # other cells in every pass
        averaged = functools.partial(
            memsim.service.steady_wear, task.params, plan, passes=_AVERAGED, writing=writing
        )
        wear = jax.vmap(averaged)(fresh)

    def draw(key: Array) -> memsim.service.CellLives:
        return memsim.service.sample_lives(key, wear.shape[1:], inputs.endurance, chosen.share_at_1)

    lives = jax.vmap(draw)(jax.random.split(life_key, chosen.chips))
    accuracy = make_accuracy(
        task.apply, task.params, plan, jnp.asarray(images), jnp.asarray(labels), writing
    )
    decline = until_accuracy(accuracy, bar, fresh, lives, wear, config)
    summary = memsim.mean_over_chips([memsim.summarize(one, plan) for one in unstack(passes)])
    first = life_in_service(summary, inputs, cycles=list(np.asarray(wear)), seed=chosen.seed)
    costs, median = inputs.costs, float(np.median(decline.programmings))
    written = first.write_joules, first.write_seconds
    figures = total_cost(median, *written, costs) if median else {}
    rate = costs.inferences_per_day / first.figures["chips"].value
    years = memsim.service.lifetime_years(decline.programmings, rate, costs.batch)
    return Service(float(jnp.mean(accuracy(fresh))), first, years, decline.failures, figures)


@with_options(WearoutOptions)
def main(chosen: WearoutOptions) -> None:
    """Writes, accuracy, energy, write time, years and cost of the digits CNN by policy."""
    chosen = options.on_hardware(chosen)
    config = memsim.CrossbarConfig(
        rows=chosen.rows, columns=chosen.columns, bits=chosen.bits, crossbars=chosen.crossbars
    )
    policies = {name: memsim.Policy.parse(name) for name in chosen.policy}
    inputs = read_service_inputs(chosen.cost) if chosen.cost else make_service_inputs()
    runs.check_file(chosen.out, chosen.force)
    with progress_bar() as bar:
        task = digits_task(chosen.seed, bar, chosen.weights, chosen.epochs)
        ((images, labels),) = task.batches()
        right = jnp.argmax(task.apply(task.params, jnp.asarray(images)), axis=-1) == labels
        trained = float(jnp.mean(right))
        services = {
            name: serve(task, config, each, inputs, trained - chosen.drop, chosen)
            for name, each in bar.track(policies.items(), description="wearing chips out")
        }
    document: dict[str, Any] = {
        "float_accuracy": trained,
        "drop": chosen.drop,
        "share_at_1": chosen.share_at_1,
        "chips": chosen.chips,
        "writing": chosen.writing,
        "config": dataclasses.asdict(config),
        "lifetime": service_inputs_json(inputs),
        "policies": {name: service_json(service) for name, service in services.items()},
    }
    document["lifetime"]["pool"] = pool_text(document["config"])
    if chosen.share_at_1 == 0.5:
        document["lifetime"]["placeholders"].append("share_at_1")
    document["made_by"] = how_made("python -m training.wearout", chosen)
    runs.write_document(chosen.out, document, chosen.force)
    show(document, services, inputs, chosen.out)


def service_json(service: Service) -> dict[str, Any]:
    """Puts a service down as JSON values; None where a chip never falls below the bar."""
    return service_life_json(service.life) | {
        "accuracy": service.accuracy,
        "years_to_bar": [year if math.isfinite(year) else None for year in service.years.tolist()],
        "failures_at_bar": service.failures.tolist(),
        "figures_at_bar": figures_json(service.figures),
    }


def show(
    document: dict[str, Any], services: dict[str, Service], inputs: ServiceInputs, out: Path
) -> None:
    """Prints the table."""
    costs = inputs.costs
    title = (
        f"Lifetime of a chip with {document['lifetime']['pool']}, under the digits CNN: "
        f"float network {100 * document['float_accuracy']:.2f} %, "
        f"{costs.inferences_per_day:,g} inferences a day, chips replaced when their accuracy has "
        f"dropped by {100 * document['drop']:g} points"
    )
    headings = (
        "policy", "writes\na pass", "accuracy", "energy", "write time", "first failure",
        "lifetime", "cells failed", f"{costs.currency} a year",
    )  # fmt: skip
    rows = []
    for name, service in services.items():
        found = service.life
        rows.append((
            name, f"{found.summary.writes:,}", f"{100 * service.accuracy:.2f} %",
            quantity_text(found.write_joules, "J"), quantity_text(found.write_seconds, "s"),
            time_text(np.median(found.years)), time_text(np.median(service.years)),
            f"{np.median(service.failures):g}",
            number_text(service.figures["total_cost"].value) if service.figures else "",
        ))  # fmt: skip
    console = results_console()
    console.print(FittingTable(title, [Column(heading) for heading in headings], rows))
    guessed = ", ".join(document["lifetime"]["placeholders"])
    console.print(f"medians over chips; PLACEHOLDERS: {guessed}; results in {out}", highlight=False)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"wearout: {error}")
