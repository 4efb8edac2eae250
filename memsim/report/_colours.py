"""Gives every policy its colour and marker, the same in all charts and on all pages."""

import re
import zlib

# Colours that pages change in a dark scheme, by the name of their variable.
THEME = {
    "ink": "#1c2430", "soft": "#5d6b7d", "axis": "#b8c1cc", "grid": "#edf0f3", "paper": "#ffffff",
}  # fmt: skip

# Each is at least 3:1 on white and on the dark page, and told from the others by readers who are
# blind to red, green or blue.
_STYLES = {
    "unsorted": ("#77808d", "s"),
    "sws": ("#2b74d1", "o"),
    "sws-layer": ("#0a9dc2", "D"),
    "matched": ("#138660", "^"),
    "flip-n-write": ("#da7a0b", "v"),
    "aras": ("#df2053", "X"),
}
_OWN_COLOURS, _OWN_MARKERS = ("#9325f4", "#9c5e16"), ("P", "*", "<", ">", "p", "h")


def style_of(name: str) -> tuple[str, str]:
    """Gives a policy its colour and marker, the same to all variants of one kind.

    Args:
      name: text of a policy, or what starts with one: `sws+stuck:p=0.5,low=3 in differential`.
    """
    kind = _kind(name)
    if kind in _STYLES:
        return _STYLES[kind]
    # by the name alone, so that a policy of your own looks the same in every run
    number = zlib.crc32(kind.encode())
    markers = _OWN_MARKERS[number // len(_OWN_COLOURS) % len(_OWN_MARKERS)]
    return _OWN_COLOURS[number % len(_OWN_COLOURS)], markers


def is_policy(name: str) -> bool:
    """Says whether a name starts with a policy of the library."""
    return _kind(name) in _STYLES


def _kind(name: str) -> str:
    """Gives `sws` of `sws+stuck:p=0.5,low=3`, `module:Class` of `module:Class:low=3`."""
    first, *others = re.split(r"[\s,]", name)[0].split(":")
    kind = first.partition("+")[0]
    own = others and kind not in _STYLES and "=" not in others[0]
    return f"{first}:{others[0]}" if own else kind
