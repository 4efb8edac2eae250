"""Our own policy: every weight goes where the cells already hold nearly the same word."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Shaped

from memsim._checks import check_whole
from memsim.config import MATCHED_BITS, CrossbarConfig
from memsim.placement import Placement
from memsim.policies._matching.share import Share, most_given_up, share_of
from memsim.policies.base import Arrangement, Follow, Held, LayerCodes, Policy, Stuckable
from memsim.policies.sorting import Sws
from memsim.policies.unsorted import Unsorted
from memsim.schedule import layer_schedule

__all__ = ["Matched"]

_MOST_TOLERANCE, _MOST_PRICE = 15, 10**4
# Steps of a layer from which on sections follow in the order of all outputs.
_MANY_STEPS = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matched(Stuckable):
    """Matches the outputs of a layer in Hamming space, each to the one before it.

    Attributes:
      tolerance: codes that a weight may be off by (0 to 15). It saves writes on crossbars that are
        reprogrammed; weight stationary there are none to save.
      price: what one write less makes up for, in squared code errors; by default so much that
        only the tolerance counts.
      pool: weights move within their `output`, or within their `section` of it, or, at `none`,
        inputs keep their order and only outputs take places.
      index: tells of every row its input in a table (`rows`); of every section the number of the
        order of its inputs among all orders of those left (`order`), which is shorter; or of every
        input the word that it has (`words`), shorter still where rows have equal words: they may
        change places, so that their inputs are in order. A controller that knows the words of the
        rows finds the inputs again.
      correction: `mean` takes the mean error that is left in an output off again: a number per
        output, times the sum of its inputs, subtracted digitally. Errors of an output then sum to
        nothing, which is most of what they do to accuracy; its weights may be off by that mean more
        than the tolerance. `none` leaves it. None is `mean` beside a tolerance, else `none`; a
        `mean` that is the default is kept as None, so that policies that do the same are equal.
      negate: `rows` may store the negatives of their weights where those follow better on what is
        held: a bit of each row, shared by its words, and drivers that apply the negative of an
        input; `none` does.
      faults: stuck cells are ignored (`ignore`), or weights go where those of one chip already hold
        the right bits (`avoid`); a weight that none is right for gets the word nearest to it.

    Raises:
      ValueError: a value outside its range or choices; a price, or a correction, where there are no
        errors.

    >>> str(Matched(tolerance=3, price=8)), Matched(tolerance=3).corrects
    ('matched:tolerance=3,price=8', True)
    """

    name: ClassVar[str] = "matched"

    tolerance: int = 0
    price: int | None = None
    pool: Literal["output", "section", "none"] = "output"
    index: Literal["rows", "order", "words"] = "rows"
    correction: Literal["none", "mean", None] = None
    negate: Literal["none", "rows"] = "none"
    faults: Literal["ignore", "avoid"] = "ignore"

    def __post_init__(self) -> None:
        super().__post_init__()
        most = _MOST_TOLERANCE
        check_whole("tolerance", self.tolerance, f"a weight may be 0 to {most} codes off", 0, most)
        exact = not self.tolerance and self.faults == "ignore"
        if self.correction == "mean" and exact:
            raise ValueError(
                "`correction` is 'mean', but `tolerance` is 0 and leaves no errors to correct; "
                "give tolerance, which is corrected by default."
            )
        if self.correction == "mean" and self.tolerance:
            object.__setattr__(self, "correction", None)
        ordered, by_words = self.pool == "none", self.index == "words"
        if (self.index != "rows" and ordered) or (by_words and self.avoids_faults):
            why = "inputs keep their order" if ordered else "rows differ by stuck cells"
            raise ValueError(
                f"`index` is {self.index!r}, but {why}; leave it out, or leave out "
                f"{'pool=none' if ordered else 'faults=avoid'}."
            )
        if self.negate == "rows" and (by_words or ordered):
            raise ValueError(
                "`negate` is 'rows', which takes inputs in any order and an index of them; "
                + ("use index=order." if by_words else "leave out pool=none, or negate=rows.")
            )
        if self.price is None:
            return
        remedy = f"a write makes up for 1 to {_MOST_PRICE} squared code errors"
        check_whole("price", self.price, remedy, 1, _MOST_PRICE)
        if exact:
            raise ValueError(
                f"`price` is {self.price}, but `tolerance` is 0 and leaves no errors to trade for "
                "writes; give tolerance too."
            )

    @property
    def corrects(self) -> bool:
        """Says whether the mean errors of outputs are taken off again."""
        return self.correction == "mean" or (self.correction is None and self.tolerance > 0)

    def check(self, config: CrossbarConfig) -> None:
        """Checks that the words are narrow enough to be looked at in full, where they have to be.

        Raises:
          ValueError: a tolerance, or stuck cells to avoid, on wider words; as `Policy.check`.
        """
        super().check(config)
        wide = config.bits > MATCHED_BITS
        if self.avoids_faults and wide:
            raise ValueError(
                f"`faults` is 'avoid' at {config.bits} `bits`; it takes at most {MATCHED_BITS} "
                "bits."
            )
        if self.avoids_faults and self.pool == "none":
            raise ValueError(
                "`faults` is 'avoid' and `pool` 'none': inputs that stay in their order avoid no "
                "stuck cells; use pool=output or pool=section."
            )
        if self.negate == "rows" and (wide or config.words_per_row == 1):
            found = f"{config.bits} `bits`" if wide else f"{config.columns} `columns`, a word a row"
            raise ValueError(
                f"`negate` is 'rows' on crossbars of {found}; it takes at most {MATCHED_BITS} "
                "bits, and rows of several words (columns=128) that share the bit."
            )
        if self.tolerance and wide:
            raise ValueError(
                f"`tolerance` is {self.tolerance} at {config.bits} `bits`; it takes at most "
                f"{MATCHED_BITS} bits."
            )

    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Places a layer on erased crossbars."""
        arrangement, _ = self.prepare(LayerCodes(codes, "", None), config)({})
        return arrangement.placement

    def prepare(self, layer: LayerCodes, config: CrossbarConfig) -> Follow:
        """Leads weights through all outputs, or chooses each section by what its crossbar holds.

        What that writes is counted, beside what the orders of other policies would, see `anew`.
        """
        from memsim.policies._matching import comparing  # compiles: slow to import

        matched = self._match(layer, config)
        # weight stationary all orders write the same; others do not avoid stuck cells
        if config.crossbars is None or self.avoids_faults or not layer.shapes:
            return matched
        written = {
            order: comparing.written_by(self._in_order(order, layer, config), layer.codes, config)
            for order in ("unsorted", "sws")
        }

        def follow(held: Held) -> tuple[Arrangement, Held]:
            choice = held.get("choice", comparing.Choice())
            if choice.order != "matched":
                return self._in_order(choice.order, layer, config), held
            arrangement, after = matched(held)
            # layers that avoid stuck cells stay as they are, and so does a network that has any
            if choice.final or (layer.number and "written" not in held):
                return arrangement, {**held, **after}
            orders = {"matched": comparing.written_by(arrangement, layer.codes, config)}
            if not held.get("trials"):  # those of the others are known then
                orders |= written
            before = held.get("written", {})
            after["written"] = {
                order: comparing.joined(before.get(order), of_layer, config)
                for order, of_layer in orders.items()
            }
            after["most"] = self._most_given_up(layer, config)
            return arrangement, {**held, **after}

        return follow

    def anew(self, held: Held, config: CrossbarConfig) -> Held | None:
        """Arranges a network anew where `sws` or `unsorted` would write less than it does.

        More crossbars are then shared by all layers, or their order is taken.
        """
        from memsim.policies._matching import comparing  # compiles: slow to import

        return comparing.next_start(held, config)

    def _match(self, layer: LayerCodes, config: CrossbarConfig) -> Follow:
        """Prepares the arrangement of a layer by matching; what is held comes alone."""
        from memsim.policies._matching import lines, sections  # compiles: slow to import

        negates = self.negate == "rows"
        rules = lines.Rules(self.tolerance, self.price, self.pool, self.avoids_faults, negates)
        outputs, inputs = layer.codes.shape
        streamed, several = config.crossbars is not None, (config.crossbars or 1) > 1
        # weight stationary, one crossbar stands for all of them, unless each has stuck cells
        stationary = 1 if layer.stuck is None else len(layer.stuck.at_0)
        crossbars = config.crossbars or stationary
        erased = np.zeros((crossbars, config.rows, config.words_per_row), np.int32)
        if self._by_crossbar(inputs, outputs, config):

            def fill(held: Held) -> tuple[Arrangement, Held]:
                before = held.get("", erased) if streamed else erased
                share = self._share(layer, crossbars, config, held)
                filled = sections.fill_sections(
                    layer.codes, before, config, rules, share, layer.stuck
                )
                arrangement = Arrangement(
                    filled.placement,
                    filled.delta,
                    self._correction(filled.error),
                    crossbars=filled.crossbars if several else None,
                    negated=filled.negated if negates else None,
                )
                return self._indexed(arrangement, layer.codes, config), {"": filled.held}

            return fill
        led = lines.lead_through_outputs(layer.codes, config, rules, layer.stuck)

        def follow(held: Held) -> tuple[Arrangement, Held]:
            # the first crossbar's content stands for all of them, in the words of the graph
            before = held.get("", erased)
            placement, delta, error, last = lines.arrange(led, before[0, :, 0], config, rules)
            after = last[None, :, None]
            if several:
                after = sections.held_after(placement, layer.codes, delta, before, config, rules)
            if self.avoids_faults:  # says so: what is held is not always what is programmed
                delta = delta.astype(np.int16)
            arrangement = Arrangement(placement, delta, self._correction(error))
            return self._indexed(arrangement, layer.codes, config), {"": after}

        return follow

    def _in_order(self, order: str, layer: LayerCodes, config: CrossbarConfig) -> Arrangement:
        """Arranges a layer in the order of another policy, in the form of its own arrangements."""
        outputs, inputs = layer.codes.shape
        # inputs are sorted where they may move so far
        near = self.pool == "section" and inputs <= config.rows
        sorts = order == "sws" and (self.pool == "output" or near)
        placement = (Sws() if sorts else Unsorted()).place(layer.codes, config)
        # rows are told as its own are, but none is negated
        plain = dataclasses.replace(self, negate="none")
        crossbars = None
        if (config.crossbars or 1) > 1 and self._by_crossbar(inputs, outputs, config):
            schedule = layer_schedule(len(placement.weights), config)
            crossbars = (schedule.slots % schedule.sections.shape[1]).astype(np.int32)
        arrangement = Arrangement(
            placement,
            np.zeros(layer.codes.size, np.int8),
            self._correction(np.zeros(outputs)),
            crossbars=crossbars,
            index_bits=plain._row_bits(inputs, outputs, config) if sorts else 0.0,
        )
        return self._indexed(arrangement, layer.codes, config) if sorts else arrangement

    def _indexed(
        self, arrangement: Arrangement, codes: np.ndarray, config: CrossbarConfig
    ) -> Arrangement:
        """Lets the words tell which input a row has, if that is asked for."""
        if self.index != "words":
            return arrangement
        from memsim.policies._matching.word_index import index_by_words  # imports SciPy

        outputs, inputs = codes.shape
        programmed = codes.astype(np.int32)
        if arrangement.delta is not None:
            programmed = programmed + np.asarray(arrangement.delta).reshape(codes.shape)
        apart = self.pool == "section"
        placement, bits = index_by_words(
            arrangement.placement, programmed, config, sections_apart=apart
        )
        # those of the rows in place of those of a table, the others as they are
        beside = 0.0
        if arrangement.index_bits is None:
            beside = self.index_bits(inputs, outputs, config)
            beside -= self._row_bits(inputs, outputs, config)
        return arrangement._replace(placement=placement, index_bits=bits / codes.size + beside)

    def _by_crossbar(self, inputs: int, outputs: int, config: CrossbarConfig) -> bool:
        """Says whether sections of a layer are chosen by what each crossbar holds.

        Otherwise they follow one another in the order of all outputs, which takes less planning and
        is as good where many of them follow on one crossbar.
        """
        if config.words_per_row > 1 or self.pool == "none":
            return True
        if config.crossbars is None or (self.avoids_faults and config.crossbars == 1):
            return False
        return -(-inputs // config.rows) * outputs < _MANY_STEPS * config.crossbars

    def _share(
        self, layer: LayerCodes, crossbars: int, config: CrossbarConfig, held: Held
    ) -> Share:
        """Gives the crossbars that a layer takes, of so many."""
        counts = self._counts(layer, config)
        if config.crossbars is None or not counts:
            return Share(crossbars, crossbars, 0)
        if "choice" not in held:
            return share_of(layer.number, counts, crossbars)
        _, given_up, keeps_whole, _ = held["choice"]
        share = share_of(layer.number, counts, crossbars, given_up)
        return share._replace(keeps_whole=keeps_whole)

    def _most_given_up(self, layer: LayerCodes, config: CrossbarConfig) -> int:
        """Counts the crossbars that the layers of a network keep, and could share."""
        counts = self._counts(layer, config)
        return most_given_up(counts, config.crossbars or 1) if counts else 0

    def _counts(self, layer: LayerCodes, config: CrossbarConfig) -> list[int]:
        """Counts the sections of all layers, if those of all are chosen by what crossbars hold."""
        if not all(self._by_crossbar(*one, config) for one in layer.shapes):
            return []
        words = config.words_per_row
        return [-(-n // config.rows) * -(-m // words) for n, m in layer.shapes]

    def _correction(self, error: np.ndarray) -> np.ndarray | None:
        """Gives the correction of mean errors, if outputs have one."""
        if not self.corrects:
            return None
        # 8 of its 16 bits are a fraction
        return np.asarray(np.rint(256 * error) / 256, np.float32)

    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Takes the row of every weight, the order of the outputs and 16 bits for a correction.

        On wide crossbars the words of a row share its index and the bit that says whether it is
        negated, and each section says which output is in which of its slots.
        """
        of_rows = self._row_bits(inputs, outputs, config)
        of_order: float = (outputs - 1).bit_length()
        if self._by_crossbar(inputs, outputs, config):
            # of each slot of a section its output, of each section its crossbar and its pool
            groups, sections = -(-outputs // config.words_per_row), -(-inputs // config.rows)
            of_section = ((config.crossbars or 1) - 1).bit_length()
            if self.pool != "output":
                of_section += (sections - 1).bit_length()
            of_order = (of_order + of_section * groups / outputs) * sections
        return of_rows + (of_order + (16 if self.corrects else 0)) / inputs

    def _row_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Takes the input of every row, shared by its words, as a table or an order has it."""
        pool = {"output": inputs, "section": min(config.rows, inputs), "none": 1}[self.pool]
        shared = 1.0
        if self._by_crossbar(inputs, outputs, config):
            shared = -(-outputs // config.words_per_row) / outputs
        of_row: float = (pool - 1).bit_length()
        if self.index == "order":
            of_row = 0
            for start in range(0, inputs, config.rows):
                rows = min(config.rows, inputs - start)
                left = rows if self.pool == "section" else inputs - start
                of_row += _bits_of_order(rows, left) / inputs
        return (of_row + (self.negate == "rows")) * shared

    @property
    def avoids_faults(self) -> bool:
        """Says whether it is planned for one chip, whose stuck cells it avoids."""
        return self.faults == "avoid"

    def at_price(self, price: float, config: CrossbarConfig) -> Policy:
        """Gives the tolerance that a price pays for: an error saves hardly more than two writes."""
        whole = min(round(price), _MOST_PRICE)
        if whole == 0:
            return dataclasses.replace(self, tolerance=0, price=None)
        tolerance = min(math.isqrt(2 * whole), _MOST_TOLERANCE)
        return dataclasses.replace(self, tolerance=tolerance, price=whole)


def _bits_of_order(rows: int, inputs: int) -> int:
    """Counts the bits that number the ways to put so many of some inputs in rows, in order."""
    ways = math.lgamma(inputs + 1) - math.lgamma(inputs - rows + 1)
    return math.ceil(ways / math.log(2) - 1e-9)
