"""Files of HDF5 and Keras made to harm whoever opens them."""

import json
import sys
import zipfile

import numpy as np
import pytest
from hostile import Hostile, zipped

FILES = Hostile()


def hdf5(folder, fill, name="x.h5"):
    import h5py

    with h5py.File(folder / name, "w") as file:
        file["a/kernel"] = np.ones((4, 4))
        fill(h5py, file)
    return folder / name


@FILES.made_with("h5py")
def hdf5_with_a_link_outside(folder):
    link = lambda h5py, file: file.__setitem__("b", h5py.ExternalLink("/etc/passwd", "/"))  # noqa: E731
    return hdf5(folder, link)


@FILES.made_with("h5py")
def hdf5_of_soft_links_in_a_circle(folder):
    def fill(h5py, file):
        file["b"], file["c"] = h5py.SoftLink("/c"), h5py.SoftLink("/b")

    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_with_a_group_in_itself(folder):
    def fill(_, file):
        file["a/again"] = file["a"]

    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_that_doubles_at_every_level(folder):
    def fill(_, file):
        inner = file["a"]
        for level in range(60):
            group = file.create_group(f"level{level}")
            group["one"] = group["two"] = inner
            inner = group

    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_with_data_outside(folder):
    def fill(h5py, file):
        file.create_dataset("b/kernel", (4, 4), "u1", external=[("/etc/passwd", 0, 16)])

    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_of_virtual_data(folder):
    def fill(h5py, file):
        layout = h5py.VirtualLayout((4, 4), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "data", (4, 4))
        file.create_virtual_dataset("b/kernel", layout)

    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_that_claims_a_trillion(folder):
    fill = lambda _, file: file.create_dataset("b/kernel", (10**6, 10**6), "f4", chunks=(10, 10))  # noqa: E731
    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_with_a_shape_and_no_data(folder):
    return hdf5(folder, lambda _, file: file.create_dataset("b/kernel", (1000, 1000), "f4"))


@FILES.made_with("h5py")
def hdf5_with_a_bomb(folder):
    def fill(_, file):
        data = file.create_dataset("b/kernel", (512, 2**18), "f4", chunks=(64, 2**18),
                                   compression="gzip", compression_opts=9)  # fmt: skip
        for at in range(0, 512, 64):
            data[at : at + 64] = 0

    return hdf5(folder, fill)


@FILES.made_with("h5py")
def hdf5_cut_short(folder):
    path = hdf5(folder, lambda _, file: file.create_dataset("b", data=np.ones(10**5)))
    path.write_bytes(path.read_bytes()[:10_000])
    return path


@FILES.made_with("h5py")
def hdf5_that_is_noise(folder):
    noise = np.random.default_rng(0).bytes(10**6)
    (folder / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + noise)
    return folder / "x.h5"


def keras(folder, config="{}", compression=zipfile.ZIP_STORED, fill=lambda *_: None, **more):
    weights = hdf5(folder, fill, "weights.h5").read_bytes()
    members = {"config.json": config, "model.weights.h5": weights, **more}
    return zipped(folder / "x.keras", members, compression)


@FILES.made_with("h5py")
def keras_with_a_compressed_bomb(folder):
    def fill(_, file):
        file["b/kernel"] = np.zeros((2**14, 2**14), np.float32)

    return keras(folder, compression=zipfile.ZIP_DEFLATED, fill=fill)


@FILES.made_with("h5py")
def keras_with_a_member_outside(folder):
    return keras(folder, **{"../../etc/passwd": b"root"})


@FILES.made_with("h5py")
def keras_with_a_link_outside(folder):
    def fill(h5py, file):
        file["b"] = h5py.ExternalLink("/etc/passwd", "/")

    return keras(folder, fill=fill)


@FILES.made_with("h5py")
def keras_with_a_nested_configuration(folder):
    return keras(folder, config="[" * 10**6)


@FILES.made_with("h5py")
def keras_without_weights(folder):
    return zipped(folder / "x.keras", {"config.json": "{}"})


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return FILES.opened(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FILES.makers)
def test_a_hostile_file_is_refused_at_once(opened, name):
    assert FILES.is_refused(name, *opened)


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
