"""How commands fail: one line on stderr and an exit status, no matter what."""

import functools
import os
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import jax
import typer

from memsim.report.terminal import print_problem

__all__ = ["DEFECT", "INTERRUPTED", "REFUSED", "JudgeError", "debug", "guarded", "run_app"]

Result = TypeVar("Result")

# Typer has had its own since it stopped using click's: it is found by a class that has been public.
_USAGE_ERROR: Any = next(
    each for each in typer.BadParameter.__mro__ if each.__name__ == "UsageError"
)

MISTYPED = 2  # exit status where the command line is
REFUSED = 1  # exit status where an input is wrong
DEFECT = 70  # where memsim is, as sysexits.h has it
INTERRUPTED = 130  # as shells count it

# Whether failures show where they happened.
debug: ContextVar[bool] = ContextVar("debug", default=False)

# What inputs can raise; everything else is a defect.
_INPUT_ERRORS = (ValueError, OSError, OverflowError, EOFError)


class JudgeError(RuntimeError):
    """The user's own function failed; its lines are shown, as they are the user's to mend."""


def guarded(command: Callable[..., Result]) -> Callable[..., Result]:
    """Makes a command fail in one line: `memsim: ...` on stderr, no traceback.

    Exit status 1 is a wrong input, 130 an interruption, 70 a defect. `memsim --debug` and
    MEMSIM_DEBUG=1 also show where it happened.
    """

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> Result:
        try:
            return command(*arguments, **options)
        except JudgeError:
            raise
        except KeyboardInterrupt:
            raise _failed("interrupted", INTERRUPTED) from None
        except Exception as error:
            raise _failed(*_told(error)) from None

    return run


def run_app(app: typer.Typer) -> NoReturn:
    """Runs the command line on what was typed; a wrong option is told in one line, status 2."""
    try:
        status = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "memsim COMMAND"
        told = error.format_message().rstrip(".")
        print_problem(f"{told}{_typed(error, told)}; {command} --help lists what it takes.")
        raise SystemExit(MISTYPED) from None
    except typer.Abort:
        raise _failed("interrupted", INTERRUPTED) from None
    raise SystemExit(status or 0)


def _typed(error: Exception, told: str) -> str:
    """Gives what was typed for the option of an error, where that does not say it."""
    names = getattr(getattr(error, "param", None), "opts", [])
    # both `--rows x` and `--rows=x`
    words = sys.argv[1:]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option in names and f"'{value}'" not in told:
            return f" ('{value}' was typed)"
    return ""


def _told(error: Exception) -> tuple[str, int]:
    """Gives what to say of an error, and the exit status."""
    exhausted = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    if exhausted or isinstance(error, MemoryError):
        what = (str(error).splitlines() or [""])[0]
        remedy = "give fewer --rows, --crossbars, --chips or --passes"
        return f"out of memory ({what or type(error).__name__}); {remedy}.", REFUSED
    if isinstance(error, _INPUT_ERRORS):
        return str(error) or type(error).__name__, REFUSED
    return (
        f"unexpected {type(error).__name__}: {error}. This is a defect of memsim, or of code that "
        "an option named; MEMSIM_DEBUG=1 shows where.",
        DEFECT,
    )


def _failed(text: str, status: int) -> SystemExit:
    if debug.get() or os.environ.get("MEMSIM_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print_problem(text)
    return SystemExit(status)
