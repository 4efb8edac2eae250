"""Reading a crossbar: bit-serial products through its cells, wires and converters.

What is linear in the inputs (variation, drift, the resistance of wires) is a change of the weights:
`read_weights` gives those, for the forward pass of any network. What is not (the bits of the inputs
and the range and steps of the converters) takes the product itself: `read_layer`, `read_matmul`.
With everything ideal both are exactly what `program` says that the chip holds.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, PyTree, UInt

from memsim.cells.conductance import Conductance, aimed_at, drifted, programmed, read_deviation
from memsim.cells.wires import Wires, effective_conductance
from memsim.codes import bit_slice, dequantize, word_constant
from memsim.config import CrossbarConfig
from memsim.network import Programming
from memsim.placement import invert_placement
from memsim.planning import LayerPlan, Plan
from memsim.selection import by_output, from_output, named_leaves

# Crossbars whose wires are solved at once.
_SOLVED_TOGETHER = 64
# Bits of inputs that drive rows at once.
_DRIVEN_TOGETHER = 2**24


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Readout:
    """How crossbars are read. Hashable, static under `jit`; the default is ideal.

    Attributes:
      cells: their conductance.
      wires: their resistance; a crossbar is as wide as a word.
      seconds: since programming.
      input_bits: of an input, two's complement, applied one after the other.
      adc_bits: of the converter of each column; None for one as wide as it takes, whose step is
        one level of one cell.
      adc_range: levels (the sum over the rows) at which a converter of `adc_bits` saturates; None
        for all rows at the highest level.

    Raises:
      ValueError: a value outside its range; `adc_range` without `adc_bits`.
    """

    cells: Conductance = dataclasses.field(default_factory=Conductance)
    wires: Wires = dataclasses.field(default_factory=Wires)
    seconds: float = 0.0
    input_bits: int = 8
    adc_bits: int | None = None
    adc_range: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (("cells", Conductance), ("wires", Wires)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r}; give a {kind.__name__}, such as "
                    f"{'Conductance.pcm()' if name == 'cells' else 'Wires(2.97, 2.97)'}."
                )
        for name, least, most in (("input_bits", 2, 16), ("adc_bits", 1, 24)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"`{name}` is {value!r}; give {least} to {most}.")
        if self.adc_bits and self.adc_bits + self.input_bits > 32:
            raise ValueError(
                f"`adc_bits` is {self.adc_bits!r} and `input_bits` {self.input_bits!r}; sums take "
                "as many bits as both, of 32: use fewer."
            )
        if not 0 <= self.seconds < math.inf or min(self.wires) < 0:
            raise ValueError(
                f"`seconds` is {self.seconds!r} and `wires` {self.wires}; none is negative."
            )
        if self.adc_range is not None and (self.adc_bits is None or not self.adc_range > 0):
            raise ValueError(
                f"`adc_range` is {self.adc_range!r}; give levels above 0, with `adc_bits`."
            )

    def adc_step(self, config: CrossbarConfig) -> float:
        """Levels of one step of a converter."""
        if self.adc_bits is None:
            return 1.0
        full = config.rows * (2**config.cell_bits - 1) if self.adc_range is None else self.adc_range
        return full / (2**self.adc_bits - 1)


class Cells(NamedTuple):
    """The cells of a layer's sections and what they count as when they are read, in levels.

    Attributes:
      words: what the rows hold, rows of flags included.
      mean: what a cell adds to the sum of its column; with ideal cells and wires its level.
      deviation: standard deviation of that from one read to the next.
    """

    words: UInt[Array, "sections physical_rows"]
    mean: Float32[Array, "sections rows columns"]
    deviation: Float32[Array, "sections rows columns"]


@functools.partial(jax.jit, static_argnames=("config", "readout"))
def program_cells(
    key: Key[Array, ""],
    words: UInt[Array, "sections physical_rows"],
    config: CrossbarConfig,
    readout: Readout,
) -> Cells:
    """Programs conductances, lets them drift and puts them between their wires.

    What cells at the lowest level add to a column on average, the sum of the inputs times as much,
    is subtracted before it is converted, as a reference column of such cells does, and a level is
    what cells at the highest add on average over their levels.

    Args:
      key: of what programming reaches and how it drifts; consumed.
      words: of a layer, from `program(..., words=True)`.

    Raises:
      ValueError: words with flags of their own: their column currents are no meaningful sum.
    """
    if config.flags == "word":
        raise ValueError(
            "`config` has a flag per word, which no column current can tell apart; use "
            "flip-n-write:flags=section."
        )
    program_key, drift_key = jax.random.split(key)
    kind, wires = readout.cells, readout.wires
    levels = bit_slice(words[:, : config.rows], config)
    top = jnp.broadcast_to(jnp.asarray(_top_levels(config)), levels.shape)
    target = aimed_at(levels, top, kind)
    reached = programmed(program_key, target, kind)
    seen = drifted(drift_key, reached, target, readout.seconds, kind)
    if any(wires):
        seen = jax.lax.map(
            lambda one: effective_conductance(one, wires), seen, batch_size=_SOLVED_TOGETHER
        )
    line = kind.calibrated
    per_level = (line.on - line.off) / top.astype(jnp.float32)
    expected = aimed_at(levels, top, line)
    # a difference, so that nothing is rounded where there is none
    mean = levels.astype(jnp.float32) + (seen - expected) / per_level
    deviation = read_deviation(target, readout.seconds, kind) * seen / per_level
    return Cells(words, mean, deviation)


def read_weights(
    key: Key[Array, ""],
    effective: PyTree,
    plan: Plan,
    programming: Programming,
    readout: Readout,
) -> PyTree:
    """The weights as their crossbars read them, up to the converters.

    Runs under `jit`, `grad` and `vmap`; gradients pass straight through to `effective`. Read noise
    is drawn once per cell: give another key for another chip and another read.

    Args:
      key: of the cells and of the read; consumed.
      effective: pytree from `program`.
      plan, programming: its plan, and what it returned with `words=True`.

    Returns:
      `effective`, bit for bit where everything is ideal.

    Raises:
      ValueError: a `programming` without words, or words with flags of their own.
    """
    if programming.words is None:
        raise ValueError("`programming` has no words; call program(..., words=True).")
    return _read_weights(key, effective, plan, programming.words, readout)


@functools.partial(jax.jit, static_argnames="readout")
def _read_weights(
    key: Key[Array, ""],
    effective: PyTree,
    plan: Plan,
    words: dict[str, UInt[Array, "sections physical_rows"]],
    readout: Readout,
) -> PyTree:
    config, leaves = plan.config, named_leaves(effective)
    for number, name in enumerate(plan.names):
        layer, tensor = plan.layers[name], leaves[name]
        cell_key, read_key = jax.random.split(jax.random.fold_in(key, number))
        cells = program_cells(cell_key, words[name], config, readout)
        seen = cells.mean
        if any(readout.cells.read_noise):
            noise = jax.random.normal(read_key, seen.shape, seen.dtype)
            seen = seen + cells.deviation * noise
        levels = bit_slice(cells.words[:, : config.rows], config).astype(jnp.float32)
        complemented, negative = _stored_as(cells.words, config)
        weights = jnp.asarray(config.column_weights, jnp.float32)
        signs = jnp.where(complemented, -1, 1) * jnp.where(negative, _negated(config), 1)[..., None]
        codes = jnp.matmul((seen - levels) * signs, weights, precision="highest")
        error = from_output(invert_placement(codes, layer.placement), layer.matrix)
        added = dequantize(error, layer.scale, tensor.dtype)
        leaves[name] = tensor + jax.lax.stop_gradient(added)
    return jax.tree.unflatten(jax.tree.structure(effective), leaves.values())


def read_layer(
    key: Key[Array, ""],
    inputs: Int32[Array, " inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Int32[Array, " outputs"] | Float32[Array, " outputs"]:
    """The product of one vector of inputs with a layer's codes, bit by bit through its crossbars.

    Each bit of the inputs drives the rows of every section; each column sum is converted, shifted,
    added, and weighed by its column, all in integers. Rows whose words have a sign apart
    (`sign_magnitude`, and `twos_complement` in cells of several bits) take turns: first those that
    are not negative, then the others. What complements, offsets and corrections add is the sum of
    the inputs times a number, and is taken off digitally.

    Args:
      key: of the noise of each read; consumed.
      inputs: two's complement of `readout.input_bits`.
      cells: from `program_cells`.
      layer: of an analog-valid plan.

    Returns:
      int32 where a converter's step is one level and outputs have no correction, else float32: with
      ideal cells and wires exactly `inputs @ codes`.

    Raises:
      ValueError: a layer whose sections mix outputs, or products that could exceed an int32.
    """
    _check_layer(layer, config, readout)
    return _read_layer(key, inputs, cells, layer, config, readout)


@functools.partial(jax.jit, static_argnames=("config", "readout"))
def _read_layer(
    key: Key[Array, ""],
    inputs: Int32[Array, " inputs"],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Int32[Array, " outputs"] | Float32[Array, " outputs"]:
    matrix = layer.matrix
    index = jnp.asarray(layer.placement.weights)
    driven = jnp.where(index < matrix.inputs * matrix.outputs, inputs[index % matrix.inputs], 0)
    complemented, negative = _stored_as(cells.words, config)
    turns = [driven]
    if _takes_turns(config):
        turns = [jnp.where(negative, 0, driven), jnp.where(negative, driven, 0)]
    sums = jnp.zeros(index.shape[0], jnp.int32)
    weights = jnp.asarray(config.column_weights, jnp.int32)
    for turn, rows in enumerate(turns):
        total = rows.sum(axis=1)
        turn_key = jax.random.fold_in(key, turn)
        columns = _column_sums(turn_key, rows, cells, config, readout)
        top = jnp.asarray(_top_levels(config), columns.dtype)
        of_all = total[:, None].astype(columns.dtype) * top[None]
        columns = jnp.where(complemented[:, 0], of_all - columns, columns)
        if turn:  # the sign within its cell
            sign = _sign_level(config) * total
            columns = columns.at[:, -1].add(-sign.astype(columns.dtype))
        read = jnp.matmul(columns, weights.astype(columns.dtype), precision="highest")
        sums = sums.astype(read.dtype) + (_negated(config) * read if turn else read)
    if config.encoding == "offset_binary":
        sums -= (1 << (config.bits - 1)) * driven.sum(axis=1).astype(sums.dtype)
    outputs = jax.ops.segment_sum(sums, index[:, 0] // matrix.inputs, matrix.outputs)
    if layer.offset is not None:
        outputs -= (layer.offset * inputs.sum()).astype(outputs.dtype)
    if layer.correction is not None:
        outputs = outputs.astype(jnp.float32) - layer.correction * inputs.sum().astype(jnp.float32)
    return outputs


def read_matmul(
    key: Key[Array, ""],
    inputs: Float[Array, "*batch inputs"],
    effective: Float[Array, "..."],
    cells: Cells,
    layer: LayerPlan,
    config: CrossbarConfig,
    readout: Readout,
) -> Float[Array, "*batch outputs"]:
    """`inputs @ weights` as the crossbars of a layer compute it, for use inside a model.

    Inputs are quantized to `readout.input_bits` by their largest. Gradients pass straight through:
    they are those of the product with the effective weights.

    Args:
      key: of the noise of each read; consumed.
      inputs: in the order of the tensor's own inputs.
      effective: the layer's tensor from `program`.
      cells, layer, config, readout: see `read_layer`.
    """
    flat = inputs.reshape(-1, layer.matrix.inputs)
    largest = jnp.maximum(jnp.max(jnp.abs(flat)), jnp.finfo(flat.dtype).tiny)
    most = max(2 ** (readout.input_bits - 1) - 1, 1)
    scale = jax.lax.stop_gradient(largest / most)
    codes = jax.lax.stop_gradient(jnp.round(flat / scale)).astype(jnp.int32)
    keys = jax.random.split(key, len(codes))
    driven = readout.input_bits * layer.placement.weights.size

    def product(one: tuple[Array, Array]) -> Array:
        return read_layer(one[0], one[1], cells, layer, config, readout)

    together = max(1, _DRIVEN_TOGETHER // driven)
    products = jax.lax.map(product, (keys, codes), batch_size=together)
    per_output = jnp.broadcast_to(layer.scale, effective.shape)
    per_output = by_output(per_output, layer.matrix.axes)[:, 0].astype(inputs.dtype)
    read = products.astype(inputs.dtype) * scale * per_output[None]
    exact = flat @ by_output(effective, layer.matrix.axes).T.astype(inputs.dtype)
    through = jax.lax.stop_gradient(read) + (exact - jax.lax.stop_gradient(exact))
    return through.reshape(*inputs.shape[:-1], layer.matrix.outputs)


def _column_sums(
    key: Key[Array, ""],
    driven: Int32[Array, "sections rows"],
    cells: Cells,
    config: CrossbarConfig,
    readout: Readout,
) -> Int32[Array, "sections columns"] | Float32[Array, "sections columns"]:
    """What the converters of each column say, bit by bit of the inputs, shifted and added."""
    shifts = jnp.arange(readout.input_bits, dtype=jnp.int32)
    bits = (driven[None] >> shifts[:, None, None] & 1).astype(jnp.float32)
    add_up = functools.partial(jnp.einsum, "tsr,src->tsc", bits, precision="highest")
    sums = add_up(cells.mean)
    if any(readout.cells.read_noise):
        variance = add_up(jnp.square(cells.deviation))  # of independent cells
        sums += jnp.sqrt(variance) * jax.random.normal(key, sums.shape, sums.dtype)
    step = readout.adc_step(config)
    converted = jnp.round(sums / step)
    if readout.adc_bits is not None:
        converted = jnp.clip(converted, 0, 2**readout.adc_bits - 1)
    place = jnp.left_shift(1, shifts).at[-1].multiply(-1)  # two's complement
    total = jnp.tensordot(place, converted.astype(jnp.int32), axes=1)
    return total if step == 1 else total.astype(jnp.float32) * step


def _stored_as(
    words: UInt[Array, "sections physical_rows"], config: CrossbarConfig
) -> tuple[Bool[Array, "sections 1 columns"], Bool[Array, "sections rows"]]:
    """Which columns of a section hold complements; which rows hold words with a sign apart."""
    data, flags = words[:, : config.rows], words[:, config.rows :]
    if config.flags == "section":
        data = data ^ flags
        complemented = bit_slice(flags, config) != 0
    else:
        complemented = jnp.zeros((len(words), 1, config.columns), bool)
    sign = word_constant(1 << (config.bits - 1), config)
    negative = (data & sign) != 0 if _takes_turns(config) else jnp.zeros(data.shape, bool)
    return complemented, negative


def _takes_turns(config: CrossbarConfig) -> bool:
    """Whether rows are read by the sign of their words: it counts otherwise than its column."""
    in_wide_cell = config.column_masks[-1] != 1 << (config.bits - 1)
    return config.encoding == "sign_magnitude" or (
        config.encoding == "twos_complement" and in_wide_cell
    )


def _negated(config: CrossbarConfig) -> int:
    """What the sum of the rows with a sign counts."""
    return -1 if config.encoding == "sign_magnitude" else 1


def _sign_level(config: CrossbarConfig) -> int:
    """What the top cell of a row with a sign has too many levels."""
    top = config.column_masks[-1]
    sign = (1 << (config.bits - 1)) // (top & -top)
    return sign if config.encoding == "sign_magnitude" else 2 * sign


def _top_levels(config: CrossbarConfig) -> np.ndarray:
    """The highest level of each column's cells."""
    return np.asarray([mask // (mask & -mask) for mask in config.column_masks])


def _check_layer(layer: LayerPlan, config: CrossbarConfig, readout: Readout) -> None:
    valid = layer.analog_valid
    if not isinstance(valid, jax.core.Tracer) and not valid:
        raise ValueError(
            "`layer` is not analog-valid: its sections mix outputs, and a column current is no sum "
            "of one of them; use sws, matched or unsorted."
        )
    needed = config.bits + readout.input_bits + max(layer.matrix.inputs - 1, 1).bit_length()
    if needed > 32:
        raise ValueError(
            f"`readout` has {readout.input_bits} input bits: with weights of {config.bits} bits "
            f"and {layer.matrix.inputs} inputs, sums take {needed} bits of 32; use fewer."
        )
