"""Files of PyTorch, made by torch and read as it made them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_kinds import holds, program, read_as

import memsim


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
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
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
        "import sys, torch\nfrom memsim import open_checkpoint\n"
        "peak = lambda: int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0])\n"
        "before = peak(); source = open_checkpoint(sys.argv[1])\n"
        "assert source.load('1.weight').sum() == 0\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert int(done.stdout) < 20_000, done.stderr  # kilobytes that are of no file


def test_the_pages_command_makes_the_weights_of_the_tables(tmp_path, torch, monkeypatch):
    """The file of ResNet-20 is that of a parallel network, beside what else its authors saved."""
    page = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
    (code,) = re.findall(r"&&\npython -c '\n(.*?)'\n```", page, re.DOTALL)
    names = ("conv1.weight", "layer1.0.conv1.weight", "linear.weight", "linear.bias")
    state = {name: torch.randn(4, 3) for name in names}
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": parallel, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102
    assert holds(memsim.open_checkpoint("resnet20_cifar10.safetensors"), arrays(state))
