"""Rounds of co-design: place the weights, train through the words that follow cheaply, measure."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress
from jaxtyping import Array, Key, Num, PyTree

import memsim
from memsim.hardware import with_net_reduction
from memsim.intervals import Interval
from memsim.sensitivity import layer_sensitivity
from memsim.summary import with_reduction
from training.codesign.settings import CodesignOptions
from training.data import Batch
from training.evaluation import cross_entropy, distillation, make_test
from training.finetune import complete, learned
from training.float_training import TrainState, descend
from training.runs import run_steps
from training.scoring import Score
from training.tasks import Task

# Examples that say how sensitive a layer is, and the least that one may be.
_SENSITIVITY_EXAMPLES, _TINY = 256, 1e-30


class Training(NamedTuple):
    """Weights on the way.

    Attributes:
      train: the weights that are trained, and the optimizer's state.
      offset: what is added to them to make them the words that were chosen last.
      ends: the networks at the ends of rounds; of those to come, the one at the start.
    """

    train: TrainState
    offset: PyTree
    ends: tuple[PyTree, ...]


class Round(NamedTuple):
    """A network at the end of a round; or, first, before all.

    Attributes:
      price: squared code errors that a write less made up for; 0 before all.
      network: its weights, as they are programmed.
      plan: where they are.
      summary: of a steady pass, against `unsorted` twos_complement before all; means over chips.
      planning, held_out: change of the score on the examples that choose the round, and on the
        others.
    """

    price: float
    network: PyTree
    plan: memsim.Plan
    summary: memsim.Summary
    planning: Interval
    held_out: Interval


class Outcome(NamedTuple):
    """All rounds, and the one that is kept.

    Attributes:
      rounds: the first is the network as it was.
      kept: number of the one of fewest writes within the budget.
      baseline: a steady pass of `unsorted` twos_complement, before all.
      reference: score of the float network on the examples held out, with its interval.
      examples: held out.
    """

    rounds: list[Round]
    kept: int
    baseline: memsim.Summary
    reference: Interval
    examples: int


def run_rounds(
    task: Task,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    chosen: CodesignOptions,
    hardware: memsim.Hardware,
    bar: rich.progress.Progress,
) -> Outcome:
    """Trains a network to take few writes, round by round, and measures each.

    Args:
      config, policy: the crossbars, and how weights are placed.
      hardware: whose prices net reductions are of.

    Raises:
      ValueError: no round keeps to the budget.
    """
    start = learned(task.params)

    known: dict[int, memsim.WordChains] = {}

    def chains(number: int, ends: tuple[PyTree, ...]) -> memsim.WordChains:
        """Plans a round on the words that the one before ended with."""
        if number not in known:
            network = ends[number - 1] if number else start
            known[number] = memsim.WordChains(memsim.plan(network, config, policy))
        return known[number]

    prices = _prices(task, start, config, chosen)
    training = _train(task, start, chains, prices, chosen, bar)
    plans = [chains(number, training.ends).plan for number in range(len(chosen.price))]
    return _measure(task, [start, *training.ends], [plans[0], *plans], chosen, hardware, bar)


def _prices(
    task: Task, start: PyTree, config: memsim.CrossbarConfig, chosen: CodesignOptions
) -> list[dict[str, float]]:
    """Shares the price of each round out: errors are dearer where they cost more loss.

    By the root of the sensitivity, since training mends most of what an error costs: on ResNet-20
    that costs half the loss of one price for all, and of prices by the sensitivity itself.
    """
    assert task.training is not None  # noqa: S101 - the options ask for examples to train on
    examples = next(task.training(_SENSITIVITY_EXAMPLES, chosen.seed, 0))

    def loss(params: PyTree, batch: Batch) -> Array:
        inputs, labels = map(jnp.asarray, batch)
        return cross_entropy(task.apply(complete(params, task.params), inputs), labels)

    cost = layer_sensitivity(start, config, loss, examples)
    usual = np.exp(np.mean(np.log([max(one, _TINY) for one in cost.values()])))
    shares = {name: float(np.sqrt(usual / max(one, _TINY))) for name, one in cost.items()}
    return [{name: price * share for name, share in shares.items()} for price in chosen.price]


def _train(
    task: Task,
    start: PyTree,
    chains: Callable[[int, tuple[PyTree, ...]], memsim.WordChains],
    prices: list[dict[str, float]],
    chosen: CodesignOptions,
    bar: rich.progress.Progress,
) -> Training:
    """Runs all rounds, from the last checkpoint if there is one."""
    assert task.training is not None  # noqa: S101 - the options ask for examples to train on
    training = task.training
    schedule = optax.cosine_decay_schedule(chosen.learning_rate, chosen.total)
    optimizer = optax.adam(schedule)
    update = jax.jit(functools.partial(_update, task=task, chosen=chosen, optimizer=optimizer))
    key = jax.random.fold_in(jax.random.key(chosen.seed), 2**31 - 1)  # of no chip tested on

    def step(number: int, state: Training, batch: Batch) -> tuple[Training, Mapping[str, Any]]:
        turn, within = divmod(number, chosen.steps)
        here, (train, offset, ends) = chains(turn, state.ends), state
        if within % chosen.words_every == 0:
            held = here.cheapest(train.params, prices[turn])
            offset = jax.tree.map(operator.sub, held, train.params)
        train, loss = update(train, offset, here.plan, jax.random.fold_in(key, number), *batch)
        if within + 1 == chosen.steps:
            held = here.cheapest(train.params, prices[turn])
            ends = (*ends[:turn], held, *ends[turn + 1 :])
        metrics = {"loss": loss, "price": chosen.price[turn], "learning_rate": schedule(number)}
        return Training(train, offset, ends), metrics

    first = TrainState(start, optimizer.init(start))
    return run_steps(
        step,
        Training(first, jax.tree.map(np.zeros_like, start), (start,) * len(chosen.price)),
        lambda number: training(chosen.batch, chosen.seed + 1, number),
        chosen.total,
        folder=chosen.out,
        save_every=chosen.save_every,
        log_every=chosen.log_every,
        description="training",
        bar=bar,
    )


def _update(
    state: TrainState,
    offset: PyTree,
    plan: memsim.Plan,
    key: Key[Array, ""],
    inputs: Array,
    labels: Array,
    *,
    task: Task,
    chosen: CodesignOptions,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Array]:
    """Takes a step: the loss is of the words chosen, on another chip each time if chips differ.

    References:
      Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022: of
      mixed images a teacher says more than of those that it knows by heart.
    """
    del labels  # the float network teaches
    writing, inputs = chosen.read_writing(plan.config), mix_images(key, inputs)

    def loss(params: PyTree) -> Array:
        on_chip = jax.tree.map(operator.add, params, offset)
        if chosen.stuck_at or writing is not None:
            chip = memsim.sample_chip(key, plan, chosen.stuck_at / 2, chosen.stuck_at / 2)
            on_chip, _ = memsim.program(on_chip, plan, chip, passes=2, writing=writing)
        logits = task.apply(complete(on_chip, task.params), inputs)
        return distillation(logits, task.apply(task.params, inputs))

    value, gradient = jax.value_and_grad(loss)(state.params)
    return descend(state, gradient, optimizer), value


def mix_images(key: Key[Array, ""], inputs: Array) -> Array:
    """Mixes every image of a batch with another one, float32; a text stays as it is.

    Args:
      key: of the shares; consumed with one number more.
      inputs: [batch, height, width, channels], or tokens [batch, window].
    """
    if inputs.ndim < 4:
        return inputs
    share = jax.random.uniform(jax.random.fold_in(key, 1), (len(inputs), 1, 1, 1))
    images = inputs.astype(jnp.float32)
    return share * images + (1 - share) * images[::-1]


def _measure(
    task: Task,
    networks: list[PyTree],
    plans: list[memsim.Plan],
    chosen: CodesignOptions,
    hardware: memsim.Hardware,
    bar: rich.progress.Progress,
) -> Outcome:
    """Counts a steady pass of each network, tests what chips hold, and chooses."""
    start, score = networks[0], task.score
    progress = bar.add_task("measuring the rounds", total=1 + len(networks))
    test = make_test(lambda params, x: task.apply(complete(params, task.params), x), score)
    differ = chosen.stuck_at > 0 or chosen.writing is not None
    keys = jax.random.split(jax.random.key(chosen.seed), chosen.chips if differ else 1)
    (reference,) = test([start], task.batches())
    planning = _planning_half(reference.size, chosen.seed)

    def steady(network: PyTree, plan: memsim.Plan) -> tuple[list[PyTree], memsim.Summary]:
        held, summaries = [], []
        for key in keys:
            chip = memsim.sample_chip(key, plan, chosen.stuck_at / 2, chosen.stuck_at / 2)
            writing = chosen.read_writing(plan.config)
            _, first = memsim.program(network, plan, chip, writing=writing)
            on_chip, second = memsim.program(network, plan, first.chip, writing=writing)
            held.append(on_chip)
            summaries.append(memsim.summarize(second, plan))
        return held, memsim.mean_over_chips(summaries)

    usual = dataclasses.replace(plans[0].config, encoding="twos_complement")
    _, baseline = steady(start, memsim.plan(start, usual, memsim.policies.Unsorted()))
    bar.advance(progress)
    rounds = []
    for price, network, plan in zip([0.0, *chosen.price], networks, plans, strict=True):
        held, summary = steady(network, plan)
        values = test(held, task.batches())
        summary = with_net_reduction(with_reduction(summary, baseline), baseline, hardware)
        changes = (
            score.compare(values[:, part], reference[part]) for part in (planning, ~planning)
        )
        rounds.append(Round(price, network, plan, summary, *changes))
        bar.advance(progress)
    return Outcome(
        rounds,
        _fewest_within(rounds, score, chosen.max_drop),
        baseline,
        score.interval(reference[~planning]),
        int((~planning).sum()),
    )


def _planning_half(examples: int, seed: int) -> Num[np.ndarray, " examples"]:
    """Draws the half of the examples that chooses the round."""
    half = np.zeros(examples, bool)
    half[np.random.default_rng(seed).permutation(examples)[: examples // 2]] = True
    return half


def _fewest_within(rounds: list[Round], score: Score, max_drop: float) -> int:
    """Finds the round of fewest writes that keeps to the budget on the examples that choose.

    Raises:
      ValueError: none does.
    """

    def lost(one: Round) -> float:
        return -one.planning.mean if score.higher_is_better else one.planning.mean - 1

    within = [number for number, one in enumerate(rounds) if lost(one) <= max_drop]
    if not within:
        least = min(map(lost, rounds))
        raise ValueError(
            f"`--max-drop` is {max_drop:g}, but every round loses {least:.4f} or more; lower the "
            "prices, train for more steps, or allow more."
        )
    return min(within, key=lambda number: rounds[number].summary.writes)
