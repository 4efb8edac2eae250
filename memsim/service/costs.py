"""Prices a service, from its inputs: every figure beside the formula that it came from."""

import ast
import dataclasses
import math
import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from memsim._checks import check_kind, check_number, check_positive
from memsim.service.lifetime import MEDIAN_ENDURANCE, Endurance, Lognormal, Weibull

__all__ = [
    "LAWS",
    "Costs",
    "Figure",
    "ServiceInputs",
    "make_service_inputs",
    "read_service_inputs",
    "total_cost",
    "work_out_all",
]

LAWS: dict[str, type[Lognormal] | type[Weibull]] = {"lognormal": Lognormal, "weibull": Weibull}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """Holds what a service takes and pays. Every default is a placeholder: nobody's price.

    Attributes:
      inferences_per_day: of the service.
      batch: inferences per programming of the network.
      chip_price: of a chip, installed.
      energy_price: of a kWh.
      read_joules: energy of an inference beside writing.
      service_years: after which a chip is replaced even if it still works.
      currency: of both prices.

    Raises:
      ValueError: a number that is negative or not finite; a rate, a batch or years of none.
    """

    inferences_per_day: float = 10_000
    batch: int = 1
    chip_price: float = 100.0
    energy_price: float = 0.2
    read_joules: float = 1e-3
    service_years: float = 5.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is str:
                if not isinstance(value, str):
                    raise ValueError(f"`{field.name}` is {value!r}; give a text in quotes.")
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:  # also refuses NaN
                raise ValueError(f"`{field.name}` is {value!r}; give a number from 0.")
        for name in ("inferences_per_day", "service_years"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` is 0; give a positive number.")
        if self.batch < 1 or self.batch != int(self.batch):
            raise ValueError(f"`batch` is {self.batch!r}; give a whole number from 1.")


class ServiceInputs(NamedTuple):
    """Holds what lifetime and cost are computed from, beside the counts.

    Attributes:
      endurance: of a cell, in cycles.
      costs: of the service.
      placeholders: names of what is a default without a source.
      given: names of what is no default.
    """

    endurance: Endurance
    costs: Costs
    placeholders: tuple[str, ...]
    given: tuple[str, ...]


class Figure(NamedTuple):
    """Holds a number, and where it comes from.

    Attributes:
      value: infinity where nothing wears out.
      unit: of it, empty for a plain number.
      formula: in Python's notation.
      inputs: the numbers in it, by name.
    """

    value: float
    unit: str
    formula: str
    inputs: dict[str, float]


# name: (unit, formula of what is above it and of the inputs); `$` is the currency
_FORMULAS = {
    "programmings_per_day": ("1/day", "inferences_per_day / batch"),
    "chips": ("", "max(1, ceil(programmings_per_day * write_seconds / 86400))"),
    "lifetime_years": (
        "years", "programmings_until_failure * chips / programmings_per_day / 365.25"
    ),
    "replaced_after": ("years", "min(lifetime_years, service_years)"),
    "write_energy": ("kWh/year", "programmings_per_day * 365.25 * write_joules / 3.6e6"),
    "read_energy": ("kWh/year", "inferences_per_day * 365.25 * read_joules / 3.6e6"),
    "hardware_cost": ("$/year", "chips * chip_price / replaced_after"),
    "energy_cost": ("$/year", "(write_energy + read_energy) * energy_price"),
    "total_cost": ("$/year", "hardware_cost + energy_cost"),
    "cost_per_million": ("$/10^6 inferences", "total_cost / 365.25 / inferences_per_day * 1e6"),
}  # fmt: skip


# what a formula may do with its numbers
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "ceil": math.ceil}


def read_service_inputs(path: Path, cells: str = "hfo2") -> ServiceInputs:
    """Reads a TOML file of the tables `endurance` and `cost`; what it lacks is a default.

    Args:
      path: its keys are `law` and the fields of `Lognormal` or `Weibull`, and those of `Costs`.
      cells: whose median endurance is the default, see `MEDIAN_ENDURANCE`.

    Raises:
      ValueError: no TOML; a table, key or value that there is not.
      OSError: no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`cost` {path} is not a file; check the path.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(
                f"{path}: `{name}` stands by itself; put it below [endurance] or [cost]."
            )
    try:
        _check_keys("table", tables, ("endurance", "cost"))
        return make_service_inputs(tables.get("endurance", {}), tables.get("cost", {}), cells)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def make_service_inputs(
    endurance: Mapping[str, Any] = {}, costs: Mapping[str, Any] = {}, cells: str = "hfo2"
) -> ServiceInputs:
    """Takes the inputs that are given, and the defaults of the others.

    Example:
      >>> make_service_inputs({"median": 1e4}).endurance.median
      10000.0

    Args:
      endurance: of a cell: `law`, and fields of `Lognormal` or `Weibull`; `median` is in cycles.
      costs: fields of `Costs`.
      cells: whose median endurance is the default, see `MEDIAN_ENDURANCE`.

    Raises:
      ValueError: a law, name or value that there is not.
    """
    fields = {"law": "lognormal", "median": MEDIAN_ENDURANCE[cells], **endurance}
    name = fields.pop("law")
    if name not in tuple(LAWS):  # also refuses what is no text
        raise ValueError(f"`law` is {name!r}; choose one of {', '.join(LAWS)}.")
    law = LAWS[name]
    _check_keys("key of [endurance]", fields, _names(law))
    _check_keys("key of [cost]", costs, _names(Costs))
    given = [f"endurance.{name}" for name in endurance] + [f"cost.{name}" for name in costs]
    guessed = [f"endurance.{name}" for name in ("law", *law.placeholders)]
    guessed += [f"cost.{name}" for name in _names(Costs) if name != "currency"]
    placeholders = [name for name in guessed if name not in given]
    return ServiceInputs(law(**fields), Costs(**costs), tuple(placeholders), tuple(given))


def total_cost(
    programmings: float, write_joules: float, write_seconds: float, costs: Costs
) -> dict[str, Figure]:
    """Prices a year of a service, step by step: every figure after those that it is made of.

    Chips are replaced when they fail. Where one is too slow to be written so often, several share
    the inferences.

    Args:
      programmings: until a chip fails, by whatever is called failure.
      write_joules, write_seconds: of one programming, J and s.
      costs: the other inputs.

    Raises:
      ValueError: `programmings` that are not positive; what takes less than nothing.
    """
    if programmings != math.inf:  # of a chip that is never written again
        check_positive("programmings", programmings, "a chip that is of use lasts longer")
    check_number("write_joules", write_joules, "give joules from 0", 0)
    check_number("write_seconds", write_seconds, "give seconds from 0", 0)
    check_kind("costs", costs, Costs, "give a memsim.service.Costs")
    inputs = dataclasses.asdict(costs) | {
        "programmings_until_failure": float(programmings),
        "write_joules": write_joules,
        "write_seconds": write_seconds,
    }
    return work_out_all(_FORMULAS, inputs)


def work_out_all(
    formulas: Mapping[str, tuple[str, str]], inputs: Mapping[str, Any]
) -> dict[str, Figure]:
    """Works out formulas, each of the inputs and of those above it.

    Args:
      formulas: (unit, formula) by the name of the figure; `$` in a unit is the currency.
      inputs: numbers by name, and the `currency`.

    >>> inputs = {"width": 3.0, "currency": "USD"}
    >>> work_out_all({"area": ("m^2", "width * 2")}, inputs)["area"].value
    6.0
    """
    known = dict(inputs)
    currency, figures = known.pop("currency"), {}
    for name, (unit, formula) in formulas.items():
        # what is shown is what is computed: the text itself is read and worked out
        tree = ast.parse(formula, mode="eval").body
        words = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        named = {word: known[word] for word in words if word not in _FUNCTIONS}
        known[name] = float(_work_out(tree, named))
        figures[name] = Figure(known[name], unit.replace("$", currency), formula, named)
    return figures


def _work_out(node: ast.expr, named: Mapping[str, float]) -> float:
    """Works out a formula of numbers, names, + - * / and the functions in `_FUNCTIONS`."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            return named[name]
        case ast.BinOp(left=left, op=sign, right=right):
            return _OPERATIONS[type(sign)](_work_out(left, named), _work_out(right, named))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](*(_work_out(argument, named) for argument in arguments))
    raise ValueError(f"`{ast.unparse(node)}` has no place in a formula.")


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _check_keys(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"There is no {what} named `{unknown[0]}`; choose of {', '.join(known)}.")
