"""A small convolutional network for 8x8 digits."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class CNN(nnx.Module):
    """Three 3x3 convolutions (the later two halve the image) and one dense layer.

    Attributes:
      convs: convolutions, each followed by a ReLU.
      dense: the classifier.
    """

    def __init__(
        self, rngs: nnx.Rngs, channels: tuple[int, int, int] = (16, 32, 64), classes: int = 10
    ) -> None:
        inputs = (1, *channels[:-1])
        self.convs = nnx.List(
            nnx.Conv(
                i, o, (3, 3), strides=1 if n == 0 else 2,
                conv_general_dilated=convolve_patches, rngs=rngs,
            )
            for n, (i, o) in enumerate(zip(inputs, channels, strict=True))
        )  # fmt: skip
        self.dense = nnx.Linear(2 * 2 * channels[-1], classes, rngs=rngs)

    def __call__(self, images: Float[Array, "batch 8 8 1"]) -> Float[Array, "batch classes"]:
        """Logits."""
        hidden = images
        for conv in self.convs:
            hidden = jax.nn.relu(conv(hidden))
        return self.dense(hidden.reshape(hidden.shape[0], -1))


def convolve_patches(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "down across inputs outputs"],
    strides: tuple[int, int],
    padding: Any,
    **_: Any,
) -> Float[Array, "batch height width outputs"]:
    """Computes a plain convolution as patches times a matrix; takes what
    `lax.conv_general_dilated` does.

    With a kernel for each chip under `vmap`, much faster on a CPU than the grouped convolution that
    XLA makes of it.
    """
    pads = jax.lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], strides, padding)
    images = jnp.pad(images, [(0, 0), *pads, (0, 0)])
    down, across = strides
    height = (images.shape[1] - kernel.shape[0]) // down + 1
    width = (images.shape[2] - kernel.shape[1]) // across + 1
    patches = [
        images[:, y : y + (height - 1) * down + 1 : down, x : x + (width - 1) * across + 1 : across]
        for y in range(kernel.shape[0])
        for x in range(kernel.shape[1])
    ]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return jnp.einsum("bhwi,io->bhwo", jnp.concatenate(patches, axis=-1), matrix)
