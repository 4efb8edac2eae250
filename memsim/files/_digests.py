"""Digests of files, by which a report knows again what it was made of."""

import hashlib
import json
from pathlib import Path

from memsim.files import _hub


def digest_of(path: Path) -> str | None:
    """Gives the SHA-256 of a file; of several that belong to one another, of the list of theirs.

    Args:
      path: a file; an index, whose shards count too; a folder, of which all files count; or what
        the hub keeps, as `hf:owner/name`.

    Returns:
      64 hexadecimal digits, or None if there is no such file.
    """
    if str(path).startswith(_hub.PREFIX):
        path = _hub.fetch(str(path))
    if path.is_dir():
        files = [each for each in path.rglob("*") if each.is_file()]
    elif path.is_file():
        files = [path, *_shards(path)] if path.name.endswith(".index.json") else [path]
    else:
        return None
    digests = [_digest(file) for file in files]
    if files == [path]:
        return digests[0]
    # names and digests, as sha256sum lists them
    folder = path if path.is_dir() else path.parent
    names = [file.relative_to(folder).as_posix() for file in files]
    lines = [f"{digest}  {name}\n" for name, digest in sorted(zip(names, digests, strict=True))]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _shards(index: Path) -> list[Path]:
    """Lists the shards that an index names: files beside it."""
    # it was opened before, which checks it
    named = json.loads(index.read_bytes()).get("weight_map", {}).values()
    return [index.parent / name for name in sorted(set(named)) if (index.parent / name).is_file()]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
