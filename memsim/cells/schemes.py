"""Writing of cells under a scheme of pulses, or under two: one for the low-order columns."""

from __future__ import annotations

import dataclasses
from typing import Literal

from memsim._checks import check_choice, check_kind, check_whole
from memsim._words import made_of, read_words, words_of
from memsim.cells.pulses import CELLS, Scheme, cell_writes, check_levels
from memsim.config import CrossbarConfig
from memsim.writing import Controller, Writing

__all__ = ["WordsOfScheme", "parse_writing", "scheme_of_text", "scheme_writing"]


def scheme_writing(
    scheme: Scheme,
    config: CrossbarConfig,
    *,
    controller: Controller = "read",
    low: int = 0,
    low_scheme: Scheme | None = None,
) -> Writing:
    """Gives the writing of cells under a scheme: how often a write fails, and its pulses.

    A cell that a scheme gives up stays as it was. With `low`, a scheme by column: the low-order
    columns, whose cells count least, are written under one of their own.

    Args:
      scheme: how a cell is written, such as `HFO2["write-verify"]`.
      config: of the words; its cells have at most as many levels as the schemes.
      controller: see `Writing`.
      low: columns, of each half of a differential word, that are written under `low_scheme`.
      low_scheme: given where `low` is.

    Raises:
      ValueError: a scheme of fewer levels, `low` above the columns, one of `low` and `low_scheme`
        without the other.

    >>> from memsim.cells import HFO2
    >>> config = CrossbarConfig(bits=4)
    >>> one = HFO2["constant"]
    >>> made = scheme_writing(HFO2["write-verify"], config, low=2, low_scheme=one)
    >>> [round(pulses, 1) for pulses in made.set_pulses]
    [1.0, 1.0, 3.2, 3.2]
    """
    check_kind("config", config, CrossbarConfig)
    per_half = len(config.unflagged.column_masks) // len(config.halves)
    check_whole("low", low, f"a half of a word has {per_half} columns", 0, per_half)
    if (low > 0) != (low_scheme is not None):
        raise ValueError(f"`low` is {low} and `low_scheme` {low_scheme!r}; give both, or neither.")
    low_mask = config.low_mask(low)
    of_column = [
        _numbers(low_scheme if low_scheme is not None and mask & low_mask else scheme, config)
        for mask in config.unflagged.column_masks
    ]
    by_name = {name: tuple(one[name] for one in of_column) for name in of_column[0]}
    # one number where columns are written alike
    return Writing(
        controller=controller,
        **{name: x if len(set(x)) > 1 else x[0] for name, x in by_name.items()},
    )


def _numbers(scheme: Scheme, config: CrossbarConfig) -> dict[str, float]:
    """Gives the numbers of a `Writing` under a scheme."""
    check_levels(scheme, config.cell_bits)
    found = {}
    for name, write in zip(("set", "reset"), cell_writes(scheme), strict=True):
        found[f"{name}_success"] = 1 - write.residual_error
        found[f"{name}_pulses"] = float(sum((k + 1) * p for k, p in enumerate(write.pmf)))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Success:
    """The words of a writing of given success."""

    set: float
    reset: float
    controller: Controller = "read"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordsOfScheme:
    """The words of a writing under a scheme; see `parse_writing`."""

    cells: Literal["hfo2", "pcm"] = "hfo2"
    low: int = 0
    controller: Controller = "read"


def parse_writing(text: str, config: CrossbarConfig) -> Writing:
    """Reads a writing from text: `success:set=0.55,reset=0.55`, or a scheme's name and words.

    `write-verify`, `constant:controller=blind`, `write-verify:cells=pcm`; with `low=3` the three
    low-order columns get one constant pulse each and no feedback.

    Raises:
      ValueError: an unknown scheme or word, or a value that does not apply.

    >>> parse_writing("success:set=0.9,reset=0.8", CrossbarConfig()).reset_success
    0.8
    """
    check_kind("writing", text, str, "give a text such as 'write-verify:controller=read'")
    check_kind("config", config, CrossbarConfig)
    name, _, options = (part.strip() for part in text.partition(":"))
    if name == "success":
        words = read_words("writing", text, options, words_of(_Success), name)
        given: _Success = made_of("writing", text, _Success, words)
        return Writing(
            set_success=given.set, reset_success=given.reset, controller=given.controller
        )
    found = scheme_of_text(text)
    assert found is not None  # noqa: S101 - it is no success
    scheme, chosen = found
    of_cells = CELLS[chosen.cells]
    low_scheme = of_cells["constant"] if chosen.low else None
    return scheme_writing(
        of_cells[scheme],
        config,
        controller=chosen.controller,
        low=chosen.low,
        low_scheme=low_scheme,
    )


def scheme_of_text(text: str) -> tuple[str, WordsOfScheme] | None:
    """Reads the name of a scheme and its words from the text of a writing; None of `success`.

    Raises:
      ValueError: an unknown scheme or word, or a value that does not apply.
    """
    name, _, options = (part.strip() for part in text.partition(":"))
    if name == "success":
        return None
    schemes = dict.fromkeys(scheme for cell in CELLS.values() for scheme in cell)
    if name not in schemes:
        raise ValueError(
            f"`writing` is {text!r}; choose success:set=P,reset=P or one of {', '.join(schemes)}."
        )
    words = read_words("writing", text, options, words_of(WordsOfScheme), name)
    chosen: WordsOfScheme = made_of("writing", text, WordsOfScheme, words)
    check_choice("cells", chosen.cells, tuple(CELLS))
    of_cells = CELLS[chosen.cells]
    if name not in of_cells:
        raise ValueError(
            f"`writing` is {text!r}; {chosen.cells} has {', '.join(of_cells)}, no {name}."
        )
    if chosen.low and name == "constant":
        raise ValueError(
            f"`writing` is {text!r}; `low` is for columns that are not verified, and a constant "
            "pulse verifies none."
        )
    return name, chosen
