"""Language models against independent logits, and how their checkpoints are read."""

import json
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import memsim
from memsim.selection import named_leaves, select_layers
from training.models.language import LANGUAGE_MODELS, make_small_gpt, open_language_model
from training.models.llama import rotate

TABLES = ("wte", "wpe", "embed_tokens")


def gpt_shapes(vocabulary, context, width, depth, prefix="transformer."):
    """Names of a GPT-2 checkpoint of Hugging Face; matrices are [in, out]."""
    yield f"{prefix}wte.weight", (vocabulary, width)
    yield f"{prefix}wpe.weight", (context, width)
    for i in range(depth):
        block = f"{prefix}h.{i}"
        for name, shape in (
            ("attn.c_attn", (width, 3 * width)), ("attn.c_proj", (width, width)),
            ("mlp.c_fc", (width, 4 * width)), ("mlp.c_proj", (4 * width, width)),
        ):  # fmt: skip
            yield f"{block}.{name}.weight", shape
            yield f"{block}.{name}.bias", shape[1:]
        for norm in ("ln_1", "ln_2"):
            yield f"{block}.{norm}.weight", (width,)
            yield f"{block}.{norm}.bias", (width,)
    yield f"{prefix}ln_f.weight", (width,)
    yield f"{prefix}ln_f.bias", (width,)


def llama_shapes(vocabulary, width, inner, depth, keys, prefix="model."):
    """Names of a Llama checkpoint of Hugging Face; matrices are [out, in]."""
    yield f"{prefix}embed_tokens.weight", (vocabulary, width)
    for i in range(depth):
        block = f"{prefix}layers.{i}"
        for name, shape in (
            ("self_attn.q_proj", (width, width)), ("self_attn.k_proj", (keys, width)),
            ("self_attn.v_proj", (keys, width)), ("self_attn.o_proj", (width, width)),
            ("mlp.gate_proj", (inner, width)), ("mlp.up_proj", (inner, width)),
            ("mlp.down_proj", (width, inner)), ("input_layernorm", (width,)),
            ("post_attention_layernorm", (width,)),
        ):  # fmt: skip
            yield f"{block}.{name}.weight", shape
    yield f"{prefix}norm.weight", (width,)
    yield "lm_head.weight", (vocabulary, width)


def seeded(shapes):
    """A checkpoint made up from the names of its tensors, as those of the reference logits were."""

    def tensor(name, shape):
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if any(table in name for table in TABLES) or name.endswith("bias"):
            return 0.02 * rng.standard_normal(shape)
        if len(shape) == 1:
            return rng.uniform(0.8, 1.2, shape)
        return rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))

    return {name: tensor(name, shape).astype(np.float32) for name, shape in shapes}


SMALL_GPT, SMALL_LLAMA = (512, 128, 96, 3), (512, 96, 256, 3, 32)
GPT_CONFIG = {"model_type": "gpt2", "n_head": 4}
LLAMA_CONFIG = {
    "model_type": "llama", "num_attention_heads": 6, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128, "hidden_act": "silu",
}  # fmt: skip
SMALL = {
    "gpt2": (lambda: seeded(gpt_shapes(*SMALL_GPT)), GPT_CONFIG),
    "llama": (lambda: seeded(llama_shapes(*SMALL_LLAMA)), LLAMA_CONFIG),
}


@pytest.fixture
def save(tmp_path):
    """`(tensors, config) -> path` of a checkpoint with its configuration beside it."""

    def save(tensors, config=None, name="model.safetensors"):
        memsim.save_tensors(tmp_path / name, tensors, force=True)
        (tmp_path / "config.json").unlink(missing_ok=True)
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path / name

    return save


def tokens(vocabulary, shape=(2, 64)):
    return np.random.default_rng(0).integers(0, vocabulary, shape).astype(np.int32)


def furthest(logits, reference):
    """Largest difference, in standard deviations of the reference."""
    return np.abs(np.asarray(logits) - reference).max() / reference.std()


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_logits_of_small_seeded_models_are_those_of_transformers(model, save, language_logits):
    tensors, config = SMALL[model][0](), SMALL[model][1]
    network = open_language_model(model, save(tensors, config))
    logits = jax.jit(network.apply)(network.tensors, tokens(512))
    named = {"gpt2": "gpt2_small", "llama": "llama_small"}[model]
    assert furthest(logits, language_logits[f"seeded/hf/{named}"]) < 1e-4
    assert (network.vocabulary, network.context) == (512, 128)


@pytest.mark.slow
def test_logits_of_gpt2_are_those_of_transformers(save, language_logits):
    tensors = seeded(gpt_shapes(50257, 1024, 768, 12))
    network = open_language_model("gpt2", save(tensors))  # a public size: no config.json
    logits = jax.jit(lambda *given: network.apply(*given)[:, -4:])(network.tensors, tokens(50257))
    assert furthest(logits, language_logits["seeded/hf/gpt2"]) < 1e-4
    plan = memsim.plan(network.tensors, memsim.CrossbarConfig(), memsim.policies.Unsorted())
    assert len(plan.layers) == 48


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_later_tokens_do_not_change_earlier_logits(model, save):
    network = open_language_model(model, save(SMALL[model][0](), SMALL[model][1]))
    apply = jax.jit(network.apply)
    first = tokens(512, (1, 16))
    other = first.copy()
    other[:, 9:] = (other[:, 9:] + 1) % 512
    one, two = (np.asarray(apply(network.tensors, given)) for given in (first, other))
    np.testing.assert_array_equal(one[:, :9], two[:, :9])
    assert np.all(np.any(one[:, 9:] != two[:, 9:], axis=-1))
    # and earlier ones change all that follow
    other = first.copy()
    other[:, 0] = (other[:, 0] + 1) % 512
    moved = np.asarray(apply(network.tensors, other))
    assert np.all(np.any(one != moved, axis=-1))


def test_queries_that_share_a_key_are_those_of_copied_keys(save):
    few = SMALL["llama"][0]()
    many = dict(few)
    for name, tensor in few.items():
        if "k_proj" in name or "v_proj" in name:  # 2 heads of 16 features to 6, each for three
            heads = tensor.reshape(2, 16, 96)
            many[name] = np.repeat(heads, 3, axis=0).reshape(96, 96)
    grouped, plain = (
        open_language_model("llama", save(given, LLAMA_CONFIG)) for given in (few, many)
    )
    given = tokens(512, (2, 12))
    np.testing.assert_allclose(
        grouped.apply(few, given), plain.apply(many, given), rtol=0, atol=2e-5
    )


def test_rotated_heads_tell_distances_alone(key):
    query, other = jax.random.normal(key, (2, 1, 1, 1, 8))
    at = [rotate(jnp.repeat(x, 12, axis=1), 100.0)[0, :, 0] for x in (query, other)]
    products = np.asarray(at[0] @ at[1].T)
    for distance in range(-11, 12):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
    np.testing.assert_allclose(at[0][0], query[0, 0, 0])  # the first stays as it is


WHERE = {
    "gpt2": {
        "attn.c_attn": (96, 288), "attn.c_proj": (96, 96), "mlp.c_fc": (96, 384),
        "mlp.c_proj": (384, 96),
    },
    "llama": {
        "self_attn.q_proj": (96, 96), "self_attn.k_proj": (96, 32), "self_attn.v_proj": (96, 32),
        "self_attn.o_proj": (96, 96), "mlp.gate_proj": (96, 256), "mlp.up_proj": (96, 256),
        "mlp.down_proj": (256, 96), "lm_head": (96, 512),
    },
}  # fmt: skip


@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize("prefixed", [True, False])
def test_every_projection_is_mapped_and_nothing_else(model, prefixed, save):
    """Inputs and outputs of each, as the model uses it: GPT-2 stores [in, out], Llama [out, in]."""
    tensors = SMALL[model][0]()
    if not prefixed:
        tensors = {
            name.removeprefix("transformer.").removeprefix("model."): tensor
            for name, tensor in tensors.items()
        }
    # masks that older files store
    extra = {"h.0.attn.bias": np.ones((1, 1, 128, 128), np.float32)} if model == "gpt2" else {}
    network = open_language_model(model, save(tensors | extra, SMALL[model][1]))
    assert set(network.tensors) == set(tensors)
    selected = select_layers(tensors | extra, memsim.select_by_name())
    found = {}
    for name, layer in selected.items():
        assert name.count(".") > 1 or name == "lm_head.weight"
        where = name.removesuffix(".weight").split(".")[-2:] if "." in name[8:] else [name]
        where = "lm_head" if name == "lm_head.weight" else ".".join(where)
        found.setdefault(where, []).append((layer.matrix.inputs, layer.matrix.outputs))
    assert {name: set(sizes) for name, sizes in found.items()} == {
        name: {sizes} for name, sizes in WHERE[model].items()
    }
    assert sum(map(len, found.values())) == 3 * 4 if model == "gpt2" else 3 * 7 + 1
    logits = network.apply(network.tensors, tokens(512, (1, 4)))
    assert logits.shape == (1, 4, 512)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_head_of_its_own_or_that_of_the_embedding(model, save):
    tensors, config = SMALL[model][0](), SMALL[model][1]
    table = "transformer.wte.weight" if model == "gpt2" else "model.embed_tokens.weight"
    tied = {name: x for name, x in tensors.items() if name != "lm_head.weight"}
    own = tied | {"lm_head.weight": tensors[table]}
    given = tokens(512, (1, 6))
    logits = []
    for some in (tied, own):
        network = open_language_model(model, save(some, config))
        logits.append(network.apply(network.tensors, given))
        mapped = select_layers(network.tensors, memsim.select_by_name())
        assert table not in mapped
        assert ("lm_head.weight" in mapped) == (some is own)
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_bfloat16_weights_load_as_they_are(model, save):
    tensors, config = SMALL[model][0](), SMALL[model][1]
    halved = {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}
    network = open_language_model(model, save(halved, config))
    assert all(x.dtype == ml_dtypes.bfloat16 for x in network.tensors.values())
    rounded = {name: x.astype(np.float32) for name, x in halved.items()}
    given = tokens(512, (1, 8))
    logits = network.apply(network.tensors, given)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, network.apply(rounded, given))


C_FC = "transformer.h.1.mlp.c_fc.weight"


@pytest.mark.parametrize(
    ("model", "change", "config", "message"),
    [
        ("gpt2", {}, None, "width is 96 and that of gpt2 768, so that nothing tells the number"),
        ("gpt2-xl", {}, None, "that of gpt2-xl 1600"),
        ("gpt2", {C_FC: None}, GPT_CONFIG, rf"missing: {C_FC} \(96, 384\)"),
        ("gpt2", {C_FC: np.ones((384, 96), np.float32)}, GPT_CONFIG,
         rf"misshapen: {C_FC} \(384, 96\) instead of \(96, 384\)"),
        ("gpt2", {"transformer.x.bias": np.ones(3, np.float32)}, GPT_CONFIG,
         r"unknown: transformer.x.bias \(3,\)"),
        ("gpt2", {"transformer.wpe.weight": None}, GPT_CONFIG, "no matrix `transformer.wpe.weigh"),
        ("gpt2", {}, GPT_CONFIG | {"n_head": 5}, "`n_head` of its config.json is 5, which does no"),
        ("gpt2", {}, GPT_CONFIG | {"n_head": "4"}, "`n_head` of its config.json is '4'; give"),
        ("gpt2", {}, GPT_CONFIG | {"activation_function": "relu"}, "is 'relu'; there is 'gelu_new"),
        ("gpt2", {}, LLAMA_CONFIG, "`model_type` of its config.json is 'llama'; there is 'gpt2'"),
        ("gpt2", {}, [4], "config.json` is no configuration"),
        ("llama", {}, None, "nothing tells its number of heads and how positions turn"),
        ("llama", {}, LLAMA_CONFIG | {"rope_scaling": {"rope_type": "llama3"}}, "'llama3'; there"),
        ("llama", {}, LLAMA_CONFIG | {"num_attention_heads": 2}, "is 48, which does not divide 32"),
        ("llama", {"model.layers.2.mlp.up_proj.weight": None}, LLAMA_CONFIG, "missing: model.laye"),
    ],
)  # fmt: skip
def test_checkpoints_that_do_not_fit_say_why(model, change, config, message, save):
    tensors = SMALL["llama" if model == "llama" else "gpt2"][0]() | change
    tensors = {name: x for name, x in tensors.items() if x is not None}
    with pytest.raises(ValueError, match=message):
        open_language_model(model, save(tensors, config))


def test_unknown_models_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"choose one of {', '.join(LANGUAGE_MODELS)}"):
        open_language_model("gpt3", "x.safetensors")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        open_language_model("gpt2", tmp_path / "x.safetensors")


def test_the_small_gpt_is_saved_and_read_by_its_names(save):
    network = make_small_gpt(0)
    again = open_language_model("gpt-small", save(network.tensors))
    assert again.vocabulary == 256
    given = tokens(256, (1, 8))
    np.testing.assert_array_equal(
        network.apply(network.tensors, given), again.apply(again.tensors, given)
    )
    assert list(named_leaves(again.tensors)) == list(named_leaves(network.tensors))


def test_a_language_model_is_differentiable_and_programmed_inside_jit(save, key):
    network = open_language_model("gpt2", save(SMALL["gpt2"][0](), GPT_CONFIG))
    config = memsim.CrossbarConfig(rows=32)
    plan = memsim.plan(network.tensors, config, memsim.policies.Unsorted())
    chip = memsim.sample_chip(key, plan)
    given = tokens(512, (1, 4))

    @jax.jit
    @jax.grad
    def gradient(tensors):
        held, _ = memsim.program(tensors, plan, chip)
        return network.apply(held, given).std()

    slopes = gradient(network.tensors)
    assert all(np.any(np.asarray(slopes[name])) for name in plan.layers)
