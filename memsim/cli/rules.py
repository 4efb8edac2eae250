"""The options that go together: a table for each command, one rule for all of them."""

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["PLAN_RULES", "PROGRAM_RULES", "REPORT_RULES", "Rule", "check_rules"]


class Rule(NamedTuple):
    """The demands of one option on the others. Options count where the user typed them.

    Attributes:
      option: such as `--scheme`; `*` stands for the command itself.
      why: a clause that ends without a full stop.
      needs: at least one of these must be there too.
      excludes: none of these may be there.
    """

    option: str
    why: str
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


_CROSSBARS = (
    "--hardware", "--rows", "--columns", "--bits", "--cell-bits", "--encoding", "--crossbars",
    "--schedule", "--scale-per",
)  # fmt: skip
_SELECTION = ("--include", "--exclude", "--map")
_RATES = ("--stuck-at-0", "--stuck-at-1")

_FAULTS = Rule("--faults", "a fault map says which cells are stuck", excludes=_RATES)

REPORT_RULES = (
    Rule("--keep-placement", "places are kept from an older version", needs=("--from",)),
    *(
        Rule(option, f"{what} are of the lifetime", needs=("--lifetime",))
        for option, what in (
            ("--cost", "prices"),
            ("--scheme", "write times and energies of one scheme"),
            ("--levelling", "rotations"),
            ("--spares", "spare rows"),
        )
    ),
    Rule("--scheme", "it is a scheme of writing these cells", needs=("--cells",)),
    Rule(
        "--lifetime",
        "a network that is deployed once is not streamed, and its cells do not wear out",
        excludes=("--from",),
    ),
    Rule("--batch", "a pass serves inferences", needs=("--positions",)),
    Rule(
        "--evaluate",
        "it is of chips that hold one network, not one deployed over another",
        excludes=("--from",),
    ),
    _FAULTS,
    Rule("--force", "it replaces files", needs=("--json", "--html", "--png", "--svg", "--pdf")),
)

PROGRAM_RULES = (
    Rule(
        "*",
        "give one of them, which says where the weights go",
        needs=("--policy", "--plan"),
    ),
    Rule("--plan", "a plan brings its policy", excludes=("--policy",)),
    Rule("--plan", "a plan brings its crossbars", excludes=_CROSSBARS),
    Rule("--plan", "a plan brings its weight matrices", excludes=_SELECTION),
    Rule("--chip", "a chip brings its own stuck cells", excludes=("--faults", *_RATES)),
    Rule("--chip", "a chip brings its own draws", excludes=("--seed",)),
    _FAULTS,
)

PLAN_RULES = (
    Rule(
        "*",
        "a plan takes --policy, or --max-drop with --evaluate MODULE:FUNCTION",
        needs=("--policy", "--max-drop"),
    ),
    Rule(
        "--max-drop",
        "a plan takes --policy, or --max-drop with --evaluate MODULE:FUNCTION, which says how "
        "accurate the network is",
        needs=("--evaluate",),
    ),
    Rule("--minimise", "it is within a budget of accuracy", needs=("--max-drop",)),
    Rule("--evaluate", "accuracy is measured to keep to a budget", needs=("--max-drop",)),
    Rule("--json", "it is written of the search for a budget", needs=("--max-drop",)),
    Rule("--seed", "a plan without a search draws nothing", needs=("--max-drop",)),
    Rule("--chip", "a chip brings its own stuck cells", excludes=("--faults",)),
)


def check_rules(rules: Iterable[Rule], given: frozenset[str]) -> None:
    """Checks that the options a user typed go together.

    Args:
      rules: of the command.
      given: the options that were typed, see `given_options`.

    Raises:
      ValueError: an option without one that it needs, or beside one that it excludes; the first
        rule that is broken is told.
    """
    for rule in rules:
        if rule.option != "*" and rule.option not in given:
            continue
        if rule.needs and not given.intersection(rule.needs):
            needed = _either(rule.needs)
            if rule.option == "*":
                raise ValueError(f"Neither {needed.replace(' or ', ' nor ')} is given: {rule.why}.")
            raise ValueError(
                f"`{rule.option}` needs {needed}: {rule.why}; give {needed.replace('`', '')} too, "
                f"or leave {rule.option} out."
            )
        against = [option for option in rule.excludes if option in given]
        if against:
            raise ValueError(
                f"{_both(against)} beside `{rule.option}` cannot apply: {rule.why}; leave "
                f"{_both(against).replace('`', '')} out."
            )


def _either(options: Iterable[str]) -> str:
    return " or ".join(f"`{option}`" for option in options)


def _both(options: Iterable[str]) -> str:
    return " and ".join(f"`{option}`" for option in options)
