"""What a crossbar is (`CrossbarConfig`) and how it is programmed (`Policy`)."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")
SCHEDULES = ("block", "interleaved")
SCALES = ("tensor", "output")
# The published competitors take no bit stucking.
COMPETITORS = ("flip-n-write", "aras")
STUCKABLE = ("unsorted", "sws", "sws-layer", "matched")
POLICIES = (*STUCKABLE, *COMPETITORS)
FLAGS = ("none", "word", "section")
POOLS = ("output", "section")
CORRECTIONS = ("none", "mean")
FAULTS = ("ignore", "avoid")
# Matching in Hamming space works on words of up to so many bits; wider ones by their high order.
# The offsets of `aras` are searched up to there.
MATCHED_BITS = 10
DRAWS = ("fresh", "fixed")


def _choose(argument: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{argument}` is {value!r}; choose one of {listed}.")


def _whole(argument: str, value: Any, low: int, high: float, remedy: str) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise ValueError(f"`{argument}` is {value!r}; {remedy}.")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossbarConfig:
    """The crossbars of an accelerator. Hashable, and a pytree without leaves: static under `jit`.

    Attributes:
      rows: weights per section, that is rows per crossbar.
      bits: precision of a weight, its sign included (2 to 16).
      cell_bits: bits stored in one cell (1, 2 or 4). A word is cut into cells from its low end.
      encoding: how a signed code becomes a word, one of `ENCODINGS`.
      crossbars: physical crossbars, shared by all layers one after another; None is weight
        stationary, one crossbar for every section of the network.
      schedule: `block` gives each crossbar consecutive sections, `interleaved` deals them in turn.
      scale_per: one quantization scale per `tensor` or per `output` of it.
      flags: flag cells beside the weights, set by the policy (`Policy.stored_on`): one per `word`,
        in a column above all others, or one per column of a `section`, in a row after the others.

    Raises:
      ValueError: a value outside its range or choices; no bit left for the flag of a word.
    """

    rows: int = 128
    bits: int = 8
    cell_bits: int = 1
    encoding: str = "twos_complement"
    crossbars: int | None = 1
    schedule: str = "block"
    scale_per: str = "tensor"
    flags: str = "none"

    def __post_init__(self) -> None:
        _whole("rows", self.rows, 1, math.inf, "a crossbar has at least 1 row")
        _whole("bits", self.bits, 2, 16, "a weight has 2 to 16 bits, its sign included")
        _choose("cell_bits", self.cell_bits, (1, 2, 4))
        _choose("encoding", self.encoding, ENCODINGS)
        if self.crossbars is not None:
            remedy = "give a number from 1, or None (command line: all) for weight stationary"
            _whole("crossbars", self.crossbars, 1, math.inf, remedy)
        _choose("schedule", self.schedule, SCHEDULES)
        _choose("scale_per", self.scale_per, SCALES)
        _choose("flags", self.flags, FLAGS)
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
    def max_code(self) -> int:
        """Largest code: codes lie in -max_code..max_code."""
        return 2 ** (self.bits - 1) - 1

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
    def columns(self) -> int:
        """Cells per word, its flag included."""
        return len(self.column_masks)

    @property
    def column_masks(self) -> tuple[int, ...]:
        """The bits of a word that each column holds, column 0 first."""
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
        """What one level of each column counts in a code, column 0 first.

        A top column that holds a sign alone counts `-2**(bits - 1)` in `twos_complement` and 0 in
        `sign_magnitude` (it flips the others). Where wider cells put magnitude bits beside the
        sign, the weight is that of the lowest bit and the level is read as a signed digit. A flag
        counts 0.
        """
        if self.flags == "word":
            return (*self.unflagged.column_weights, 0)
        lowest = [mask & -mask for mask in self.column_masks]
        if self.encoding == "differential":
            half = self.columns // 2
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
        """The bits of a word in its low-order columns (of each half if differential)."""
        masks = self.unflagged.column_masks
        per_half = len(masks) // len(self.halves)
        return sum(mask for column, mask in enumerate(masks) if column % per_half < low_columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A programming policy: the order weights are programmed in, and which cells are left alone.

    Attributes:
      placement: `unsorted`, `sws` (sorted weight sectioning, within each output), `sws-layer`
        (sorted over the whole layer: not analog-valid), `matched` (matched in Hamming space);
        `flip-n-write` and `aras` place as `unsorted` and store complements, or words shifted by an
        offset per layer.
      low_columns: bit stucking touches columns 0..low_columns - 1; 0 switches it off.
      reprogram: p, the probability that such a cell is reprogrammed when its section is.
      draws: bit stucking drawn at every programming (`fresh`) or once per physical cell (`fixed`).
      tolerance: `matched` may leave a weight up to so many codes off (0 to 15). It saves writes on
        crossbars that are reprogrammed; weight stationary there are none to save.
      price: what `matched` gives for one write less, in squared code errors; by default so much
        that only the tolerance counts.
      pool: `matched` moves weights within their `output`, or within their `section` of it.
      correction: `mean` takes the mean error that a tolerance leaves in an output off again: a
        number per output, times the sum of its inputs, subtracted digitally. Errors of an output
        then sum to nothing, which is most of what they do to accuracy; its weights may be off by
        that mean more than the tolerance.
      flags: `flip-n-write` keeps a flag per `word`, as published, or per column of a `section`,
        whose analog sums can be corrected.
      faults: `matched` is blind to stuck cells (`ignore`), or puts weights where the stuck cells of
        one chip already hold the right bits (`avoid`); a weight that none is right for gets the
        word nearest to it.

    Raises:
      ValueError: a value outside its range or choices.

    References:
      Farias and Kung, Efficient Reprogramming of Memristive Crossbars for DNNs: Weight Sorting
      and Bit Stucking, arXiv 2410.21730. For the competitors see `memsim/competitors.py`.
    """

    placement: str = "unsorted"
    low_columns: int = 0
    reprogram: float = 1.0
    draws: str = "fresh"
    tolerance: int = 0
    price: int | None = None
    pool: str = "output"
    correction: str = "none"
    flags: str = "word"
    faults: str = "ignore"

    def __post_init__(self) -> None:
        _choose("policy", self.placement, POLICIES)
        _choose("pool", self.pool, POOLS)
        _choose("correction", self.correction, CORRECTIONS)
        _choose("faults", self.faults, FAULTS)
        _whole("tolerance", self.tolerance, 0, 15, "a weight may be 0 to 15 codes off")
        if self.price is not None:
            _whole("price", self.price, 1, 10**4, "a write is worth 1 to 10000 squared code errors")
        plain = (self.pool, self.correction, self.faults) == ("output", "none", "ignore")
        if self.placement != "matched" and (self.tolerance or self.price or not plain):
            raise ValueError(
                f"`policy` {self.placement} takes no tolerance, price, pool, correction or faults; "
                "matched does."
            )
        _choose("flags", self.flags, FLAGS[1:])
        if self.placement != "flip-n-write" and self.flags != "word":
            raise ValueError(f"`policy` {self.placement} takes no flags; flip-n-write does.")
        _whole("low", self.low_columns, 0, 16, "bit stucking takes 0 to `bits` low columns")
        if self.placement in COMPETITORS and self.low_columns:
            raise ValueError(
                f"`low` is {self.low_columns}, but {self.placement} takes no bit stucking; use "
                f"low=0, or one of {', '.join(STUCKABLE)}."
            )
        if not 0.0 <= self.reprogram <= 1.0:  # also refuses NaN
            raise ValueError(f"`p` is {self.reprogram!r}; a probability lies in 0..1.")
        _choose("draws", self.draws, DRAWS)

    @classmethod
    def unsorted(
        cls, low_columns: int = 0, reprogram: float = 1.0, draws: str = "fresh"
    ) -> "Policy":
        """Output by output, inputs in their own order: the baseline."""
        return cls(low_columns=low_columns, reprogram=reprogram, draws=draws)

    @classmethod
    def sws(cls, low_columns: int = 0, reprogram: float = 1.0, draws: str = "fresh") -> "Policy":
        """Sorted weight sectioning within each output."""
        return cls(placement="sws", low_columns=low_columns, reprogram=reprogram, draws=draws)

    @classmethod
    def sws_layer(
        cls, low_columns: int = 0, reprogram: float = 1.0, draws: str = "fresh"
    ) -> "Policy":
        """Sorted over the whole layer; not analog-valid."""
        return cls(placement="sws-layer", low_columns=low_columns, reprogram=reprogram, draws=draws)

    @classmethod
    def matched(cls, tolerance: int = 0, price: int | None = None, **options: Any) -> "Policy":
        """Matched in Hamming space, within a tolerance; `options` are the other attributes."""
        return cls(placement="matched", tolerance=tolerance, price=price, **options)

    @classmethod
    def flip_n_write(cls, flags: str = "word") -> "Policy":
        """Flip-N-Write: complements are stored where that takes fewer writes."""
        return cls(placement="flip-n-write", flags=flags)

    @classmethod
    def aras(cls) -> "Policy":
        """ARAS-style: the words of each layer shifted by the offset that takes fewest writes."""
        return cls(placement="aras")

    @property
    def settles(self) -> bool:
        """Whether a layer is planned on what the layers before it left on the crossbars."""
        return self.placement in ("matched", *COMPETITORS)

    def stored_on(self, config: CrossbarConfig) -> CrossbarConfig:
        """The config with the flag cells that this policy needs, and no others."""
        flags = self.flags if self.placement == "flip-n-write" else "none"
        return dataclasses.replace(config, flags=flags)

    @property
    def placing(self) -> "Policy":
        """The policy without its bit stucking: all that decides on placements."""
        return dataclasses.replace(self, low_columns=0, reprogram=1.0, draws="fresh")

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Reads `sws`, `sws-layer+stuck:p=0.5,low=3,draws=fixed`, `matched:tolerance=3,price=8`,
        `matched:faults=avoid`, `matched+stuck:p=0.5,low=1,pool=section` or
        `flip-n-write:flags=section`.

        Raises:
          ValueError: an unknown policy or option, or a value that is not a number.
        """
        name, _, options = text.strip().partition(":")
        placement, plus, technique = name.partition("+")
        stuckable = placement in STUCKABLE and technique == "stuck"
        if placement not in POLICIES or (plus and not stuckable):
            stucked = (f"{policy}+stuck" for policy in STUCKABLE)
            known = ", ".join((*STUCKABLE, *stucked, *COMPETITORS))
            raise ValueError(f"`policy` is {text!r}; choose one of {known}.")
        given = dict(part.partition("=")[::2] for part in options.split(",") if part)
        if plus and not {"p", "low"} <= set(given):
            raise ValueError(f"`policy` is {text!r}; give p and low, as in {name}:p=0.5,low=3.")
        takes = ["p", "low", "draws"] if plus else []
        if placement == "matched":
            takes += ["tolerance", "price", "pool", "correction", "faults"]
        takes += ["flags"] if placement == "flip-n-write" else []
        if set(given) - set(takes):
            stuck = f" ({placement}+stuck does)" if placement in STUCKABLE else ""
            what = ", ".join(takes) or f"no options{stuck}"
            raise ValueError(f"`policy` is {text!r}; {name} takes {what}.")
        names = {"p": "reprogram", "low": "low_columns"}
        reads: dict[str, Any] = {"p": float}
        reads |= dict.fromkeys(("draws", "pool", "correction", "faults", "flags"), str)
        read: dict[str, Any] = {}
        try:
            for key, value in given.items():
                read[names.get(key, key)] = reads.get(key, int)(value)
        except ValueError as error:
            what = "a number" if key == "p" else "a whole number"
            raise ValueError(f"`policy` is {text!r}; {key} is {value!r}, give {what}.") from error
        return cls(placement=placement, **read)

    def __str__(self) -> str:
        """The text that `parse` reads back."""
        options = []
        if self.low_columns:
            options += [f"p={float(self.reprogram)!r}", f"low={self.low_columns}"]
            options += [] if self.draws == "fresh" else [f"draws={self.draws}"]
        options += [f"tolerance={self.tolerance}"] if self.tolerance else []
        options += [] if self.price is None else [f"price={self.price}"]
        options += [] if self.pool == "output" else [f"pool={self.pool}"]
        options += [] if self.correction == "none" else [f"correction={self.correction}"]
        options += [] if self.flags == "word" else [f"flags={self.flags}"]
        options += [] if self.faults == "ignore" else [f"faults={self.faults}"]
        name = f"{self.placement}+stuck" if self.low_columns else self.placement
        return f"{name}:{','.join(options)}" if options else name


def validate(config: CrossbarConfig, policy: Policy) -> None:
    """Checks what neither can check alone.

    Raises:
      ValueError: bit stucking of more columns than the weight has bits; a tolerance, or stuck cells
        to avoid, on words wider than `matched` looks at in full; `aras` on words that are not
        unsigned, or wider ones.
    """
    if policy.placement == "aras" and config.encoding not in ("twos_complement", "offset_binary"):
        raise ValueError(
            f"`encoding` is {config.encoding!r}, but aras stores unsigned words; use "
            "'twos_complement' or 'offset_binary'."
        )
    if policy.placement == "aras" and config.bits > MATCHED_BITS:
        raise ValueError(
            f"`bits` is {config.bits}, but aras searches offsets of words of at most "
            f"{MATCHED_BITS} bits; use fewer."
        )
    if policy.faults == "avoid" and config.bits > MATCHED_BITS:
        raise ValueError(
            f"`faults` is 'avoid' at {config.bits} `bits`; it takes at most {MATCHED_BITS} bits."
        )
    if policy.tolerance and config.bits > MATCHED_BITS:
        raise ValueError(
            f"`tolerance` is {policy.tolerance} at {config.bits} `bits`; it takes at most "
            f"{MATCHED_BITS} bits."
        )
    if policy.low_columns > config.bits:
        raise ValueError(
            f"`low` is {policy.low_columns}, more than the {config.bits} `bits` of a weight; "
            f"use low <= {config.bits}."
        )
