"""Flip-N-Write, a published competitor: complements are stored where that takes fewer writes.

References:
  Cho and Lee, Flip-N-Write: A Simple Deterministic Technique to Improve PRAM Write Performance,
  Energy and Endurance, MICRO 2009.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Shaped

from memsim.config import CrossbarConfig
from memsim.placement import Placement, unsorted_placement
from memsim.policies.base import Arrangement, Follow, Held, LayerCodes, Policy

__all__ = ["FlipNWrite"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlipNWrite(Policy):
    """Places as `unsorted` and stores complements where fewer cells change, flag cells counted.

    It chooses layer after layer, for a chip without faults that starts erased; later passes repeat
    the choice.

    Attributes:
      flags: a flag per `word`, as published, or per column of a `section`, whose analog sums can
        be corrected: that of a complemented column is the top level times the sum of the inputs,
        less what is read.

    >>> str(FlipNWrite(flags="section"))
    'flip-n-write:flags=section'
    """

    name: ClassVar[str] = "flip-n-write"
    recodes: ClassVar[bool] = True

    flags: Literal["word", "section"] = "word"

    def stored_on(self, config: CrossbarConfig) -> CrossbarConfig:
        """Gives the config with a flag cell per word, or a row of them per section."""
        return dataclasses.replace(config, flags=self.flags)

    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Keeps inputs and outputs in their own order."""
        outputs, inputs = codes.shape
        return unsorted_placement(outputs, inputs, config.rows, config.words_per_row)

    def prepare(self, layer: LayerCodes, config: CrossbarConfig) -> Follow:
        """Chooses the complements by what the layer before left."""
        from memsim.policies._recoding import flips  # compiles: slow to import

        placement = self.place(layer.codes, config)

        def follow(held: Held) -> tuple[Arrangement, Held]:
            codes = layer.codes.reshape(-1)
            chosen, after = flips.choose_flips(codes, placement, held.get(layer.pool), config)
            return Arrangement(placement, flips=chosen), {**held, layer.pool: after}

        return follow

    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Takes its flag cells."""
        if self.flags == "word":
            return 1
        return self.stored_on(config).cells_per_word * -(-inputs // config.rows) / inputs

    def analog_valid(self, outputs: int) -> bool:
        """Mixes complemented words with others in a column, unless whole columns are."""
        return self.flags == "section"
