"""Chips and fault maps, to a file and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memsim._checks import check_kind, check_path, check_truth
from memsim.chip import Chip, fault_cells
from memsim.config import CrossbarConfig
from memsim.files.checkpoints import open_checkpoint
from memsim.files.own import Part, check_keys, check_part, load_own
from memsim.files.raw import RawTensor
from memsim.files.writing import save_tensors

__all__ = ["load_chip", "load_faults", "save_chip", "save_faults"]

_FORMAT = 2  # 1, of memsim 0.1, holds the same and does not say so


def save_chip(path: str | Path, chip: Chip, config: CrossbarConfig, *, force: bool = False) -> None:
    """Saves a chip as safetensors: its key, stuck cells and present state.

    >>> import jax, numpy as np, memsim
    >>> config, policy = memsim.CrossbarConfig(rows=4), memsim.Policy.parse("sws")
    >>> plan = memsim.plan({"kernel": np.eye(4)}, config, policy)
    >>> save_chip("chip.safetensors", memsim.sample_chip(jax.random.key(0), plan), config)
    >>> load_chip("chip.safetensors", config).state.shape
    (1, 4)

    Args:
      path: of the file.
      chip: one; save those of a `vmap` one by one.
      config: `plan.config` of the plan that it was sampled for.
      force: replace a file that exists.

    Raises:
      OSError: as `save_tensors`.
      ValueError: the chip is none of these crossbars, or several.
    """
    check_path("path", path)
    check_kind("chip", chip, Chip, "give (path, chip, config)")
    check_kind("config", config, CrossbarConfig)
    check_truth("force", force)
    tensors = {
        "key": np.asarray(jax.random.key_data(chip.key)),
        "passes": np.asarray(chip.passes),
        "stuck_at_0": np.asarray(chip.stuck_at_0),
        "stuck_at_1": np.asarray(chip.stuck_at_1),
        "state": np.asarray(chip.state),
    }
    if chip.planned is not None:
        tensors["planned"] = np.asarray(chip.planned)
    kind = str(jax.random.key_impl(chip.key))
    try:
        _check_chip(tensors, kind, config)
    except ValueError as error:
        raise ValueError(f"`chip` cannot be saved: {error}.") from error
    description = {"format": _FORMAT, "key": kind, "cells": config.column_masks}
    if config.words_per_row > 1:
        description["words_per_row"] = config.words_per_row
    save_tensors(path, tensors, metadata={"memsim.chip": json.dumps(description)}, force=force)


def load_chip(path: str | Path, config: CrossbarConfig) -> Chip:
    """Loads a chip, of memsim 0.1 too, and believes nothing in it.

    Args:
      path: of the file.
      config: `plan.config` of the plan that is to be programmed on it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a whole chip, or holds what no chip does; its words are not cut into
        cells as `config` says; it has other rows or crossbars than the config.
    """
    check_path("path", path)
    check_kind("config", config, CrossbarConfig)
    tensors, description = read_chip(path)
    kind, cells = description["key"], description["cells"]
    # a whole chip, but of other crossbars
    words = description.get("words_per_row", 1)
    if words != config.words_per_row:
        raise ValueError(
            f"`chip` {path} has {words!r} words a row, the config {config.words_per_row}; program "
            "it with the config that it was made for."
        )
    if tuple(cells) != config.column_masks:
        raise ValueError(
            f"`chip` {path} has {len(cells)} other columns than the config's "
            f"{config.cells_per_word} ({config.encoding}, {config.bits} bits, {config.cell_bits} "
            "per cell); program it with the config that it was made for."
        )
    try:
        _check_chip(tensors, kind, config)
    except ValueError as error:
        raise ValueError(
            f"`chip` {path} does not fit the config, or is damaged: {error}; sample or program it "
            "again, with the config that it is for."
        ) from error
    key = jax.random.wrap_key_data(jnp.asarray(tensors.pop("key")), impl=kind)
    return Chip(key, **{name: jnp.asarray(x) for name, x in tensors.items()})


def read_chip(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the tensors of a chip and its description, before a config says what they must be.

    Raises:
      FileNotFoundError, ValueError: there is no such file; parts are missing or unknown.
    """
    tensors, description = load_own(path, "chip")
    try:
        check_keys("its description", description, ("key", "cells"), ("format", "words_per_row"))
        if description.get("format", _FORMAT) != _FORMAT:
            raise ValueError(
                f"its format is {description['format']!r}, and this memsim reads formats up to "
                f"{_FORMAT}"
            )
        check_keys("it", tensors, tuple(set(Chip._fields) - {"planned"}), ("planned",))
        kind, cells = description["key"], description["cells"]
        if not isinstance(kind, str):
            raise ValueError(f"`key` of its description is {kind!r}, no text")
        if not isinstance(cells, list) or not all(type(mask) is int for mask in cells):
            raise ValueError("`cells` of its description is no list of whole numbers")
    except ValueError as error:
        raise ValueError(
            f"`chip` {path} is no whole chip: {error}; sample or program it again."
        ) from error
    return tensors, description


def _check_chip(tensors: Mapping[str, np.ndarray], kind: str, config: CrossbarConfig) -> None:
    """Checks the tensors of a chip.

    Args:
      tensors: by the names of the fields of `Chip`.
      kind: of its key, as JAX names it.

    Raises:
      ValueError: another dtype or shape, stuck cells that contradict each other or are no whole
        cells, a state that stuck cells cannot have.
    """
    # a key of that kind tells what the data of one look like
    try:
        key = np.asarray(jax.random.key_data(jax.random.key(0, impl=kind)))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"JAX has no keys of the kind {kind!r}") from error
    check_part("key", tensors["key"], Part((key.dtype.name,), key.shape, 0, 2**32 - 1))
    check_part("passes", tensors["passes"], Part(("int32",), (), 0, 2**31 - 1))
    state = tensors["state"]
    # weight stationary, only the network says how many crossbars there are
    crossbars = config.crossbars or (state.shape[0] if state.ndim else 0)
    word, whole = config.word_dtype.name, sum(config.column_masks)
    words = Part((word,), (crossbars, config.physical_words), 0, whole)
    states = [name for name in ("state", "planned") if name in tensors]
    for name in ("stuck_at_0", "stuck_at_1", *states):
        check_part(name, tensors[name], words)
    if not crossbars:
        raise ValueError("it has no crossbars")
    # stuck cells are whole cells, stuck one way, and at that level
    low, high = tensors["stuck_at_0"], tensors["stuck_at_1"]
    for name, stuck in (("stuck_at_0", low), ("stuck_at_1", high)):
        for mask in config.column_masks:
            # a cell of several bits is stuck as a whole
            if ((stuck & mask != 0) & (stuck & mask != mask)).any():
                raise ValueError(f"`{name}` holds parts of cells")
    if (low & high).any():
        raise ValueError("cells of it are stuck at both 0 and 1")
    for name in states:
        if (tensors[name] & low).any() or (~tensors[name] & high).any():
            raise ValueError(f"`{name}` has stuck cells at another level than they are stuck at")


def save_faults(
    path: str | Path, chip: Chip, config: CrossbarConfig, *, force: bool = False
) -> None:
    """Saves which cells are stuck: `stuck_at_0`, `stuck_at_1`, bool [crossbars, rows, columns].

    Raises:
      OSError: as `save_tensors`.
    """
    check_path("path", path)
    low, high = fault_cells(chip, config)
    save_tensors(path, {"stuck_at_0": low, "stuck_at_1": high}, force=force)


def load_faults(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Loads a fault map, `.npz` or `.safetensors`, measured or saved by `save_faults`.

    Returns:
      (stuck_at_0, stuck_at_1), bool [crossbars, rows, columns].

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it is no fault map.
    """
    check_path("path", path)
    source = open_checkpoint(path)
    if set(source.tensors) != {"stuck_at_0", "stuck_at_1"}:
        raise ValueError(
            f"`faults` {path} holds {sorted(source.tensors)}; a fault map holds `stuck_at_0` and "
            "`stuck_at_1`, bool [crossbars, rows, columns]."
        )
    low, high = source.load("stuck_at_0"), source.load("stuck_at_1")
    if low.shape != high.shape or low.ndim != 3 or not (_are_cells(low) and _are_cells(high)):
        raise ValueError(
            f"`faults` {path} holds {low.dtype} {low.shape} and {high.dtype} {high.shape}; both "
            "must be bool (or 0 and 1) [crossbars, rows, columns]."
        )
    if not low.size:
        raise ValueError(f"`faults` {path} is a map of no cells: {low.shape}.")
    low, high = np.asarray(low).astype(bool), np.asarray(high).astype(bool)
    if (low & high).any():
        raise ValueError(f"`faults` {path} has {(low & high).sum()} cells stuck at both 0 and 1.")
    return low, high


def _are_cells(values: np.ndarray | RawTensor) -> bool:
    """Says whether all are 0 or 1, whole or floating."""
    # bool, whole and floating numbers of NumPy; no complex ones, texts or bytes
    if isinstance(values, RawTensor) or values.dtype.kind not in "biuf":
        return False
    return bool(((values == 0) | (values == 1)).all())
