"""The outputs that share sections, and which of them promise to follow well on which crossbar."""

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.policies._matching.flow import Graph
from memsim.policies._matching.lines import Rules

# What short sections lack besides, times the share that is missing: far more than words do.
_SHORT = 1000.0


class Units:
    """The outputs and inputs that a section can be filled from, unit by unit.

    They are a group of outputs, of which a section takes all and some of the inputs left, or, where
    rows are `fixed`, those of a section, of which it takes all and some of the outputs left.

    Attributes:
      fixed: whether inputs stay in their own order.
      outputs, inputs: int64, of each unit, what is left.
      shape: int64 [units, 2], the rows and slots of the next section of each; no rows where nothing
        is left.
      counts: int32 [units, bins], the words that are left, see `count_levels`.
      alike: uint16 [words], the word that each is counted as: where rows may be negated, a word and
        its negative are one.
    """

    def __init__(
        self,
        codes: np.ndarray,
        nodes: np.ndarray,
        graph: Graph,
        config: CrossbarConfig,
        rules: Rules,
    ) -> None:
        """Groups outputs so that those of one slot, in unit after unit, are of like magnitude.

        Args:
          codes, nodes: uint16 [outputs, inputs], from the graph's lowest, and their words.
          graph, config, rules: of the words, the crossbars, the policy.
        """
        outputs, inputs = codes.shape
        rows, words = config.rows, config.words_per_row
        groups, full = -(-outputs // words), outputs // words
        magnitude = np.abs(codes + np.int32(graph.lowest)).mean(axis=1)
        order = np.argsort(magnitude, kind="stable")
        # slots of the short group have one output more
        sizes = np.where(np.arange(words) < outputs - full * words, groups, full)
        runs = np.split(order, np.cumsum(sizes)[:-1])
        grouped = [np.asarray([run[k] for run in runs if k < run.size]) for k in range(groups)]
        pools = [np.arange(inputs)]
        if rules.pool != "output":
            pools = np.split(pools[0], np.arange(rows, inputs, rows))
        self.fixed = rules.pool == "none"
        if self.fixed:
            grouped, groups = [np.arange(outputs)], 1
        self.alike = np.arange(graph.code_of_node.size, dtype=np.uint16)
        if rules.negates_rows:
            zero = -graph.lowest
            for code in range(1, graph.node_of_code.size - zero):
                positive, negative = graph.node_of_code[[zero + code, zero - code]]
                self.alike[negative] = positive
        self._nodes, self._most = nodes, (rows, words)
        self.outputs = [of_group for of_group in grouped for _ in pools]
        self.inputs = pools * groups
        number = range(len(self.inputs))
        self.shape = np.asarray([self._shape(unit) for unit in number])
        self.counts = np.stack([self._levels(self.outputs[u], self.inputs[u]) for u in number])

    @property
    def sections(self) -> int:
        """The sections that all units fill."""
        rows, words = self._most
        return sum(
            -(-inputs.size // rows) * -(-outputs.size // words)
            for outputs, inputs in zip(self.outputs, self.inputs, strict=True)
        )

    def take(self, unit: int, outputs: np.ndarray, inputs: np.ndarray) -> None:
        """Takes what a section holds off its unit."""
        self.counts[unit] -= self._levels(outputs, inputs)
        if self.fixed:
            self.outputs[unit] = np.setdiff1d(self.outputs[unit], outputs)
        else:
            self.inputs[unit] = np.setdiff1d(self.inputs[unit], inputs)
        self.shape[unit] = self._shape(unit)

    def _shape(self, unit: int) -> tuple[int, int]:
        rows, words = self._most
        outputs, inputs = self.outputs[unit].size, self.inputs[unit].size
        return (min(rows, inputs), min(words, outputs)) if outputs else (0, 0)

    def _levels(self, outputs: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        nodes = self._nodes[np.ix_(outputs, inputs)]
        found: np.ndarray = count_levels(nodes, self.alike)
        return found


class Pairs:
    """Crossbars and units, and how far words that a crossbar holds are lacking in a unit."""

    def __init__(self, units: Units, held: np.ndarray, whole_first: bool) -> None:
        """Compares all crossbars with all units.

        Args:
          units: of the layer.
          held: uint16 [crossbars, rows, words of a row], word nodes; looked at again as it changes.
          whole_first: short sections are the last to promise anything.
        """
        self._units, self._held, self._whole_first = units, held, whole_first
        crossbars, number = np.arange(len(held)), np.arange(len(units.inputs))
        self._lacking = np.full((len(held), number.size), np.inf, np.float32)
        self._compare(crossbars, number)

    def update(self, crossbar: int, unit: int, full: bool) -> None:
        """Compares a crossbar and a unit anew, each with all others, after a section.

        Args:
          full: the crossbar takes no more sections of this layer.
        """
        if full:
            self._lacking[crossbar] = np.inf
        else:
            self._compare(np.asarray([crossbar]), np.arange(len(self._units.inputs)))
        open_ones = np.flatnonzero(np.isfinite(self._lacking).any(axis=1))
        self._lacking[:, unit] = np.inf
        self._compare(open_ones, np.asarray([unit]))

    def best(self, most: int) -> list[tuple[int, int]]:
        """Gives so many pairs that lack least, the best first."""
        nearest = self._lacking.min(axis=1)
        # the best pairs are in as many rows as they are
        some = np.sort(np.argpartition(nearest, min(most, nearest.size) - 1)[:most])
        lacking = self._lacking[some]
        first = np.argsort(lacking, axis=None, kind="stable")[:most]
        crossbar, unit = np.unravel_index(first, lacking.shape)
        good = np.isfinite(lacking[crossbar, unit])
        return list(zip(some[crossbar[good]].tolist(), unit[good].tolist(), strict=True))

    def _compare(self, crossbars: np.ndarray, numbers: np.ndarray) -> None:
        units = self._units
        _compare(
            self._held, units.alike, units.counts, units.shape, crossbars, numbers, self._lacking
        )
        if self._whole_first:
            whole = self._held.shape[1] * self._held.shape[2]
            missing = 1 - units.shape[numbers].prod(axis=1) / whole
            self._lacking[np.ix_(crossbars, numbers)] += _SHORT * missing


@numba.njit(cache=True, nogil=True)
def _compare(held, alike, counts, shape, crossbars, numbers, lacking):  # type: ignore[no-untyped-def]
    """Counts what crossbars hold past what units have left, bin by bin, and by the word.

    Args:
      held: uint16 [crossbars, rows, slots].
      alike, counts, shape: of the `Units`.
      crossbars, numbers: int64, of crossbars and units to compare.
      lacking: float32 [crossbars, units], returned.
    """
    for crossbar in crossbars:
        rows, slots = np.int64(0), np.int64(0)
        of_held = np.zeros(1, np.int32)
        for unit in numbers:
            if shape[unit, 0] == 0:
                continue
            # units of one shape meet the same words
            if rows != shape[unit, 0] or slots != shape[unit, 1]:
                rows, slots = shape[unit]
                of_held = count_levels(held[crossbar, :rows, :slots], alike)
            total = 0
            for k in range(of_held.size):
                total += max(0, of_held[k] - counts[unit, k])
            lacking[crossbar, unit] = total / (rows * slots)


@numba.njit(cache=True, nogil=True)
def count_levels(nodes, alike):  # type: ignore[no-untyped-def]
    """Counts words, and those of the same high-order bits, ever fewer.

    Args:
      nodes: uint16, word nodes, of two axes.
      alike: of the `Units`.

    Returns:
      int32 [bins], one resolution after another.
    """
    size = alike.size
    counts = np.zeros(2 * size + 32, np.int32)
    for row in range(nodes.shape[0]):
        for node in nodes[row]:
            counts[alike[node]] += 1
    # bins of twice as many words are sums of two
    first, bins = 0, size
    while bins > 2:
        after = first + bins
        for k in range(bins):
            counts[after + k // 2] += counts[first + k]
        first, bins = after, (bins + 1) // 2
    return counts
