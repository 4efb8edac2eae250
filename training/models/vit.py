"""Vision transformers (ViT, DeiT); modules are called as in timm's checkpoints."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Tokens = Float[Array, "batch tokens width"]


class PatchEmbed(nnx.Module):
    """Cuts images into patches and maps each to a token."""

    def __init__(self, patch: int, width: int, rngs: nnx.Rngs) -> None:
        self.proj = nnx.Conv(3, width, (patch, patch), strides=patch, padding="VALID", rngs=rngs)

    def __call__(self, images: Float[Array, "batch height width 3"]) -> Tokens:
        hidden = self.proj(images)
        return hidden.reshape(hidden.shape[0], -1, hidden.shape[-1])


class Attention(nnx.Module):
    """Multi-head self-attention; query, key and value are one projection."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, tokens: Tokens) -> Tokens:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = (qkv[:, :, i] for i in range(3))
        mixed = jax.nn.dot_product_attention(query, key, value)
        return self.proj(mixed.reshape(batch, count, width))


class MLP(nnx.Module):
    """Two dense layers, four times as wide between them."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.fc2 = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, tokens: Tokens) -> Tokens:
        return self.fc2(jax.nn.gelu(self.fc1(tokens), approximate=False))


class Block(nnx.Module):
    """Attention and MLP, each behind a layer norm and added to its input."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.attn = Attention(width, heads, rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.mlp = MLP(width, rngs)

    def __call__(self, tokens: Tokens) -> Tokens:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class VisionTransformer(nnx.Module):
    """ViT and DeiT (the same network, trained otherwise) for images of 224x224.

    Attributes:
      cls_token, pos_embed: the class token and the position of every token.
      blocks: the transformer.
      head: the classifier, on the class token.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv 2010.11929;
      Touvron et al., Training data-efficient image transformers, arXiv 2012.12877.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        depth: int = 12,
        patch: int = 16,
        size: int = 224,
        classes: int = 1000,
    ) -> None:
        def embedding(tokens: int) -> nnx.Param:
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, tokens, width)))

        self.patch_embed = PatchEmbed(patch, width, rngs)
        self.cls_token = embedding(1)
        self.pos_embed = embedding((size // patch) ** 2 + 1)
        self.blocks = nnx.List(Block(width, heads, rngs) for _ in range(depth))
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images: Float[Array, "batch size size 3"]) -> Float[Array, "batch classes"]:
        """Logits."""
        patches = self.patch_embed(images)
        first = jnp.broadcast_to(self.cls_token[...], (patches.shape[0], 1, patches.shape[2]))
        tokens = jnp.concatenate([first, patches], axis=1) + self.pos_embed[...]
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])
