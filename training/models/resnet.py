"""Residual networks for CIFAR and ImageNet; modules are called as in their public checkpoints."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Maps = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch classes"]


def _conv(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    # explicit padding: "SAME" pads strided convolutions on the other side than torch
    return nnx.Conv(
        inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False, rngs=rngs
    )


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=1e-5, rngs=rngs)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions, and the input carried around them."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int, rngs: nnx.Rngs, project: bool = True
    ) -> None:
        self.conv1 = _conv(inputs, width, 3, stride, rngs)
        self.bn1 = _norm(width, rngs)
        self.conv2 = _conv(width, width, 3, 1, rngs)
        self.bn2 = _norm(width, rngs)
        self.downsample = _downsample(inputs, width, stride, rngs) if project else nnx.List()

    def __call__(self, images: Maps) -> Maps:
        hidden = jax.nn.relu(self.bn1(self.conv1(images)))
        hidden = self.bn2(self.conv2(hidden))
        return jax.nn.relu(hidden + _carried(images, hidden, self.downsample))


class Bottleneck(nnx.Module):
    """A 3x3 convolution between two 1x1 ones, and the input carried around them.

    The 3x3 convolution strides, as in torchvision (ResNet v1.5).
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(inputs, width, 1, 1, rngs)
        self.bn1 = _norm(width, rngs)
        self.conv2 = _conv(width, width, 3, stride, rngs)
        self.bn2 = _norm(width, rngs)
        self.conv3 = _conv(width, 4 * width, 1, 1, rngs)
        self.bn3 = _norm(4 * width, rngs)
        self.downsample = _downsample(inputs, 4 * width, stride, rngs)

    def __call__(self, images: Maps) -> Maps:
        hidden = jax.nn.relu(self.bn1(self.conv1(images)))
        hidden = jax.nn.relu(self.bn2(self.conv2(hidden)))
        hidden = self.bn3(self.conv3(hidden))
        return jax.nn.relu(hidden + _carried(images, hidden, self.downsample))


def _downsample(inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> nnx.List:
    if stride == 1 and inputs == outputs:
        return nnx.List()
    return nnx.List([_conv(inputs, outputs, 1, stride, rngs), _norm(outputs, rngs)])


def _carried(images: Maps, like: Maps, downsample: nnx.List) -> Maps:
    """Brings `images` into the shape of `like`: projected, or strided and padded with channels of
    zeros.
    """
    for layer in downsample:
        images = layer(images)
    stride, more = images.shape[1] // like.shape[1], like.shape[3] - images.shape[3]
    padding = ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
    return jnp.pad(images[:, ::stride, ::stride], padding)


class CifarResNet(nnx.Module):
    """ResNet for images of 32x32: 6 * blocks + 2 layers, shortcuts without weights.

    Attributes:
      layer1, layer2, layer3: the stages, 16, 32 and 64 channels wide.
      linear: the classifier.

    References:
      He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section 4.2.
    """

    def __init__(self, blocks: int, *, rngs: nnx.Rngs, classes: int = 10) -> None:
        def stage(inputs: int, width: int, stride: int) -> nnx.List:
            return nnx.List(
                BasicBlock(width if i else inputs, width, 1 if i else stride, rngs, project=False)
                for i in range(blocks)
            )

        self.conv1 = _conv(3, 16, 3, 1, rngs)
        self.bn1 = _norm(16, rngs)
        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.linear = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, images: Float[Array, "batch 32 32 3"]) -> Logits:
        """Logits."""
        hidden = jax.nn.relu(self.bn1(self.conv1(images)))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            hidden = block(hidden)
        return self.linear(hidden.mean(axis=(1, 2)))


class ResNet(nnx.Module):
    """ResNet for images of 224x224, as in torchvision and timm.

    Attributes:
      layer1, layer2, layer3, layer4: the stages; blocks are 64, 128, 256 and 512 channels wide.
      fc: the classifier.

    References:
      He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, table 1.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        rngs: nnx.Rngs,
        classes: int = 1000,
    ) -> None:
        def stage(number: int) -> nnx.List:
            width = 64 * 2**number
            inputs = width // 2 * block.expansion if number else 64
            stride = 2 if number else 1
            return nnx.List(
                block(width * block.expansion if i else inputs, width, 1 if i else stride, rngs)
                for i in range(blocks[number])
            )

        self.conv1 = _conv(3, 64, 7, 2, rngs)
        self.bn1 = _norm(64, rngs)
        self.layer1 = stage(0)
        self.layer2 = stage(1)
        self.layer3 = stage(2)
        self.layer4 = stage(3)
        self.fc = nnx.Linear(512 * block.expansion, classes, rngs=rngs)

    def __call__(self, images: Float[Array, "batch 224 224 3"]) -> Logits:
        """Logits."""
        hidden = jax.nn.relu(self.bn1(self.conv1(images)))
        hidden = nnx.max_pool(hidden, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in (*self.layer1, *self.layer2, *self.layer3, *self.layer4):
            hidden = block(hidden)
        return self.fc(hidden.mean(axis=(1, 2)))
