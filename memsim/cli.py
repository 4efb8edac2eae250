"""The command line: `memsim report`, `memsim program`, `memsim plan`."""

import rich.console
import typer

from memsim.commands.plan import plan_command
from memsim.commands.program import program_command
from memsim.commands.report import report_command

app = typer.Typer(
    help="Count what it costs to program a neural network onto memristive crossbars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
