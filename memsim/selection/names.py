"""Names of the tensors of a network, and the order in which they are programmed."""

import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["in_natural_order", "is_floating", "leaf_name", "named_leaves", "natural_key"]


def leaf_name(path: tuple[Any, ...]) -> str:
    """Joins the path of a pytree leaf by `/`; a trailing `value` (Flax NNX) is dropped."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return re.sub(r"[./]value$", "", name)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts `layer1.2` before `layer1.10`: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names as layers are programmed."""
    return sorted(names, key=natural_key)


def is_floating(leaf: Any) -> bool:
    """Tells whether `leaf` is an array of a floating dtype, bfloat16 included."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Gives every leaf of a pytree under its name.

    Raises:
      ValueError: two leaves have one name.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = leaf_name(path)
        if name in leaves:
            raise ValueError(f"Two tensors are called `{name}`; names tell layers apart.")
        leaves[name] = leaf
    return leaves
