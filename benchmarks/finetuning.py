"""A stuck-aware training step against a plain one.

    python -m benchmarks.finetuning

The claim: programming a chip inside the loss, a new chip every step, costs at most 1.15 times a
plain step, on ResNet-20 with 128 images of 32x32. Steps of either kind take turns in one run.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import memsim
from benchmarks.evaluation import seeded_resnet20
from training.data.preprocessing import normalise
from training.finetune import complete, learned
from training.finetune.steps import Objective, robust_step
from training.float_training import TrainState, float_step
from training.models.pretrained import MODELS, build

_ROUNDS = 9


def main() -> None:
    """Prints the time of a step, and the ratios."""
    tensors = seeded_resnet20()
    params = learned(tensors)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (128, 32, 32, 3), np.uint8)
    labels = jnp.asarray(rng.integers(0, 10, 128), jnp.int32)
    policy = memsim.Policy.parse("sws+stuck:p=0.25,low=4")
    plan = memsim.plan(params, memsim.CrossbarConfig(), policy)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        network = build("resnet20", complete(params, tensors))
        return network(normalise(images, MODELS["resnet20"].preprocessing))

    optimizer = optax.adam(1e-3)
    known, priced = (
        Objective(apply=apply, passes=2),
        Objective(apply=apply, passes=2, write_price=0.1),
    )
    robust = functools.partial(robust_step, optimizer=optimizer, stuck_at=0.01)
    state = TrainState(params, optimizer.init(params))
    plain = jax.jit(functools.partial(float_step, apply=apply, optimizer=optimizer))
    stuck = jax.jit(functools.partial(robust, objective=known))
    aware = jax.jit(functools.partial(robust, objective=priced))
    keys = jax.random.split(jax.random.key(0), _ROUNDS + 1)
    steps: dict[str, Callable[[int], Any]] = {
        "plain": lambda _: plain(state, images, labels),
        "stuck-aware, a new chip every step": lambda i: stuck(state, plan, keys[i], images, labels),
        "write-aware too": lambda i: aware(state, plan, keys[i], images, labels),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(_ROUNDS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(number))
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(of_step[1:]) for name, of_step in times.items()}
    for name, seconds in medians.items():
        print(f"{name:36} {1e3 * seconds:7.0f} ms  {seconds / medians['plain']:.3f}x")


if __name__ == "__main__":
    main()
