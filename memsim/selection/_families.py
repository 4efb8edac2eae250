"""The rule by name and shape: how the libraries in use store their weight matrices."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from memsim.selection import _tables
from memsim.selection._tensors import Tensor
from memsim.selection.layouts import may_fit, read_layout
from memsim.selection.matrices import Reading

__all__ = ["read_by_file", "read_by_name"]


class Doubt(NamedTuple):
    """Layouts among which name and shape do not tell; a bias beside the tensor may (`decided`)."""

    layouts: tuple[str, ...]
    decided: bool = True


Found = str | Doubt | None

_TRANSPOSED = re.compile(r"(?i)(conv_?transpose|transposed?_?conv|conv\d?_?d_transpose|deconv)")
_CHANNELS_LAST_TRANSPOSED = re.compile(r"(?i)conv\d_?d_transpose")  # Keras and Haiku
_UP = re.compile(r"(?i)(^|_)(ups?|up_?sampl\w*|up_?scal\w*)\d*$|up_?conv")
_CONV = re.compile(r"(?i)conv(\d?)_?(?:lstm)?(\d?)")
_NARROWS = re.compile(r"(?i)patch|down|stem|reduction|embed|(^|[./])sr[./]")
_DEPTHWISE = re.compile(r"(?i)depth_?wise|(^|_)dw(_|\d|$)")
_HEADS = re.compile(r"(?i)(^|_)(query|key|value|[qkv])(_proj|_kernel)?$|^w[qkv]$")
_HEADS_OUT = re.compile(r"(?i)^(out|output|o|to_out|[a-z]*_out|attention_output)(_proj)?$")
_FUSED = re.compile(r"(?i)(^|_)w?(qkv|kv|in_proj|query_key_value)(_proj|_weight)?$")
_RECURRENT = re.compile(r"^weight_(ih|hh|hr)(_l\d+)?(_reverse)?$")
_CONV1D = re.compile(r"^(c_attn|c_proj|c_fc|q_attn)$")
_EXPERT_PARTS = re.compile(
    r"^(gate_up_proj|gate_up|gate_proj|up_proj|down_proj|w[1-3]|wi(_[01])?|wo|w_(in|out|gate|up|down))$"
)
_GRANITE = re.compile(r"^(input|output)_linear$")  # experts, each [out, in]
_EINSUMS = {
    "q_einsum": "heads-in-dim",
    "kv_einsum": "stacked-heads-in-dim",
    "qkv_einsum": "stacked-heads-in-dim",
    "attn_vec_einsum": "heads-dim-out",
}


def read_by_name(
    name: str, leaf: Any, leaves: Mapping[str, Any], *, tables: bool
) -> Reading | None:
    """Reads a floating tensor of two or more dimensions as its name and shape say.

    Args:
      name, leaf: of the tensor; anything with a shape.
      leaves: the network that it belongs to, by name: biases and other layers help to tell.
      tables: whether embedding tables and norms are weight matrices too.

    Returns:
      The reading; None for a tensor that stays digital.

    Raises:
      ValueError: name and shape leave a doubt.
    """
    tensor = Tensor(name, tuple(leaf.shape), leaves)
    found = _found(tensor, tables)
    if not isinstance(found, Doubt):
        return read_layout(found, tensor.role, tensor.shape) if found else None
    # only layouts of its number of dimensions are proposed
    readings = {
        layout: read_layout(layout, tensor.role, tensor.shape)
        for layout in found.layouts
        if may_fit(layout, len(tensor.shape))
    }
    # outputs as many as the bias beside it end the doubt
    fitting = {reading for reading in readings.values() if reading and tensor.fits(reading)}
    if found.decided and len(fitting) == 1:
        return fitting.pop()
    raise _doubtful(name, tensor.shape, list(readings), "name and shape do not tell")


def read_by_file(name: str, shape: tuple[int, ...], layout: str) -> Reading | None:
    """Reads a tensor as its file says, which may name several layouts, joined by `|`.

    Returns:
      The reading; None for a tensor that stays digital.

    Raises:
      ValueError: there are several.
    """
    layouts = layout.split("|")
    if len(layouts) > 1:
        raise _doubtful(name, shape, layouts, "the file does not tell, or multiplies both ways")
    return read_layout(layout, name, shape)


def _doubtful(name: str, shape: tuple[int, ...], layouts: list[str], why: str) -> ValueError:
    choices = [layout for layout in layouts if layout != "digital"]
    return ValueError(
        f"`{name}` of shape {shape} may be {' or '.join(layouts)}: {why}. Say which with `map` "
        f"(command line: --map '^{re.escape(name)}$={choices[0]}'); digital leaves it out."
    )


def _found(tensor: Tensor, tables: bool) -> Found:
    role = tensor.role
    for applies, rule in _KINDS:
        if applies(role, tensor):
            if not tables:
                table = _tables.is_table(tensor)
                if table is None:
                    return Doubt(("digital", "out-in"), decided=False)
                if table:
                    return None
            return rule(tensor)
    return None


def _is_expert(role: str, tensor: Tensor) -> bool:
    known = _EXPERT_PARTS.match(role) and len(tensor.shape) >= 3
    return bool(known and tensor.experts)


def _is_gemma_linear(role: str, tensor: Tensor) -> bool:
    return role == "linear" and bool(tensor.beside("gating_einsum"))


# --- torch, Equinox -----------------------------------------------------------------------------


def _weight(tensor: Tensor) -> Found:
    shape, module = tensor.shape, tensor.module
    # LSTM and GRU: gates one after another are outputs
    if _RECURRENT.match(tensor.role):
        return "out-in" if len(shape) == 2 else Doubt(("out-in", "stacked-out-in"))
    if len(shape) == 2:
        conv1d = tensor.role == "weight" and _CONV1D.match(module) and not tensor.numbered
        return _conv1d(tensor) if conv1d else "out-in"
    # convolutions from here on, or stacked matrices
    one_bias = tensor.bias_shape if tensor.bias_shape and len(tensor.bias_shape) == 1 else None
    if _TRANSPOSED.search(tensor.name) or (_UP.search(module) and not tensor.points):
        # Equinox, whose names have `/`, stores these [out, in, ...]; `up` may be either
        known = _TRANSPOSED.search(tensor.name) and "/" not in tensor.name
        if known and one_bias and one_bias != shape[1:2]:  # its outputs are in several groups
            return Doubt(("in-out-window",), decided=False)
        return "in-out-window" if known else Doubt(("in-out-window", "out-in"))
    if (tensor.experts or tensor.scanned) and not _CONV.search(tensor.name):
        return _stacked_weight(tensor)
    # two inputs multiply: no matrix of one
    if "bilinear" in module.lower():
        return Doubt(("out-in", "stacked-out-in"), decided=False)
    # query, key and value one after another: three matrices
    fused = _FUSED.search(module) or _FUSED.search(tensor.role)
    if fused and len(shape) == 3 and shape[0] in (2, 3) and not tensor.points:
        return "stacked-out-in"
    if tensor.scanned or tensor.experts:
        return Doubt(("out-in", "stacked-out-in"))
    # a window of one point leaves only one reading
    if _CONV.search(tensor.name) or tensor.points:
        return "out-in"
    # a bias of the second axis alone is that of a transposed convolution
    if one_bias and one_bias == shape[1:2] != shape[:1]:
        return "in-out-window"
    if len(shape) == 3:
        return Doubt(("out-in", "stacked-out-in", "in-out-window"))
    # layers that narrow an image are no transposed convolutions
    if one_bias == shape[:1] or _NARROWS.search(tensor.name):
        return "out-in"
    # an odd square window is a convolution's; even ones are those of transposed ones as well
    if tensor.is_window(shape[2:]):
        return "out-in" if shape[-1] % 2 else Doubt(("out-in", "in-out-window"))
    return Doubt(("out-in", "stacked-out-in"))


def _stacked_weight(tensor: Tensor) -> Found:
    number = tensor.experts + tensor.scanned
    if len(tensor.shape) == 2 + number and (number == 1 or "/" in tensor.name):
        if tensor.experts and (_GRANITE.match(tensor.module) or "/" in tensor.name):
            return "stacked-" * number + "out-in"
        if tensor.scanned and "/" in tensor.name and tensor.stacks_first:
            return "stacked-" * number + "out-in"
    return Doubt(("stacked-out-in", "stacked-in-out", "out-in"))


def _conv1d(tensor: Tensor) -> Found:
    """Tells Conv1D of GPT-2 [in, out] from linear layers of the same names [out, in]."""
    first, second = tensor.shape
    # its own bias counts most, then what such layers are for
    if first != second:
        for layout, outputs in (("in-out", second), ("out-in", first)):
            if tensor.bias_shape == (outputs,):
                return layout
        return _votes(tensor.module, tensor.shape)
    # a square one is as the others of its network
    votes = set()
    for name, leaf in tensor.leaves.items():
        other = Tensor(name, tuple(getattr(leaf, "shape", ())), tensor.leaves)
        if other.role == "weight" and _CONV1D.match(other.module) and len(other.shape) == 2:
            votes.add(_votes(other.module, other.shape))
    votes.discard(None)
    if len(votes) > 1:
        return Doubt(("in-out", "out-in"), decided=False)
    return votes.pop() if votes else "in-out"


def _votes(module: str, shape: tuple[int, ...]) -> str | None:
    """Finds the layout in which `c_attn` and `c_fc` widen and `c_proj` narrows."""
    if shape[0] == shape[1]:
        return None
    return "in-out" if (shape[1] > shape[0]) != (module == "c_proj") else "out-in"


# --- Flax, Keras --------------------------------------------------------------------------------


def _kernel(tensor: Tensor) -> Found:
    shape, module = tensor.shape, tensor.module
    # a convolution with one input per group is an ordinary kernel, whose outputs are the channels
    by_channel = tensor.role == "depthwise_kernel" or (
        _DEPTHWISE.search(module) and len(shape) > 2 and shape[-2] > 1
    )
    if by_channel:
        return "depthwise" if len(shape) > 2 else Doubt(("in-out",))
    # channels last, which these are always
    if len(shape) == 2 or tensor.role in ("pointwise_kernel", "recurrent_kernel"):
        return "in-out"
    if tensor.role not in ("kernel", "query_kernel", "key_kernel", "value_kernel"):
        return Doubt(("in-out", "stacked-in-out"))
    # convolutions, by name
    if _TRANSPOSED.search(module) or re.search(r"(?i)up_?conv", module):
        return _transposed_kernel(tensor)
    if conv := _CONV.search(module) or (not tensor.scanned and _CONV.search(tensor.name)):
        return _conv_kernel(tensor, conv.group(1) or conv.group(2))
    # attention, by name
    number = tensor.experts + tensor.scanned
    if _FUSED.search(module) and not number:
        return _fused_kernel(shape)
    # heads are axes of their own; with three axes a scanned layer may have none
    heads = _HEADS.search(module) or _HEADS.search(tensor.role)
    if (heads or _HEADS_OUT.search(module)) and not tensor.experts:
        core = "in-heads-dim" if heads else "heads-dim-out"
        if len(shape) == 3 + number and (not number or tensor.stacks_first):
            return "stacked-" * number + core
        if len(shape) == 3:
            return Doubt((core, "stacked-in-out"))
    return _stacked_kernel(tensor, number)


def _stacked_kernel(tensor: Tensor, number: int) -> Found:
    shape = tensor.shape
    if number:
        fits = len(shape) == 2 + number
        # the router of scanned experts is stacked once, as is what they share
        fits = fits or (number == 2 and len(shape) == 3)
        if fits and (not tensor.scanned or tensor.stacks_first):
            return "stacked-" * (len(shape) - 2) + "in-out"
        return Doubt(("stacked-in-out", "in-stacked-out", "in-out"))
    # a 1-d convolution, stacked layers or heads: the name says none of them
    if len(shape) == 3:
        return Doubt(("in-out", "stacked-in-out", "in-heads-dim"))
    # a square window is that of a convolution
    if tensor.is_window(shape[:-2]):
        return "in-out"
    return Doubt(("in-out", "stacked-in-out"))


def _transposed_kernel(tensor: Tensor) -> Found:
    if tensor.scanned or tensor.experts:
        return Doubt(("window-out-in", "in-out"), decided=False)
    # Keras and Haiku swap inputs and outputs here, Flax does not
    if tensor.is_keras or _CHANNELS_LAST_TRANSPOSED.search(tensor.module):
        return "window-out-in"
    if re.search(r"(?i)conv_?transpose", tensor.module):  # Flax
        return "in-out"
    return Doubt(("in-out", "window-out-in"))


def _conv_kernel(tensor: Tensor, digit: str) -> Found:
    """Reads a convolution: `digit` is the number of dimensions of its window, where its name says
    so.
    """
    number, dimensions = tensor.experts + tensor.scanned, len(tensor.shape)
    if not number:
        return "in-out"
    # `conv2d` has 4 axes, and one more for each that is stacked
    if re.search(r"(?i)conv_?\d_?d", tensor.module) and digit in "123":
        if dimensions == int(digit) + 2:
            return "in-out"
        if dimensions == int(digit) + 2 + number and tensor.stacks_first:
            return "stacked-" * number + "in-out"
    return Doubt(("in-out", "stacked-in-out"))


def _fused_kernel(shape: tuple[int, ...]) -> Found:
    """Reads query, key and value side by side: along the first axis, or along one after the
    inputs.
    """
    first, second = shape[0] in (2, 3), shape[1] in (2, 3)
    if len(shape) == 3 and first != second:
        return "stacked-in-out" if first else "in-out-out"
    if len(shape) == 4 and first != second:
        return "stacked-in-heads-dim" if first else "in-out-out-out"
    if len(shape) == 3:
        return Doubt(("stacked-in-out", "in-out-out", "in-heads-dim"))
    return Doubt(("in-out", "stacked-in-out"))


# --- Haiku, Gemma -------------------------------------------------------------------------------


def _w(tensor: Tensor) -> Found:
    shape, module = tensor.shape, tensor.module
    if module == "gating_einsum":
        return _gating(tensor)
    if module in _EINSUMS:
        return _scanned_or_not(tensor, _EINSUMS[module])
    if module.endswith("einsum"):
        return Doubt(("in-out", "heads-in-dim", "heads-dim-out", "stacked-in-out"), decided=False)
    # Haiku joins names by `/`; a `w` of other libraries may be stored either way
    if not module or "/" not in tensor.name:
        return Doubt(("in-out", "out-in"))
    if len(shape) == 2:
        return "in-out"
    if _TRANSPOSED.search(module):
        return "window-out-in"
    if _CONV.search(module) and not tensor.scanned:
        return "in-out"
    return _stacked_kernel(tensor, tensor.experts + tensor.scanned)


def _scanned_or_not(tensor: Tensor, core: str) -> Found:
    dimensions = core.count("-") + 1
    if len(tensor.shape) == dimensions:
        return core
    if len(tensor.shape) == dimensions + 1 and tensor.scanned and tensor.stacks_first:
        return f"stacked-{core}"
    return Doubt((core, f"stacked-{core}", "in-out"), decided=False)


def _gating(tensor: Tensor) -> Found:
    """Reads gate and value of Gemma, which widen: [2, in, out], or [2, out, in] in later
    versions.
    """
    *stacked, first, second = tensor.shape
    known = len(stacked) == 1 or (len(stacked) == 2 and tensor.scanned and tensor.stacks_first)
    if not known or first == second:
        return Doubt(("stacked-in-out", "stacked-out-in"))
    return "stacked-" * len(stacked) + ("in-out" if second > first else "out-in")


def _expert(tensor: Tensor) -> Found:
    return Doubt(("stacked-in-out", "stacked-out-in"))


def _gemma_linear(tensor: Tensor) -> Found:
    return "in-out" if len(tensor.shape) == 2 else _scanned_or_not(tensor, "in-out")


_KINDS: list[tuple[Callable[[str, Tensor], bool], Callable[[Tensor], Found]]] = [
    (lambda role, _: role.endswith("weight") or bool(_RECURRENT.match(role)), _weight),
    (lambda role, _: role.endswith("kernel"), _kernel),
    (lambda role, _: role == "w", _w),
    (lambda role, _: role == "gating_einsum", _gating),
    (_is_gemma_linear, _gemma_linear),
    (_is_expert, _expert),
]
