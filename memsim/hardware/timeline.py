"""The timeline of a pass: which array is written, multiplies or waits, and when."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from memsim._checks import check_kind, check_number, check_whole
from memsim.config import CrossbarConfig
from memsim.schedule import layer_schedule

__all__ = ["Stage", "Timeline", "make_timeline"]


class Stage(NamedTuple):
    """One layer on a timeline; times are of one section, in seconds.

    Attributes:
      name: of the layer.
      sections: of it.
      move: its index and words come from memory, which serves one section at a time.
      write: its array is written.
      product: its array multiplies all input vectors of a batch.
    """

    name: str
    sections: int
    move: float
    write: float
    product: float


class Timeline(NamedTuple):
    """The times of all sections, in the order that they are moved, in seconds from the start.

    Attributes:
      number: of arrays.
      layers: number of the stage of each section.
      arrays: the array of each.
      moved: when its words begin to be moved.
      written: when its array begins to be written.
      ready: when that is done.
      multiplied: when its products begin.
      done: when they are done.
    """

    number: int
    layers: Int64[np.ndarray, " sections"]
    arrays: Int64[np.ndarray, " sections"]
    moved: Float64[np.ndarray, " sections"]
    written: Float64[np.ndarray, " sections"]
    ready: Float64[np.ndarray, " sections"]
    multiplied: Float64[np.ndarray, " sections"]
    done: Float64[np.ndarray, " sections"]

    @property
    def seconds(self) -> float:
        """The time from the first word moved to the last product."""
        return float(self.done.max())

    def busy(self) -> dict[str, float]:
        """Gives the seconds that memory moves words, and that the busiest array does each thing."""

        def most(times: np.ndarray) -> float:
            return float(np.bincount(self.arrays, times).max())

        return {
            "memory": float((self.written - self.moved).sum()),
            "writing": most(self.ready - self.written),
            "products": most(self.done - self.multiplied),
        }

    def bottleneck(self) -> str:
        """Names what is busy for the longest: `memory`, `writing` or `products`."""
        busy = self.busy()
        return max(busy, key=lambda what: busy[what])


def make_timeline(
    stages: Sequence[Stage], config: CrossbarConfig, *, overlap: bool = True
) -> Timeline:
    """Works out when each section is moved, written and used.

    Sections go on the arrays as `layer_schedule` says. An array takes its next section when its
    products are done; memory moves one section at a time, to the array that was free first; a
    section multiplies when it is written and the layer before is done. So an array is written while
    others multiply.

    Args:
      stages: of the layers, in their order.
      config: the arrays, a number of them, and their schedule.
      overlap: False for one thing after another: the sum of all times.

    Raises:
      ValueError: no stages, a time below 0, or one array for every section, which is not streamed.

    >>> stages = [Stage("a", 2, 0.0, 3.0, 1.0), Stage("b", 1, 0.0, 3.0, 1.0)]
    >>> config = CrossbarConfig(crossbars=2)
    >>> make_timeline(stages, config).seconds, make_timeline(stages, config, overlap=False).seconds
    (8.0, 12.0)
    """
    _check(stages, config, overlap)
    placed = [layer_schedule(stage.sections, config) for stage in stages]
    # of each section its layer and array, in the order of programming
    layers = np.concatenate([np.full(one.slots.size, i) for i, one in enumerate(placed)])
    of_layers = [np.sort(one.slots) % (config.crossbars or 1) for one in placed]
    arrays = np.concatenate(of_layers).astype(np.int64)
    move, write, product = (
        np.array([getattr(stage, what) for stage in stages])[layers]
        for what in ("move", "write", "product")
    )
    if overlap:
        moved, ready, multiplied = _overlapped(layers, arrays, move, write, product)
    else:
        moved = np.cumsum(move + write + product) - (move + write + product)
        ready = multiplied = moved + move + write
    return Timeline(
        config.crossbars or 1, layers, arrays, moved, moved + move, ready, multiplied,
        multiplied + product,
    )  # fmt: skip


def _overlapped(
    layers: np.ndarray,
    arrays: np.ndarray,
    move: np.ndarray,
    write: np.ndarray,
    product: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plays the sections through: when each is moved, is ready, and multiplies.

    Args:
      layers, arrays: of each section, in the order of programming.
      move, write, product: seconds of each.
    """
    count = layers.size
    moved, ready, multiplied = np.zeros(count), np.zeros(count), np.zeros(count)
    queues = {int(array): iter(np.flatnonzero(arrays == array)) for array in np.unique(arrays)}
    left = np.bincount(layers)  # sections that are not done, by layer
    ends = np.zeros(left.size)
    inputs = np.full(left.size + 1, np.inf)  # when a layer has its inputs
    inputs[0] = 0.0
    waiting: list[list[int]] = [[] for _ in left]  # ready, but without inputs
    memory = 0.0
    # arrays by the time they are free; memory serves them in that order, those of one time by layer
    free = [(0.0, int(next(queue)), array) for array, queue in queues.items()]
    heapq.heapify(free)

    def multiply(section: int) -> None:
        layer, array = layers[section], int(arrays[section])
        multiplied[section] = max(ready[section], inputs[layer])
        done = multiplied[section] + product[section]
        ends[layer] = max(ends[layer], done)
        left[layer] -= 1
        following = next(queues[array], None)
        if following is not None:
            heapq.heappush(free, (done, int(following), array))

    while free:
        time, section, _ = heapq.heappop(free)
        moved[section] = max(memory, time)
        memory = moved[section] + move[section]
        ready[section] = memory + write[section]
        layer = layers[section]
        if np.isinf(inputs[layer]):
            waiting[layer].append(section)
            continue
        multiply(section)
        # the last of a layer gives the next its inputs, and that perhaps the one after it
        while layer < left.size and left[layer] == 0:
            inputs[layer + 1] = ends[layer]
            layer += 1
            for one in waiting[layer] if layer < left.size else ():
                multiply(one)
    return moved, ready, multiplied


def _check(stages: Sequence[Stage], config: CrossbarConfig, overlap: bool) -> None:
    check_kind("stages", stages, (list, tuple), "give a list, a `Stage` of each layer")
    check_kind("config", config, CrossbarConfig)
    check_kind("overlap", overlap, bool, "give True or False")
    if config.crossbars is None:
        raise ValueError(
            "`crossbars` is None, one for every section: nothing is streamed; give a number."
        )
    if not stages:
        raise ValueError("`stages` is empty; give at least one layer.")
    for stage in stages:
        check_kind("stages", stage, Stage, "give a list, a `Stage` of each layer")
        check_whole("sections", stage.sections, "give a number from 1", 1)
        for name in ("move", "write", "product"):
            check_number(name, getattr(stage, name), "give seconds from 0", 0)
