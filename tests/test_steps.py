import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import memsim
from training.data import digits
from training.evaluation import distillation
from training.finetune.steps import (
    Objective,
    robust_step,
    stuck_aware_loss,
    stuck_aware_step,
    weight_limits,
    within,
)
from training.float_training import TrainState
from training.models import CNN


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, images):
        hidden = images
        for i, channels in enumerate((16, 32, 64)):
            hidden = linen.Conv(channels, (3, 3), strides=1 if i == 0 else 2, name=f"conv{i}")(
                hidden
            )
            hidden = linen.relu(hidden)
        return linen.Dense(10, name="dense")(hidden.reshape(hidden.shape[0], -1))


@pytest.mark.slow
def test_the_same_step_serves_nnx_and_linen():
    graph, nnx_params = nnx.split(CNN(nnx.Rngs(0)), nnx.Param)
    convs = {f"conv{i}": nnx_params["convs"][i] for i in range(3)}
    layers = convs | {"dense": nnx_params["dense"]}
    linen_params = {
        name: {kind: layer[kind].get_value() for kind in ("kernel", "bias")}
        for name, layer in layers.items()
    }
    models = {
        "nnx": (nnx_params, lambda params, images: nnx.merge(graph, params)(images)),
        "linen": (linen_params, lambda params, x: LinenCNN().apply({"params": params}, x)),
    }
    config = memsim.CrossbarConfig(crossbars=16)
    data = digits()
    images, labels = data.train_images[:32], data.train_labels[:32]
    optimizer = optax.sgd(0.1)
    results = {}
    for name, (params, apply) in models.items():
        plan = memsim.plan(params, config, memsim.policies.Sws(low=5, p=0.25))
        chip = memsim.sample_chip(jax.random.key(0), plan, 0.005, 0.005)
        objective = Objective(apply=apply)
        one = functools.partial(stuck_aware_step, objective=objective, optimizer=optimizer)
        step = jax.jit(one)
        state, losses = TrainState(params, optimizer.init(params)), []
        for _ in range(2):
            state, loss = step(state, plan, chip, images, labels)
            losses.append(loss.task)
        held, _ = memsim.program(state.params, plan, chip)
        results[name] = losses, jax.tree.leaves(state.params), jax.tree.leaves(held)
    for of_nnx, of_linen in zip(results["nnx"], results["linen"], strict=True):
        for a, b in zip(of_nnx, of_linen, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=5e-5)  # a code may round the other way
    assert results["nnx"][0][1] < results["nnx"][0][0]


def test_the_loss_sees_what_the_chip_holds(key):
    params = {"dense": {"kernel": jax.random.normal(key, (30, 4))}}
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=16), memsim.policies.Unsorted())
    every_cell = jnp.full((1, 16), 255, jnp.uint8)
    dead = memsim.with_faults(key, every_cell, jnp.zeros_like(every_cell))
    optimizer = optax.sgd(1.0)
    state = TrainState(params, optimizer.init(params))
    images, labels = jnp.ones((5, 30)), jnp.zeros(5, jnp.int32)
    _, losses = stuck_aware_step(
        state, plan, dead, images, labels,
        objective=Objective(apply=lambda p, x: x @ p["dense"]["kernel"]), optimizer=optimizer,
    )  # fmt: skip
    np.testing.assert_allclose(losses.task, np.log(4), rtol=1e-6)  # all weights held are 0


@pytest.fixture
def problem(key):
    """A linear classifier, its plan, and data."""
    params = {"dense": {"kernel": jax.random.normal(key, (30, 4)), "bias": jnp.zeros(4)}}
    policy = memsim.Policy.parse("sws+stuck:p=0.5,low=4")
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=16), policy)
    images = jax.random.normal(jax.random.fold_in(key, 1), (40, 30))
    labels = jnp.arange(40, dtype=jnp.int32) % 4
    return params, plan, images, labels


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int32 and float
        yield


def linear(params, images):
    return images @ params["dense"]["kernel"] + params["dense"]["bias"][None]


LINEAR = Objective(apply=linear)


@pytest.mark.slow
def test_many_chips_at_once_are_a_loop_over_chips(problem, key):
    params, plan, images, labels = problem
    optimizer = optax.adam(0.01)
    step = functools.partial(stuck_aware_step, objective=LINEAR, optimizer=optimizer)
    chips = jax.vmap(lambda key: memsim.sample_chip(key, plan, 0.02, 0.02))(
        jax.random.split(key, 3)
    )
    state = TrainState(params, optimizer.init(params))
    states = jax.tree.map(lambda x: jnp.stack([x] * 3), state)
    many, losses = jax.jit(jax.vmap(step, in_axes=(0, None, 0, None, None)))(
        states, plan, chips, images, labels
    )
    for i in range(3):
        chip = jax.tree.map(lambda x, i=i: x[i], chips)
        one, loss = step(state, plan, chip, images, labels)
        np.testing.assert_allclose(losses.task[i], loss.task, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6)


def test_a_robust_step_is_a_step_for_the_chip_of_its_key(problem, key):
    params, plan, images, labels = problem
    optimizer = optax.sgd(0.1)
    options = {"objective": LINEAR, "optimizer": optimizer}
    state = TrainState(params, optimizer.init(params))
    chip = memsim.sample_chip(key, plan, 0.01, 0.01)
    known, _ = stuck_aware_step(state, plan, chip, images, labels, **options)
    drawn, _ = robust_step(state, plan, key, images, labels, stuck_at=0.02, **options)
    other, _ = robust_step(
        state, plan, jax.random.fold_in(key, 1), images, labels, stuck_at=0.02, **options
    )
    kernels = [state.params["dense"]["kernel"] for state in (known, drawn, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.any(kernels[1] != kernels[2])


def test_a_noise_aware_step_learns_from_weights_as_they_are_read(problem, key):
    params, plan, images, labels = problem
    chip = memsim.sample_chip(key, plan, 0.01, 0.01)
    held, programming = memsim.program(params, plan, chip, words=True)
    readout = memsim.Readout(cells=memsim.Conductance.pcm(), seconds=3600.0)
    seen = memsim.read_weights(key, held, plan, programming, readout)

    def loss(read_key=None):
        objective = Objective(apply=linear, teacher=lambda x: linear(seen, x), readout=readout)
        return stuck_aware_loss(params, plan, chip, images, labels, objective, read_key)[0]

    assert abs(loss(key)) < 1e-5
    assert loss() > 1e-5
    optimizer = optax.sgd(0.1)
    state = TrainState(params, optimizer.init(params))
    objective = Objective(apply=linear, readout=readout)
    step = functools.partial(robust_step, objective=objective, optimizer=optimizer)
    kernels = [
        step(state, plan, other, images, labels)[0].params["dense"]["kernel"]
        for other in (key, key, jax.random.fold_in(key, 1))
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.any(kernels[0] != kernels[2])


def test_writes_have_their_price_in_the_loss(problem, key):
    params, plan, images, labels = problem
    chip = memsim.sample_chip(key, plan)

    def loss(price):
        objective = Objective(apply=linear, write_price=price, write_width=3.0)
        return stuck_aware_loss(params, plan, chip, images, labels, objective)

    (free, without), (total, losses) = loss(0.0), loss(0.5)
    expected = memsim.expected_writes(params, plan, chip, width=3.0).sum() / 120
    assert without.writes == 0
    np.testing.assert_allclose(losses.writes, expected, rtol=1e-6)
    np.testing.assert_allclose(total, free + 0.5 * expected, rtol=1e-6)


def test_the_teacher_takes_the_place_of_the_labels(problem, key):
    params, plan, images, labels = problem
    chip = memsim.sample_chip(key, plan)
    held, _ = memsim.program(params, plan, chip)

    def loss(teacher):
        objective = Objective(apply=linear, teacher=teacher)
        return stuck_aware_loss(params, plan, chip, images, labels, objective)[0]

    assert abs(loss(lambda images: linear(held, images))) < 1e-5
    assert loss(lambda images: linear(params, images)) > 1e-3


def test_distillation_is_the_divergence_of_tempered_logits(key):
    logits, teacher = np.asarray(jax.random.normal(key, (2, 5, 3)), np.float64)

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = softmax(teacher / 4), softmax(logits / 4)
    expected = 16 * (p * np.log(p / q)).sum(-1).mean()
    actual = distillation(jnp.float32(logits), jnp.float32(teacher))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_weights_stay_within_their_limits(problem):
    params, plan, images, labels = problem
    limits = weight_limits(params, 1.5)
    kernel = params["dense"]["kernel"]
    np.testing.assert_allclose(limits["dense"]["kernel"], 1.5 * np.std(kernel), rtol=1e-6)
    assert np.isinf(limits["dense"]["bias"])
    optimizer = optax.chain(optax.sgd(10.0), within(limits))
    state = TrainState(params, optimizer.init(params))
    chip = memsim.sample_chip(jax.random.key(0), plan)
    step = functools.partial(stuck_aware_step, objective=LINEAR, optimizer=optimizer)
    after, _ = step(state, plan, chip, images, labels)
    largest = np.abs(after.params["dense"]["kernel"]).max()
    np.testing.assert_allclose(largest, limits["dense"]["kernel"], rtol=1e-6)
    assert np.abs(after.params["dense"]["bias"]).max() > 0


def test_other_plans_and_chips_do_not_recompile(problem, key):
    params, _, images, labels = problem
    config, traces = memsim.CrossbarConfig(rows=16), []
    optimizer = optax.sgd(0.1)

    def counted(*arguments):
        traces.append(1)
        objective = Objective(apply=linear, write_price=0.1)
        return stuck_aware_step(*arguments, objective=objective, optimizer=optimizer)

    step = jax.jit(counted)
    state = TrainState(params, optimizer.init(params))
    for policy in ("sws+stuck:p=0.5,low=4", "sws", "unsorted+stuck:p=0.1,low=1"):
        plan = memsim.plan(params, config, memsim.Policy.parse(policy))
        chip = memsim.sample_chip(jax.random.fold_in(key, len(policy)), plan, 0.01)
        state, _ = step(state, plan, chip, images, labels)
    assert len(traces) == 1
