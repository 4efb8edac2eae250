"""The crossbars that each layer of a network takes."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class Share(NamedTuple):
    """The crossbars that a layer takes.

    Those that only one section of a network takes are not written again in pass after pass, so it
    is best if many are.

    Attributes:
      common: crossbars, from the first on, that all layers share.
      first: the first of those that it alone takes, for one section each.
      kept: how many these are.
    """

    common: int
    first: int
    kept: int


def share_of(number: int, sections: Sequence[int], crossbars: int) -> Share:
    """Chooses the crossbars of a layer.

    Args:
      number: of the layer.
      sections: of all layers in the order of programming.
      crossbars: that there are.
    """

    def kept(common: int) -> list[int]:
        # as many steps as there must be, on the common ones
        return [max(0, count - -(-count // crossbars) * common) for count in sections]

    # as few common ones as there are crossbars for the rest
    common = bisect.bisect_left(
        range(crossbars), True, key=lambda common: common + sum(kept(common)) <= crossbars
    )
    of_layers = kept(common)
    return Share(common, common + sum(of_layers[:number]), of_layers[number])
