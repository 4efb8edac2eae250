"""The energy and time of the products of an inference, from the vectors that every layer sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from memsim._checks import check_kind, check_whole
from memsim.cells.prices import write_time
from memsim.config import CrossbarConfig
from memsim.hardware.parts import Hardware
from memsim.hardware.passes import PART_NAMES, pass_cost
from memsim.hardware.timeline import Stage, Timeline, make_timeline
from memsim.summary import LayerSummary, Summary

__all__ = [
    "PRODUCT_PARTS",
    "InferenceCost",
    "ProductCost",
    "array_area",
    "inference_cost",
    "product_cost",
    "product_costs",
    "stages_of",
]

# The parts of a product: what they are of.
PRODUCT_PARTS = {
    "arrays": "arrays in read cycles",
    "drivers": "drivers of rows",
    "converters": "converters of columns",
    "shift_add": "adding conversions up",
    "buffers": "inputs and sums in the buffer",
    "routes": "index read again",
}


class InferenceCost(NamedTuple):
    """The energy, time and area of an inference.

    Attributes:
      joules: of each part of a pass (`pulses`, `reads`, `index`, `data`), its share, and of each
        part of the products (`PRODUCT_PARTS`).
      seconds: of an inference, its share of the batch.
      batch: inferences that a pass serves.
      arrays: that there are.
      area: of them and their converters, drivers, adders and buffers, in mm^2.
      timeline: of a batch; None where nothing is streamed, one array for each section.
    """

    joules: dict[str, float]
    seconds: float
    batch: int
    arrays: int
    area: float
    timeline: Timeline | None

    @property
    def total_joules(self) -> float:
        """The energy of all parts."""
        return sum(self.joules.values())


class ProductCost(NamedTuple):
    """The energy and time of the products of one layer in one inference.

    Attributes:
      joules: of each of `PRODUCT_PARTS`.
      seconds: that one of its sections takes, for all its vectors.
    """

    joules: dict[str, float]
    seconds: float

    @property
    def total_joules(self) -> float:
        """The energy of all parts."""
        return sum(self.joules.values())


def _check_positions(positions: Mapping[str, int], layers: Mapping[str, LayerSummary]) -> None:
    """Checks that there is a number of input vectors for every layer.

    Raises:
      ValueError: a layer without one, a number that is none, or a name that is no layer's.
    """
    check_kind("positions", positions, Mapping, "give input vectors by layer, {'conv1': 1024}")
    missing = [name for name in layers if name not in positions]
    if missing:
        raise ValueError(
            f"`positions` lacks {missing[0]!r} ({len(missing)} of {len(layers)} layers); give the "
            "input vectors of every layer, see `memsim.hardware.find_positions`."
        )
    for name, count in positions.items():
        if name not in layers:
            raise ValueError(f"`positions` has {name!r}, which is no layer; leave it out.")
        check_whole(f"positions[{name!r}]", count, "give input vectors per inference, from 1", 1)


def product_cost(
    layer: LayerSummary, positions: int, config: CrossbarConfig, hardware: Hardware
) -> ProductCost:
    """Prices the products of one layer in one inference.

    Each of its sections meets every input vector, bit by bit: its rows are driven, its array is
    read, its columns are converted and added up. Inputs come from the buffer, and sums go there.

    Args:
      layer: from `Summary.layers`.
      positions: input vectors of an inference: 1 for a dense layer, the output pixels of a
        convolution, the tokens of a sequence.
      config: the crossbars that it was counted on.
      hardware: whose parts have prices.

    References:
      Shafiee et al., ISAAC, 10.1109/ISCA.2016.12.
    """
    reading, buffer = hardware.reading, hardware.memory.buffer_energy
    # an input is read bit by bit, a cycle each
    cycles = positions * reading.input_bits
    columns = layer.slots_programmed * config.unflagged.cells_per_word
    # every section has its inputs and leaves its sums
    moved = layer.rows_programmed * reading.input_bits
    moved += layer.slots_programmed * reading.output_bits
    # an index that is not latched is read for every vector
    again = hardware.memory.index == "per_product"
    joules = {
        "arrays": cycles * layer.sections * reading.read_energy,
        "drivers": cycles * layer.rows_programmed * reading.driver_energy,
        "converters": cycles * columns * reading.converter_energy,
        "shift_add": cycles * columns * reading.shift_add_energy,
        "buffers": positions * moved * buffer,
        "routes": positions * again * round(layer.index_bits * layer.weights) * buffer,
    }
    # a read cycle ends when the converters have been through all columns of the array
    converted = config.words_per_row * config.unflagged.cells_per_word / reading.converters
    cycle = max(reading.read_time, converted / reading.converter_rate)
    return ProductCost(joules, cycles * cycle)


def product_costs(
    summary: Summary, positions: Mapping[str, int], config: CrossbarConfig, hardware: Hardware
) -> dict[str, ProductCost]:
    """Prices the products of every layer of a network; see `product_cost`.

    Raises:
      ValueError: a layer without a number of input vectors, or one that is none.

    """
    check_kind("summary", summary, Summary, "give what `memsim.summarize` returns")
    check_kind("config", config, CrossbarConfig)
    check_kind("hardware", hardware, Hardware, "give what `memsim.hardware.read_hardware` returns")
    _check_positions(positions, summary.layers)
    return {
        name: product_cost(layer, positions[name], config, hardware)
        for name, layer in summary.layers.items()
    }


def stages_of(
    summary: Summary,
    positions: Mapping[str, int],
    config: CrossbarConfig,
    hardware: Hardware,
    batch: int = 1,
) -> list[Stage]:
    """Gives what a timeline is made of: how long a section of each layer is moved, written, used.

    Sections of a layer are alike, each with its share of what the layer takes.

    Args:
      summary: of passes on these crossbars.
      positions: input vectors per inference, by layer.
      batch: inferences that one pass serves.
    """
    check_whole("batch", batch, "give inferences per pass, from 1", 1)
    costs = product_costs(summary, positions, config, hardware)
    passes = len(summary.writes_per_pass)
    row_seconds, _ = hardware.cells.read
    stages = []
    # shares of what was counted over all passes and sections of the layer
    for name, layer in summary.layers.items():
        bits = round(layer.index_bits * layer.weights) + layer.data_bits / passes
        pulses = write_time(layer, hardware.cells.pulses) / passes
        stages.append(
            Stage(
                name,
                layer.sections,
                bits / hardware.memory.bandwidth / layer.sections,
                (pulses + row_seconds * layer.rows_programmed) / layer.sections,
                batch * costs[name].seconds,
            )
        )
    return stages


def array_area(config: CrossbarConfig, hardware: Hardware) -> float:
    """Works out the area of one array with what belongs to it, in mm^2."""
    area = hardware.area
    beside = hardware.reading.converters * area.converter + area.shift_add + area.buffer
    return area.array + config.rows * area.driver + beside


def inference_cost(
    summary: Summary,
    positions: Mapping[str, int],
    config: CrossbarConfig,
    hardware: Hardware,
    *,
    batch: int = 1,
    overlap: bool = True,
) -> InferenceCost:
    """Prices an inference: its share of a pass, and its products.

    Args:
      summary: of one policy on these crossbars; of several passes each has its share.
      positions: input vectors of an inference by layer, see `find_positions`.
      config: the crossbars.
      hardware: whose parts have prices.
      batch: inferences that a pass serves: all of them go through a section while it is there.
      overlap: whether arrays are written while others multiply.

    Raises:
      ValueError: a layer without a number of input vectors; a batch below 1; cells of other bits.

    >>> import numpy as np, memsim
    >>> hardware = memsim.hardware.read_hardware("array-128")
    >>> config = hardware.config(crossbars=1)
    >>> params = {"fc.weight": np.eye(10, 200, dtype=np.float32)}
    >>> found = memsim.compare(params, config, {"sws": memsim.policies.Sws()}).policies["sws"]
    >>> cost = inference_cost(found, {"fc.weight": 1}, config, hardware)
    >>> {part: round(1e12 * cost.joules[part], 1) for part in ("arrays", "drivers", "converters")}
    {'arrays': 480.0, 'drivers': 667.2, 'converters': 2133.8}
    """
    stages = stages_of(summary, positions, config, hardware, batch)
    passes = len(summary.writes_per_pass)
    of_pass = pass_cost(summary, hardware).joules
    # a pass serves the batch, products are of each inference
    joules = {part: of_pass[part] / passes / batch for part in PART_NAMES}
    costs = product_costs(summary, positions, config, hardware)
    for part in PRODUCT_PARTS:
        joules[part] = sum(cost.joules[part] for cost in costs.values())
    timeline, arrays = None, sum(layer.sections for layer in summary.layers.values())
    # held, layers follow one another, all sections of one at the same time
    seconds = float(np.sum([stage.product for stage in stages]))
    if config.crossbars is not None:
        arrays = config.crossbars
        timeline = make_timeline(stages, config, overlap=overlap)
        seconds = timeline.seconds
    area = arrays * array_area(config, hardware)
    return InferenceCost(joules, seconds / batch, batch, arrays, area, timeline)
