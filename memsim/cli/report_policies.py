"""Options of `memsim report` that say under which policies what is programmed, and over what."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from memsim.cli import options
from memsim.policies import Policy
from memsim.report.texts import printable

__all__ = ["PolicyOptions"]

_DEFAULT_POLICIES = ("unsorted", "sws", "matched")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """The policies, and the programming that they are counted in."""

    policy: Annotated[
        list[str],
        typer.Option(
            help="repeatable: unsorted, sws, sws-layer, matched:tolerance=T, flip-n-write, aras; "
            "the first four also with bit stucking, as sws+stuck:p=0.5,low=3; or your own, as "
            "module:Class",
            show_default=", ".join(_DEFAULT_POLICIES),
            autocompletion=options.complete_policy,
            rich_help_panel=options.POLICY,
        ),
    ] = dataclasses.field(default_factory=list)
    old: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="OLD",
            help="count deploying CKPT over this version of it",
            rich_help_panel=options.POLICY,
        ),
    ] = None
    keep_placement: Annotated[
        bool,
        options.flag(
            "--keep-placement", "new weights take the places of the old ones", options.POLICY
        ),
    ] = False
    passes: Annotated[
        int | None,
        typer.Option(
            help="times the network is programmed",
            show_default="1; 2 with --lifetime",
            rich_help_panel=options.POLICY,
        ),
    ] = None

    def policies(self) -> dict[str, Policy]:
        """Reads the policies, by their names as typed.

        Raises:
          ValueError: none such, or one given twice.
        """
        names = self.policy or list(_DEFAULT_POLICIES)
        if len(set(names)) < len(names):
            raise ValueError(f"`--policy` names {_repeated(names)} twice; give each policy once.")
        return {name: options.parse_policy(name) for name in names}

    @property
    def title(self) -> str:
        """The heading of what is counted."""
        if not self.old:
            return "Cell writes to program the network"
        placed = "in the places of the old weights" if self.keep_placement else "placed afresh"
        old = printable(self.old.name)
        return f"Cell writes to deploy the network over {old}, weight stationary, {placed}"

    def old_json(self, document: dict[str, Any]) -> None:
        """Adds to the JSON of a report over which older version it is, if it is over one."""
        if self.old:
            document["from"] = options.path_text(self.old)
            document["keep_placement"] = self.keep_placement


def _repeated(names: Iterable[str]) -> str:
    return ", ".join(name for name, count in Counter(names).items() if count > 1)
