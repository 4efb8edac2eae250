"""The main job: fine-tune a network for the chips that it is programmed onto.

    python -m training.finetune                       # digits, one network for each of 32 chips
    python -m training.finetune --assets DIR --robust # ResNet-20, one network for chips unseen

Stuck-aware fine-tuning programs inside the loss: the forward pass runs on the weights that the chip
really holds, the gradient passes straight through to the weights that were asked for. A run that
was killed goes on where it stopped when it is started again.
"""

from training.finetune.command import main
from training.finetune.job import complete, fine_tune, learned
from training.finetune.settings import FinetuneOptions

__all__ = ["FinetuneOptions", "complete", "fine_tune", "learned", "main"]
