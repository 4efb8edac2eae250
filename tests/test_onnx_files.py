"""Files of ONNX, made by onnx: constants as they are, read as the graph multiplies by them."""

import re

import ml_dtypes
import numpy as np
import pytest
from checkpoint_kinds import holds, numbers, program, read_as

import memsim


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx", reason='ONNX files take onnx: pip install "memsim[files]"')


def save_graph(onnx, path, nodes, tensors, **words):
    """A model of these nodes (operator, inputs, output, attributes) and constants."""
    helper = onnx.helper
    made = [helper.make_node(kind, given, [out], **extra) for kind, given, out, extra in nodes]
    graph = helper.make_graph(
        made, "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(nodes[-1][2], onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(x, name) for name, x in tensors.items()],
    )  # fmt: skip
    onnx.save_model(helper.make_model(graph), str(path), **words)


def test_the_graph_of_onnx_says_how_constants_are_read(tmp_path, onnx, run):
    tensors = {
        "conv": numbers(4, 3, 3, 3), "up": numbers(4, 5, 2, 2), "grouped": numbers(4, 5, 2, 2),
        "gemm": numbers(6, 7), "gemm_b": numbers(7, 6), "left": numbers(2, 6),
        "matmul.weight": numbers(7, 3), "heads": numbers(2, 7, 3), "turned": numbers(3, 7),
        "table.weight": numbers(9, 6), "tied": numbers(9, 6), "scale": numbers(7, 7),
        "lstm": numbers(1, 8, 6), "again": numbers(1, 8, 2), "both": numbers(6, 6),
        "f16": numbers(6, 4, dtype=np.float16), "bias": numbers(6),
        "bf16": numbers(6, 4, dtype=ml_dtypes.bfloat16), "ids": np.arange(12).reshape(3, 4),
        "custom": numbers(6, 6),
    }  # fmt: skip
    nodes = [
        ("Conv", ["x", "conv"], "1", {}), ("ConvTranspose", ["1", "up"], "2", {}),
        ("ConvTranspose", ["1", "grouped"], "2b", {"group": 2}),
        ("Gemm", ["2", "gemm", "bias"], "3", {}), ("Gemm", ["2", "gemm_b"], "4", {"transB": 1}),
        ("Gemm", ["left", "2"], "5", {}), ("MatMul", ["3", "matmul.weight"], "6", {}),
        ("MatMul", ["6", "heads"], "7", {}), ("Transpose", ["turned"], "t", {"perm": [1, 0]}),
        ("MatMul", ["7", "t"], "8", {}), ("Gather", ["table.weight", "x"], "9", {}),
        ("Gather", ["tied", "x"], "10", {}), ("Transpose", ["tied"], "t2", {}),
        ("Identity", ["t2"], "t3", {}), ("MatMul", ["9", "t3"], "11", {}),
        ("Mul", ["11", "scale"], "12", {}), ("LSTM", ["x", "lstm", "again"], "13", {}),
        ("MatMul", ["12", "both"], "14", {}), ("Gemm", ["14", "both"], "15", {"transB": 1}),
        ("MatMul", ["3", "f16"], "16", {}), ("MatMul", ["3", "bf16"], "17", {}),
        ("Gather", ["ids", "x"], "18", {}), ("MatMul", ["3", "custom"], "19", {"domain": "mine"}),
    ]  # fmt: skip
    path = tmp_path / "x.onnx"
    save_graph(onnx, path, nodes, tensors)
    source = memsim.open_checkpoint(path)
    assert holds(source, tensors)
    with pytest.raises(
        ValueError, match=r"`both` of shape \(6, 6\) may be in-out or out-in: the f"
    ):
        read_as(source)
    found = {n: x for n, x in source.layouts.items() if x != "digital" and n != "both"}
    assert found == {
        "conv": "out-in-in-in", "up": "in-out-in-in", "gemm": "in-out", "gemm_b": "out-in",
        "left": "out-in", "matmul.weight": "in-out", "heads": "stacked-in-out", "turned": "out-in",
        "tied": "out-in", "lstm": "stacked-out-in", "again": "stacked-out-in", "f16": "in-out",
        "bf16": "in-out",
    }  # fmt: skip
    assert source.reasons["table.weight"] == (
        "no operator of the graph multiplies by it (Gather takes it)"
    )
    # on the command line, which lists it all
    status, printed, errors = run("report", path, "--policy", "sws", "--map", "both=in-out")
    assert status == 0, errors
    for line in ("conv [27 x 4] out-in", "up [16 x 5] in-out-window", "tied [6 x 9] out-in",
                 "scale: no operator of the graph multiplies by it (Mul takes it)"):  # fmt: skip
        assert line in re.sub(r"\s+", " ", printed)


def test_a_layer_is_the_same_matrix_whichever_way_onnx_stores_it(tmp_path, onnx):
    """The counts of writes of one product do not change with its orientation in the file."""
    weights = numbers(20, 6)
    forms = {
        "plain": ("MatMul", ["x", "w"], {}, weights),
        "turned": ("Gemm", ["x", "w"], {"transB": 1}, np.ascontiguousarray(weights.T)),
    }
    counted = []
    for name, (kind, given, extra, stored) in forms.items():
        save_graph(onnx, tmp_path / f"{name}.onnx", [(kind, given, "y", extra)], {"w": stored})
        source = memsim.open_checkpoint(tmp_path / f"{name}.onnx")
        config = memsim.CrossbarConfig(rows=8)
        found = memsim.compare(source, config, {"sws": memsim.Policy.parse("sws")})
        counted.append(found.policies["sws"].writes)
    assert counted[0] == counted[1] > 0
    # a rule of the user's own counts before what the file says
    select = memsim.select_by_name(map=["w=in-out"])
    other = memsim.compare(source, config, {"sws": memsim.Policy.parse("sws")}, select=select)
    assert other.policies["sws"].writes != counted[0]


def test_constants_of_onnx_lie_in_other_files_too(tmp_path, onnx, run):
    tensors = {"a": numbers(40, 50), "b": numbers(50, 30)}
    nodes = [("MatMul", ["x", "a"], "1", {}), ("MatMul", ["1", "b"], "2", {})]
    path = tmp_path / "x.onnx"
    save_graph(onnx, path, nodes, tensors, save_as_external_data=True, location="x.data",
               size_threshold=0)  # fmt: skip
    assert path.stat().st_size < 1000
    assert holds(memsim.open_checkpoint(path), tensors)
    status, _, errors = run("program", path, "--policy", "sws", "--out", tmp_path / "y.onnx")
    assert status == 1
    assert "in a file beside it, which memsim does not write; give a name that ends in" in errors
    assert not (tmp_path / "y.onnx").exists()
    (tmp_path / "x.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"has `a` in x\.data, missing beside it"):
        memsim.open_checkpoint(path)


def test_constants_in_nodes_and_in_inner_graphs_of_onnx(tmp_path, onnx):
    helper, weights = onnx.helper, {"w": numbers(4, 5), "v": numbers(5, 3)}
    value = onnx.numpy_helper.from_array(weights["v"], "anything")
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]),
         helper.make_node("Constant", [], ["v"], value=value),
         helper.make_node("MatMul", ["m", "v"], ["y"])], "inner", [],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(weights["w"], "w")],
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=helper.make_graph(
        [helper.make_node("Identity", ["x"], ["i"])], "other", [],
        [helper.make_tensor_value_info("i", 1, None)]))  # fmt: skip
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("z", 1, None)])
    onnx.save_model(helper.make_model(graph), str(tmp_path / "x.onnx"))
    source = memsim.open_checkpoint(tmp_path / "x.onnx")
    assert holds(source, weights)
    assert read_as(source) == {"w": "in-out", "v": "in-out"}


def test_narrow_numbers_of_onnx_stay_digital(tmp_path, onnx, run):
    helper = onnx.helper
    narrow = helper.make_tensor("q", onnx.TensorProto.INT4, [4, 3], list(range(-6, 6)))
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
             helper.make_node("MatMul", ["x", "w"], ["y"])]  # fmt: skip
    weights = numbers(4, 4)
    constants = [narrow, onnx.numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", 1, None)],
                              constants)  # fmt: skip
    path = tmp_path / "x.onnx"
    onnx.save_model(helper.make_model(graph), str(path))
    source = memsim.open_checkpoint(path)
    assert source.reasons["q"] == "whole numbers (int4)"
    np.testing.assert_array_equal(source.load("q").astype(int).ravel(), range(-6, 6))
    program(run, path, tmp_path / "y.onnx")
    held = onnx.load(str(tmp_path / "y.onnx"))
    assert held.graph.initializer[0] == narrow
    assert held.graph.node == onnx.load(str(path)).graph.node
    assert not np.array_equal(onnx.numpy_helper.to_array(held.graph.initializer[1]), weights)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_weights_of_onnx_are_replaced_in_their_own_dtype(tmp_path, onnx, run, dtype):
    weights = {"w": numbers(6, 5, dtype=dtype), "v": numbers(5, 4)}
    nodes = [("MatMul", ["x", "w"], "1", {}), ("MatMul", ["1", "v"], "2", {})]
    save_graph(onnx, tmp_path / "x.onnx", nodes, weights)
    program(run, tmp_path / "x.onnx", tmp_path / "held.onnx")
    program(run, tmp_path / "x.onnx", tmp_path / "held.safetensors")
    held, same = (
        memsim.open_checkpoint(tmp_path / f"held.{kind}") for kind in ("onnx", "safetensors")
    )
    assert holds(held, {name: same.load(name) for name in weights})
    assert held.layouts == {"w": "in-out", "v": "in-out"}
    assert held.load("w").tobytes() != weights["w"].tobytes()
