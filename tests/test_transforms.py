import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import memsim

STUCKED = memsim.policies.Sws(low=3, p=0.5)


@pytest.fixture
def plan(params, config):
    return memsim.plan(params, config, STUCKED)


@pytest.fixture
def chip(plan, key):
    return memsim.sample_chip(key, plan, 0.05, 0.05)


@pytest.fixture
def chips(plan, key):
    return jax.vmap(lambda k: memsim.sample_chip(k, plan, 0.05, 0.05))(jax.random.split(key, 3))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def pick(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def moved(params, scale):
    """Weights after training: some of their codes now clip."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda w: (w + scale * rng.standard_normal(w.shape)).astype(w.dtype), params
    )


def is_unclipped(params, plan):
    """By layer: 1 where the code of a weight is within +-max_code."""
    layers = {"layer2": plan.layers["layer2/kernel"], "layer10": plan.layers["layer10/kernel"]}
    return {
        name: np.abs(np.rint(params[name]["kernel"] / np.asarray(layer.scale))) <= 127
        for name, layer in layers.items()
    }


program = jax.jit(memsim.program, static_argnames=("passes", "wear"))


def test_jit_equals_eager(params, plan, chip, key):
    expected = memsim.program(params, plan, chip, passes=2, wear=True)
    assert_same(program(params, plan, chip, passes=2, wear=True), expected)
    expected = memsim.program(params, plan, chip)
    assert_same(program(params, plan, chip), expected)
    words = memsim.enable_words(plan, chip)
    assert_same(jax.jit(lambda chip: memsim.enable_words(plan, chip))(chip), words)
    sampled = jax.jit(memsim.sample_chip)(key, plan, jnp.float32(0.05), jnp.float32(0.05))
    assert_same(sampled, chip)


@pytest.mark.slow
def test_jit_equals_no_jit_at_all(params, plan, chip):
    expected = memsim.program(params, plan, chip)
    with jax.disable_jit():
        plain = memsim.program(params, plan, chip)
    assert_same(plain, expected)


def test_vmap_over_chips_is_a_loop_over_chips(params, plan, chips, key):
    for i, one in enumerate(jax.random.split(key, 3)):
        assert_same(pick(chips, i), memsim.sample_chip(one, plan, 0.05, 0.05))
    effective, programming = jax.vmap(
        lambda chip: memsim.program(params, plan, chip, passes=2, wear=True)
    )(chips)
    for i in range(3):
        expected, alone = memsim.program(params, plan, pick(chips, i), passes=2, wear=True)
        assert_same(pick(programming, i), alone)
        for name in ("layer2", "layer10"):
            assert_same(effective[name]["kernel"][i], expected[name]["kernel"])
    words = jax.vmap(lambda chip: memsim.enable_words(plan, chip))(chips)
    assert_same(pick(words, 1), memsim.enable_words(plan, pick(chips, 1)))


def test_vmap_over_weights_and_chips_is_a_loop_over_both(params, plan, chips):
    many = [jax.tree.map(jnp.asarray, moved(params, scale)) for scale in (0.0, 0.1, 1.0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    results = jax.vmap(lambda tree, chip: memsim.program(tree, plan, chip))(stacked, chips)
    for i, tree in enumerate(many):
        assert_same(pick(results, i), memsim.program(tree, plan, pick(chips, i)))


def test_vmap_over_p_and_low_is_a_loop_over_policies(params, plan, chip):
    settings = [(0.0, 1), (0.3, 3), (0.5, 8), (1.0, 2)]

    def with_settings(p, low):
        layers = {
            name: layer._replace(reprogram=p, low_columns=low)
            for name, layer in plan.layers.items()
        }
        return memsim.program(params, plan._replace(layers=layers), chip)[1].counts

    p, low = (jnp.asarray(x) for x in zip(*settings, strict=True))
    counts = jax.vmap(with_settings)(p, low)
    for i, (p, low) in enumerate(settings):
        stucked = memsim.with_stucking(plan, memsim.policies.Sws(low=low, p=p))
        assert_same(pick(counts, i), memsim.program(params, stucked, chip)[1].counts)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_gradient_is_one_where_not_clipped_and_zero_where_clipped(params, config, key, dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), params)
    plan = memsim.plan(params, config, STUCKED)
    chip = memsim.sample_chip(key, plan, 0.05, 0.05)
    params = moved(params, 1.0)

    def total(tree):
        effective, _ = memsim.program(tree, plan, chip)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(effective)), effective

    gradient, inside = jax.grad(total, has_aux=True)(params)
    assert_same(inside, jax.tree.map(jnp.asarray, memsim.program(params, plan, chip)[0]))
    as_float32 = jax.tree.map(lambda w: w.astype(np.float32), params)
    for name, unclipped in is_unclipped(as_float32, plan).items():
        assert gradient[name]["kernel"].dtype == dtype
        np.testing.assert_array_equal(gradient[name]["kernel"].astype(np.float32), unclipped)
        assert 0 < unclipped.mean() < 1
    np.testing.assert_array_equal(gradient["bias"].astype(np.float32), 1)


def test_a_weight_that_rounds_to_the_largest_code_is_not_clipped(key):
    planned = {"kernel": np.array([[127.0], [0.0], [1.0], [-1.0], [2.0]], np.float32)}
    plan = memsim.plan(planned, memsim.CrossbarConfig(), STUCKED)
    chip = memsim.sample_chip(key, plan)
    params = {"kernel": np.array([[127.0], [-127.4], [127.4], [127.6], [-128]], np.float32)}
    gradient = jax.grad(lambda tree: jnp.sum(memsim.program(tree, plan, chip)[0]["kernel"]))(params)
    np.testing.assert_array_equal(gradient["kernel"][:, 0], [1, 1, 1, 0, 0])


def test_gradients_pass_through_a_function_of_the_effective_weights(params, plan, chip):
    params = moved(params, 1.0)

    def loss(tree):
        effective, _ = memsim.program(tree, plan, chip)
        return jnp.sum(effective["layer2"]["kernel"] ** 2)

    for gradient in (jax.grad(loss)(params), jax.jit(jax.grad(loss))(params)):
        held = memsim.program(params, plan, chip)[0]["layer2"]["kernel"]
        expected = np.where(is_unclipped(params, plan)["layer2"], 2 * held, 0)
        np.testing.assert_array_equal(gradient["layer2"]["kernel"], expected)
        assert not gradient["layer10"]["kernel"].any()


def test_forward_mode_is_straight_through_too(params, plan, chip):
    params = jax.tree.map(jnp.asarray, moved(params, 1.0))
    rng = np.random.default_rng(2)
    tangent = jax.tree.map(lambda w: rng.standard_normal(w.shape).astype(np.float32), params)
    held, pushed = jax.jvp(lambda tree: memsim.program(tree, plan, chip)[0], (params,), (tangent,))
    assert_same(held, memsim.program(params, plan, chip)[0])
    for name, unclipped in is_unclipped(params, plan).items():
        expected = np.where(unclipped, tangent[name]["kernel"], 0)
        np.testing.assert_array_equal(pushed[name]["kernel"], expected)


def test_one_gradient_step_for_many_chips(params, plan, chips):
    def loss(tree, chip):
        effective, _ = memsim.program(tree, plan, chip)
        return jnp.sum(effective["layer2"]["kernel"] ** 2)

    together = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, chips)
    for i in range(3):
        alone = jax.grad(loss)(params, pick(chips, i))
        assert_same(together["layer2"]["kernel"][i], alone["layer2"]["kernel"])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_effective_weights_are_rounded_to_their_dtype_inside_jit_too(params, config, key, dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), params)
    plan = memsim.plan(params, config, memsim.policies.Sws())
    chip = memsim.sample_chip(key, plan)

    def held(tree):
        return memsim.program(tree, plan, chip)[0]["layer2"]["kernel"].astype(jnp.float32)

    np.testing.assert_array_equal(jax.jit(held)(params), held(params))


@pytest.mark.slow
def test_64_bit_weights_stay_64_bit_and_counts_32(params, config, key):
    wide = jax.tree.map(lambda w: w.astype(np.float64), params)
    policy = memsim.policies.Sws()
    with jax.enable_x64(True):
        plan = memsim.plan(wide, config, policy)
        chip = memsim.sample_chip(key, plan)
        effective, programming = memsim.program(wide, plan, chip, passes=2, wear=True)
        compared = memsim.compare({"kernel": wide["layer2"]["kernel"]}, config, {"sws": policy})
    scale = np.abs(params["layer2"]["kernel"]).max() / np.float32(127)
    codes = np.rint(params["layer2"]["kernel"] / scale)
    assert effective["layer2"]["kernel"].dtype == np.float64
    expected = codes.astype(np.float64) * np.float64(scale)
    np.testing.assert_array_equal(effective["layer2"]["kernel"], expected)
    assert_same(programming, memsim.program(params, plan, chip, passes=2, wear=True)[1])
    assert compared == memsim.compare(
        {"kernel": params["layer2"]["kernel"]}, config, {"sws": policy}
    )


def variations(params, config):
    """(weights, plan, chip) that differ in everything but shapes."""
    policies = [
        memsim.policies.Sws(low=3, p=0.5),
        memsim.policies.Sws(low=3, p=0.25),
        memsim.policies.Sws(low=1, p=0.5, draws="fixed"),
        memsim.policies.Sws(),
        memsim.policies.Unsorted(),
        memsim.policies.Unsorted(low=8, p=0.0),
    ]
    for seed, policy in enumerate(policies):
        planned = moved(params, seed)
        plan = memsim.plan(planned, config, policy)
        chip = memsim.sample_chip(jax.random.key(seed), plan, 0.01 * seed, 0.02 * seed)
        yield moved(planned, 0.1), plan, chip


def test_one_program_serves_every_key_policy_placement_fault_and_weight(params, config):
    fresh = jax.jit(lambda *arguments: memsim.program(*arguments))
    enable = jax.jit(lambda *arguments: memsim.enable_words(*arguments))
    for weights, plan, chip in variations(params, config):
        fresh(weights, plan, chip)
        enable(plan, chip)
    assert fresh._cache_size() == 1
    assert enable._cache_size() == 1


def test_public_functions_compile_nothing_new(params, compilations):
    config = memsim.CrossbarConfig(rows=5)  # that no other test has compiled

    def run(weights, plan, chip):
        _effective, programming = memsim.program(weights, plan, chip)
        memsim.enable_words(plan, chip)
        memsim.summarize(programming, plan)
        return programming.chip

    first, *others = variations(params, config)
    # bit stucking is compiled by itself
    for weights, plan, chip in (first, others[2]):
        run(weights, plan, run(weights, plan, chip))
    before = compilations()
    assert before > 0
    for weights, plan, chip in [*others, *variations(params, config)]:
        run(weights, plan, run(weights, plan, chip))
    assert compilations() == before


def test_comparing_other_policies_compiles_nothing_new(params, config, compilations):
    tensors = {name: params[name]["kernel"] for name in ("layer2", "layer10")}

    def run(policy, seed, rate):
        memsim.compare(
            tensors,
            config,
            {"it": policy},
            select=lambda name, leaf: 1,
            passes=2,
            chips=memsim.Chips(number=2, seed=seed, stuck_at_0=rate),
        )

    run(memsim.policies.Sws(low=3, p=0.5), 0, 0.1)
    run(
        memsim.policies.Sws(low=3, p=0.5), 0, 0.0
    )  # nothing is drawn for `unsorted`: one chip is enough
    before = compilations()
    for seed, policy in enumerate(
        [
            memsim.policies.Sws(low=2, p=0.3),
            memsim.policies.Unsorted(low=1, p=0.5, draws="fixed"),
            memsim.policies.Sws(),
        ]
    ):
        run(policy, seed, 0.01 * seed)
    assert compilations() == before


def test_a_plan_and_a_chip_are_pytrees_of_arrays(plan, chip):
    for tree in (plan, chip):
        leaves, structure = jax.tree.flatten(tree)
        # the index of a layer is exact in float64, which JAX does not hold by default
        assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
        assert_same(jax.tree.unflatten(structure, leaves), tree)
    p = [layer.reprogram for layer in plan.layers.values()]
    low = [layer.low_columns for layer in plan.layers.values()]
    assert {float(x) for x in p} == {0.5}
    assert {int(x) for x in low} == {3}
