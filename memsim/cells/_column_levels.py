"""Levels of the cells of a column."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from memsim.config import CrossbarConfig


def top_levels(config: CrossbarConfig) -> Int32[np.ndarray, " columns"]:
    """Gives the highest level of each column's cells."""
    return np.asarray([mask // (mask & -mask) for mask in config.column_masks], np.int32)
