"""Several policies on one network, counted side by side: what `memsim report` runs.

Layers stream through in chunks of one size: memory and compilation do not grow with the network.
"""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from memsim.chip import Chip, Stuck, check_rates, fault_words, new_chip, with_faults
from memsim.codes import AnyArray, rounded_quotient
from memsim.config import COMPETITORS, CrossbarConfig, Policy, validate
from memsim.network import sum_per_layer, target_words
from memsim.planning import (
    Held,
    LayerPlan,
    layer_scale,
    plan_layer,
    sections_by_output,
    select_layers,
    settle_layer,
    stuck_cells,
)
from memsim.programming import Counts, Stucking, program_steps
from memsim.schedule import Schedule, Slots, network_schedule
from memsim.selection import Select, select_by_name
from memsim.summary import (
    LayerSummary,
    Summary,
    layer_facts,
    mean_over_chips,
    summarize_counts,
    with_reduction,
)

# Words per chunk.
_CHUNK_WORDS = 2**19


class SteadyPass(NamedTuple):
    """One pass of weight streaming over crossbars that hold the end of the pass before.

    Attributes:
      summary: of the last pass, mean over chips.
      wear: writes per cell in a pass, [crossbars, rows, columns], the mean of all but the first, of
        each chip; of one where chips do not differ.
    """

    summary: Summary
    wear: list[np.ndarray]


class Comparison(NamedTuple):
    """What `compare` found.

    Attributes:
      policies: by name as given, means over chips; `reduction` is against `unsorted` on the same
        chips.
      digital: names of the tensors left out.
      steady: of each policy, if asked, the last pass by itself.
    """

    policies: dict[str, Summary]
    digital: list[str]
    steady: dict[str, SteadyPass]


def compare(
    tensors: Mapping[str, Any],
    config: CrossbarConfig,
    policies: Mapping[str, Policy],
    *,
    load: Callable[[str], Any] | None = None,
    old: Mapping[str, Any] | None = None,
    load_old: Callable[[str], Any] | None = None,
    keep_placement: bool = False,
    select: Select | None = None,
    passes: int = 1,
    chips: int = 1,
    seed: int = 0,
    stuck_at_0: float = 0.0,
    stuck_at_1: float = 0.0,
    faults: tuple[np.ndarray, np.ndarray] | None = None,
    steady: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Counts what each policy writes to program a network, on the same chips.

    With `old`, what it writes to deploy the network over an older version of it, weight stationary:
    the chips hold the old one, programmed under the same policy, and only what follows is counted.

    Args:
      tensors: by name, arrays or anything with their `shape`, `dtype`, `ndim` and `size`.
      config: the crossbars.
      policies: by the name to report them under; those with `faults=avoid` are planned for each
        chip.
      load: gives the array of a name; by default it is in `tensors`.
      old, load_old: the older version, in the same form.
      keep_placement: the new weights take the places of the old ones, instead of being placed
        afresh: the index in the routing memory stays.
      select: see `plan`.
      passes: times the network is programmed, state carrying over.
      chips: chips to average over.
      seed: source of the chips' keys.
      stuck_at_0, stuck_at_1: stuck-at rates, see `sample_chip`.
      faults: instead of rates, the stuck cells of every chip: (stuck_at_0, stuck_at_1), bool
        [crossbars, rows, columns].
      steady: also tell the last of several passes by itself, and what all but the first wear.
      progress: called with the finished fraction.

    Raises:
      ValueError: as `plan` and `sample_chip`; `passes` or `chips` below 1; a fault map of another
        shape; an `old` network with other weight matrices, or on shared crossbars; `steady` of a
        single pass.
    """
    for argument, value in (("passes", passes), ("chips", chips)):
        if value < 1:
            raise ValueError(f"`{argument}` is {value}; give at least 1.")
    if steady and passes < 2:
        raise ValueError(
            f"`passes` is {passes}, but the first pass is not `steady`; give at least 2."
        )
    for policy in policies.values():
        validate(config, policy)
    check_rates(stuck_at_0, stuck_at_1)
    axes = select_layers(tensors, select or select_by_name())
    if old is not None:
        _check_old(old, tensors, axes, config)
    elif keep_placement or load_old:
        raise ValueError(
            "`keep_placement` and `load_old` are of `old`; give the older version too."
        )
    keys = jax.random.split(jax.random.key(seed), chips)
    baseline = Policy.unsorted()
    wanted = dict.fromkeys((baseline, *policies.values()))

    def make_chip(key: Array, crossbars: int, config: CrossbarConfig) -> Chip:
        if faults is None:
            rates = jnp.asarray([stuck_at_0, stuck_at_1], jnp.float32)
            return new_chip(key, crossbars, config, rates[0], rates[1])
        low, high = (fault_words(cells, crossbars, config) for cells in faults)
        return with_faults(key, low, high)

    streams: dict[tuple[Policy, _Placing], _Stream] = {}
    for policy in wanted:
        stored = policy.stored_on(config)
        # chips differ by their draws alone: where nothing is drawn one stands for all
        drawn = stuck_at_0 or stuck_at_1 or (policy.low_columns and policy.reprogram < 1)
        stucking = Stucking(
            reprogram=np.full(len(axes), policy.reprogram, np.float32),
            low_mask=np.full(len(axes), stored.low_mask(policy.low_columns), stored.word_dtype),
            fixed=np.full(len(axes), policy.draws == "fixed"),
        )
        some = keys if drawn else keys[:1]
        groups = {_Placing(policy.placing): some}
        if policy.faults == "avoid" and faults is None:  # chips with stuck cells of their own
            groups = {_Placing(policy.placing, i): some[i : i + 1] for i in range(len(some))}
        for placing, of_group in groups.items():
            stream = _Stream(stored, stucking, passes, of_group, make_chip, steady)
            streams[policy, placing] = stream
    facts: dict[Policy, dict[str, LayerSummary]] = {policy: {} for policy in wanted}

    def stuck_of(placing: _Placing) -> dict[str, Stuck]:
        if placing.policy.faults == "ignore":
            return {}
        crossbars = config.crossbars or sum(sections_by_output(tensors, axes, config).values())
        chip = make_chip(keys[placing.chip], crossbars, config)
        return stuck_cells(chip.stuck_at_0, chip.stuck_at_1, tensors, axes, config)

    placings = {placing: stuck_of(placing) for _, placing in streams}

    load = load or tensors.__getitem__
    rounds = [(load, load)] * passes  # what is programmed, and by which weights it is placed
    if old is not None:
        load_old = load_old or old.__getitem__
        rounds = [(load_old, load_old), *[(load, load_old if keep_placement else load)] * passes]
    laid_out, parts = 0, len(rounds) * len(axes) * len(placings)
    left: dict[_Placing, Held] = {}  # by the old network
    for number, (load_weights, load_placed) in enumerate(rounds):
        held = dict(left)
        for part in _lay_out_ahead(axes, load_weights, load_placed, config, placings, held):
            for (policy, placing), stream in streams.items():
                if placing == part.placing:
                    facts[policy][part.name] = part.facts
                    stream.add(part.target, part.slots)
            laid_out += 1
            if progress:
                progress(laid_out / parts)
        for stream in streams.values():
            stream.finish_pass()
            if old is not None and number == 0:
                stream.forget_counts()
        if old is not None and number == 0:  # what is matched follows its own network alone
            left = {p: held[p] for p in placings if p.policy.placement in COMPETITORS}

    summaries = {}
    for policy in wanted:
        of_chips = [
            summary
            for (streamed, _), stream in streams.items()
            if streamed == policy
            for summary in stream.summaries(facts[policy])
        ]
        summaries[policy] = of_chips * chips if len(of_chips) == 1 else of_chips
    means = {
        name: mean_over_chips(
            [
                with_reduction(summary, unsorted)
                for summary, unsorted in zip(summaries[policy], summaries[baseline], strict=True)
            ]
        )
        for name, policy in policies.items()
    }
    lasts = {}
    for name, policy in policies.items() if steady else ():
        of_policy = [stream for (streamed, _), stream in streams.items() if streamed == policy]
        passed = [last for stream in of_policy for last in stream.last_pass(facts[policy])]
        mean = mean_over_chips([summary for summary, _ in passed])
        lasts[name] = SteadyPass(mean, [wear for _, wear in passed])
    return Comparison(means, [name for name in tensors if name not in axes], lasts)


class _Placing(NamedTuple):
    """What decides on placements.

    Attributes:
      policy: without its bit stucking.
      chip: whose stuck cells it avoids, if it avoids any.
    """

    policy: Policy
    chip: int = 0


class _LaidOut(NamedTuple):
    """One layer under one placement, ready to program."""

    name: str
    placing: _Placing
    facts: LayerSummary
    target: np.ndarray  # words [steps, crossbars, rows]
    slots: Slots


def _check_old(
    old: Mapping[str, Any],
    tensors: Mapping[str, Any],
    axes: Mapping[str, tuple[int, ...]],
    config: CrossbarConfig,
) -> None:
    if config.crossbars is not None:
        raise ValueError(
            f"`crossbars` is {config.crossbars}, but deploying over an `old` network is weight "
            "stationary; use None (command line: all)."
        )
    for name in axes:
        shape = tuple(tensors[name].shape)
        if name not in old or tuple(old[name].shape) != shape:
            found = f"is {tuple(old[name].shape)}" if name in old else "is missing"
            raise ValueError(
                f"`old` is no older version of this network: `{name}` {found} there and {shape} "
                "here; give a checkpoint with the same weight matrices, or leave this one digital "
                "(`select`; command line: --exclude)."
            )


def _lay_out_ahead(
    axes: Mapping[str, tuple[int, ...]],
    load: Callable[[str], Any],
    load_placed: Callable[[str], Any],
    config: CrossbarConfig,
    placings: Mapping[_Placing, Mapping[str, Stuck]],
    held: dict[_Placing, Held],
) -> Iterator[_LaidOut]:
    """Every layer under every placement; the next ones are planned meanwhile.

    `load_placed` gives the weights that are placed; those of `load` take their places. Each
    placement comes with the stuck cells that it avoids, by layer. `held` is what crossbars hold
    before, and is kept up to date.
    """

    def lay_out(
        number: int, name: str, weights: np.ndarray, placing: _Placing, layer: LayerPlan
    ) -> _LaidOut:
        used_rows = layer.placement.used_rows
        schedule, slots = network_schedule([used_rows], config, first_layer=number)
        target = np.asarray(_target(weights, layer, schedule, placing.policy.stored_on(config)))
        return _LaidOut(name, placing, layer_facts({name: layer})[name], target, slots)

    def work(
        number: int, name: str, weights: np.ndarray, placed: np.ndarray, placing: _Placing
    ) -> Callable[[], _LaidOut]:
        policy, stored = placing.policy, placing.policy.stored_on(config)
        if policy.placement in COMPETITORS:
            placed = weights  # places are the same; what is stored there goes by the weights
        layer = plan_layer(name, placed, axes[name], stored, policy, placings[placing].get(name))
        if placed is not weights:
            layer = layer._replace(scale=layer_scale(name, weights, axes[name], config))
        if policy.settles:  # on the layer before, so one after another
            return lambda: lay_out(number, name, weights, placing, settle(name, placing, layer))
        done = lay_out(number, name, weights, placing, layer)
        return lambda: done

    def settle(name: str, placing: _Placing, layer: LayerPlan) -> LayerPlan:
        before = held.get(placing, {})
        stored = placing.policy.stored_on(config)
        settled, held[placing] = settle_layer(name, layer, before, stored, placing.policy)
        return settled

    ahead = os.cpu_count() or 1
    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[Future[Callable[[], _LaidOut]]] = deque()
        for number, name in enumerate(axes):
            weights = np.asarray(load(name))
            placed = weights if load_placed is load else np.asarray(load_placed(name))
            for placing in placings:
                waiting.append(pool.submit(work, number, name, weights, placed, placing))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()()
        while waiting:
            yield waiting.popleft().result()()


class _Tally(NamedTuple):
    """One chip in the middle of being programmed.

    Attributes:
      chip: as it is now.
      counts: of this pass so far, [layers, ...].
      wear: unsigned [crossbars, rows, columns], writes per cell so far.
    """

    chip: Chip
    counts: Counts
    wear: UInt[AnyArray, "crossbars rows columns"]


class _Stream:
    """Takes one policy's layers as they come and programs them onto every chip, chunk by chunk."""

    def __init__(
        self,
        config: CrossbarConfig,
        stucking: Stucking,
        passes: int,
        keys: Array,
        make_chip: Callable[[Array, int, CrossbarConfig], Chip],
        keep_wear: bool,
    ) -> None:
        self._config = config
        self._stucking = stucking
        self._passes = passes
        self._keys = keys
        self._make_chip = make_chip
        self._tallies: list[_Tally] = []
        self._waiting: list[tuple[np.ndarray, Slots]] = []
        self._counts: list[list[Counts]] = [[] for _ in keys]  # of every chip, every pass
        self._keep_wear = keep_wear
        self._first_wear: list[np.ndarray] = []  # of every chip, in the first pass

    def add(self, target: np.ndarray, slots: Slots) -> None:
        """Words [steps, crossbars, rows] and what they are."""
        self._waiting.append((target, slots))
        chunk = self._chunk
        while chunk and sum(words.shape[0] for words, _ in self._waiting) >= chunk:
            joined = self._join()
            self._program(jax.tree.map(lambda x: x[:chunk], joined))
            self._waiting = [jax.tree.map(lambda x: x[chunk:], joined)]

    def finish_pass(self) -> None:
        """Programs what is waiting; what comes next is the next pass."""
        joined = self._join()
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
        if self._keep_wear and not self._first_wear:
            self._first_wear = [np.asarray(tally.wear) for tally in self._tallies]

    def forget_counts(self) -> None:
        """What was written so far no longer counts; the chips stay as they are."""
        self._counts = [[] for _ in self._keys]
        self._tallies = [
            tally._replace(wear=np.zeros(tally.wear.shape, tally.wear.dtype))
            for tally in self._tallies
        ]

    def summaries(self, facts: Mapping[str, LayerSummary]) -> list[Summary]:
        """One for each chip."""
        return [
            summarize_counts(
                jax.tree.map(lambda *passes: np.stack(passes), *counts),
                facts,
                int(tally.wear.max()),
                self._config.cell_bits,
            )
            for counts, tally in zip(self._counts, self._tallies, strict=True)
        ]

    def last_pass(self, facts: Mapping[str, LayerSummary]) -> list[tuple[Summary, np.ndarray]]:
        """Of each chip, the summary of the last pass, and the wear of a pass after the first."""
        found = []
        for counts, before, tally in zip(
            self._counts, self._first_wear, self._tallies, strict=True
        ):
            last = jax.tree.map(lambda x: x[None], counts[-1])
            wear = (np.asarray(tally.wear) - before) / np.float32(self._passes - 1)
            most = round(float(wear.max()))
            found.append((summarize_counts(last, facts, most, self._config.cell_bits), wear))
        return found

    @property
    def _chunk(self) -> int | None:
        """Steps programmed at once; None where all layers sit side by side in one step."""
        if self._config.crossbars is None:
            return None
        return max(1, _CHUNK_WORDS // (self._config.crossbars * self._config.physical_rows))

    def _join(self) -> tuple[np.ndarray, Slots]:
        if len(self._waiting) == 1:
            return self._waiting[0]
        axis = 1 if self._config.crossbars is None else 0
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis), *self._waiting)

    def _program(self, chunk: tuple[np.ndarray, Slots]) -> None:
        if not self._tallies:
            self._tallies = [self._new_tally(key, chunk[0].shape[1]) for key in self._keys]
        self._tallies = [
            _program_chunk(tally, *chunk, self._stucking, self._config) for tally in self._tallies
        ]

    def _new_tally(self, key: Array, crossbars: int) -> _Tally:
        rows, columns = self._config.physical_rows, self._config.columns
        counts = np.zeros((self._stucking.fixed.size, columns), np.int32)
        # weight stationary, a cell is written at most once a pass; the wear is as large as the chip
        wear = np.min_scalar_type(self._passes) if self._config.crossbars is None else np.uint32
        return _Tally(
            self._make_chip(key, crossbars, self._config),
            Counts(counts, counts, counts[:, 0], counts[:, 0], counts[:, 0]),
            np.zeros((crossbars, rows, columns), wear),
        )


@functools.partial(jax.jit, static_argnames="config")
def _target(
    weights: Float[Array, "..."], layer: LayerPlan, schedule: Schedule, config: CrossbarConfig
) -> UInt[Array, "steps crossbars rows"]:
    return target_words([rounded_quotient(weights, layer.scale)], [layer], schedule, config)


@functools.partial(jax.jit, static_argnames="config")
def _program_chunk(
    tally: _Tally,
    target: UInt[Array, "steps crossbars rows"],
    slots: Slots,
    stucking: Stucking,
    config: CrossbarConfig,
) -> _Tally:
    done = program_steps(target, slots, stucking, tally.chip, config, passes=1, wear=True)

    def add(before: Array, counts: Array) -> Array:
        return before + sum_per_layer(counts[0], slots.layer, before.shape[0])

    return _Tally(
        tally.chip._replace(state=done.state),
        jax.tree.map(add, tally.counts, done.counts),
        tally.wear + jnp.asarray(done.wear, tally.wear.dtype),
    )
