"""ARAS-style: the offset of all codes of a layer that takes fewest writes."""

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.placement import Placement
from memsim.policies._matching.flow import word_graph
from memsim.policies._recoding.walk import scheduled


def choose_offset(
    codes: np.ndarray,
    placement: Placement,
    held: np.ndarray | None,
    config: CrossbarConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the offset of all codes that takes the layer fewest writes; ties the smallest.

    Among those with which every word `code + 2**(bits - 1) + offset` is one of `bits` bits.

    Args:
      codes: signed integers [weights], in the order of `Placement`.
      placement: which weight sits in which (section, word).
      held: words [crossbars, words] before the layer; None for erased cells.

    Returns:
      (offset, held): int32 scalar; words held afterwards, `config.word_dtype`.
    """
    weights = placement.weights
    sections, held = scheduled(len(weights), held, config)
    graph, size = word_graph(config), 2**config.bits
    word_of, changes = graph.node_of_code, graph.changes  # unsigned words: each is its own node
    # an offset moves all codes alike: it is enough to count which follow which
    last = np.full(held.shape, -1, np.int32)
    first, pairs = np.zeros((size, size), np.int64), np.zeros((size, size), np.int64)
    _count_pairs(codes, weights, sections, config.min_code, held, last, first, pairs)
    word, entered = np.nonzero(first)
    old, new = np.nonzero(pairs)

    def price(offset: int) -> tuple[int, int, int]:
        # first what is overwritten as it was held, then codes by codes
        entering = changes[word, word_of[entered + offset]] @ first[word, entered]
        writes = entering + changes[word_of[old + offset], word_of[new + offset]] @ pairs[old, new]
        return int(writes), abs(offset), offset

    # offsets with which every code stays one that a word can hold
    lowest, highest = int(codes.min()), int(codes.max())
    _, _, offset = min(map(price, range(config.min_code - lowest, config.max_code - highest + 1)))
    # words that were not programmed hold what they held
    after = np.where(last < 0, held, word_of[last + offset])
    return np.asarray(offset, np.int32), after.astype(config.word_dtype)


@numba.njit(cache=True, nogil=True)
def _count_pairs(  # type: ignore[no-untyped-def]
    codes, weights, sections, lowest, held, last, first, pairs
):
    """Counts which codes follow each other in a word; arguments as of `flips._flip_words`.

    Args:
      last: int32 [crossbars, words], -1; returned: the last code in each word, from `lowest`.
      first: int64 [words, codes], zeros; returned: codes that overwrite what was held.
      pairs: int64 [codes, codes], zeros; returned: codes that overwrite a code.
    """
    steps, crossbars = sections.shape
    for step in range(steps):
        for crossbar in range(crossbars):
            section = sections[step, crossbar]
            # an idle crossbar
            if section == len(weights):
                continue
            for i in range(weights.shape[1]):
                if weights[section, i] == codes.size:
                    continue
                code = codes[weights[section, i]] - lowest
                # the first code in a word overwrites what was held, later ones a code
                if last[crossbar, i] < 0:
                    first[held[crossbar, i], code] += 1
                else:
                    pairs[last[crossbar, i], code] += 1
                last[crossbar, i] = code
