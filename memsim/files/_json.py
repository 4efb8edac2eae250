"""JSON that comes from strangers, and back."""

import json
from typing import NoReturn


def parse_json(text: str | bytes) -> object:
    """Parses JSON strictly: UTF-8, no name twice in an object, no NaN or Infinity.

    Raises:
      ValueError: it is none of that kind.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # of two values of one name, readers would take different ones
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"`{twice}` is there twice")
        if not is_text("".join(found)):
            wrong = next(name for name in found if not is_text(name))
            raise ValueError(f"the name {wrong!a} is no text")
        return found

    def no_number(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    # deep nesting ends the parser's recursion, which is no ValueError
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        parsed: object = json.loads(decoded, object_pairs_hook=unique, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    return parsed


def is_text(name: str) -> bool:
    """Says whether a name can be written as UTF-8: no half of a surrogate pair."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def compact_json(value: object) -> str:
    """Writes JSON without spaces, names of other scripts as they are."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
