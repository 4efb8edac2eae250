"""Counts as figures for people and programs: Python integers, means over chips."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from memsim._checks import check_kind
from memsim.config import CrossbarConfig
from memsim.intervals import confidence_interval
from memsim.network import Programming
from memsim.planning import LayerPlan, Plan
from memsim.programming import Counts
from memsim.writing import Writing, by_column

__all__ = [
    "LayerSummary",
    "Summary",
    "layer_facts",
    "mean_over_chips",
    "summarize",
    "summarize_counts",
    "with_reduction",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One layer: its weight matrix, its writes over all passes, its placement's price.

    `rows_programmed` and `slots_programmed` are the rows, and the words of a row, of all its
    `sections`, in each pass; the others, `code_error_rms` and `code_error_mean` are as those of
    `Summary`.
    """

    inputs: int
    outputs: int
    weights: int
    writes: int
    row_operations: int
    index_bits: float
    analog_valid: bool
    sections: int = 0
    rows_programmed: int = 0
    slots_programmed: int = 0
    set_rows: int = 0
    reset_rows: int = 0
    set_pulses: int = 0
    reset_pulses: int = 0
    data_bits: int = 0
    code_error_rms: float | None = None
    code_error_mean: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The price of programming a network under one policy. Counts are over all passes.

    Attributes:
      writes, sets, resets: cells that changed, rose, fell.
      writes_per_pass: writes of each pass.
      row_operations: rows programmed of which at least one cell changed.
      set_rows, reset_rows: rows of which at least one cell was pulsed to SET, or to RESET it.
      pulses: pulses that these cells were given, on average where they are verified; as many as
        writes where none fails.
      set_pulses, reset_pulses: cells that were pulsed to SET, or to RESET them, once each.
      wrong_cells: cells that did not hold their target when their section had been programmed, in
        the last pass; None where no write can fail.
      wrong_share: of the cells of all weights.
      cells_programmed, rows_programmed: cells, and rows, of all sections, written or not.
      reduction: writes of `unsorted` divided by these; None without a baseline or any writes.
      net_reduction: the same of energy, with the bits moved and the reads of the controller; None
        where no hardware says what they take, see `memsim.hardware`.
      index_bits_per_weight: routing memory, mean over weights.
      index_bits: bits of the index that are moved to the chip, every entry once a pass; flags and
        offsets are part of it.
      data_bits: bits of the words that are moved there to be written: of each section the shorter
        of all its words, or one bit a row and the words of the rows of which a cell is pulsed.
      analog_valid: whether every section holds weights of one output only.
      code_error_rms, code_error_mean: root mean square and mean, over all weights, of the errors
        that the plan leaves in what is held, after correction; in steps of the codes, exact. None
        where it leaves none, and where stuck cells that it avoids decide on them (`faults=avoid` in
        encodings that have several words for a code). Bit stucking, and stuck cells that are not
        avoided, add errors of their own.
      max_cell_writes: writes of the most written cell; None if `program` ran without `wear`.
      writes_per_column: column 0 (low order) first.
      layers: by name, in the order they are programmed.
      cell_bits: bits of a cell.
      chips: chips that the figures are means over (counts are rounded to integers).
      intervals: 95 % confidence interval (Student's t) of the mean of `writes` and `reduction`.
    """

    writes: int
    sets: int
    resets: int
    writes_per_pass: list[int]
    row_operations: int
    set_rows: int
    reset_rows: int
    pulses: int
    set_pulses: int
    reset_pulses: int
    wrong_cells: int | None
    wrong_share: float | None
    reduction: float | None
    index_bits_per_weight: float
    analog_valid: bool
    max_cell_writes: int | None
    writes_per_column: list[int]
    layers: dict[str, LayerSummary]
    index_bits: int = 0
    data_bits: int = 0
    cells_programmed: int = 0
    rows_programmed: int = 0
    net_reduction: float | None = None
    cell_bits: int = 1
    code_error_rms: float | None = None
    code_error_mean: float | None = None
    chips: int = 1
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


def summarize(programming: Programming, plan: Plan, baseline: Summary | None = None) -> Summary:
    """Sums up one programming, as Python integers: exact past 2^31 writes.

    Args:
      programming: from `program`, of one chip.
      plan: the plan it was programmed by.
      baseline: summary of `unsorted` for the same network, config and chip, for `reduction`.

    Raises:
      ValueError: a `programming` of many chips, or of another plan.
    """
    check_kind("programming", programming, Programming, "give what `program` returned second")
    check_kind("plan", plan, Plan, "give (programming, plan)")
    check_kind("baseline", baseline, (Summary, type(None)), "give the summary of unsorted, or None")
    names = plan.names
    shape = programming.counts.row_operations.shape
    if len(shape) != 2 or shape[1] != len(names):
        raise ValueError(
            f"`programming` counts have shape {shape}, expected [passes, {len(names)} layers]; of "
            "chips under `vmap` summarize one at a time, jax.tree.map(lambda x: x[i], programming)."
        )
    layers = {name: plan.layers[name] for name in names}
    counts = jax.tree.map(lambda x: np.asarray(x, np.int64), programming.counts)
    worst = None if programming.wear is None else int(programming.wear.max())
    facts = layer_facts(layers, plan.config)
    summary = summarize_counts(counts, facts, worst, plan.config, programming.writing)
    return summary if baseline is None else with_reduction(summary, baseline)


def layer_facts(layers: Mapping[str, LayerPlan], config: CrossbarConfig) -> dict[str, LayerSummary]:
    """Gathers what the plans of layers say of them, before anything is counted."""
    errors = {name: _code_errors(layer, config) for name, layer in layers.items()}
    return {
        name: LayerSummary(
            inputs=layer.matrix.inputs,
            outputs=layer.matrix.outputs,
            weights=layer.matrix.inputs * layer.matrix.outputs,
            writes=0,
            row_operations=0,
            index_bits=float(layer.index_bits),
            analog_valid=bool(layer.analog_valid),
            sections=len(layer.placement.used_rows),
            rows_programmed=int(np.asarray(layer.placement.used_rows, np.int64).sum()),
            slots_programmed=int(np.asarray(layer.placement.used_words, np.int64).sum()),
            code_error_rms=errors[name][0],
            code_error_mean=errors[name][1],
        )
        for name, layer in layers.items()
    }


def _code_errors(layer: LayerPlan, config: CrossbarConfig) -> tuple[float | None, float | None]:
    """Gives root mean square and mean of the errors that a plan leaves in the codes of a layer."""
    if layer.delta is None:
        return None, None
    delta = np.asarray(layer.delta).reshape(layer.matrix.outputs, layer.matrix.inputs)
    # int16: a row with stuck cells may hold another code than the one that is programmed there
    several_words = config.encoding in ("sign_magnitude", "differential")
    if not delta.any() or (delta.dtype == np.int16 and several_words):
        return None, None
    sums = delta.sum(axis=1, dtype=np.int64)  # of each output
    squares = np.square(delta, dtype=np.int32).sum(axis=1, dtype=np.int64)
    taken = 0.0 if layer.correction is None else np.asarray(layer.correction, np.float64)
    square = np.mean(squares - 2 * taken * sums + delta.shape[1] * np.square(taken))
    mean = np.mean(sums - delta.shape[1] * taken)
    return math.sqrt(square / delta.shape[1]), float(mean / delta.shape[1])


def summarize_counts(
    counts: Counts,
    layers: Mapping[str, LayerSummary],
    max_cell_writes: int | None,
    config: CrossbarConfig,
    writing: Writing | None = None,
) -> Summary:
    """Makes a summary from host counts (int64, [passes, layers, ...]) of these layers."""
    # host integers of 64 bits: sums are exact
    writes = counts.sets + counts.resets  # [passes, layers, columns]
    passes, weights = len(writes), sum(layer.weights for layer in layers.values())
    index_bits = sum(layer.index_bits * layer.weights for layer in layers.values())
    wrong = None if counts.wrong is None else int(counts.wrong[-1].sum())
    square = math.fsum(x.weights * (x.code_error_rms or 0.0) ** 2 for x in layers.values())
    mean = math.fsum(x.weights * (x.code_error_mean or 0.0) for x in layers.values())
    # words as they are sent, flags of rows beside them
    word_bits = sum(mask.bit_count() for mask in config.unflagged.column_masks)
    data_bits = (word_bits * counts.moved_words + counts.row_flags).sum(axis=0)
    exact = all(layer.code_error_rms is None for layer in layers.values())
    counted = {
        name: dataclasses.replace(
            layer,
            writes=int(writes[:, i].sum()),
            row_operations=int(counts.row_operations[:, i].sum()),
            set_rows=int(counts.set_rows[:, i].sum()),
            reset_rows=int(counts.reset_rows[:, i].sum()),
            set_pulses=int(counts.set_pulses[:, i].sum()),
            reset_pulses=int(counts.reset_pulses[:, i].sum()),
            data_bits=int(data_bits[i]),
        )
        for i, (name, layer) in enumerate(layers.items())
    }
    return Summary(
        writes=int(writes.sum()),
        sets=int(counts.sets.sum()),
        resets=int(counts.resets.sum()),
        writes_per_pass=writes.sum(axis=(1, 2)).tolist(),
        row_operations=int(counts.row_operations.sum()),
        set_rows=int(counts.set_rows.sum()),
        reset_rows=int(counts.reset_rows.sum()),
        pulses=_pulses(counts, config, writing),
        set_pulses=int(counts.set_pulses.sum()),
        reset_pulses=int(counts.reset_pulses.sum()),
        wrong_cells=wrong,
        wrong_share=None if wrong is None else wrong / (weights * config.cells_per_word),
        reduction=None,
        index_bits_per_weight=index_bits / weights,
        analog_valid=all(layer.analog_valid for layer in layers.values()),
        max_cell_writes=max_cell_writes,
        writes_per_column=writes.sum(axis=(0, 1)).tolist(),
        layers=counted,
        index_bits=passes * sum(round(x.index_bits * x.weights) for x in layers.values()),
        data_bits=int(data_bits.sum()),
        cells_programmed=passes * weights * config.cells_per_word,
        rows_programmed=passes * sum(layer.rows_programmed for layer in layers.values()),
        cell_bits=config.cell_bits,
        code_error_rms=None if exact else math.sqrt(square / weights),
        code_error_mean=None if exact else mean / weights,
    )


def _pulses(counts: Counts, config: CrossbarConfig, writing: Writing | None) -> int:
    """Counts the pulses that cells were given, those of each column as many as it takes."""
    pulses = 0.0
    for name, cells in (("set_pulses", counts.set_pulses), ("reset_pulses", counts.reset_pulses)):
        of_column = cells.sum(axis=(0, 1))
        if writing is None:
            pulses += int(of_column.sum())
        else:
            pulses += float(of_column @ np.asarray(by_column(writing, name, config), np.float64))
    return round(pulses)


def with_reduction(summary: Summary, baseline: Summary) -> Summary:
    """Gives the summary with its reduction against `baseline`; None if it alone writes nothing."""
    if summary.writes == baseline.writes:
        return dataclasses.replace(summary, reduction=1.0)
    reduction = baseline.writes / summary.writes if summary.writes else None  # JSON has no infinity
    return dataclasses.replace(summary, reduction=reduction)


def mean_over_chips(summaries: Sequence[Summary]) -> Summary:
    """Averages the figures of several chips, and gives the intervals of writes and reduction."""
    check_kind("summaries", summaries, (list, tuple), "give a list of summaries")
    for one in summaries:
        check_kind("summaries", one, Summary, "give a list of what `summarize` returns")
    if not summaries:
        raise ValueError("`summaries` is empty; give at least one.")
    if len(summaries) == 1:
        return summaries[0]

    def mean(*values: Any) -> Any:
        if None in values or isinstance(values[0], bool):
            return None if None in values else values[0]
        average = math.fsum(values) / len(values)
        return round(average) if isinstance(values[0], int) else average

    # a dataclass is no pytree: average its figures as nested dicts
    figures = [dataclasses.asdict(summary) for summary in summaries]
    layers = [figure.pop("layers") for figure in figures]

    def average(*figures: Any) -> Any:
        return jax.tree.map(mean, *figures, is_leaf=lambda x: x is None)

    averaged = average(*figures)
    intervals = {"writes": confidence_interval([summary.writes for summary in summaries])}
    reductions = [summary.reduction for summary in summaries if summary.reduction is not None]
    if len(reductions) == len(summaries):
        intervals["reduction"] = confidence_interval(reductions)
    averaged |= {
        "layers": {
            name: LayerSummary(**average(*(layer[name] for layer in layers))) for name in layers[0]
        },
        "chips": len(summaries),
        "intervals": intervals,
    }
    return Summary(**averaged)
