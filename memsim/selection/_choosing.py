"""Which tensors of a network are weight matrices, what they are called, which axes are outputs."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from memsim.selection.matrices import Matrix, Reading, matrix_name, slices
from memsim.selection.names import in_natural_order, is_floating

LAYOUTS = ("auto", "torch", "flax")

# (name, tensor) -> None: stays digital; n: number of output axes (the first n of a tensor whose
# name ends in `weight`, else the last n); or the output axes themselves.
Select = Callable[[str, Any], int | tuple[int, ...] | Reading | None]

_DIGITAL = re.compile(
    r"(?i)(pos(ition)?_?emb|cls_token|\bwte\b|\bwpe\b|embed_tokens|word_embeddings"
    r"|token_type_embeddings|embedding$)"
)
_HEADS = re.compile(r"(^|[./])(query|key|value)[./]kernel$")
_TRANSPOSED = re.compile(r"(?i)(conv_?transpose|transposed?_?conv|deconv|upconv)")


def select_by_name(
    layout: str = "auto",
    include: str | None = None,
    exclude: str | None = None,
    transposed: str | None = None,
) -> Select:
    """The default rule, and the command line's options on it.

    Selects every floating tensor of two or more dimensions whose name ends in `weight` or `kernel`,
    except embeddings. `weight` is [out, in, ...] as torch stores it (its transposed convolutions
    [in, out, ...]); `kernel` is [..., in, out] as Flax does (query, key and value kernels
    [in, heads, head_dim]).

    Args:
      layout: `torch` or `flax` for every tensor, whatever its name; `auto` goes by the name.
      include: regular expression; only names in which it is found, embeddings among them.
      exclude: regular expression; not the names in which it is found.
      transposed: regular expression; these torch weights are transposed convolutions too.

    Raises:
      ValueError: another `layout`, or an expression that does not compile.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` is {layout!r}; choose one of {', '.join(LAYOUTS)}.")
    included = _compile("include", include)
    excluded = _compile("exclude", exclude)
    named_transposed = _compile("transposed", transposed)

    def select(name: str, leaf: Any) -> int | tuple[int, ...] | None:
        if not is_floating(leaf) or leaf.ndim < 2 or not name.endswith(("weight", "kernel")):
            return None
        if not (included.search(name) if included else not _DIGITAL.search(name)):
            return None
        if excluded and excluded.search(name):
            return None
        if layout == "flax" or (layout == "auto" and name.endswith("kernel")):
            return 2 if _HEADS.search(name) and leaf.ndim == 3 else (leaf.ndim - 1,)
        is_transposed = named_transposed.search(name) if named_transposed else None
        if is_transposed or (leaf.ndim >= 3 and _TRANSPOSED.search(name)):
            return (1,)
        return (0,)

    return select


def _compile(argument: str, expression: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(expression) if expression is not None else None
    except re.error as error:
        raise ValueError(
            f"`{argument}` is {expression!r}, not a regular expression: {error}."
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
    for name in leaves:
        if (selected := select(name, leaves[name])) is None:
            continue
        reading = reading_of(name, leaves[name], selected)
        whole = Matrix(shape=tuple(leaves[name].shape), axes=reading.axes, stacked=reading.stacked)
        for matrix in slices(whole):
            named = matrix_name(name, matrix.index)
            if named in chosen:
                raise ValueError(f"Two matrices are called `{named}`; names tell layers apart.")
            chosen[named] = Selected(name, matrix)
    if not chosen:
        some = ", ".join(list(leaves)[:4]) + (", ..." if len(leaves) > 4 else "")
        raise ValueError(
            f"None of {len(leaves)} tensors ({some}) is chosen as a weight matrix: by default "
            "names end in `weight` or `kernel` and have two or more dimensions. Rename, or choose "
            "others with `select`; `include` and `exclude` (--include, --exclude) only narrow the "
            "choice."
        )
    return {name: chosen[name] for name in in_natural_order(chosen)}
