"""The input vectors that every layer of a network sees in an inference, found by tracing it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core
from jaxtyping import PyTree

from memsim.selection import Select, named_leaves, select_by_name, select_layers

__all__ = ["find_positions"]

# What only moves or scales the numbers of one tensor leaves it that tensor.
_CARRY = frozenset(
    {
        "broadcast_in_dim", "convert_element_type", "copy", "div", "dynamic_slice", "mul", "neg",
        "optimization_barrier", "reshape", "rev", "slice", "squeeze", "stop_gradient", "transpose",
    }
)  # fmt: skip
# The tensors that values stand for, by variable.
_Tensors = dict[Any, str]


def find_positions(
    apply: Callable[..., Any],
    params: PyTree,
    *inputs: Any,
    select: Select | None = None,
) -> dict[str, int]:
    """Finds the input vectors of every layer, from the products that the network takes.

    Nothing is computed. A tensor is followed through changes of its shape and dtype, slices,
    scaling, `jit` and `scan` up to the products that it is part of; as many multiply-adds as it has
    weights are one input vector.

    Args:
      apply: `(params, *inputs) -> anything`, of JAX.
      params: pytree of arrays or shapes.
      inputs: of one inference; arrays or shapes, such as `jax.ShapeDtypeStruct`.
      select: see `plan`.

    Returns:
      Input vectors of one inference by layer, 1 for a dense layer.

    Raises:
      ValueError: a layer whose products are not found, or are no whole number of vectors.

    >>> import numpy as np
    >>> params = {"fc": {"kernel": np.ones((3, 2), np.float32)}}
    >>> find_positions(lambda p, x: x @ p["fc"]["kernel"], params, np.ones((5, 3), np.float32))
    {'fc/kernel': 5}
    """
    if not callable(apply):
        raise ValueError(
            f"`apply` is a {type(apply).__name__}; give a function (params, *inputs) -> outputs."
        )
    leaves = named_leaves(params)
    jaxpr = jax.make_jaxpr(apply)(params, *inputs).jaxpr
    found: Counter[str] = Counter()
    _count(jaxpr, dict(zip(jaxpr.invars, leaves, strict=False)), 1, found)
    positions = {}
    selected = select_layers(leaves, select_by_name() if select is None else select)
    for name, (tensor, _) in selected.items():
        vectors, rest = divmod(found[tensor], math.prod(leaves[tensor].shape))
        if rest or not vectors:
            what = "parts of it see more" if found[tensor] else "no product with it was found"
            raise ValueError(
                f"`apply` does not say how many input vectors {name!r} sees ({what}); give its "
                "positions by hand."
            )
        positions[name] = vectors
    return positions


def _count(jaxpr: Any, tensors: _Tensors, times: int, found: Counter[str]) -> None:
    """Adds the multiply-adds with each tensor.

    Args:
      jaxpr: to look through.
      tensors: what its inputs stand for; changed.
      times: how often it runs.
      found: multiply-adds by tensor; changed.
    """
    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, equation.invars
        known = [tensors[x] for x in operands if not isinstance(x, core.Literal) and x in tensors]
        if name in ("dot_general", "conv_general_dilated") and len(known) == 1:
            found[known[0]] += times * _multiply_adds(equation)
        elif name in _CARRY and len(set(known)) == 1:
            tensors[equation.outvars[0]] = known[0]
        if name in ("cond", "while") and known:
            raise ValueError(
                f"`apply` uses {known[0]!r} in a `{name}`, and it is not known how often that "
                "runs; give its positions by hand."
            )
        for inner, repeats, arguments in _inner(equation):
            inside = {
                variable: tensors[argument]
                for variable, argument in zip(inner.invars, arguments, strict=False)
                if not isinstance(argument, core.Literal) and argument in tensors
            }
            _count(inner, inside, times * repeats, found)
            # what a call hands back is what it was given, or a view of it
            for outer, result in zip(equation.outvars, inner.outvars, strict=False):
                if repeats == 1 and not isinstance(result, core.Literal) and result in inside:
                    tensors[outer] = inside[result]


def _multiply_adds(equation: Any) -> int:
    """Counts the multiply-adds of a product."""
    made = math.prod(equation.outvars[0].aval.shape)
    left, right = (operand.aval.shape for operand in equation.invars[:2])
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return int(made * math.prod(left[axis] for axis in contracted))
    outputs = right[equation.params["dimension_numbers"].rhs_spec[0]]
    return int(made * math.prod(right) // outputs)


def _inner(equation: Any) -> list[tuple[Any, int, Sequence[Any]]]:
    """Lists the programs in an equation: (program, how often it runs, its arguments)."""
    params: Mapping[str, Any] = equation.params
    if equation.primitive.name == "scan":
        return [(params["jaxpr"].jaxpr, params["length"], equation.invars)]
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in params:
            inner = params[name]
            return [(getattr(inner, "jaxpr", inner), 1, equation.invars)]
    return []
