"""The baseline: output by output, inputs in their own order."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Shaped

from memsim.config import CrossbarConfig
from memsim.placement import Placement, unsorted_placement
from memsim.policies.base import Stuckable

__all__ = ["Unsorted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unsorted(Stuckable):
    """Programs group by group of the outputs that share rows; all stays in its own order.

    >>> str(Unsorted(p=0.5, low=3))
    'unsorted+stuck:p=0.5,low=3'
    """

    name: ClassVar[str] = "unsorted"
    uses_codes: ClassVar[bool] = False

    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Keeps inputs and outputs in their own order."""
        outputs, inputs = codes.shape
        return unsorted_placement(outputs, inputs, config.rows, config.words_per_row)

    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Needs no index."""
        return 0.0
