"""Work on layers ahead of the thread that takes it: as much at the same time as memory allows."""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

Outcome = TypeVar("Outcome")

# Weights of layers that are worked on at the same time, or done and waiting; a larger layer has
# the memory to itself.
_WEIGHTS = 2**25
# Layers ahead for each core: one that takes long leaves the other cores enough to do meanwhile.
_LAYERS_PER_CORE = 4


class Job(NamedTuple, Generic[Outcome]):
    """The work on a layer.

    Attributes:
      name: of the layer.
      weights: how many it has.
      start: what can be done beside other layers; returns the rest, which follows the layer before.
    """

    name: str
    weights: int
    start: Callable[[], Callable[[], Outcome]]


def in_order(jobs: Iterable[Job[Outcome]], tell: Callable[[str], None]) -> Iterator[Outcome]:
    """Works on layers at the same time, and gives what comes of them in their order.

    Args:
      jobs: taken one by one, no earlier than there is memory for what they hold.
      tell: called with the layer that is waited for.
    """
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[tuple[Job[Outcome], Future[Callable[[], Outcome]]]] = deque()

        def next_one() -> Outcome:
            job, started = waiting.popleft()
            tell(f"planning {job.name}")
            return started.result()()

        for job in jobs:
            # a large layer waits until those before it are gone
            while waiting and job.weights + sum(one.weights for one, _ in waiting) > _WEIGHTS:
                yield next_one()
            waiting.append((job, pool.submit(job.start)))
            if len(waiting) > _LAYERS_PER_CORE * cores:
                yield next_one()
        while waiting:
            yield next_one()


def one_after_another(
    sizes: Mapping[str, int],
    prepare: Callable[[str], Callable[[Any], tuple[Outcome, Any]]],
    anew: Callable[[Any], Any],
    progress: Callable[[float, str], None] | None,
) -> Iterator[tuple[str, Outcome]]:
    """Works on layers of which each follows on what the one before left.

    Args:
      sizes: weights of each layer, in order.
      prepare: what can be done beside other layers; returns the rest, from what is left before to
        what is left after.
      anew: called with what the last one left: what to start from once more; None to keep it.
      progress: called with the finished share and the layer that is waited for, if not None.

    Yields:
      (layer, what comes of it), all of them again where they start once more.
    """
    left: Any = {}
    start, share, everything = left, 0.0, sum(sizes.values())

    def finish(prepared: list[Callable[[Any], tuple[Outcome, Any]]]) -> Outcome:
        nonlocal left
        outcome, left = prepared.pop()(left)  # popped, so that what it holds goes
        return outcome

    def job(name: str) -> Job[Outcome]:
        return Job(name, sizes[name], lambda: functools.partial(finish, [prepare(name)]))

    def tell(stage: str) -> None:
        if progress:
            progress(share, stage)

    while start is not None:
        left, done = start, 0
        for name, outcome in zip(sizes, in_order(map(job, sizes), tell), strict=True):
            done += sizes[name]
            share = max(share, done / everything)  # a bar never goes back
            yield name, outcome
        start = anew(left)
