"""Images and texts to train and test on, and how networks expect them."""

from training.data.images import (
    Arrays,
    Batch,
    Dataset,
    Images,
    digits,
    open_images,
    preparation,
    read_batches,
    training_batches,
)
from training.data.preprocessing import (
    CIFAR,
    DEIT,
    TORCHVISION,
    VIT,
    Preprocessing,
    central_crop,
    normalise,
    read_timm_config,
)

__all__ = [
    "CIFAR",
    "DEIT",
    "TORCHVISION",
    "VIT",
    "Arrays",
    "Batch",
    "Dataset",
    "Images",
    "Preprocessing",
    "central_crop",
    "digits",
    "normalise",
    "open_images",
    "preparation",
    "read_batches",
    "read_timm_config",
    "training_batches",
]
