"""The command line: `memsim report`, `memsim program`, `memsim plan`."""

from typing import Annotated

import rich.console
import typer

from memsim import __version__
from memsim.cli.plan_command import plan_command
from memsim.cli.program_command import program_command
from memsim.cli.report_command import report_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Count what it costs to program a neural network onto memristive crossbars."""


app.command("report")(report_command)
app.command("program")(program_command)
app.command("plan")(plan_command)


def main() -> None:
    """Runs the command line; a wrong input is one line on stderr and exit status 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        rich.console.Console(stderr=True, soft_wrap=True).print(
            f"memsim: {error}", style="red", highlight=False, markup=False
        )
        raise SystemExit(1) from None
