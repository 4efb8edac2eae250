"""Files of ONNX made to harm whoever opens them."""

import numpy as np
import pytest
from hostile import Hostile

FILES = Hostile()


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


@FILES.made_with("onnx")
def onnx_with_data_outside(folder):
    return model(folder, place={"location": "../../../../etc/passwd", "length": 48})


@FILES.made_with("onnx")
def onnx_with_absolute_data(folder):
    return model(folder, place={"location": "/etc/passwd", "length": 48})


@FILES.made_with("onnx")
def onnx_with_more_data_than_there_is(folder):
    (folder / "d").write_bytes(bytes(100))
    return model(folder, place={"location": "d", "offset": 90, "length": 48})


@FILES.made_with("onnx")
def onnx_with_data_before_the_file(folder):
    (folder / "d").write_bytes(bytes(100))
    return model(folder, place={"location": "d", "offset": -8, "length": 48})


@FILES.made_with("onnx")
def onnx_that_claims_a_trillion(folder):
    return model(folder, dims=[10**6, 10**6])


@FILES.made_with("onnx")
def onnx_of_a_negative_shape(folder):
    return model(folder, dims=[-3, -4])


@FILES.made_with("onnx")
def onnx_of_more_numbers_than_its_shape(folder):
    return model(folder, dims=[3, 3])


@FILES.made_with("onnx")
def onnx_of_no_known_type(folder):
    return model(folder, data_type=99)


@FILES.made_with("onnx")
def onnx_nested_without_end(folder):
    import onnx

    data = onnx.helper.make_graph([], "g", [], []).SerializeToString()
    for _ in range(2000):  # a graph, in an attribute, in a node, in a graph
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length, size = len(data), b""
            while length > 127:
                size, length = size + bytes([length & 127 | 128]), length >> 7
            data = tag + size + bytes([length]) + data
    (folder / "x.onnx").write_bytes(data)
    return folder / "x.onnx"


@FILES.made_with("onnx")
def onnx_cut_short(folder):
    path = model(folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


@FILES.made_with("onnx")
def onnx_that_is_noise(folder):
    (folder / "x.onnx").write_bytes(np.random.default_rng(0).bytes(10**6))
    return folder / "x.onnx"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return FILES.opened(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FILES.makers)
def test_a_hostile_file_is_refused_at_once(opened, name):
    assert FILES.is_refused(name, *opened)
