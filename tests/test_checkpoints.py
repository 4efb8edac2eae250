import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import hypothesis
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import memsim
from memsim.files.raw import RawTensor
from memsim.files.writing import write_whole


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((5, 21), np.float32),
        "b.weight": rng.standard_normal((4, 3, 3, 3)).astype(ml_dtypes.bfloat16),
        "c.weight": rng.standard_normal((6, 4)).astype(np.float16),
        "a.bias": np.zeros(5, np.float32),
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_tensors_come_back_with_names_shapes_and_dtypes(tmp_path, tensors, suffix):
    path = tmp_path / f"x{suffix}"
    memsim.save_tensors(path, tensors)
    source = memsim.open_checkpoint(path)
    assert set(source.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert source.tensors[name].shape == tensor.shape
        assert source.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(source.load(name), tensor)


def test_a_transposed_view_is_saved_as_it_reads(tmp_path):
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    memsim.save_tensors(tmp_path / "x.safetensors", {"w": view})
    np.testing.assert_array_equal(
        memsim.open_checkpoint(tmp_path / "x.safetensors").load("w"), view
    )


def test_a_sharded_checkpoint_opens_by_its_index(tmp_path, tensors):
    names = list(tensors)
    for i, part in enumerate((names[:2], names[2:])):
        safetensors.numpy.save_file({n: tensors[n] for n in part}, tmp_path / f"{i}.safetensors")
    weight_map = {name: f"{i // 2}.safetensors" for i, name in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    source = memsim.open_checkpoint(index)
    assert set(source.tensors) == set(names)
    np.testing.assert_array_equal(source.load("c.weight"), tensors["c.weight"])

    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names the shard 1\.safetensors, missing"):
        memsim.open_checkpoint(index)
    index.write_text(json.dumps({"weight_map": {"a": "../0.safetensors"}}))
    with pytest.raises(ValueError, match="not a plain file name"):
        memsim.open_checkpoint(index)
    for text in ("[]", "{}", "no json", '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(ValueError, match="not the index of a sharded checkpoint"):
            memsim.open_checkpoint(index)


def test_what_is_no_checkpoint_is_refused(tmp_path, tensors):
    with pytest.raises(FileNotFoundError, match=r"`checkpoint` .*none\.safetensors is not a file"):
        memsim.open_checkpoint(tmp_path / "none.safetensors")
    whole = tmp_path / "whole.safetensors"
    memsim.save_tensors(whole, tensors)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cut\.safetensors is truncated"):
        memsim.open_checkpoint(cut)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        memsim.open_checkpoint(text)
    other = tmp_path / "weights.pb"
    other.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"not a checkpoint that memsim reads \(.safetensors"):
        memsim.open_checkpoint(other)
    cut_npz = tmp_path / "cut.npz"
    np.savez(cut_npz, w=np.ones((30, 30)))
    cut_npz.write_bytes(cut_npz.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or not an npz"):
        memsim.open_checkpoint(cut_npz)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("plain", [True, False], ids=["a bare pickle", "an object array"])
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, plain):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.npz"
    if plain:
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        np.savez(path, w=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="holds pickled objects, which memsim never unpickles"):
        memsim.open_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_an_output_that_exists_needs_force(tmp_path):
    path = tmp_path / "x.npz"
    memsim.save_tensors(path, {"w": np.ones(2)})
    with pytest.raises(FileExistsError, match=r"x\.npz` exists; use --force"):
        memsim.save_tensors(path, {"w": np.zeros(2)})
    memsim.save_tensors(path, {"w": np.zeros(2)}, force=True)
    assert memsim.open_checkpoint(path).load("w").sum() == 0


def test_an_output_needs_a_folder_that_can_be_written(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none` is not a folder; make it first"):
        memsim.save_tensors(tmp_path / "none" / "x.npz", {})
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        memsim.save_tensors(tmp_path, {})
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root
    with pytest.raises(PermissionError, match="cannot be written; choose another folder"):
        memsim.save_tensors(tmp_path / "x.npz", {})


def test_a_broken_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("new, but")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_whole(path, half, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "old"


def same(one, other):
    """Whether two tensors are of one dtype, shape and bits."""
    if isinstance(one, RawTensor):
        alike = (one.stored, one.shape) == (other.stored, other.shape)
        return alike and np.array_equal(one.data, other.data)
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and one.tobytes() == other.tobytes()


# dtype of the format, bits, the dtype that reads it, whether it can be a weight matrix
DTYPES = [
    ("F64", 64, np.float64, True), ("F32", 32, np.float32, True), ("F16", 16, np.float16, True),
    ("BF16", 16, ml_dtypes.bfloat16, True), ("F8_E4M3", 8, ml_dtypes.float8_e4m3fn, True),
    ("F8_E5M2", 8, ml_dtypes.float8_e5m2, True),
    ("F8_E4M3FNUZ", 8, ml_dtypes.float8_e4m3fnuz, True),
    ("F8_E5M2FNUZ", 8, ml_dtypes.float8_e5m2fnuz, True),
    ("F8_E8M0", 8, None, False), ("F4", 4, None, False), ("F6_E2M3", 6, None, False),
    ("F6_E3M2", 6, None, False), ("BOOL", 8, np.bool_, False), ("I8", 8, np.int8, False),
    ("U8", 8, np.uint8, False), ("I16", 16, np.int16, False), ("U16", 16, np.uint16, False),
    ("I32", 32, np.int32, False), ("U32", 32, np.uint32, False), ("I64", 64, np.int64, False),
    ("U64", 64, np.uint64, False), ("C64", 64, np.complex64, False),
    ("F9_OF_TOMORROW", 24, None, False),
]  # fmt: skip


def write_raw(path, tensors, metadata=None, order=None):
    """A safetensors file of (dtype, shape, bytes), by name, written from the format's text."""
    header = {"__metadata__": metadata} if metadata is not None else {}
    end, data = 0, b""
    for name in order or tensors:
        dtype, shape, content = tensors[name]
        offsets = [end, end := end + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    write_header(path, json.dumps(header).encode(), data)


def write_header(path, header, data, length=None):
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + data)


def content(bits, elements):
    bytes_ = np.random.default_rng(0).integers(0, 256, bits * elements // 8, np.uint8)
    return (bytes_ & 1 if bits == 1 else bytes_).tobytes()


@pytest.mark.parametrize(("code", "bits", "dtype", "mapped"), DTYPES, ids=[x[0] for x in DTYPES])
def test_every_dtype_is_read_exactly_or_stays_digital_and_says_why(
    tmp_path, run, code, bits, dtype, mapped
):
    numbers = np.float32(np.random.default_rng(0).normal(size=(4, 8)))
    data = numbers.astype(dtype).tobytes() if mapped else content(bits, 32)
    data = bytes(b & 1 for b in data) if code == "BOOL" else data
    path = tmp_path / "x.safetensors"
    others = {"f.weight": ("F32", [4, 8], numbers.tobytes())}
    write_raw(path, {"s.weight": (code, [4, 8], data), **others}, {"format": "pt", "é": "\x1b["})
    source = memsim.open_checkpoint(path)
    assert source.metadata == {"format": "pt", "é": "\x1b["}
    assert source.tensors["s.weight"].shape == (4, 8)
    assert (source.reasons.keys() == {"s.weight"}) != mapped
    read = source.load("s.weight")
    if dtype is None:
        assert isinstance(read, RawTensor)
        assert code in source.reasons["s.weight"]
        assert (read.stored, read.shape, read.data.tobytes()) == (code, (4, 8), data)
        with pytest.raises(ValueError, match=f"a tensor of {code}"):
            np.asarray(read)
    else:
        assert read.dtype == source.tensors["s.weight"].dtype == dtype
        assert read.tobytes() == data

    # what is programmed, and what is kept of the rest
    out = tmp_path / "out.safetensors"
    status, printed, errors = run("program", path, "--policy", "sws", "--out", out)
    assert status == 0, errors
    tensors = "tensor" if mapped == 0 else "tensors"
    assert f"programmed {1 + mapped} {tensors}" in printed
    held = memsim.open_checkpoint(out)
    assert held.metadata == source.metadata
    assert held.reasons == source.reasons
    if not mapped:
        assert same(held.load("s.weight"), read)

    out = tmp_path / "out.npz"
    status, _, errors = run("program", path, "--policy", "sws", "--out", out)
    if dtype is None:
        assert status == 1
        assert f"holds `s.weight` ({code}) exactly; save as .safetensors" in errors
        assert not out.exists()
    else:
        again = memsim.open_checkpoint(out)
        assert again.metadata == source.metadata
        for name in held.tensors:
            assert same(again.load(name), held.load(name))
        if code in ("BF16", "F8_E4M3"):
            assert run("report", out, "--policy", "sws")[0] == 0


@pytest.mark.parametrize("code", ["BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_every_small_float_is_read_and_held_exactly(tmp_path, key, code):
    dtype = next(x[2] for x in DTYPES if x[0] == code)
    numbers = np.arange(2 ** (8 * np.dtype(dtype).itemsize)).astype(f"u{np.dtype(dtype).itemsize}")
    write_raw(tmp_path / "x.safetensors", {"w": (code, [numbers.size], numbers.tobytes())})
    read = memsim.open_checkpoint(tmp_path / "x.safetensors").load("w")
    np.testing.assert_array_equal(
        read.astype(np.float32), numbers.view(dtype).astype(np.float32), strict=True
    )
    # codes times the scale, rounded once
    finite = read[np.isfinite(read.astype(np.float32))]
    weights = finite[:: finite.size // 240][:240].reshape(8, 30)
    plan = memsim.plan({"w.weight": weights}, memsim.CrossbarConfig(rows=8), memsim.policies.Sws())
    held, _ = memsim.program({"w.weight": weights}, plan, memsim.sample_chip(key, plan))
    scale = np.asarray(plan.layers["w.weight"].scale)
    codes = np.rint(weights.astype(np.float32) / scale)
    np.testing.assert_array_equal(held["w.weight"], (codes * scale).astype(dtype), strict=True)


def test_safetensors_are_written_as_the_library_writes_them(tmp_path, tensors):
    more = {"n": np.int64(3), "flag": np.zeros((0, 3), bool), "é/\x1b": np.complex64([1j])}
    arrays = {name: np.asarray(x) for name, x in {**tensors, **more}.items()}
    memsim.save_tensors(tmp_path / "ours.safetensors", arrays, metadata={"format": "pt"})
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors", {"format": "pt"})
    ours, theirs = (tmp_path / f"{name}.safetensors" for name in ("ours", "theirs"))
    assert ours.read_bytes() == theirs.read_bytes()


names = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
arrays = st.sampled_from([x[2] for x in DTYPES if x[2]]).flatmap(
    lambda dtype: npst.arrays(np.uint8, npst.array_shapes(min_dims=0, min_side=0)).map(
        lambda bits: (bits % 2).astype(dtype)
    )
)


@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.dictionaries(names, arrays, max_size=5), st.dictionaries(names, names))
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_whatever_is_saved_comes_back(tmp_path, suffix, saved, metadata):
    path = tmp_path / f"x{suffix}"
    bad = [n for n in saved if "\0" in n and suffix == ".npz"]
    if bad:
        with pytest.raises(ValueError, match="cannot hold a tensor called"):
            memsim.save_tensors(path, saved, metadata=metadata, force=True)
        return
    memsim.save_tensors(path, saved, metadata=metadata, force=True)
    source = memsim.open_checkpoint(path)
    assert source.metadata == metadata
    assert source.tensors.keys() == saved.keys()
    for name, array in saved.items():
        assert same(source.load(name), array)
        assert source.tensors[name].dtype == array.dtype


def test_names_that_no_file_can_hold_are_refused(tmp_path):
    for suffix, name in ((".npz", "a\0b"), (".safetensors", "__metadata__"), (".npz", "\ud800")):
        with pytest.raises(ValueError, match=r"cannot hold a tensor called .*; rename it"):
            memsim.save_tensors(tmp_path / f"x{suffix}", {name: np.ones(2)})
    memsim.save_tensors(tmp_path / "x.npz", {"file": np.ones(2), "memsim.json": np.ones(3)})
    assert memsim.open_checkpoint(tmp_path / "x.npz").load("memsim.json").size == 3


@pytest.mark.parametrize(
    "array",
    [np.ones(2, np.longdouble), np.ones(2, np.clongdouble), np.array(["a"]), np.ones(2, "V3"),
     np.zeros(2, "i2,f4"), np.zeros(2, "M8[s]"), np.ones(2, np.complex128)],
    ids=lambda x: str(x.dtype),
)  # fmt: skip
def test_what_only_npz_holds_stays_digital_there(tmp_path, run, array):
    weights = np.float32(np.random.default_rng(0).normal(size=(6, 5)))
    path, out = tmp_path / "x.npz", tmp_path / "out.npz"
    np.savez(path, **{"a.weight": weights, "o.weight": np.broadcast_to(array[:1], (4, 4))})
    source = memsim.open_checkpoint(path)
    assert list(source.reasons) == ["o.weight"]
    assert run("report", path)[0] == 0
    assert run("program", path, "--policy", "sws", "--out", out)[0] == 0
    with np.load(path) as before, np.load(out) as after:
        assert same(after["o.weight"], before["o.weight"])
    status, _, errors = run("program", path, "--policy", "sws", "--out", tmp_path / "o.safetensors")
    assert status == 1
    assert "no .safetensors file holds `o.weight`" in errors
    assert "save as .npz" in errors


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i4", "u8", "c8", "U3"])
def test_numbers_of_either_byte_order_are_the_same(tmp_path, kind):
    array = np.arange(12).reshape(3, 4).astype(kind)
    np.savez(tmp_path / "x.npz", big=array.astype(f">{kind}"), little=array.astype(f"<{kind}"))
    source = memsim.open_checkpoint(tmp_path / "x.npz")
    for name in ("big", "little"):
        assert same(source.load(name), array)
        assert source.tensors[name].dtype == array.dtype
    if kind != "U3":
        memsim.save_tensors(tmp_path / "x.safetensors", {"w": array.astype(f">{kind}")})
        assert same(memsim.open_checkpoint(tmp_path / "x.safetensors").load("w"), array)


def test_bytes_without_a_dtype_are_never_taken_for_numbers(tmp_path, tensors):
    path = tmp_path / "x.npz"
    np.savez(path, w=tensors["b.weight"].view("V2"))
    source = memsim.open_checkpoint(path)
    assert "whose dtype the file does not say" in source.reasons["w"]
    memsim.save_tensors(path, {"w": tensors["b.weight"]}, force=True)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for text in (
        '{"dtypes": {"w": "float64"}}', '{"dtypes": {"w": "float8_e5m2"}}', "[]", "{",
        '{"dtypes": {"w": "object"}}', '{"dtypes": {"other": "bfloat16"}}', '{"dtypes": 3}',
        '{"more": {}}', '{"metadata": {"a": 1}}', '{"dtypes": {"w": 1}}',
    ):  # fmt: skip
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**members, "memsim.json": text}.items():
                archive.writestr(name, data)
        with pytest.raises(ValueError, match="`checkpoint`"):
            memsim.open_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_an_npz_holds_arrays_each_of_its_own_name(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, w=np.ones(3))
    with zipfile.ZipFile(path) as archive:
        data = archive.read("w.npy")
    broken = [[("w.npy", data), ("w.npy", data)], [("w.npy", data), ("x.txt", b"")],
              [("w.npy", data[:-1])], [("w.npy", data + b"1")], [("w.npy", b"")],
              *([("w.npy", data.replace(*change))] for change in (
                  (b"<f8", b"<f1"), (b"(3,)", b"(9,)"),
                  (b"(3,), }          ", b"(99999999999,), }"),
              ))]  # fmt: skip
    for members in broken:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content_ in members:
                archive.writestr(name, content_)
        with pytest.raises(ValueError, match="truncated or not an npz file"):
            memsim.open_checkpoint(path)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"", b"[]", b"3", b"{", b'{"a": 3}', b" {}", b'{"a": "\xff"}', b'{"a": NaN}',
        b'{"__metadata__": {"a": 1}}', b'{"__metadata__": []}', b"[" * 100_000, b'{"a":' * 10_000,
        b'{"a": %(F32)s, "a": %(F32)s}' % {b"F32": json.dumps(F32).encode()},
        *(json.dumps({"a": entry}).encode() for entry in (
            {}, {**F32, "more": 1}, {**F32, "dtype": 3}, {**F32, "dtype": None},
            {**F32, "shape": [2.0]}, {**F32, "shape": [-2]}, {**F32, "shape": [True, 2]},
            {**F32, "shape": 2}, {**F32, "shape": [3]}, {**F32, "shape": ["2"]},
            {**F32, "shape": [1] * 70 + [2]}, {**F32, "shape": [0, 2**62, 2**62]},
            {**F32, "shape": [2**64]}, {**F32, "dtype": "F4", "shape": [17]},
            {**F32, "dtype": "F4", "shape": [15]}, {**F32, "dtype": "F6_E2M3", "shape": [11]},
            {**F32, "data_offsets": [0]}, {**F32, "data_offsets": [8, 0]},
            {**F32, "data_offsets": [0, 4]}, {**F32, "data_offsets": [4, 12]},
            {**F32, "data_offsets": [-8, 0]}, {**F32, "data_offsets": [8, 16]},
        )),
        json.dumps({"a": F32, "b": F32}).encode(),
        json.dumps({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}).encode(),
        json.dumps({"a": {**F32, "shape": [1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"\ud800": F32}).encode(),
    ],
)  # fmt: skip
def test_hostile_headers_are_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    for data in (bytes(8), b"", bytes(16)):
        write_header(path, header, data)
        if header == json.dumps({"a": F32}).encode() and len(data) == 8:
            continue
        with pytest.raises(ValueError, match="truncated or not a safetensors file"):
            memsim.open_checkpoint(path)


def test_the_length_of_a_header_is_not_believed(tmp_path):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"a": F32}).encode()
    write_header(path, header, bytes(8))
    assert memsim.open_checkpoint(path).load("a").shape == (2,)
    for length in (0, 1, len(header) - 1, len(header) + 1, 10**9, 2**63, 2**64 - 1):
        write_header(path, header, bytes(8), length)
        with pytest.raises(ValueError, match="truncated or not a safetensors file"):
            memsim.open_checkpoint(path)


def test_a_file_that_changes_while_it_is_open_is_noticed(tmp_path, tensors):
    path = tmp_path / "x.safetensors"
    memsim.save_tensors(path, tensors)
    source = memsim.open_checkpoint(path)
    memsim.save_tensors(path, {**tensors, "d": np.ones(3)}, force=True)
    with pytest.raises(ValueError, match="changed while it was open; open it again"):
        source.load("a.weight")


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    path = tmp_path / "x.safetensors"
    memsim.save_tensors(path, {f"{i}": np.zeros(2**20, np.float32) for i in range(8)})
    tracemalloc.start()
    try:
        source = memsim.open_checkpoint(path)
        for name in source.tensors:
            assert source.load(name).nbytes == 2**22
        assert tracemalloc.get_traced_memory()[1] < 1.5 * 2**22
    finally:
        tracemalloc.stop()


def save_shards(folder, weight_map, **shards):
    for name, of_shard in shards.items():
        memsim.save_tensors(folder / f"{name}.safetensors", of_shard, metadata={"format": "pt",
                            "shard": name}, force=True)  # fmt: skip
    index = folder / "m.safetensors.index.json"
    text = weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
    index.write_text(text)
    return index


def test_the_shard_that_the_index_gives_a_tensor_wins(tmp_path):
    one, other = np.zeros(2), np.ones(2)
    for shard, expected in (("x", one), ("y", other)):
        index = save_shards(
            tmp_path,
            {"a": f"{shard}.safetensors", "b": "y.safetensors", "c": "x.safetensors"},
            x={"a": one, "c": one},
            y={"a": other, "b": other},
        )
        source = memsim.open_checkpoint(index)
        assert set(source.tensors) == {"a", "b", "c"}
        assert source.metadata == {"format": "pt"}
        np.testing.assert_array_equal(source.load("a"), expected)


def test_an_index_and_its_shards_hold_the_same_tensors(tmp_path):
    x, y = {"a": np.zeros(2)}, {"b": np.zeros(2)}
    both = {"a": "x.safetensors", "b": "y.safetensors"}
    index = save_shards(tmp_path, {**both, "gone": "x.safetensors"}, x=x, y=y)
    with pytest.raises(ValueError, match=r"`gone` is in x\.safetensors, but no shard has it"):
        memsim.open_checkpoint(index)
    save_shards(tmp_path, {"a": "y.safetensors", "b": "y.safetensors", "c": "x.safetensors"},
                x={**x, "c": y["b"]})  # fmt: skip
    with pytest.raises(ValueError, match=r"`a` is in y\.safetensors, but it is in x\.safetensors"):
        memsim.open_checkpoint(index)
    save_shards(tmp_path, both, x=x, y={**y, "forgotten": np.ones(1)})
    with pytest.raises(ValueError, match=r"does not name `forgotten`, which is in y\.safetensors"):
        memsim.open_checkpoint(index)


@pytest.mark.parametrize(
    "shard",
    ["", ".", "..", "/x.safetensors", "../x.safetensors", "./x.safetensors", "a/x.safetensors",
     "..\\x.safetensors", "x\0.safetensors", "x\n.safetensors", "\x1b[2J.safetensors"],
)  # fmt: skip
def test_shards_lie_beside_their_index(tmp_path, shard):
    index = save_shards(tmp_path, {"a": shard}, x={"a": np.zeros(2)})
    with pytest.raises(ValueError, match="not a plain file name"):
        memsim.open_checkpoint(index)


@pytest.mark.parametrize("shard", ["x.index.json", "x.pt", "x.npz", "x"])
def test_an_index_of_other_files_says_what_to_do(tmp_path, shard):
    (tmp_path / shard).write_bytes(b"\x80")
    index = save_shards(tmp_path, {"a": shard})
    with pytest.raises(ValueError, match=r"not a .* or \.bin file.*safe_serialization=True"):
        memsim.open_checkpoint(index)


@pytest.mark.parametrize(
    "text",
    ['{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}', '{"weight_map": {}}',
     '{"weight_map": {"a": 1}}', '{"weight_map": {"a": null}}', '{"weight_map": ["x"]}',
     '{"weight_map": {"a": "x.safetensors"}, "weight_map": {}}', "", "null", '"x"', "[" * 10**5],
)  # fmt: skip
def test_what_is_no_index_is_refused(tmp_path, text):
    index = save_shards(tmp_path, text, x={"a": np.zeros(2)})
    with pytest.raises(ValueError, match="not the index of a sharded checkpoint"):
        memsim.open_checkpoint(index)
