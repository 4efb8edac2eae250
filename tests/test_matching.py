import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import memsim
from memsim.codes import encode, hamming_distance
from memsim.placement import check_one_output, check_placement
from memsim.policies._matching import lines
from memsim.policies._matching.flow import scratch, transport, word_graph
from memsim.policies._matching.share import share_of
from memsim.policies._matching.tour import find_tour

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")


def transport_bound(
    old: np.ndarray, new: np.ndarray, config: memsim.CrossbarConfig, tolerance: int = 0
) -> int:
    """The least writes with which the words of one output can be overwritten by those of another.

    Exact, by an assignment solver that knows nothing of graphs of words: for tests and small
    layers.

    Args:
      old, new: codes [inputs].
      tolerance: largest error of a new code.
    """
    held = encode(jnp.asarray(old), config)
    cost = np.full((old.size, new.size), config.cells_per_word)
    for error in range(-tolerance, tolerance + 1):
        near = np.clip(new.astype(np.int32) + error, config.min_code, config.max_code)
        words = encode(jnp.asarray(near), config)
        changes = hamming_distance(held[:, None], words[None], config)
        cost = np.minimum(cost, np.asarray(changes))
    return int(cost[scipy.optimize.linear_sum_assignment(cost)].sum())


def random_codes(seed, outputs, inputs, config):
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.05, 0.6, (outputs, 1)) * config.max_code
    codes = np.rint(rng.laplace(size=(outputs, inputs)) * spread)
    return np.clip(codes, -config.max_code, config.max_code).astype(np.int32)


@hypothesis.given(
    seed=st.integers(0, 999),
    encoding=st.sampled_from(ENCODINGS),
    bits=st.sampled_from([2, 5, 8]),
    cell_bits=st.sampled_from([1, 2]),
    tolerance=st.integers(0, 3),
    inputs=st.integers(1, 40),
)
@hypothesis.settings(max_examples=20)
def test_every_output_is_matched_to_the_one_before_as_well_as_can_be(
    seed, encoding, bits, cell_bits, tolerance, inputs
):
    config = memsim.CrossbarConfig(rows=8, encoding=encoding, bits=bits, cell_bits=cell_bits)
    codes = random_codes(seed, 2, inputs, config)
    rules = lines.Rules(tolerance=tolerance, price=10**4 if tolerance else None)
    led = lines.lead_through_outputs(codes, config, rules)
    old, new = codes[led.tour]
    changes = led.graph.changes[led.words[0], led.words[1]].sum()
    assert changes == transport_bound(old, new, config, tolerance)


@pytest.mark.parametrize("settings", [{"bits": 4}, {"bits": 7}, {"bits": 8, "cell_bits": 2}])
def test_sets_of_words_flow_as_words_one_by_one_do(settings):
    graph = word_graph(memsim.CrossbarConfig(**settings))
    one_by_one = graph._replace(masks=graph.masks[:0])
    rng = np.random.default_rng(0)
    words = graph.code_of_node.size
    assert graph.masks.size
    for _ in range(30):
        old, new = rng.dirichlet(np.full(words, 0.3), 2)
        excess = rng.multinomial(100, old) - rng.multinomial(rng.integers(80, 140), new)
        found = []
        for each in (graph, one_by_one):
            left, flow = excess.astype(np.int32), scratch(graph)
            cost = transport(left, each, flow)
            found.append((cost, left.tolist(), flow.tolist()))
        assert found[0] == found[1]


def test_progress_is_told_in_shares_of_the_weights():
    told = []
    params = {"a": {"kernel": np.eye(6)}, "b": {"kernel": np.ones((6, 12))}}
    memsim.plan(
        params, memsim.CrossbarConfig(rows=4), memsim.policies.Matched(),
        progress=lambda share, stage: told.append((round(share, 2), stage)),
    )  # fmt: skip
    assert told == [(0.0, "planning a/kernel"), (0.33, "planning b/kernel")]


def test_the_bound_is_that_of_all_assignments():
    config = memsim.CrossbarConfig(bits=4)
    rng = np.random.default_rng(0)
    for tolerance in (0, 1):
        old, new = rng.integers(-7, 8, (2, 5))
        best = 99
        for order in itertools.permutations(range(5)):
            writes = 0
            for i, j in enumerate(order):
                near = [c for c in range(new[j] - tolerance, new[j] + tolerance + 1) if -8 <= c < 8]
                writes += min(bin((old[i] ^ c) & 15).count("1") for c in near)
            best = min(best, writes)
        assert transport_bound(old, new, config, tolerance) == best


@pytest.mark.parametrize("price", [1, 7, 400])
def test_a_price_trades_writes_for_errors_at_the_best_rate(price):
    import scipy.optimize

    config = memsim.CrossbarConfig(bits=6)
    codes = random_codes(3, 2, 30, config)
    led = lines.lead_through_outputs(codes, config, lines.Rules(tolerance=3, price=price))
    old, new = codes[led.tour]
    errors = np.arange(-3, 4)
    near = new[:, None] + errors
    allowed = (near >= -32) & (near <= 31)
    changes = np.bitwise_count((old[:, None, None] ^ near[None]) & 63).astype(int)
    cost = np.where(allowed, price * changes + errors**2, 10**6).min(axis=-1)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    held = led.graph.code_of_node[led.words[1]] - led.codes[1]
    moved = led.graph.changes[led.words[0], led.words[1]].sum()
    assert price * moved + np.sum(held**2) == cost[rows, columns].sum()


LAYERS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=3)


@pytest.mark.slow
@hypothesis.given(
    layers=LAYERS,
    encoding=st.sampled_from(ENCODINGS),
    crossbars=st.sampled_from([1, 3, None]),
    schedule=st.sampled_from(["block", "interleaved"]),
    bits=st.sampled_from([3, 8, 12]),
    tolerance=st.integers(0, 4),
    pool=st.sampled_from(["output", "section"]),
)
@hypothesis.settings(max_examples=10)
def test_every_weight_sits_in_one_row_within_the_tolerance(
    layers, encoding, crossbars, schedule, bits, tolerance, pool
):
    tolerance = tolerance if bits <= 10 else 0
    config = memsim.CrossbarConfig(
        rows=8, encoding=encoding, crossbars=crossbars, schedule=schedule, bits=bits
    )
    rng = np.random.default_rng(0)
    params = {
        f"layer{i}.weight": rng.standard_normal(shape).astype(np.float32)
        for i, shape in enumerate(layers)
    }
    policy = memsim.policies.Matched(tolerance=tolerance, pool=pool, correction="none")
    plan = memsim.plan(params, config, policy)
    chip = memsim.sample_chip(jax.random.key(0), plan)
    held, _ = memsim.program(params, plan, chip)
    for name, weights in params.items():
        layer = plan.layers[name]
        outputs, inputs = weights.shape
        placement = layer.placement
        assert sorted(set(np.asarray(placement.positions).tolist())) == sorted(
            np.flatnonzero(np.asarray(placement.weights).reshape(-1) < weights.size)
        )
        check_placement(jax.tree.map(np.asarray, placement), (inputs, outputs), 8, 1)
        check_one_output(placement, inputs, 1, "matched")
        # so few sections go by what crossbars hold; weight stationary they are section-major
        per_output = -(-inputs // 8) if crossbars is None else 0
        order = None
        for section in range(per_output):
            of_section = np.asarray(placement.weights)[section * outputs : (section + 1) * outputs]
            used = np.asarray(placement.used_rows)[section * outputs : (section + 1) * outputs]
            assert set(used) == {min(8, inputs - 8 * section)}
            seen = [
                set((row[:k] // inputs).tolist()) for row, k in zip(of_section, used, strict=True)
            ]
            assert all(len(of) == 1 for of in seen)  # one output: analog-valid
            here = [of.pop() for of in seen]
            assert sorted(here) == list(range(outputs))
            assert order in (None, here)  # the same order in every section
            order = here
            if pool == "section":
                inside = of_section[:, : used[0]] % inputs
                assert set(inside.reshape(-1)) == set(range(8 * section, 8 * section + used[0]))
        codes = memsim.codes.quantize(weights, layer.scale, config)
        exact = memsim.codes.dequantize(codes, layer.scale, np.float32)
        if tolerance == 0:
            np.testing.assert_array_equal(held[name], exact)
        off = np.rint((np.asarray(held[name]) - exact) / layer.scale)
        assert np.abs(off).max() <= tolerance


def test_counts_are_those_of_plain_loops(key):
    config = memsim.CrossbarConfig(rows=8, crossbars=2)
    rng = np.random.default_rng(0)
    params = {f"layer{i}.weight": rng.standard_normal((5, 20)).astype(np.float32) for i in (1, 2)}
    policies = {
        "matched": memsim.policies.Matched(),
        "near": memsim.policies.Matched(tolerance=3, price=8),
        "stucked": memsim.policies.Matched(tolerance=1, low=2, p=0.5),
    }
    compared = memsim.compare(params, config, policies, passes=2).policies
    for name, policy in policies.items():
        plan = memsim.plan(params, config, policy)
        chip = memsim.sample_chip(jax.random.split(key, 1)[0], plan)
        _, programming = memsim.program(params, plan, chip, passes=2, wear=True)
        assert memsim.summarize(programming, plan).writes == compared[name].writes
        if policy.stucking.low:
            continue
        state, writes = np.zeros((2, 8), int), 0
        words = {}
        for layer, weights in params.items():
            made = plan.layers[layer]
            codes = (
                np.asarray(memsim.codes.quantize(weights, made.scale, config))
                .astype(int)
                .reshape(-1)
            )
            words[layer] = (codes + np.asarray(made.delta)) & 255
        for _ in range(2):
            for layer in params:
                made = plan.layers[layer].placement
                chosen = np.asarray(plan.layers[layer].crossbars)
                assert np.bincount(chosen).max() == -(-len(made.weights) // 2)
                for section, used, crossbar in zip(
                    np.asarray(made.weights), np.asarray(made.used_rows), chosen, strict=True
                ):
                    new = words[layer][section[:used]]
                    writes += int(np.bitwise_count(new ^ state[crossbar, :used]).sum())
                    state[crossbar, :used] = new
        assert compared[name].writes == writes


@hypothesis.given(
    sections=st.lists(st.integers(1, 12), min_size=1, max_size=5), crossbars=st.integers(1, 12)
)
def test_as_many_sections_as_can_be_have_crossbars_of_their_own(sections, crossbars):
    shares = [share_of(i, sections, crossbars) for i in range(len(sections))]
    common = shares[0].common
    alone = [set(range(one.first, one.first + one.kept)) for one in shares]
    assert len(set().union(*alone)) == sum(one.kept for one in shares)  # none taken twice
    for count, one in zip(sections, shares, strict=True):
        assert one.common == common <= one.first <= crossbars - one.kept
        # the rest fits on the common ones, in no more steps than there must be
        assert count - one.kept <= common * -(-count // crossbars)
    for fewer in range(common):
        left = [max(0, count - fewer * -(-count // crossbars)) for count in sections]
        assert fewer + sum(left) > crossbars


@pytest.mark.slow
def test_sections_that_have_a_crossbar_of_their_own_are_written_once():
    rng = np.random.default_rng(0)
    tensors = {f"layer{i}.weight": rng.laplace(size=(6, 16)) for i in range(3)}
    policies = {"matched": memsim.policies.Matched()}
    writes = []
    for crossbars in (12, 24, 36):  # as many sections as there are
        config = memsim.CrossbarConfig(rows=8, crossbars=crossbars)
        found = memsim.compare(tensors, config, policies, passes=2, steady=True).steady
        writes.append(found["matched"].summary.writes)
    # but for the few that share one, so that the first pass takes no more than that of `sws`
    assert writes[0] > writes[1] > writes[2]


def test_a_row_takes_the_cheapest_words_for_its_weights():
    graph = word_graph(memsim.CrossbarConfig(bits=4), tolerance=1, price=2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        codes = rng.integers(1, 15, 5).astype(np.int32)  # from the lowest
        held = int(rng.integers(16))
        words = np.empty(5, np.int32)
        lines.polish(codes, held, graph, words)

        def cost(path, codes=codes, held=held):
            nodes = [held, *path]
            errors = graph.code_of_node[list(path)] - codes
            return 2 * sum(graph.changes[a, b] for a, b in itertools.pairwise(nodes)) + sum(
                errors**2
            )

        choices = itertools.product(
            *[[graph.node_of_code[c + e] for e in (-1, 0, 1)] for c in codes]
        )
        assert cost(words) == min(map(cost, choices))


def test_a_tolerance_may_be_as_wide_as_a_word():
    config = memsim.CrossbarConfig(bits=3)
    led = lines.lead_through_outputs(
        random_codes(0, 5, 6, config), config, lines.Rules(tolerance=15)
    )
    assert np.all(led.words[1:] == led.words[0])  # nothing ever needs to change


def test_outputs_that_resemble_each_other_are_neighbours(monkeypatch):
    config = memsim.CrossbarConfig()
    rng = np.random.default_rng(0)
    kinds = rng.integers(-100, 100, (4, 64))  # four kinds of outputs, six of each, shuffled
    codes = np.concatenate([kinds] * 6)[rng.permutation(24)].astype(np.int32)
    graph = word_graph(config)
    order = find_tour(codes - graph.lowest, graph)
    assert sorted(order) == list(range(24))
    changes = np.any(np.diff(codes[order], axis=0) != 0, axis=1).sum()
    assert changes == 3
    monkeypatch.setattr("memsim.policies._matching.tour._TOUR_OUTPUTS", 10)
    assert sorted(find_tour(codes - graph.lowest, graph)) == list(range(24))


def test_gradients_pass_straight_through_a_tolerance(key):
    params = {"kernel": jax.random.normal(key, (20, 4))}
    plan = memsim.plan(
        params,
        memsim.CrossbarConfig(rows=8),
        memsim.policies.Matched(tolerance=2, correction="none"),
    )
    chip = memsim.sample_chip(key, plan)

    @jax.jit
    def loss(params):
        return memsim.program(params, plan, chip)[0]["kernel"].sum()

    np.testing.assert_array_equal(jax.grad(loss)(params)["kernel"], np.ones((20, 4)))
    moved = jax.tree.map(lambda w: w * 1.5, params)  # codes clip, and stay words
    held, _ = memsim.program(moved, plan, chip)
    scale = plan.layers["kernel"].scale
    assert np.all(np.abs(held["kernel"]) <= 128 * scale)


def test_a_correction_takes_the_mean_error_off_each_output(key):
    params = {"kernel": jax.random.normal(key, (200, 6))}
    config = memsim.CrossbarConfig(rows=16, scale_per="output")
    plain = memsim.plan(params, config, memsim.policies.Matched(tolerance=4, correction="none"))
    corrected = memsim.plan(params, config, memsim.policies.Matched(tolerance=4))
    chip = memsim.sample_chip(key, plain)
    held, programming = memsim.program(params, plain, chip)
    mended, same = memsim.program(params, corrected, chip)
    jax.tree.map(np.testing.assert_array_equal, programming.counts, same.counts)
    scale = np.asarray(plain.layers["kernel"].scale, np.float64)
    codes = np.rint(np.asarray(params["kernel"], np.float64) / scale)
    before, after = (np.asarray(w["kernel"], np.float64) / scale - codes for w in (held, mended))
    assert np.abs(before.mean(axis=0)).max() > 0.1
    np.testing.assert_allclose(after.mean(axis=0), 0, atol=1 / 512 + 1e-4)  # 8 bits of fraction
    np.testing.assert_allclose(
        after - before, np.broadcast_to(-before.mean(0), (200, 6)), atol=0.01
    )
    added = memsim.summarize(same, corrected).index_bits_per_weight
    assert added - memsim.summarize(same, plain).index_bits_per_weight == pytest.approx(16 / 200)


def test_layers_may_have_policies_of_their_own(key):
    rng = np.random.default_rng(0)
    params = {f"layer{i}.weight": rng.standard_normal((6, 40)).astype(np.float32) for i in (1, 2)}
    config = memsim.CrossbarConfig(rows=8)
    exact, near = memsim.policies.Matched(), memsim.policies.Matched(tolerance=3)
    plan = memsim.plan(params, config, {"layer1.weight": exact, "layer2.weight": near})
    jax.tree.map(
        np.testing.assert_array_equal,
        plan.layers["layer1.weight"],
        memsim.plan(params, config, exact).layers["layer1.weight"],
    )
    assert not np.any(plan.layers["layer1.weight"].delta)
    assert 1 <= np.abs(plan.layers["layer2.weight"].delta).max() <= 3
    with pytest.raises(ValueError, match=r"layer2[.]weight differ; give one for every"):
        memsim.plan(params, config, {"layer1.weight": exact})
    with pytest.raises(ValueError, match=r"mixes placements \(matched, sws\)"):
        memsim.plan(
            params, config, {"layer1.weight": exact, "layer2.weight": memsim.policies.Sws()}
        )


@pytest.mark.parametrize("correction", ["none", "mean"])
def test_a_plan_with_a_tolerance_is_saved_whole(tmp_path, key, correction):
    params = {"kernel": jax.random.normal(key, (20, 4))}
    policy = memsim.policies.Matched(tolerance=2, correction=correction)
    plan = memsim.plan(params, memsim.CrossbarConfig(rows=8), policy)
    memsim.save_plan(tmp_path / "plan.safetensors", plan)
    loaded = memsim.load_plan(tmp_path / "plan.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, plan)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("matched", memsim.policies.Matched()),
        ("matched:tolerance=3", memsim.policies.Matched(tolerance=3)),
        (
            "matched:tolerance=3,price=8,pool=section",
            memsim.policies.Matched(tolerance=3, price=8, pool="section"),
        ),
        (
            "matched:tolerance=3,correction=none",
            memsim.policies.Matched(tolerance=3, correction="none"),
        ),
        ("matched:correction=none", memsim.policies.Matched(correction="none")),
        (
            "matched:correction=mean,faults=avoid",
            memsim.policies.Matched(correction="mean", faults="avoid"),
        ),
        (
            "matched+stuck:p=0.5,low=1,tolerance=1",
            memsim.policies.Matched(tolerance=1, low=1, p=0.5),
        ),
    ],
)
def test_policies_are_read_as_they_are_written(text, policy):
    assert memsim.Policy.parse(text) == policy
    assert str(policy) == text


def test_a_tolerance_is_corrected_unless_it_says_otherwise():
    make = memsim.policies.Matched
    assert make(tolerance=3, correction="mean") == make(tolerance=3)
    assert str(make(tolerance=3, correction="mean")) == "matched:tolerance=3"
    assert make(tolerance=3).corrects
    assert not make(tolerance=3, correction="none").corrects
    assert not make().corrects
    assert not make(faults="avoid").corrects
    assert make(faults="avoid", correction="mean").corrects
    # where the tolerance changes, so does the default; what was said stays
    assert dataclasses.replace(make(), tolerance=1).corrects
    assert not dataclasses.replace(make(tolerance=1, correction="mean"), tolerance=0).corrects
    assert not dataclasses.replace(make(correction="none"), tolerance=1).corrects
    config = memsim.CrossbarConfig()
    assert make().at_price(8.0, config).corrects
    assert not make(correction="none").at_price(8.0, config).corrects
    assert not make(tolerance=2).at_price(0.0, config).corrects


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: memsim.Policy.parse("matched:p=0.5"),
            "matched takes tolerance, price, pool, index, correction",
        ),
        (lambda: memsim.Policy.parse("sws:tolerance=1"), "sws takes no options"),
        (
            lambda: memsim.Policy.parse("matched:tolerance=x"),
            "tolerance is .x., give a whole number",
        ),
        (
            lambda: memsim.policies.Matched(tolerance=-1),
            "`tolerance` is -1; a weight may be 0 to 15",
        ),
        (
            lambda: memsim.policies.Matched(tolerance=16),
            "`tolerance` is 16; a weight may be 0 to 15",
        ),
        (
            lambda: memsim.policies.Matched(tolerance=1, price=0),
            "`price` is 0; a write makes up for 1 to 10000",
        ),
        (
            lambda: memsim.Policy.parse("matched:correction=mean"),
            "`correction` is 'mean', but `tolerance` is 0 and leaves no errors to correct; give",
        ),
        (
            lambda: memsim.Policy.parse("matched:correction=all"),
            "`correction` is 'all'; choose one",
        ),
        (lambda: memsim.policies.Matched(pool="layer"), "`pool` is 'layer'; choose one of"),
        (lambda: dataclasses.replace(memsim.policies.Sws(), tolerance=1), "argument .tolerance."),
        (
            lambda: memsim.plan(
                {"kernel": np.ones((3, 3))},
                memsim.CrossbarConfig(bits=12),
                memsim.policies.Matched(tolerance=1),
            ),
            "`tolerance` is 1 at 12 `bits`; it takes at most 10 bits",
        ),
    ],
)
def test_wrong_policies_say_what_is_wrong(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_the_index_has_its_price():
    config = memsim.CrossbarConfig(rows=128)
    weights = {"kernel": np.ones((300, 40), np.float32)}
    # of 3 sections the output, and where inputs stay in theirs which of the 3 it is
    for pool, bits, of_section in (("output", 9, 6), ("section", 7, 8)):
        policy = memsim.policies.Matched(pool=pool)
        summary = memsim.compare(weights, config, {"x": policy}).policies["x"]
        np.testing.assert_allclose(
            summary.index_bits_per_weight, bits + of_section * 3 / 300, rtol=1e-6
        )
        assert summary.analog_valid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "exact", "near"),
    [
        ("resnet20_cifar10", 8.5, 17),
        pytest.param("deit_tiny_patch16_224", 10.4, 27, marks=pytest.mark.slow),
        pytest.param("resnet50_stages1to4", 19, 42, marks=pytest.mark.slow),
    ],
)
def test_trained_weights_take_fewer_writes_than_by_any_published_method(
    assets, network, exact, near
):
    checkpoint = memsim.open_checkpoint(assets / f"{network}.safetensors")
    policies = {"exact": memsim.policies.Matched(), "near": memsim.policies.Matched(tolerance=3)}
    result = memsim.compare(checkpoint, memsim.CrossbarConfig(), policies).policies
    assert result["exact"].reduction > exact
    assert result["near"].reduction > near
