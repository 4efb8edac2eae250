"""Keys and values of DeiT-Tiny written for every image, against digital products.

    python -m benchmarks.attention --assets FOLDER

FOLDER has `deit_tiny_patch16_224.safetensors` and `cifar10_test2000.npz`, whose images are enlarged
to 224 pixels. Prints, for one layer and each kind of cell, the writes of an image and the energy of
writing, of products on arrays, and of digital products.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memsim.attention import attention_cost
from memsim.hardware import read_hardware
from training.data.preprocessing import normalise
from training.models.pretrained import build, open_network

_MODEL = "deit_tiny_patch16_224"


def keys_and_values(assets: Path, images: int, layer: int) -> list[np.ndarray]:
    """Gives keys and values of a layer, [images, heads, tokens, width]."""
    network = open_network(_MODEL, assets / f"{_MODEL}.safetensors")
    model: Any = build(_MODEL, network.tensors)
    small = jnp.asarray(np.load(assets / "cifar10_test2000.npz")["image"][:images], jnp.float32)
    large = jax.image.resize(small, (images, 224, 224, 3), "bilinear").astype(jnp.uint8)
    patches = model.patch_embed(normalise(large, network.preprocessing))
    first = jnp.broadcast_to(model.cls_token[...], (images, 1, patches.shape[2]))
    tokens = jnp.concatenate([first, patches], axis=1) + model.pos_embed[...]
    for block in model.blocks[:layer]:
        tokens = block(tokens)
    attention = model.blocks[layer].attn
    products = attention.qkv(model.blocks[layer].norm1(tokens))
    parts = products.reshape(*tokens.shape[:2], 3, attention.heads, -1)
    return [np.asarray(parts[:, :, part]).swapaxes(1, 2) for part in (1, 2)]


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--layer", type=int, default=6)
    arguments = parser.parse_args()
    keys, values = keys_and_values(arguments.assets, arguments.images, arguments.layer)
    for name in ("array-128", "array-128-pcm"):
        hardware = read_hardware(name)
        cost = attention_cost(keys, values, hardware.config(), hardware)
        written = sum(cost.analog[part] for part in ("pulses", "reads", "index", "data"))
        every = sum(cost.analog.values())
        print(
            f"{name}: {cost.writes:,.0f} writes an image; writing {1e6 * written:.1f} uJ, products "
            f"{1e6 * (every - written):.1f} uJ; digital {1e6 * sum(cost.digital.values()):.1f} uJ, "
            f"{1e6 * cost.digital['buffers']:.1f} of it the buffer"
        )


if __name__ == "__main__":
    main()
