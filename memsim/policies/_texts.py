"""Values of the words of a policy, from text and to text."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import types
import typing
from typing import Any, Literal

import numpy as np


def words_of(kind: type[Any]) -> dict[str, Any]:
    """Lists the words that a policy takes, and the type of each."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


class UnreadableError(Exception):
    """A value that is not of its kind."""

    def __init__(self, value: str, remedy: str) -> None:
        super().__init__(value)
        self.value, self.remedy = value, remedy


def read_word(kind: Any, value: str) -> Any:
    """Reads a word's value from text."""
    if typing.get_origin(kind) is Literal:
        by_text = {str(choice): choice for choice in typing.get_args(kind)}
        return by_text.get(value, value)  # another is refused where the policy is made
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(kind) if one is not type(None)]
        return read_word(kinds[0], value)
    if kind is bool:
        if value not in ("True", "False"):
            raise UnreadableError(value, "True or False")
        return value == "True"
    try:
        return kind(value)
    except ValueError:
        raise UnreadableError(value, "a number" if kind is float else "a whole number") from None


def written_word(value: Any) -> str:
    """Writes a word's value as text."""
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(value)


def import_class(text: str) -> Any:
    """Imports what `module:Class` names; modules are also looked for in the present folder.

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
        raise ValueError(
            f"`policy` {text!r} cannot be imported ({error}); give module:Class, such as "
            "my_policies:Magnitude for the class Magnitude of my_policies.py in this folder."
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    return found
