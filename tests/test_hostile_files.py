"""Checkpoints made to harm whoever opens them: each is refused at once, in little memory."""

import io
import itertools
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

SECONDS, MEGABYTES = 2, 300

# opens files in turn, all libraries imported before, and tells what each took
OPEN = """
import gc, importlib, json, resource, sys, time, warnings
import memsim
for name in ("torch", "onnx", "h5py", "gguf", "flax.serialization", "orbax.checkpoint"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def memory(what):
    text = open("/proc/self/status").read()
    return int(text.split(what + ":")[1].split()[0]) / 1000

for path in sys.argv[1:]:
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    # of this process: what others do on the machine does not count
    before, start = memory("VmRSS"), time.process_time()
    try:
        source = memsim.open_checkpoint(path)
        for name in source.tensors:
            source.load(name)
        said = None
    except (ValueError, OSError) as error:
        said = str(error)
        del error
    took = time.process_time() - start
    print(json.dumps([path, said, took, memory("VmHWM") - before]), flush=True)
"""

MAKERS = {}


def hostile(*libraries):
    """A maker of a file, called after what it is; it is skipped without these libraries."""

    def note(make):
        MAKERS[make.__name__] = (make, libraries)
        return make

    return note


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """An archive with other members: `change` gives those for the old ones."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zipped(path, change(members), compression)


def overlapping(path, count, data):
    """An archive of many names for one member, whose bytes are there once."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        (info,) = archive.infolist()
        for number in range(count):
            other = zipfile.ZipInfo(f"x/data/{number}")
            for field in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(other, field, getattr(info, field))
            archive.filelist.append(other)
    return path


# --- PyTorch ------------------------------------------------------------------------------------


def saved(folder, value, name="x.pth", **words):
    import torch

    torch.save(value, folder / name, **words)
    return folder / name


def small():
    import torch

    return {"a.weight": torch.ones(30, 30), "b.weight": torch.ones(3)}


@hostile("torch")
def torch_runs_code(folder):
    return saved(folder, {"a.weight": Bomb()})


@hostile("torch")
def torch_runs_code_in_an_old_file(folder):
    return saved(folder, {"a.weight": Bomb()}, "x.bin", _use_new_zipfile_serialization=False)


@hostile("torch")
def torch_is_a_bare_pickle(folder):
    (folder / "x.pt").write_bytes(pickle.dumps(Bomb()))
    return folder / "x.pt"


@hostile("torch")
def torch_with_a_compressed_bomb(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: bytes(2**29) if name.endswith("data/0") else data for name, data in old.items()
    }, zipfile.ZIP_DEFLATED)  # fmt: skip


@hostile("torch")
def torch_with_members_that_overlap(folder):
    return overlapping(folder / "x.pth", 2000, bytes(2**20))


@hostile("torch")
def torch_with_a_member_outside(folder):
    return rewritten(saved(folder, small()), lambda old: {**old, "../../etc/passwd": b"root"})


@hostile("torch")
def torch_in_a_tar_with_a_link(folder):
    with tarfile.open(folder / "x.pt", "w") as archive:
        info = tarfile.TarInfo("storages")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)
    return folder / "x.pt"


@hostile("torch")
def torch_with_one_number_for_a_trillion(folder):
    import torch

    return saved(folder, {"a.weight": torch.zeros(1).expand(10**6, 10**6)})


@hostile("torch")
def torch_that_holds_itself(folder):
    holder = {}
    holder["model"] = holder["a"] = holder
    return saved(folder, holder)


@hostile("torch")
def torch_that_doubles_at_every_level(folder):
    inner = small()
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    return saved(folder, inner)


@hostile("torch")
def torch_nested_without_end(folder):
    pickled = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: pickled if name.endswith("data.pkl") else data for name, data in old.items()
    })  # fmt: skip


@hostile("torch")
def torch_with_a_long_pickle(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: b"\x80\x02" + b"]" * 2**25 if name.endswith("data.pkl") else data
        for name, data in old.items()
    })  # fmt: skip


@hostile("torch")
def torch_cut_short(folder):
    path = saved(folder, small())
    path.write_bytes(path.read_bytes()[:2000])
    return path


@hostile("torch")
def torch_without_a_storage(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {k: v for k, v in old.items() if not k.endswith("data/0")})


@hostile("torch")
def torch_with_a_short_storage(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: data[:10] if name.endswith("data/0") else data for name, data in old.items()
    })  # fmt: skip


# --- npz ----------------------------------------------------------------------------------------


def npy(array, **words):
    file = io.BytesIO()
    np.save(file, array, **words)
    return file.getvalue()


@hostile()
def npz_of_objects(folder):
    return zipped(folder / "x.npz", {"w.npy": npy(np.array([Bomb()]), allow_pickle=True)})


@hostile()
def npz_is_a_bare_pickle(folder):
    (folder / "x.npz").write_bytes(pickle.dumps(Bomb()))
    return folder / "x.npz"


@hostile()
def npz_with_a_bomb(folder):
    np.savez_compressed(folder / "x.npz", w=np.zeros(2**26))
    return folder / "x.npz"


@hostile()
def npz_with_members_that_overlap(folder):
    return overlapping(folder / "x.npz", 2000, bytes(2**20))


@hostile()
def npz_with_a_member_outside(folder):
    return zipped(folder / "x.npz", {"../../w.npy": npy(np.ones(3))})


@hostile()
def npz_that_claims_a_trillion(folder):
    claim = npy(np.ones(3)).replace(b"(3,), }             ", b"(1000000000000,), } ")
    return zipped(folder / "x.npz", {"w.npy": claim})


# --- safetensors, indices -----------------------------------------------------------------------


@hostile()
def safetensors_with_a_long_header(folder):
    path = folder / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 99_000_000) + b"{")
        file.truncate(99_000_100)
    return path


@hostile()
def safetensors_with_a_claimed_header(folder):
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    return folder / "x.safetensors"


@hostile()
def safetensors_with_many_entries(folder):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({f"tensor {i}.weight": entry for i in range(90_000)}).encode()
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    return folder / "x.safetensors"


def index(folder, weight_map, name="x.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"weight_map": weight_map}))
    return folder / name


@hostile()
def index_with_a_shard_outside(folder):
    return index(folder, {"a": "../../../../etc/passwd"})


@hostile()
def index_with_an_absolute_shard(folder):
    return index(folder, {"a": "/etc/passwd.safetensors"})


@hostile()
def index_of_itself(folder):
    return index(folder, {"a": "x.safetensors.index.json"})


@hostile()
def index_of_a_link_to_itself(folder):
    (folder / "y.safetensors").symlink_to(folder / "y.safetensors")
    return index(folder, {"a": "y.safetensors"})


@hostile()
def index_that_is_long(folder):
    path = index(folder, {"a": "y.safetensors"})
    with path.open("ab") as file:
        file.truncate(2**28)
    return path


@hostile("torch")
def index_of_a_shard_that_runs_code(folder):
    saved(folder, {"a.weight": Bomb()}, "y.bin")
    return index(folder, {"a.weight": "y.bin"}, "x.bin.index.json")


# --- ONNX ---------------------------------------------------------------------------------------


def model(folder, **fields):
    """A model that multiplies by one constant, with these fields of it changed."""
    import onnx

    weights = onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    place = fields.pop("place", None)
    for name, value in fields.items():
        if name == "dims":
            del weights.dims[:]
            weights.dims.extend(value)
        else:
            setattr(weights, name, value)
    if place:
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        for key, value in place.items():
            weights.external_data.add(key=key, value=str(value))
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], [weights])
    (folder / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return folder / "x.onnx"


@hostile("onnx")
def onnx_with_data_outside(folder):
    return model(folder, place={"location": "../../../../etc/passwd", "length": 48})


@hostile("onnx")
def onnx_with_absolute_data(folder):
    return model(folder, place={"location": "/etc/passwd", "length": 48})


@hostile("onnx")
def onnx_with_more_data_than_there_is(folder):
    (folder / "d").write_bytes(bytes(100))
    return model(folder, place={"location": "d", "offset": 90, "length": 48})


@hostile("onnx")
def onnx_with_data_before_the_file(folder):
    (folder / "d").write_bytes(bytes(100))
    return model(folder, place={"location": "d", "offset": -8, "length": 48})


@hostile("onnx")
def onnx_that_claims_a_trillion(folder):
    return model(folder, dims=[10**6, 10**6])


@hostile("onnx")
def onnx_of_a_negative_shape(folder):
    return model(folder, dims=[-3, -4])


@hostile("onnx")
def onnx_of_more_numbers_than_its_shape(folder):
    return model(folder, dims=[3, 3])


@hostile("onnx")
def onnx_of_no_known_type(folder):
    return model(folder, data_type=99)


@hostile("onnx")
def onnx_nested_without_end(folder):
    import onnx

    data = onnx.helper.make_graph([], "g", [], []).SerializeToString()
    for _ in range(2000):  # a graph, in an attribute, in a node, in a graph
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length, size = len(data), b""
            while length > 127:
                size, length = size + bytes([length & 127 | 128]), length >> 7
            data = tag + size + bytes([length]) + data
    return Path(folder, "x.onnx"), data


@hostile("onnx")
def onnx_cut_short(folder):
    path = model(folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


@hostile("onnx")
def onnx_that_is_noise(folder):
    (folder / "x.onnx").write_bytes(np.random.default_rng(0).bytes(10**6))
    return folder / "x.onnx"


# --- HDF5, Keras --------------------------------------------------------------------------------


def hdf5(folder, fill, name="x.h5"):
    import h5py

    with h5py.File(folder / name, "w") as file:
        file["a/kernel"] = np.ones((4, 4))
        fill(h5py, file)
    return folder / name


@hostile("h5py")
def hdf5_with_a_link_outside(folder):
    link = lambda h5py, file: file.__setitem__("b", h5py.ExternalLink("/etc/passwd", "/"))  # noqa: E731
    return hdf5(folder, link)


@hostile("h5py")
def hdf5_of_soft_links_in_a_circle(folder):
    def fill(h5py, file):
        file["b"], file["c"] = h5py.SoftLink("/c"), h5py.SoftLink("/b")

    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_with_a_group_in_itself(folder):
    def fill(_, file):
        file["a/again"] = file["a"]

    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_that_doubles_at_every_level(folder):
    def fill(_, file):
        inner = file["a"]
        for level in range(60):
            group = file.create_group(f"level{level}")
            group["one"] = group["two"] = inner
            inner = group

    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_with_data_outside(folder):
    def fill(h5py, file):
        file.create_dataset("b/kernel", (4, 4), "u1", external=[("/etc/passwd", 0, 16)])

    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_of_virtual_data(folder):
    def fill(h5py, file):
        layout = h5py.VirtualLayout((4, 4), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "data", (4, 4))
        file.create_virtual_dataset("b/kernel", layout)

    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_that_claims_a_trillion(folder):
    fill = lambda _, file: file.create_dataset("b/kernel", (10**6, 10**6), "f4", chunks=(10, 10))  # noqa: E731
    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_with_a_shape_and_no_data(folder):
    return hdf5(folder, lambda _, file: file.create_dataset("b/kernel", (1000, 1000), "f4"))


@hostile("h5py")
def hdf5_with_a_bomb(folder):
    def fill(_, file):
        data = file.create_dataset("b/kernel", (512, 2**18), "f4", chunks=(64, 2**18),
                                   compression="gzip", compression_opts=9)  # fmt: skip
        for at in range(0, 512, 64):
            data[at : at + 64] = 0

    return hdf5(folder, fill)


@hostile("h5py")
def hdf5_cut_short(folder):
    path = hdf5(folder, lambda _, file: file.create_dataset("b", data=np.ones(10**5)))
    path.write_bytes(path.read_bytes()[:10_000])
    return path


@hostile("h5py")
def hdf5_that_is_noise(folder):
    noise = np.random.default_rng(0).bytes(10**6)
    (folder / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + noise)
    return folder / "x.h5"


def keras(folder, config="{}", compression=zipfile.ZIP_STORED, fill=lambda *_: None, **more):
    weights = hdf5(folder, fill, "weights.h5").read_bytes()
    members = {"config.json": config, "model.weights.h5": weights, **more}
    return zipped(folder / "x.keras", members, compression)


@hostile("h5py")
def keras_with_a_compressed_bomb(folder):
    def fill(_, file):
        file["b/kernel"] = np.zeros((2**14, 2**14), np.float32)

    return keras(folder, compression=zipfile.ZIP_DEFLATED, fill=fill)


@hostile("h5py")
def keras_with_a_member_outside(folder):
    return keras(folder, **{"../../etc/passwd": b"root"})


@hostile("h5py")
def keras_with_a_link_outside(folder):
    def fill(h5py, file):
        file["b"] = h5py.ExternalLink("/etc/passwd", "/")

    return keras(folder, fill=fill)


@hostile("h5py")
def keras_with_a_nested_configuration(folder):
    return keras(folder, config="[" * 10**6)


@hostile("h5py")
def keras_without_weights(folder):
    return zipped(folder / "x.keras", {"config.json": "{}"})


# --- Flax, Orbax --------------------------------------------------------------------------------


def packed(folder, data):
    (folder / "x.msgpack").write_bytes(data)
    return folder / "x.msgpack"


def array(shape, dtype, data):
    import msgpack

    inner = msgpack.packb((shape, dtype, data), use_bin_type=True)
    return msgpack.packb({"w": msgpack.ExtType(1, inner)})


@hostile("flax.serialization")
def flax_of_objects(folder):
    return packed(folder, array((1,), "object", bytes(8)))


@hostile("flax.serialization")
def flax_that_claims_a_trillion(folder):
    return packed(folder, array((10**6, 10**6), "float32", bytes(8)))


@hostile("flax.serialization")
def flax_with_a_claimed_length(folder):
    return packed(folder, b"\xdf\xff\xff\xff\xff\xa1a\xdd\xff\xff\xff\xff")


@hostile("flax.serialization")
def flax_nested_without_end(folder):
    return packed(folder, b"\x81\xa1a" * 10**6)


@hostile("flax.serialization")
def flax_is_a_pickle(folder):
    return packed(folder, pickle.dumps(Bomb()))


@hostile("flax.serialization")
def flax_cut_short(folder):
    return packed(folder, array((100,), "float32", bytes(400))[:-40])


def folder_of_orbax(folder):
    import orbax.checkpoint as orbax

    path = folder / "saved"
    handler = orbax.PyTreeCheckpointHandler(use_ocdbt=False)
    with orbax.Checkpointer(handler) as saver:
        saver.save(path, {"a": {"kernel": np.ones((4, 4), np.float32)}})
    return path


@hostile("orbax.checkpoint")
def orbax_that_claims_a_trillion(folder):
    path = folder_of_orbax(folder)
    (metadata,) = path.rglob(".zarray")
    content = json.loads(metadata.read_text()) | {"shape": [10**6, 10**6]}
    metadata.write_text(json.dumps(content))
    return path


@hostile("orbax.checkpoint")
def orbax_with_long_metadata(folder):
    path = folder_of_orbax(folder)
    with (path / "_METADATA").open("ab") as file:
        file.truncate(2**28)
    return path


@hostile("orbax.checkpoint")
def orbax_with_broken_metadata(folder):
    path = folder_of_orbax(folder)
    text = (path / "_METADATA").read_text()
    (path / "_METADATA").write_text(text[: len(text) // 2])
    return path


@hostile("orbax.checkpoint")
def orbax_with_a_name_outside(folder):
    path = folder_of_orbax(folder)
    text = (path / "_METADATA").read_text()
    (path / "_METADATA").write_text(text.replace("kernel", "../../../../etc/passwd"))
    return path


# --- GGUF ---------------------------------------------------------------------------------------


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def tensor(name="a.weight", shape=(32, 2), kind=0, offset=0):
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + axes + struct.pack("<IQ", kind, offset)


def write_gguf(folder, values=(), tensors=(), counts=None, data=bytes(4096), magic=b"GGUF"):
    """A file of GGUF from the text of its format: values are (name, type, bytes)."""
    body = b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in values)
    counts = counts or (len(tensors), len(values))
    head = magic + struct.pack("<IQQ", 3, *counts) + body + b"".join(tensors)
    (folder / "x.gguf").write_bytes(head + data)
    return folder / "x.gguf"


GGUF = {
    "counts_of_tensors": {"counts": (2**60, 0)},
    "counts_of_values": {"counts": (0, 2**60)},
    "a_giant_text": {"values": [("a", 8, struct.pack("<Q", 2**62))]},
    "a_giant_array": {"values": [("a", 9, struct.pack("<IQ", 0, 2**62))]},
    "a_giant_array_of_texts": {"values": [("a", 9, struct.pack("<IQ", 8, 2**40))]},
    "arrays_in_arrays": {"values": [("a", 9, struct.pack("<IQ", 9, 1) * 50)]},
    "a_value_of_no_type": {"values": [("a", 77, bytes(8))]},
    "an_alignment_of_0": {"values": [("general.alignment", 4, bytes(4))]},
    "a_giant_shape": {"tensors": [tensor(shape=(2**20, 2**20))]},
    "a_shape_that_overflows": {"tensors": [tensor(shape=(2**33, 2**31))]},
    "many_axes": {"tensors": [tensor(shape=(1,) * 2000)]},
    "half_a_block": {"tensors": [tensor(shape=(33, 2), kind=8)]},
    "a_type_of_no_kind": {"tensors": [tensor(kind=1000)]},
    "an_offset_outside": {"tensors": [tensor(offset=2**62)]},
    "a_name_twice": {"tensors": [tensor(), tensor()]},
    "a_name_of_no_text": {"tensors": [tensor().replace(b"weight", b"\xff" * 6)]},
    "no_data": {"tensors": [tensor(shape=(32, 2000))]},
    "another_beginning": {"magic": b"GGML"},
}

for name, words in GGUF.items():

    def make(folder, words=words):
        return write_gguf(folder, **words)

    MAKERS[f"gguf_with_{name}"] = (make, ("gguf",))


# --- all of them --------------------------------------------------------------------------------


def there(library):
    try:
        __import__(library)
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What was said of each file that can be made here, its seconds and megabytes."""
    here = tmp_path_factory.mktemp("hostile")
    paths = {}
    for name, (make, libraries) in MAKERS.items():
        if not all(map(there, libraries)):
            continue
        (here / name).mkdir()
        made = make(here / name)
        if isinstance(made, tuple):  # (path, content)
            made[0].write_bytes(made[1])
            made = made[0]
        paths[str(made)] = name
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *paths],
        capture_output=True, text=True, cwd=here, timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        path, *told = json.loads(line)
        found[paths[path]] = told
    assert not (here / "exploded").exists()
    return found, done.stderr


@pytest.mark.parametrize("name", MAKERS)
def test_a_hostile_file_is_refused_at_once(opened, name):
    for library in MAKERS[name][1]:
        pytest.importorskip(library)
    found, errors = opened
    assert name in found, errors[-2000:]
    said, seconds, megabytes = found[name]
    assert said is not None, "it was opened, and all its tensors were read"
    assert said.startswith("`checkpoint` ")
    assert "\n" not in said
    assert len(said) < 700
    assert seconds < SECONDS
    assert megabytes < MEGABYTES


def test_most_hostile_files_are_of_a_kind_of_their_own():
    assert len(MAKERS) == len({make for make, _ in MAKERS.values()}) >= 75
    libraries = set(itertools.chain(*(needed for _, needed in MAKERS.values())))
    assert libraries == {"torch", "onnx", "h5py", "gguf", "flax.serialization", "orbax.checkpoint"}


def test_what_a_configuration_of_keras_names_is_never_made(tmp_path):
    """A Lambda layer has code of its own, which Keras could be made to run."""
    pytest.importorskip("h5py")
    import memsim

    code = {"class_name": "__lambda__", "config": {"code": "gASVIAAAAAAAAACMBW9zLm1rZGly"}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": code}}
    other = {"module": "os", "class_name": "mkdir", "config": {"path": "exploded"}}
    config = {"class_name": "Functional", "config": {"layers": [layer, other]}}
    path = keras(tmp_path, config=json.dumps(config))
    before = set(sys.modules)
    assert set(memsim.open_checkpoint(path).tensors) == {"a/kernel"}
    assert not {"keras", "tensorflow"} & (set(sys.modules) - before)
    assert not list(tmp_path.rglob("exploded"))
