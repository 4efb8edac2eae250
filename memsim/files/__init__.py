"""Files: checkpoints in, held weights out; plans, chips and fault maps both ways."""

from memsim.files.checkpoints import Checkpoint, open_checkpoint
from memsim.files.chips import load_chip, load_faults, save_chip, save_faults
from memsim.files.plans import load_plan, save_plan
from memsim.files.raw import RawTensor
from memsim.files.writing import save_tensors

__all__ = [
    "Checkpoint",
    "RawTensor",
    "load_chip",
    "load_faults",
    "load_plan",
    "open_checkpoint",
    "save_chip",
    "save_faults",
    "save_plan",
    "save_tensors",
]
