"""Images as a network expects them: the evaluation transforms of torchvision and timm."""

import json
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocessing(NamedTuple):
    """The images that a network expects.

    Attributes:
      size: height and width, in pixels.
      crop: share of the shorter side that the central crop keeps.
      interpolation: `bilinear` or `bicubic`.
      mean, deviation: of red, green and blue, on a scale of 0 to 1.
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
CIFAR = Preprocessing(32, 1.0, "bilinear", _MEAN, _DEVIATION)
TORCHVISION = Preprocessing(224, 0.875, "bilinear", _MEAN, _DEVIATION)
DEIT = Preprocessing(224, 0.9, "bicubic", _MEAN, _DEVIATION)
VIT = Preprocessing(224, 0.9, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def read_timm_config(path: Path) -> Preprocessing:
    """Reads the preprocessing that timm's `config.json` states.

    Raises:
      ValueError: it is not such a file, or asks for something else than a central crop.
    """
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))["pretrained_cfg"]
        _, height, width = (int(side) for side in stated["input_size"])
        mean, deviation = (tuple(map(float, stated[name])) for name in ("mean", "std"))
        interpolation, crop = stated["interpolation"], float(stated["crop_pct"])
        if len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0 or not 0 < crop <= 1:
            raise ValueError(f"mean {mean}, std {deviation}, crop_pct {crop}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"`{path}` does not state a preprocessing as timm's config.json does ({error!r}); mend "
            "it, or move the weights to a folder of their own."
        ) from error
    crop_mode = stated.get("crop_mode", "center")
    if interpolation not in _INTERPOLATIONS or crop_mode != "center" or height != width:
        raise ValueError(
            f"`{path}` asks for {interpolation} interpolation, crop mode {crop_mode} and images of "
            f"{height} x {width}; there are {' and '.join(_INTERPOLATIONS)}, the crop mode center "
            "and square images."
        )
    return Preprocessing(height, crop, interpolation, mean, deviation)


def central_crop(
    image: UInt8[np.ndarray, "height width channels"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "size size 3"]:
    """Resizes the shorter side to size / crop, then cuts the middle out. Grey becomes RGB."""
    size = preprocessing.size
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    width, height = picture.size
    shorter, target = min(width, height), int(size / preprocessing.crop)
    if shorter != target:
        resized = (target * width // shorter, target * height // shorter)
        picture = picture.resize(resized, _INTERPOLATIONS[preprocessing.interpolation])
    left, top = (round((side - size) / 2) for side in picture.size)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def normalise(
    images: UInt8[Array, "batch size size 3"], preprocessing: Preprocessing
) -> Float[Array, "batch size size 3"]:
    """Pixels of 0..255 to float32 of about mean 0 and deviation 1."""
    mean = jnp.asarray(preprocessing.mean, jnp.float32)[None, None, None]
    deviation = jnp.asarray(preprocessing.deviation, jnp.float32)[None, None, None]
    return (images.astype(jnp.float32) / 255 - mean) / deviation
