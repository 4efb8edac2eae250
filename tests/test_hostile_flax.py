"""Files of Flax and folders of Orbax made to harm whoever opens them."""

import json
import pickle

import numpy as np
import pytest
from hostile import Bomb, Hostile

FILES = Hostile()


def packed(folder, data):
    (folder / "x.msgpack").write_bytes(data)
    return folder / "x.msgpack"


def array(shape, dtype, data):
    import msgpack

    inner = msgpack.packb((shape, dtype, data), use_bin_type=True)
    return msgpack.packb({"w": msgpack.ExtType(1, inner)})


@FILES.made_with("flax.serialization")
def flax_of_objects(folder):
    return packed(folder, array((1,), "object", bytes(8)))


@FILES.made_with("flax.serialization")
def flax_that_claims_a_trillion(folder):
    return packed(folder, array((10**6, 10**6), "float32", bytes(8)))


@FILES.made_with("flax.serialization")
def flax_with_a_claimed_length(folder):
    return packed(folder, b"\xdf\xff\xff\xff\xff\xa1a\xdd\xff\xff\xff\xff")


@FILES.made_with("flax.serialization")
def flax_nested_without_end(folder):
    return packed(folder, b"\x81\xa1a" * 10**6)


@FILES.made_with("flax.serialization")
def flax_is_a_pickle(folder):
    return packed(folder, pickle.dumps(Bomb()))


@FILES.made_with("flax.serialization")
def flax_cut_short(folder):
    return packed(folder, array((100,), "float32", bytes(400))[:-40])


def folder_of_orbax(folder):
    import orbax.checkpoint as orbax

    path = folder / "saved"
    handler = orbax.PyTreeCheckpointHandler(use_ocdbt=False)
    with orbax.Checkpointer(handler) as saver:
        saver.save(path, {"a": {"kernel": np.ones((4, 4), np.float32)}})
    return path


@FILES.made_with("orbax.checkpoint")
def orbax_that_claims_a_trillion(folder):
    path = folder_of_orbax(folder)
    (metadata,) = path.rglob(".zarray")
    content = json.loads(metadata.read_text()) | {"shape": [10**6, 10**6]}
    metadata.write_text(json.dumps(content))
    return path


@FILES.made_with("orbax.checkpoint")
def orbax_with_long_metadata(folder):
    path = folder_of_orbax(folder)
    with (path / "_METADATA").open("ab") as file:
        file.truncate(2**28)
    return path


@FILES.made_with("orbax.checkpoint")
def orbax_with_broken_metadata(folder):
    path = folder_of_orbax(folder)
    text = (path / "_METADATA").read_text()
    (path / "_METADATA").write_text(text[: len(text) // 2])
    return path


@FILES.made_with("orbax.checkpoint")
def orbax_with_a_name_outside(folder):
    path = folder_of_orbax(folder)
    text = (path / "_METADATA").read_text()
    (path / "_METADATA").write_text(text.replace("kernel", "../../../../etc/passwd"))
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return FILES.opened(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FILES.makers)
def test_a_hostile_file_is_refused_at_once(opened, name):
    assert FILES.is_refused(name, *opened)
