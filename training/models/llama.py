"""Llama; modules are called as in Hugging Face's checkpoints."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

Tokens = Int[Array, "batch tokens"]
Hidden = Float[Array, "batch tokens width"]
Heads = Float[Array, "batch tokens heads features"]


class LlamaSizes(NamedTuple):
    """The sizes of a Llama, and what else its weights do not say.

    Attributes:
      vocabulary: tokens that it knows.
      context: positions that it was trained on.
      width: features of a token.
      depth: number of blocks.
      heads: of the queries of each attention.
      groups: heads of its keys and values, which as many queries share.
      features: of a head.
      inner: width between the layers of an MLP.
      tied: whether the embedding of the tokens projects onto the vocabulary too.
      theta: base of the speeds of rotary positions.
      epsilon: of the norms.
    """

    vocabulary: int
    context: int
    width: int
    depth: int
    heads: int
    groups: int
    features: int
    inner: int
    tied: bool
    theta: float
    epsilon: float


def rotate(heads: Heads, theta: float) -> Heads:
    """Turns pairs of features by an angle that grows with the position (rotary embedding).

    Feature i of the first half goes with feature i of the second, at `theta ** (-2 i / features)`
    radians a position.

    References:
      Su et al., RoFormer, arXiv 2104.09864; halves in place of neighbours, as in Hugging Face's.
    """
    tokens, features = heads.shape[1], heads.shape[3]
    speeds = theta ** (-jnp.arange(0, features, 2, dtype=jnp.float32) / features)
    angles = jnp.arange(tokens, dtype=jnp.float32)[:, None] * speeds[None]
    cosine, sine = (f(angles)[None, :, None] for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(heads, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)


def _norm(sizes: LlamaSizes, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(sizes.width, epsilon=sizes.epsilon, rngs=rngs)


class Attention(nnx.Module):
    """Causal self-attention with rotary positions; several queries share a key and a value."""

    def __init__(self, sizes: LlamaSizes, rngs: nnx.Rngs) -> None:
        self.features, self.theta = sizes.features, sizes.theta
        queries, keys = sizes.heads * sizes.features, sizes.groups * sizes.features
        self.q_proj = _linear(sizes.width, queries, rngs)
        self.k_proj = _linear(sizes.width, keys, rngs)
        self.v_proj = _linear(sizes.width, keys, rngs)
        self.o_proj = _linear(queries, sizes.width, rngs)

    def __call__(self, hidden: Hidden) -> Hidden:
        batch, count, _ = hidden.shape
        query, key, value = (
            projection(hidden).reshape(batch, count, -1, self.features)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(query, self.theta), rotate(key, self.theta)
        # heads of queries that follow each other share a key
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(mixed.reshape(batch, count, -1))


class MLP(nnx.Module):
    """SwiGLU: a gate, by SiLU, times what goes up, and down again.

    References:
      Shazeer, GLU variants improve transformer, arXiv 2002.05202.
    """

    def __init__(self, sizes: LlamaSizes, rngs: nnx.Rngs) -> None:
        self.gate_proj = _linear(sizes.width, sizes.inner, rngs)
        self.up_proj = _linear(sizes.width, sizes.inner, rngs)
        self.down_proj = _linear(sizes.inner, sizes.width, rngs)

    def __call__(self, hidden: Hidden) -> Hidden:
        return self.down_proj(jax.nn.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Block(nnx.Module):
    """Attention and MLP, each behind a root-mean-square norm and added to its input."""

    def __init__(self, sizes: LlamaSizes, rngs: nnx.Rngs) -> None:
        self.input_layernorm = _norm(sizes, rngs)
        self.self_attn = Attention(sizes, rngs)
        self.post_attention_layernorm = _norm(sizes, rngs)
        self.mlp = MLP(sizes, rngs)

    def __call__(self, hidden: Hidden) -> Hidden:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden))
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Decoder(nnx.Module):
    """The embedding, blocks and the last norm: all that a checkpoint calls `model`."""

    def __init__(self, sizes: LlamaSizes, rngs: nnx.Rngs) -> None:
        self.embed_tokens = nnx.Embed(sizes.vocabulary, sizes.width, rngs=rngs)
        self.layers = nnx.List(Block(sizes, rngs) for _ in range(sizes.depth))
        self.norm = _norm(sizes, rngs)

    def __call__(self, tokens: Tokens) -> Hidden:
        hidden = self.embed_tokens(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)


class Llama(nnx.Module):
    """Llama, of any version that does not scale its positions.

    Attributes:
      model: the embedding, blocks, the last norm.
      lm_head: the projection onto the vocabulary; None where it is the embedding of the tokens.

    References:
      Touvron et al., Llama 2, arXiv 2307.09288;
      Ainslie et al., GQA, arXiv 2305.13245.
    """

    def __init__(self, sizes: LlamaSizes, *, rngs: nnx.Rngs) -> None:
        self.model = Decoder(sizes, rngs)
        self.lm_head = None if sizes.tied else _linear(sizes.width, sizes.vocabulary, rngs)

    def __call__(self, tokens: Tokens) -> Float[Array, "batch tokens vocabulary"]:
        """Logits of the token after each."""
        hidden = self.model(tokens)
        if self.lm_head is None:
            return self.model.embed_tokens.attend(hidden)
        return self.lm_head(hidden)
