"""Reading the files that memsim itself writes: nothing in them is believed."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from memsim.files import _safetensors
from memsim.files._json import parse_json
from memsim.files.raw import RawTensor

__all__ = ["Part", "check_keys", "check_part", "load_own", "read_own_json", "read_record"]

_Record = TypeVar("_Record")


def load_own(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Loads the tensors and the description of a plan or chip file.

    Raises:
      FileNotFoundError, ValueError: there is no such file; it is truncated, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`{kind}` {path} is not a file; check the path.")
    tensors: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as file:
            header = _safetensors.read_header(file)
            for name, entry in header.entries.items():
                tensor = _safetensors.read_tensor(file, entry)
                # memsim writes no tensors of that kind
                if isinstance(tensor, RawTensor):
                    raise ValueError(f"`{name}` is {entry.stored}")
                tensors[name] = tensor
        text = header.metadata.get(f"memsim.{kind}")
        description = None if text is None else parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"`{kind}` {path} is truncated or no {kind} file: {error}; give one that memsim saved."
        ) from error
    if not isinstance(description, dict):
        raise ValueError(f"`{kind}` {path} was not saved by memsim as a {kind}; give one that was.")
    return tensors, description


def read_own_json(path: str | Path, kind: str) -> dict[str, Any]:
    """Reads a JSON object that memsim, or a job of it, wrote.

    Raises:
      FileNotFoundError, ValueError: there is no such file; it is truncated, no JSON object, or
        names something twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`{kind}` {path} is not a file; check the path.")
    try:
        document = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"`{kind}` {path} is truncated or no JSON: {error}; give one that memsim wrote."
        ) from error
    if not isinstance(document, dict):
        raise ValueError(f"`{kind}` {path} is no JSON object; remake it.")
    return document


def check_keys(
    what: str, found: Iterable[str], needed: Iterable[str], optional: Iterable[str] = ()
) -> None:
    """Checks that something has all that it needs, and nothing else.

    Args:
      what: it is, for the message.
      found, needed, optional: names.

    Raises:
      ValueError: names are missing, or others there.
    """
    found, needed = set(found), set(needed)
    missing, unknown = sorted(needed - found), sorted(found - needed - set(optional))
    if missing or unknown:
        lacks = f"lacks {_listed(missing)}" if missing else ""
        holds = f"holds {_listed(unknown)}, which is unknown" if unknown else ""
        raise ValueError(f"{what} {' and '.join(filter(None, (lacks, holds)))}")


def _listed(names: list[str]) -> str:
    others = f" and {len(names) - 5} others" if len(names) > 5 else ""
    return ", ".join(f"`{name}`" for name in names[:5]) + others


def read_record(
    record: type[_Record], values: object, what: str, optional: Iterable[str] = ()
) -> _Record:
    """Makes a dataclass or NamedTuple of the JSON object that `dataclasses.asdict` gave of it.

    Every field has to be there and of its type as annotated: int, float, bool, str, None, tuple,
    list, dict, `Literal`, `|`, or another dataclass.

    >>> from memsim.intervals import Interval
    >>> read_record(Interval, {"mean": 1.0, "low": 0.5, "high": 2.0}, "`found`")
    Interval(mean=1.0, low=0.5, high=2.0)

    Args:
      record: the class; what it raises of its values comes through.
      values: from JSON.
      what: it is, for messages.
      optional: fields that may be missing and have a default.

    Raises:
      ValueError: fields missing or unknown, or values of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{what} is {_short(values)}, no JSON object")
    # what a field has to be stands in its annotation
    hints = typing.get_type_hints(record)
    names = _fields(record)
    check_keys(what, values, names - set(optional), optional)
    read = {
        name: _converted(value, hints[name], f"`{name}` of {what}")
        for name, value in values.items()
    }
    return record(**read)


def _fields(record: type) -> set[str]:
    if dataclasses.is_dataclass(record):
        return {field.name for field in dataclasses.fields(record) if field.init}
    return set(getattr(record, "_fields"))  # noqa: B009 - of a NamedTuple


def _converted(value: Any, hint: Any, what: str) -> Any:
    """Converts a value of JSON as its type annotation has it.

    Raises:
      ValueError: it has another type.
    """
    # JSON has neither tuples nor fixed choices, and True counts as 1 in Python: types are compared
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        # the first type that takes the value
        for one in arguments:
            try:
                return _converted(value, one, what)
            except ValueError:
                continue
    elif origin is typing.Literal:
        if any(value == one and type(value) is type(one) for one in arguments):
            return value
    elif origin is tuple and isinstance(value, list):
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        kinds = arguments[:1] * len(value) if repeated else arguments
        if len(kinds) == len(value):
            return tuple(_converted(x, one, what) for x, one in zip(value, kinds, strict=True))
    elif origin is list and isinstance(value, list):
        return [_converted(x, arguments[0], what) for x in value]
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {name: _converted(x, arguments[1], what) for name, x in value.items()}
    elif hint in (None, type(None)) and value is None:
        return None
    elif hint in (str, bool, int) and type(value) is hint:
        return value
    elif hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif hint in (Any, object):
        return value
    elif isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")):
        return read_record(hint, value, what)
    named = hint.__name__ if origin is None and isinstance(hint, type) else hint
    raise ValueError(f"{what} is {_short(value)}; it must be {named}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]} ..."


class Part(NamedTuple):
    """The dtypes and shape that a tensor of a file of memsim has to have.

    Attributes:
      dtypes: names of the dtypes that it may have.
      shape: of it.
      low, high: no number lies outside of them; NaN is outside.
    """

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    low: float
    high: float


def check_part(name: str, value: np.ndarray, part: Part) -> None:
    """Checks the dtype, the shape and the numbers of a tensor.

    Raises:
      ValueError: one of them is another.
    """
    if value.dtype.name not in part.dtypes or value.shape != part.shape:
        raise ValueError(
            f"`{name}` is {value.dtype.name} {list(value.shape)}, where "
            f"{' or '.join(part.dtypes)} {list(part.shape)} is needed"
        )
    # a comparison with NaN is false, so that it counts as outside
    inside = (value >= part.low) & (value <= part.high)
    if not inside.all():
        one = value[~inside].reshape(-1)[0]
        raise ValueError(f"`{name}` holds {one}, outside {part.low:g} to {part.high:g}")
