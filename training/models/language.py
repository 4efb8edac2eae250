"""Language models: public checkpoints of GPT-2 and Llama, and a small GPT to train on the spot.

    network = open_language_model("gpt2", "openai-community/gpt2")
    held, programming = memsim.program(network.tensors, plan, chip)
    logits = network.apply(held, tokens)

Tensors keep the names, layouts and dtypes of the checkpoint, so that what is programmed and counted
is what `memsim report` counts in the same file.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from memsim.selection import named_leaves
from training.models.gpt import GPT, GPTSizes
from training.models.llama import Llama, LlamaSizes
from training.models.loading import fetch, put_tensors, read_tensors, torch_name

# The GPT that is trained on the spot, on bytes.
SMALL = GPTSizes(vocabulary=256, context=64, width=64, depth=3, heads=4, inner=256)
# Width and heads of the public ones, and of the small one.
_GPTS = {
    "gpt2": (768, 12),
    "gpt2-medium": (1024, 16),
    "gpt2-large": (1280, 20),
    "gpt2-xl": (1600, 25),
    "gpt-small": (SMALL.width, SMALL.heads),
}
LANGUAGE_MODELS = (*_GPTS, "llama")
TOKENIZER = "tokenizer.json"

# of GPT-2, which stores them [in, out]
_CONV1D = r"\.(c_attn|c_proj|c_fc)\.weight$"
# masks and angles, which older files store
_NO_WEIGHTS = r"\.attn\.(masked_)?bias$|rotary_emb\.inv_freq$"


class LanguageModel(NamedTuple):
    """A language model and its weights.

    Attributes:
      tensors: by the names of its checkpoint.
      apply: `(tensors, tokens) -> logits` of the token after each, tokens int [batch, tokens].
      vocabulary: tokens that it knows, the number of logits.
      context: tokens that it takes at once, at most.
      tokenizer: file of its tokenizer; None where there is none beside the weights.
    """

    tensors: dict[str, np.ndarray]
    apply: Callable[[Mapping[str, Any], Array], Array]
    vocabulary: int
    context: int
    tokenizer: Path | None = None


def open_language_model(model: str, weights: str | Path) -> LanguageModel:
    """Loads a trained language model.

    Args:
      model: one of `LANGUAGE_MODELS`.
      weights: a `.safetensors` (or its `.index.json`) or `.npz` file, or the id of a repository on
        the Hugging Face hub; names are those of Hugging Face, with `transformer.` or `model.` or
        without. Sizes are those of the tensors; what these do not say is in the `config.json`
        beside them, which only the public sizes of GPT-2 and the small one do without.

    Raises:
      ValueError: an unknown model; a size that nothing tells; tensors missing, unknown or of
        another shape.
      FileNotFoundError: there is no such file, and the hub did not give one.

    Example:
      network = open_language_model("gpt-small", "runs/gpt-small.safetensors")
      logits = network.apply(network.tensors, tokens)  # [batch, tokens, 256]
    """
    if model not in LANGUAGE_MODELS:
        raise ValueError(f"`model` is {model!r}; choose one of {', '.join(LANGUAGE_MODELS)}.")
    path = fetch(weights, beside=("config.json", TOKENIZER))
    tensors = read_tensors(path)
    tensors = {name: x for name, x in tensors.items() if not re.search(_NO_WEIGHTS, name)}
    config = _read_config(path.parent / "config.json")
    given = {_full_name(model, name): tensor.shape for name, tensor in tensors.items()}
    try:
        network = _assemble(model, tensors, _sizes(model, given, config))
        tokens = jax.ShapeDtypeStruct((1, 2), np.int32)
        jax.eval_shape(network.apply, tensors, tokens)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`weights` {weights} does not fit {model}: {error}") from error
    tokenizer = path.parent / TOKENIZER
    return network._replace(tokenizer=tokenizer if tokenizer.is_file() else None)


def make_small_gpt(seed: int, sizes: GPTSizes = SMALL) -> LanguageModel:
    """Makes a GPT that has learned nothing yet, with the names of a GPT-2 checkpoint.

    Args:
      seed: of its weights.
      sizes: those of `gpt-small`.
    """
    state = nnx.state(GPT(sizes, rngs=nnx.Rngs(seed)))
    tensors = {torch_name(name): leaf for name, leaf in named_leaves(state).items()}
    return _assemble("gpt-small", tensors, sizes)


def _assemble(
    model: str, tensors: dict[str, np.ndarray], sizes: GPTSizes | LlamaSizes
) -> LanguageModel:
    make: Callable[..., nnx.Module] = Llama if isinstance(sizes, LlamaSizes) else GPT
    graph, state = nnx.split(nnx.eval_shape(lambda: make(sizes, rngs=nnx.Rngs(0))))

    def apply(tensors: Mapping[str, Any], tokens: Array) -> Array:
        given = {_full_name(model, name): tensor for name, tensor in tensors.items()}
        return put_tensors(graph, state, given, in_out=_CONV1D)(tokens)

    return LanguageModel(tensors, apply, sizes.vocabulary, sizes.context)


def _full_name(model: str, name: str) -> str:
    """Gives `transformer.wte.weight` for `wte.weight`."""
    prefix = "model." if model == "llama" else "transformer."
    return name if name.startswith((prefix, "lm_head.")) else prefix + name


def _read_config(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"a {type(config).__name__}")
    except ValueError as error:
        raise ValueError(
            f"`{path}` is no configuration as Hugging Face's config.json is ({error}); mend it, or "
            "move the weights to a folder of their own."
        ) from error
    return config


def _sizes(
    model: str, shapes: Mapping[str, tuple[int, ...]], config: dict[str, Any] | None
) -> GPTSizes | LlamaSizes:
    read = _llama_sizes if model == "llama" else _gpt_sizes
    return read(model, shapes, config)


def _gpt_sizes(
    model: str, shapes: Mapping[str, tuple[int, ...]], config: dict[str, Any] | None
) -> GPTSizes:
    vocabulary, width = _matrix(shapes, "transformer.wte.weight")
    known, heads = _GPTS[model]
    if config is None and width != known:
        raise ValueError(
            f"its width is {width} and that of {model} {known}, so that nothing tells the number "
            "of heads; put the config.json of its repository beside it."
        )
    config = config or {"n_head": heads}
    _check_config(config, "model_type", ("gpt2",))
    _check_config(config, "activation_function", ("gelu_new",))
    for option in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
        _check_config(config, option, (False,))
    heads = _number(config, "n_head", int)
    _check_divides("n_head", heads, width)
    return GPTSizes(
        vocabulary=vocabulary,
        context=_matrix(shapes, "transformer.wpe.weight")[0],
        width=width,
        depth=_depth(shapes, r"transformer\.h\.(\d+)\."),
        heads=heads,
        inner=_matrix(shapes, "transformer.h.0.mlp.c_fc.weight")[1],
        tied="lm_head.weight" not in shapes,
        epsilon=_number(config, "layer_norm_epsilon", float, 1e-5),
    )


def _llama_sizes(
    model: str, shapes: Mapping[str, tuple[int, ...]], config: dict[str, Any] | None
) -> LlamaSizes:
    if config is None:
        raise ValueError(
            "nothing tells its number of heads and how positions turn; put the config.json of its "
            "repository beside it."
        )
    _check_config(config, "model_type", ("llama",))
    _check_config(config, "hidden_act", ("silu",))
    turning = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for option in ("rope_type", "type"):
        _check_config(turning, option, ("default",))
    vocabulary, width = _matrix(shapes, "model.embed_tokens.weight")
    block = "model.layers.0"
    queries, keys = (_matrix(shapes, f"{block}.self_attn.{x}_proj.weight")[0] for x in "qk")
    heads = _number(config, "num_attention_heads", int)
    _check_divides("num_attention_heads", heads, queries)
    features = queries // heads
    _check_divides("head_dim", features, keys)
    return LlamaSizes(
        vocabulary=vocabulary,
        context=_number(config, "max_position_embeddings", int, 2048),
        width=width,
        depth=_depth(shapes, r"model\.layers\.(\d+)\."),
        heads=heads,
        groups=keys // features,
        features=features,
        inner=_matrix(shapes, f"{block}.mlp.gate_proj.weight")[0],
        tied="lm_head.weight" not in shapes,
        theta=_number(config | turning, "rope_theta", float, 10000.0),
        epsilon=_number(config, "rms_norm_eps", float, 1e-6),
    )


def _matrix(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, int]:
    if name not in shapes or len(shapes[name]) != 2:
        raise ValueError(f"it has no matrix `{name}`; give a checkpoint of this model.")
    first, second = shapes[name]
    return first, second


def _depth(shapes: Mapping[str, tuple[int, ...]], block: str) -> int:
    numbers = [int(found.group(1)) for name in shapes if (found := re.match(block, name))]
    return 1 + max(numbers, default=-1)


def _number(
    config: Mapping[str, Any], name: str, kind: type[Any], default: float | None = None
) -> Any:
    value = config.get(name, default)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole or (kind is float and isinstance(value, float))) or not value > 0:
        raise ValueError(
            f"`{name}` of its config.json is {value!r}; give the number that the model was trained "
            "with."
        )
    return kind(value)


def _check_config(config: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> None:
    """Checks an option that changes what a model computes; without it, it is as usual."""
    if config.get(name, known[0]) not in known:
        choices = " or ".join(map(repr, known))
        raise ValueError(f"`{name}` of its config.json is {config[name]!r}; there is {choices}.")


def _check_divides(name: str, number: int, width: int) -> None:
    if width % number:
        raise ValueError(f"`{name}` of its config.json is {number}, which does not divide {width}.")
