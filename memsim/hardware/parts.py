"""Hardware: its arrays, cells, converters and memory, with the source of every number."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self

from memsim._checks import check_choice, check_kind, check_number, check_positive, check_whole
from memsim.cells.pulses import CELLS, Scheme, WriteVerify, check_levels
from memsim.cells.schemes import parse_writing
from memsim.config import CrossbarConfig
from memsim.writing import Controller, Writing

__all__ = ["Area", "Arrays", "Digital", "Hardware", "Memory", "Reading", "WrittenCells"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays:
    """The crossbars of a chip; see `CrossbarConfig`.

    Attributes:
      number: of crossbars, all alike; None for as many as there are sections.
      rows: of each.
      columns: bit lines of each; None for those of one word, the published model.
    """

    number: int | None = 1
    rows: int = 128
    columns: int | None = None

    def __post_init__(self) -> None:
        if self.number is not None:
            check_whole("number", self.number, "give a number of arrays, or None", 1)
        check_whole("rows", self.rows, "an array has at least 1 row", 1)
        if self.columns is not None:
            check_whole("columns", self.columns, "give the bit lines of an array, or None", 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenCells:
    """The cells, and how they are written.

    Attributes:
      kind: of memristor, which decides on its pulses.
      bits: of a cell.
      scheme: of its pulses, one that this kind has.
      controller: see `Writing`; one that reads first takes the time and energy of that.
      fails: whether writes fail as often as they do under the scheme; else all succeed.
    """

    kind: Literal["hfo2", "pcm"] = "hfo2"
    bits: int = 1
    scheme: str = "constant"
    controller: Controller = "blind"
    fails: bool = False

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, tuple(CELLS))
        check_choice("scheme", self.scheme, tuple(CELLS[self.kind]))
        check_choice("controller", self.controller, ("read", "blind"))
        check_kind("fails", self.fails, bool, "give true or false")
        check_choice("bits", self.bits, (1, 2, 4))
        check_levels(self.pulses, self.bits)

    @property
    def pulses(self) -> Scheme:
        """The pulses of a write."""
        return CELLS[self.kind][self.scheme]

    @property
    def text(self) -> str | None:
        """How writes fail, as `memsim.cells.parse_writing` reads it; None where none does."""
        if not self.fails:
            return None
        return f"{self.scheme}:cells={self.kind},controller={self.controller}"

    @property
    def read(self) -> tuple[float, float]:
        """Seconds that a row is read in before it is written, and joules for each of its cells."""
        verified = CELLS[self.kind]["write-verify"]
        if self.controller == "blind" or not isinstance(verified, WriteVerify):
            return 0.0, 0.0
        return verified.read_time, verified.read_energy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """One array that multiplies: inputs bit by bit through drivers, currents through converters.

    Attributes:
      input_bits: bits of an input, a read cycle each.
      read_time: of a read cycle, in seconds.
      read_energy: of a whole array in a read cycle, in joules.
      driver_energy: of one row in a read cycle, in joules.
      converter_bits: of a converter.
      converter_energy: of one conversion, in joules.
      converter_rate: conversions of a converter in a second.
      converters: of an array.
      shift_add_energy: of adding one conversion to its sum, in joules.
      output_bits: bits of a sum as it is kept.
    """

    input_bits: int = 8
    read_time: float = 100e-9
    read_energy: float = 30e-12
    driver_energy: float = 0.417e-12
    converter_bits: int = 8
    converter_energy: float = 1.667e-12
    converter_rate: float = 1.2e9
    converters: int = 1
    shift_add_energy: float = 0.021e-12
    output_bits: int = 16

    def __post_init__(self) -> None:
        for name in ("input_bits", "converter_bits", "converters", "output_bits"):
            check_whole(name, getattr(self, name), "give a whole number from 1", 1, 2**16)
        for name in ("read_time", "converter_rate"):
            check_positive(name, getattr(self, name), "give a positive number")
        for name in ("read_energy", "driver_energy", "converter_energy", "shift_add_energy"):
            check_number(name, getattr(self, name), "give joules from 0", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory that words and index come from, and the buffer of inputs and sums.

    Attributes:
      move_energy: of a bit from memory to the chip, in joules.
      bandwidth: bits in a second.
      buffer_energy: of a bit in or out of the buffer, in joules.
      index: `latched` in its routes while a section is resident, or read from the buffer again
        `per_product`.
    """

    move_energy: float = 4e-12
    bandwidth: float = 136e9
    buffer_energy: float = 0.1e-12
    index: Literal["latched", "per_product"] = "latched"

    def __post_init__(self) -> None:
        check_choice("index", self.index, ("latched", "per_product"))
        for name in ("move_energy", "buffer_energy"):
            check_number(name, getattr(self, name), "give joules from 0", 0)
        check_positive("bandwidth", self.bandwidth, "give a positive number of bits in a second")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Area:
    """The area of the parts beside an array, in mm^2.

    Attributes:
      array: of the cells of an array.
      converter: of one.
      driver: of one row.
      shift_add: of an array.
      buffer: share of an array in the buffers.
    """

    array: float = 2.5e-5
    converter: float = 1.2e-3
    driver: float = 1.66e-7
    shift_add: float = 3e-5
    buffer: float = 3.6e-4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_number(field.name, getattr(self, field.name), "give mm^2 from 0", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digital:
    """Digital logic, which products may take instead of arrays.

    Attributes:
      multiply_add_energy: of one multiply-add, in joules.
      operand_bits: of what is multiplied.
    """

    multiply_add_energy: float = 0.23e-12
    operand_bits: int = 8

    def __post_init__(self) -> None:
        check_number("multiply_add_energy", self.multiply_add_energy, "give joules from 0", 0)
        check_whole("operand_bits", self.operand_bits, "give a whole number from 1", 1, 64)


_TABLES = {
    "arrays": Arrays, "cells": WrittenCells, "reading": Reading, "memory": Memory, "area": Area,
    "digital": Digital,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """A chip and the memory beside it. `read_hardware` reads one, by its name or from a file.

    Attributes:
      name: of it.
      arrays, cells, reading, memory, area, digital: its parts.
      sources: by `table.key`, where a number is from; PLACEHOLDER where nobody publishes it.

    Raises:
      ValueError: a part of another kind; a source of what there is not.

    >>> hardware = Hardware(name="mine", arrays=Arrays(number=8, columns=128))
    >>> hardware.config(encoding="offset_binary").words_per_row
    16
    """

    name: str
    arrays: Arrays = Arrays()
    cells: WrittenCells = WrittenCells()
    reading: Reading = Reading()
    memory: Memory = Memory()
    area: Area = Area()
    digital: Digital = Digital()
    sources: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_kind("name", self.name, str, "give a text")
        for table, kind in _TABLES.items():
            check_kind(table, getattr(self, table), kind, f"give a memsim.hardware.{kind.__name__}")
        unknown = [name for name in self.sources if name not in self.numbers()]
        if unknown:
            raise ValueError(
                f"`sources` names {unknown[0]!r}; give keys such as 'memory.move_energy'."
            )
        object.__setattr__(self, "sources", dict(self.sources))

    def numbers(self) -> dict[str, Any]:
        """Lists all that there is to say of it, by `table.key`."""
        return {
            f"{table}.{field.name}": getattr(getattr(self, table), field.name)
            for table, kind in _TABLES.items()
            for field in dataclasses.fields(kind)
        }

    def source_of(self, name: str) -> str:
        """Says where a number is from."""
        return self.sources.get(name, "default")

    def config(self, **words: Any) -> CrossbarConfig:
        """Gives the crossbars.

        Args:
          words: fields of `CrossbarConfig` that hardware does not decide on, such as `encoding`,
            or that are to be others than its own.
        """
        return CrossbarConfig(**self.crossbars() | words)

    def crossbars(self) -> dict[str, Any]:
        """Gives the fields of `CrossbarConfig` that hardware decides on, and their values."""
        return {
            "rows": self.arrays.rows,
            "columns": self.arrays.columns,
            "crossbars": self.arrays.number,
            "cell_bits": self.cells.bits,
        }

    def on(self, config: CrossbarConfig) -> Self:
        """Gives the same hardware with these crossbars."""
        check_kind("config", config, CrossbarConfig)
        arrays = Arrays(number=config.crossbars, rows=config.rows, columns=config.columns)
        cells = dataclasses.replace(self.cells, bits=config.cell_bits)
        return dataclasses.replace(self, arrays=arrays, cells=cells)

    def writing(self, config: CrossbarConfig) -> Writing | None:
        """Says how writes of the words of `config` fail; None where none does."""
        return None if self.cells.text is None else parse_writing(self.cells.text, config)
