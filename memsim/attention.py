"""Products of attention: keys and values written for every sequence, against digital ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from memsim._checks import check_array, check_kind
from memsim.codes import AnyArray
from memsim.config import CrossbarConfig
from memsim.hardware.inference import PRODUCT_PARTS, product_cost
from memsim.hardware.parts import Hardware
from memsim.hardware.passes import PART_NAMES, pass_cost
from memsim.policies import Policy, Unsorted
from memsim.streaming import compare
from memsim.summary import LayerSummary, Summary

__all__ = ["AttentionCost", "attention_cost"]


class AttentionCost(NamedTuple):
    """The energy of the products of attention for one sequence, all heads of a layer.

    Attributes:
      writes: cells that change when keys and values are written over those of the sequence before,
        mean over sequences.
      analog: joules by part: `pulses`, `reads`, `index`, `data` of writing (words come from the
        buffer), and the parts of products.
      digital: joules by part: `multiply_adds`, and `buffers` for operands, inputs and sums.
    """

    writes: float
    analog: dict[str, float]
    digital: dict[str, float]


def attention_cost(
    keys: Float[AnyArray, "sequences heads tokens width"],
    values: Float[AnyArray, "sequences heads tokens width"],
    config: CrossbarConfig,
    hardware: Hardware,
    *,
    policy: Policy | None = None,
) -> AttentionCost:
    """Prices the products of attention, with keys and values as they are.

    On arrays the keys of a head are a weight matrix [width, tokens] that every query meets, its
    values one [tokens, width] that every row of attention meets. Both are written anew for every
    sequence, over those of the one before, and the writes are counted. Digital, every query takes
    keys and values from the buffer and as many multiply-adds. Of causal attention it is an upper
    bound, of both alike.

    Args:
      keys, values: activations of real sequences, one layer; at least two sequences, as the first
        is written over erased cells and does not count.
      config: the crossbars.
      hardware: whose parts have prices.
      policy: that words are written under; None for `unsorted`: keys and values are not known ahead
        of time, so that nothing can be planned.

    Raises:
      ValueError: activations of other shapes, or of one sequence.

    >>> import memsim
    >>> keys = np.random.default_rng(0).normal(size=(2, 1, 8, 4)).astype(np.float32)
    >>> hardware = memsim.hardware.read_hardware("array-128")
    >>> cost = attention_cost(keys, keys, hardware.config(crossbars=1), hardware)
    >>> cost.writes
    215.0
    """
    check_kind("config", config, CrossbarConfig)
    check_kind("hardware", hardware, Hardware, "give what `memsim.hardware.read_hardware` returns")
    check_kind("policy", policy, (Policy, type(None)), "give a memsim.Policy, or None")
    for name, each in (("keys", keys), ("values", values)):
        check_array(name, each, "numbers", "[sequences, heads, tokens, width]", axes=4)
    if keys.shape != values.shape:
        raise ValueError(f"`values` has shape {values.shape}; give that of `keys`, {keys.shape}.")
    sequences, heads, tokens, width = keys.shape
    if sequences < 2:
        raise ValueError("`keys` is of 1 sequence; give at least 2: the first does not count.")
    # layers of one sequence after those of another, as they are written
    operands = {
        f"{sequence}/{head}/{name}": np.asarray(each[sequence, head], np.float32)
        for sequence in range(sequences)
        for head in range(heads)
        for name, each in (("keys", keys), ("values", values))
    }
    axes = {"keys": 0, "values": 1}  # the axis of outputs: one for each key, for each value
    found = compare(
        operands, config, {"": Unsorted() if policy is None else policy},
        select=lambda path, leaf: (axes[_name(path)],), writing=hardware.writing(config),
    ).policies[""]  # fmt: skip
    later = {name: of for name, of in found.layers.items() if not name.startswith("0/")}
    steady = _summed(found, later, config)
    priced = hardware.on(config)
    # they never leave the chip: words come from the buffer
    memory = dataclasses.replace(priced.memory, move_energy=priced.memory.buffer_energy)
    of_pass = pass_cost(steady, dataclasses.replace(priced, memory=memory)).joules
    analog = {part: of_pass[part] / (sequences - 1) for part in PART_NAMES}
    costs = [product_cost(of, tokens, config, priced).joules for of in later.values()]
    for part in PRODUCT_PARTS:
        analog[part] = sum(cost[part] for cost in costs) / (sequences - 1)
    return AttentionCost(
        steady.writes / (sequences - 1), analog, _digital(heads, tokens, width, hardware)
    )


def _name(path: object) -> str:
    return str(path).rsplit("/", 1)[-1]


def _summed(
    summary: Summary, layers: Mapping[str, LayerSummary], config: CrossbarConfig
) -> Summary:
    """Gives the summary of some of the layers."""
    every = layers.values()

    def total(name: str) -> int:
        return sum(getattr(layer, name) for layer in every)

    return dataclasses.replace(
        summary,
        layers=dict(layers),
        writes=total("writes"),
        set_rows=total("set_rows"),
        reset_rows=total("reset_rows"),
        set_pulses=total("set_pulses"),
        reset_pulses=total("reset_pulses"),
        data_bits=total("data_bits"),
        index_bits=sum(round(layer.index_bits * layer.weights) for layer in every),
        rows_programmed=total("rows_programmed"),
        cells_programmed=total("weights") * config.cells_per_word,
    )


def _digital(heads: int, tokens: int, width: int, hardware: Hardware) -> dict[str, float]:
    """Prices the same products in digital logic."""
    digital, reading = hardware.digital, hardware.reading
    products = 2 * heads * tokens * tokens * width
    # an operand for every multiply-add, then queries, rows of attention, and their sums
    bits = products * digital.operand_bits
    bits += heads * tokens * (width + tokens) * (reading.input_bits + reading.output_bits)
    return {
        "multiply_adds": products * digital.multiply_add_energy,
        "buffers": bits * hardware.memory.buffer_energy,
    }
