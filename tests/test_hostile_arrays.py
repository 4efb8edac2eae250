"""Files of npz and safetensors, and indices of shards, made to harm whoever opens them."""

import io
import json
import pickle
import struct

import numpy as np
import pytest
from hostile import Bomb, Hostile, overlapping, saved, zipped

FILES = Hostile()


def npy(array, **words):
    file = io.BytesIO()
    np.save(file, array, **words)
    return file.getvalue()


@FILES.made_with()
def npz_of_objects(folder):
    return zipped(folder / "x.npz", {"w.npy": npy(np.array([Bomb()]), allow_pickle=True)})


@FILES.made_with()
def npz_is_a_bare_pickle(folder):
    (folder / "x.npz").write_bytes(pickle.dumps(Bomb()))
    return folder / "x.npz"


@FILES.made_with()
def npz_with_a_bomb(folder):
    np.savez_compressed(folder / "x.npz", w=np.zeros(2**26))
    return folder / "x.npz"


@FILES.made_with()
def npz_with_members_that_overlap(folder):
    return overlapping(folder / "x.npz", 2000, bytes(2**20))


@FILES.made_with()
def npz_with_a_member_outside(folder):
    return zipped(folder / "x.npz", {"../../w.npy": npy(np.ones(3))})


@FILES.made_with()
def npz_that_claims_a_trillion(folder):
    claim = npy(np.ones(3)).replace(b"(3,), }             ", b"(1000000000000,), } ")
    return zipped(folder / "x.npz", {"w.npy": claim})


@FILES.made_with()
def safetensors_with_a_long_header(folder):
    path = folder / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 99_000_000) + b"{")
        file.truncate(99_000_100)
    return path


@FILES.made_with()
def safetensors_with_a_claimed_header(folder):
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    return folder / "x.safetensors"


@FILES.made_with()
def safetensors_with_many_entries(folder):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({f"tensor {i}.weight": entry for i in range(90_000)}).encode()
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    return folder / "x.safetensors"


def index(folder, weight_map, name="x.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"weight_map": weight_map}))
    return folder / name


@FILES.made_with()
def index_with_a_shard_outside(folder):
    return index(folder, {"a": "../../../../etc/passwd"})


@FILES.made_with()
def index_with_an_absolute_shard(folder):
    return index(folder, {"a": "/etc/passwd.safetensors"})


@FILES.made_with()
def index_of_itself(folder):
    return index(folder, {"a": "x.safetensors.index.json"})


@FILES.made_with()
def index_of_a_link_to_itself(folder):
    (folder / "y.safetensors").symlink_to(folder / "y.safetensors")
    return index(folder, {"a": "y.safetensors"})


@FILES.made_with()
def index_that_is_long(folder):
    path = index(folder, {"a": "y.safetensors"})
    with path.open("ab") as file:
        file.truncate(2**28)
    return path


@FILES.made_with("torch")
def index_of_a_shard_that_runs_code(folder):
    saved(folder, {"a.weight": Bomb()}, "y.bin")
    return index(folder, {"a.weight": "y.bin"}, "x.bin.index.json")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return FILES.opened(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FILES.makers)
def test_a_hostile_file_is_refused_at_once(opened, name):
    assert FILES.is_refused(name, *opened)
