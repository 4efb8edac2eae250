"""Networks in Flax NNX."""

from training.models.cnn import CNN
from training.models.resnet import CifarResNet, ResNet
from training.models.vit import VisionTransformer

__all__ = ["CNN", "CifarResNet", "ResNet", "VisionTransformer"]
