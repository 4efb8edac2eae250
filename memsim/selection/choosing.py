"""Choice of the tensors that are weight matrices, and of how each is read."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from memsim._checks import check_kind
from memsim.selection._families import read_by_file, read_by_name
from memsim.selection.layouts import check_layout, read_layout
from memsim.selection.matrices import Matrix, Reading, matrix_name, slices
from memsim.selection.names import in_natural_order, is_floating

__all__ = [
    "ByName",
    "Rule",
    "Select",
    "Selected",
    "reading_of",
    "select_by_name",
    "select_layers",
    "with_layouts",
]

# (name, tensor) -> None: stays digital; n: number of output axes (the first n of a tensor whose
# name ends in `weight`, else the last n); the output axes themselves; or a reading.
Select = Callable[[str, Any], int | tuple[int, ...] | Reading | None]
"""Says of a tensor, by name and leaf, which axes are outputs; None leaves it digital."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule for reading the tensors in whose names `pattern` is found are read.

    Attributes:
      pattern: regular expression.
      layout: see `LAYOUTS`; or the reading itself.

    >>> Rule.parse("lstm.*weight=out-in")
    Rule(pattern='lstm.*weight', layout='out-in')
    """

    pattern: str
    layout: str | Reading

    def __post_init__(self) -> None:
        _compile("map", self.pattern)
        if isinstance(self.layout, str):
            check_layout(self.layout)

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Reads `RE=LAYOUT`.

        Raises:
          ValueError: it is not of this form.
        """
        pattern, equals, layout = text.rpartition("=")
        if not equals or not pattern:
            raise ValueError(
                f"`map` has {text!r}; give RE=LAYOUT, as in 'lstm.*weight=out-in' (command line: "
                "--map)."
            )
        return cls(pattern, layout)

    def found_in(self, name: str, leaf: Any) -> bool:
        """Tells whether this rule is one for a tensor: floating, of two or more dimensions."""
        return is_floating(leaf) and leaf.ndim >= 2 and bool(re.search(self.pattern, name))

    def read(self, name: str, leaf: Any) -> Reading | None:
        """Reads a tensor by this rule.

        Raises:
          ValueError: the layout does not fit its number of dimensions.
        """
        if isinstance(self.layout, Reading):
            return self.layout
        return read_layout(self.layout, name, tuple(leaf.shape))


@dataclasses.dataclass(frozen=True)
class ByName:
    """The default `Select`, which `select_by_name` makes.

    Called with one tensor it sees that one alone; `select_layers` shows it the whole network, where
    biases and other layers tell more.
    """

    include: str | None = None
    exclude: str | None = None
    rules: tuple[Rule, ...] = ()
    layouts: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __call__(self, name: str, leaf: Any) -> Reading | None:
        """Reads one tensor; None leaves it digital."""
        return self.read(name, {name: leaf})

    def read(self, name: str, leaves: Mapping[str, Any]) -> Reading | None:
        """Reads one tensor of a network; None leaves it digital.

        Raises:
          ValueError: name and shape leave a doubt, or a rule does not fit.
        """
        leaf = leaves[name]
        # rules first, then what narrows the choice, then the file, then the families
        if (rule := self.rule_of(name, leaf)) is not None:
            return rule.read(name, leaf)
        if not is_floating(leaf) or leaf.ndim < 2:
            return None
        if self.include is not None and not re.search(self.include, name):
            return None
        if self.exclude is not None and re.search(self.exclude, name):
            return None
        if name in self.layouts:
            return read_by_file(name, tuple(leaf.shape), self.layouts[name])
        return read_by_name(name, leaf, leaves, tables=self.include is not None)

    def rule_of(self, name: str, leaf: Any) -> Rule | None:
        """Gives the first rule that is one for a tensor."""
        return next((rule for rule in self.rules if rule.found_in(name, leaf)), None)

    def check_rules(self, leaves: Mapping[str, Any]) -> None:
        """Checks that every rule decides about a tensor.

        Raises:
          ValueError: one does not.
        """
        deciding = {self.rule_of(name, leaf) for name, leaf in leaves.items()}
        for rule in self.rules:
            if rule not in deciding:
                raise ValueError(
                    f"`map` has the expression {rule.pattern!r}, which decides about none of "
                    f"{len(leaves)} tensors: it is found in no name of a floating tensor of two or "
                    "more dimensions, or rules before it are; mend it or leave it out."
                )


def select_by_name(
    *,
    include: str | None = None,
    exclude: str | None = None,
    map: Sequence[str | Rule] = (),
    layouts: Mapping[str, str] | None = None,
) -> ByName:
    """Makes the default rule, and the command line's options on it.

    Selects the weight matrices of known libraries by name and shape: floating tensors of two or
    more dimensions called `weight` (torch, Equinox), `kernel` (Flax, Keras), `w` (Haiku), and a few
    more, except embedding tables, norms and tables of biases. Stacked layers, experts and depthwise
    kernels are one matrix per slice. Where name and shape leave a doubt, biases beside a tensor may
    tell; else it is an error that names `map`.

    Args:
      include: regular expression; only names in which it is found, embedding tables among them.
      exclude: regular expression; not the names in which it is found.
      map: `RE=LAYOUT` each, or `Rule`; a tensor in whose name RE is found is read as LAYOUT,
        whatever it is called; the first that is found counts, before `include` and `exclude`. See
        `LAYOUTS`.
      layouts: what a file itself tells of its tensors, by name: `Checkpoint.layouts`; it counts
        before names and shapes. `compare` and the command line take it from the checkpoint.

    Raises:
      ValueError: an expression that does not compile; no layout.

    >>> select = select_by_name(map=["embed=digital", "lstm.*weight=out-in"])
    """
    if isinstance(map, str | Rule):
        raise ValueError(f"`map` is {map!r}; give a sequence of rules, as in map=[...].")
    for argument, expression in (("include", include), ("exclude", exclude)):
        check_kind(argument, expression, (str, type(None)), "give a regular expression, or None")
        _compile(argument, expression)
    check_kind("map", map, (list, tuple), "give a list of rules")
    for rule in map:
        check_kind("map", rule, (str, Rule), "give rules such as 'embed=digital'")
    rules = tuple(rule if isinstance(rule, Rule) else Rule.parse(rule) for rule in map)
    check_kind("layouts", layouts, (Mapping, type(None)), "give layouts by name, or None")
    return ByName(include, exclude, rules, dict(layouts or {}))


def with_layouts(select: Select | None, layouts: Mapping[str, str]) -> Select:
    """Gives a choice by name that also goes by what a file tells; one of another kind stays.

    Args:
      select: None for the default.
      layouts: of the file, see `select_by_name`.
    """
    if select is None:
        return select_by_name(layouts=layouts)
    if isinstance(select, ByName) and not select.layouts:
        return dataclasses.replace(select, layouts=dict(layouts))
    return select


def _none_chosen(leaves: Mapping[str, Any], select: Select) -> str:
    """Says why nothing is a weight matrix: names, dtypes and shapes tell most of it."""

    def shown(name: str, leaf: Any) -> str:
        array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
        return (
            f"{name} {leaf.dtype} {tuple(leaf.shape)}" if array else f"{name} {type(leaf).__name__}"
        )

    some = [shown(name, leaf) for name, leaf in list(leaves.items())[:4]]
    some += ["..."] if len(leaves) > 4 else []
    narrowed = [
        f"`{argument}` {value!r}"
        for argument in ("include", "exclude")
        if isinstance(select, ByName) and (value := getattr(select, argument)) is not None
    ]
    return (
        f"None of {len(leaves)} tensors ({', '.join(some)}) is chosen as a weight matrix"
        f"{' with ' if narrowed else ''}{' and '.join(narrowed)}: by default they are arrays of "
        "floating numbers with two or more dimensions, whose names end in `weight` or `kernel`. "
        "Choose others with `map` (command line: --map RE=LAYOUT) or `select`; `include` and "
        "`exclude` (--include, --exclude) only narrow the choice."
    )


def _compile(argument: str, expression: str | None) -> None:
    try:
        re.compile(expression or "")
    except re.error as error:
        raise ValueError(
            f"`{argument}` is {expression!r}, not a regular expression: {error}; a character that "
            "stands for itself has a backslash before it."
        ) from error


def reading_of(name: str, leaf: Any, selected: int | tuple[int, ...] | Reading) -> Reading:
    """Checks what `select` gave for a tensor and spells it out.

    Raises:
      ValueError: a tensor that cannot be a weight matrix, or axes that it does not have.
    """
    if not is_floating(leaf):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise ValueError(f"`{name}` was selected but is {kind}; select floating tensors only.")
    if leaf.ndim == 0 or leaf.size == 0:
        what = "a scalar" if leaf.ndim == 0 else f"empty, shape {leaf.shape}"
        raise ValueError(f"`{name}` was selected but is {what}; return None for it in `select`.")
    if isinstance(selected, int):
        first = 0 if name.endswith("weight") else leaf.ndim - selected
        selected = tuple(range(first, first + selected))
    # every axis has one part at most
    reading = selected if isinstance(selected, Reading) else Reading(selected)
    axes = (*reading.axes, *reading.stacked)
    if (
        not reading.axes
        or len(set(axes)) < len(axes)
        or not all(0 <= axis < leaf.ndim for axis in axes)
    ):
        stacked = f" and stacked axes {reading.stacked}" if reading.stacked else ""
        raise ValueError(
            f"`select` gave output axes {reading.axes}{stacked} for `{name}` of shape "
            f"{tuple(leaf.shape)}; return a number of output axes from 1 to {leaf.ndim}, or None "
            "to leave it digital, or a `Reading` of different axes."
        )
    return reading


class Selected(NamedTuple):
    """One matrix that is mapped: the name of the tensor that holds it, and which one it is."""

    tensor: str
    matrix: Matrix


def select_layers(leaves: Mapping[str, Any], select: Select) -> dict[str, Selected]:
    """Gives every matrix that `select` chooses, by name, in natural order.

    Args:
      leaves: anything with a shape and dtype, by name.
      select: which of them are weight matrices, see `Select`.

    Raises:
      ValueError: none is chosen, or one that cannot be a weight matrix.
    """
    chosen: dict[str, Selected] = {}
    # the default rule sees the whole network, others one tensor at a time
    if not callable(select):
        raise ValueError(
            f"`select` is a {type(select).__name__}; give a function of (name, tensor), or what "
            "`select_by_name` makes."
        )
    if isinstance(select, ByName):
        select.check_rules(leaves)
    for name in in_natural_order(leaves):
        if isinstance(select, ByName):
            selected: int | tuple[int, ...] | Reading | None = select.read(name, leaves)
        else:
            selected = select(name, leaves[name])
        if selected is None:
            continue
        reading = reading_of(name, leaves[name], selected)
        whole = Matrix(shape=tuple(leaves[name].shape), axes=reading.axes, stacked=reading.stacked)
        # a stacked tensor is one matrix for each index
        for matrix in slices(whole):
            named = matrix_name(name, matrix.index)
            if named in chosen:
                raise ValueError(f"Two matrices are called `{named}`; names tell layers apart.")
            chosen[named] = Selected(name, matrix)
    if not chosen:
        raise ValueError(_none_chosen(leaves, select))
    return {name: chosen[name] for name in in_natural_order(chosen)}
