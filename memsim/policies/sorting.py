"""Sorted weight sectioning: similar weights share a section, similar sections are neighbours.

References:
  Farias and Kung, Efficient Reprogramming of Memristive Crossbars for DNNs: Weight Sorting and Bit
  Stucking, arXiv 2410.21730.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Shaped

from memsim.config import CrossbarConfig
from memsim.placement import Placement, sorted_placement
from memsim.policies.base import Stuckable

__all__ = ["Sws", "SwsLayer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sws(Stuckable):
    """Sorts the weights of each output and goes section-major: section s of every output in turn.

    Outputs that share rows are sorted together, by the sum of their codes.

    >>> str(Sws(p=0.25, low=2))
    'sws+stuck:p=0.25,low=2'
    """

    name: ClassVar[str] = "sws"

    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Sorts the inputs of each group of outputs by the sum of their codes, stable."""
        return sorted_placement(codes, config.rows, words=config.words_per_row)

    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Takes the row of every input, ceil(log2 inputs), shared by the words of a row."""
        rows = -(-outputs // config.words_per_row) / outputs  # of each weight
        return (inputs - 1).bit_length() * rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwsLayer(Stuckable):
    """Sorts all weights of a layer together: the published bound, not analog-valid."""

    name: ClassVar[str] = "sws-layer"

    def check(self, config: CrossbarConfig) -> None:
        """Checks that crossbars are one word wide: words that share an input cannot be sorted.

        Raises:
          ValueError: they are wider; as `Policy.check`.
        """
        super().check(config)
        if config.words_per_row > 1:
            raise ValueError(
                f"`columns` is {config.columns}, {config.words_per_row} words a row, but sws-layer "
                "sorts single words; use sws, or columns=None."
            )

    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Sorts the codes of all outputs together, ties in output-major order."""
        return sorted_placement(codes, config.rows, "layer")

    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Takes the place of every weight in its layer: ceil(log2(inputs * outputs))."""
        return (inputs * outputs - 1).bit_length()

    def analog_valid(self, outputs: int) -> bool:
        """Mixes outputs in a section, unless there is one alone."""
        return outputs == 1
