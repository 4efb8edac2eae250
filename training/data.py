"""Data sets as NumPy arrays."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


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


def shifted_batches(
    data: Dataset, size: int, seed: int
) -> Iterator[tuple[Float32[np.ndarray, "size height width channels"], Int32[np.ndarray, " size"]]]:
    """Shuffled training batches without end, each image moved by up to one pixel either way."""
    rng = np.random.default_rng(seed)
    images, labels = data.train_images, data.train_labels
    height, width = images.shape[1:3]
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(images, border, constant_values=images.min())
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            down, right = rng.integers(0, 3, (2, size, 1, 1))
            rows = down + np.arange(height)[:, None]
            columns = right + np.arange(width)
            yield padded[chosen[:, None, None], rows, columns], labels[chosen]
