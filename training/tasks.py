"""What is programmed and tested: a trained network and its images."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import rich.progress
import typer
from flax import nnx
from jaxtyping import Array, PyTree

import memsim
from memsim.selection import named_leaves
from training.data import Batch, digits, open_images, read_batches
from training.evaluation import Apply
from training.models import CNN
from training.models.pretrained import MODELS, open_network
from training.steps import train

# what `--assets` of the scripts is a folder of
RESNET20, CIFAR10 = "resnet20_cifar10.safetensors", "cifar10_test2000.npz"
# the options of a script that choose a task, see `choose_task`
Model = Annotated[str | None, typer.Option(help=f"one of {', '.join(MODELS)}")]
Weights = Annotated[
    str | None,
    typer.Option(
        help=".safetensors, .npz or the id of a Hugging Face repository; alone: of the digits CNN"
    ),
]
Data = Annotated[
    str | None, typer.Option(help=".npz of image and label, or a set of TensorFlow Datasets")
]
Split = Annotated[str | None, typer.Option(help="of the data set, by default its test")]
DataDir = Annotated[str | None, typer.Option(help="where TensorFlow Datasets are")]
Assets = Annotated[
    Path | None, typer.Option(help=f"a folder of {RESNET20} and {CIFAR10}: runs these")
]
Limit = Annotated[int | None, typer.Option(min=1, help="test on the first so many")]
BatchSize = Annotated[int, typer.Option(min=1, help="images at once")]
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


def choose_task(
    model: str | None,
    weights: str | None,
    data: str | None,
    split: str | None,
    data_dir: str | None,
    assets: Path | None,
    limit: int | None,
    batch: int,
) -> Callable[[int, rich.progress.Progress], Task]:
    """Checks the options that choose a task: the network of `assets`, that of `model`, `weights`
    and `data`, or the digits CNN, its `weights` given or not.

    Returns:
      `(seed, bar) -> Task`, which opens it.

    Raises:
      ValueError: options that do not go together.
    """
    network = {"--model": model, "--weights": weights, "--data": data}
    if assets and any(network.values()):
        raise ValueError("`--assets` brings its own model, weights and data; leave these out.")
    if assets:
        model, weights, data = "resnet20", str(assets / RESNET20), str(assets / CIFAR10)
    elif not model and not data:
        if limit or split or data_dir:
            raise ValueError(
                "`--limit`, `--split`, `--data-dir` are of `--data`; the digits have none."
            )
        return lambda seed, bar: digits_task(seed, bar, weights)
    if not (model and weights and data):
        missing = [option for option, value in network.items() if value is None]
        raise ValueError(f"{', '.join(missing)} missing; a network takes {', '.join(network)}.")
    task = (model, weights, data, split, data_dir, limit, batch)
    return lambda seed, bar: open_task(*task)


def digits_task(seed: int, bar: rich.progress.Progress, weights: str | None = None) -> Task:
    """The CNN of the demo, trained on the spot.

    Args:
      weights: a checkpoint of it, such as the demo leaves, instead of training.

    Raises:
      FileNotFoundError, ValueError: `weights` is no checkpoint, or one of another network.
    """
    data = digits()
    graph, params = nnx.split(CNN(nnx.Rngs(seed)), nnx.Param)

    def apply(params: PyTree, images: Array) -> Array:
        return nnx.merge(graph, params)(images)

    if weights:
        params = _load_digits(weights, params)
    else:
        params = train(apply, params, data, seed, epochs=40, batch=64, learning_rate=3e-3, bar=bar)
    batches = [(data.test_images, data.test_labels)]
    return Task("digits CNN", {"data": "digits"}, params, apply, lambda: batches, 1)


def _load_digits(weights: str, params: PyTree) -> PyTree:
    source = memsim.open_checkpoint(weights)
    wanted = {name: leaf.shape for name, leaf in named_leaves(params).items()}
    found = {name: tensor.shape for name, tensor in source.tensors.items()}
    if found != wanted:
        raise ValueError(
            f"`weights` {weights} holds {len(found)} tensors that are not those of the digits CNN; "
            "give --model and --data of another network."
        )
    return jax.tree.unflatten(
        jax.tree.structure(params), [jnp.asarray(source.load(name)) for name in wanted]
    )


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
