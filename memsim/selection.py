"""Which tensors of a network are weight matrices, what they are called, which axes are outputs."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)

LAYOUTS = ("auto", "torch", "flax")

# (name, tensor) -> None: stays digital; n: number of output axes (the first n of a tensor whose
# name ends in `weight`, else the last n); or the output axes themselves.
Select = Callable[[str, Any], int | tuple[int, ...] | None]

_DIGITAL = re.compile(
    r"(?i)(pos(ition)?_?emb|cls_token|\bwte\b|\bwpe\b|embed_tokens|word_embeddings"
    r"|token_type_embeddings|embedding$)"
)
_HEADS = re.compile(r"(^|[./])(query|key|value)[./]kernel$")
_TRANSPOSED = re.compile(r"(?i)(conv_?transpose|transposed?_?conv|deconv|upconv)")


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a pytree leaf: its path joined by `/`, a trailing `value` (Flax NNX) dropped."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return re.sub(r"[./]value$", "", name)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts `layer1.2` before `layer1.10`: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def is_floating(leaf: Any) -> bool:
    """Whether `leaf` is an array of a floating dtype, bfloat16 included."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


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


def output_axes(name: str, leaf: Any, selected: int | tuple[int, ...]) -> tuple[int, ...]:
    """The output axes of a selected tensor.

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
    known = all(0 <= axis < leaf.ndim for axis in selected)
    if not selected or not known or len(set(selected)) < len(selected):
        raise ValueError(
            f"`select` gave output axes {selected} for `{name}` of shape {tuple(leaf.shape)}; "
            f"return a number of output axes from 1 to {leaf.ndim}, or None to leave it digital."
        )
    return selected


def by_output(tensor: AnyArray, axes: tuple[int, ...]) -> AnyArray:
    """The weight matrix of a tensor, output-major: [outputs, inputs], each in its own order.

    Args:
      tensor: NumPy or JAX array.
      axes: its output axes.
    """
    inputs = [axis for axis in range(tensor.ndim) if axis not in axes]
    outputs = math.prod(tensor.shape[axis] for axis in axes)
    return tensor.transpose(*axes, *inputs).reshape(outputs, -1)


def from_output(matrix: AnyArray, shape: tuple[int, ...], axes: tuple[int, ...]) -> AnyArray:
    """The inverse of `by_output`: a tensor of this shape."""
    order = (*axes, *(axis for axis in range(len(shape)) if axis not in axes))
    moved = matrix.reshape([shape[axis] for axis in order])
    return moved.transpose(sorted(range(len(shape)), key=order.__getitem__))


def named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf of a pytree under its name.

    Raises:
      ValueError: two leaves of one name.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = leaf_name(path)
        if name in leaves:
            raise ValueError(f"Two tensors are called `{name}`; names tell layers apart.")
        leaves[name] = leaf
    return leaves


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted as layers are programmed."""
    return sorted(names, key=natural_key)
