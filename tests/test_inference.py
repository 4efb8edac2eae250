"""Inferences: products by hand, positions by tracing, timelines, ways to run a network."""

import dataclasses
import json
import math
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim import hardware as hw
from memsim.hardware import Stage, make_timeline
from memsim.service import Service, advise

ARRAY = hw.read_hardware("array-128")


def counted(shape, config, policy="unsorted"):
    rng = np.random.default_rng(0)
    tensors = {"fc.weight": rng.normal(size=shape).astype(np.float32)}
    return memsim.compare(tensors, config, {policy: memsim.Policy.parse(policy)}).policies[policy]


def test_a_dense_layer_in_two_sections_is_worked_out_by_hand():
    """200 inputs in sections of 128 and 72 rows, 10 outputs of 8 cells: the page's example."""
    config = ARRAY.config(crossbars=1)
    summary = counted((10, 200), config)
    cost = hw.inference_cost(summary, {"fc.weight": 1}, config, ARRAY, batch=4)
    cycles = 8  # bits of an input
    columns = 2 * 80
    expected = {
        "arrays": cycles * 2 * 30e-12,
        "drivers": cycles * 200 * 0.417e-12,
        "converters": cycles * columns * 1.667e-12,
        "shift_add": cycles * columns * 0.021e-12,
        "buffers": (200 * 8 + 2 * 10 * 16) * 0.1e-12,
        "routes": 0.0,
    }
    for part, joules in expected.items():
        assert cost.joules[part] == pytest.approx(joules, rel=1e-12)
    of_pass = hw.pass_cost(summary, ARRAY.on(config))
    assert cost.total_joules == pytest.approx(
        sum(expected.values()) + of_pass.total_joules / 4, rel=1e-12
    )
    # 128 columns take a converter longer than a read cycle of 100 ns
    product = 4 * cycles * 128 / 1.2e9
    move = of_pass.seconds["index"] + of_pass.seconds["data"]
    write = of_pass.seconds["pulses"] + of_pass.seconds["reads"]
    assert cost.seconds == pytest.approx((move + write + 2 * product) / 4)
    area = 2.5e-5 + 1.2e-3 + 128 * 1.66e-7 + 3e-5 + 3.6e-4
    assert cost.area == pytest.approx(area)


def test_an_index_that_is_read_at_every_product_costs_more():
    config = ARRAY.config(crossbars=1)
    summary = counted((10, 200), config, "sws")
    memory = dataclasses.replace(ARRAY.memory, index="per_product")
    again = dataclasses.replace(ARRAY, memory=memory)
    cost = hw.inference_cost(summary, {"fc.weight": 7}, config, again)
    assert cost.joules["routes"] == pytest.approx(7 * 200 * 8 * 0.1e-12)


def test_a_network_that_is_held_has_no_timeline():
    config = ARRAY.config(crossbars=None)
    cost = hw.inference_cost(counted((40, 200), config), {"fc.weight": 3}, config, ARRAY.on(config))
    assert cost.timeline is None
    assert cost.arrays == 6
    assert cost.seconds == pytest.approx(3 * 8 * 128 / 1.2e9)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({}, "`positions` lacks 'fc.weight' (1 of 1 layers)"),
        ({"fc.weight": 1, "x": 2}, "`positions` has 'x', which is no layer"),
        ({"fc.weight": 0}, "`positions['fc.weight']` is 0"),
        (3, "`positions` is a int"),
    ],
)
def test_positions_are_checked(positions, message):
    config = ARRAY.config(crossbars=1)
    with pytest.raises(ValueError, match=re.escape(message)):
        hw.inference_cost(counted((10, 20), config), positions, config, ARRAY)


# Timelines.


def test_two_layers_on_two_arrays_are_worked_out_by_hand():
    """Layer a: sections 0, 1 on array 0 and 2 on array 1; layer b: one on array 0."""
    stages = [Stage("a", 3, 1.0, 4.0, 2.0), Stage("b", 1, 1.0, 3.0, 5.0)]
    config = memsim.CrossbarConfig(crossbars=2)
    found = make_timeline(stages, config)
    # array 0 moves 0..1, is written 1..5, multiplies 5..7; array 1 moves once memory is free
    by_hand = {
        (0, 0): [(0, 1, 5, 5, 7), (7, 8, 12, 12, 14)],
        (0, 1): [(1, 2, 6, 6, 8)],
        (1, 0): [(14, 15, 18, 18, 23)],
    }
    for (layer, array), rows in by_hand.items():
        here = (found.layers == layer) & (found.arrays == array)
        columns = (found.moved, found.written, found.ready, found.multiplied, found.done)
        np.testing.assert_array_equal(np.stack(columns, -1)[here], rows)
    assert found.seconds == 23
    assert found.busy() == {"memory": 4.0, "writing": 11.0, "products": 9.0}
    assert found.bottleneck() == "writing"
    alone = make_timeline(stages, config, overlap=False)
    assert alone.seconds == 3 * 7 + 9
    # interleaved, layer b waits for array 0 as before, but layer a has sections 0 and 2 there
    other = make_timeline(stages, memsim.CrossbarConfig(crossbars=2, schedule="interleaved"))
    assert other.arrays.tolist() == [0, 1, 0, 0]


STAGES = st.lists(
    st.tuples(st.integers(1, 6), *[st.floats(0, 4)] * 3).map(lambda x: Stage("a", *x)),
    min_size=1, max_size=5,
)  # fmt: skip


@hypothesis.given(STAGES, st.integers(1, 4), st.sampled_from(("block", "interleaved")))
def test_nothing_happens_before_it_can(stages, crossbars, schedule):
    config = memsim.CrossbarConfig(crossbars=crossbars, schedule=schedule)
    found = make_timeline(stages, config)
    alone = make_timeline(stages, config, overlap=False)
    assert found.seconds <= alone.seconds * (1 + 1e-12)
    total = sum(x.sections * (x.move + x.write + x.product) for x in stages)
    assert alone.seconds == pytest.approx(total)
    for array in range(crossbars):  # one thing after another on each array
        (here,) = np.nonzero(found.arrays == array)
        assert (found.done[here[:-1]] <= found.moved[here[1:]] + 1e-9).all()
    order = np.argsort(found.moved, kind="stable")  # memory serves one at a time
    ends = found.written[order]
    assert (np.maximum.accumulate(ends)[:-1] <= found.moved[order][1:] + 1e-9).all() or total == 0
    for layer in range(1, len(stages)):  # inputs are there
        before = found.done[found.layers < layer].max()
        assert (found.multiplied[found.layers == layer] >= before - 1e-9).all()


def test_what_is_no_timeline_is_named():
    config = memsim.CrossbarConfig(crossbars=2)
    for stages, message in (
        ([], "`stages` is empty"),
        ([Stage("a", 0, 1.0, 1.0, 1.0)], "`sections` is 0"),
        ([Stage("a", 1, -1.0, 1.0, 1.0)], "`move` is -1.0"),
        (3, "`stages` is a int"),
    ):
        with pytest.raises(ValueError, match=message):
            make_timeline(stages, config)
    with pytest.raises(ValueError, match="`crossbars` is None"):
        make_timeline([Stage("a", 1, 1.0, 1.0, 1.0)], memsim.CrossbarConfig(crossbars=None))


# Positions.


def test_positions_are_traced_through_what_networks_do():
    params = {
        "conv": {"kernel": np.ones((3, 3, 2, 4), np.float32)},
        "scan": {"kernel": np.ones((5, 4, 4), np.float32)},
        "head": {"kernel": np.ones((4, 6), np.float32)},
    }

    def apply(params, images):
        x = jax.lax.conv_general_dilated(
            images, params["conv"]["kernel"], (2, 2), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        x, _ = jax.lax.scan(lambda x, w: (x @ w, None), x, params["scan"]["kernel"])
        scaled = jax.jit(lambda w: jax.nn.relu(w.T.astype(jnp.bfloat16)) * 2)
        head = params["head"]["kernel"]
        halves = [x.mean((1, 2)) @ head[:, :3], x.mean((1, 2)) @ head[:, 3:]]
        return jnp.concatenate(halves, -1), scaled(head)

    images = jax.ShapeDtypeStruct((1, 8, 8, 2), np.float32)
    found = hw.find_positions(
        apply, params, images, select=lambda path, leaf: {3: 1}.get(leaf.ndim, 1)
    )
    assert found == {"conv/kernel": 16, "head/kernel": 1, "scan/kernel": 16}


@pytest.mark.parametrize(
    ("apply", "what"),
    [
        (lambda p, x: x, "no product with it was found"),
        (lambda p, x: x @ p["fc"]["kernel"][:2, :2], "parts of it see more"),
    ],
)
def test_layers_whose_vectors_are_not_known_are_named(apply, what):
    params = {"fc": {"kernel": np.ones((2, 3), np.float32)}}
    with pytest.raises(ValueError, match=f"'fc/kernel' sees .{what}"):
        hw.find_positions(apply, params, np.ones((1, 2), np.float32))


def test_products_that_run_nobody_knows_how_often_are_named():
    params = {"fc": {"kernel": np.ones((3, 3), np.float32)}}

    def apply(params, x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ params["fc"]["kernel"], x)

    with pytest.raises(ValueError, match="`apply` uses 'fc/kernel' in a `while`"):
        hw.find_positions(apply, params, np.ones((1, 3), np.float32))

    def branches(params, x):
        return jax.lax.cond(x.sum() < 9, lambda x: x @ params["fc"]["kernel"], lambda x: x, x)

    with pytest.raises(ValueError, match="`apply` uses 'fc/kernel' in a `cond`"):
        hw.find_positions(branches, params, np.ones((1, 3), np.float32))


def test_what_is_no_network_is_named():
    with pytest.raises(ValueError, match="`apply` is a dict; give a function"):
        hw.find_positions({}, {"fc": {"kernel": np.ones((2, 3), np.float32)}})


def test_images_give_the_pixels_of_convolutions(assets):
    from training.models.pretrained import open_network

    network = open_network("resnet20", str(assets / "resnet20_cifar10.safetensors"))
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
    found = hw.find_positions(network.apply, network.tensors, image)
    by_layer = {"conv1.weight": 32**2, "layer2.0.conv1.weight": 16**2, "linear.weight": 1}
    assert {name: found[name] for name in by_layer} == by_layer


# Ways to run a network.


@pytest.fixture(scope="module")
def advice():
    rng = np.random.default_rng(0)
    tensors = {f"l{i}.weight": rng.normal(size=(40, 60)).astype(np.float32) for i in range(3)}
    hardware = dataclasses.replace(ARRAY, arrays=hw.Arrays(number=2, columns=128))
    policies = {name: memsim.Policy.parse(name) for name in ("unsorted", "sws")}
    service = Service(batch=5, inferences_per_programming=1000, adapter_rank=4)
    return advise(tensors, hardware, policies, 7, service=service)


def test_every_figure_follows_from_its_formula(advice):
    assert list(advice.ways) == [
        "streamed: unsorted", "streamed: sws", "held", "held, adapters rewritten",
    ]  # fmt: skip
    words = {"ceil": math.ceil, "min": min, "max": max}
    for figures in advice.ways.values():
        for figure in figures.values():
            if figure.inputs:
                found = eval(figure.formula, {}, words | figure.inputs)  # noqa: S307
                assert figure.value == pytest.approx(found)


def test_ways_are_of_the_arrays_they_take(advice):
    held, adapted = advice.ways["held"], advice.ways["held, adapters rewritten"]
    assert advice.ways["streamed: sws"]["arrays"].value == 2
    assert held["arrays"].value == 3 * 3  # 40 outputs of 16 a row
    assert adapted["arrays"].value == 9 + 3 * (1 + 3)
    assert adapted["adapter_weights"].value == 3 * 4 * (60 + 40)
    assert held["product_seconds"].value == pytest.approx(3 * 7 * 8 * 128 / 1.2e9)
    assert advice.best("arrays").startswith("streamed")
    with pytest.raises(ValueError, match="`figure` is 'weight'; choose one of"):
        advice.best("weight")


def test_at_the_break_even_both_take_as_much(advice):
    streamed, held = advice.ways["streamed: sws"], advice.ways["held"]
    even = streamed["break_even_programming"].value
    joules = held["programming_joules"].value / even + held["product_joules"].value
    assert joules == pytest.approx(streamed["joules"].value)
    chips = streamed["break_even_arrays"].value / 2
    cost = chips * 100 / held["replaced_after"].value + held["energy_cost"].value
    yearly = streamed["hardware_cost"].value + streamed["energy_cost"].value
    assert cost == pytest.approx(yearly)


def test_advice_on_the_command_line(tmp_path, run):
    np.savez(tmp_path / "net.npz", **{"fc.weight": np.eye(20, 30, dtype=np.float32)})
    out, chart = tmp_path / "advice.json", tmp_path / "advice.png"
    words = ("advise", tmp_path / "net.npz", "--hardware", "array-128-pcm")
    code, _, error = run(*words)
    assert code != 0
    assert "`--positions` is missing" in error
    code, printed, error = run(
        *words, "--positions", 3, "--crossbars", 1, "--batch", 2, "--json", out, "--chart", chart
    )
    assert code == 0, error
    assert "least energy: held" in printed
    document = json.loads(out.read_text())
    assert document["config"]["crossbars"] == 1
    assert set(document["ways"]) == {
        "streamed: unsorted", "streamed: sws", "held", "held, adapters rewritten",
    }  # fmt: skip
    assert chart.stat().st_size > 0


def test_a_report_prices_an_inference(tmp_path, run):
    tensors = {f"l{i}.weight": np.eye(20, 30, dtype=np.float32) for i in range(2)}
    np.savez(tmp_path / "net.npz", **tensors)
    (tmp_path / "positions.json").write_text('{"l0*": 9, "*": 4}')
    out = tmp_path / "out.json"
    words = (
        "report", tmp_path / "net.npz", "--policy", "sws", "--hardware", "array-128",
        "--json", out, "--png", tmp_path / "charts", "--html", tmp_path / "page.html", "--force",
    )  # fmt: skip
    code, printed, error = run(*words, "--positions", tmp_path / "positions.json", "--batch", 3)
    assert code == 0, error
    document = json.loads(out.read_text())
    assert document["positions"] == {"l0.weight": 9, "l1.weight": 4}
    entry = document["policies"]["sws"]["inference"]
    total = entry["joules"].pop("total")
    assert total == pytest.approx(sum(entry["joules"].values()))
    assert entry["bottleneck"] in ("memory", "writing", "products")
    assert "An inference, 64 arrays" in printed
    assert (tmp_path / "charts" / "arrays_at_work.png").is_file()
    page = (tmp_path / "page.html").read_text()
    assert "Arrays at work" in page
    assert "Hardware: <code>array-" in page
    assert "64 arrays of 0.105 mm" in page
    for given, message in (
        ("many", "`--positions` is 'many'"),
        ("0", "`--positions` has 0"),
        (tmp_path / "net.npz", "is no JSON file"),
    ):
        code, _, error = run(*words, "--positions", given)
        assert code != 0
        assert message in error
    # held, there is no timeline to draw
    code, printed, error = run(*words, "--positions", 2, "--from", tmp_path / "net.npz")
    assert code == 0, error
    assert "An inference, 4 arrays" in printed
    code, _, error = run(*words, "--batch", 3)
    assert "`--batch` needs `--positions`" in error
