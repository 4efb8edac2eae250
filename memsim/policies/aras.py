"""ARAS-style, a published competitor: the words of each layer are shifted by an offset.

References:
  ARAS, arXiv 2410.17931. Its re-encoding formula is not in the public text: the offset is ours.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Shaped

from memsim.config import MATCHED_BITS, CrossbarConfig
from memsim.placement import Placement, unsorted_placement
from memsim.policies.base import Arrangement, Follow, Held, LayerCodes, Policy

__all__ = ["Aras"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aras(Policy):
    """Places as `unsorted` and shifts a layer's words by the offset that takes fewest writes.

    It chooses layer after layer, for a chip without faults that starts erased; later passes repeat
    the choice.
    """

    name: ClassVar[str] = "aras"
    recodes: ClassVar[bool] = True

    def check(self, config: CrossbarConfig) -> None:
        """Checks that words are unsigned, and few enough to search all offsets.

        Raises:
          ValueError: they are not.
        """
        super().check(config)
        if config.encoding not in ("twos_complement", "offset_binary"):
            raise ValueError(
                f"`encoding` is {config.encoding!r}, but aras stores unsigned words; use "
                "'twos_complement' or 'offset_binary'."
            )
        if config.bits > MATCHED_BITS:
            raise ValueError(
                f"`bits` is {config.bits}, but aras searches offsets of words of at most "
                f"{MATCHED_BITS} bits; use fewer."
            )

    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Keeps inputs and outputs in their own order."""
        outputs, inputs = codes.shape
        return unsorted_placement(outputs, inputs, config.rows, config.words_per_row)

    def prepare(self, layer: LayerCodes, config: CrossbarConfig) -> Follow:
        """Chooses the offset by what the layer before left."""
        from memsim.policies._recoding import offsets  # compiles: slow to import

        placement = self.place(layer.codes, config)

        def follow(held: Held) -> tuple[Arrangement, Held]:
            codes = layer.codes.reshape(-1)
            offset, after = offsets.choose_offset(codes, placement, held.get(layer.pool), config)
            return Arrangement(placement, offset=offset), {**held, layer.pool: after}

        return follow

    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Takes an offset of bits + 1 bits per layer."""
        return (config.bits + 1) / (inputs * outputs)
