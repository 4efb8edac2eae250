"""Networks in Flax NNX."""

from training.models.cnn import CNN
from training.models.gpt import GPT
from training.models.llama import Llama
from training.models.resnet import CifarResNet, ResNet
from training.models.vit import VisionTransformer

__all__ = ["CNN", "GPT", "CifarResNet", "Llama", "ResNet", "VisionTransformer"]
