"""Weights from the Hugging Face hub, which its library fetches and keeps."""

import re
from pathlib import Path
from typing import Any

from memsim.files._json import parse_json
from memsim.files._opening import need_library

PREFIX = "hf:"
_FORM = re.compile(r"[\w.-]+/[\w.-]+")

# what a repository may hold its weights in: the first that it has; nothing pickled before others
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
)


def fetch(identifier: str) -> Path:
    """Fetches the weights of a repository, or one of its files.

    Args:
      identifier: `hf:owner/name`, or `hf:owner/name/FILE`.

    Returns:
      The file; of weights in several files the index, beside which the others lie.

    Raises:
      FileNotFoundError: the hub did not give it.
      ValueError: no such identifier; the library is not installed.
    """
    owner, _, rest = identifier.removeprefix(PREFIX).partition("/")
    name, _, file = rest.partition("/")
    if not _FORM.fullmatch(f"{owner}/{name}") or {".", ".."} & {owner, name, *file.split("/")}:
        raise ValueError(
            f"`checkpoint` {identifier!a} names no repository; give hf:owner/name, or "
            "hf:owner/name/FILE."
        )
    hub = need_library("huggingface_hub", Path(identifier))
    errors = need_library("huggingface_hub.errors", Path(identifier))
    tried = (file,) if file else _FILES
    why = None
    for wanted in tried:
        try:
            found = Path(hub.hf_hub_download(f"{owner}/{name}", wanted))
            if wanted.endswith(".index.json"):
                _fetch_shards(hub, f"{owner}/{name}", wanted, found)
            return found
        except errors.LocalEntryNotFoundError as error:  # no answer is not "there is none"
            why = error
            break
        except errors.EntryNotFoundError as error:
            why = error
        except OSError as error:  # every error of the hub is one
            why = error
            break
    raise FileNotFoundError(
        f"`checkpoint` {identifier}: the Hugging Face hub did not give {' or '.join(tried)} "
        f"({_line(why)}); check the name, or name a file of it: hf:owner/name/FILE."
    ) from why


def _fetch_shards(hub: Any, repository: str, index: str, found: Path) -> None:
    """Fetches the files that an index names, which lie in its own folder and nowhere else."""
    document = parse_json(found.read_bytes())
    named = document.get("weight_map") if isinstance(document, dict) else None
    shards = set(named.values()) if isinstance(named, dict) else set()
    folder = index.rpartition("/")[0]
    for shard in sorted(map(str, shards)):
        # others are refused when the index is opened
        if re.fullmatch(r"[\w.-]+", shard) and shard not in (".", ".."):
            hub.hf_hub_download(repository, f"{folder}/{shard}" if folder else shard)


def _line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
