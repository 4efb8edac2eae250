"""The protocol that every programming policy follows: the library's own, and yours.

A policy is a small frozen value. It says which weight is programmed where, what is stored in place
of its word, how layers follow one another on the crossbars, how many index bits that takes, and
whether the sums of sections stay meaningful. A policy of your own is a class of a few lines:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Magnitude(memsim.policies.Stuckable):
        def place(self, codes, config):
            words = config.words_per_row
            return memsim.policies.sorted_placement(np.abs(codes), config.rows, words=words)

        def index_bits(self, inputs, outputs, config):
            rows = -(-outputs // config.words_per_row) / outputs  # of each weight
            return (inputs - 1).bit_length() * rows

It works in `plan`, `program`, `compare` and sweeps, and on the command line by its module and
name, `--policy my_module:Magnitude`; its fields are the words of its text, as in
`my_module:Magnitude:p=0.5,low=3`.
"""

from __future__ import annotations

import abc
import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped, UInt

from memsim._checks import check_choice, check_kind, check_number, check_whole
from memsim._words import import_class, made_of, read_words, words_of, written_word
from memsim.chip import Stuck
from memsim.codes import AnyArray
from memsim.config import CrossbarConfig
from memsim.placement import Placement
from memsim.writing import Writing, never_fails

__all__ = [
    "Arrangement",
    "BitStucking",
    "Draws",
    "Follow",
    "Held",
    "LayerCodes",
    "Policy",
    "Stuckable",
    "chips_differ",
    "words_of",
]

Draws = Literal["fresh", "fixed"]


class BitStucking(NamedTuple):
    """The low-order cells that a policy leaves alone.

    Attributes:
      p: probability that such a cell is reprogrammed when its section is.
      low: low-order columns that it concerns; 0 switches it off.
      draws: drawn at every programming (`fresh`), or once per physical cell (`fixed`).
    """

    p: float = 1.0
    low: int = 0
    draws: Draws = "fresh"

    @property
    def drawn(self) -> bool:
        """Says whether chance decides anything, so that chips differ."""
        return self.low > 0 and self.p < 1


class LayerCodes(NamedTuple):
    """One layer, as a policy sees it.

    Attributes:
      codes: signed integers [outputs, inputs].
      pool: name of the crossbars that the layer is programmed on: layers of one pool follow each
        other there; weight stationary, every layer has a pool of its own.
      stuck: the stuck cells of these crossbars; None where none are known.
      shapes: (inputs, outputs) of all layers of the network in the order of programming; empty
        where they are not known.
      number: place of this one among them.
    """

    codes: Shaped[np.ndarray, "outputs inputs"]
    pool: str
    stuck: Stuck | None
    shapes: tuple[tuple[int, int], ...] = ()
    number: int = 0


class Arrangement(NamedTuple):
    """The places that the weights of a layer take, and what is stored there.

    Attributes:
      placement: which weight sits in which (section, word).
      delta: int8 or int16 [weights], what is added to each code before it is encoded.
      correction: float32 [outputs], what is taken off the codes of each output again, digitally.
      flips: words [sections, words], or [sections, words of a row] for flags of sections: the bits
        that are stored complemented.
      offset: int32, what is added to every code and subtracted from what is read.
      crossbars: int32 [sections], of each section, no more on one than layers have steps; None
        leaves it to the schedule.
      negated: bool [sections, rows], rows that store negatives, and are driven by that of an input.
      index_bits: per weight, where it is not `Policy.index_bits`: weights may tell a part of it.
    """

    placement: Placement
    delta: Shaped[AnyArray, " weights"] | None = None
    correction: Float32[AnyArray, " outputs"] | None = None
    flips: UInt[AnyArray, "sections _"] | None = None
    offset: Int32[AnyArray, ""] | None = None
    crossbars: Int32[AnyArray, " sections"] | None = None
    negated: Bool[AnyArray, "sections rows"] | None = None
    index_bits: float | None = None


Held = dict[str, Any]
"""What the layers so far left on pools of crossbars, in a form of the policy's own."""
Follow = Callable[[Held], tuple[Arrangement, Held]]
"""The rest of the work on a layer, once it is known what the layers before it left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy(abc.ABC):
    """A programming policy: the base of all. Hashable; its fields are the words of its text.

    A subclass says at least `place` and `index_bits`; the other methods have defaults that hold for
    a policy that only orders weights. Fields of a `Literal` type are checked where it is made.

    Attributes:
      name: what its text starts with; by default `module:Class`.
      uses_codes: whether places depend on the codes; where not, nothing is quantized to plan.
      recodes: whether weights keep their own order and it is chosen what to store in place of their
        words, given what crossbars hold, an older network included.
    """

    name: ClassVar[str] = ""
    uses_codes: ClassVar[bool] = True
    recodes: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Names a policy from outside the library by where it can be imported."""
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    def __post_init__(self) -> None:
        for word, kind in words_of(type(self)).items():
            if typing.get_origin(kind) is Literal:
                check_choice(word, getattr(self, word), typing.get_args(kind))

    # What a policy must say.

    @abc.abstractmethod
    def place(
        self, codes: Shaped[np.ndarray, "outputs inputs"], config: CrossbarConfig
    ) -> Placement:
        """Fills the sections of one layer.

        Args:
          codes: signed integers; read only.
          config: the crossbars, with the flag cells of `stored_on`.
        """

    @abc.abstractmethod
    def index_bits(self, inputs: int, outputs: int, config: CrossbarConfig) -> float:
        """Counts the bits of routing memory per weight that a layer's placement takes."""

    # What it may say besides.

    def analog_valid(self, outputs: int) -> bool:
        """Says whether every section holds weights of one output only, so that its sum is one."""
        return True

    def check(self, config: CrossbarConfig) -> None:
        """Checks what neither the policy nor the config can check alone.

        Raises:
          ValueError: they do not go together.
        """
        low = self.stucking.low
        if low > config.bits:
            raise ValueError(
                f"`low` is {low}, more than the {config.bits} `bits` of a weight; "
                f"use low <= {config.bits}."
            )

    def stored_on(self, config: CrossbarConfig) -> CrossbarConfig:
        """Gives the config with the flag cells that this policy needs, and no others."""
        return config.unflagged

    def prepare(self, layer: LayerCodes, config: CrossbarConfig) -> Follow:
        """Starts the work on a layer that needs no other; layers are prepared side by side.

        Args:
          layer: its codes and crossbars.
          config: with flag cells.

        Returns:
          What does the rest, called in the order of programming: given what the layers before
          left, the arrangement of this one and what is held after it.
        """
        placement = self.place(layer.codes, config)
        return lambda held: (Arrangement(placement), held)

    def anew(self, held: Held, config: CrossbarConfig) -> Held | None:
        """Gives what a network starts from to be arranged once more; None keeps it as it is."""
        return None

    def at_price(self, price: float, config: CrossbarConfig) -> "Policy":
        """Gives the policy of a layer where a write less makes up for `price` squared code errors.

        It is how `budget` shares out errors.

        Raises:
          ValueError: the policy makes no errors to share out.
        """
        raise ValueError(
            f"`policy` {self} has nothing to share out; give matched, or a p below 1 as in "
            "sws+stuck:p=0.5,low=1."
        )

    # What follows from these.

    @property
    def stucking(self) -> BitStucking:
        """Its bit stucking."""
        return BitStucking()

    @property
    def placing(self) -> "Policy":
        """The policy without its bit stucking: all that decides on placements."""
        return self

    @property
    def avoids_faults(self) -> bool:
        """Says whether it is planned for one chip, whose stuck cells it avoids."""
        return False

    @property
    def follows(self) -> bool:
        """Says whether a layer is arranged by what the layers before it left on the crossbars."""
        return type(self).prepare is not Policy.prepare

    @staticmethod
    def parse(text: str) -> "Policy":
        """Reads the text of a policy: its name, then words as they are in Python.

        `sws`, `sws-layer+stuck:p=0.5,low=3,draws=fixed`, `matched:tolerance=3,price=8`,
        `flip-n-write:flags=section`; a class of yours is `module:Class`, or
        `module:Class:word=value`, looked for in the present folder too.

        Raises:
          ValueError: an unknown policy or word, or a value of another kind.
        """
        check_kind("policy", text, str, "give a text such as 'sws+stuck:p=0.5,low=3'")
        name, options = _split(text.strip())
        base, plus, technique = name.partition("+")
        kind = _imported(base) if ":" in base else _library().get(base)
        if kind is None or (plus and not (technique == "stuck" and issubclass(kind, Stuckable))):
            raise ValueError(f"`policy` is {text!r}; choose one of {', '.join(_known_names())}.")
        takes = words_of(kind)
        if issubclass(kind, Stuckable) and not plus and ":" not in base:
            takes = {word: of for word, of in takes.items() if word not in BitStucking._fields}
            if options and not takes:
                raise ValueError(
                    f"`policy` is {text!r}; {name} takes no options ({name}+stuck "
                    "does); leave them out."
                )
        read = read_words("policy", text, options, takes, name)
        if plus and not {"p", "low"} <= set(read):
            raise ValueError(f"`policy` is {text!r}; give p and low, as in {name}:p=0.5,low=3.")
        return made_of("policy", text, kind, read)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """Gives the text that `parse` reads back."""
        options = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # p says something wherever bit stucking is on
            needed = field.name == "p" and self.stucking.low > 0
            if needed or value != field.default:
                options.append(f"{field.name}={written_word(value)}")
        stucked = self.stucking.low > 0 and ":" not in self.name
        name = f"{self.name}+stuck" if stucked else self.name
        return f"{name}:{','.join(options)}" if options else name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stuckable(Policy):
    """A policy that takes bit stucking.

    Attributes:
      p, low, draws: see `BitStucking`.

    Raises:
      ValueError: a value outside its range or choices; `p` or `draws` without `low`.

    References:
      Farias and Kung, Efficient Reprogramming of Memristive Crossbars for DNNs: Weight Sorting
      and Bit Stucking, arXiv 2410.21730.
    """

    p: float = 1.0
    low: int = 0
    draws: Draws = "fresh"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("p", self.p, "a probability lies in 0..1", 0, 1)
        check_whole("low", self.low, "bit stucking takes 0 to `bits` low columns", 0, 16)
        if not self.low and (self.p, self.draws) != (1, "fresh"):
            raise ValueError(
                f"`p` is {self.p!r} and `draws` {self.draws!r}, but `low` is 0: no cell is left "
                "alone; give low, the low-order columns that they are for."
            )

    @property
    def stucking(self) -> BitStucking:
        """Its bit stucking."""
        return BitStucking(float(self.p), int(self.low), self.draws)

    @property
    def placing(self) -> Self:
        """The policy without its bit stucking: all that decides on placements."""
        return self.stucked()

    def stucked(self, p: float = 1.0, low: int = 0, draws: Draws = "fresh") -> Self:
        """Gives the same policy with this bit stucking; `low` 0 is none, whatever p."""
        off = low == 0
        return dataclasses.replace(
            self, p=1.0 if off else p, low=low, draws="fresh" if off else draws
        )

    def at_price(self, price: float, config: CrossbarConfig) -> "Policy":
        """Leaves alone every column whose cells count less: wrong as often as not written."""
        if not self.p < 1:
            return super().at_price(price, config)
        per_half = config.cells_per_word // len(config.halves)
        low = sum(weight**2 <= price for weight in config.column_weights[: per_half - 1])
        return self.stucked(self.p, low, self.draws)


def _split(text: str) -> tuple[str, str]:
    """Splits a text into (name, options); a name with a colon in it is `module:Class`."""
    name, _, rest = text.partition(":")
    part, _, options = rest.partition(":")
    own = name.partition("+")[0] in _library()
    return (name, rest) if own or not part or "=" in part else (f"{name}:{part}", options)


def _subclasses(kind: Any) -> Iterator[type[Policy]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _library() -> dict[str, type[Policy]]:
    """Lists the policies that have a name of their own."""
    return {one.name: one for one in _subclasses(Policy) if ":" not in one.name}


def _known_names() -> list[str]:
    library = _library()
    plain = [name for name, kind in library.items() if issubclass(kind, Stuckable)]
    others = [name for name in library if name not in plain]
    return [*plain, *(f"{name}+stuck" for name in plain), *others, "or module:Class of your own"]


def _imported(text: str) -> type[Policy]:
    """Imports the class that `module:Class` names; see `import_class`."""
    found = import_class("policy", text, "my_policies:Magnitude")
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ValueError(f"`policy` {text!r} is no policy; derive the class from memsim.Policy.")
    return found


def chips_differ(
    stucking: BitStucking,
    stuck_at_0: float = 0.0,
    stuck_at_1: float = 0.0,
    readout: object = None,
    writing: Writing | None = None,
) -> bool:
    """Says whether chips differ from one another; where they do not, one stands for all.

    Args:
      stucking: of the policy.
      stuck_at_0, stuck_at_1: shares of cells that are stuck, drawn for each chip.
      readout: how chips are read, if their cells vary; None for ideal ones.
      writing: how writes may fail.
    """
    vary = readout is not None or not never_fails(writing)
    return stucking.drawn or stuck_at_0 > 0 or stuck_at_1 > 0 or vary
