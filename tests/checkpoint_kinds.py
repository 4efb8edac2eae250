"""Checkpoints of other tools in tests: numbers to make them of, and how they are read."""

import numpy as np

import memsim
from memsim.selection import layout_of, select_layers

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
