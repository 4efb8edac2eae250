import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import memsim
from memsim.selection import Matrix, by_output, from_output, in_natural_order, named_leaves

RNG = np.random.default_rng(0)


def chosen(name, shape, **options):
    return memsim.select_by_name(**options)(name, np.zeros(shape, np.float32))


def matrix_of(name, tensor, **options):
    """The weight matrix [outputs, inputs] that the default rule makes of a tensor."""
    config = memsim.CrossbarConfig(rows=tensor.size, crossbars=None)
    select = memsim.select_by_name(**options)
    plan = memsim.plan({name: tensor}, config, memsim.Policy.unsorted(), select=select)
    layer = plan.layers[name]
    matrix = by_output(tensor, layer.matrix.axes)
    assert matrix.shape == (layer.matrix.outputs, layer.matrix.inputs)
    return matrix


# (name, shape, output axes): section 2 of the design
KERNELS = [
    ("dense/kernel", (5, 3), (1,)),
    ("conv1d/kernel", (3, 4, 2), (2,)),
    ("conv2d/kernel", (3, 3, 4, 2), (3,)),
    ("conv3d/kernel", (2, 3, 3, 4, 2), (4,)),
    ("grouped/kernel", (3, 3, 1, 4), (3,)),
    ("conv_transpose/kernel", (3, 3, 4, 2), (3,)),
    ("attention/query/kernel", (6, 2, 3), (1, 2)),
    ("attention/key/kernel", (6, 2, 3), (1, 2)),
    ("attention.value.kernel", (6, 2, 3), (1, 2)),
    ("attention/out/kernel", (2, 3, 6), (2,)),
    ("query/kernel", (6, 4), (1,)),
    ("linear.weight", (3, 5), (0,)),
    ("conv1d.weight", (2, 4, 3), (0,)),
    ("conv2d.weight", (2, 4, 3, 3), (0,)),
    ("conv3d.weight", (2, 4, 2, 3, 3), (0,)),
    ("depthwise.weight", (4, 1, 3, 3), (0,)),
    ("decoder.conv_transpose1.weight", (4, 2, 3), (1,)),
    ("ConvTranspose2d_0.weight", (4, 2, 3, 3), (1,)),
    ("deconv.weight", (4, 2, 2, 3, 3), (1,)),
    ("deconv_head.weight", (4, 2), (0,)),
]


@pytest.mark.parametrize(("name", "shape", "axes"), KERNELS)
def test_the_weight_matrix_is_that_of_the_name(name, shape, axes):
    tensor = RNG.standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(matrix_of(name, tensor), oracles.matrix(tensor, axes))


@pytest.mark.parametrize(("name", "shape", "axes"), KERNELS)
def test_a_tensor_comes_back_from_its_matrix(name, shape, axes):
    tensor = RNG.standard_normal(shape).astype(np.float32)
    for array in (tensor, jnp.asarray(tensor)):
        matrix = by_output(array, axes)
        np.testing.assert_array_equal(from_output(matrix, Matrix(shape=shape, axes=axes)), tensor)
        np.testing.assert_array_equal(oracles.tensor_of(np.asarray(matrix), shape, axes), tensor)


# the same layer [outputs, groups' inputs, *window] in both layouts: axes of the torch tensor
LAYOUTS = [
    ("linear.weight", (3, 5), "dense/kernel", (1, 0)),
    ("conv.weight", (4, 3, 5), "conv/kernel", (2, 1, 0)),
    ("conv.weight", (4, 3, 2, 5), "conv/kernel", (2, 3, 1, 0)),
    ("conv.weight", (4, 3, 2, 2, 3), "conv/kernel", (2, 3, 4, 1, 0)),
    ("grouped.weight", (4, 1, 3, 3), "grouped/kernel", (2, 3, 1, 0)),
    ("conv_transpose.weight", (3, 4, 2, 5), "conv_transpose/kernel", (2, 3, 0, 1)),
]


@pytest.mark.parametrize(("torch_name", "shape", "flax_name", "order"), LAYOUTS)
def test_both_layouts_hold_the_same_weights_per_output(torch_name, shape, flax_name, order):
    tensor = RNG.standard_normal(shape).astype(np.float32)
    torch = matrix_of(torch_name, tensor)
    flax = matrix_of(flax_name, tensor.transpose(order))
    np.testing.assert_array_equal(np.sort(torch), np.sort(flax))


@pytest.mark.parametrize(("torch_name", "shape", "flax_name", "order"), LAYOUTS)
@pytest.mark.parametrize("policy", ["sws", "sws-layer"])
def test_sorting_makes_both_layouts_cost_the_same(torch_name, shape, flax_name, order, policy):
    tensor = RNG.standard_normal(shape).astype(np.float32)
    config = memsim.CrossbarConfig(rows=4)
    policies = {policy: memsim.Policy.parse(policy)}
    torch = memsim.compare({torch_name: tensor}, config, policies)
    flax = memsim.compare({flax_name: tensor.transpose(order)}, config, policies)
    assert torch.policies[policy].writes_per_column == flax.policies[policy].writes_per_column


def test_heads_are_outputs_of_query_key_and_value():
    kernel = RNG.standard_normal((6, 2, 3)).astype(np.float32)
    matrix = matrix_of("layers_0/attention/query/kernel", kernel)
    np.testing.assert_array_equal(matrix, kernel.reshape(6, 6).T)
    torch = matrix_of("in_proj_weight", matrix)
    np.testing.assert_array_equal(torch, matrix)


def test_layout_overrules_the_name():
    assert chosen("a.weight", (2, 3), layout="flax") == (1,)
    assert chosen("a/kernel", (2, 3), layout="torch") == (0,)
    assert chosen("a/kernel", (2, 3), layout="flax") == (1,)


@pytest.mark.parametrize(
    "name",
    [
        "pos_embed.weight",
        "position_embedding.weight",
        "PositionEmb.kernel",
        "cls_token.weight",
        "transformer.wte.weight",
        "transformer.wpe.weight",
        "model.embed_tokens.weight",
        "bert.word_embeddings.weight",
        "bert.token_type_embeddings.weight",
    ],
)
def test_embeddings_stay_digital_unless_included(name):
    assert chosen(name, (4, 3)) is None
    assert chosen(name, (4, 3), include=".") is not None


@pytest.mark.parametrize("name", ["bias", "norm.scale", "weight_g", "token.embedding", "x/kernel_"])
def test_other_names_stay_digital(name):
    assert chosen(name, (4, 3)) is None


def test_only_floating_tensors_of_two_or_more_dimensions_are_selected():
    select = memsim.select_by_name()
    assert select("norm.weight", np.zeros(3, np.float32)) is None
    assert select("quantized.weight", np.zeros((2, 3), np.int8)) is None
    assert select("half.weight", jnp.zeros((2, 3), jnp.bfloat16)) == (0,)
    assert select("weight", object()) is None


def test_include_exclude_and_transposed_search_the_name():
    assert chosen("layer1.weight", (2, 3), include=r"^layer1\.") == (0,)
    assert chosen("layer2.weight", (2, 3), include=r"^layer1\.") is None
    assert chosen("layer1.weight", (2, 3), exclude="layer1") is None
    assert chosen("up.3.weight", (2, 3, 2), transposed=r"^up\.") == (1,)
    assert chosen("up.3.weight", (2, 3, 2)) == (0,)


def test_select_may_give_a_number_of_output_axes():
    params = {"a.weight": np.ones((2, 3, 4), np.float32), "b": np.ones((2, 3, 4), np.float32)}
    config, policy = memsim.CrossbarConfig(), memsim.Policy.unsorted()
    plan = memsim.plan(params, config, policy, select=lambda name, leaf: 2)
    assert plan.layers["a.weight"].matrix.axes == (0, 1)
    assert plan.layers["b"].matrix.axes == (1, 2)
    plan = memsim.plan(params, config, policy, select=lambda name, leaf: 1 if name == "b" else None)
    assert plan.names == ["b"]
    plan = memsim.plan(params, config, policy, select=lambda name, leaf: (0, 2))
    assert plan.layers["b"].matrix.axes == (0, 2)
    expected = oracles.matrix(params["b"], (0, 2))
    np.testing.assert_array_equal(by_output(params["b"], (0, 2)), expected)


def test_names_are_paths_without_a_trailing_value():
    tree = {"block": [{"kernel": {"value": 1.0}}, {"kernel": 2.0}], "head": (3.0,)}
    assert named_leaves(tree) == {"block/0/kernel": 1.0, "block/1/kernel": 2.0, "head/0": 3.0}


def test_runs_of_digits_compare_as_numbers():
    names = ["layer1.10", "layer1.2", "layer10.0", "layer2.0", "head", "layer1.2.b", "layer1.2.a"]
    ordered = ["head", "layer1.2", "layer1.2.a", "layer1.2.b", "layer1.10", "layer2.0", "layer10.0"]
    assert in_natural_order(names) == ordered == oracles.natural_order(names)


def test_two_tensors_of_one_name_are_refused():
    tree = {"a": {"b": np.ones((2, 2))}, "a/b": np.ones((2, 2))}
    with pytest.raises(ValueError, match="Two tensors are called `a/b`; names tell layers apart"):
        named_leaves(tree)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "jax"}, "`layout` is 'jax'; choose one of auto, torch, flax"),
        ({"include": "("}, r"`include` is '\('.*not a regular expression"),
        ({"exclude": "["}, r"`exclude` is '\['.*not a regular expression"),
        ({"transposed": "*"}, r"`transposed` is '\*'.*not a regular expression"),
    ],
)
def test_a_wrong_option_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        memsim.select_by_name(**options)


@pytest.mark.parametrize(
    ("leaf", "selected", "message"),
    [
        (np.ones((2, 3), np.int32), 1, "`x` was selected but is int32; select floating tensors"),
        ("text", 1, "`x` was selected but is str; select floating"),
        (np.ones((), np.float32), 1, "`x` was selected but is a scalar; return None for it"),
        (np.ones((0, 3), np.float32), 1, r"`x` was selected but is empty, shape \(0, 3\)"),
        (np.ones((2, 3), np.float32), 0, r"output axes \(\) for `x` of shape \(2, 3\); return a"),
        (np.ones((2, 3), np.float32), 3, "a number of output axes from 1 to 2, or None"),
        (np.ones((2, 3), np.float32), (2,), r"output axes \(2,\) for `x`"),
        (np.ones((2, 3), np.float32), (-1,), r"output axes \(-1,\) for `x`"),
        (np.ones((2, 3), np.float32), (1, 1), r"output axes \(1, 1\) for `x`"),
    ],
)
def test_a_tensor_that_is_no_weight_matrix_is_refused(leaf, selected, message):
    with pytest.raises(ValueError, match=message):
        memsim.plan(
            {"x": leaf},
            memsim.CrossbarConfig(),
            memsim.Policy.unsorted(),
            select=lambda name, leaf: selected,
        )


def test_a_network_without_weight_matrices_is_refused():
    with pytest.raises(
        ValueError, match=r"None of 1 tensors \(bias\) is chosen as a weight matrix"
    ):
        memsim.plan({"bias": np.ones(3)}, memsim.CrossbarConfig(), memsim.Policy.unsorted())


def test_modules_of_flax_are_mapped_as_they_compute():
    linen = pytest.importorskip("flax.linen")
    nnx = pytest.importorskip("flax.nnx")
    x = jnp.ones((1, 4, 6))
    attention = linen.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    params = attention.init(jax.random.key(0), x)["params"]
    plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.sws())
    sizes = {
        name: (layer.matrix.inputs, layer.matrix.outputs) for name, layer in plan.layers.items()
    }
    heads = {f"{name}/kernel": (6, 8) for name in ("query", "key", "value")}
    assert sizes == heads | {"out/kernel": (8, 6)}

    model = nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.Policy.sws())
    assert plan.names == ["kernel"]
    assert (plan.layers["kernel"].matrix.inputs, plan.layers["kernel"].matrix.outputs) == (18, 6)
    chip = memsim.sample_chip(jax.random.key(0), plan)
    effective, _ = memsim.program(params, plan, chip)
    assert jax.tree.structure(effective) == jax.tree.structure(params)
