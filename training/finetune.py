"""The main job: train a network, program it onto chips with stuck bits, fine-tune it for them.

    python -m training.finetune

Stuck-aware fine-tuning programs inside the loss: the forward pass runs on the weights that the chip
really holds, the gradient passes straight through to the weights that were asked for. One `vmap`
does it for all chips, each with its own stuck-at faults and bit-stucking draws.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import rich.progress
import rich.table
import typer
from flax import nnx
from jaxtyping import Array, PyTree

import memsim
from memsim import plot
from memsim.report import policy_table
from memsim.selection import named_leaves
from training.data import Dataset, digits, shifted_batches
from training.evaluation import Apply, make_classify, program_chips, unstack
from training.models import CNN
from training.progress import progress_bar
from training.results import check_results, write_results
from training.steps import TrainState, stuck_aware_step, train


def sample_chips(keys: Array, plan: memsim.Plan, stuck_at: float) -> memsim.Chip:
    """One chip per key, a share `stuck_at` of its cells stuck, half at 0 and half at 1."""
    return jax.vmap(lambda key: memsim.sample_chip(key, plan, stuck_at / 2, stuck_at / 2))(keys)


class Evaluation(NamedTuple):
    """Chips programmed once and tested on every test image."""

    accuracy: np.ndarray  # [chips]
    held: list[PyTree]  # weights of each chip
    writes: list[int]  # of each chip


def make_evaluate(apply: Apply, data: Dataset) -> Callable[..., Evaluation]:
    """`(networks, plan, chips) -> Evaluation`, a network for each chip."""
    classify = make_classify(apply)

    def evaluate(networks: Sequence[PyTree], plan: memsim.Plan, chips: memsim.Chip) -> Evaluation:
        held, programmings = program_chips(networks, plan, chips)
        correct = classify(held, [(data.test_images, data.test_labels)])
        writes = [memsim.summarize(programming, plan).writes for programming in programmings]
        return Evaluation(correct.mean(axis=1), held, writes)

    return evaluate


def spread(name: str, values: np.ndarray) -> dict[str, Any]:
    """Mean, minimum and maximum over chips, and every chip, under keys that start with `name`."""
    return {
        name: float(values.mean()),
        f"{name}_min": float(values.min()),
        f"{name}_max": float(values.max()),
        f"{name}_per_chip": [float(value) for value in values],
    }


def main(
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="of weights, batches and chips")] = 0,
    chips: Annotated[int, typer.Option(min=1, help="chips, each with its own stuck pattern")] = 32,
    crossbars: Annotated[int, typer.Option(min=1)] = 16,
    low: Annotated[int, typer.Option(help="low-order columns under bit stucking")] = 5,
    p: Annotated[float, typer.Option(help="probability that a cell there is reprogrammed")] = 0.25,
    stuck_at: Annotated[float, typer.Option(help="share of cells stuck")] = 0.01,
    epochs: Annotated[int, typer.Option(help="of ordinary training")] = 40,
    steps: Annotated[int, typer.Option(help="of stuck-aware fine-tuning")] = 300,
    batch: Annotated[int, typer.Option(help="images per step")] = 64,
    learning_rate: Annotated[float, typer.Option(help="of Adam at the start of either")] = 3e-3,
    force: Annotated[bool, typer.Option("--force", help="replace earlier results")] = False,
) -> None:
    """Train a CNN on digits, program it onto chips with stuck bits, fine-tune it for them."""
    check_results(out, "report.json", force)
    data = digits()
    config = memsim.CrossbarConfig(crossbars=crossbars)
    stuck = f"+stuck:p={p},low={low}"
    policies = {
        name: memsim.Policy.parse(name)
        for name in ("unsorted", "sws", f"sws{stuck}", f"sws-layer{stuck}")
    }
    tuned_policy = f"sws{stuck}"

    graph, params = nnx.split(CNN(nnx.Rngs(seed)), nnx.Param)

    def apply(params: PyTree, images: Array) -> Array:
        return nnx.merge(graph, params)(images)

    with progress_bar() as bar:
        params = train(apply, params, data, seed, epochs, batch, learning_rate, bar)
        (correct,) = make_classify(apply)([params], [(data.test_images, data.test_labels)])
        accuracy: dict[str, Any] = {"float": float(correct.mean())}

        task = bar.add_task("programming under each policy", total=len(policies) + 1)
        weights = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
        comparison = memsim.compare(
            weights, config, policies, chips=chips, seed=seed,
            stuck_at_0=stuck_at / 2, stuck_at_1=stuck_at / 2,
        )  # fmt: skip
        bar.advance(task)
        keys = jax.random.split(jax.random.key(seed), chips)  # the chips of `compare`
        evaluate = make_evaluate(apply, data)
        by_policy = {}
        for name, policy in policies.items():
            plan = memsim.plan(params, config, policy)
            result = evaluate([params] * chips, plan, sample_chips(keys, plan, stuck_at))
            by_policy[name] = spread("programmed", result.accuracy)
            bar.advance(task)

        plan = memsim.plan(params, config, policies[tuned_policy])
        same_draws = sample_chips(keys, plan, stuck_at)
        fresh_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(same_draws.key)
        fresh_draws = same_draws._replace(key=fresh_keys)  # the same faults, other draws
        before = evaluate([params] * chips, plan, same_draws)
        everyone = jax.tree.map(lambda x: jnp.broadcast_to(x, (chips, *x.shape)), params)
        tuned = finetune(apply, everyone, plan, same_draws, data, seed, steps, batch,
                         learning_rate, bar)  # fmt: skip
        after = evaluate(unstack(tuned), plan, same_draws)
        elsewhere = evaluate(unstack(tuned), plan, fresh_draws)

    accuracy |= spread("programmed", before.accuracy)
    accuracy |= spread("finetuned", after.accuracy)
    accuracy |= spread("finetuned_fresh_draws", elsewhere.accuracy)
    document = memsim.to_json(
        "trained.safetensors", config, comparison.policies, comparison.digital
    )
    document |= {
        "accuracy": accuracy | {"policies": by_policy},
        "writes": {
            "policy": tuned_policy,
            "before_finetuning": float(np.mean(before.writes)),
            "after_finetuning": float(np.mean(after.writes)),
        },
        "settings": {
            "seed": seed, "chips": chips, "p": p, "low": low, "stuck_at": stuck_at,
            "epochs": epochs, "steps": steps, "batch": batch, "learning_rate": learning_rate,
        },
    }  # fmt: skip
    save(out, document, comparison.policies, weights, tuned, after)
    show(out, document, comparison.policies)


def finetune(
    apply: Apply,
    params: PyTree,
    plan: memsim.Plan,
    chips: memsim.Chip,
    data: Dataset,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
    bar: rich.progress.Progress,
) -> PyTree:
    """Stuck-aware fine-tuning of weights with a leading axis of chips, all chips at once."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    one = functools.partial(stuck_aware_step, apply=apply, optimizer=optimizer)
    step = jax.jit(jax.vmap(one, in_axes=(0, None, 0, None, None)))
    state = TrainState(params, jax.vmap(optimizer.init)(params))
    batches: Iterator[tuple[np.ndarray, np.ndarray]] = shifted_batches(data, batch, seed + 1)
    count = chips.passes.shape[0]
    for _ in bar.track(range(steps), description=f"fine-tuning {count} chips stuck-aware"):
        state, _ = jax.block_until_ready(step(state, plan, chips, *next(batches)))
    return state.params


def save(
    out: Path,
    document: dict[str, Any],
    policies: dict[str, memsim.Summary],
    weights: dict[str, np.ndarray],
    tuned: PyTree,
    after: Evaluation,
) -> None:
    """Writes the results, `report.json` last."""
    memsim.save_tensors(out / "trained.safetensors", weights, force=True)
    memsim.save_tensors(out / "finetuned.safetensors", named_leaves(tuned), force=True)
    held = jax.tree.map(lambda *chips: np.stack(chips), *after.held)
    memsim.save_tensors(out / "programmed.safetensors", named_leaves(held), force=True)
    accuracy = document["accuracy"]
    series = {
        "programmed": accuracy["programmed_per_chip"],
        "fine-tuned": accuracy["finetuned_per_chip"],
        "fine-tuned, fresh draws": accuracy["finetuned_fresh_draws_per_chip"],
    }
    figures = {
        "accuracy": plot.accuracy_over_chips(accuracy["float"], series),
        "writes": plot.writes_by_policy(policies),
        "columns": plot.writes_per_column(policies),
    }
    shown = {
        "float network": accuracy["float"],
        "programmed, mean of the chips": accuracy["programmed"],
        "after stuck-aware fine-tuning": accuracy["finetuned"],
        "the same on fresh draws": accuracy["finetuned_fresh_draws"],
    }
    pictures = {"Every chip, before and after": "accuracy"}
    write_results(out, "report.json", document, shown, figures, pictures)


def show(out: Path, document: dict[str, Any], policies: dict[str, memsim.Summary]) -> None:
    """Prints the tables."""
    accuracy, settings, writes = (document[key] for key in ("accuracy", "settings", "writes"))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140)
    console.print(policy_table(policies))
    table = rich.table.Table(
        title=f"Accuracy on {settings['chips']} chips: {writes['policy']}, "
        f"{100 * settings['stuck_at']:g} % of cells stuck",
        title_justify="left",
    )
    table.add_column("")
    for heading in ("mean", "worst chip", "best chip"):
        table.add_column(heading, justify="right")
    table.add_row("float network", f"{100 * accuracy['float']:.1f} %", "", "")
    for label, name in (
        ("programmed", "programmed"),
        ("after stuck-aware fine-tuning", "finetuned"),
        ("the same on fresh draws", "finetuned_fresh_draws"),
    ):
        figures = (accuracy[name], accuracy[f"{name}_min"], accuracy[f"{name}_max"])
        table.add_row(label, *(f"{100 * figure:.1f} %" for figure in figures))
    console.print(table)
    console.print(
        f"writes per pass {writes['before_finetuning']:,.0f} before, "
        f"{writes['after_finetuning']:,.0f} after fine-tuning (same plan); results in {out}/",
        highlight=False,
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        sys.exit(f"finetune: {error}")
