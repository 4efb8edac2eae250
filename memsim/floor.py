"""The fewest writes that any placement of a layer could take, bounded from below.

It says how far the best that was found may be from the best that there is. A steady pass is a
closed tour of the outputs, and from one to the next at least as many cells change as in the best
transport of their words. A bound on the shortest tour bounds the writes of them all.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, PyTree, Shaped
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree

from memsim._checks import check_kind, check_number
from memsim.codes import encode, hamming_distance, quantize
from memsim.config import MATCHED_BITS, CrossbarConfig
from memsim.planning import plan
from memsim.policies import Unsorted
from memsim.selection import Select, by_output, named_leaves, slice_of, tensor_name

__all__ = ["writes_floor"]

# Prices of a write, in squared code errors, at which errors are traded; each gives a bound.
_PRICES = 2.0 ** np.arange(-2, 13)
# Steps of the ascent to the best 1-tree; the share of the longest distance that the first one moves
# stops by, and what is left of it from each to the next.
_ASCENT, _STEP, _SHRINK = 150, 0.05, 0.95
# Sums of distances are not exact.
_ROUNDING = 1e-4


def writes_floor(
    params: PyTree,
    config: CrossbarConfig,
    squared_error: float = 0.0,
    *,
    select: Select | None = None,
) -> dict[str, int]:
    """Bounds the writes of a steady pass from below, for each layer on a crossbar of its own.

    No order of outputs, no order of inputs in each of them, and no choice of words takes fewer. The
    best there is may take more: the rows of the last output decide what the first one follows on,
    which the bound leaves free, and so do errors on either side of a word. The scales are those of
    `plan`.

    Args:
      params: pytree of the network; of each layer no output may have more inputs than `rows`.
      config: one crossbar, one word wide; encodings of one word for each code, of 10 bits at most.
      squared_error: that all weights of a layer together may be off by, in squared steps of its
        codes: a bound for what a tolerance, or `WordChains`, leaves.
      select: see `plan`.

    Returns:
      By layer, the writes that no steady pass falls below.

    Raises:
      ValueError: crossbars of another kind; an output of more inputs than rows.

    References:
      Held and Karp, The traveling-salesman problem and minimum spanning trees, Operations Research
      1970: the bound on a tour by 1-trees. What errors save is bounded by their Lagrangian.

    >>> import numpy as np, memsim
    >>> params = {"kernel": np.float32([[64, 60], [127, 9]])}
    >>> floors = memsim.writes_floor(params, memsim.CrossbarConfig(rows=2))
    >>> floors["kernel"]
    12
    """
    check_kind("config", config, CrossbarConfig, "give a memsim.CrossbarConfig")
    check_number("squared_error", squared_error, "weights may be off by 0 or more", 0)
    if config.crossbars != 1 or config.words_per_row != 1:
        raise ValueError(
            f"`config` has {config.crossbars} crossbars and {config.words_per_row} words a row; "
            "the bound is one of crossbars=1 and columns=None."
        )
    if config.encoding == "differential" or config.bits > MATCHED_BITS:
        raise ValueError(
            f"`config` has {config.encoding} words of {config.bits} bits; take another encoding "
            f"than differential, and at most {MATCHED_BITS} bits."
        )
    made, leaves = plan(params, config, Unsorted(), select=select), named_leaves(params)
    floors = {}
    for name, layer in made.layers.items():
        matrix = layer.matrix
        if matrix.inputs > config.rows:
            raise ValueError(
                f"`{name}` has {matrix.inputs} inputs, but a crossbar {config.rows} `rows`; the "
                "bound is one of outputs that fit, give more rows."
            )
        tensor = jnp.asarray(leaves[tensor_name(name, matrix)])
        codes = by_output(
            quantize(slice_of(tensor, matrix), layer.scale, config), matrix.slice_axes
        )
        floors[name] = _floor(np.asarray(codes), squared_error, config)
    return floors


def _floor(
    codes: Shaped[np.ndarray, "outputs inputs"], squared_error: float, config: CrossbarConfig
) -> int:
    """Bounds the writes of one layer: without errors, or as each price of a write bounds them."""
    words = encode(jnp.arange(config.min_code, config.max_code + 1), config)
    changes = np.asarray(hamming_distance(words[:, None], words[None], config), np.float64)
    codes = codes.astype(np.int64) - config.min_code
    if squared_error == 0:
        least = _shortest_tour(_transports(codes, changes))
    else:
        # errors and writes cost at least so much together: what is left is for writes
        least = max(
            (_shortest_tour(_transports(codes, _with_errors(changes, price))) - squared_error)
            / price
            for price in _PRICES
        )
    return max(0, math.ceil(least - _ROUNDING))


def _with_errors(changes: Float64[np.ndarray, "codes codes"], price: float) -> np.ndarray:
    """Prices a code that follows on another, where both may be off.

    Of each squared error one half belongs to the step before it and one to the step after it.
    """
    number = np.arange(len(changes), dtype=np.float64)
    half = np.square(number[:, None] - number) / 2
    # by the word that follows, then by the one before it
    one = np.stack([np.min(price * row[:, None] + half, axis=0) for row in changes])
    return np.stack([np.min(of_code[:, None] + one, axis=0) for of_code in half])


def _transports(
    codes: Shaped[np.ndarray, "outputs inputs"], costs: Float64[np.ndarray, "codes codes"]
) -> Float64[np.ndarray, "outputs outputs"]:
    """Computes what it costs at least that one output follows on another, in any rows."""
    least = np.zeros((len(codes), len(codes)))
    for one, other in itertools.combinations(range(len(codes)), 2):
        cost = costs[np.ix_(codes[one], codes[other])]
        least[one, other] = least[other, one] = cost[linear_sum_assignment(cost)].sum()
    return least


def _shortest_tour(distance: Float64[np.ndarray, "stops stops"]) -> float:
    """Bounds the shortest closed tour from below, by the best 1-tree of an ascent.

    A tour is a tree of all stops but one, and two ways to that one, in which each stop has two
    neighbours. Stops that have more are moved away, others closer: a tour gets no longer by that.
    """
    stops = len(distance)
    if stops < 3:
        return float(distance.sum())  # there and back, or nowhere
    away, best, step = np.zeros(stops), 0.0, _STEP * distance.max()
    for _ in range(_ASCENT):
        moved = distance + away[:, None] + away
        # a distance of 0 is no edge to SciPy
        apart = moved.min() - 1.0
        tree = minimum_spanning_tree(np.triu(moved[1:, 1:] - apart, 1)).tocoo()
        ends = np.argsort(moved[0, 1:], kind="stable")[:2] + 1
        length = tree.data.sum() + apart * (stops - 2) + moved[0, ends].sum() - 2 * away.sum()
        best = max(best, float(length))
        neighbours = np.bincount(np.concatenate([tree.row, tree.col]) + 1, minlength=stops)
        neighbours[ends] += 1
        neighbours[0] = 2
        if np.all(neighbours == 2):
            break  # a tour itself
        away += step * (neighbours - 2)
        step *= _SHRINK
    return best
