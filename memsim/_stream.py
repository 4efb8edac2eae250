"""Layers on their way to the chips: planned ahead on the host, programmed chunk by chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt

from memsim._ahead import Job, in_order
from memsim.chip import Chip, Stuck
from memsim.codes import AnyArray, rounded_quotient, to_codes
from memsim.config import CrossbarConfig
from memsim.network import anonymous, placed_words, target_words
from memsim.planning import LayerPlan, layer_scale, prepare_layer, schedule_layers
from memsim.policies.base import Held, Policy
from memsim.programming import Counts, Stucking, draws_cells, program_sections
from memsim.schedule import Slots, apply_schedule
from memsim.selection import Selected, slice_of
from memsim.summary import LayerSummary, Summary, layer_facts, summarize_counts
from memsim.writing import Writing

# Words per chunk.
_CHUNK_WORDS = 2**19

# Weights whose codes are worked out at once.
_CODED_WEIGHTS = 2**24

Load = Callable[[str], Any]


class Placing(NamedTuple):
    """The policy, and the chip, that decide on placements.

    Attributes:
      policy: without its bit stucking.
      chip: whose stuck cells it avoids, if it avoids any.
    """

    policy: Policy
    chip: int = 0


class LaidOut(NamedTuple):
    """One layer under one placement, ready to program.

    Attributes:
      name: of the layer.
      placing: what decided on its placement.
      facts: what its plan says of it.
      target: words [steps, crossbars, words].
      slots: what they are.
    """

    name: str
    placing: Placing
    facts: LayerSummary
    target: np.ndarray
    slots: Slots


class Round(NamedTuple):
    """The weights of one pass.

    Attributes:
      load: gives the tensor that is programmed.
      load_placed: gives the tensor that is placed; the other takes its places.
    """

    load: Load
    load_placed: Load


def lay_out_ahead(
    selected: Mapping[str, Selected],
    weights: Round,
    config: CrossbarConfig,
    placings: Mapping[Placing, Mapping[str, Stuck]],
    left: dict[Placing, Held],
    held: dict[Placing, Held],
    tell: Callable[[str], None] = lambda stage: None,
) -> Iterator[LaidOut]:
    """Lays out every layer under every placement; the next ones are planned meanwhile.

    How many that are is bounded by their weights: each takes about 20 bytes of memory.

    Args:
      selected: tensor and matrix of every layer, in the order of programming.
      weights: where they come from.
      config: without flag cells.
      placings: with the stuck cells that each avoids, by layer.
      left: what a pass starts from; kept up to date where a policy arranges a network anew: its
        layers then come once more, from the first one on.
      held: returned: what the layers so far left.
      tell: called with what is waited for: a layer that is read, or planned.
    """
    matrices = {name: matrix for name, (_, matrix) in selected.items()}

    def lay_out(
        number: int, name: str, tensor: np.ndarray, of: Placing, layer: LayerPlan
    ) -> LaidOut:
        stored = of.policy.stored_on(config)
        schedule, slots = schedule_layers([layer], config, first_layer=number)
        words = _target_of(slice_of(tensor, layer.matrix), anonymous(layer), stored)
        target = np.asarray(_scheduled(words, schedule))
        return LaidOut(name, of, layer_facts({name: layer}, stored)[name], target, slots)

    def work(
        number: int, name: str, tensor: np.ndarray, placed: np.ndarray, of: Placing
    ) -> Callable[[], LaidOut]:
        matrix, stored = matrices[name], of.policy.stored_on(config)
        # places are the same whatever the weights: what is stored there goes by the new ones
        placed = tensor if of.policy.recodes else placed
        stuck = placings[of].get(name)
        # popped, so that what it holds goes when it is done
        prepared = [prepare_layer(name, placed, matrices, stored, of.policy, stuck)]

        def finished() -> LayerPlan:
            layer, held[of] = prepared.pop()(held[of])
            if placed is not tensor:
                scale = layer_scale(name, slice_of(tensor, matrix), matrix, stored)
                layer = layer._replace(scale=scale)
            if tensor.size <= _CODED_WEIGHTS:
                return layer
            # one by one: what a name holds is not free
            layer = _without_positions(layer)
            return _on_device(layer)

        if of.policy.follows:  # the layer before, so one after another
            return lambda: lay_out(number, name, tensor, of, finished())
        done = lay_out(number, name, tensor, of, finished())
        return lambda: done

    def jobs(some: Sequence[Placing]) -> Iterator[Job[LaidOut]]:
        last, tensor, placed = "", np.empty(0), np.empty(0)
        for number, (name, (source, matrix)) in enumerate(selected.items()):
            if source != last:  # slices of one stack are read once
                tell(f"reading {source}")
                tensor = np.asarray(weights.load(source))
                same = weights.load_placed is weights.load
                placed = tensor if same else np.asarray(weights.load_placed(source))
                last = source
            for placing in some:
                job = functools.partial(work, number, name, tensor, placed, placing)
                yield Job(name, matrix.inputs * matrix.outputs, job)

    some = list(placings)
    while some:
        held |= {placing: left.get(placing, {}) for placing in some}
        yield from in_order(jobs(some), tell)
        anew = {each: each.policy.anew(held[each], each.policy.stored_on(config)) for each in some}
        some = [placing for placing in some if anew[placing] is not None]
        left |= {placing: start for placing, start in anew.items() if start is not None}


def _target_of(weights: np.ndarray, layer: LayerPlan, config: CrossbarConfig) -> Array:
    """Gives the words of a layer; the codes of a large one piece by piece.

    Quotients and their divisors are float32, four times what comes of them.
    """
    if weights.size <= _CODED_WEIGHTS:
        words: Array = target_words(jnp.asarray(weights), layer, config)
        return words
    rows = max(1, _CODED_WEIGHTS * len(weights) // weights.size)
    scale = np.asarray(layer.scale)
    # scales of outputs that lie along the first axis are cut with it
    cut = scale.ndim > 0 and scale.shape[0] > 1
    codes = np.empty(weights.shape, config.code_dtype)
    for first in range(0, len(weights), rows):
        some = slice(first, first + rows)
        codes[some] = _codes(weights[some], scale[some] if cut else scale, config)
    words = _placed_words(jnp.asarray(codes), layer, config)
    return words


@functools.partial(jax.jit, static_argnames="config")
def _codes(weights: Any, scale: Any, config: CrossbarConfig) -> Array:
    return to_codes(rounded_quotient(weights, scale), config)


_placed_words = jax.jit(placed_words, static_argnames="config")


def _without_positions(layer: LayerPlan) -> LayerPlan:
    """Lets go of positions, which laying a layer out does not take, as large as it in int32."""
    none = np.broadcast_to(np.int32(0), layer.placement.positions.shape)
    return layer._replace(placement=layer.placement._replace(positions=none))


def _on_device(layer: LayerPlan) -> LayerPlan:
    """Copies places, so that the host's may go."""
    places = jnp.asarray(layer.placement.weights).block_until_ready()
    return layer._replace(placement=layer.placement._replace(weights=places))


@jax.jit
def _scheduled(words: Any, schedule: Any) -> Array:
    return apply_schedule(words, schedule)


class Tally(NamedTuple):
    """One chip in the middle of being programmed.

    Attributes:
      chip: as it is now.
      counts: of this pass so far, [layers, ...].
      wear: unsigned [crossbars, rows, columns], writes per cell so far.
    """

    chip: Chip
    counts: Counts
    wear: UInt[AnyArray, "crossbars rows columns"]


class Stream:
    """Takes one policy's layers as they come and programs them onto every chip, chunk by chunk."""

    def __init__(
        self,
        config: CrossbarConfig,
        stucking: Stucking,
        passes: int,
        keys: Sequence[Array],
        make_chip: Callable[[Array, int, CrossbarConfig], Chip],
        keep_wear: bool,
        writing: Writing | None = None,
    ) -> None:
        self._config = config
        self._stucking = stucking
        self._draws = draws_cells(stucking)
        self._passes = passes
        self._keys = keys
        self._make_chip = make_chip
        self._tallies: list[Tally] = []
        self._begun: list[Tally] = []  # those before this pass
        self._waiting: list[tuple[np.ndarray, Slots]] = []
        self._counts: list[list[Counts]] = [[] for _ in keys]  # of every chip, every pass
        self._keep_wear = keep_wear
        self._writing = writing
        self._first_wear: list[np.ndarray] = []  # of every chip, in the first pass

    def add(self, target: np.ndarray, slots: Slots) -> None:
        """Takes words [steps, crossbars, words] and what they are.

        The first layer starts a pass, or starts it once more if the network is arranged anew.
        """
        if not slots.layer.any():
            self._tallies, self._waiting = list(self._begun), []
        self._waiting.append((target, slots))
        chunk = self._chunk
        while chunk and sum(words.shape[0] for words, _ in self._waiting) >= chunk:
            # chunks of one size: the program is compiled once
            joined = self._join()
            self._program(jax.tree.map(lambda x: x[:chunk], joined))
            self._waiting = [jax.tree.map(lambda x: x[chunk:], joined)]

    def finish_pass(self) -> None:
        """Programs what is waiting; what comes next is the next pass."""
        joined = self._join()
        # idle steps at the end, so that the last chunk is as long as the others
        idle = (self._chunk or 1) - joined[0].shape[0]
        self._program(
            jax.tree.map(lambda x: np.pad(x, [(0, idle)] + [(0, 0)] * (x.ndim - 1)), joined)
        )
        self._waiting = []
        for number, tally in enumerate(self._tallies):
            self._counts[number].append(
                jax.tree.map(lambda x: np.asarray(x, np.int64), tally.counts)
            )
            chip = tally.chip._replace(passes=tally.chip.passes + 1)
            nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tally.counts)
            self._tallies[number] = tally._replace(chip=chip, counts=nothing)
        self._begun = list(self._tallies)
        if self._keep_wear and not self._first_wear:
            self._first_wear = [np.asarray(tally.wear) for tally in self._tallies]

    def forget_counts(self) -> None:
        """Lets what was written so far no longer count; the chips stay as they are."""
        self._counts = [[] for _ in self._keys]
        self._tallies = [
            tally._replace(wear=np.zeros(tally.wear.shape, tally.wear.dtype))
            for tally in self._tallies
        ]
        self._begun = list(self._tallies)

    def summaries(self, facts: Mapping[str, LayerSummary]) -> list[Summary]:
        """Gives a summary for each chip."""
        return [
            summarize_counts(
                jax.tree.map(lambda *passes: np.stack(passes), *counts),
                facts,
                int(tally.wear.max()),
                self._config,
                self._writing,
            )
            for counts, tally in zip(self._counts, self._tallies, strict=True)
        ]

    def last_pass(self, facts: Mapping[str, LayerSummary]) -> list[tuple[Summary, np.ndarray]]:
        """Gives the summary of the last pass, and the wear of later ones, of each chip."""
        found = []
        for counts, before, tally in zip(
            self._counts, self._first_wear, self._tallies, strict=True
        ):
            # the first pass meets erased cells: it is no steady one
            last = jax.tree.map(lambda x: x[None], counts[-1])
            wear = (np.asarray(tally.wear) - before) / np.float32(self._passes - 1)
            most = round(float(wear.max()))
            summary = summarize_counts(last, facts, most, self._config, self._writing)
            found.append((summary, wear))
        return found

    @property
    def _chunk(self) -> int | None:
        """Steps programmed at once; None where all layers sit side by side in one step."""
        if self._config.crossbars is None:
            return None
        return max(1, _CHUNK_WORDS // (self._config.crossbars * self._config.physical_words))

    def _join(self) -> tuple[np.ndarray, Slots]:
        if len(self._waiting) == 1:
            return self._waiting[0]
        axis = 1 if self._config.crossbars is None else 0
        words, slots = zip(*self._waiting, strict=True)
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis), *slots)
        return np.concatenate(words, axis), Slots(*joined)

    def _program(self, chunk: tuple[np.ndarray, Slots]) -> None:
        # chips are made when it is known how many crossbars there are
        if not self._tallies:
            self._tallies = [self._new_tally(key, chunk[0].shape[1]) for key in self._keys]
        self._tallies = [
            _program_chunk(tally, *chunk, self._stucking, self._config, self._writing, self._draws)
            for tally in self._tallies
        ]

    def _new_tally(self, key: Array, crossbars: int) -> Tally:
        config = self._config
        per_column = np.zeros((self._stucking.fixed.size, config.cells_per_word), np.int32)
        per_row = per_column[:, 0]
        # weight stationary, a cell is written at most once a pass; the wear is as large as the chip
        wear = np.min_scalar_type(self._passes) if config.crossbars is None else np.uint32
        chip = self._make_chip(key, crossbars, config)
        if self._writing is not None and self._writing.controller == "blind":
            chip = chip._replace(planned=chip.state)
        wrong = None if self._writing is None else per_row
        return Tally(
            chip,
            Counts(
                sets=per_column,
                resets=per_column,
                row_operations=per_row,
                set_rows=per_row,
                reset_rows=per_row,
                set_pulses=per_column,
                reset_pulses=per_column,
                moved_words=per_row,
                row_flags=per_row,
                wrong=wrong,
            ),
            np.zeros((crossbars, config.physical_rows, config.bit_lines), wear),
        )


def policy_stucking(policy: Policy, layers: int, config: CrossbarConfig) -> Stucking:
    """Gives the bit stucking of a policy, the same for every layer."""
    p, low, draws = policy.stucking
    return Stucking(
        reprogram=np.full(layers, p, np.float32),
        low_mask=np.full(layers, config.low_mask(low), config.word_dtype),
        fixed=np.full(layers, draws == "fixed"),
    )


@functools.partial(jax.jit, static_argnames=("config", "draws"))
def _program_chunk(
    tally: Tally,
    target: UInt[Array, "steps crossbars words"],
    slots: Slots,
    stucking: Stucking,
    config: CrossbarConfig,
    writing: Writing | None,
    draws: bool,
) -> Tally:
    done = program_sections(
        target, slots, stucking, tally.chip, config, writing, passes=1, wear=True, draws=draws
    )
    return Tally(
        tally.chip._replace(state=done.state, planned=done.planned),
        jax.tree.map(lambda before, counts: before + counts[0], tally.counts, done.counts),
        tally.wear + jnp.asarray(done.wear, tally.wear.dtype),
    )
