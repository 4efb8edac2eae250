"""Checkpoints of every kind, each made by the library that it is of, and read as it was made."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hub import Hub, running

import memsim
from memsim.files._keras import layers_of
from memsim.selection import LAYOUTS, layout_of, select_layers

os.environ.setdefault("KERAS_BACKEND", "jax")

# Keras reads its own arrays in a way that NumPy has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(0)


def numbers(*shape, dtype=np.float32):
    return RNG.standard_normal(shape, np.float32).astype(dtype)


def holds(source, tensors):
    """Whether a checkpoint holds these tensors, bit for bit, and no others."""
    assert set(source.tensors) == set(tensors)
    for name, tensor in tensors.items():
        expected = np.asarray(tensor)
        assert source.tensors[name].shape == expected.shape
        assert source.tensors[name].dtype == expected.dtype
        read = source.load(name)
        assert (read.shape, read.dtype) == (expected.shape, expected.dtype)
        assert read.tobytes() == expected.tobytes()
    return True


def read_as(source):
    """The layout of every tensor that is mapped by default, by name."""
    select = memsim.select_by_name(layouts=source.layouts)
    found = select_layers(source.tensors, select).values()
    return {tensor: layout_of(matrix) for tensor, matrix in found}


def program(run, source, out):
    """What a chip holds of the weights of a file, in a file of some kind."""
    status, printed, errors = run("program", source, "--policy", "sws", "--out", out)
    assert status == 0, errors
    return printed


# --- PyTorch ------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="files of PyTorch take torch: pip install torch")


@pytest.fixture
def network(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    )


def arrays(state):
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_state_dict_of_torch(tmp_path, torch, network, run, suffix, legacy):
    path = tmp_path / f"model{suffix}"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    source = memsim.open_checkpoint(path)
    assert holds(source, arrays(network.state_dict()))
    assert source.metadata == {"format": "pt"}
    assert read_as(source) == {"0.weight": "out-in", "3.weight": "out-in"}
    assert "whole numbers" in source.reasons["1.num_batches_tracked"]
    status, printed, errors = run("report", path, "--policy", "sws", "--html", tmp_path / "r.html")
    assert status == 0, errors
    assert "0.weight [27 x 4] out-in" in printed


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"m": s["3.bias"]}}}},
        lambda s: {"model": s, "args": None},
        lambda s: {"model_state_dict": s},
        lambda s: {"model": {"state_dict": s}},
    ],
    ids=["state_dict", "model", "model_state_dict", "both"],
)  # fmt: skip
def test_what_scripts_put_around_a_state_dict(tmp_path, torch, network, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "x.pt")
    assert holds(memsim.open_checkpoint(tmp_path / "x.pt"), arrays(network.state_dict()))


def test_a_file_of_two_networks_is_in_doubt(tmp_path, torch, network):
    state = network.state_dict()
    torch.save({"model": state, "state_dict": state}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"weights in 'state_dict' and 'model'; save those that"):
        memsim.open_checkpoint(tmp_path / "x.pt")
    torch.save(
        {"encoder": state, "decoder": {n: x.clone() for n, x in state.items()}}, tmp_path / "x.pt"
    )
    names = memsim.open_checkpoint(tmp_path / "x.pt").tensors
    assert {"encoder.0.weight", "decoder.0.weight"} < set(names)
    for nothing in ([1, 2], {}, {"epoch": 3}, torch.ones(3), "text"):
        torch.save(nothing, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=r"has no tensors by name .*torch\.save\(model\.state"):
            memsim.open_checkpoint(tmp_path / "x.pt")


def test_weights_that_are_tied_are_there_once(tmp_path, torch, run):
    table = torch.nn.Parameter(torch.randn(10, 4))
    state = {"wte.weight": table, "lm_head.weight": table, "fc.weight": table[:5],
             "c.weight": torch.randn(3, 4), "t.weight": table.T}  # fmt: skip
    torch.save(state, tmp_path / "x.pth")
    source = memsim.open_checkpoint(tmp_path / "x.pth")
    assert set(source.tensors) == {"wte.weight", "fc.weight", "c.weight", "t.weight"}
    assert source.metadata["lm_head.weight"] == "wte.weight"
    np.testing.assert_array_equal(source.load("t.weight"), table.detach().numpy().T)
    # in a file of the same kind they are tied still
    program(run, tmp_path / "x.pth", tmp_path / "held.pt")
    held = torch.load(tmp_path / "held.pt", weights_only=True)
    assert list(held) == list(state)
    assert held["lm_head.weight"].data_ptr() == held["wte.weight"].data_ptr()


@pytest.mark.parametrize(
    "name", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64",
             "uint8", "bool", "complex64"],
)  # fmt: skip
def test_dtypes_of_torch(tmp_path, torch, run, name):
    dtype = getattr(torch, name)
    torch.manual_seed(0)  # enough numbers that narrow ones are not all held exactly
    state = {"a.weight": torch.randn(40, 60).to(dtype), "b.weight": torch.randn(3, 4)}
    torch.save(state, tmp_path / "x.pth")
    source = memsim.open_checkpoint(tmp_path / "x.pth")
    read = source.load("a.weight")
    assert read.dtype.name == name
    assert read.tobytes() == state["a.weight"].contiguous().view(torch.uint8).numpy().tobytes()
    floating = dtype.is_floating_point
    assert ("a.weight" in source.reasons) != floating
    program(run, tmp_path / "x.pth", tmp_path / "held.pth")
    program(run, tmp_path / "x.pth", tmp_path / "held.safetensors")
    held, same = (
        memsim.open_checkpoint(tmp_path / f"held.{kind}") for kind in ("pth", "safetensors")
    )
    for tensor in state:
        assert held.load(tensor).tobytes() == same.load(tensor).tobytes()
    assert (held.load("a.weight").tobytes() != read.tobytes()) == floating


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_tensors_of_torch_that_are_no_arrays_stay_digital(tmp_path, torch, run):
    state = {"s.weight": torch.eye(4).to_sparse(), "m.weight": torch.ones(3, 3, device="meta"),
             "q.weight": torch.quantize_per_tensor(torch.randn(3, 3), 0.1, 0, torch.qint8),
             "f.weight": torch.randn(4, 4)}  # fmt: skip
    torch.save(state, tmp_path / "x.pth")
    source = memsim.open_checkpoint(tmp_path / "x.pth")
    assert list(read_as(source)) == ["f.weight"]
    assert "quantized numbers" in source.reasons["q.weight"]
    assert "sparse" in source.reasons["s.weight"]
    assert run("report", tmp_path / "x.pth", "--policy", "sws")[0] == 0
    with pytest.raises(ValueError, match=r"holds `s\.weight`, a sparse tensor, which memsim does"):
        source.load("s.weight")


def test_shards_of_bin_open_by_their_index(tmp_path, torch, network):
    state = network.state_dict()
    names = list(state)
    parts = {"a-1-of-2.bin": names[:3], "a-2-of-2.bin": names[3:]}
    for part, some in parts.items():
        torch.save({name: state[name] for name in some}, tmp_path / part)
    index = tmp_path / "pytorch_model.bin.index.json"
    weight_map = {name: part for part, some in parts.items() for name in some}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert holds(memsim.open_checkpoint(index), arrays(state))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_programs_of_torch_are_no_weights(tmp_path, torch, network):
    torch.jit.save(torch.jit.script(network), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"is a program \(of TorchScript or torch\.export\)"):
        memsim.open_checkpoint(tmp_path / "x.pt")


def test_an_old_torch_is_not_used(tmp_path, torch, monkeypatch):
    torch.save({"a.weight": torch.ones(2, 2)}, tmp_path / "x.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.raises(ValueError, match=r"with torch 2\.5\.1, .*pip install --upgrade torch"):
        memsim.open_checkpoint(tmp_path / "x.pt")


def test_tensors_of_torch_stay_on_the_disk(tmp_path, torch):
    path = tmp_path / "x.pth"
    torch.save({f"{i}.weight": torch.zeros(2**24) for i in range(4)}, path)  # 268 MB
    code = (
        "import sys, memsim, torch\n"
        "peak = lambda: int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0])\n"
        "before = peak(); source = memsim.open_checkpoint(sys.argv[1])\n"
        "assert source.load('1.weight').sum() == 0\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert int(done.stdout) < 20_000, done.stderr  # kilobytes that are of no file


# --- ONNX ---------------------------------------------------------------------------------------


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


# --- HDF5, Keras --------------------------------------------------------------------------------


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason='HDF5 files take h5py: pip install "memsim[files]"')


@pytest.fixture(scope="module")
def keras_model():
    """A model with layers of every kind that has weights, some of names that mislead."""
    pytest.importorskip("h5py")
    keras = pytest.importorskip(
        "keras", reason="files of Keras are made by keras: pip install keras"
    )
    layers = keras.layers
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras.utils.set_random_seed(0)
        given = keras.Input((8, 8, 4))
        x = layers.Conv2D(8, 3, name="dense")(given)
        x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="mixer")(x)
        x = layers.SeparableConv2D(6, 3)(x)
        x = layers.Conv2DTranspose(5, 2, name="wide")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Reshape((-1, 5))(x)
        x = layers.MultiHeadAttention(2, 4)(x, x)
        x = layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="sums")(x)
        x = layers.Reshape((-1, 6))(x)
        x = layers.TimeDistributed(layers.Dense(6))(x)
        x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
        x = layers.LSTM(3)(x)
        model = keras.Model(given, layers.Dense(7, name="conv2d_transpose")(x))
        model.compile(optimizer="adam", loss="mse")
    return model


KERAS = {  # layers, by what their paths have; how their kernels are read
    "dense": "in-out", "mixer": "depthwise", "wide": "window-out-in",
    "conv2d_transpose": "in-out", "sums": "in-out",
}  # fmt: skip


def kernels(model):
    """The variables of a model of two or more axes, by what Keras calls them."""
    return {w.path: np.asarray(w) for w in model.weights if len(w.shape) > 1}


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_models_of_keras(tmp_path, keras_model, h5py, run, suffix, capsys):
    path = tmp_path / f"model{suffix}"
    (keras_model.save_weights if suffix == ".weights.h5" else keras_model.save)(path)
    capsys.readouterr()
    source = memsim.open_checkpoint(path)
    # every variable is there, bit for bit, and nothing of the optimizer
    read = sorted(source.load(name).tobytes() for name in source.tensors)
    assert read == sorted(np.asarray(w).tobytes() for w in keras_model.weights)
    # the same matrices, whatever the file calls them
    by_bytes = {source.load(name).tobytes(): name for name in source.tensors}
    mapped = read_as(source)
    for called, kernel in kernels(keras_model).items():
        name = by_bytes[kernel.tobytes()]
        layer, *_, role = called.split("/")
        if role == "bias":
            assert name not in mapped
        elif layer == "sums" and suffix == ".weights.h5":
            # its equation is in the configuration, which weights alone do not have
            assert "does not tell what its layer does" in source.reasons[name]
        elif layer in KERAS:
            rule = LAYOUTS_OF[KERAS[layer]]
            assert mapped[name] == rule.get(kernel.ndim, KERAS[layer]), called
        elif "attention" in layer:
            # heads and their features are inputs of what comes after them
            assert mapped[name] == ("in-out" if "output" in called else "in-heads-dim"), called
        elif role == "depthwise_kernel":
            assert mapped[name] == "in-stacked-out", called
        else:
            assert mapped[name] == "in-out", called
    # and a file of the same kind that Keras loads
    program(run, path, tmp_path / f"held{suffix}")
    before = [np.asarray(w) for w in keras_model.weights]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras_model.load_weights(tmp_path / f"held{suffix}")
    after = [np.asarray(w) for w in keras_model.weights]
    keras_model.set_weights(before)
    held = memsim.open_checkpoint(tmp_path / f"held{suffix}")
    assert sorted(held.load(n).tobytes() for n in held.tensors) == sorted(
        w.tobytes() for w in after
    )
    changed = sum(not np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    assert changed == len(mapped)


LAYOUTS_OF = {
    "in-out": {3: "in-heads-dim"},  # the kernel of sums has two axes of outputs
    "depthwise": {4: "in-stacked-out"},
    "window-out-in": {4: "window-out-in"},
}


def test_a_model_of_keras_within_a_model_and_of_attributes(tmp_path, keras_model, h5py):
    import keras

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv2d = keras.layers.Dense(3)
            self.another = keras.layers.Dense(4, name="mine")

        def call(self, x):
            return self.another(self.conv2d(x))

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = Mine()
        model(np.zeros((1, 5), np.float32))
    model.save_weights(tmp_path / "x.weights.h5")
    source = memsim.open_checkpoint(tmp_path / "x.weights.h5")
    # the name that Keras made for a layer tells its class, that of an attribute does not
    assert read_as(source) == {"conv2d/vars/0": "in-out"}
    assert "--map 'RE=LAYOUT' does" in source.reasons["another/vars/0"]


def test_names_of_keras_that_mislead_are_no_classes():
    plain = layers_of(None)
    assert plain.layout("head/vars/0", "dense_2", (4, 5)) == "in-out"
    assert plain.layout("head/vars/0", "dense", (3, 3, 4, 5)) is None  # of a convolution called so
    assert plain.layout("head/vars/0", "conv2d", (4, 5)) is None
    assert plain.layout("head/vars/0", "", (4, 5)) is None
    # two layers of one name, which may be either
    of = {"class_name": "EinsumDense", "config": {"name": "sums", "equation": "ab,bc->ac"}}
    other = {"class_name": "EinsumDense", "config": {"name": "sums", "equation": "ab,cb->ac"}}
    path = "model_weights/sums/sums/kernel"
    assert layers_of([of]).layout(path, "", (4, 5)) == "in-out"
    assert layers_of([other]).layout(path, "", (4, 5)) == "out-in"
    assert layers_of([of, other]).layout(path, "", (4, 5)) is None


def test_narrow_floats_of_keras(tmp_path, keras_model, h5py, run):
    import keras

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        layers = [keras.layers.Dense(6, dtype="bfloat16"), keras.layers.Dense(3, dtype="float16")]
        model = keras.Sequential([keras.Input((5,)), *layers])
    model.save(tmp_path / "x.keras")
    source = memsim.open_checkpoint(tmp_path / "x.keras")
    expected = {
        f"layers/{layer}/vars/{at}": np.asarray(layers[number].weights[at].value)
        for number, layer in enumerate(("dense", "dense_1"))
        for at in (0, 1)
    }
    assert expected["layers/dense/vars/0"].dtype == ml_dtypes.bfloat16
    assert holds(source, expected)
    program(run, tmp_path / "x.keras", tmp_path / "held.keras")
    held = memsim.open_checkpoint(tmp_path / "held.keras")
    assert {name: held.load(name).dtype for name in expected} == {
        name: array.dtype for name, array in expected.items()
    }
    assert (
        held.load("layers/dense/vars/0").tobytes() != source.load("layers/dense/vars/0").tobytes()
    )


def test_datasets_of_hdf5(tmp_path, h5py, run):
    tensors = {
        "dense/kernel": numbers(20, 6), "half/kernel": numbers(6, 4, dtype=np.float16),
        "big/kernel": numbers(6, 4).astype(">f4"), "ids": np.arange(6), "flags": np.ones(3, bool),
        "packed/kernel": np.zeros((100, 50)), "deep/er/est/kernel": numbers(3, 3),
    }  # fmt: skip
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            extra = {"compression": "gzip"} if name == "packed/kernel" else {}
            file.create_dataset(name, data=array, **extra)
        file["text"] = "hello"
        file["brain"] = numbers(3, 3).astype(ml_dtypes.bfloat16).view("V2")
        file["tied"] = file["dense/kernel"]
    native = {name: x.astype(x.dtype.newbyteorder("=")) for name, x in tensors.items()}
    source = memsim.open_checkpoint(path)
    assert "dtype the file does not say" in source.reasons["brain"]
    assert source.metadata == {"tied": "dense/kernel"}
    for name in native:
        assert source.load(name).tobytes() == native[name].tobytes()
    assert set(source.tensors) == {*native, "brain"}
    program(run, path, tmp_path / "held.h5")
    with h5py.File(tmp_path / "held.h5") as file:
        assert np.array_equal(file["tied"], file["dense/kernel"])
        assert not np.array_equal(file["tied"], tensors["dense/kernel"])
        assert file["big/kernel"].dtype == ">f4"
        assert file["text"][()] == b"hello"


# --- Flax, Orbax --------------------------------------------------------------------------------


def tree():
    return {
        "params": {
            "Dense_0": {"kernel": jnp.asarray(numbers(20, 6)), "bias": jnp.zeros(6)},
            "Conv_0": {"kernel": jnp.asarray(numbers(3, 3, 2, 4), jnp.bfloat16)},
        },
        "step": np.int32(3),
    }


def flat(nested):
    leaves = jax.tree_util.tree_leaves_with_path(nested)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): np.asarray(x)
        for path, x in leaves
    }


def test_a_file_of_flax(tmp_path, run):
    serialization = pytest.importorskip("flax.serialization")
    made = tree()
    path = tmp_path / "x.msgpack"
    state = {**made, "opt_state": {"0": {"mu": made["params"]}}}
    path.write_bytes(serialization.to_bytes(state))
    source = memsim.open_checkpoint(path)
    assert holds(source, flat(made))
    assert read_as(source) == {"params/Dense_0/kernel": "in-out", "params/Conv_0/kernel": "in-out"}
    program(run, path, tmp_path / "held.msgpack")
    held = serialization.from_bytes(state, (tmp_path / "held.msgpack").read_bytes())
    assert jax.tree.all(jax.tree.map(np.array_equal, held["opt_state"], state["opt_state"]))
    kernel = held["params"]["Dense_0"]["kernel"]
    again = memsim.open_checkpoint(tmp_path / "held.msgpack").load("params/Dense_0/kernel")
    np.testing.assert_array_equal(kernel, again)
    assert not np.array_equal(kernel, made["params"]["Dense_0"]["kernel"])


@pytest.fixture
def orbax():
    return pytest.importorskip("orbax.checkpoint")


def test_a_folder_of_orbax(tmp_path, orbax, run):
    made = tree() | {"layers": [{"kernel": jnp.asarray(numbers(4, 5))}]}
    path = tmp_path / "saved"
    with orbax.StandardCheckpointer() as saver:
        saver.save(path, made | {"opt_state": [made["params"]]})
    source = memsim.open_checkpoint(path)
    assert holds(source, flat(made))
    assert len(read_as(source)) == 3
    program(run, path, tmp_path / "held.safetensors")
    assert set(memsim.open_checkpoint(tmp_path / "held.safetensors").tensors) == set(flat(made))
    assert run("report", path, "--policy", "sws")[0] == 0


def test_folders_of_several_steps_are_in_doubt(tmp_path, orbax):
    made = tree()
    with orbax.CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, args=orbax.args.StandardSave(made))
        manager.wait_until_finished()
        assert holds(memsim.open_checkpoint(tmp_path / "run"), flat(made))
        manager.save(2, args=orbax.args.StandardSave(made))
        manager.wait_until_finished()
    with pytest.raises(ValueError, match=r"several checkpoints of Orbax \(1, 2\); give the folder"):
        memsim.open_checkpoint(tmp_path / "run")
    assert holds(memsim.open_checkpoint(tmp_path / "run" / "2"), flat(made))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"a folder without a checkpoint of Orbax"):
        memsim.open_checkpoint(tmp_path / "empty")


# --- GGUF ---------------------------------------------------------------------------------------


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason='GGUF files take gguf: pip install "memsim[files]"')


def test_a_file_of_gguf(tmp_path, gguf, run):
    kinds, path = gguf.GGMLQuantizationType, tmp_path / "x.gguf"
    plain = {
        "blk.0.attn_q.weight": numbers(8, 64), "token_embd.weight": numbers(10, 64),
        "blk.0.ffn_gate_exps.weight": numbers(3, 8, 64), "blk.0.attn_norm.weight": numbers(64),
        "output.weight": numbers(10, 64, dtype=np.float16), "rope_freqs.weight": numbers(4),
        "v.patch_embd.weight": numbers(8, 3, 2, 2), "blk.0.ssm_conv1d.weight": numbers(8, 4),
    }  # fmt: skip
    brain = numbers(8, 64, dtype=ml_dtypes.bfloat16)
    quantized = gguf.quants.quantize(numbers(8, 64), kinds.Q8_0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"token {i}" for i in range(1000)])
    writer.add_custom_alignment(64)
    for name, array in plain.items():
        writer.add_tensor(name, array)
    writer.add_tensor("blk.0.ffn_up.weight", brain.view(np.uint8), raw_dtype=kinds.BF16)
    writer.add_tensor("blk.0.ffn_down.weight", quantized, raw_dtype=kinds.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # the library's own reader finds the same
    theirs = {x.name: x.data.tobytes() for x in gguf.GGUFReader(path).tensors}
    source = memsim.open_checkpoint(path)
    assert set(source.tensors) == set(theirs)
    for name, array in {**plain, "blk.0.ffn_up.weight": brain}.items():
        read = source.load(name)
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
        assert read.tobytes() == array.tobytes() == theirs[name]
    assert source.load("blk.0.ffn_down.weight").data.tobytes() == theirs["blk.0.ffn_down.weight"]
    assert source.tensors["blk.0.ffn_down.weight"].shape == (8, 64)
    assert source.reasons["blk.0.ffn_down.weight"].startswith("quantized (Q8_0)")
    assert read_as(source) == {
        "blk.0.attn_q.weight": "out-in", "blk.0.ffn_gate_exps.weight": "stacked-out-in",
        "output.weight": "out-in", "v.patch_embd.weight": "out-in", "blk.0.ffn_up.weight": "out-in",
    }  # fmt: skip
    # what a chip holds, in a file that the library reads
    program(run, path, tmp_path / "held.gguf")
    held = {x.name: x.data.tobytes() for x in gguf.GGUFReader(tmp_path / "held.gguf").tensors}
    assert {name for name in theirs if held[name] != theirs[name]} == set(read_as(source))
    status, _, errors = run("program", path, "--policy", "sws", "--out", tmp_path / "x.safetensors")
    assert status == 1
    assert "no .safetensors file holds `blk.0.ffn_down.weight` (gguf:Q8_0) exactly" in errors


# --- the hub ------------------------------------------------------------------------------------

OPEN = """
import sys, memsim
for name in sys.argv[1:]:
    try:
        print(sorted(memsim.open_checkpoint(name).tensors))
    except (OSError, ValueError) as error:
        print(error)
"""


def test_weights_of_the_hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    files, tensors = {}, {"a.weight": numbers(4, 5), "b.weight": numbers(5, 3)}
    memsim.save_tensors(tmp_path / "whole.safetensors", tensors)
    whole = (tmp_path / "whole.safetensors").read_bytes()
    files["/some/plain/resolve/main/model.safetensors"] = whole
    files["/some/other/resolve/main/deep/own.safetensors"] = whole
    for name, tensor in tensors.items():
        memsim.save_tensors(tmp_path / "part.safetensors", {name: tensor}, force=True)
        content = (tmp_path / "part.safetensors").read_bytes()
        files[f"/some/shards/resolve/main/{name[0]}.safetensors"] = content
    weight_map = {name: f"{name[0]}.safetensors" for name in tensors}
    index = "resolve/main/model.safetensors.index.json"
    files[f"/some/shards/{index}"] = json.dumps({"weight_map": weight_map}).encode()
    hostile = {"weight_map": {"a.weight": "../../../../etc/passwd"}}
    files[f"/some/hostile/{index}"] = json.dumps(hostile).encode()
    with running(tmp_path / "home") as address:
        Hub.files = files
        done = subprocess.run(
            [sys.executable, "-c", OPEN, "hf:some/plain", "hf:some/shards", "hf:some/hostile",
             "hf:some/other/deep/own.safetensors", "hf:some/missing", "hf:../x", "hf:a",
             "hf:a/b/.."],
            env=os.environ | address, capture_output=True, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
    found = done.stdout.splitlines()
    assert found[0] == found[1] == found[3] == str(sorted(tensors)), done.stderr
    assert "names the shard '../../../../etc/passwd', not a plain file name" in found[2]
    assert "hf:some/missing: the Hugging Face hub did not give model.safetensors or" in found[4]
    for line in found[5:]:
        assert "names no repository; give hf:owner/name, or hf:owner/name/FILE" in line


# --- libraries that are not there ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "library", "remedy"),
    [
        ("x.pth", "torch", "pip install torch"),
        ("x.onnx", "onnx", 'pip install "memsim[files]"'),
        ("x.h5", "h5py", 'pip install "memsim[files]"'),
        ("x.keras", "h5py", 'pip install "memsim[files]"'),
        ("x.msgpack", "flax", 'pip install "memsim[files]"'),
        ("x.gguf", "gguf", 'pip install "memsim[files]"'),
        ("folder", "orbax", 'pip install "memsim[files]"'),
        ("hf:some/name", "huggingface_hub", 'pip install "memsim[files]"'),
    ],
)
def test_a_library_that_is_absent_is_named_with_what_installs_it(
    tmp_path, monkeypatch, run, name, library, remedy
):
    monkeypatch.chdir(tmp_path)
    if name == "folder":
        Path(name).mkdir()
        Path(name, "_METADATA").write_text("{}")
    elif not name.startswith("hf:"):
        Path(name).write_bytes(b"PK\x03\x04")
    for module in [m for m in sys.modules if m.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    status, printed, errors = run("report", name, "--policy", "sws")
    assert (status, printed) == (1, "")
    expected = f"`checkpoint` {name} takes {library} to be read, which is not installed: {remedy}"
    assert errors == f"memsim: {expected}"


def test_libraries_are_imported_when_such_a_file_is_opened():
    code = (
        "import sys, memsim.cli\n"
        "libraries = 'torch onnx h5py keras flax orbax gguf huggingface_hub'\n"
        "print([name for name in libraries.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_of_no_kind_lists_the_kinds(tmp_path):
    (tmp_path / "x.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"memsim reads \(\.safetensors, \.npz, \.pth, .*hf:owner"):
        memsim.open_checkpoint(tmp_path / "x.pb")


def test_a_layout_of_a_file_is_one_that_there_is(tmp_path):
    assert all("|" not in layout for layout in LAYOUTS)
    with pytest.raises(ValueError, match="`layouts` is"):
        memsim.select_by_name(layouts=["w"])
