"""Files of GGUF made to harm whoever opens them."""

import struct

import pytest
from hostile import Hostile

FILES = Hostile()


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

    FILES.makers[f"gguf_with_{name}"] = (make, ("gguf",))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return FILES.opened(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FILES.makers)
def test_a_hostile_file_is_refused_at_once(opened, name):
    assert FILES.is_refused(name, *opened)
