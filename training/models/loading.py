"""Files of trained weights: found or fetched, read, and put into models by the names of tensors."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from jaxtyping import Array, PyTree

import memsim
from memsim.files.checkpoints import KINDS
from memsim.selection import leaf_name, named_leaves

_NONE = r"(?!)"  # found nowhere
_KINDS = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def fetch(weights: str | Path, beside: Sequence[str] = ("config.json",)) -> Path:
    """Finds the file of these weights: itself, or fetched from the Hugging Face hub (and kept
    there).

    Args:
      weights: a file, or the id of a repository.
      beside: other files that the repository may have; they land beside it.

    Raises:
      FileNotFoundError: the hub did not give it.
    """
    path, repository = Path(weights), str(weights)
    named_file = path.suffix in (*KINDS, ".json")
    if path.exists() or named_file or not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        return path
    try:
        found = _download_weights(repository)
        for name in beside:
            _download(repository, name)
    except OSError as error:  # every error of the hub is one
        wanted = " and ".join(["model.safetensors", *beside])
        raise FileNotFoundError(
            f"`weights` {repository} is no file, and the Hugging Face hub did not give its "
            f"{wanted} ({error}). Without a network, fetch "
            f"https://huggingface.co/{repository}/resolve/main/model.safetensors and "
            f"{' and '.join(beside)} elsewhere, into one folder, and pass the path of the first."
        ) from error
    return found


def _download_weights(repository: str) -> Path:
    """Fetches the tensors, which large networks keep in several files behind an index."""
    index = "model.safetensors.index.json"
    try:
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
    except EntryNotFoundError as error:
        found = None if isinstance(error, LocalEntryNotFoundError) else _download(repository, index)
        if found is None:
            raise
    try:
        names = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`weights` {repository} has a {index} that is no index of shards ({error!r}); fetch "
            "its files and give the path of one."
        ) from error
    for name in names:
        huggingface_hub.hf_hub_download(repository, name)
    return found


def _download(repository: str, name: str) -> Path | None:
    """Fetches a file that a repository may have; None where it has none."""
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # no answer is not "there is none"
            raise
        return None


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a checkpoint, in their own dtypes.

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it cannot be read.
    """
    checkpoint = memsim.open_checkpoint(path)
    return {name: np.asarray(checkpoint.load(name)) for name in checkpoint.tensors}


def put_tensors(
    graph: nnx.GraphDef,
    state: PyTree,
    given: Mapping[str, Any],
    *,
    in_out: str = _NONE,
    optional: str = "num_batches_tracked$",
) -> nnx.Module:
    """Builds a model with the tensors of a checkpoint, in float32; under `jit` and `grad` too.

    Args:
      graph, state: of the model, as `nnx.split` gives them; no value of `state` is used.
      given: tensors by the names of the model's modules.
      in_out: regular expression of weights that are stored [in, out]; others are [out, in, ...].
      optional: regular expression of tensors that a checkpoint may hold and no model needs.

    Raises:
      ValueError: tensors missing, unknown or of another shape.
    """
    _check_fit(given, torch_shapes(state, in_out), optional)

    def convert(path: tuple[Any, ...], _: Any) -> Array:
        name = leaf_name(path)
        tensor = jnp.asarray(given[torch_name(name)]).astype(jnp.float32)
        # torch weights are [out, in, ...], Flax kernels [..., in, out]
        turned = _is_turned(name, in_out)
        return tensor.transpose(*range(2, tensor.ndim), 1, 0) if turned else tensor

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(convert, state))


def torch_shapes(state: PyTree, in_out: str = _NONE) -> dict[str, tuple[int, ...]]:
    """Lists names and shapes of the tensors that a checkpoint holds for a model with this NNX
    state.

    Args:
      in_out: see `put_tensors`.
    """
    return {
        torch_name(name): (leaf.shape[-1], leaf.shape[-2], *leaf.shape[:-2])
        if _is_turned(name, in_out)
        else leaf.shape
        for name, leaf in named_leaves(state).items()
    }


def _is_turned(name: str, in_out: str) -> bool:
    return name.endswith("kernel") and not re.search(in_out, torch_name(name))


def torch_name(name: str) -> str:
    """Gives `layer1.0.conv1.weight` for `layer1/0/conv1/kernel`."""
    *modules, leaf = name.split("/")
    return ".".join([*modules, _KINDS.get(leaf, leaf)])


def _check_fit(
    given: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]], optional: str
) -> None:
    missing = [f"{name} {shape}" for name, shape in wanted.items() if name not in given]
    unknown = [
        f"{name} {tensor.shape}"
        for name, tensor in given.items()
        if name not in wanted and not re.search(optional, name)
    ]
    misshapen = [
        f"{name} {given[name].shape} instead of {shape}"
        for name, shape in wanted.items()
        if name in given and given[name].shape != shape
    ]
    problems = {"missing": missing, "unknown": unknown, "misshapen": misshapen}
    listed = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if listed:
        raise ValueError(f"{'; '.join(listed)}.")
