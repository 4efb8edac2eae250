"""Programming policies: which weight is programmed where, and what is stored there.

`memsim.policies.base` is the protocol that they follow; a policy of your own is a class of a few
lines that follows it too.
"""

from memsim.placement import Placement, sorted_placement, unsorted_placement
from memsim.policies.base import (
    Arrangement,
    BitStucking,
    Follow,
    Held,
    LayerCodes,
    Policy,
    Stuckable,
    chips_differ,
    words_of,
)

# in the order that errors list them
# isort: split
from memsim.policies.unsorted import Unsorted  # isort: skip
from memsim.policies.sorting import Sws, SwsLayer  # isort: skip
from memsim.policies.matched import Matched  # isort: skip
from memsim.policies.flip_n_write import FlipNWrite  # isort: skip
from memsim.policies.aras import Aras  # isort: skip

__all__ = [
    "Aras",
    "Arrangement",
    "BitStucking",
    "FlipNWrite",
    "Follow",
    "Held",
    "LayerCodes",
    "Matched",
    "Placement",
    "Policy",
    "Stuckable",
    "Sws",
    "SwsLayer",
    "Unsorted",
    "chips_differ",
    "sorted_placement",
    "unsorted_placement",
    "words_of",
]
