"""Co-design: place the weights, and train through the words that follow cheaply, round by round."""

import functools
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress
from jaxtyping import Array, Key, PyTree

import memsim
from memsim.sensitivity import layer_sensitivity
from training.codesign.measuring import Outcome, draw_chip, go_around, measure_rounds, program_over
from training.codesign.settings import CodesignOptions
from training.data import Batch
from training.evaluation import cross_entropy, distillation
from training.finetune import complete, learned
from training.finetune.steps import clipped, weight_limits, within
from training.float_training import TrainState, descend
from training.runs import run_steps
from training.tasks import Task

# Examples that say how sensitive a layer is, and the least that one may be.
_SENSITIVITY_EXAMPLES, _TINY = 256, 1e-30


class Training(NamedTuple):
    """Weights on the way.

    Attributes:
      train: the weights that are trained, and the optimizer's state.
      offset: what is added to them to make them the words that were chosen last.
      stuck: masks of the stuck cells of the chip that those were chosen for.
      ends: the networks at the ends of rounds; of those to come, the one at the start.
    """

    train: TrainState
    offset: PyTree
    stuck: tuple[Array, Array]
    ends: tuple[PyTree, ...]


def run_rounds(
    task: Task,
    config: memsim.CrossbarConfig,
    policy: memsim.Policy,
    chosen: CodesignOptions,
    hardware: memsim.Hardware,
    bar: rich.progress.Progress,
    old: PyTree | None = None,
) -> Outcome:
    """Trains a network to take few writes, round by round, and measures each.

    Args:
      config, policy: the crossbars, and how weights are placed.
      old: weight stationary, the network that the crossbars hold, whose places this one takes.
      hardware: whose prices net reductions are of.
    """
    network, before = learned(task.params), None if old is None else learned(old)
    limits = weight_limits(network, chosen.clip) if chosen.clip else None
    start = network if limits is None else clipped(network, limits)
    # words are trained for their places: a plan made afresh would lose what rounds have won
    plan = memsim.plan(start if before is None else before, config, policy)
    chains = memsim.WordChains(plan, before)
    prices = _prices(task, start, config, chosen)
    training = _train(task, start, limits, before, chains, prices, chosen, bar)
    return measure_rounds(task, [network, *training.ends], chains, before, chosen, hardware, bar)


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
    limits: PyTree | None,
    old: PyTree | None,
    chains: memsim.WordChains,
    prices: list[dict[str, float]],
    chosen: CodesignOptions,
    bar: rich.progress.Progress,
) -> Training:
    """Runs all rounds, from the last checkpoint if there is one."""
    assert task.training is not None  # noqa: S101 - the options ask for examples to train on
    training = task.training
    fall = optax.cosine_decay_schedule(1.0, chosen.total)
    # Adam's first steps are long: the rate rises over a twentieth of all
    rise = chosen.total // 20
    schedule = optax.warmup_cosine_decay_schedule(0, chosen.learning_rate, rise, chosen.total)
    optimizer = optax.adam(schedule)
    if limits is not None:
        optimizer = optax.chain(optimizer, within(limits))
    update = jax.jit(
        functools.partial(_update, old=old, task=task, chosen=chosen, optimizer=optimizer)
    )
    key = jax.random.fold_in(jax.random.key(chosen.seed), 2**31 - 1)  # of no chip tested on

    def step(number: int, state: Training, batch: Batch) -> tuple[Training, Mapping[str, Any]]:
        turn, of_turn = divmod(number, chosen.steps)
        train, offset, stuck, ends = state
        if of_turn % chosen.words_every == 0:
            words = chains.cheapest(train.params, prices[turn])
            # weights near their words need not be moved far again; as they learn less they are
            # drawn less, or in the end nothing else would move them
            pull = chosen.pull * float(fall(number))
            near = jax.tree.map(lambda w, word: w + pull * (word - w), train.params, words)
            # another chip each time
            chip = draw_chip(jax.random.fold_in(key, number), chains.plan, chosen)
            chip, held = go_around(chip, words, chains, old, chosen)
            stuck = chip.stuck_at_0, chip.stuck_at_1
            train, offset = train._replace(params=near), jax.tree.map(operator.sub, held, near)
        of_step = jax.random.fold_in(key, number)
        train, loss = update(train, offset, stuck, chains.plan, of_step, *batch)
        if of_turn + 1 == chosen.steps:
            held = chains.cheapest(train.params, prices[turn])
            ends = (*ends[:turn], held, *ends[turn + 1 :])
        metrics = {"loss": loss, "price": chosen.price[turn], "learning_rate": schedule(number)}
        return Training(train, offset, stuck, ends), metrics

    whole = memsim.sample_chip(key, chains.plan)
    first = Training(
        TrainState(start, optimizer.init(start)),
        jax.tree.map(np.zeros_like, start),
        (whole.stuck_at_0, whole.stuck_at_1),
        (start,) * len(chosen.price),
    )
    return run_steps(
        step,
        first,
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
    stuck: tuple[Array, Array],
    plan: memsim.Plan,
    key: Key[Array, ""],
    inputs: Array,
    labels: Array,
    *,
    old: PyTree | None,
    task: Task,
    chosen: CodesignOptions,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Array]:
    """Takes a step: the loss is of the words chosen, as they are written if writes fail.

    Args:
      stuck: cells of the chip that the words were chosen for.
      key: of mixtures, and of the writes that fail.

    References:
      Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022: of
      mixed images a teacher says more than of those that it knows by heart.
    """
    if chosen.distill:  # the float network teaches, of mixed images too
        inputs = mix_images(key, inputs)

    def loss(params: PyTree) -> Array:
        on_chip = jax.tree.map(operator.add, params, offset)
        if chosen.writing is not None:
            chip = memsim.with_faults(key, *stuck)
            on_chip, _ = program_over(old, on_chip, plan, chip, chosen)
        logits = task.apply(complete(on_chip, task.params), inputs)
        if not chosen.distill:
            return cross_entropy(logits, labels)
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
