"""Figures of parts that `hwcomponents` knows, by name and technology node."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from memsim._checks import check_kind, check_positive
from memsim.hardware.parts import Hardware

__all__ = ["COMPONENTS", "with_components"]

# The parts of hardware that a component may stand for.
COMPONENTS = ("array", "converter", "driver", "shift_add", "buffer", "memory")
"""Parts that a table of components may name."""


class _Role(NamedTuple):
    """The figures that a part of hardware takes from a component.

    Attributes:
      actions: whose energy counts, the first that the component has.
      energy: the number that it becomes.
      area: the number that its area becomes, if any.
      speed: the number that its latency (`read_time`) or throughput (`converter_rate`) becomes.
      shared: whether `units` says how many an array has, which its area is multiplied by.
      per_bit: whether the energy is that of one bit.
    """

    actions: tuple[str, ...]
    energy: str
    area: str | None = None
    speed: str | None = None
    shared: bool = False
    per_bit: bool = False


_ROLES: dict[str, _Role] = {
    "array": _Role(
        ("read", "compute"), "reading.read_energy", "area.array", "reading.read_time", shared=True
    ),
    "converter": _Role(
        ("convert", "read"), "reading.converter_energy", "area.converter", "reading.converter_rate"
    ),
    "driver": _Role(("convert", "drive", "read"), "reading.driver_energy", "area.driver"),
    "shift_add": _Role(
        ("shift_add", "shift_and_add", "add", "read"),
        "reading.shift_add_energy", "area.shift_add", shared=True,
    ),
    "buffer": _Role(
        ("read",), "memory.buffer_energy", "area.buffer", shared=True, per_bit=True
    ),
    "memory": _Role(("read",), "memory.move_energy", per_bit=True),
}  # fmt: skip


def with_components(
    hardware: Hardware, table: Mapping[str, Any], given: Collection[str] = ()
) -> Hardware:
    """Gives hardware with the figures of components, in joules, seconds and mm^2.

    Args:
      hardware: whose other numbers stay.
      table: `node`, such as "32 nm", and by part of `COMPONENTS` the name of a component, or a
        table of `name` and its arguments. Of arrays, adders and buffers `units` is one of them:
        how many an array has, such as 0.5 where two share one.
      given: numbers that are given by hand, as `table.key`, and so cannot come from here.

    Raises:
      ValueError: `hwcomponents` is not installed; an unknown part, component or argument; a number
        that is given by hand too.

    References:
      Andrulis et al., CiMLoop, 10.1109/ISPASS61541.2024.00012.
    """
    check_kind("components", table, Mapping, "give a table of parts, converter = 'IsaacADC'")
    wanted = dict(table)
    node = _node(wanted.pop("node", None))
    unknown = [part for part in wanted if part not in COMPONENTS]
    if unknown:
        raise ValueError(
            f"There is no part `{unknown[0]}` in [components]; choose of {', '.join(COMPONENTS)}."
        )
    known = _classes()
    numbers: dict[str, float] = {}
    sources = dict(hardware.sources)
    for part, said in wanted.items():
        found, source = _figures(part, said, node, hardware, known)
        twice = [number for number in found if number in given]
        if twice:
            raise ValueError(f"`{twice[0]}` is given, and `{part}` has it too; leave one out.")
        numbers |= found
        sources |= dict.fromkeys(found, source)
    changed: dict[str, dict[str, float]] = {}
    for number, value in numbers.items():
        of, _, key = number.partition(".")
        changed.setdefault(of, {})[key] = value
    parts = {of: dataclasses.replace(getattr(hardware, of), **new) for of, new in changed.items()}
    return dataclasses.replace(hardware, sources=sources, **parts)


def _node(text: object) -> str:
    """Reads a technology node: its number of nanometres."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*nm\s*", text) if isinstance(text, str) else None
    if found is None or not float(found[1]):
        raise ValueError(f"`node` is {text!r}; give nanometres, node = '32 nm'.")
    return found[1]


def _classes() -> dict[str, Any]:
    """Lists the components that are installed, by their names in lower case."""
    try:
        models = importlib.import_module("hwcomponents").get_models()
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ValueError(
            f"`components` needs hwcomponents ({error}): pip install 'memsim[hardware]', with "
            f"Python 3.12 or newer; this is {version}."
        ) from error
    found = {}
    # of several with one name the library prefers the one of the highest priority
    for model in sorted(models, key=lambda one: one.priority):
        names = model.component_name or ()
        for name in (model.__name__, *((names,) if isinstance(names, str) else names)):
            found[name.lower()] = model
    return found


def _figures(
    part: str, said: object, node: str, hardware: Hardware, known: Mapping[str, Any]
) -> tuple[dict[str, float], str]:
    """Gives the numbers of a part, by `table.key`, and their source.

    Args:
      said: what the table says of it: a name, or a table.
      known: components by name.
    """
    role = _ROLES[part]
    words = dict(said) if isinstance(said, Mapping) else {"name": said}
    name = words.pop("name", None)
    units: Any = 1.0
    if role.shared:
        remedy = f"give how many an array has: {part} = {{ name = '{name}', units = 0.5 }}"
        if "units" not in words:
            raise ValueError(f"`{part}` lacks `units`; {remedy}.")
        units = words.pop("units")
        check_positive("units", units, remedy)
    model, at_node = _made(part, name, words, node, hardware, known)
    cost = _cost(part, model, role)
    # every cell of an array counts; adders and buffers are paid for by what they do
    found = {role.energy: cost.energy * (units if part == "array" else 1)}
    if role.area is not None:
        found[role.area] = 1e6 * units * model.area  # from m^2
    if role.speed is not None:
        speed = cost.throughput if part == "converter" else cost.latency
        # parts that say nothing of time leave it as it was
        if 0 < speed < math.inf:
            found[role.speed] = speed
    place = f" at {node} nm" if at_node else ""
    return found, f"hwcomponents: {type(model).__name__}{place}"


def _made(
    part: str,
    name: object,
    words: dict[str, Any],
    node: str,
    hardware: Hardware,
    known: Mapping[str, Any],
) -> tuple[Any, bool]:
    """Makes a component; says whether it goes by its node.

    Args:
      words: its arguments in the file.
    """
    check_kind(part, name, str, "give the name of a component, converter = 'IsaacADC'")
    kind = known.get(str(name).lower())
    if kind is None:
        near = difflib.get_close_matches(str(name).lower(), known, 5, 0.5)
        like = ", ".join(dict.fromkeys(known[one].__name__ for one in near))
        raise ValueError(
            f"`{part}` is {name!r}, which hwcomponents does not have"
            f"{f'; near it are {like}' if like else ''}; the command `hwc --list` lists all."
        )
    takes = [one for one in inspect.signature(kind.__init__).parameters if one != "self"]
    unknown = [word for word in words if word not in takes]
    if unknown:
        raise ValueError(
            f"`{part}`: {kind.__name__} has no argument `{unknown[0]}`; it takes "
            f"{', '.join(takes)}."
        )
    offered = {"tech_node": float(f"{node}e-9"), **_offered(part, hardware)}
    arguments = {word: value for word, value in offered.items() if word in takes} | words
    try:
        made = kind(**arguments)
    except Exception as error:  # whatever a library of many authors raises
        raise ValueError(
            f"`{part}`: {kind.__name__} says {error}; it takes {', '.join(takes)}."
        ) from error
    return made, "tech_node" in takes and "tech_node" not in words


def _offered(part: str, hardware: Hardware) -> dict[str, Any]:
    """Gives what hardware knows of the arguments of a component."""
    reading, columns = hardware.reading, hardware.arrays.columns
    if part == "array":
        wide = {} if columns is None else {"cols": columns, "cols_active_at_once": columns}
        times = {"cycle_period": reading.read_time, "read_pulse_width": reading.read_time}
        return {"rows": hardware.arrays.rows, **wide, **times}
    if part == "converter":
        bits = reading.converter_bits
        return {"resolution": bits, "n_bits": bits, "throughput": reading.converter_rate}
    if part == "driver":  # inputs come bit by bit
        return {"resolution": 1, "n_bits": 1}
    if part == "shift_add":
        sums = {"n_bits": reading.converter_bits, "shift_register_n_bits": reading.output_bits}
        return {**sums, "cycle_period": 1 / reading.converter_rate}
    return {}


def _cost(part: str, model: Any, role: _Role) -> Any:
    """Gives the energy, latency and throughput of what a component does."""
    kind = type(model).__name__
    has = [action for action in role.actions if action in model.get_action_names()]
    if not has:
        raise ValueError(
            f"`{part}`: {kind} does none of {', '.join(role.actions)}; choose another component."
        )
    act = getattr(model, has[0])
    try:
        return act(bits_per_action=1) if role.per_bit else act()
    except TypeError as error:
        raise ValueError(
            f"`{part}`: {kind} says {error}; choose a component with an energy"
            f"{' of a bit' if role.per_bit else ''}."
        ) from error
    except Exception as error:  # its own, such as of a program that it runs
        raise ValueError(f"`{part}`: {kind} says {error}; choose another component.") from error
