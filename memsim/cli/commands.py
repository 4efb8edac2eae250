"""The command line: its commands, and what they have in common."""

from typing import Annotated

import typer

from memsim import __version__
from memsim.cli.advise_command import run_advise
from memsim.cli.diff_command import run_diff
from memsim.cli.failures import debug, guarded, run_app
from memsim.cli.options import flag
from memsim.cli.plan_command import run_plan
from memsim.cli.program_command import run_program
from memsim.cli.report_command import run_report
from memsim.cli.show_command import run_show
from memsim.report.terminal import accept_any_text

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
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
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            metavar="",
            help="print the version",
        ),
    ] = False,
    show_failures: Annotated[bool, flag("--debug", "show where a failure happened")] = False,
) -> None:
    """Count what it costs to program a neural network onto memristive crossbars."""
    debug.set(show_failures)


app.command("report")(guarded(run_report))
app.command("program")(guarded(run_program))
app.command("plan")(guarded(run_plan))
app.command("advise")(guarded(run_advise))
app.command("show")(guarded(run_show))
app.command("diff")(guarded(run_diff))


def main() -> None:
    """Runs the command line; see `guarded` for how it fails."""
    accept_any_text()
    run_app(app)
