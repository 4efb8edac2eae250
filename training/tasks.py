"""What is programmed and tested: a trained network and its images."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import rich.progress
from flax import nnx
from jaxtyping import Array, PyTree

from training.data import Batch, digits, open_images, read_batches
from training.evaluation import Apply
from training.models import CNN
from training.models.pretrained import open_network
from training.steps import train

# what `--assets` of the scripts is a folder of
RESNET20, CIFAR10 = "resnet20_cifar10.safetensors", "cifar10_test2000.npz"
# Images up to this size are decoded once and kept.
_KEEP_BYTES = 2**30


class Task(NamedTuple):
    """A trained network and the images it is tested on.

    Attributes:
      name: of the network, or its checkpoint.
      source: what it was made from, for the record.
      params: its weights.
      apply: `(params, images) -> logits`.
      batches: reads the images, from the first.
      rounds: batches there are.
    """

    name: str
    source: dict[str, Any]
    params: PyTree
    apply: Apply
    batches: Callable[[], Iterable[Batch]]
    rounds: int


def digits_task(seed: int, bar: rich.progress.Progress, epochs: int = 40) -> Task:
    """The CNN of the demo, trained on the spot."""
    data = digits()
    graph, params = nnx.split(CNN(nnx.Rngs(seed)), nnx.Param)

    def apply(params: PyTree, images: Array) -> Array:
        return nnx.merge(graph, params)(images)

    params = train(apply, params, data, seed, epochs, batch=64, learning_rate=3e-3, bar=bar)
    batches = [(data.test_images, data.test_labels)]
    return Task("digits CNN", {"data": "digits"}, params, apply, lambda: batches, 1)


def open_task(
    model: str,
    weights: str,
    data: str,
    split: str | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
    batch: int = 250,
) -> Task:
    """A public checkpoint on a data set.

    Args:
      model, weights: see `open_network`.
      data, split, data_dir: see `open_images`.
      limit: test on the first so many images only.
      batch: images at once.

    Raises:
      ValueError, FileNotFoundError: as `open_network` and `open_images`; more classes of images
        than the network tells apart.
    """
    network = open_network(model, weights)
    images = open_images(data, split, data_dir)
    if images.classes > network.classes or (images.stated and images.classes < network.classes):
        raise ValueError(
            f"`data` {data} has {images.classes} classes, but {weights} tells {network.classes} "
            "apart; choose weights and data of the same classes."
        )
    count = min(len(images.examples), limit or len(images.examples))

    def batches() -> Iterator[Batch]:
        return read_batches(images, network.preprocessing, batch, count)

    kept = list(batches()) if count * 3 * network.preprocessing.size**2 <= _KEEP_BYTES else None
    params = jax.tree.map(jnp.asarray, network.tensors)
    source = {
        "model": model, "data": data, "split": split,
        "preprocessing": network.preprocessing._asdict(),
    }  # fmt: skip
    rounds = -(-count // batch)
    return Task(weights, source, params, network.apply, lambda: kept or batches(), rounds)
