"""Several policies on one network, counted side by side: what `memsim report` runs.

Layers stream through in chunks of one size: memory and compilation do not grow with the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from memsim._checks import check_kind, check_seed, check_whole
from memsim._stream import Load, Placing, Round, Stream, lay_out_ahead, policy_stucking
from memsim.chip import (
    Chip,
    Stuck,
    check_rates,
    fault_words,
    new_chip,
    whole_chip,
    with_faults,
)
from memsim.config import CrossbarConfig
from memsim.hardware.files import default_hardware
from memsim.hardware.passes import with_net_reduction
from memsim.planning import sections_by_output, stuck_cells
from memsim.policies import Policy, Unsorted, chips_differ
from memsim.policies.base import Held
from memsim.selection import Matrix, Select, Selected, select_layers, with_layouts
from memsim.summary import LayerSummary, Summary, mean_over_chips, with_reduction
from memsim.writing import Writing, check_writing

__all__ = ["Chips", "Comparison", "SteadyPass", "Tensors", "compare"]


class Chips(NamedTuple):
    """The chips that a comparison is a mean over.

    Attributes:
      number: how many there are.
      seed: source of their keys, 32 bits.
      stuck_at_0, stuck_at_1: stuck-at rates, see `sample_chip`.
      faults: instead of rates, the stuck cells of every chip: (stuck_at_0, stuck_at_1), bool
        [crossbars, rows, columns].
    """

    number: int = 1
    seed: int = 0
    stuck_at_0: float = 0.0
    stuck_at_1: float = 0.0
    faults: tuple[np.ndarray, np.ndarray] | None = None


class Tensors(Protocol):
    """A network whose tensors are loaded one at a time, such as `memsim.open_checkpoint` gives.

    Attributes:
      tensors: by name, anything with `shape`, `dtype`, `ndim` and `size`.
      load: gives the array of a name.
    """

    @property
    def tensors(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def load(self) -> Callable[[str], Any]: ...  # noqa: D102


Streams = dict[tuple[Policy, Placing], Stream]
Facts = dict[Placing, dict[str, LayerSummary]]  # what plans say of layers, by name


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
    """The figures that `compare` found.

    Attributes:
      policies: by name as given, means over chips; `reduction` is against `unsorted` on the same
        chips, and so is `net_reduction`, by the prices of the hardware `published`.
      digital: names of the tensors left out.
      matrices: tensor and matrix of every layer that is programmed: how each tensor was read.
      steady: of each policy, if asked, the last pass by itself.
      baseline: of every chip, what reductions are against; the `baseline` of comparisons with other
        crossbars.
    """

    policies: dict[str, Summary]
    digital: list[str]
    matrices: dict[str, Selected]
    steady: dict[str, SteadyPass]
    baseline: Sequence[Summary]


def compare(
    tensors: Mapping[str, Any] | Tensors,
    config: CrossbarConfig,
    policies: Mapping[str, Policy],
    *,
    old: Mapping[str, Any] | Tensors | None = None,
    keep_placement: bool = False,
    select: Select | None = None,
    passes: int = 1,
    chips: Chips = Chips(),  # noqa: B008 - it cannot change
    steady: bool = False,
    writing: Writing | None = None,
    baseline: Sequence[Summary] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Comparison:
    """Counts what each policy writes to program a network, on the same chips.

    With `old`, what it writes to deploy the network over an older version of it, weight stationary:
    the chips hold the old one, programmed under the same policy, and only what follows is counted.

    Args:
      tensors: arrays by name, or what loads them one at a time.
      config: the crossbars.
      policies: by the name to report them under; those with `faults=avoid` are planned for each
        chip.
      old: the older version, in the same form.
      keep_placement: the new weights take the places of the old ones, instead of being placed
        afresh: the index in the routing memory stays, and is not moved.
      select: see `plan`.
      passes: times the network is programmed, state carrying over.
      chips: to average over.
      steady: also tell the last of several passes by itself, and what all but the first wear.
      writing: how writes may fail; None: every pulse does what it should.
      baseline: that of a comparison on other crossbars, so that several encodings, widths or
        precisions have one; by default `unsorted` on these.
      progress: called with the finished fraction and the present stage, as `planning fc.weight`.

    Raises:
      ValueError: as `plan` and `sample_chip`; `passes` or `chips` below 1; a fault map of another
        shape; an `old` network with other weight matrices, or on shared crossbars; `steady` of a
        single pass; a `writing` of other columns; a `baseline` of other chips, passes or weights.

    >>> import numpy as np, memsim
    >>> params = {"kernel": np.arange(12, dtype=np.float32).reshape(4, 3)}
    >>> policies = {"sws": memsim.Policy.parse("sws")}
    >>> found = memsim.compare(params, memsim.CrossbarConfig(rows=2), policies)
    >>> found.policies["sws"].writes
    31
    """
    _check_arguments(config, policies, passes, chips, steady, writing)
    shapes, load = _opened(tensors)
    # a file may tell more of its tensors than their names do
    select = with_layouts(select, getattr(tensors, "layouts", {}))
    selected = select_layers(shapes, select)
    if old is None and keep_placement:
        raise ValueError("`keep_placement` keeps the places of an older version; give `old` too.")
    rounds = [Round(load, load)] * passes
    if old is not None:
        old_shapes, load_old = _opened(old)
        _check_old(old_shapes, shapes, selected, config)
        rounds = [Round(load, load_old if keep_placement else load)] * passes
        rounds.insert(0, Round(load_old, load_old))

    unsorted: Policy = Unsorted()
    if baseline is not None:
        _check_baseline(baseline, selected, passes, chips)
    wanted = list(dict.fromkeys((*([unsorted] if baseline is None else []), *policies.values())))
    streams = _make_streams(wanted, config, selected, chips, passes, steady, writing)
    facts = _program_all(streams, rounds, selected, config, chips, old is not None, progress)

    number, kept = chips.number, keep_placement
    summaries = {each: _of_chips(streams, facts, each, number, kept) for each in wanted}
    against = summaries[unsorted] if baseline is None else baseline
    means = {n: _mean_against(summaries[each], against, config) for n, each in policies.items()}
    asked = policies if steady else {}
    lasts = {n: _last_pass(_of_policy(streams, each), facts) for n, each in asked.items()}
    read = {tensor for tensor, _ in selected.values()}
    digital = [name for name in shapes if name not in read]
    return Comparison(means, digital, selected, lasts, against)


def _of_policy(streams: Streams, policy: Policy) -> dict[Placing, Stream]:
    return {placing: each for (streamed, placing), each in streams.items() if streamed == policy}


def _of_chips(
    streams: Streams, facts: Facts, policy: Policy, number: int, index_kept: bool
) -> list[Summary]:
    """Gives a summary for each chip; where chips do not differ, one was programmed for all."""
    of_chips = [
        summary
        for placing, stream in _of_policy(streams, policy).items()
        for summary in stream.summaries(facts[placing])
    ]
    if index_kept:  # it is there, and not moved again
        of_chips = [dataclasses.replace(one, index_bits=0) for one in of_chips]
    return of_chips * number if len(of_chips) == 1 else of_chips


def _mean_against(
    summaries: Sequence[Summary], baselines: Sequence[Summary], config: CrossbarConfig
) -> Summary:
    """Averages over chips, each against the baseline on the same chip."""
    pairs = zip(summaries, baselines, strict=True)
    mean = mean_over_chips([with_reduction(summary, baseline) for summary, baseline in pairs])
    hardware = default_hardware(config)
    if hardware is None:  # no prices of such cells
        return mean
    return with_net_reduction(mean, mean_over_chips(baselines), hardware)


def _last_pass(streams: Mapping[Placing, Stream], facts: Facts) -> SteadyPass:
    """Gives the last pass of one policy, by itself."""
    passed = [last for of, stream in streams.items() for last in stream.last_pass(facts[of])]
    mean = mean_over_chips([summary for summary, _ in passed])
    return SteadyPass(mean, [wear for _, wear in passed])


def _check_arguments(
    config: CrossbarConfig,
    policies: Mapping[str, Policy],
    passes: int,
    chips: Chips,
    steady: bool,
    writing: Writing | None,
) -> None:
    check_kind("config", config, CrossbarConfig, "give a memsim.CrossbarConfig")
    check_writing(writing, config)
    check_kind("policies", policies, Mapping, "give policies by name, {'sws': Policy.parse('sws')}")
    check_kind("chips", chips, Chips, "give memsim.Chips(number=8)")
    check_whole("passes", passes, "give at least 1", 1)
    check_whole("chips", chips.number, "give at least 1", 1)
    check_seed(chips.seed)
    check_rates(chips.stuck_at_0, chips.stuck_at_1)
    if steady and passes < 2:
        raise ValueError(
            f"`passes` is {passes}, but the first pass is not `steady`; give at least 2."
        )
    for name, policy in policies.items():
        check_kind(f"policies[{name!r}]", policy, Policy, "give a memsim.Policy")
        policy.check(config)


def _check_baseline(
    baseline: Sequence[Summary], selected: Mapping[str, Selected], passes: int, chips: Chips
) -> None:
    remedy = "give the `baseline` of a comparison of the same network, passes and chips"
    check_kind("baseline", baseline, (list, tuple), remedy)
    for one in baseline:
        check_kind("baseline", one, Summary, remedy)
    sizes = {name: matrix.inputs * matrix.outputs for name, (_, matrix) in selected.items()}
    found = [{name: of.weights for name, of in one.layers.items()} for one in baseline]
    times = [len(one.writes_per_pass) for one in baseline]
    if found != [sizes] * chips.number or times != [passes] * chips.number:
        raise ValueError(f"`baseline` is of other weights, passes or chips; {remedy}.")


def _make_streams(
    policies: Sequence[Policy],
    config: CrossbarConfig,
    selected: Mapping[str, Selected],
    chips: Chips,
    passes: int,
    keep_wear: bool,
    writing: Writing | None,
) -> Streams:
    """Makes a stream for every policy, or for every chip where each has a placement of its own."""
    rates = (chips.stuck_at_0, chips.stuck_at_1)
    differ = {policy: chips_differ(policy.stucking, *rates, writing=writing) for policy in policies}
    keys = _keys(chips) if any(differ.values()) else [jax.random.key(chips.seed)]
    streams: Streams = {}
    for policy in policies:
        stored = policy.stored_on(config)
        some = keys if differ[policy] else keys[:1]
        groups = {Placing(policy.placing): some}
        if policy.avoids_faults and chips.faults is None:  # chips with stuck cells of their own
            groups = {Placing(policy.placing, i): some[i : i + 1] for i in range(len(some))}
        stucking = policy_stucking(policy, len(selected), stored)
        for placing, of_group in groups.items():
            make = _chip_maker(chips, differ[policy])
            stream = Stream(stored, stucking, passes, of_group, make, keep_wear, writing)
            streams[policy, placing] = stream
    return streams


def _program_all(
    streams: Streams,
    rounds: Sequence[Round],
    selected: Mapping[str, Selected],
    config: CrossbarConfig,
    chips: Chips,
    redeployed: bool,
    progress: Callable[[float, str], None] | None,
) -> Facts:
    """Leads every round through all streams; gives what the plans say of the layers."""
    matrices = {name: matrix for name, (_, matrix) in selected.items()}
    placings = {placing: _stuck_of(placing, matrices, config, chips) for _, placing in streams}
    facts: Facts = {placing: {} for placing in placings}
    sizes = {name: each.inputs * each.outputs for name, each in matrices.items()}
    done, everything = 0, len(rounds) * len(placings) * sum(sizes.values()) or 1

    def tell(stage: str) -> None:
        if progress:
            progress(done / everything, stage)

    left: dict[Placing, Held] = {}  # what passes start from
    for number, weights in enumerate(rounds):
        held: dict[Placing, Held] = {}
        for part in lay_out_ahead(selected, weights, config, placings, left, held, tell):
            # but for layers that are arranged anew
            done += sizes[part.name] * (number > 0 or part.name not in facts[part.placing])
            facts[part.placing][part.name] = part.facts
            tell(f"programming {part.name}")
            for (_, placing), stream in streams.items():
                if placing == part.placing:
                    stream.add(part.target, part.slots)
        tell(f"programming the end of pass {number + 1}")
        for stream in streams.values():
            stream.finish_pass()
            if redeployed and number == 0:
                stream.forget_counts()
        if redeployed and number == 0:  # what is matched follows its own network alone
            left = {placing: held[placing] for placing in placings if placing.policy.recodes}
    tell("counting")
    return facts


def _keys(chips: Chips) -> Sequence[Array]:
    return list(jax.random.split(jax.random.key(chips.seed), chips.number))


def _chip_maker(chips: Chips, differ: bool) -> Callable[[Array, int, CrossbarConfig], Chip]:
    def make_chip(key: Array, crossbars: int, config: CrossbarConfig) -> Chip:
        if chips.faults is None and not differ:  # nothing is ever drawn from the key
            none = jnp.asarray(np.zeros((crossbars, config.physical_words), config.word_dtype))
            return Chip(key, jnp.int32(0), none, none, none)
        if chips.faults is None and not (chips.stuck_at_0 or chips.stuck_at_1):
            return whole_chip(key, crossbars, config)
        if chips.faults is None:
            rates = jnp.asarray([chips.stuck_at_0, chips.stuck_at_1], jnp.float32)
            drawn: Chip = new_chip(key, crossbars, config, rates[0], rates[1])
            return drawn
        low, high = (fault_words(cells, crossbars, config) for cells in chips.faults)
        return with_faults(key, low, high)

    return make_chip


def _stuck_of(
    placing: Placing, matrices: Mapping[str, Matrix], config: CrossbarConfig, chips: Chips
) -> dict[str, Stuck]:
    """Gives the stuck cells that a placement avoids, by layer."""
    if not placing.policy.avoids_faults:
        return {}
    crossbars = config.crossbars or sum(sections_by_output(matrices, config).values())
    chip = _chip_maker(chips, True)(_keys(chips)[placing.chip], crossbars, config)
    return stuck_cells(chip.stuck_at_0, chip.stuck_at_1, matrices, config)


def _opened(network: Mapping[str, Any] | Tensors) -> tuple[Mapping[str, Any], Load]:
    """Gives shapes by name, and what loads a tensor."""
    if isinstance(network, Mapping):
        return network, network.__getitem__
    if not (hasattr(network, "tensors") and hasattr(network, "load")):
        raise ValueError(
            f"`tensors` is a {type(network).__name__}; give arrays by name, or a checkpoint from "
            "memsim.open_checkpoint."
        )
    return network.tensors, network.load


def _check_old(
    old: Mapping[str, Any],
    tensors: Mapping[str, Any],
    selected: Mapping[str, Selected],
    config: CrossbarConfig,
) -> None:
    if config.crossbars is not None:
        raise ValueError(
            f"`crossbars` is {config.crossbars}, but deploying over an `old` network is weight "
            "stationary; use None (command line: all)."
        )
    for name in dict.fromkeys(tensor for tensor, _ in selected.values()):
        shape = tuple(tensors[name].shape)
        if name not in old or tuple(old[name].shape) != shape:
            found = f"is {tuple(old[name].shape)}" if name in old else "is missing"
            raise ValueError(
                f"`old` is no older version of this network: `{name}` {found} there and {shape} "
                "here; give a checkpoint with the same weight matrices, or leave this one digital "
                "(`select`; command line: --exclude)."
            )
