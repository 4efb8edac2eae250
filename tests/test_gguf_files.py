"""Files of GGUF, made by gguf: plain tensors as they are, quantized ones digital."""

import ml_dtypes
import numpy as np
import pytest
from checkpoint_kinds import numbers, program, read_as

import memsim


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
