"""Networks made to be rewritten cheaply: weights moved to words that follow well on one another.

A penalty that is smooth in the weights (`expected_writes`) sees the neighbouring codes alone. Here
the trade is made exactly: of all words that each place could hold in turn, those of least squared
error plus price times writes. A loop that trains the weights behind this choice, as a network is
trained through its quantization, ends with weights that resemble what the crossbars hold already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Int32, PyTree

from memsim._checks import check_kind, check_number
from memsim.chip import Chip, Stuck
from memsim.codes import decode
from memsim.config import MATCHED_BITS
from memsim.network import Params, check_belongs, check_chip, put_back
from memsim.placement import negate_rows
from memsim.planning import Plan
from memsim.policies._matching.faulty_rows import word_kinds
from memsim.policies._recoding.walk import words_of_codes
from memsim.selection import by_output, from_output, named_leaves, slice_of, tensor_name

__all__ = ["WordChains"]


class WordChains:
    """The words that follow one another in each place of the crossbars under a plan.

    Weights stay where they are; only what is stored there changes. Build it once for a plan, call
    `cheapest` as often as weights move.

    Args:
      plan: without flags, offsets or corrections (`unsorted`, `sws`, `matched` with
        `correction=none`); words of at most 10 bits. A tolerance helps to place weights that will
        move; its errors are left out.
      old: weight stationary, the network that the crossbars hold, programmed under this plan: what
        is chosen takes its places and its scales. Weight streaming takes none.

    Attributes:
      plan: the same without errors: what `cheapest` returns is held exactly under it.

    Raises:
      ValueError: a plan of another kind; no `old` where nothing else is held before, or one where
        passes follow on each other.

    References:
      Bai, Wang and Liberty, ProxQuant, ICLR 2019: training through a proximal operator, theirs of
      distances to a grid, this one of writes.

    >>> import numpy as np, memsim
    >>> params = {"kernel": np.float32([[64, 60], [127, 9]])}
    >>> plan = memsim.plan(params, memsim.CrossbarConfig(rows=2), memsim.Policy.parse("unsorted"))
    >>> memsim.WordChains(plan).cheapest(params, price=20.0)["kernel"]
    array([[ 60.,  60.],
           [127.,   9.]], dtype=float32)

    A newer version over an older one, weight stationary:

    >>> config = memsim.CrossbarConfig(crossbars=None)
    >>> plan = memsim.plan(params, config, memsim.Policy.parse("sws"))
    >>> newer = {"kernel": np.float32([[63, 52], [127, 8]])}
    >>> memsim.WordChains(plan, params).cheapest(newer, price=20.0)["kernel"]
    array([[ 64.,  52.],
           [127.,   9.]], dtype=float32)
    """

    def __init__(self, plan: Plan, old: PyTree | None = None) -> None:
        check_kind("plan", plan, Plan, "give what `memsim.plan` returns")
        config = plan.config
        if (config.crossbars is None) != (old is not None):
            raise ValueError(
                "`plan` is weight stationary, where words follow on those of an older network: "
                "give it as `old`, or stream."
                if old is None
                else f"`plan` streams over {config.crossbars} crossbars, where passes follow on "
                "each other; leave out `old`, or plan for `crossbars=None`."
            )
        if config.encoding == "differential" or config.bits > MATCHED_BITS:
            raise ValueError(
                f"`plan` has {config.encoding} words of {config.bits} bits; take another encoding "
                f"than differential, and at most {MATCHED_BITS} bits."
            )
        for name, layer in plan.layers.items():
            if not (layer.flips is None and layer.offset is None and layer.correction is None):
                raise ValueError(
                    f"`plan` stores or corrects other words than those of the weights of {name!r}; "
                    "plan with unsorted, sws, or matched with correction=none."
                )
        # the errors that a tolerance made are chosen anew
        layers = {name: layer._replace(delta=None) for name, layer in plan.layers.items()}
        plan = plan._replace(layers=layers)
        self.plan = plan
        # of the two ends of the range the nearer: what is programmed goes no further
        codes = np.arange(config.min_code, config.max_code + 1)
        programmed = np.maximum(codes, -config.max_code) - config.min_code
        self._words = words_of_codes(config)[programmed]
        every = jnp.arange(1 << max(config.column_masks).bit_length(), dtype=config.word_dtype)
        self._values = np.asarray(decode(every, config)).astype(np.int32) - config.min_code
        self._weights = _in_turn(plan)
        self._old = None if old is None else self._codes(named_leaves(old))

    def cheapest(
        self, params: Params, price: float | Mapping[str, float], chip: Chip | None = None
    ) -> Params:
        """Moves weights to the words of least squared error plus price times writes.

        Exact for each place through a whole pass; the pass before is taken to have left the words
        that it would without moving, unless it is an old network that did. Afterwards the largest
        weight of each scale is put back at its end, unless the words are of one chip.

        Args:
          params: pytree of the network that the plan was made for; weights may have moved since.
          price: what a write less makes up for, in squared code errors; of each layer by name, or
            of all.
          chip: whose stuck cells are known: each weight goes to a word that its place can hold.

        Returns:
          The same pytree, every mapped tensor float32 on the grid of its codes, NumPy: what to
          program, and what is held then.

        Raises:
          ValueError: another network or a chip of another; weights that are NaN, infinite or
            traced; a price that is negative or missing.

        With a cell that is stuck in its highest bit a weight of 60 becomes 64, not 124:

        >>> import jax, jax.numpy as jnp, numpy as np, memsim
        >>> params = {"kernel": np.float32([[60], [127]])}
        >>> config = memsim.CrossbarConfig(rows=2, encoding="sign_magnitude")
        >>> plan = memsim.plan(params, config, memsim.Policy.parse("unsorted"))
        >>> stuck = jnp.uint8([[64, 0]])
        >>> chip = memsim.with_faults(jax.random.key(0), 0 * stuck, stuck)
        >>> memsim.program(params, plan, chip)[0]["kernel"].ravel().tolist()
        [124.0, 127.0]
        >>> held = memsim.WordChains(plan).cheapest(params, 0.0, chip)
        >>> memsim.program(held, plan, chip)[0]["kernel"].ravel().tolist()
        [64.0, 127.0]
        """
        from memsim.policies._matching.chains import follow_cheaply  # compiles: slow to import

        config, leaves = self.plan.config, named_leaves(params)
        masks = np.asarray(config.column_masks, np.int32)
        codes = self._codes(leaves)
        before = codes if self._old is None else self._old
        stuck = self._stuck(chip)
        held = self._left_by(before) & ~(stuck.at_0 | stuck.at_1) | stuck.at_1
        moved = []
        for name, weights in self._weights.items():
            of_layer: Any = price.get(name) if isinstance(price, Mapping) else price
            check_number(f"price of {name}", of_layer, "a write makes up for 0 or more", 0)
            here, own = weights >= 0, codes[name]
            asked = np.where(here, own[weights] - config.min_code, -1).astype(np.int32)
            chosen = follow_cheaply(asked, held, of_layer, self._values, self._words, masks, stuck)
            after = own.copy()
            after[weights[here]] = np.maximum(chosen[here] + config.min_code, -config.max_code)
            layer = self.plan.layers[name]
            if chip is None:
                # the largest weight of each scale stays at its end, for plans made afresh
                scales = layer.matrix.outputs if config.scale_per == "output" else 1
                ends = before[name]
                largest = np.argmax(np.abs(ends).reshape(scales, -1), axis=1)
                largest += np.arange(scales) * (own.size // scales)
                after[largest] = np.sign(ends[largest]) * config.max_code
            tensor = from_output(self._negated(name, after).astype(np.float32), layer.matrix)
            moved.append(tensor * np.asarray(layer.scale))
        layers = {name: self.plan.layers[name] for name in self._weights}
        tensors = {name: np.asarray(of) for name, of in put_back(layers, moved).items()}
        cheap: Params = jax.tree.unflatten(jax.tree.structure(params), (leaves | tensors).values())
        return cheap

    def match_rows(
        self, params: PyTree, chip: Chip
    ) -> tuple[Chip, Int32[np.ndarray, "crossbars rows"]]:
        """Exchanges the rows of each crossbar so that its stuck cells meet words that have them.

        An assignment for each crossbar, of least squared errors that stuck cells force on the words
        of a whole pass. Rows change places as wholes: what follows on what stays, and so do writes.

        Args:
          params: pytree of the network that the plan was made for.
          chip: whose stuck cells are known.

        Returns:
          The chip with its rows in the order of the plan, which stands for it in `cheapest` and
          `memsim.program`; and the row of the chip that each of them is, to be kept by what drives
          the rows.

        Raises:
          ValueError: another network or a chip of another; weights that are NaN or infinite.

        >>> import jax, jax.numpy as jnp, numpy as np, memsim
        >>> params = {"kernel": np.float32([[60], [127]])}
        >>> config = memsim.CrossbarConfig(rows=2, encoding="sign_magnitude")
        >>> plan = memsim.plan(params, config, memsim.Policy.parse("unsorted"))
        >>> stuck = jnp.uint8([[64, 0]])
        >>> chip = memsim.with_faults(jax.random.key(0), 0 * stuck, stuck)
        >>> chip, rows = memsim.WordChains(plan).match_rows(params, chip)
        >>> rows.tolist(), memsim.program(params, plan, chip)[0]["kernel"].ravel().tolist()
        ([[1, 0]], [60.0, 127.0])
        """
        config, leaves = self.plan.config, named_leaves(params)
        kinds = word_kinds(self._stuck(chip), config)
        # nothing is forced where a place is not programmed: the last column
        forced = np.pad(kinds.least.astype(np.float32) ** 2, ((0, 0), (0, 1)))
        codes = self._codes(leaves)
        in_turn = np.concatenate(
            [
                np.where(weights >= 0, codes[name][weights] - config.min_code, -1)
                for name, weights in self._weights.items()
            ]
        ).reshape(-1, *kinds.of.shape)
        rows = np.empty(kinds.of.shape[:2], np.int32)
        for crossbar, of in enumerate(kinds.of):
            cost = np.zeros((config.rows, config.rows), np.float32)
            for row, slot in np.argwhere(of > 0):
                cost[:, row] += forced[of[row, slot]][in_turn[:, crossbar, :, slot]].sum(axis=0)
            _, rows[crossbar] = scipy.optimize.linear_sum_assignment(cost)

        def in_order(words: Array) -> Array:
            by_row = words.reshape(kinds.of.shape)
            return jnp.take_along_axis(by_row, rows[..., None], axis=1).reshape(words.shape)

        # all fields but the key and the count of passes are words
        key, passes, *words = chip
        return Chip(key, passes, *jax.tree.map(in_order, words)), rows

    def _codes(self, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: self._codes_of(name, leaves) for name in self.plan.names}

    def _codes_of(self, name: str, leaves: Mapping[str, Any]) -> np.ndarray:
        """Rounds the weights of a layer to the codes that are stored, int32 [weights]."""
        layer, config = self.plan.layers[name], self.plan.config
        tensor: Any = leaves.get(tensor_name(name, layer.matrix))
        check_belongs(name, tensor, layer)
        if isinstance(tensor, jax.core.Tracer):
            raise ValueError(f"`{name}` is traced; choose words outside `jit`, `grad` and `vmap`.")
        weights = np.asarray(slice_of(tensor, layer.matrix), np.float32) / np.asarray(layer.scale)
        if not np.all(np.isfinite(weights)):
            raise ValueError(f"`{name}` holds NaN or infinite weights; mend them before.")
        rounded = np.clip(np.rint(weights), -config.max_code, config.max_code).astype(np.int32)
        return self._negated(name, by_output(rounded, layer.matrix.slice_axes).reshape(-1))

    def _negated(self, name: str, codes: np.ndarray) -> np.ndarray:
        """Changes the sign of what rows that are negated store."""
        layer = self.plan.layers[name]
        return np.asarray(negate_rows(codes, layer.negated, layer.placement))

    def _stuck(self, chip: Chip | None) -> Stuck:
        """Gives the stuck bits of each place, int32 [places]."""
        if chip is None:
            none = np.zeros(next(iter(self._weights.values())).shape[1], np.int32)
            return Stuck(none, none)
        check_kind("chip", chip, Chip, "give one that `memsim.sample_chip` drew")
        check_chip(self.plan, chip)
        words = (np.asarray(of, np.int32) for of in (chip.stuck_at_0, chip.stuck_at_1))
        return Stuck(*(of.reshape(-1) for of in words))

    def _left_by(self, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Gives what a pass leaves in each place, int32 words; erased ones where it writes none."""
        places = next(iter(self._weights.values())).shape[1]
        held = np.zeros(places, np.int32)
        for name, weights in self._weights.items():
            words = self._words[codes[name] - self.plan.config.min_code]
            for step in weights:
                held = np.where(step >= 0, words[step], held)
        return held


def _in_turn(plan: Plan) -> dict[str, np.ndarray]:
    """Lists the weights that are programmed in each place in turn.

    Returns:
      By layer, in the order of programming: int64 [steps, places], the weight at each step by its
      number, -1 for none; places are words of crossbars.
    """
    sections, first, weights = np.asarray(plan.schedule.sections), 0, {}
    for name in plan.names:
        placed = np.asarray(plan.layers[name].placement.weights).astype(np.int64)
        size, count = plan.layers[name].placement.positions.shape[-1], len(placed)
        mine = (sections >= first) & (sections < first + count)
        steps = np.flatnonzero(mine.any(axis=1))
        here = mine[steps]
        of_step = placed[np.where(here, sections[steps] - first, 0)]
        used = here[..., None] & (of_step < size)
        weights[name] = np.where(used, of_step, -1).reshape(len(steps), -1)
        first += count
    return weights
