"""Trained networks: public checkpoints run by the models of this folder.

    network = open_network("vit_base_patch16_224", "timm/vit_base_patch16_224.augreg_in21k_ft_in1k")
    held, programming = memsim.program(network.tensors, plan, chip)
    logits = network.apply(held, images)

Tensors keep the names, layouts and dtypes of the checkpoint, so that what is programmed and counted
is what `memsim report` counts in the same file.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from training.data.preprocessing import (
    CIFAR,
    DEIT,
    TORCHVISION,
    VIT,
    Preprocessing,
    normalise,
    read_timm_config,
)
from training.models.loading import fetch, put_tensors, read_tensors
from training.models.resnet import BasicBlock, Bottleneck, CifarResNet, ResNet
from training.models.vit import VisionTransformer


class Architecture(NamedTuple):
    """The recipe of a model.

    Attributes:
      make: `(classes=, rngs=) -> nnx.Module`.
      classifier: weight of its last layer, [classes, ...] in a checkpoint.
      preprocessing: that of its public checkpoints.
    """

    make: Callable[..., nnx.Module]
    classifier: str
    preprocessing: Preprocessing


def _cifar_resnet(depth: int) -> Architecture:
    make = functools.partial(CifarResNet, (depth - 2) // 6)
    return Architecture(make, "linear.weight", CIFAR)


def _resnet(block: type[BasicBlock] | type[Bottleneck], *blocks: int) -> Architecture:
    return Architecture(functools.partial(ResNet, block, blocks), "fc.weight", TORCHVISION)


def _transformer(width: int, preprocessing: Preprocessing) -> Architecture:
    make = functools.partial(VisionTransformer, width, width // 64)
    return Architecture(make, "head.weight", preprocessing)


MODELS = {
    **{f"resnet{depth}": _cifar_resnet(depth) for depth in (20, 32, 44, 56, 110)},
    "resnet18": _resnet(BasicBlock, 2, 2, 2, 2),
    "resnet34": _resnet(BasicBlock, 3, 4, 6, 3),
    "resnet50": _resnet(Bottleneck, 3, 4, 6, 3),
    "resnet101": _resnet(Bottleneck, 3, 4, 23, 3),
    **{
        f"{family}_{size}_patch16_224": _transformer(width, preprocessing)
        for family, preprocessing in (("vit", VIT), ("deit", DEIT))
        for size, width in (("tiny", 192), ("small", 384), ("base", 768))
    },
}

# other public names, and timm's: torch.nn.DataParallel's, and torchvision's of a transformer
_RENAMED = (
    (r"^module\.", ""),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.layers\.encoder_layer_", "blocks."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)


class Network(NamedTuple):
    """A trained network.

    Attributes:
      tensors: by the names of its checkpoint.
      apply: `(tensors, images) -> logits`, images uint8 [batch, size, size, 3].
      preprocessing: how `images` are cut out.
      classes: number of logits.
    """

    tensors: dict[str, np.ndarray]
    apply: Callable[[Mapping[str, Any], Array], Array]
    preprocessing: Preprocessing
    classes: int


def open_network(model: str, weights: str | Path) -> Network:
    """Loads a trained network.

    Args:
      model: one of `MODELS`.
      weights: a `.safetensors` (or its `.index.json`) or `.npz` file, or the id of a repository on
        the Hugging Face hub; names are those of timm or torchvision. Images are preprocessed as
        timm's `config.json` beside the file says; without one, as the model's authors did.

    Raises:
      ValueError: an unknown model; tensors missing, unknown or of another shape.
      FileNotFoundError: there is no such file, and the hub did not give one.
    """
    if model not in MODELS:
        raise ValueError(f"`model` is {model!r}; choose one of {', '.join(MODELS)}.")
    path = fetch(weights)
    tensors = read_tensors(path)
    config = path.parent / "config.json"
    if config.is_file():
        preprocessing = read_timm_config(config)
    elif "conv_proj.weight" in tensors:
        preprocessing = TORCHVISION
    else:
        preprocessing = MODELS[model].preprocessing

    def apply(tensors: Mapping[str, Any], images: Array) -> Array:
        return build(model, tensors)(normalise(images, preprocessing))

    image = jax.ShapeDtypeStruct((1, preprocessing.size, preprocessing.size, 3), np.uint8)
    try:
        logits = jax.eval_shape(apply, tensors, image)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`weights` {weights} does not fit {model}: {error}") from error
    return Network(tensors, apply, preprocessing, logits.shape[-1])


def build(model: str, tensors: Mapping[str, Any]) -> nnx.Module:
    """Builds the model with the weights of a checkpoint, in float32; under `jit` and `grad` too.

    Args:
      model: one of `MODELS`.
      tensors: by the names of timm or torchvision.

    Raises:
      ValueError: tensors missing, unknown or of another shape.
    """
    given = {_timm_name(name): tensor for name, tensor in tensors.items()}
    classifier = given.get(MODELS[model].classifier)
    graph, state = _abstract(model, None if classifier is None else classifier.shape[0])
    return put_tensors(graph, state, given)


def _abstract(model: str, classes: int | None) -> tuple[nnx.GraphDef, nnx.State]:
    options = {} if classes is None else {"classes": classes}
    make = functools.partial(MODELS[model].make, **options)
    return nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))


def _timm_name(name: str) -> str:
    """Gives `blocks.0.norm1.weight` for torchvision's
    `encoder.layers.encoder_layer_0.ln_1.weight`.
    """
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
