"""Laws of conductance: the protocol that readouts take, and that your own may follow.

Programming aims at a conductance for each level of a cell, reaches another, it drifts, and each
read varies. Readouts know nothing else of a cell, so any frozen class with these five methods will
do, in `read_weights`, `read_layer`, `read_matmul` and in training.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

from memsim._checks import check_kind
from memsim._words import import_class, made_of, read_words, words_of
from memsim.cells.conductance import Conductance

__all__ = ["ConductanceLaw", "check_law", "parse_law"]


@runtime_checkable
class ConductanceLaw(Protocol):
    """The conductance of a kind of memristor, from programming to reading.

    `Conductance` follows it. Make your own a frozen dataclass of numbers and tuples: a law is
    static under `jit`, so it is hashed and compared, and must not change.

    Examples:
      Levels that are evenly spaced in the logarithm of the conductance, reached exactly:

      >>> import dataclasses
      >>> import memsim
      >>> @dataclasses.dataclass(frozen=True)
      ... class EvenInLog:
      ...     on: float = 1e-4
      ...     off: float = 1e-6
      ...
      ...     def aimed_at(self, share):
      ...         return self.off * (self.on / self.off) ** share
      ...
      ...     def programmed(self, key, target):
      ...         return target
      ...
      ...     def drifted(self, key, reached, target, seconds):
      ...         return reached
      ...
      ...     def read_deviation(self, target, seconds):
      ...         return None
      ...
      ...     def average(self, share, seconds):
      ...         return self.aimed_at(share)
      >>> readout = memsim.Readout(cells=EvenInLog())
    """

    def aimed_at(self, share: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Finds the siemens that programming aims at.

        Args:
          share: float32, the level of each cell as a share of its highest, 0 to 1.
        """
        ...

    def programmed(
        self, key: Key[Array, ""], target: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Draws the siemens that programming reaches.

        Args:
          key: consumed.
          target: siemens aimed at.
        """
        ...

    def drifted(
        self,
        key: Key[Array, ""],
        reached: Float[Array, "*shape"],
        target: Float[Array, "*shape"],
        seconds: float,
    ) -> Float[Array, "*shape"]:
        """Draws the siemens that are left so many seconds after programming.

        Args:
          key: consumed.
          reached, target: siemens, as programmed and as aimed at.
          seconds: since programming; a number, not an array.
        """
        ...

    def read_deviation(
        self, target: Float[Array, "*shape"], seconds: float
    ) -> Float[Array, "*shape"] | None:
        """Finds the standard deviation of one read, as a share of the conductance.

        Args:
          target: siemens aimed at.
          seconds: since programming; a number.

        Returns:
          None where every read of a cell finds the same.
        """
        ...

    def average(self, share: float, seconds: float) -> float:
        """Finds the mean siemens of many such cells, so many seconds after programming.

        Readouts are calibrated by it. Reference columns hold cells of the lowest level, are
        programmed and drift as all others do: `average(0, seconds)` is subtracted. Converters are
        set once, at programming: a level is `(average(1, 0) - average(0, 0))` over the levels.

        Args:
          share: of the highest level, 0 to 1; a number.
          seconds: since programming; a number.
        """
        ...


_METHODS = ("aimed_at", "programmed", "drifted", "read_deviation", "average")


def check_law(law: object, seconds: float = 0.0) -> None:
    """Checks that something is a law of conductance that can be read.

    Args:
      law: what should be one.
      seconds: since programming, when it will be read.

    Raises:
      ValueError: a class instead of a value of it, a method that is missing, a value that cannot
        be hashed, or levels that are no finite conductances apart.

    Examples:
      >>> import memsim
      >>> check_law(memsim.Conductance.pcm(), seconds=3600.0)
    """
    if isinstance(law, type):
        raise ValueError(f"`cells` is the class {law.__name__}; give a value, {law.__name__}().")
    # `isinstance` of a protocol would not say which are missing
    missing = [name for name in _METHODS if not callable(getattr(law, name, None))]
    if missing:
        raise ValueError(
            f"`cells` is {law!r}; give a Conductance, such as Conductance.pcm(), or a law with "
            f"all methods of ConductanceLaw: it lacks {', '.join(missing)}."
        )
    assert isinstance(law, ConductanceLaw)  # noqa: S101
    # static under `jit`: it is looked up by its hash
    try:
        hash(law)
    except TypeError as error:
        raise ValueError(
            f"`cells` is {law!r}, which is not hashable ({error}), but static under `jit`; make "
            f"{type(law).__name__} a frozen dataclass of numbers and tuples."
        ) from error
    # what readouts are calibrated by, at programming and at the read
    levels = {
        f"average({share:g}, {time:g})": law.average(share, time)
        for share, time in ((0.0, 0.0), (1.0, 0.0), (0.0, seconds))
    }
    for name, siemens in levels.items():
        real = isinstance(siemens, numbers.Real) and not isinstance(siemens, bool)
        if not real or not math.isfinite(siemens) or siemens < 0:
            raise ValueError(
                f"`cells` is {law!r} with {name} = {siemens!r}; give finite siemens from 0, as a "
                "Python number."
            )
    # a converter subtracts the one and divides by their difference
    low, high = law.average(0.0, 0.0), law.average(1.0, 0.0)
    # a level of up to 15 of a cell must be a normal number of float32
    if not high - low > 1e-3 * low or high - low < 1e-30:
        raise ValueError(
            f"`cells` is {law!r}: on average the lowest level conducts {low:.3g} S and the highest "
            f"{high:.3g} S; they must be apart, so that a converter can tell them."
        )


def parse_law(text: str) -> ConductanceLaw:
    """Reads the text of a law of conductance: its name, then words as they are in Python.

    `ideal`, `hfo2` and `pcm` are the library's, with other figures as in `hfo2:on=1e-4`; a class
    of yours is `module:Class`, or `module:Class:word=value`, looked for in the present folder too.

    Raises:
      ValueError: an unknown law or word, a value of another kind, or a class that is no law.

    Examples:
      >>> parse_law("pcm") == Conductance.pcm()
      True
      >>> parse_law("hfo2:spread_off=0.1").spread_off
      0.1
    """
    check_kind("cells", text, str, "give a text such as 'pcm'")
    library = {"ideal": Conductance, "hfo2": Conductance.hfo2, "pcm": Conductance.pcm}
    name, _, options = text.strip().partition(":")
    if name in library:
        read = read_words("cells", text, options, words_of(Conductance), name)
        return dataclasses.replace(library[name](), **read)
    if not options:
        raise ValueError(
            f"`cells` is {text!r}; choose one of {', '.join(library)}, or module:Class of your own."
        )
    of, _, options = options.partition(":")
    name = f"{name}:{of}"
    kind = import_class("cells", name, "my_cells:LogLevels")
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"`cells` {name!r} is no frozen dataclass; see ConductanceLaw.")
    read = read_words("cells", text, options, words_of(kind), name)
    law: Any = made_of("cells", text, kind, read)
    check_law(law)
    return law  # type: ignore[no-any-return]
