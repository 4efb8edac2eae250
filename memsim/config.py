"""The description of crossbars: `CrossbarConfig`."""

import dataclasses
import math
import typing
from typing import Literal

import jax
import numpy as np

from memsim._checks import check_choice, check_whole

__all__ = ["ENCODINGS", "SCHEDULES", "CrossbarConfig", "Encoding", "ScalePer", "Schedule"]

Encoding = Literal["twos_complement", "offset_binary", "sign_magnitude", "differential"]
Schedule = Literal["block", "interleaved"]
ScalePer = Literal["tensor", "output"]
Flags = Literal["none", "word", "section"]
ENCODINGS: tuple[Encoding, ...] = typing.get_args(Encoding)
SCHEDULES: tuple[Schedule, ...] = typing.get_args(Schedule)
SCALES: tuple[ScalePer, ...] = typing.get_args(ScalePer)
FLAGS: tuple[Flags, ...] = typing.get_args(Flags)
# Matching in Hamming space works on words of up to so many bits; wider ones by their high order.
# The offsets of `aras` are searched up to there.
MATCHED_BITS = 10


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossbarConfig:
    """The crossbars of an accelerator. Hashable, and a pytree without leaves: static under `jit`.

    Attributes:
      rows: rows of a crossbar, so inputs of a section.
      columns: bit lines of a crossbar. The words that stand side by side in a row share its input:
        they are weights of one input and of as many outputs. None is the published model, an array
        one word wide, in which every output has input lines of its own.
      bits: precision of a weight, its sign included (2 to 16).
      cell_bits: bits stored in one cell (1, 2 or 4). A word is cut into cells from its low end.
      encoding: how a signed code becomes a word, one of `ENCODINGS`.
      crossbars: physical crossbars, shared by all layers one after another; None is weight
        stationary, one crossbar for every section of the network.
      schedule: `block` gives each crossbar consecutive sections, `interleaved` deals them in turn.
      scale_per: one quantization scale per `tensor` or per `output` of it.
      flags: flag cells beside the weights, set by the policy (its `stored_on`): one per `word`,
        in a column above all others, or one per column of a `section`, in a row after the others.

    Raises:
      ValueError: a value outside its range or choices; fewer columns than a word has cells; no bit
        left for the flag of a word.

    >>> CrossbarConfig(columns=128).words_per_row
    16
    """

    rows: int = 128
    columns: int | None = None
    bits: int = 8
    cell_bits: int = 1
    encoding: Encoding = "twos_complement"
    crossbars: int | None = 1
    schedule: Schedule = "block"
    scale_per: ScalePer = "tensor"
    flags: Flags = "none"

    def __post_init__(self) -> None:
        check_whole("rows", self.rows, "a crossbar has at least 1 row, a whole number", 1)
        check_whole("bits", self.bits, "a weight has 2 to 16 bits, its sign included", 2, 16)
        check_choice("cell_bits", self.cell_bits, (1, 2, 4))
        check_choice("encoding", self.encoding, ENCODINGS)
        if self.crossbars is not None:
            remedy = "give a number from 1, or None (command line: all) for weight stationary"
            check_whole("crossbars", self.crossbars, remedy, 1)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("scale_per", self.scale_per, SCALES)
        check_choice("flags", self.flags, FLAGS)
        if self.columns is not None:
            remedy = "give the bit lines of a crossbar, or None for those of one word"
            check_whole("columns", self.columns, remedy, 1, 2**16)
            if self.columns < self.cells_per_word:
                raise ValueError(
                    f"`columns` is {self.columns}, fewer than the {self.cells_per_word} cells of a "
                    "word; give more, or fewer bits."
                )
        if max(self.column_masks).bit_length() > 32:
            raise ValueError(
                f"`flags` is 'word', but differential words of {self.bits} bits in cells of "
                f"{self.cell_bits} leave no bit of 32 for it; use flags=section or fewer bits."
            )

    @property
    def unflagged(self) -> "CrossbarConfig":
        """The same crossbars without flag cells."""
        return dataclasses.replace(self, flags="none")

    @property
    def physical_rows(self) -> int:
        """Rows of a crossbar, that of the flags included."""
        return self.rows + (self.flags == "section")

    @property
    def words_per_row(self) -> int:
        """Words side by side in a row of a crossbar; they share its input."""
        return 1 if self.columns is None else self.columns // self.cells_per_word

    @property
    def words(self) -> int:
        """Words of a crossbar that hold weights."""
        return self.rows * self.words_per_row

    @property
    def physical_words(self) -> int:
        """Words of a crossbar, those of a row of flags included."""
        return self.physical_rows * self.words_per_row

    @property
    def bit_lines(self) -> int:
        """Columns of a crossbar, idle ones included: those that are too few for another word."""
        return self.cells_per_word if self.columns is None else self.columns

    @property
    def max_code(self) -> int:
        """Largest code: codes lie in -max_code..max_code."""
        largest: int = 2 ** (self.bits - 1) - 1
        return largest

    @property
    def min_code(self) -> int:
        """Lowest code that a word can hold: below -max_code where an encoding has one word more."""
        return -self.max_code - (self.encoding in ("twos_complement", "offset_binary"))

    @property
    def halves(self) -> tuple[tuple[int, int], ...]:
        """(first bit, bits) of each part of a word that is sliced apart: two if differential."""
        if self.encoding != "differential":
            return ((0, self.bits),)
        columns = math.ceil((self.bits - 1) / self.cell_bits)
        return ((0, self.bits - 1), (columns * self.cell_bits, self.bits - 1))

    @property
    def cells_per_word(self) -> int:
        """The number of cells of a word, its flag included."""
        return len(self.column_masks)

    @property
    def column_masks(self) -> tuple[int, ...]:
        """The bits of a word that each of its columns holds, column 0 first."""
        masks = []
        for first, bits in self.halves:
            for low in range(first, first + bits, self.cell_bits):
                width = min(self.cell_bits, first + bits - low)
                masks.append(((1 << width) - 1) << low)
        if self.flags == "word":  # above the room of a whole cell: shifts within cells miss it
            masks.append(1 << (len(masks) * self.cell_bits))
        return tuple(masks)

    @property
    def column_weights(self) -> tuple[int, ...]:
        """Weights of the columns: how much one level of each counts in a code, column 0 first.

        A top column that holds a sign alone counts `-2**(bits - 1)` in `twos_complement` and 0 in
        `sign_magnitude` (it flips the others). Where wider cells put magnitude bits beside the
        sign, the weight is that of the lowest bit and the level is read as a signed digit. A flag
        counts 0.
        """
        if self.flags == "word":
            return (*self.unflagged.column_weights, 0)
        lowest = [mask & -mask for mask in self.column_masks]
        if self.encoding == "differential":
            half = self.cells_per_word // 2
            return (*lowest[:half], *(-weight for weight in lowest[:half]))
        sign_alone = self.column_masks[-1] == 1 << (self.bits - 1)
        if self.encoding == "twos_complement" and sign_alone:
            lowest[-1] = -lowest[-1]
        if self.encoding == "sign_magnitude" and sign_alone:
            lowest[-1] = 0
        return tuple(lowest)

    @property
    def word_dtype(self) -> np.dtype:
        """Smallest unsigned dtype that holds a word."""
        bits = max(self.column_masks).bit_length()
        return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)

    @property
    def code_dtype(self) -> np.dtype:
        """Smallest signed dtype that holds every code a word can stand for."""
        return np.dtype(np.int8 if self.bits <= 8 else np.int16)

    def low_mask(self, low_columns: int) -> int:
        """Gives the bits of a word in its low-order columns (of each half if differential)."""
        masks = self.unflagged.column_masks
        per_half = len(masks) // len(self.halves)
        return sum(mask for column, mask in enumerate(masks) if column % per_half < low_columns)
