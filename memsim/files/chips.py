"""Chips and fault maps, to a file and back."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from memsim.chip import Chip, fault_cells
from memsim.config import CrossbarConfig
from memsim.files.checkpoints import open_checkpoint
from memsim.files.own import load_own
from memsim.files.writing import save_tensors


def save_chip(path: str | Path, chip: Chip, config: CrossbarConfig, *, force: bool = False) -> None:
    """Saves a chip as safetensors: its key, stuck cells and present state.

    Raises:
      OSError: as `save_tensors`.
    """
    tensors = {
        "key": jax.random.key_data(chip.key),
        "passes": chip.passes,
        "stuck_at_0": chip.stuck_at_0,
        "stuck_at_1": chip.stuck_at_1,
        "state": chip.state,
    }
    description = {"key": str(jax.random.key_impl(chip.key)), "cells": config.column_masks}
    save_tensors(path, tensors, metadata={"memsim.chip": json.dumps(description)}, force=force)


def load_chip(path: str | Path, config: CrossbarConfig) -> Chip:
    """Loads a chip.

    Raises:
      FileNotFoundError, ValueError: there is no such file; it is not a whole chip; its words
        are not cut into cells as `config` says.
    """
    tensors, description = load_own(path, "chip")
    if tuple(description["cells"]) != config.column_masks:
        raise ValueError(
            f"`chip` {path} has {len(description['cells'])} other columns than the config's "
            f"{config.columns} ({config.encoding}, {config.bits} bits, {config.cell_bits} per "
            "cell); program it with the config that it was made for."
        )
    key = jax.random.wrap_key_data(jnp.asarray(tensors.pop("key")), impl=description["key"])
    return Chip(key, **{name: jnp.asarray(x) for name, x in tensors.items()})


def save_faults(
    path: str | Path, chip: Chip, config: CrossbarConfig, *, force: bool = False
) -> None:
    """Saves which cells are stuck: `stuck_at_0`, `stuck_at_1`, bool [crossbars, rows, columns].

    Raises:
      OSError: as `save_tensors`.
    """
    low, high = fault_cells(chip, config)
    save_tensors(path, {"stuck_at_0": low, "stuck_at_1": high}, force=force)


def load_faults(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Loads a fault map, `.npz` or `.safetensors`, measured or saved by `save_faults`.

    Returns:
      (stuck_at_0, stuck_at_1), bool [crossbars, rows, columns].

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it is no fault map.
    """
    source = open_checkpoint(path)
    if set(source.tensors) != {"stuck_at_0", "stuck_at_1"}:
        raise ValueError(
            f"`faults` {path} holds {sorted(source.tensors)}; a fault map holds `stuck_at_0` and "
            "`stuck_at_1`, bool [crossbars, rows, columns]."
        )
    low, high = source.load("stuck_at_0"), source.load("stuck_at_1")
    if low.shape != high.shape or low.ndim != 3 or not np.isin([*np.unique(low), *np.unique(high)],
                                                              (0, 1)).all():  # fmt: skip
        raise ValueError(
            f"`faults` {path} holds {low.dtype} {low.shape} and {high.dtype} {high.shape}; both "
            "must be bool (or 0 and 1) [crossbars, rows, columns]."
        )
    low, high = low.astype(bool), high.astype(bool)
    if (low & high).any():
        raise ValueError(f"`faults` {path} has {(low & high).sum()} cells stuck at both 0 and 1.")
    return low, high
