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
      keeps_whole: whether these are filled first, with whole sections, and the others with what is
        left; otherwise the sections that follow best are on the common ones.
    """

    common: int
    first: int
    kept: int
    keeps_whole: bool = False


def share_of(number: int, sections: Sequence[int], crossbars: int, given_up: int = 0) -> Share:
    """Chooses the crossbars of a layer.

    Args:
      number: of the layer.
      sections: of all layers in the order of programming.
      crossbars: that there are.
      given_up: crossbars that layers could keep, but share with the others, see `most_given_up`.
    """
    commons = _commons(sections, crossbars, given_up)
    kept = [_kept(*one, crossbars) for one in zip(sections, commons, strict=True)]
    return Share(commons[number], max(commons) + sum(kept[:number]), kept[number])


def most_given_up(sections: Sequence[int], crossbars: int) -> int:
    """Counts the crossbars that layers keep, one for each step of a layer."""
    fewest = _fewest(sections, crossbars)
    return sum(max(0, need - fewest) for need in _needs(sections, crossbars))


def _commons(sections: Sequence[int], crossbars: int, given_up: int) -> list[int]:
    """Gives the crossbars, from the first on, that each layer shares with others."""
    fewest, needs = _fewest(sections, crossbars), _needs(sections, crossbars)

    def shared(common: int) -> int:
        return sum(max(0, min(need, common) - fewest) for need in needs)

    # as many for all layers as that gives, one more for the first of those that keep any
    most = max(fewest, *needs)
    common = bisect.bisect_right(range(fewest + 1, most + 1), given_up, key=shared) + fewest
    left, commons = given_up - shared(common), []
    for need in needs:
        more = need > common and left > 0
        left -= more
        commons.append(common + more)
    return commons


def _fewest(sections: Sequence[int], crossbars: int) -> int:
    """Counts the crossbars that layers share at least: the rest is enough for what each keeps."""
    return bisect.bisect_left(
        range(crossbars),
        True,
        key=lambda common: (
            common + sum(_kept(count, common, crossbars) for count in sections) <= crossbars
        ),
    )


def _needs(sections: Sequence[int], crossbars: int) -> list[int]:
    """Counts the crossbars on which each layer has no section to keep."""
    return [-(-count // -(-count // crossbars)) for count in sections]


def _kept(count: int, common: int, crossbars: int) -> int:
    """Counts the sections of a layer that have a crossbar of their own, of so many."""
    # as many steps as there must be, on the common ones
    return max(0, count - -(-count // crossbars) * common)
