"""Encodings as part of the choice: policies of a report in several of them, on one baseline."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from memsim._checks import check_choice
from memsim.cli import options
from memsim.config import ENCODINGS, CrossbarConfig, Encoding
from memsim.policies import Policy
from memsim.streaming import Comparison
from memsim.summary import mean_over_chips

__all__ = ["Asked", "EncodingOptions", "Row", "compare_rows", "encodings_json"]

_BASELINE: Encoding = "twos_complement"
_CHOICES = ("all", "best")


class Row(NamedTuple):
    """One row of a report.

    Attributes:
      name: of the policy, as typed.
      policy: that one.
      config: the crossbars, with the encoding.
    """

    name: str
    policy: Policy
    config: CrossbarConfig


class Asked(NamedTuple):
    """The rows that a report is asked for.

    Attributes:
      config: the crossbars of the baseline.
      rows: by the name to show: the policy as typed, and its encoding where there are several.
      choice: `all`, `best`, or None where there is one encoding.
      left_out: why a policy has no row in an encoding, by the name that the row would have.
    """

    config: CrossbarConfig
    rows: dict[str, Row]
    choice: str | None
    left_out: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodingOptions(options.CrossbarOptions):
    """The crossbars, in one encoding or in several."""

    encoding: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(ENCODINGS)}; all compares them on one baseline, best shows "
            "the one of fewest writes for each policy",
            autocompletion=options.one_of((*ENCODINGS, *_CHOICES)),
            rich_help_panel=options.CROSSBARS,
        ),
    ] = _BASELINE

    def config(self, crossbars: str = "1") -> CrossbarConfig:
        """Gives the config of these crossbars; of several encodings, that of the baseline."""
        check_choice("encoding", self.encoding, (*ENCODINGS, *_CHOICES))
        if self.encoding in _CHOICES:
            return dataclasses.replace(self, encoding=_BASELINE).config(crossbars)
        return super().config(crossbars)

    def asked(self, policies: Mapping[str, Policy], crossbars: str) -> Asked:
        """Combines policies with encodings.

        Args:
          policies: by their names as typed.
          crossbars: how many where the user does not say.

        Raises:
          ValueError: a policy that goes with no encoding.
        """
        config = self.config(crossbars)
        if self.encoding not in _CHOICES:
            rows = {name: Row(name, policy, config) for name, policy in policies.items()}
            return Asked(config, rows, None, {})
        asked = Asked(config, {}, self.encoding, {})
        for name, policy in policies.items():
            refusals = []
            for encoding in ENCODINGS:
                row = f"{name} in {encoding}"
                try:
                    config = dataclasses.replace(self, encoding=encoding).config(crossbars)
                    policy.stored_on(config)
                    policy.check(config)
                    asked.rows[row] = Row(name, policy, config)
                except ValueError as error:
                    refusals.append(error)
                    asked.left_out[row] = str(error)
            if len(refusals) == len(ENCODINGS):
                raise refusals[0]
        return asked


def compare_rows(
    asked: Asked, compare_in: Callable[..., Comparison], progress: Callable[[float, str], None]
) -> tuple[Comparison, Asked]:
    """Counts all rows, each encoding by itself and all against the baseline of the first.

    Args:
      asked: the rows.
      compare_in: `compare`, given config, policies, baseline and progress.
      progress: as that of `compare`.

    Returns:
      The comparison by row, and the rows in it: all of them, or of each policy the best.
    """
    configs = dict.fromkeys([asked.config, *(row.config for row in asked.rows.values())])
    found: dict[CrossbarConfig, Comparison] = {}
    for number, config in enumerate(configs):
        policies = {row.name: row.policy for row in asked.rows.values() if row.config == config}
        baseline = found[asked.config].baseline if found else None
        found[config] = compare_in(
            config, policies, baseline=baseline,
            progress=lambda share, stage, n=number: progress((n + share) / len(configs), stage),
        )  # fmt: skip
    counted = {row: found[each.config].policies[each.name] for row, each in asked.rows.items()}
    chosen = asked.rows
    if asked.choice == "best":
        best: dict[str, str] = {}  # row of each policy
        for row, each in asked.rows.items():
            if each.name not in best or counted[row].writes < counted[best[each.name]].writes:
                best[each.name] = row
        chosen = {row: asked.rows[row] for row in best.values()}
    steady = {
        row: found[each.config].steady[each.name]
        for row, each in chosen.items()
        if found[each.config].steady
    }
    result = found[asked.config]._replace(
        policies={row: counted[row] for row in chosen}, steady=steady
    )
    return result, asked._replace(rows=chosen)


def encodings_json(document: dict[str, Any], asked: Asked, result: Comparison) -> None:
    """Adds to the JSON of a report what several encodings take, if there are several."""
    if asked.choice is None:
        return
    document["config"]["encoding"] = asked.choice
    configs = {row.config.encoding: row.config for row in asked.rows.values()}
    document["encodings"] = {
        encoding: {"cells_per_word": config.cells_per_word, "words_per_row": config.words_per_row}
        for encoding, config in configs.items()
    }
    document["baseline"] = {
        "policy": "unsorted",
        "encoding": asked.config.encoding,
        "writes": mean_over_chips(result.baseline).writes,
    }
    document["left_out"] = asked.left_out
    for row, each in asked.rows.items():
        document["policies"][row] |= {"policy": each.name, "encoding": each.config.encoding}
