"""Networks in Flax NNX."""

from training.models.cnn import CNN

__all__ = ["CNN"]
