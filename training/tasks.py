"""Tasks, which are programmed and tested: a trained network and its images, or its text."""

import functools
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from flax import nnx
from jaxtyping import Array, PyTree

import memsim
from memsim.selection import named_leaves
from training.data import (
    Arrays,
    Batch,
    Images,
    digits,
    open_images,
    preparation,
    read_batches,
    training_batches,
)
from training.data.text import (
    HELP,
    LONGEST,
    cut_windows,
    open_tokenizer,
    read_text,
    window_batches,
)
from training.evaluation import Apply, make_test
from training.float_training import train
from training.models import CNN
from training.models.language import (
    LANGUAGE_MODELS,
    LanguageModel,
    make_small_gpt,
    open_language_model,
)
from training.models.pretrained import open_network
from training.options import CIFAR10, RESNET20, TaskOptions
from training.scoring import ACCURACY, PERPLEXITY, Score

# Images up to this size are decoded once and kept.
_KEEP_BYTES = 2**30
# Images per step of training the digits CNN.
_BATCH = 64
# The small GPT: windows per step of training, steps, learning rate.
_GPT_BATCH, _GPT_STEPS, _GPT_RATE = 16, 1200, 5e-3
# Logits computed at once, at most.
_LOGITS = 2**26


class Task(NamedTuple):
    """A trained network and the images, or the windows of a text, that it is tested on.

    Attributes:
      name: of the network, or its checkpoint.
      source: what it was made from, for the record.
      params: its weights.
      apply: `(params, images) -> logits`, or of tokens.
      batches: reads the images, from the first.
      rounds: batches there are.
      training: `(size, seed, start) -> batches` to train on without end, from number `start`; None
        where there are no training images.
      score: says how well it does.
    """

    name: str
    source: dict[str, Any]
    params: PyTree
    apply: Apply
    batches: Callable[[], Iterable[Batch]]
    rounds: int
    training: Callable[[int, int, int], Iterator[Batch]] | None = None
    score: Score = ACCURACY


def choose_task(
    options: TaskOptions,
    batch: int,
    train_data: str | None = None,
    train_split: str | None = None,
    epochs: int = 40,
) -> Callable[[int, rich.progress.Progress], Task]:
    """Checks the options that choose a task: the network of `assets`, that of `model`, `weights`
    and `data`, the small GPT, or the digits CNN; the last two have their `weights` given or are
    trained.

    Args:
      batch: images, or windows of a text, tested at once.
      train_data, train_split: images to train on, see `open_task`; or a text, see `Texts`.
      epochs: to train the digits CNN for.

    Returns:
      `(seed, bar) -> Task`, which opens it.

    Raises:
      ValueError: options that do not go together.
    """
    model, weights, data, assets = options.model, options.weights, options.data, options.assets
    network = {"--model": model, "--weights": weights, "--data": data}
    if assets and any(network.values()):
        raise ValueError("`--assets` brings its own model, weights and data; leave these out.")
    if assets:
        model, weights, data = "resnet20", str(assets / RESNET20), str(assets / CIFAR10)
    elif model in LANGUAGE_MODELS:
        return _choose_language_task(options, batch, train_data, train_split)
    elif not model and not data:
        if options.limit or options.split or options.data_dir or train_data or train_split:
            raise ValueError(
                "`--limit`, `--split`, `--data-dir`, `--train-data` and `--train-split` go with "
                "`--data`; the digits have none."
            )
        return lambda seed, bar: digits_task(seed, bar, weights, epochs)
    if not (model and weights and data):
        missing = [option for option, value in network.items() if value is None]
        raise ValueError(f"{', '.join(missing)} missing; a network takes {', '.join(network)}.")
    chosen = functools.partial(
        open_task, model, weights, data, options.split, options.data_dir, options.limit, batch,
        train_data, train_split,
    )  # fmt: skip
    return lambda seed, bar: chosen()


def _choose_language_task(
    options: TaskOptions, batch: int, train_data: str | None, train_split: str | None
) -> Callable[[int, rich.progress.Progress], Task]:
    model, weights, data = options.model or "", options.weights, options.data
    small = model == "gpt-small"
    missing = [name for name, value in (("--weights", weights), ("--data", data)) if not value]
    if missing and not small:
        raise ValueError(f"{', '.join(missing)} missing; {model} takes --weights and --data.")
    text = Texts(
        data or HELP, options.split, options.data_dir, options.limit, batch, train_data, train_split
    )
    if weights:
        return lambda seed, bar: open_language_task(model, weights, text)
    return lambda seed, bar: small_gpt_task(seed, bar, text)


def digits_task(
    seed: int, bar: rich.progress.Progress, weights: str | None = None, epochs: int = 40
) -> Task:
    """Opens the CNN of the demo, trained on the spot.

    Args:
      seed: of the weights and the batches.
      weights: a checkpoint of it, such as the demo leaves, instead of training.
      epochs: to train for.

    Raises:
      FileNotFoundError, ValueError: `weights` is no checkpoint, or one of another network.
    """
    data = digits()
    graph, params = nnx.split(CNN(nnx.Rngs(seed)), nnx.Param)

    def apply(params: PyTree, images: Array) -> Array:
        return nnx.merge(graph, params)(images)

    def training(size: int, seed: int, start: int) -> Iterator[Batch]:
        examples = Arrays(data.train_images, data.train_labels)
        return training_batches(
            examples, operator.itemgetter("image", "label"), size, seed,
            shift=1, flip=False, start=start,
        )  # fmt: skip

    if weights:
        params = load_like("weights", weights, params)
    else:
        steps = epochs * (len(data.train_labels) // _BATCH)
        params = train(apply, params, training(_BATCH, seed, 0), steps, 3e-3, bar)
    batches = [(data.test_images, data.test_labels)]
    return Task("digits CNN", {"data": "digits"}, params, apply, lambda: batches, 1, training)


def load_like(argument: str, path: str, params: PyTree) -> PyTree:
    """Loads the tensors of a checkpoint in place of those of `params`.

    Args:
      argument: that gave `path`, for the error.

    Raises:
      FileNotFoundError, ValueError: no checkpoint, or one that lacks a tensor of this shape.
    """
    source, leaves = memsim.open_checkpoint(path), named_leaves(params)
    for name, leaf in leaves.items():
        if name not in source.tensors or source.tensors[name].shape != leaf.shape:
            raise ValueError(
                f"`{argument}` {path} has no tensor `{name}` of shape {leaf.shape}; give weights "
                "of this network, or --model, --weights and --data of another."
            )
    found = [jnp.asarray(source.load(name)) for name in leaves]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def open_task(
    model: str,
    weights: str,
    data: str,
    split: str | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
    batch: int = 250,
    train_data: str | None = None,
    train_split: str | None = None,
) -> Task:
    """Opens a public checkpoint and the data set that it is tested on.

    Args:
      model, weights: see `open_network`.
      data, split, data_dir: see `open_images`.
      limit: test on the first so many images only.
      batch: images at once.
      train_data, train_split: images to train on, as `data` and `split`; None for none. They are
        moved by up to an eighth of their size, and half of them mirrored.

    Raises:
      ValueError, FileNotFoundError: as `open_network` and `open_images`; more classes of images
        than the network tells apart.
    """
    network = open_network(model, weights)
    images = open_images(data, split, data_dir)
    check_classes("data", data, images, weights, network.classes)
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
    training = None
    if train_data is not None:
        of_set = None if train_data.endswith(".npz") else "train"
        learned = open_images(train_data, train_split or of_set, data_dir)
        check_classes("train_data", train_data, learned, weights, network.classes)
        source |= {"train_data": train_data, "train_split": train_split}

        def training(size: int, seed: int, start: int) -> Iterator[Batch]:
            return training_batches(
                learned.examples, preparation(network.preprocessing), size, seed,
                shift=network.preprocessing.size // 8, flip=True, start=start,
            )  # fmt: skip

    return Task(weights, source, params, network.apply, lambda: kept or batches(), rounds, training)


class Texts(NamedTuple):
    """The text that a language model is tested on, and that which it learns from.

    Attributes:
      data, split, data_dir: see `read_text`.
      limit: test on the first so many windows only.
      batch: windows at once, at most.
      train_data, train_split: a text to train on, by default the training part of `data`.
    """

    data: str = HELP
    split: str | None = None
    data_dir: str | None = None
    limit: int | None = None
    batch: int = 250
    train_data: str | None = None
    train_split: str | None = None


def open_language_task(model: str, weights: str, text: Texts) -> Task:
    """Opens a language model and the text that it is tested on: its perplexity is measured.

    Args:
      model, weights: see `open_language_model`.
      text: cut into windows as long as the model takes, of 2,048 tokens at most.

    Raises:
      ValueError, FileNotFoundError, ImportError: as `open_language_model`, `read_text`,
        `open_tokenizer` and `cut_windows`.
    """
    return _language_task(weights, model, open_language_model(model, weights), text)


def small_gpt_task(
    seed: int,
    bar: rich.progress.Progress,
    text: Texts = Texts(),  # noqa: B008 - a record that nothing changes
    steps: int = _GPT_STEPS,
) -> Task:
    """Opens the small GPT, which reads bytes, trained on the spot.

    Args:
      seed: of the weights and the batches.
      text: to train and test on, by default Python's own help texts.
      steps: of training.

    Raises:
      ValueError, FileNotFoundError: as `read_text` and `cut_windows`.
    """
    task = _language_task("small GPT", "gpt-small", make_small_gpt(seed), text)
    assert task.training is not None  # noqa: S101 - a text always has a part to train on
    batches = task.training(_GPT_BATCH, seed, 0)
    return task._replace(params=train(task.apply, task.params, batches, steps, _GPT_RATE, bar))


def _language_task(name: str, model: str, network: LanguageModel, text: Texts) -> Task:
    length = min(network.context, LONGEST)
    tokenize = open_tokenizer(network.tokenizer, network.vocabulary)

    def read(data: str, split: str | None) -> np.ndarray:
        return tokenize(read_text(data, split, text.data_dir))

    inputs, after = cut_windows(read(text.data, text.split), length, text.data)
    count = min(len(inputs), text.limit or len(inputs))
    # logits of a large vocabulary are many
    size = max(1, min(text.batch, count, _LOGITS // (length * network.vocabulary)))
    batches = [
        (inputs[at : min(at + size, count)], after[at : min(at + size, count)])
        for at in range(0, count, size)
    ]
    learned = text.train_data or text.data

    @functools.cache  # a text to train on may be long
    def tokens() -> np.ndarray:
        found = read(learned, text.train_split or "train")
        cut_windows(found, length, learned)
        return found

    def training(size: int, seed: int, start: int) -> Iterator[Batch]:
        return window_batches(tokens(), length, size, seed, start)

    source = {"model": model, "data": text.data, "split": text.split, "window": length}
    if text.train_data is not None:
        source |= {"train_data": text.train_data, "train_split": text.train_split}
    params = jax.tree.map(jnp.asarray, network.tensors)
    return Task(
        name, source, params, network.apply, lambda: batches, len(batches), training, PERPLEXITY
    )


def check_classes(argument: str, data: str, images: Images, weights: str, classes: int) -> None:
    """Checks that images are of the classes that a network tells apart.

    Raises:
      ValueError: more classes, or others.
    """
    if images.classes > classes or (images.stated and images.classes < classes):
        raise ValueError(
            f"`{argument}` {data} has {images.classes} classes, but {weights} tells {classes} "
            "apart; choose weights and data of the same classes."
        )


def measure_float(task: Task) -> tuple[int, float, dict[str, str]]:
    """Counts the images, scores the float network, and fingerprints its weights and the images."""
    images = hashlib.sha256()

    def reading() -> Iterator[Batch]:
        for batch in task.batches():
            for part in batch:
                images.update(np.ascontiguousarray(part).tobytes())
            yield batch

    (values,) = make_test(task.apply, task.score)([task.params], reading())
    fingerprints = {"weights": fingerprint(task.params), "images": images.hexdigest()}
    return values.size, float(task.score.figure(values)), fingerprints


def fingerprint(params: PyTree) -> str:
    """Returns the SHA-256 of the names, dtypes, shapes and bytes of all tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name, leaf in named_leaves(params).items():
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
