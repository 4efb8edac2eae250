"""Matching by what each crossbar holds: plain loops count what it writes, on any width."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim.placement import check_one_output, check_placement
from memsim.policies import LayerCodes
from memsim.schedule import chosen_schedule, layer_schedule

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")


def planned(policy, layers, config):
    """The arrangement of every layer, one after another."""
    shapes, held = tuple((codes.shape[1], codes.shape[0]) for codes in layers), {}
    for number, codes in enumerate(layers):
        follow = policy.prepare(LayerCodes(codes, "", None, shapes, number), config)
        arrangement, held = follow(held)
        yield arrangement


def writes_of(policy, layers, config):
    """Writes of each of two passes, by plain loops over steps and crossbars."""
    codes = jnp.arange(config.min_code, config.max_code + 1)
    words = np.asarray(memsim.codes.encode(codes, config)).astype(np.int64)
    arranged = list(planned(policy, layers, config))
    state, writes = np.zeros((config.crossbars, config.words), np.int64), [0, 0]
    for number in range(2):
        for codes, (placement, delta, *_, crossbars) in zip(layers, arranged, strict=True):
            target = words[codes.reshape(-1) + (0 if delta is None else delta) - config.min_code]
            count = len(placement.weights)
            if crossbars is None:
                schedule = layer_schedule(count, config)
            else:
                schedule = chosen_schedule(crossbars, config)
            for step in schedule.sections:
                for crossbar in np.flatnonzero(step < count):
                    section = placement.weights[step[crossbar]]
                    used = section < codes.size
                    new = target[section[used]]
                    writes[number] += int(np.bitwise_count(state[crossbar][used] ^ new).sum())
                    state[crossbar][used] = new
    return np.asarray(writes)


@st.composite
def networks(draw, least=1, most=40):
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    bits = draw(st.sampled_from([4, 8]))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(least, most), st.integers(least, most)))
        spread = rng.uniform(0.1, 0.4, (shape[0], 1)) * 2 ** (bits - 1)
        most_code = 2 ** (bits - 1) - 1
        codes = np.clip(np.rint(rng.laplace(size=shape) * spread), -most_code, most_code)
        layers.append(codes.astype(np.int8))
    encoding = draw(st.sampled_from(ENCODINGS))
    sizes = {"rows": draw(st.sampled_from([4, 8, 16])), "bits": bits, "encoding": encoding}
    cells = memsim.CrossbarConfig(**sizes).cells_per_word
    return layers, memsim.CrossbarConfig(
        **sizes,
        columns=draw(st.integers(1, 5)) * cells,
        crossbars=draw(st.sampled_from([1, 2, 3, 5, 8, 20, 64])),
        schedule=draw(st.sampled_from(["block", "interleaved"])),
    )


@hypothesis.given(network=networks(least=24), crossbars=st.sampled_from([1, 2, 3]))
@hypothesis.settings(max_examples=8, deadline=None, phases=[hypothesis.Phase.generate])
def test_matching_takes_no_more_writes_than_sorting(network, crossbars):
    """Where several sections follow one another on a crossbar; else it may, see the page."""
    layers, config = network
    config = dataclasses.replace(config, crossbars=crossbars)
    matched = writes_of(memsim.policies.Matched(), layers, config)
    near = writes_of(memsim.policies.Matched(tolerance=1), layers, config)
    for other in (memsim.policies.Unsorted(), memsim.policies.Sws()):
        others = writes_of(other, layers, config)
        assert matched.sum() <= others.sum()
        assert matched[1] <= others[1]
        assert near.sum() <= others.sum()


@hypothesis.given(
    network=networks(most=20),
    tolerance=st.integers(0, 2),
    pool=st.sampled_from(["output", "section", "none"]),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_sections_hold_every_weight_once_within_the_tolerance(network, tolerance, pool):
    layers, config = network
    policy = memsim.policies.Matched(tolerance=tolerance, pool=pool)
    for codes, arrangement in zip(layers, planned(policy, layers, config), strict=True):
        outputs, inputs = codes.shape
        placement, words = arrangement.placement, config.words_per_row
        check_placement(placement, (inputs, outputs), config.rows, words)
        check_one_output(placement, inputs, words, policy)
        assert np.abs(arrangement.delta).max(initial=0) <= tolerance
        if pool == "output":
            continue
        # inputs stay in a section of their own order; at `none` in their rows too
        rows = placement.weights.reshape(-1, config.rows, words)[:, :, 0] % inputs
        for section, used in zip(rows, placement.used_rows, strict=True):
            first = section[:used].min()
            assert first % config.rows == 0
            order = section[:used] if pool == "none" else np.sort(section[:used])
            np.testing.assert_array_equal(order, np.arange(first, first + used))


@pytest.mark.parametrize("words", [1, 4])
def test_the_index_without_rows_names_outputs_crossbars_and_sections(words):
    config = memsim.CrossbarConfig(rows=16, columns=8 * words, crossbars=8)
    # of each of 3 sections of 40 inputs, 3 bits for the crossbar and 2 for the inputs that it
    # holds, and of each of its slots 5 bits for one of 20 outputs
    per_weight = (5 + (3 + 2) / words) * 3 / 40
    found = memsim.policies.Matched(pool="none").index_bits(40, 20, config)
    assert found == pytest.approx(per_weight)


def test_outputs_are_chosen_by_what_the_crossbar_holds():
    # two groups of like outputs, shuffled: without rows, only their order saves writes
    config = memsim.CrossbarConfig(rows=4)
    codes = np.asarray([[1, 2, 3, 4], [-9, 8, -7, 6]] * 3, np.int8)
    first, again = writes_of(memsim.policies.Matched(pool="none"), [codes], config)
    between = np.bitwise_count(codes[0].view(np.uint8) ^ codes[1].view(np.uint8)).sum()
    assert again == 2 * between  # there and back
    assert first == np.bitwise_count(codes[0].view(np.uint8)).sum() + between
