"""Hostile files of all kinds together: many, each of its own making."""

import importlib
import itertools

KINDS = ("arrays", "flax", "gguf", "keras", "onnx", "pytorch")


def test_most_hostile_files_are_of_a_kind_of_their_own():
    files = [importlib.import_module(f"test_hostile_{kind}").FILES.makers for kind in KINDS]
    makers = list(itertools.chain(*(made.values() for made in files)))
    assert len(makers) == len({make for make, _ in makers}) >= 75
    libraries = set(itertools.chain(*(needed for _, needed in makers)))
    assert libraries == {"torch", "onnx", "h5py", "gguf", "flax.serialization", "orbax.checkpoint"}
