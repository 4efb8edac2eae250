import dataclasses
import importlib

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import memsim

POLICIES = {
    text: memsim.Policy.parse(text)
    for text in (
        "unsorted",
        "sws",
        "sws-layer",
        "sws+stuck:p=0.5,low=3",
        "sws-layer+stuck:p=0.25,low=2",
        "unsorted+stuck:p=0.5,low=3,draws=fixed",
    )
}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        "layer10.weight": rng.standard_normal((4, 7)).astype(np.float32),
        "bias": np.zeros(3, np.float32),
        "layer2.conv.weight": rng.standard_normal((3, 2, 3)).astype(ml_dtypes.bfloat16),
        "attention/query/kernel": rng.standard_normal((5, 2, 2)).astype(np.float16),
    }


def unpriced(policies):
    """Without the prices that `compare` adds, of hardware that summaries do not know."""
    return {name: dataclasses.replace(x, net_reduction=None) for name, x in policies.items()}


def one_by_one(tensors, config, policies, passes, keys, make_chip):
    """What `compare` should say, from whole networks: plan, program, summarize."""

    def summary(policy, key, baseline=None):
        plan = memsim.plan(tensors, config, policy)
        chip = make_chip(key, plan)
        _, programming = memsim.program(tensors, plan, chip, passes=passes, wear=True)
        return memsim.summarize(programming, plan, baseline)

    baselines = [summary(memsim.policies.Unsorted(), key) for key in keys]
    return {
        name: memsim.mean_over_chips(
            [summary(policy, key, base) for key, base in zip(keys, baselines, strict=True)]
        )
        for name, policy in policies.items()
    }


@pytest.mark.slow
def test_other_crossbars_may_have_the_same_baseline(tensors):
    config = memsim.CrossbarConfig(rows=4)
    signed = memsim.CrossbarConfig(rows=4, encoding="sign_magnitude")
    chips = memsim.Chips(number=3, stuck_at_0=0.2)
    first = memsim.compare(tensors, config, POLICIES, chips=chips)
    other = memsim.compare(tensors, signed, POLICIES, chips=chips, baseline=first.baseline)
    alone = memsim.compare(tensors, signed, POLICIES, chips=chips)
    assert len(first.baseline) == 3
    assert memsim.mean_over_chips(first.baseline).writes == first.policies["unsorted"].writes
    assert other.policies["unsorted"].reduction != 1
    keys, against = jax.random.split(jax.random.key(0), 3), []
    for key in keys:  # the same chips, one by one
        plain, turned = (memsim.plan(tensors, one, POLICIES["sws"]) for one in (config, signed))
        base = memsim.plan(tensors, config, memsim.policies.Unsorted())
        writes = [
            memsim.summarize(
                memsim.program(tensors, plan, memsim.sample_chip(key, plan, 0.2))[1], plan
            ).writes
            for plan in (base, plain, turned)
        ]
        against.append((writes[0] / writes[1], writes[0] / writes[2]))
    found = [one.policies["sws"].reduction for one in (first, other)]
    np.testing.assert_allclose(found, np.mean(against, axis=0))
    none = {"reduction": None, "net_reduction": None, "intervals": {}}
    for name, summary in other.policies.items():  # but for the reductions all is as without
        same = dataclasses.replace(summary, **none)
        assert same == dataclasses.replace(alone.policies[name], **none)


def test_a_baseline_is_of_the_same_network_passes_and_chips(tensors):
    config, policies = memsim.CrossbarConfig(rows=4), {"sws": memsim.policies.Sws()}
    baseline = memsim.compare(tensors, config, policies).baseline
    message = "`baseline` is of other weights, passes or chips; give the `baseline` of a comparison"
    with pytest.raises(ValueError, match=message):
        memsim.compare(tensors, config, policies, baseline=baseline, passes=2)
    with pytest.raises(ValueError, match=message):
        memsim.compare(tensors, config, policies, baseline=baseline, chips=memsim.Chips(number=2))
    fewer = {name: tensor for name, tensor in tensors.items() if name != "layer10.weight"}
    with pytest.raises(ValueError, match=message):
        memsim.compare(fewer, config, policies, baseline=baseline)
    with pytest.raises(ValueError, match="`baseline` is"):
        memsim.compare(tensors, config, policies, baseline="unsorted")


@pytest.mark.parametrize(
    ("config", "passes", "chips", "rates"),
    [
        pytest.param(
            memsim.CrossbarConfig(rows=4), 1, 1, (0.0, 0.0), marks=pytest.mark.slow, id="plain"
        ),
        pytest.param(
            memsim.CrossbarConfig(
                rows=4, crossbars=3, schedule="interleaved", encoding="differential", cell_bits=2
            ),
            2,
            3,
            (0.1, 0.05),
            id="differential",
        ),
        pytest.param(
            memsim.CrossbarConfig(rows=4, crossbars=None, scale_per="output"),
            2,
            2,
            (0.0, 0.0),
            marks=pytest.mark.slow,
            id="stationary",
        ),
    ],
)
@pytest.mark.slow
@pytest.mark.parametrize("chunk_words", [24, 2**19])
def test_streamed_counts_equal_the_whole_network(
    monkeypatch, tensors, config, passes, chips, rates, chunk_words
):
    monkeypatch.setattr(importlib.import_module("memsim._stream"), "_CHUNK_WORDS", chunk_words)
    low, high = rates
    result = memsim.compare(
        tensors,
        config,
        POLICIES,
        passes=passes,
        chips=memsim.Chips(number=chips, seed=5, stuck_at_0=low, stuck_at_1=high),
    )
    expected = one_by_one(
        tensors,
        config,
        POLICIES,
        passes,
        jax.random.split(jax.random.key(5), chips),
        lambda key, plan: memsim.sample_chip(key, plan, low, high),
    )
    assert unpriced(result.policies) == expected
    assert result.digital == ["bias"]
    assert list(expected["sws"].layers) == [
        "attention/query/kernel",
        "layer2.conv.weight",
        "layer10.weight",
    ]


@pytest.mark.slow
def test_a_fault_map_is_that_of_every_chip(tensors):
    config = memsim.CrossbarConfig(rows=4, crossbars=2)
    drawn = np.random.default_rng(0).random((2, 4, 8))
    faults = drawn < 0.1, drawn > 0.8
    policies = {name: POLICIES[name] for name in ("sws", "sws+stuck:p=0.5,low=3")}
    result = memsim.compare(tensors, config, policies, chips=memsim.Chips(number=2, faults=faults))
    words = [memsim.chip.fault_words(cells, 2, config) for cells in faults]
    keys = jax.random.split(jax.random.key(0), 2)
    expected = one_by_one(
        tensors, config, policies, 1, keys, lambda key, plan: memsim.with_faults(key, *words)
    )
    assert unpriced(result.policies) == expected


def test_reduction_is_unsorted_writes_over_these_on_the_same_chips(tensors):
    config = memsim.CrossbarConfig(rows=4)
    result = memsim.compare(tensors, config, POLICIES, chips=memsim.Chips(stuck_at_0=0.1)).policies
    for summary in result.values():
        assert summary.reduction == result["unsorted"].writes / summary.writes
    alone = memsim.compare(
        tensors,
        config,
        {"sws": POLICIES["sws"]},
        chips=memsim.Chips(stuck_at_0=0.1),
    ).policies
    assert alone == {"sws": result["sws"]}


def test_one_policy_may_have_two_names(tensors):
    policies = {"a": memsim.policies.Sws(), "b": memsim.policies.Sws()}
    result = memsim.compare(tensors, memsim.CrossbarConfig(rows=4), policies).policies
    assert result["a"] == result["b"]


def test_tensors_may_be_loaded_one_at_a_time(tensors):
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tensors.items()}
    asked = []

    def load(name):
        asked.append(name)
        return tensors[name]

    config = memsim.CrossbarConfig(rows=4)
    result = memsim.compare(memsim.files.Checkpoint(shapes, load, {}, {}), config, POLICIES)
    assert result == memsim.compare(tensors, config, POLICIES)
    assert sorted(asked) == sorted(set(tensors) - {"bias"})


def test_progress_rises_to_one(tensors):
    seen = []
    config = memsim.CrossbarConfig(rows=4)
    memsim.compare(
        tensors, config, {"sws": POLICIES["sws"]}, passes=2,
        progress=lambda *told: seen.append(told),
    )  # fmt: skip
    shares, stages = zip(*seen, strict=True)
    assert list(shares) == sorted(shares)
    assert seen[-1] == (1, "counting")
    layers = [name for name in tensors if name != "bias"]
    assert {f"{what} {x}" for x in layers for what in ("reading", "planning", "programming")} == {
        stage for stage in stages if stage.split()[-1] in layers
    }


@pytest.fixture
def newer(tensors):
    rng = np.random.default_rng(1)
    return {name: (x + 0.1 * rng.standard_normal(x.shape)).astype(x.dtype)
            for name, x in tensors.items()}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_deploying_counts_what_follows_the_older_version(tensors, newer, keep):
    config = memsim.CrossbarConfig(rows=4, crossbars=None)
    result = memsim.compare(
        newer,
        config,
        POLICIES,
        old=tensors,
        keep_placement=keep,
        passes=2,
        chips=memsim.Chips(number=2, stuck_at_1=0.1),
    )

    def deploy(policy, key, baseline=None):
        before, plan = (memsim.plan(x, config, policy) for x in (tensors, newer))
        if keep:
            layers = {
                name: layer._replace(placement=before.layers[name].placement)
                for name, layer in plan.layers.items()
            }
            plan = plan._replace(layers=layers)
        chip = memsim.sample_chip(key, before, 0.0, 0.1)
        _, deployed = memsim.program(tensors, before, chip)
        _, programming = memsim.program(newer, plan, deployed.chip, passes=2, wear=True)
        return memsim.summarize(programming, plan, baseline)

    keys = jax.random.split(jax.random.key(0), 2)
    baselines = [deploy(memsim.policies.Unsorted(), key) for key in keys]
    for name, policy in POLICIES.items():
        of_chips = [deploy(policy, key, base) for key, base in zip(keys, baselines, strict=True)]
        expected = memsim.mean_over_chips(of_chips)
        if keep:  # the index is there, and not moved
            expected = dataclasses.replace(expected, index_bits=0)
        assert unpriced(result.policies)[name] == expected
    for name in ("unsorted", "sws"):
        assert result.policies[name].writes_per_pass[1] == 0


def test_in_the_places_of_the_old_weights_every_policy_writes_the_changed_bits(tensors, newer):
    config = memsim.CrossbarConfig(rows=4, crossbars=None)
    policies = {name: POLICIES[name] for name in ("unsorted", "sws", "sws-layer")}
    result = memsim.compare(newer, config, policies, old=tensors, keep_placement=True)
    assert {one.index_bits for one in result.policies.values()} == {0}  # the index is there
    changed = 0
    for name in result.policies["sws"].layers:
        old, new = (np.float32(x[name]) for x in (tensors, newer))
        words = [np.rint(x / np.float32(abs(x).max() / 127)).astype(np.int8) for x in (old, new)]
        changed += int(np.unpackbits((words[0] ^ words[1]).view(np.uint8)).sum())
    assert {summary.writes for summary in result.policies.values()} == {changed}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"crossbars": 2}, "`crossbars` is 2, but deploying over an `old`"),
        (
            {"layer2.conv.weight": None},
            {},
            r"`layer2.conv.weight` is missing there and \(3, 2, 3\) here",
        ),
        ({"layer2.conv.weight": np.ones((3, 3))}, {}, r"`layer2.conv.weight` is \(3, 3\) there"),
    ],
)
def test_a_network_is_deployed_over_one_of_its_own_shapes(tensors, change, arguments, message):
    old = {name: x for name, x in (tensors | change).items() if x is not None}
    config = memsim.CrossbarConfig(**{"rows": 4, "crossbars": None} | arguments)
    with pytest.raises(ValueError, match=message):
        memsim.compare(tensors, config, POLICIES, old=old)


@pytest.mark.parametrize(
    ("network", "bits", "writes", "sws", "sws_layer"),
    [
        ("resnet20_cifar10", 8, 1_058_119, 1.68, 3.54),
        pytest.param("deit_tiny_patch16_224", 8, 22_520_218, 2.12, 16.8, marks=pytest.mark.slow),
        pytest.param("resnet50_stages1to4", 8, 36_078_675, 2.82, 47.5, marks=pytest.mark.slow),
        pytest.param("resnet50_stages1to4", 10, 45_087_476, 2.07, 21.2, marks=pytest.mark.slow),
    ],
)
def test_trained_weights_cost_what_others_count(assets, network, bits, writes, sws, sws_layer):
    tensors = safetensors.numpy.load_file(assets / f"{network}.safetensors")
    policies = {name: POLICIES[name] for name in ("unsorted", "sws", "sws-layer")}
    result = memsim.compare(tensors, memsim.CrossbarConfig(bits=bits), policies).policies
    assert result["unsorted"].writes == writes
    assert float(f"{result['sws'].reduction:.3g}") == sws
    assert float(f"{result['sws-layer'].reduction:.3g}") == sws_layer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"passes": 0}, "`passes` is 0; give at least 1"),
        ({"chips": memsim.Chips(-1)}, "`chips` is -1; give at least 1"),
        (
            {"chips": memsim.Chips(stuck_at_0=2.0)},
            "`stuck_at_0` is 2.0; a probability lies in 0..1",
        ),
        ({"chips": memsim.Chips(stuck_at_0=0.6, stuck_at_1=0.6)}, "the rates sum to at most 1"),
        (
            {"chips": memsim.Chips(faults=(np.zeros((2, 4, 8), bool),) * 2)},
            r"`faults` has shape \(2, 4, 8\)",
        ),
        ({"keep_placement": True}, "keeps the places of an older version; give `old` too"),
        ({"select": lambda name, leaf: None}, "None of 4 tensors"),
    ],
)
def test_a_wrong_argument_says_what_is_wrong(tensors, arguments, message):
    with pytest.raises(ValueError, match=message):
        memsim.compare(tensors, memsim.CrossbarConfig(rows=4), POLICIES, **arguments)
