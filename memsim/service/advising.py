"""Stream a network, hold it, or hold it and rewrite adapters: what each takes, figure by figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, Key

from memsim._checks import check_kind, check_positive, check_whole
from memsim.config import CrossbarConfig
from memsim.hardware.inference import array_area, product_cost, product_costs, stages_of
from memsim.hardware.parts import Hardware
from memsim.hardware.passes import pass_cost
from memsim.hardware.timeline import make_timeline
from memsim.policies import Policy
from memsim.selection import Select
from memsim.service.costs import Figure, ServiceInputs, make_service_inputs, work_out_all
from memsim.service.lifetime import programmings_until_failure
from memsim.service.ownership import life_in_service, quantiles
from memsim.service.wear import WearHistogram, cycles_per_write, wear_cycles
from memsim.streaming import Chips, SteadyPass, Tensors, compare
from memsim.summary import LayerSummary, Summary

__all__ = ["HELD", "Advice", "Service", "advise"]

# The way that holds the whole network, one array for each section.
HELD = "held"

# Figures of every way, once it is known how many joules and seconds an inference takes.
_OF_EVERY = {
    "area": ("mm^2", "arrays * array_area"),
    "chips": (
        "", "max(ceil(arrays / arrays_of_chip), ceil(inferences_per_day * seconds / 86400))",
    ),
    "programmings_per_day": ("1/day", "inferences_per_day / inferences_per_programming"),
    "lifetime": ("years", "programmings_until_failure / programmings_per_day / 365.25"),
    "replaced_after": ("years", "min(lifetime, service_years)"),
    "hardware_cost": ("$/year", "chips * chip_price / replaced_after"),
    "energy_cost": ("$/year", "inferences_per_day * 365.25 * joules / 3.6e6 * energy_price"),
    "cost_per_million": (
        "$/10^6 inferences", "(hardware_cost + energy_cost) / 365.25 / inferences_per_day * 1e6",
    ),
}  # fmt: skip
_STREAMED = {
    "joules": ("J", "pass_joules / inferences_per_programming + product_joules"),
    "seconds": ("s", "batch_seconds / inferences_per_programming"),
    **_OF_EVERY,
    # chips that share the inferences are written in turn
    "lifetime": ("years", "programmings_until_failure * chips / programmings_per_day / 365.25"),
}
_HELD = {
    "joules": ("J", "programming_joules / inferences_per_programming + product_joules"),
    "seconds": ("s", "product_seconds"),
    **_OF_EVERY,
}
_ADAPTED = {
    "adapter_joules": ("J", "adapter_weights * programming_joules / weights"),
    "joules": (
        "J", "adapter_joules / inferences_per_programming + product_joules + adapter_products",
    ),
    "seconds": ("s", "product_seconds + adapter_seconds"),
    **_OF_EVERY,
}  # fmt: skip
# Where holding takes as much as streaming.
_BREAK_EVEN = {
    "break_even_programming": (
        "inferences per programming", "programming_joules / (joules - product_joules)",
    ),
    "break_even_arrays": (
        "arrays",
        "(hardware_cost + energy_cost - held_energy_cost) * held_replaced_after / chip_price"
        " * arrays_of_chip",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """The service that advice is for.

    Attributes:
      batch: inferences that a pass of a streamed network serves.
      inferences_per_programming: of a network that is held until a new version, or new adapters,
        are programmed.
      adapter_rank: of the two factors of an adapter of each layer.
      inputs: endurance and prices; None for the defaults, marked as placeholders.

    Raises:
      ValueError: a number below 1.
    """

    batch: int = 1
    inferences_per_programming: float = 1e6
    adapter_rank: int = 8
    inputs: ServiceInputs | None = None

    def __post_init__(self) -> None:
        check_whole("batch", self.batch, "give inferences per pass, from 1", 1)
        remedy = "give inferences between two programmings"
        check_positive("inferences_per_programming", self.inferences_per_programming, remedy)
        check_whole("adapter_rank", self.adapter_rank, "give a rank from 1", 1)


class Advice(NamedTuple):
    """The ways to run a network on hardware.

    Attributes:
      ways: figures by name, each with its formula and the inputs in it, by way: `streamed: POLICY`,
        `held`, `held, adapters rewritten`.
      hardware: they are on.
      inputs: endurance and prices.
    """

    ways: dict[str, dict[str, Figure]]
    hardware: Hardware
    inputs: ServiceInputs

    def best(self, figure: str) -> str:
        """Names the way with the least of a figure.

        Raises:
          ValueError: a figure that not every way has.
        """
        known = set.intersection(*(set(figures) for figures in self.ways.values()))
        if figure not in known:
            raise ValueError(f"`figure` is {figure!r}; choose one of {', '.join(sorted(known))}.")
        return min(self.ways, key=lambda way: self.ways[way][figure].value)


def advise(
    tensors: Mapping[str, Any] | Tensors,
    hardware: Hardware,
    policies: Mapping[str, Policy],
    positions: Mapping[str, int] | int,
    *,
    service: Service = Service(),
    config: CrossbarConfig | None = None,
    select: Select | None = None,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> Advice:
    """Compares streaming a network through the arrays there are with holding it on enough of them.

    Streamed, every batch takes a steady pass under a policy, written while other arrays multiply.
    Held, one array has each section, and all are programmed anew now and then. With adapters the
    network stays and two factors of low rank beside each layer are programmed instead.

    Args:
      tensors: arrays by name, or what loads them one at a time, see `compare`.
      hardware: with a number of arrays.
      policies: to stream under, by name.
      positions: input vectors of an inference by layer, see `memsim.hardware.find_positions`; one
        number for all of them, such as the tokens of a sequence.
      service: how often it is programmed, and what that costs.
      config: the arrays, where other words of it than those of the hardware matter.
      select: see `plan`.
      seed: of chips and endurance, 32 bits.
      progress: see `compare`.

    Raises:
      ValueError: hardware of any number of arrays; no policies; as `compare`.

    References:
      Adapters: Hu et al., LoRA, arXiv 2106.09685; on analog arrays arXiv 2411.17367.
    """
    check_kind("hardware", hardware, Hardware, "give what `memsim.hardware.read_hardware` returns")
    check_kind("service", service, Service, "give a memsim.service.Service")
    check_kind("policies", policies, Mapping, "give policies by name, {'sws': Policy.parse('sws')}")
    config = hardware.config() if config is None else config
    check_kind("config", config, CrossbarConfig)
    if config.crossbars is None:
        raise ValueError(
            "`hardware` has any number of arrays, so nothing has to be streamed; give a number."
        )
    if not policies:
        raise ValueError("`policies` is empty; give at least one to stream under.")
    priced = hardware.on(config)
    inputs = service.inputs or make_service_inputs(cells=hardware.cells.kind)
    wanted = {"unsorted": Policy.parse("unsorted"), **policies}
    # two passes: the second is the steady state
    found = compare(
        tensors, config, wanted, select=select, passes=2, steady=True, chips=Chips(seed=seed),
        writing=hardware.writing(config), progress=progress,
    )  # fmt: skip
    layers = found.steady["unsorted"].summary.layers
    # every layer sees as many, such as the tokens of a sequence
    if isinstance(positions, int):
        positions = dict.fromkeys(layers, positions)
    known = _Known(config, priced, positions, service, inputs, seed)
    held = _held(found.steady["unsorted"].summary, known)
    ways = {HELD: held, f"{HELD}, adapters rewritten": _adapted(held, layers, known)}
    streamed = {
        f"streamed: {name}": _streamed(found.steady[name], held, known) for name in policies
    }
    return Advice(streamed | ways, priced, inputs)


class _Known(NamedTuple):
    """The facts that all ways have in common."""

    config: CrossbarConfig
    hardware: Hardware
    positions: Mapping[str, int]
    service: Service
    inputs: ServiceInputs
    seed: int

    def shared(self) -> dict[str, Any]:
        """Lists the inputs of every formula."""
        return dataclasses.asdict(self.inputs.costs) | {
            "arrays_of_chip": float(self.config.crossbars or 1),
            "array_area": array_area(self.config, self.hardware),
        }


def _counted(values: Mapping[str, tuple[float, str, str]]) -> dict[str, Figure]:
    return {name: Figure(value, unit, how, {}) for name, (value, unit, how) in values.items()}


def _work_out(
    formulas: Mapping[str, tuple[str, str]], counted: Mapping[str, Figure], known: _Known
) -> dict[str, Figure]:
    inputs = known.shared() | {name: figure.value for name, figure in counted.items()}
    return dict(counted) | work_out_all(formulas, inputs)


def _streamed(steady: SteadyPass, held: Mapping[str, Figure], known: _Known) -> dict[str, Figure]:
    """Gives the figures of a network that is streamed, from the counts of a steady pass."""
    summary, batch = steady.summary, known.service.batch
    stages = stages_of(summary, known.positions, known.config, known.hardware, batch)
    cycles = [np.asarray(wear_cycles(writes, known.config)) for writes in steady.wear]
    life = life_in_service(
        summary, known.inputs, cycles=cycles, seed=known.seed, scheme=known.hardware.cells.pulses
    )
    counted = _counted({
        "arrays": (float(known.config.crossbars or 1), "", "of the hardware"),
        "pass_joules": (
            pass_cost(summary, known.hardware).total_joules, "J", "a steady pass, index included"
        ),
        "product_joules": (held["product_joules"].value, "J", "products of an inference"),
        "batch_seconds": (
            make_timeline(stages, known.config).seconds, "s", "timeline of a pass and its batch"
        ),
        "inferences_per_programming": (float(batch), "", "the batch"),
        "programmings_until_failure": life.figures["programmings_until_failure"][:3],
    })  # fmt: skip
    figures = _work_out(_STREAMED, counted, known)
    # and where holding takes as much
    of_held = {
        "programming_joules": held["programming_joules"].value,
        "held_energy_cost": held["energy_cost"].value,
        "held_replaced_after": held["replaced_after"].value,
    }
    values = {name: figure.value for name, figure in figures.items()}
    return figures | work_out_all(_BREAK_EVEN, known.shared() | of_held | values)


def _held(summary: Summary, known: _Known) -> dict[str, Figure]:
    """Gives the figures of a network that is held on one array for every section."""
    products = product_costs(summary, known.positions, known.config, known.hardware)
    # a new network changes as many cells as one layer after another does
    changed = summary.writes / summary.cells_programmed
    cells = float(summary.cells_programmed)
    counted = _counted({
        "arrays": (float(sum(x.sections for x in summary.layers.values())), "", "a section each"),
        "weights": (float(sum(x.weights for x in summary.layers.values())), "", "of the network"),
        "programming_joules": (
            pass_cost(summary, known.hardware).total_joules, "J",
            "a steady pass under unsorted: a new network over the old one",
        ),
        "product_joules": (
            sum(cost.total_joules for cost in products.values()), "J", "products of an inference"
        ),
        "product_seconds": (
            sum(cost.seconds for cost in products.values()), "s", "layers one after another"
        ),
        "inferences_per_programming": (
            float(known.service.inferences_per_programming), "", "asked for"
        ),
        "programmings_until_failure": (
            _life(cells, changed, known), "programmings", "median of the chips drawn"
        ),
    })  # fmt: skip
    return _work_out(_HELD, counted, known)


def _adapted(
    held: Mapping[str, Figure], layers: Mapping[str, LayerSummary], known: _Known
) -> dict[str, Figure]:
    """Gives the figures of a network that is held while adapters beside it are rewritten."""
    factors = [
        (factor, known.positions[name])
        for name, layer in layers.items()
        for factor in _factors(layer, known.service.adapter_rank, known.config)
    ]
    # both factors meet every input vector of their layer
    costs = [product_cost(one, times, known.config, known.hardware) for one, times in factors]
    weights = float(sum(factor.weights for factor, _ in factors))
    cells = weights * known.config.cells_per_word
    kept = ("weights", "programming_joules", "product_joules", "product_seconds",
            "inferences_per_programming")  # fmt: skip
    counted = {name: held[name] for name in kept} | _counted({
        "arrays": (
            held["arrays"].value + sum(factor.sections for factor, _ in factors), "",
            "a section each, those of adapters too",
        ),
        "adapter_weights": (weights, "", "rank * (inputs + outputs) of every layer"),
        "adapter_products": (
            sum(cost.total_joules for cost in costs), "J", "products with adapters"
        ),
        "adapter_seconds": (
            sum(cost.seconds for cost in costs), "s", "factors one after another"
        ),
        "programmings_until_failure": (
            _life(cells, 0.5, known), "programmings", "half the cells of adapters change"
        ),
    })  # fmt: skip
    return _work_out(_ADAPTED, counted, known)


def _factors(layer: LayerSummary, rank: int, config: CrossbarConfig) -> list[LayerSummary]:
    """Gives the two factors of an adapter as layers: [inputs, rank] and [rank, outputs]."""
    # no rank is higher than that of the layer
    rank = min(rank, layer.inputs, layer.outputs)
    factors = []
    for inputs, outputs in ((layer.inputs, rank), (rank, layer.outputs)):
        groups, cuts = -(-outputs // config.words_per_row), -(-inputs // config.rows)
        factors.append(
            dataclasses.replace(
                layer,
                inputs=inputs,
                outputs=outputs,
                weights=inputs * outputs,
                sections=groups * cuts,
                rows_programmed=groups * inputs,
                slots_programmed=cuts * outputs,
                index_bits=0.0,
            )
        )
    return factors


def _life(cells: float, changed: float, known: _Known) -> float:
    """Gives the median programmings until a cell fails, where all wear alike.

    Args:
      cells: how many there are.
      changed: share of them that a programming changes.
    """
    # each cell in its turn: in the long run all of them as often
    cycles = changed * float(cycles_per_write(known.config).mean())
    wear = WearHistogram(np.array([cycles], np.float32), np.array([cells], np.float32))

    @jax.jit
    @jax.vmap
    def draw(key: Key[Array, ""]) -> Float32[Array, ""]:
        return programmings_until_failure(key, wear, known.inputs.endurance)

    keys = jax.random.split(jax.random.key(known.seed), 1000)
    return quantiles(np.asarray(draw(keys), np.float64))[1]
