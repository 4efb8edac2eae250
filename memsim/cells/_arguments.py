"""Checks of what is read: arguments of another kind, inputs out of range, sums past 32 bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, Key

from memsim._checks import as_key, check_kind, is_known
from memsim.cells.readouts import Cells, Readout, check_solved
from memsim.config import CrossbarConfig
from memsim.planning import LayerPlan


def checked_inputs(
    key: Key[Array, ""],
    inputs: Int[Array, " inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> tuple[Key[Array, ""], Int32[Array, " inputs"], Int32[Array, ""]]:
    """Checks the arguments of a read of integers.

    Returns:
      The key, the inputs clipped to their range, and how many lay outside.
    """
    check_arguments(cells, layer, config, readout)
    key = as_key("key", key)
    # NumPy's integers are looked at in their own dtype: on the way to JAX wide ones wrap
    expected = (layer.matrix.inputs,)
    try:
        array = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs)
    except ValueError as error:  # lists of lists of several lengths
        raise ValueError(
            f"`inputs` is a {type(inputs).__name__} of several lengths; give integers of shape "
            f"{expected}."
        ) from error
    if not jnp.issubdtype(array.dtype, jnp.integer) or array.shape != expected:
        raise ValueError(
            f"`inputs` is {type(inputs).__name__} {array.dtype} {array.shape}; give integers of "
            f"shape {expected}, one vector (vmap for more), or floats to read_matmul."
        )
    # bounds that the dtype of the inputs can hold
    lowest, highest = -(2 ** (readout.input_bits - 1)), 2 ** (readout.input_bits - 1) - 1
    if layer.negated is not None:  # drivers apply the negatives too
        lowest = -highest
    of_dtype = np.iinfo(array.dtype)
    lowest, highest = max(lowest, int(of_dtype.min)), min(highest, int(of_dtype.max))
    # the nearest number that drivers can apply
    clipped = array.clip(lowest, highest)
    outside = jnp.asarray((clipped != array).sum()).astype(jnp.int32)
    return key, jnp.asarray(clipped.astype(np.int32)), outside


def check_arguments(
    cells: Cells, layer: LayerPlan, config: CrossbarConfig, readout: Readout
) -> None:
    """Checks that arguments are of their kind and fit each other.

    Raises:
      ValueError: another kind; cells of another layer; sections that mix outputs; sums that 32
        bits cannot hold.
      ArithmeticError: cells whose wires were not solved, outside `jit`.
    """
    check_kind("cells", cells, Cells)
    check_kind("layer", layer, LayerPlan)
    check_kind("config", config, CrossbarConfig)
    check_kind("readout", readout, Readout)
    if is_known(layer.analog_valid) and not layer.analog_valid:
        raise ValueError(
            "`layer` is not analog-valid: its sections mix outputs, and a column current is no sum "
            "of one of them; use sws, matched or unsorted."
        )
    # bits of a code, an input and their number
    needed = config.bits + readout.input_bits + max(layer.matrix.inputs - 1, 1).bit_length()
    if needed > 32:
        raise ValueError(
            f"`readout` has {readout.input_bits} input bits: with weights of {config.bits} bits "
            f"and {layer.matrix.inputs} inputs, sums take {needed} bits of 32; use fewer."
        )
    expected = (layer.placement.weights.shape[0], config.words, config.cells_per_word)
    if cells.mean.shape != expected:
        raise ValueError(
            f"`cells` has shape {cells.mean.shape}, `layer` and `config` {expected}; give "
            "program_cells of the words of this layer."
        )
    check_solved(cells.residual, readout)


def most_levels(layer: LayerPlan, config: CrossbarConfig, readout: Readout) -> int:
    """Finds the levels of a column sum with which no output can exceed an int32."""
    of_section = config.rows * (2**config.cell_bits - 1)  # of ideal cells, which always fit
    # bits of the inputs, columns and sections are all added up
    sections = -(-layer.matrix.inputs // config.rows)
    largest = 2 ** (readout.input_bits - 1 + config.bits) * sections
    most = max(of_section, (2**31 - 1) // largest)
    spare = max(most.bit_length() - 24, 0)
    exact: int = most >> spare << spare  # in float32
    return exact
