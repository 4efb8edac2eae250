"""Tensors that are called weights and are none: embedding tables, norms, tables of biases."""

import re

from memsim.selection._tensors import Tensor

__all__ = ["is_table"]

# wherever in the name, of any tensor
_DIGITAL = re.compile(
    r"(?i)(pos(ition)?(al)?_?emb|embed_positions|cls_token|\bwte\b|\bwpe\b|embed_tokens"
    r"|word_embeddings|token_type_embeddings|embedding$)"
)
_NORM = re.compile(
    r"(?i)(layer|batch|group|instance|rms)_?norm|(^|_)norm(s|alization)?_?\d*(_[a-z]+)?$|norm\d*$"
    r"|^ln(_|\d|$)|^bn_?\d*$|^gn_?\d*$"
)
_LAYER = re.compile(r"(?i)(proj|projs|projection|project|linear|dense|fc|mlp|conv\w*|in|out)\d*$")
_EMBEDDING = re.compile(r"(?:(?<![a-z])emb|Emb)(d|s|ed|eds|edder)?(?![a-z])|[Ee]mbedding|EMB")
_KNOWN = re.compile(
    r"(?i)^(shared|lut|pe|lookup(_table)?|embed_?in|codebook\w*|(\w+_)?bias(_table)?"
    r"|pos(ition(al)?)?_?enc\w*|rotary\w*)$"
)
# what is embedded by a table; other things may be by a linear layer of such a name
_INDICES = re.compile(
    r"(?i)^(.*_)?(tok|token|word|wordpiece|char|byte|sub_?word|vocab|text|item|user|node|entity|seg"
    r"|segment|type|pos|position(_ids)?|positional|query|row|col|level|rel|relative|distance"
    r"|lang|language|speaker|src|tgt|source|target|input|movie|product)s?_?emb\w*$"
    r"|^emb(d|s|ed|eds|edding|eddings|edder)?(_?table|_?layer)?_?\d*$"
    r"|^emb(ed)?_(tok|pos|row|col|item|user|word|char)\w*$"
    r"|^embedding_(user|item|word|token)\w*$"
)


def is_table(tensor: Tensor) -> bool | None:
    """Tells whether a tensor stays digital although its name is that of a weight.

    Returns:
      None where its name may be that of a table and of a linear layer.
    """
    module, matrix = tensor.module, len(tensor.shape) == 2
    if _DIGITAL.search(tensor.name):
        return True
    if tensor.role != "weight":  # tables of other libraries are not called weight or kernel
        return False
    if _NORM.search(module) and not (_LAYER.search(module) or "conv" in module.lower()):
        return True
    # a table has no bias; it has two dimensions
    if not matrix or tensor.bias_shape is not None:
        return False
    # tables of which the path tells
    if any(re.match(r"(?i)embedding_?bags?|word_emb$", part) for part in tensor.path):
        return True
    # tables of which the module tells
    if _KNOWN.match(module) and not tensor.numbered:
        return True
    if not _EMBEDDING.search(module) or "patch" in module.lower():
        return False
    if _LAYER.search(module):  # `embed_out`, `time_emb_proj`
        return False
    # numbered: tables in a list, or the layers of a small network that embeds
    if tensor.numbered:
        if re.match(r"(?i)time(step)?_emb", module):
            return False
        return True if re.match(r"(?i)^(emb_l|emb\w*s|\w*embeddings)$", module) else None
    return True if _INDICES.match(module) else None
