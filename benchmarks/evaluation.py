"""Testing a programmed network against testing the float one.

    python -m benchmarks.evaluation

The claim: at most 1.1 times the time, programming included, since programming is outside the loop
over batches.
"""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

import memsim
from training.data.preprocessing import normalise
from training.evaluation import make_test, program_chips
from training.models.loading import torch_shapes
from training.models.pretrained import MODELS, build

_ROUNDS = 7


def seeded_resnet20() -> dict[str, jax.Array]:
    """Weights of ResNet-20 by the names of its public checkpoint, none of them zero."""
    network = nnx.eval_shape(lambda: MODELS["resnet20"].make(rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    return {
        name: jax.numpy.asarray(rng.uniform(0.1, 0.2, shape), np.float32)
        for name, shape in torch_shapes(nnx.state(network)).items()
    }


def main() -> None:
    """Prints the ratios for ResNet-20 and 2,000 images of 32x32."""
    tensors = seeded_resnet20()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2000, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 2000)
    batches = [(images[i : i + 250], labels[i : i + 250]) for i in range(0, 2000, 250)]
    plan = memsim.plan(
        tensors, memsim.CrossbarConfig(), memsim.Policy.parse("sws+stuck:p=0.5,low=3")
    )
    chips = jax.vmap(lambda key: memsim.sample_chip(key, plan))(jax.random.key(0)[None])
    classify = make_test(
        lambda tensors, images: build("resnet20", tensors)(
            normalise(images, MODELS["resnet20"].preprocessing)
        )
    )

    def program() -> dict[str, jax.Array]:
        held, _ = program_chips([tensors], [plan], chips)
        return jax.block_until_ready(held[0])

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    held = program()
    classify([tensors], batches)
    calls = {
        "float network": lambda: classify([tensors], batches),
        "programmed network": lambda: classify([held], batches),
        "programming and testing": lambda: classify([program()], batches),
    }
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(_ROUNDS)]
    for name in calls:
        ratio = statistics.median(times[name] / times["float network"] for times in rounds)
        median = statistics.median(times[name] for times in rounds)
        print(f"{name:24} {median:6.3f} s, {ratio:.3f} of the float network")


if __name__ == "__main__":
    main()
