"""GPT-2; modules are called as in Hugging Face's checkpoints, and kernels are stored as there."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

Tokens = Int[Array, "batch tokens"]
Hidden = Float[Array, "batch tokens width"]


class GPTSizes(NamedTuple):
    """The sizes of a GPT-2, and what else its weights do not say.

    Attributes:
      vocabulary: tokens that it knows.
      context: positions that it knows.
      width: features of a token.
      depth: number of blocks.
      heads: of each attention.
      inner: width between the two layers of an MLP.
      tied: whether the embedding of the tokens projects onto the vocabulary too.
      epsilon: of the layer norms.
    """

    vocabulary: int
    context: int
    width: int
    depth: int
    heads: int
    inner: int
    tied: bool = True
    epsilon: float = 1e-5


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs, blocks: float = 0.5) -> nnx.Linear:
    deviation = (2 * blocks * inputs) ** -0.5
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(deviation), rngs=rngs)


def _embedding(number: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
    start = nnx.initializers.normal(width**-0.5)
    return nnx.Embed(number, width, embedding_init=start, rngs=rngs)


class Attention(nnx.Module):
    """Causal multi-head self-attention; query, key and value are one projection."""

    def __init__(self, sizes: GPTSizes, rngs: nnx.Rngs) -> None:
        self.heads = sizes.heads
        self.c_attn = _linear(sizes.width, 3 * sizes.width, rngs)
        # what blocks add up grows with their number
        self.c_proj = _linear(sizes.width, sizes.width, rngs, blocks=sizes.depth)

    def __call__(self, hidden: Hidden) -> Hidden:
        batch, count, width = hidden.shape
        qkv = self.c_attn(hidden).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = (qkv[:, :, i] for i in range(3))
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(mixed.reshape(batch, count, width))


class MLP(nnx.Module):
    """Two dense layers with the tanh form of GELU between them."""

    def __init__(self, sizes: GPTSizes, rngs: nnx.Rngs) -> None:
        self.c_fc = _linear(sizes.width, sizes.inner, rngs)
        self.c_proj = _linear(sizes.inner, sizes.width, rngs, blocks=sizes.depth)

    def __call__(self, hidden: Hidden) -> Hidden:
        return self.c_proj(jax.nn.gelu(self.c_fc(hidden), approximate=True))


class Block(nnx.Module):
    """Attention and MLP, each behind a layer norm and added to its input."""

    def __init__(self, sizes: GPTSizes, rngs: nnx.Rngs) -> None:
        self.ln_1 = nnx.LayerNorm(sizes.width, epsilon=sizes.epsilon, rngs=rngs)
        self.attn = Attention(sizes, rngs)
        self.ln_2 = nnx.LayerNorm(sizes.width, epsilon=sizes.epsilon, rngs=rngs)
        self.mlp = MLP(sizes, rngs)

    def __call__(self, hidden: Hidden) -> Hidden:
        hidden = hidden + self.attn(self.ln_1(hidden))
        return hidden + self.mlp(self.ln_2(hidden))


class Decoder(nnx.Module):
    """Embeddings, blocks and the last norm: all that a checkpoint calls `transformer`."""

    def __init__(self, sizes: GPTSizes, rngs: nnx.Rngs) -> None:
        self.wte = _embedding(sizes.vocabulary, sizes.width, rngs)
        self.wpe = _embedding(sizes.context, sizes.width, rngs)
        self.h = nnx.List(Block(sizes, rngs) for _ in range(sizes.depth))
        self.ln_f = nnx.LayerNorm(sizes.width, epsilon=sizes.epsilon, rngs=rngs)

    def __call__(self, tokens: Tokens) -> Hidden:
        hidden = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1]))[None]
        for block in self.h:
            hidden = block(hidden)
        return self.ln_f(hidden)


class GPT(nnx.Module):
    """GPT-2.

    Attributes:
      transformer: embeddings, blocks, the last norm.
      lm_head: the projection onto the vocabulary; None where it is the embedding of the tokens.

    References:
      Radford et al., Language models are unsupervised multitask learners, 2019.
    """

    def __init__(self, sizes: GPTSizes, *, rngs: nnx.Rngs) -> None:
        self.transformer = Decoder(sizes, rngs)
        head = None
        if not sizes.tied:
            head = nnx.Linear(sizes.width, sizes.vocabulary, use_bias=False, rngs=rngs)
        self.lm_head = head

    def __call__(self, tokens: Tokens) -> Float[Array, "batch tokens vocabulary"]:
        """Logits of the token after each."""
        hidden = self.transformer(tokens)
        if self.lm_head is None:
            return self.transformer.wte.attend(hidden)
        return self.lm_head(hidden)
