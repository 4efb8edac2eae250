import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensor_names import DOUBTS, TENSORS

import memsim
from memsim.selection import (
    Matrix,
    Reading,
    Rule,
    by_output,
    describe,
    from_output,
    from_slices,
    in_natural_order,
    layout_of,
    matrix_name,
    named_leaves,
    read_layout,
    select_layers,
    slice_of,
    slices,
    tensor_name,
)

RNG = np.random.default_rng(0)


def chosen(name, shape, **options):
    """The output axes of a tensor that is one matrix; None where it stays digital."""
    reading = memsim.select_by_name(**options)(name, np.zeros(shape, np.float32))
    assert reading is None or reading.stacked == ()
    return reading and reading.axes


def read(name, shape, beside=None, **options):
    """The matrices of a tensor, with others of its network beside it: name -> Matrix."""
    shapes = {name: shape, **(beside or {}), "head.weight": (3, 4)}
    leaves = {key: jax.ShapeDtypeStruct(value, jnp.float32) for key, value in shapes.items()}
    selected = select_layers(leaves, memsim.select_by_name(**options))
    return {key: one.matrix for key, one in selected.items() if one.tensor == name}


def matrix_of(name, tensor, **options):
    """The weight matrix [outputs, inputs] that the default rule makes of a tensor."""
    config = memsim.CrossbarConfig(rows=tensor.size, crossbars=None)
    select = memsim.select_by_name(**options)
    plan = memsim.plan({name: tensor}, config, memsim.policies.Unsorted(), select=select)
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


@pytest.mark.slow
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


def test_a_rule_overrules_the_name():
    assert chosen("a.weight", (2, 3), map=[".*=in-out"]) == (1,)
    assert chosen("a/kernel", (2, 3), map=[".*=out-in"]) == (0,)
    assert chosen("a/kernel", (2, 3), map=[".*=in-out"]) == (1,)


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
    assert select("half.weight", jnp.zeros((2, 3), jnp.bfloat16)) == Reading((0,))
    assert select("weight", object()) is None


def test_include_exclude_and_map_search_the_name():
    assert chosen("layer1.weight", (2, 3), include=r"^layer1\.") == (0,)
    assert chosen("layer2.weight", (2, 3), include=r"^layer1\.") is None
    assert chosen("layer1.weight", (2, 3), exclude="layer1") is None
    assert chosen("up.3.weight", (2, 3, 2), map=[r"^up\.=in-out-window"]) == (1,)
    assert chosen("up.3.weight", (2, 3, 2), map=[r"^up\.=out-in"]) == (0,)


def test_select_may_give_a_number_of_output_axes():
    params = {"a.weight": np.ones((2, 3, 4), np.float32), "b": np.ones((2, 3, 4), np.float32)}
    config, policy = memsim.CrossbarConfig(), memsim.policies.Unsorted()
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
        ({"map": ["a=jax"]}, "`map` has the layout 'jax'; give a word for each axis.*in-heads-dim"),
        ({"map": ["a=in-in"]}, "`map` has the layout 'in-in'.*outputs among them"),
        ({"map": ["a=heads-dim"]}, "`map` has the layout 'heads-dim'"),
        ({"map": ["a=window-out-window"]}, "at most one window"),
        ({"map": ["a"]}, "`map` has 'a'; give RE=LAYOUT"),
        ({"map": ["=out-in"]}, "`map` has '=out-in'; give RE=LAYOUT"),
        ({"map": "a=out-in"}, "`map` is 'a=out-in'; give a sequence of rules"),
        ({"include": "("}, r"`include` is '\('.*not a regular expression"),
        ({"exclude": "["}, r"`exclude` is '\['.*not a regular expression"),
        ({"map": ["*=out-in"]}, r"`map` is '\*'.*not a regular expression"),
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
            memsim.policies.Unsorted(),
            select=lambda name, leaf: selected,
        )


def test_a_network_without_weight_matrices_is_refused():
    with pytest.raises(
        ValueError, match=r"None of 1 tensors \(bias float64 \(3,\)\) is chosen as a weight matrix"
    ):
        memsim.plan({"bias": np.ones(3)}, memsim.CrossbarConfig(), memsim.policies.Unsorted())


def test_modules_of_flax_are_mapped_as_they_compute():
    linen = pytest.importorskip("flax.linen")
    nnx = pytest.importorskip("flax.nnx")
    x = jnp.ones((1, 4, 6))
    attention = linen.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    params = attention.init(jax.random.key(0), x)["params"]
    plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.policies.Sws())
    sizes = {
        name: (layer.matrix.inputs, layer.matrix.outputs) for name, layer in plan.layers.items()
    }
    heads = {f"{name}/kernel": (6, 8) for name in ("query", "key", "value")}
    assert sizes == heads | {"out/kernel": (8, 6)}

    model = nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    plan = memsim.plan(params, memsim.CrossbarConfig(), memsim.policies.Sws())
    assert plan.names == ["kernel"]
    assert (plan.layers["kernel"].matrix.inputs, plan.layers["kernel"].matrix.outputs) == (18, 6)
    chip = memsim.sample_chip(jax.random.key(0), plan)
    effective, _ = memsim.program(params, plan, chip)
    assert jax.tree.structure(effective) == jax.tree.structure(params)


@pytest.mark.parametrize("known", TENSORS, ids=lambda known: known[0])
def test_real_tensors_are_read_as_their_libraries_store_them(known):
    name, shape, layout, *size = known
    matrices = read(name, shape)
    if layout is None:
        assert matrices == {}
        return
    inputs, outputs, number = size
    assert {(matrix.inputs, matrix.outputs) for matrix in matrices.values()} == {(inputs, outputs)}
    assert {layout_of(matrix) for matrix in matrices.values()} == {layout}
    assert len(matrices) == number
    assert inputs * outputs * number == np.prod(shape)


@pytest.mark.parametrize(("name", "shape"), DOUBTS)
def test_where_name_and_shape_leave_a_doubt_the_error_names_the_option(name, shape):
    with pytest.raises(ValueError, match="name and shape do not tell") as error:
        read(name, shape)
    assert f"`{name}` of shape {shape} may be" in str(error.value)
    proposed = str(error.value).partition("--map '")[2].partition("'")[0]
    assert read(name, shape, map=[proposed])
    assert read(name, shape, map=[proposed.rpartition("=")[0] + "=digital"]) == {}
    assert read(name, shape, exclude=proposed.rpartition("=")[0]) == {}


BESIDE = [
    # a bias tells outputs from layers
    ("dense/kernel", (5, 16, 32), {"dense/bias": (32,)}, "in-out"),
    ("dense/kernel", (6, 32, 64), {"dense/bias": (6, 64)}, "stacked-in-out"),
    ("dense/kernel", (6, 32, 64), {"dense/bias": (32, 64)}, "in-heads-dim"),
    ("features.0.weight", (16, 1, 9), {"features.0.bias": (16,)}, "out-in"),
    ("upscaling.0.weight", (64, 16, 2, 2), {"upscaling.0.bias": (16,)}, "in-out-window"),
    ("upsample.0.weight", (64, 16, 3, 3), {"upsample.0.bias": (64,)}, "out-in"),
    ("main.3.weight", (64, 16, 4, 4), {"main.3.bias": (16,)}, "in-out-window"),
    ("class_embed.weight", (92, 256), {"class_embed.bias": (92,)}, "out-in"),
    (
        "mlp.experts.gate_up_proj", (4, 32, 96),
        {"mlp.experts.gate_up_proj_bias": (4, 96)}, "stacked-in-out",
    ),
    (
        "llm/layers/attn/q_einsum/w", (18, 8, 256, 32),
        {"llm/layers/pre_attention_norm/scale": (18, 256)}, "stacked-heads-in-dim",
    ),
    # square matrices of GPT-2 are as the others of the network
    ("h.0.attn.c_proj.weight", (8, 8), {"h.0.attn.c_attn.weight": (24, 8)}, "out-in"),
    ("h.0.attn.c_proj.weight", (8, 8), {"h.0.attn.c_attn.weight": (8, 24)}, "in-out"),
    # what is scanned shares the number of layers
    ("layers/mlp/kernel", (64, 32, 16), {"layers/norm/scale": (64, 32)}, None),
    ("layers/mlp/kernel", (64, 32, 16), {"layers/mlp/b": (64, 16)}, "stacked-in-out"),
    ("layers/mlp/kernel", (6, 32, 16), {"layers/norm/scale": (32,)}, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "beside", "layout"), BESIDE)
def test_the_rest_of_a_network_helps_to_tell(name, shape, beside, layout):
    if layout is None:
        with pytest.raises(ValueError, match="name and shape do not tell"):
            read(name, shape, beside)
    else:
        assert {layout_of(matrix) for matrix in read(name, shape, beside).values()} == {layout}


def test_a_transposed_convolution_in_groups_is_a_doubt():
    with pytest.raises(ValueError, match="do not tell"):
        read("deconv.weight", (64, 8, 3, 3), {"deconv.bias": (32,)})


def test_a_doubt_is_none_in_tensors_that_are_not_mapped():
    assert read("dense/kernel", (6, 32, 64), exclude="dense") == {}
    assert read("dense/kernel", (6, 32, 64), include="head") == {}


LAYOUTS_OF_RULES = [
    ("out-in", (4, 3, 5), (0,), ()),
    ("in-out", (3, 5, 4), (2,), ()),
    ("in-out-window", (3, 4, 5, 5), (1,), ()),
    ("window-out-in", (5, 5, 4, 3), (2,), ()),
    ("in-heads-dim", (3, 4, 5), (1, 2), ()),
    ("heads-dim-out", (4, 5, 3), (2,), ()),
    ("heads-in-dim", (4, 3, 5), (0, 2), ()),
    ("stacked-out-in", (6, 4, 3), (1,), (0,)),
    ("stacked-in-out", (6, 3, 3, 4), (3,), (0,)),
    ("in-stacked-out", (3, 6, 4), (2,), (1,)),
    ("stacked-in-heads-dim", (6, 3, 4, 5), (2, 3), (0,)),
    ("stacked-stacked-in-out", (6, 2, 3, 4), (3,), (0, 1)),
    ("depthwise", (3, 3, 8, 2), (3,), (2,)),
    ("depthwise", (3, 8, 2), (2,), (1,)),
    ("depthwise", (3, 3, 1, 8), (2,), (3,)),
]


@pytest.mark.parametrize("name", ["any", "tok_embeddings.weight", "x/bias"])
@pytest.mark.parametrize(("layout", "shape", "axes", "stacked"), LAYOUTS_OF_RULES)
def test_a_rule_chooses_and_orients_anything(name, layout, shape, axes, stacked):
    if layout == "depthwise" and name.endswith("weight"):
        name, shape, axes, stacked = "dw.weight", (8, 1, 3, 3), (1,), (0,)
    matrices = read(name, shape, map=[f"^{name}$={layout}"])
    count = int(np.prod([shape[axis] for axis in stacked]))
    assert len(matrices) == count
    assert {(matrix.axes, matrix.stacked) for matrix in matrices.values()} == {(axes, stacked)}
    assert read(name, shape, map=[Rule(f"^{name}$", Reading(axes, stacked))]) == matrices


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("in-heads-dim", (3, 4)),
        ("in-heads-dim", (3, 4, 5, 6)),
        ("heads-dim-out", (3, 4)),
        ("in-out-window", (3, 4)),
        ("stacked-in-out", (3, 4)),
        ("depthwise", (3, 4)),
        ("stacked-out-in-in", (3, 4, 5, 6, 7)),
    ],
)
def test_a_layout_fits_the_number_of_dimensions(layout, shape):
    with pytest.raises(ValueError, match=rf"`map` reads `x` as {layout}.*shape"):
        read("x", shape, map=[f"^x$={layout}"])


def test_the_first_rule_that_matches_wins_before_include_and_exclude():
    rules = ["^a=in-out", "weight=out-in"]
    assert read("a.weight", (4, 3), map=rules)["a.weight"].axes == (1,)
    assert read("a.weight", (4, 3), map=["^a=in-out"], exclude="^a")["a.weight"].axes == (1,)
    assert read("a.weight", (4, 3), map=["^a=in-out"], include="head")["a.weight"].axes == (1,)


@pytest.mark.parametrize("rules", [["nothing=out-in"], [".=in-out", "a=out-in"], ["bias=in-out"]])
def test_a_rule_that_decides_nothing_is_an_error(rules):
    with pytest.raises(ValueError, match="decides about none of 3 tensors"):
        read("a.weight", (4, 3), {"a.bias": (4,)}, map=rules)


STACKED = [
    (Reading((2,), (0,)), (6, 4, 3)),
    (Reading((1,), (0,)), (6, 4, 3)),
    (Reading((2,), (1,)), (4, 6, 3)),
    (Reading((0, 3), (1, 2)), (3, 2, 5, 4, 2)),
    (Reading((3, 1), (4, 0)), (2, 3, 2, 4, 3)),
    (Reading((0,)), (3, 2, 2)),
    (Reading((1, 2)), (3, 2, 2)),
]


@pytest.mark.parametrize(("reading", "shape"), STACKED)
def test_slices_go_out_and_come_back(reading, shape):
    tensor = RNG.standard_normal(shape).astype(np.float32)
    whole = Matrix(shape=shape, axes=reading.axes, stacked=reading.stacked)
    matrices = slices(whole)
    expected = np.moveaxis(tensor, reading.stacked, range(len(reading.stacked)))
    for array in (tensor, jnp.asarray(tensor)):
        parts = []
        for matrix in matrices:
            rows = by_output(array, matrix)
            assert rows.shape == (matrix.outputs, matrix.inputs)
            part = expected[matrix.index]
            np.testing.assert_array_equal(slice_of(array, matrix), part)
            np.testing.assert_array_equal(rows, oracles.matrix(part, matrix.slice_axes))
            parts.append(from_output(rows, matrix))
            np.testing.assert_array_equal(parts[-1], part)
        back = from_slices(parts, whole)
        assert isinstance(back, np.ndarray) == isinstance(array, np.ndarray)
        np.testing.assert_array_equal(back, tensor)


@pytest.mark.parametrize(("reading", "shape"), STACKED)
def test_slices_come_back_under_jit_vmap_and_grad(reading, shape):
    matrices = slices(Matrix(shape=shape, axes=reading.axes, stacked=reading.stacked))

    def there_and_back(tensor):
        parts = [from_output(by_output(tensor, matrix), matrix) for matrix in matrices]
        return from_slices(parts, matrices[0])

    tensors = jnp.asarray(RNG.standard_normal((2, *shape)), jnp.float32)
    np.testing.assert_array_equal(jax.jit(there_and_back)(tensors[0]), tensors[0])
    np.testing.assert_array_equal(jax.vmap(there_and_back)(tensors), tensors)
    gradient = jax.grad(lambda tensor: jnp.sum(there_and_back(tensor) ** 2))(tensors[0])
    np.testing.assert_array_equal(gradient, 2 * tensors[0])


@st.composite
def readings(draw):
    """A shape of 1 to 5 dimensions and a reading of it."""
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=5)))
    axes = draw(st.permutations(range(len(shape))))
    outputs = draw(st.integers(1, len(shape)))
    stacked = draw(st.integers(0, len(shape) - outputs))
    return shape, Reading(tuple(axes[:outputs]), tuple(axes[outputs : outputs + stacked]))


@given(readings())
def test_any_reading_goes_out_and_comes_back(drawn):
    shape, reading = drawn
    tensor = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    selected = select_layers({"x": tensor}, lambda name, leaf: reading)
    matrices = [one.matrix for one in selected.values()]
    assert matrices == slices(matrices[0])
    assert [tensor_name(name, one.matrix) for name, one in selected.items()] == ["x"] * len(
        selected
    )
    parts = [from_output(by_output(tensor, matrix), matrix) for matrix in matrices]
    np.testing.assert_array_equal(from_slices(parts, matrices[0]), tensor)


@given(readings())
def test_the_words_of_a_reading_give_it_back(drawn):
    shape, reading = drawn
    in_order = Reading(tuple(sorted(reading.axes)), tuple(sorted(reading.stacked)))
    words = layout_of(Matrix(shape=shape, axes=in_order.axes, stacked=in_order.stacked))
    assert read_layout(words, "x", shape) == in_order


def test_slices_are_programmed_in_the_order_of_their_indices():
    name = "layers/mlp/kernel"
    selected = select_layers({name: np.ones((12, 16, 4))}, memsim.select_by_name())
    assert list(selected) == [f"{name}[{i}]" for i in range(12)]
    assert matrix_name(name) == name
    assert matrix_name(name, (3, 1)) == f"{name}[3,1]"
    assert {one.tensor for one in selected.values()} == {name}


def test_two_matrices_of_one_name_are_refused():
    tensors = {"layers/kernel": np.ones((2, 3, 4)), "layers/kernel[1]": np.ones((3, 4))}
    with pytest.raises(ValueError, match=r"Two matrices are called `layers/kernel\[1\]`"):
        select_layers(tensors, lambda name, leaf: Reading((leaf.ndim - 1,), (0,) * (leaf.ndim - 2)))


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading((), (0,)), r"output axes \(\) and stacked axes \(0,\)"),
        (Reading((1,), (1,)), r"output axes \(1,\) and stacked axes \(1,\)"),
        (Reading((1,), (2,)), r"stacked axes \(2,\) for `x` of shape \(2, 3\)"),
        (Reading((1,), (-2,)), r"stacked axes \(-2,\)"),
    ],
)
def test_a_reading_of_other_axes_is_refused(reading, message):
    with pytest.raises(ValueError, match=message):
        select_layers({"x": np.ones((2, 3))}, lambda name, leaf: reading)


def test_a_matrix_says_how_it_was_read():
    assert describe(Matrix(shape=(48, 144), axes=(1,))) == "48 inputs x 144 outputs, in-out"
    scan = Matrix(shape=(6, 32, 64), axes=(2,), stacked=(0,), index=(3,))
    assert describe(scan) == "6 x (32 inputs x 64 outputs), stacked-in-out"
    keras = Matrix(shape=(3, 3, 64, 1), axes=(3,), stacked=(2,), index=(0,))
    assert describe(keras) == "64 x (9 inputs x 1 output), in-stacked-out"


def test_every_layout_of_the_table_can_be_given():
    for layout in memsim.selection.LAYOUTS:
        Rule("x", layout)


@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("resnet20_cifar10.safetensors", 20),
        ("deit_tiny_patch16_224.safetensors", 50),
        ("resnet50_stages1to4.safetensors", 44),
    ],
)
def test_trained_networks_are_mapped_as_ever(assets, file, number):
    checkpoint = memsim.open_checkpoint(assets / file)
    selected = select_layers(checkpoint.tensors, memsim.select_by_name())
    names = {name for name, leaf in checkpoint.tensors.items() if leaf.ndim > 1}
    assert set(selected) == {name for name in names if name.endswith("weight")}
    assert len(selected) == number
    assert {(one.matrix.axes, one.matrix.stacked) for one in selected.values()} == {((0,), ())}
