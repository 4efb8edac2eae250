"""Matching by what each crossbar holds: plain loops count what it writes, on any width."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim.placement import check_one_output, check_placement
from memsim.policies import Arrangement, LayerCodes
from memsim.policies._matching.comparing import (
    Choice,
    Trial,
    joined,
    next_choice,
    tried,
    written_by,
)
from memsim.policies._matching.share import most_given_up, share_of
from memsim.schedule import chosen_schedule, layer_schedule

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")


def planned(policy, layers, config, times=99):
    """The arrangement of every layer, one after another; so many times anew at most."""
    shapes, start = tuple((codes.shape[1], codes.shape[0]) for codes in layers), {}
    while start is not None and times >= 0:
        arranged, held, times = [], start, times - 1
        for number, codes in enumerate(layers):
            follow = policy.prepare(LayerCodes(codes, "", None, shapes, number), config)
            arrangement, held = follow(held)
            arranged.append(arrangement)
        start = policy.anew(held, config)
    return arranged


def writes_of(policy, layers, config, times=99):
    """Writes of each of two passes, by plain loops over steps and crossbars; `planned` so."""
    codes = jnp.arange(config.min_code, config.max_code + 1)
    words = np.asarray(memsim.codes.encode(codes, config)).astype(np.int64)
    arranged = planned(policy, layers, config, times)
    state, writes = np.zeros((config.crossbars, config.words), np.int64), [0, 0]
    for number in range(2):
        for codes, arrangement in zip(layers, arranged, strict=True):
            placement, delta, crossbars = (
                arrangement.placement, arrangement.delta, arrangement.crossbars,
            )  # fmt: skip
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


@hypothesis.given(network=networks(most=16), tolerance=st.sampled_from([0, 1]))
@hypothesis.settings(max_examples=12, deadline=None, phases=[hypothesis.Phase.generate])
def test_matching_takes_no_more_writes_than_other_orders(network, tolerance):
    layers, config = network
    matched = writes_of(memsim.policies.Matched(tolerance=tolerance), layers, config)
    for other in (memsim.policies.Unsorted(), memsim.policies.Sws()):
        assert np.all(matched <= writes_of(other, layers, config))


def tiny(seed):
    """The codes of a few layers."""
    rng, layers = np.random.default_rng(seed), []
    for _ in range(rng.integers(1, 6)):
        codes = np.rint(rng.laplace(size=rng.integers(1, 17, 2)) * 24)
        layers.append(np.clip(codes, -127, 127).astype(np.int8))
    return layers


def named(layers):
    """Tensors of these codes; the first of each layer is changed to the largest that there is."""
    for codes in layers:
        codes[0, 0] = 127
    return {f"{i}.weight": codes.astype(np.float32) for i, codes in enumerate(layers)}


FOUND = [
    (2, 1, 64, "block"),
    (18, 2, 64, "block"),
    (40, 4, 8, "interleaved"),
    (42, 4, 8, "interleaved"),
    (47, 4, 8, "interleaved"),
    (57, 4, 8, "interleaved"),
]


@pytest.mark.parametrize(("seed", "words", "crossbars", "schedule"), FOUND)
def test_a_network_is_arranged_anew_where_others_write_less(seed, words, crossbars, schedule):
    sizes = {"rows": 4, "columns": 8 * words, "crossbars": crossbars, "schedule": schedule}
    layers, config, policy = tiny(seed), memsim.CrossbarConfig(**sizes), memsim.policies.Matched()
    others = np.minimum(
        writes_of(memsim.policies.Unsorted(), layers, config),
        writes_of(memsim.policies.Sws(), layers, config),
    )
    assert np.any(writes_of(policy, layers, config, times=0) > others)
    assert np.all(writes_of(policy, layers, config) <= others)


def test_plans_and_comparisons_arrange_networks_anew():
    seed, words, crossbars, schedule = FOUND[0]
    config = memsim.CrossbarConfig(
        rows=4, columns=8 * words, crossbars=crossbars, schedule=schedule
    )
    layers, policy = tiny(seed), memsim.policies.Matched()
    params = named(layers)
    arranged = planned(policy, layers, config)
    made = memsim.plan(params, config, policy)
    for layer, arrangement in zip(made.layers.values(), arranged, strict=True):
        np.testing.assert_array_equal(layer.placement.weights, arrangement.placement.weights)
        np.testing.assert_array_equal(layer.crossbars, arrangement.crossbars)
    compared = memsim.compare(params, config, {"matched": policy}, passes=2)
    writes = writes_of(policy, layers, config)
    assert compared.policies["matched"].writes_per_pass == writes.tolist()
    assert np.any(writes != writes_of(policy, layers, config, times=0))


def test_what_is_compared_is_what_programming_takes():
    config = memsim.CrossbarConfig(
        rows=4, columns=12, cell_bits=2, crossbars=3, schedule="interleaved"
    )
    layers, policy = tiny(2), memsim.policies.Sws()
    params = named(layers)
    written = None
    for codes in layers:
        arrangement = Arrangement(policy.place(codes, config))
        written = joined(written, written_by(arrangement, codes, config), config)
    trial = tried(Choice(), written, config)
    compared = memsim.compare(params, config, {"sws": policy}, passes=2).policies["sws"]
    assert [trial.first, trial.steady] == compared.writes_per_pass


def test_the_order_of_another_policy_has_the_index_of_that_policy():
    config = memsim.CrossbarConfig(rows=4, columns=16, crossbars=3)
    codes = tiny(0)[0]
    outputs, inputs = codes.shape
    layer = LayerCodes(codes, "", None, ((inputs, outputs),))
    sws, free = memsim.policies.Sws(), memsim.policies.Matched(tolerance=1)
    for policy, order, other in (
        (free, "unsorted", memsim.policies.Unsorted()),
        (free, "sws", sws),
        # inputs that keep their order, or their section, are not sorted
        (memsim.policies.Matched(pool="none"), "sws", memsim.policies.Unsorted()),
        (memsim.policies.Matched(pool="section"), "sws", memsim.policies.Unsorted()),
    ):
        follow = policy.prepare(layer, config)
        arrangement, left = follow({"choice": Choice(order, final=True)})
        placement = other.place(codes, config)
        np.testing.assert_array_equal(arrangement.placement.weights, placement.weights)
        assert arrangement.index_bits == other.index_bits(inputs, outputs, config)
        assert not arrangement.delta.any()
        assert policy.anew(left, config) is None
        schedule = layer_schedule(len(placement.weights), config)
        chosen = chosen_schedule(arrangement.crossbars, config)
        np.testing.assert_array_equal(chosen.sections, schedule.sections)
    shorter = memsim.policies.Matched(index="words").prepare(layer, config)
    arrangement, _ = shorter({"choice": Choice("sws", final=True)})
    assert arrangement.index_bits < sws.index_bits(inputs, outputs, config)


def test_what_takes_least_again_and_again_is_kept_of_what_takes_no_more_at_first():
    unsorted, sws = Trial(Choice("unsorted"), 90, 60), Trial(Choice("sws"), 80, 50)

    def own(first, steady, *choice):
        return Trial(Choice("matched", *choice), first, steady)

    whole = Choice(keeps_whole=True)
    assert next_choice([own(80, 50), unsorted, sws], 9) is None  # no more than either
    assert next_choice([own(70, 51), unsorted, sws], 9) == whole
    assert next_choice([own(70, 51), unsorted, sws], 0) == Choice("sws", final=True)
    assert next_choice([own(70, 51), unsorted, sws, own(75, 40, 0, True)], 9) is None
    # too many cells at first: all crossbars are shared, then as few as seem to do
    trials = [own(84, 0), unsorted, sws, own(84, 0, 0, True)]
    assert next_choice(trials, 9) == Choice("matched", 9, True)
    trials = [*trials, own(66, 30, 9, True)]
    assert next_choice(trials, 9) == Choice("matched", 2, True)
    trials = [*trials, own(80, 4, 2, True)]
    assert next_choice(trials, 9) == Choice("matched", 1, True)
    trials = [*trials, own(82, 2, 1, True)]
    assert next_choice(trials, 9) == Choice("matched", 2, True, final=True)
    # none is as good as both others: the least in a steady pass
    unsorted = Trial(Choice("unsorted"), 70, 60)
    assert next_choice([own(90, 70), unsorted, sws], 0) == Choice("sws", final=True)


@pytest.mark.parametrize("given_up", range(8))
def test_crossbars_are_given_up_one_by_one(given_up):
    sections, crossbars = [5, 1, 9, 3], 7
    shares = [share_of(i, sections, crossbars, given_up) for i in range(4)]
    fewest = [share_of(i, sections, crossbars) for i in range(4)]
    needs = [-(-count // -(-count // crossbars)) for count in sections]
    given = sum(
        max(0, min(one.common, need) - few.common)
        for one, need, few in zip(shares, needs, fewest, strict=True)
    )
    assert given == min(given_up, most_given_up(sections, crossbars))
    taken = max(one.common for one in shares)
    for count, one in zip(sections, shares, strict=True):
        assert one.first == taken
        taken += one.kept
        assert count - one.kept <= one.common * -(-count // crossbars)
    assert taken <= crossbars


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
