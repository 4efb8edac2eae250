"""Files of ONNX: the constants of a graph, read as the graph multiplies by them."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from memsim.files._opening import (
    Checkpoint,
    Stored,
    as_checkpoint,
    check_shape,
    need_library,
    refusing,
)

_OWN = ("", "ai.onnx")  # whose operators mean what the standard says
_SAME = ("Transpose", "Identity", "Cast")
_RECURRENT = ("LSTM", "GRU", "RNN")
_DEEPEST = 32  # graphs within graphs

# A constant as a value of the graph: its name, and its axes in their order there.
Value = tuple[str, tuple[int, ...]]


def open_file(path: Path) -> Checkpoint:
    """Opens an ONNX model: its constants by name, and how the graph multiplies by each.

    The model is read at once, tensors in files beside it when they are asked for. Convolutions,
    Gemm, MatMul, LSTM, GRU and RNN say which axes are outputs, through transpositions; a constant
    that no such operator takes stays digital.

    Raises:
      ValueError: it is truncated, no model, claims what cannot be, or names tensors in files that
        do not lie in its folder.
    """
    onnx = need_library("onnx", path)
    with refusing(path, "an ONNX model"):
        model = read_model(onnx, path)
        stored: dict[str, Stored] = {}
        for name, tensor in constants(model).items():
            if tensor.data_type == onnx.TensorProto.STRING:
                continue
            shape = tuple(tensor.dims)
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            # four bits an element at least, wherever they are
            beside = _outside(path, tensor) if tensor.data_location else 0
            check_shape(name, shape, 1, 4 * (tensor.ByteSize() + beside))
            load = functools.partial(_load, onnx, path.absolute(), tensor)
            stored[name] = Stored(shape, dtype, load)
        layouts, reasons = _read_graph(model, {name: len(x.shape) for name, x in stored.items()})
    return as_checkpoint(stored, layouts=layouts, reasons=reasons)


def read_model(onnx: Any, path: Path) -> Any:
    """Reads the model of a file, without what lies in other files."""
    model = onnx.load_model_from_string(path.read_bytes(), format="protobuf")
    if not model.graph.node and not model.graph.initializer:
        raise ValueError("it has no graph")
    return model


def constants(model: Any) -> dict[str, Any]:
    """Gives the tensors of a model by name: initializers, and outputs of Constant.

    Raises:
      ValueError: two of a name, or sparse ones.
    """
    found: dict[str, Any] = {}
    for graph in _graphs(model.graph):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise ValueError(f"`{name}` is sparse, which memsim does not read")
        named = [(tensor.name, tensor) for tensor in graph.initializer]
        for node in graph.node:
            values = [x.t for x in node.attribute if x.name == "value" and x.HasField("t")]
            if node.op_type == "Constant" and values and values[0].dims:
                named.append((node.output[0], values[0]))
        for name, tensor in named:
            if name in found:
                raise ValueError(f"`{name}` is there twice")
            found[name] = tensor
    return found


def _graphs(graph: Any, depth: int = 0) -> Iterator[Any]:
    """Goes through a graph and those within its nodes."""
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner, depth + 1)


# --- tensors in files beside the model ----------------------------------------------------------


def _outside(path: Path, tensor: Any) -> int:
    """Checks where a tensor lies in another file, and gives its bytes there."""
    place, begin, length = _place(path, tensor)
    if not place.is_file():
        raise FileNotFoundError(
            f"`checkpoint` {path} has `{tensor.name}` in {place.name}, missing beside it."
        )
    if min(begin, length) < 0 or begin + length > place.stat().st_size:
        raise ValueError(f"`{tensor.name}` ends after {place.name}")
    return length


def _place(path: Path, tensor: Any) -> tuple[Path, int, int]:
    """Finds the file of a tensor, below the folder of its model, where it begins, its bytes."""
    texts = {entry.key: entry.value for entry in tensor.external_data}
    location = texts.get("location", "")
    parts = PurePosixPath(location).parts
    plain = location.isprintable() and "\\" not in location and ":" not in location
    if not parts or not plain or parts[0] == "/" or ".." in parts:
        raise ValueError(
            f"`checkpoint` {path} has `{tensor.name}` in {location!a}, which does not lie in its "
            "folder; move the file there, and save the model again."
        )
    begin, length = int(texts.get("offset", "0")), int(texts.get("length", "-1"))
    place = path.parent / location
    if "length" not in texts and place.is_file():
        length = place.stat().st_size - begin
    return place, begin, length


def _load(onnx: Any, path: Path, tensor: Any) -> np.ndarray:
    with refusing(path, "an ONNX model"):
        if tensor.data_location:
            place, begin, length = _place(path, tensor)
            data = np.fromfile(place, np.uint8, length, offset=begin)
            tensor = onnx.TensorProto(
                data_type=tensor.data_type, dims=tensor.dims, raw_data=data.tobytes()
            )
        array: np.ndarray = onnx.numpy_helper.to_array(tensor)
        return array.reshape(tuple(tensor.dims))


# --- what the graph multiplies by them ----------------------------------------------------------


def _read_graph(model: Any, axes: Mapping[str, int]) -> tuple[dict[str, str], dict[str, str]]:
    """Finds (layouts, reasons) of the constants of a model, by name.

    Args:
      axes: number of axes of every constant.
    """
    values: dict[str, Value] = {name: (name, tuple(range(n))) for name, n in axes.items()}
    read: dict[str, list[str]] = {name: [] for name, n in axes.items() if n > 1}
    others: dict[str, list[str]] = {name: [] for name in read}
    for graph in _graphs(model.graph):
        for node in graph.node:
            source = values.get(node.input[0]) if node.input else None
            # a constant that is only turned, renamed or widened is still that constant
            if source and node.op_type in _SAME and node.domain in _OWN:
                turned = _attribute(node, "perm", range(len(source[1]))[::-1])
                order = turned if node.op_type == "Transpose" else range(len(source[1]))
                values[node.output[0]] = (source[0], tuple(source[1][axis] for axis in order))
                continue
            for at, given in enumerate(node.input):
                name, order = values.get(given, ("", ()))
                if name not in read:
                    continue
                words = _words_of(node, at, len(order), len(node.input))
                if words is None:
                    others[name].append(node.op_type)
                else:
                    # back to the order of axes in the file
                    at_axis = dict(zip(order, words, strict=True))
                    read[name].append("-".join(at_axis[axis] for axis in range(len(order))))
    layouts = {name: "|".join(dict.fromkeys(found)) or "digital" for name, found in read.items()}
    reasons = {}
    for name, found in read.items():
        if not found:
            by = ", ".join(dict.fromkeys(others[name])) or "nothing"
            reasons[name] = f"no operator of the graph multiplies by it ({by} takes it)"
    return layouts, reasons


def _words_of(node: Any, at: int, axes: int, inputs: int) -> list[str] | None:
    """Gives a word for each axis of what a node takes as an operand; None if it is no weights."""
    if node.domain not in _OWN:
        return None
    kind, stacked = node.op_type, ["stacked"] * (axes - 2)
    if kind in ("Conv", "ConvTranspose") and at == 1 and axes > 2:
        window = ["in"] * (axes - 2)
        if kind == "Conv":
            return ["out", "in", *window]
        # outputs of several groups lie along both axes
        return ["in", "out", *window] if _attribute(node, "group", 1) == 1 else None
    if kind == "Gemm" and at in (0, 1) and axes == 2:
        words = ["in", "out"] if at else ["out", "in"]
        return words[::-1] if _attribute(node, "transB" if at else "transA", 0) else words
    if kind == "MatMul" and at in (0, 1) and axes > 1 and inputs == 2:
        return [*stacked, "in", "out"] if at else [*stacked, "out", "in"]
    if kind in _RECURRENT and at in (1, 2) and axes == 3:
        return ["stacked", "out", "in"]
    return None


def _attribute(node: Any, name: str, default: Any) -> Any:
    """Gives an attribute of a node: a whole number, or several."""
    for attribute in node.attribute:
        if attribute.name == name:
            return attribute.i if isinstance(default, int) else tuple(attribute.ints)
    return default


def replace_tensors(out: Path, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a model like `source` with other weights.

    Raises:
      ValueError: tensors lie in files beside it.
    """
    onnx = need_library("onnx", source)
    model = read_model(onnx, source)
    there = constants(model)
    for name, tensor in there.items():
        if tensor.data_location:
            raise ValueError(
                f"`{out}`: {source} keeps `{name}` in a file beside it, which memsim does not "
                "write; give a name that ends in .safetensors."
            )
    for name, array in tensors.items():
        there[name].CopyFrom(onnx.numpy_helper.from_array(array, there[name].name))
    out.write_bytes(model.SerializeToString())
