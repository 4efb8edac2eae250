"""Fine-tuning from the float network to tuned chips: program, test, tune, program, test."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import rich.progress
from jaxtyping import Array, Num, PyTree

import memsim
from memsim.selection import is_floating, leaf_name, named_leaves
from training.evaluation import Apply, make_test, program_chips, unstack
from training.finetune.report import Evaluation, Outcome
from training.finetune.settings import FinetuneOptions
from training.finetune.steps import Objective, clipped, weight_limits, within
from training.finetune.tuning import Descent, Replan, Step, Tuning, tune_each, tune_robust
from training.runs import run_steps
from training.tasks import Task, load_like

# Programmings of a chip: in the last it is in the steady state of weight streaming.
_PASSES = 2
# Statistics that a network only collects.
_FROZEN = re.compile(r"running_(mean|var)$")


def sample_chips(keys: Array, plan: memsim.Plan, stuck_at: float) -> memsim.Chip:
    """Draws a chip per key, a share `stuck_at` of its cells stuck, half at 0 and half at 1."""
    return jax.vmap(lambda key: memsim.sample_chip(key, plan, stuck_at / 2, stuck_at / 2))(keys)


def learned(params: PyTree) -> PyTree:
    """Returns the tensors that are fine-tuned; None in place of statistics and integers."""

    def choose(path: tuple[Any, ...], leaf: Any) -> Any:
        return leaf if is_floating(leaf) and not _FROZEN.search(leaf_name(path)) else None

    return jax.tree_util.tree_map_with_path(choose, params)


def complete(some: PyTree, params: PyTree) -> PyTree:
    """Returns `some`, as `learned` gives it, with the tensors that are missing there."""
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf,
        some,
        params,
        is_leaf=lambda leaf: leaf is None,
    )


class Bench(NamedTuple):
    """A network, the chips that it is programmed onto, and how these are tested.

    Attributes:
      start: the tensors that are fine-tuned, as they were trained.
      apply: `(tensors, images) -> logits`.
      chips: those that `compare` draws, with a leading axis of chips.
      replan: makes a plan of weights, for one chip where the policy avoids its stuck cells.
      test: what each network scores on each of the test images, or windows of a text.
    """

    start: PyTree
    apply: Apply
    chips: memsim.Chip
    replan: Replan
    test: Callable[[Sequence[PyTree]], Num[np.ndarray, "networks images"]]


def make_bench(
    task: Task, config: memsim.CrossbarConfig, policy: memsim.Policy, chosen: FinetuneOptions
) -> Bench:
    """Draws the chips, and tells how they are planned and tested."""
    start = learned(task.params)
    unsorted = memsim.plan(start, config, memsim.policies.Unsorted())
    keys = jax.random.split(jax.random.key(chosen.seed), chosen.chips)
    avoids = policy.avoids_faults

    def replan(params: PyTree, chip: memsim.Chip | None) -> memsim.Plan:
        return memsim.plan(params, config, policy, chip=chip if avoids else None)

    def apply(params: PyTree, images: Array) -> Array:
        return task.apply(complete(params, task.params), images)

    measure = make_test(apply, task.score)
    chips = sample_chips(keys, unsorted, chosen.stuck_at)
    return Bench(start, apply, chips, replan, lambda some: measure(some, task.batches()))


def evaluate(
    bench: Bench,
    networks: Sequence[PyTree],
    plans: Sequence[memsim.Plan],
    readout: memsim.Readout | None,
    writing: memsim.Writing | None,
) -> Evaluation:
    """Programs a network onto each chip until the steady state, and tests what it holds."""
    held, programmings = program_chips(networks, plans, bench.chips, _PASSES, readout, writing)
    counted = zip(programmings, plans, strict=True)
    writes = [memsim.summarize(*pair).writes_per_pass[-1] for pair in counted]
    return Evaluation(bench.test(held), held, writes)


def compare_writes(
    start: PyTree, config: memsim.CrossbarConfig, policy: memsim.Policy, chosen: FinetuneOptions
) -> memsim.Comparison:
    """Counts the writes of the policy, without its bit stucking, and of the baseline."""
    compared = (memsim.policies.Unsorted(), policy.placing, policy)
    return memsim.compare(
        {name: np.asarray(leaf) for name, leaf in named_leaves(start).items()},
        config,
        {str(one): one for one in compared},
        chips=memsim.Chips(
            number=chosen.chips,
            seed=chosen.seed,
            stuck_at_0=chosen.stuck_at / 2,
            stuck_at_1=chosen.stuck_at / 2,
        ),
        writing=chosen.read_writing(config),
    )


def make_descent(bench: Bench, chosen: FinetuneOptions) -> Descent:
    """Chooses the weights to start from, and the optimizer that moves them."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, chosen.learning_rate, chosen.warmup, chosen.steps
    )
    optimizer, params = optax.adam(schedule), bench.start
    if chosen.start:
        params = load_like("start", str(chosen.start), bench.start)
    if chosen.clip:
        limits = weight_limits(bench.start, chosen.clip)
        params = clipped(params, limits)
        optimizer = optax.chain(optimizer, within(limits))
    return Descent(params, bench.replan, optimizer, schedule, chosen.refresh)


def make_tuning(
    bench: Bench, chosen: FinetuneOptions, writing: memsim.Writing | None
) -> tuple[Tuning, Step]:
    """Prepares the tuning of one network for all chips, or of one for each."""

    def teacher(images: Array) -> Array:
        return bench.apply(bench.start, images)

    objective = Objective(
        apply=bench.apply,
        teacher=teacher if chosen.distill else None,
        write_price=chosen.write_price,
        write_width=chosen.write_width,
        readout=chosen.readout(),
        passes=_PASSES,
        writing=writing,
    )
    descent = make_descent(bench, chosen)
    if not chosen.robust:
        return tune_each(descent, objective, bench.chips, chosen.group)
    # folded by a number that none of the chips tested on is drawn by
    unseen = jax.random.fold_in(jax.random.key(chosen.seed), 2**31 - 1)
    return tune_robust(descent, objective, unseen, chosen.stuck_at)


def fine_tune(
    task: Task,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    chosen: FinetuneOptions,
    bar: rich.progress.Progress,
) -> Outcome:
    """Programs the network, fine-tunes it for the chips and programs it again."""
    assert task.training is not None  # noqa: S101 - the options ask for images to train on
    training, count = task.training, chosen.chips
    bench, readout = make_bench(task, config, policy, chosen), chosen.readout()
    start, avoids = bench.start, policy.avoids_faults
    writing = chosen.read_writing(config)

    progress = bar.add_task("programming and testing", total=3)
    (reference,) = bench.test([start])
    comparison = compare_writes(start, config, policy, chosen)
    bar.advance(progress)
    # one plan serves all chips, unless each has stuck cells to avoid
    known = unstack(bench.chips) if avoids else [None]
    plans = [bench.replan(start, chip) for chip in known] * (1 if avoids else count)
    before = evaluate(bench, [start] * count, plans, readout, writing)
    bar.advance(progress)

    tuning, step = make_tuning(bench, chosen, writing)
    tuning = run_steps(
        step,
        tuning,
        lambda number: training(chosen.batch, chosen.seed + 1, number),
        chosen.steps,
        folder=chosen.out,
        save_every=chosen.save_every,
        log_every=chosen.log_every,
        description="fine-tuning" if chosen.robust else f"fine-tuning {count} chips",
        bar=bar,
    )
    if chosen.robust:
        networks, plans = [tuning.states[0].params] * count, [tuning.plans[0]] * count
        tuned = complete(networks[0], task.params)
    else:
        networks, plans = tuning.each()
        tuned = jax.tree.map(lambda *of_chips: np.stack(of_chips), *networks)
    after = evaluate(bench, networks, plans, readout, writing)
    bar.advance(progress)
    shared = chosen.robust or not (chosen.refresh or avoids)
    return Outcome(
        score=task.score,
        reference=reference,
        comparison=comparison,
        before=before,
        after=after,
        trained=named_leaves(task.params),
        tuned=named_leaves(tuned),
        plans={"plan": plans[0]}
        if shared
        else {f"plan-{chip}": plan for chip, plan in enumerate(plans)},
    )
