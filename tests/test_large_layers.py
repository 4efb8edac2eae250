"""Layers too large to be worked on at once: in pieces, they come out as they do in one."""

import ml_dtypes
import numpy as np
import pytest

import memsim
from memsim import _ahead, _stream, placement


@pytest.fixture
def in_pieces(monkeypatch):
    def cut():
        monkeypatch.setattr(placement, "_SORTED_AT_ONCE", 50)
        monkeypatch.setattr(_stream, "_CODED_WEIGHTS", 40)
        monkeypatch.setattr(_ahead, "_WEIGHTS", 300)

    return cut


def counted(params, config):
    names = ("sws", "sws-layer", "matched", "aras", "flip-n-write")
    if config.words_per_row > 1:
        names = ("sws", "matched", "aras")
    policies = {name: memsim.Policy.parse(name) for name in names}
    found = memsim.compare(params, config, policies)
    return {**found.policies, "unsorted": found.baseline[0]}


@pytest.mark.parametrize("columns", [None, 24])
@pytest.mark.parametrize("scale_per", ["tensor", "output"])
def test_layers_in_pieces_are_counted_as_in_one(in_pieces, columns, scale_per):
    rng = np.random.default_rng(0)
    params = {
        "lm_head.weight": rng.normal(size=(31, 17)).astype(ml_dtypes.bfloat16),
        "up_proj.weight": rng.normal(size=(8, 20)).astype(np.float32),
        "dense": {"kernel": rng.normal(size=(9, 23)).astype(np.float32)},
    }
    config = memsim.CrossbarConfig(rows=4, columns=columns, scale_per=scale_per)
    whole = counted(params, config)
    in_pieces()
    pieces = counted(params, config)
    for name, summary in whole.items():
        assert str(pieces[name]) == str(summary), name


@pytest.mark.parametrize(("scope", "words"), [("output", 1), ("output", 3), ("layer", 1)])
def test_sorting_in_pieces_is_sorting(in_pieces, scope, words):
    codes = np.random.default_rng(1).integers(-9, 9, (31, 17)).astype(np.int8)
    whole = memsim.placement.sorted_placement(codes, 4, scope, words)
    in_pieces()
    pieces = memsim.placement.sorted_placement(codes, 4, scope, words)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    if scope == "output":
        memsim.placement.check_placement(pieces, (17, 31), 4, words)
