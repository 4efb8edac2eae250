"""An index of words: which input each row has is told by the words, where equal ones may change."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions


def index_by_words(
    placement: Placement, codes: np.ndarray, config: CrossbarConfig, *, sections_apart: bool
) -> tuple[Placement, int]:
    """Orders the inputs of rows with equal words, and counts the bits that tell the rest.

    Rows of a section that hold equal words may change places: no cell changes. So their inputs are
    put in order, and of all ways to deal inputs to rows only those are told apart that differ in
    the words of an input. A section of k rows, of n inputs that its outputs have left, then takes
    log2(n! / ((n - k)! m1! m2! ...)) bits, with m rows of each word: the number of such ways, as an
    enumerative code numbers them. Who knows the words of the rows can undo it.

    Args:
      placement: of a layer.
      codes: integers [outputs, inputs], those that are programmed.
      config: the crossbars.
      sections_apart: whether it is known which inputs a section has, and only their rows are told.

    Returns:
      (placement, bits): of the whole layer.
    """
    outputs, inputs = (int(size) for size in codes.shape)
    flat = codes.reshape(-1)
    used_rows, used_words = np.asarray(placement.used_rows), np.asarray(placement.used_words)
    weights = np.array(placement.weights).reshape(-1, config.rows, config.words_per_row)
    left: dict[bytes, int] = {}  # inputs that these outputs have left
    bits = 0
    for number, section in enumerate(weights):
        rows, slots = int(used_rows[number]), int(used_words[number])
        used = section[:rows, :slots]
        of_rows = flat[used]
        # rows by their words; a stable order keeps the rows of one word in theirs
        by_words = np.lexsort(of_rows.T[::-1])
        same = (of_rows[by_words][1:] == of_rows[by_words][:-1]).all(axis=1)
        word = np.concatenate([[0], np.cumsum(~same)])
        # the inputs of a word in their own order
        order = by_words[np.lexsort((used[by_words, 0] % inputs, word))]
        section[by_words, :slots] = used[order]
        here = np.sort(section[0, :slots] // inputs).tobytes()
        there: int = rows if sections_apart else left.get(here, inputs)
        left[here] = there - rows
        ways = gammaln(there + 1) - gammaln(there - rows + 1) - gammaln(np.bincount(word) + 1).sum()
        bits += max(0, math.ceil(ways / math.log(2) - 1e-9))
    placed = weights.reshape(placement.weights.shape)
    inverse = inverse_positions(placed, outputs * inputs)
    return placement._replace(weights=placed, positions=inverse), bits
