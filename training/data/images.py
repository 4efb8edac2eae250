"""Data sets: digits in memory, TensorFlow Datasets and `.npz` files read image by image."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from memsim import open_checkpoint
from training.data.prepared import open_prepared
from training.data.preprocessing import Preprocessing, central_crop

Batch: TypeAlias = tuple[np.ndarray, np.ndarray]  # images [batch, ...], labels [batch]


class Dataset(NamedTuple):
    """Images, normalised to mean 0 and deviation 1 of the training part, and their labels."""

    train_images: Float32[np.ndarray, "train height width channels"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test height width channels"]
    test_labels: Int32[np.ndarray, " test"]


def digits() -> Dataset:
    """Scans of handwritten digits bundled with scikit-learn: 1297 to train on, 500 to test on.

    1797 images of 8x8 pixels, split by class with a fixed seed.

    References:
      Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    source = load_digits()
    images = source.images[..., None].astype(np.float32)
    labels = source.target.astype(np.int32)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=500, stratify=labels, random_state=0
    )
    mean, deviation = train_images.mean(), train_images.std()
    return Dataset(
        (train_images - mean) / deviation, train_labels,
        (test_images - mean) / deviation, test_labels,
    )  # fmt: skip


def training_batches(
    examples: Sequence[dict[str, Any]],
    prepare: Callable[[dict[str, Any]], Any],
    size: int,
    seed: int,
    *,
    shift: int,
    flip: bool,
    start: int = 0,
) -> Iterator[Batch]:
    """Yields shuffled training batches without end, read ahead of their use.

    Batch number i is the same for every `start`: a run that is resumed goes on where it was.

    Args:
      examples: of `image` and `label`.
      prepare: example -> (image [height, width, channels], label).
      size: images per batch.
      shift: moves each image by up to so many pixels either way, the edge filled with the lowest
        value of the batch.
      flip: mirrors half of the images left to right.
      start: number of the first batch.
    """
    import grain  # slow to import

    def augment(number: int, batch: Batch) -> Batch:
        rng = np.random.default_rng((seed, number))
        images, labels = batch
        height, width = images.shape[1:3]
        border = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        padded = np.pad(images, border, constant_values=images.min())
        down, right = rng.integers(0, 2 * shift + 1, (2, size, 1, 1))
        across = np.arange(width)
        if flip:
            across = np.where(rng.random((size, 1, 1)) < 0.5, across, across[::-1])
        of_image = np.arange(size)[:, None, None]
        return padded[of_image, down + np.arange(height)[:, None], right + across], labels

    epochs = grain.MapDataset.source(examples).seed(seed).shuffle().repeat()
    batches = epochs.map(prepare).batch(size, drop_remainder=True).map_with_index(augment)
    reading = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=4)
    return iter(batches[start:].to_iter_dataset(reading))


class Images(NamedTuple):
    """Labelled images, read when asked for.

    Attributes:
      examples: each has an `image`, uint8 [height, width, channels], and a `label`.
      classes: number of classes; of an `.npz`, one more than the largest label.
      stated: whether the data set itself states its classes.
    """

    examples: Sequence[dict[str, Any]]
    classes: int
    stated: bool


def open_images(data: str, split: str | None = None, data_dir: str | None = None) -> Images:
    """Opens a data set to evaluate on.

    Args:
      data: an `.npz` file of `image`, uint8 [images, height, width, channels], and `label`; or the
        name of a classification set of TensorFlow Datasets, such as `cifar10` or `imagenet2012`.
      split: of TensorFlow Datasets, such as `validation[:5000]`; by default `validation` where
        there is one, else `test`.
      data_dir: where TensorFlow Datasets are prepared, by default its own place.

    Raises:
      FileNotFoundError: no such file, or a set that is not prepared (the message says how to).
      ValueError: an unknown set or split, or one without `image` and `label`.
    """
    if data.endswith(".npz"):
        for argument, value in (("split", split), ("data_dir", data_dir)):
            if value is not None:
                raise ValueError(f"`{argument}` is {value!r}, but {data} has none; leave it out.")
        return _open_npz(data)
    return _open_tfds(data, split, data_dir)


class Arrays(Sequence[dict[str, Any]]):
    """Arrays as a sequence of examples."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: Any) -> Any:
        return {"image": self._images[index], "label": self._labels[index]}


def _open_npz(path: str) -> Images:
    source = open_checkpoint(path)
    if not {"image", "label"} <= set(source.tensors):
        raise ValueError(
            f"`data` {path} holds {sorted(source.tensors)}; name them image and label."
        )
    images, labels = (np.asarray(source.load(name)) for name in ("image", "label"))
    fits = images.ndim == 4 and images.shape[-1] in (1, 3) and labels.shape == images.shape[:1]
    whole = images.dtype == np.uint8 and np.issubdtype(labels.dtype, np.integer)
    if not fits or not whole or not labels.size or labels.min() < 0:
        raise ValueError(
            f"`data` {path} holds image {images.dtype} {images.shape} and label {labels.dtype} "
            f"{labels.shape}; they must be uint8 [images, height, width, 1 or 3] and integers from "
            "0 [images]."
        )
    return Images(Arrays(images, labels), int(labels.max()) + 1, stated=False)


def _open_tfds(name: str, split: str | None, data_dir: str | None) -> Images:
    def fits(features: Mapping[str, Any]) -> bool:
        return "image" in features and hasattr(features.get("label"), "num_classes")

    found = open_prepared(
        name, split, data_dir,
        fits=fits, wanted="an image and its class", defaults=("validation", "test"),
    )  # fmt: skip
    return Images(found.examples, found.features["label"].num_classes, stated=True)


def preparation(
    preprocessing: Preprocessing,
) -> Callable[[dict[str, Any]], tuple[UInt8[np.ndarray, "..."], np.int32]]:
    """Makes `example -> (image, label)`: the image cut out, uint8 [size, size, 3].

    It raises a ValueError for an image without a label (-1 in TensorFlow Datasets).
    """

    def prepare(example: dict[str, Any]) -> tuple[UInt8[np.ndarray, "..."], np.int32]:
        if example["label"] < 0:
            raise ValueError(f"`data` has the label {example['label']}; choose a labelled split.")
        return central_crop(example["image"], preprocessing), np.int32(example["label"])

    return prepare


def read_batches(
    images: Images, preprocessing: Preprocessing, size: int, limit: int | None = None
) -> Iterator[Batch]:
    """Yields the images in their own order, decoded and cropped in threads, ahead of their use.

    Args:
      size: images per batch; the last batch may be smaller.
      limit: read the first so many images only.

    Returns:
      (images, labels): uint8 [size, height, width, 3] and int32 [size].

    Raises:
      ValueError: an image without a label (-1 in TensorFlow Datasets).
    """
    import grain  # slow to import

    examples = grain.MapDataset.source(images.examples)[:limit].map(preparation(preprocessing))
    reading = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=2 * size)
    yield from examples.to_iter_dataset(reading).batch(size)
