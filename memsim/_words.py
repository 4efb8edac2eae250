"""Settings as text: `name:word=value,word=value`, of policies and of laws of conductance."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import sys
import types
import typing
from typing import Any, Literal

import numpy as np


@functools.cache  # policies are made often, and types worked out slowly
def words_of(kind: type[Any]) -> dict[str, Any]:
    """Lists the words that a class of settings takes, a dataclass, and the type of each."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def read_words(
    argument: str, text: str, options: str, takes: dict[str, Any], name: str
) -> dict[str, Any]:
    """Reads `word=value,word=value`.

    Args:
      argument, text: name and whole value of the argument, for messages.
      options: the words in it.
      takes: words that can be given, and the type of each.
      name: of what takes them.

    Raises:
      ValueError: another word, a word given twice, or a value of another kind.
    """
    values: dict[str, Any] = {}
    for part in options.split(",") if options else []:
        word, _, value = (side.strip() for side in part.partition("="))
        if word not in takes:
            raise ValueError(
                f"`{argument}` is {text!r}; {name} takes {', '.join(takes) or 'no options'}."
            )
        if word in values:
            raise ValueError(f"`{argument}` is {text!r}; give {word} once.")
        try:
            values[word] = _read_word(takes[word], value)
        except _UnreadableError as error:
            raise ValueError(f"`{argument}` is {text!r}; {word} is {value!r}, {error}.") from None
    return values


def made_of(argument: str, text: str, kind: type[Any], values: dict[str, Any]) -> Any:
    """Makes a value of a class of settings, from words that `read_words` read.

    Raises:
      ValueError: the class is abstract, or a word without a default is missing; what the class
        raises comes through.
    """
    if inspect.isabstract(kind):
        lacks = ", ".join(sorted(kind.__abstractmethods__))
        raise ValueError(f"`{argument}` is {text!r}, an abstract class; it lacks {lacks}.")
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING
        and field.name not in values
    ]
    if missing:
        raise ValueError(f"`{argument}` is {text!r}; give {', '.join(missing)} too.")
    return kind(**values)


class _UnreadableError(Exception):
    """A value that is not of its kind; the message says what to do instead."""


def _read_word(kind: Any, value: str) -> Any:
    if typing.get_origin(kind) is Literal:
        by_text = {str(choice): choice for choice in typing.get_args(kind)}
        return by_text.get(value, value)  # another is refused where the value is made
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(kind) if one is not type(None)]
        return _read_word(kinds[0], value)
    if kind is str:
        return value
    if kind is bool:
        if value not in ("True", "False"):
            raise _UnreadableError("give True or False")
        return value == "True"
    if kind not in (int, float):  # tuple[float, float] would take any text apart
        raise _UnreadableError("which text cannot say; set it in Python")
    try:
        return kind(value)
    except ValueError:
        what = "a number" if kind is float else "a whole number"
        raise _UnreadableError(f"give {what}") from None


def written_word(value: Any) -> str:
    """Writes a word's value as text."""
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(value)


def import_class(argument: str, text: str, example: str) -> Any:
    """Imports what `module:Class` names; modules are also looked for in the present folder.

    Args:
      argument: its name, for messages.
      text: `module:Class`.
      example: of such a text.

    Raises:
      ValueError: there is none.
    """
    module, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        file, _, kind = example.partition(":")
        raise ValueError(
            f"`{argument}` {text!r} cannot be imported ({error}); give module:Class, such as "
            f"{example} for the class {kind} of {file}.py in this folder."
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    return found
