"""Commands that take their options as one record: a frozen dataclass, a field for each option."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

import typer

__all__ = ["filled_in", "given_options", "given_values", "with_options"]

Record = TypeVar("Record")
Result = TypeVar("Result")

_GIVEN: ContextVar[Mapping[str, Any]] = ContextVar("given options", default=MappingProxyType({}))
# Where click found a value that a user gave, now or in a report for `--again`.
_BY_USER = ("COMMANDLINE", "ENVIRONMENT", "PROMPT", "DEFAULT_MAP")


def with_options(
    record: type[Record],
) -> Callable[[Callable[[Record], Result]], Callable[..., Result]]:
    """Turns a function of a record into a command that typer can register.

    Groups of options combine by inheritance of their records. `given_options` tells the function
    which options the user typed.

    Args:
      record: a frozen, keyword-only dataclass whose fields are
        `name: Annotated[type, typer.Option(...)] = default`; `default_factory` works too.

    Returns:
      A decorator. What it gives has a parameter for each field, in their order, and the function's
      name and docstring, which is the help of the command.

    Example:
      >>> import dataclasses
      >>> from typing import Annotated
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Greeting:
      ...     name: Annotated[str, typer.Option(help="who is greeted")] = "you"
      >>> @with_options(Greeting)
      ... def greet(options: Greeting) -> str:
      ...     return f"hello {options.name}"
      >>> greet(name="me")
      'hello me'
    """
    hints = get_type_hints(record, include_extras=True)
    fields = dataclasses.fields(record)  # type: ignore[arg-type]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *(_parameter(field, hints[field.name]) for field in fields)]

    def decorate(function: Callable[[Record], Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def command(*, context: typer.Context | None = None, **values: Any) -> Result:
            fields = _given(context) if context else {f"--{name}": name for name in values}
            given = {option: values[field] for option, field in fields.items() if field in values}
            token = _GIVEN.set(given)
            try:
                return function(record(**values))
            finally:
                _GIVEN.reset(token)

        # typer goes by the signature, and by annotations where it finds no signature
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def given_options() -> frozenset[str]:
    """Tells which options the user typed for the command that runs, defaults included.

    Returns:
      Their names, such as `--rows` (of several names of an option the first).
    """
    return frozenset(_GIVEN.get())


def given_values() -> Mapping[str, Any]:
    """Gives the values of the options of `given_options`, by their names."""
    return _GIVEN.get()


def filled_in(chosen: Record, values: Mapping[str, Any]) -> Record:
    """Gives a record the values of those of its options that the user did not type.

    Args:
      chosen: of a command that runs.
      values: by field; fields that the record does not have are left out.
    """
    fields = {field.name for field in dataclasses.fields(chosen)}  # type: ignore[arg-type]
    missing = {
        name: value
        for name, value in values.items()
        if name in fields and f"--{name.replace('_', '-')}" not in given_options()
    }
    return dataclasses.replace(chosen, **missing)  # type: ignore[type-var]


def _parameter(field: "dataclasses.Field[Any]", annotation: Any) -> inspect.Parameter:
    """Makes a keyword parameter like a field of a record."""
    default = inspect.Parameter.empty
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _given(context: typer.Context) -> dict[str, str]:
    """Lists the options whose values a user gave, not the defaults, with their fields."""
    given = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name in _BY_USER:
            given[parameter.opts[0]] = name
    return given
