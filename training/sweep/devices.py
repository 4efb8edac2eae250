"""Chips programmed and tested over all devices of all hosts, a chunk on each at once.

Every device runs the same program on the same shapes whatever the number of devices, so that
results are the same to the bit on one or many, on one host or several.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32, Int64, PyTree, UInt32

import memsim
from training.data import Batch
from training.evaluation import Apply, read_key
from training.sweep import memory

T = TypeVar("T")


class Measured(NamedTuple):
    """The writes that chips took, and how many images they get right; host arrays.

    Attributes:
      counts: int64 [chips, passes, layers, ...], exact.
      correct: images that each chip classifies right; 0 if there were none.
    """

    counts: memsim.Counts
    correct: Int64[np.ndarray, " chips"]


def program_chunk(
    key: UInt32[Array, "..."],
    params: PyTree,
    plan: memsim.Plan,
    stuck_at: Float32[Array, ""],
    chips: Int32[Array, " chips"],
    writing: memsim.Writing | None = None,
    *,
    passes: int,
    readout: memsim.Readout | None = None,
    own_plans: bool = False,
) -> tuple[PyTree, memsim.Counts]:
    """Samples chips and programs the network onto them, all at once.

    Args:
      key: data of the sweep's key; chip n draws from `fold_in(key, n)`.
      stuck_at: share of cells stuck at each of the two levels.
      chips: their numbers.
      writing: how writes fail; None where none does.
      passes: static, see `memsim.program`.
      readout: static, how chips are read; None for ideal cells and wires.
      own_plans: static, whether `plan` has a leading axis of chips.
    """

    def one(number: Int32[Array, ""], plan: memsim.Plan) -> tuple[PyTree, memsim.Counts]:
        own = jax.random.fold_in(jax.random.wrap_key_data(key), number)
        chip = memsim.sample_chip(own, plan, stuck_at, stuck_at)
        held, programming = memsim.program(
            params, plan, chip, passes=passes, words=readout is not None, writing=writing
        )
        if readout is not None:
            held = memsim.read_weights(read_key(chip), held, plan, programming, readout)
        return held, programming.counts

    return jax.vmap(one, in_axes=(0, 0 if own_plans else None))(chips, plan)


def count_correct(
    held: PyTree,
    images: Array,
    labels: Int32[Array, " images"],
    real: Bool[Array, " images"],
    *,
    apply: Apply,
    at_once: bool,
) -> Int32[Array, " chips"]:
    """Counts the images of a batch that each chip classifies right.

    Args:
      held: weights with a leading axis of chips.
      real: which images are more than padding.
      at_once: static, all chips side by side or one after another.
    """

    def one(params: PyTree) -> Array:
        right = jnp.argmax(apply(params, images), axis=-1) == labels
        return jnp.sum(right & real, dtype=jnp.int32)

    return jax.vmap(one)(held) if at_once else jax.lax.map(one, held)


class Engine:
    """Programs and tests any number of chips of one network.

    Compiles once for all plans of the same shapes, and tests by one program whatever the plan.
    """

    def __init__(
        self,
        apply: Apply,
        params: PyTree,
        seed: int,
        passes: int,
        readout: memsim.Readout | None = None,
    ) -> None:
        self.devices = len(jax.devices())
        self._mesh = jax.make_mesh((self.devices,), ("chips",))
        self._key = self._place(jax.random.key_data(jax.random.key(seed)))
        self._params = self._place(params)
        same, split = PartitionSpec(), PartitionSpec("chips")
        shard = functools.partial(jax.shard_map, mesh=self._mesh, check_vma=False, out_specs=split)

        def program(own_plans: bool) -> Any:
            local = functools.partial(
                program_chunk, passes=passes, readout=readout, own_plans=own_plans
            )
            plan = split if own_plans else same
            return jax.jit(shard(local, in_specs=(same, same, plan, same, split, same)))

        self._program = {own_plans: program(own_plans) for own_plans in (False, True)}
        # a CPU is slow at the grouped convolutions that chips side by side make
        local = functools.partial(count_correct, apply=apply, at_once=not _on_cpu())
        self._test = jax.jit(shard(local, in_specs=(split, same, same, same)))

    def __call__(
        self,
        plan: memsim.Plan | Sequence[memsim.Plan],
        stuck_at: float,
        chips: Sequence[int],
        chunk: int,
        batches: Iterable[Batch] = (),
        writing: memsim.Writing | None = None,
    ) -> Measured:
        """Programs chips, and tests them where there are batches.

        Args:
          plan: of all chips, or of each.
          stuck_at: share of cells stuck, half of them at each level.
          chips: numbers of at most `chunk * devices` chips.
          chunk: chips on each device; other numbers compile again.
          batches: labelled images.
          writing: how writes fail; None where none does.

        Raises:
          RuntimeError: out of memory, here or in another process.
        """
        index = np.resize(np.arange(len(chips)), chunk * self.devices)  # the rest repeats some
        numbers = self._place(np.asarray(chips, np.int32)[index], "chips")
        rate = self._place(np.float32(stuck_at / 2))
        written = self._place(jax.tree.map(np.float32, writing))
        own_plans = not isinstance(plan, memsim.Plan)
        if own_plans:
            stacked = jax.tree.map(lambda *x: np.stack([np.asarray(leaf) for leaf in x]), *plan)
            placed = self._place(jax.tree.map(lambda x: x[index], stacked), "chips")
        else:
            placed = self._place(plan)

        def work() -> tuple[memsim.Counts, Array]:
            program = self._program[own_plans]
            held, counts = program(self._key, self._params, placed, rate, numbers, written)
            correct = jnp.zeros_like(numbers)
            for batch in padded(batches):
                correct = correct + self._test(held, *self._place(batch))
            return jax.block_until_ready((counts, correct))

        gathered = multihost_utils.process_allgather(on_every_process(work), tiled=True)
        counts, correct = jax.tree.map(lambda x: x[: len(chips)].astype(np.int64), gathered)
        return Measured(counts, correct)

    def chunk_in_memory(
        self,
        plan: memsim.Plan,
        batch: Batch,
        limit: int | None,
        most: int,
        own_plans: bool = False,
    ) -> int:
        """Finds how many chips a device can take at once, the same on every process.

        Args:
          plan: the largest there is.
          batch: the largest there is.
          limit: bytes, see `check_chunk`; None for as many chips as `device_memory` holds, at least
            one.
          most: chips, at most.
          own_plans: whether each chip has its own.

        Raises:
          ValueError: one chip takes more than `limit`.
        """

        def spare(chunk: int) -> int:
            return self._spare(plan, batch, limit, chunk, own_plans)

        at_most = spare(most)
        if at_most >= 0:  # compiled to be used
            return most
        alone = at_most if most == 1 else spare(1)
        if alone < 0:
            if limit is None:
                return 1
            raise ValueError(_too_little(limit, alone, 1))
        by_chip = max(1, (alone - at_most) // (most - 1))
        chunk = max(1, min(most - 1, 1 + alone // by_chip))
        # what compiling leaves behind counts too
        while chunk > 1 and spare(chunk) < 0:
            chunk = max(1, 3 * chunk // 4)
        return chunk

    def check_chunk(
        self, plan: memsim.Plan, batch: Batch, limit: int, chunk: int, own_plans: bool = False
    ) -> None:
        """Checks that a chunk stays within a limit, on every process.

        Args:
          plan, batch, own_plans: see `chunk_in_memory`.
          limit: bytes: of the whole process on a CPU, of each device elsewhere.
          chunk: chips on each device.

        Raises:
          ValueError: it takes more.
        """
        spare = self._spare(plan, batch, limit, chunk, own_plans)
        if spare < 0:
            raise ValueError(_too_little(limit, spare, chunk))

    def _spare(
        self, plan: memsim.Plan, batch: Batch, limit: int | None, chunk: int, own_plans: bool
    ) -> int:
        """Finds the bytes that a chunk leaves free on the process where they are fewest."""
        taken = self._bytes(plan, batch, chunk, own_plans)
        if limit is not None and _on_cpu():  # devices share the memory of the process
            taken = len(jax.local_devices()) * taken + memory.resident() + memory.LATER
        allowed = device_memory() if limit is None else limit
        # float32: JAX has no int64 to gather
        spare = multihost_utils.process_allgather(np.float32(allowed - taken))
        return int(np.min(spare))

    def drop_programs(self) -> None:
        """Lets go of the programs of crossbars that are done, which hold tens of megabytes each."""
        for program in self._program.values():
            program.clear_cache()

    def _bytes(self, plan: memsim.Plan, batch: Batch, chunk: int, own_plans: bool) -> int:
        """Finds the memory that a chunk takes on each device, as the compiler lays it out."""
        count = chunk * self.devices
        split = NamedSharding(self._mesh, PartitionSpec("chips"))

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)

        if own_plans:
            placed = jax.tree.map(
                lambda x: shape(jax.ShapeDtypeStruct((count, *x.shape), x.dtype)), plan
            )
        else:
            placed = self._place(plan)
        numbers = shape(jax.ShapeDtypeStruct((count,), np.int32))
        rate = self._place(np.float32(0))
        given = (self._key, self._params, placed, rate, numbers, None)
        held, _ = jax.eval_shape(self._program[own_plans], *given)
        (tested,) = padded([batch])
        return max(
            _memory(self._program[own_plans], *given),
            _memory(self._test, jax.tree.map(shape, held), *self._place(tested)),
        )

    def _place(self, tree: PyTree, axis: str | None = None) -> PyTree:
        """Puts host arrays on every device, whole or split along their first axis."""
        sharding = NamedSharding(self._mesh, PartitionSpec(axis) if axis else PartitionSpec())

        def place(x: Any) -> Array:
            host = np.asarray(x)
            return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

        return jax.tree.map(place, tree)


def _memory(function: Any, *arguments: PyTree) -> int:
    analysis = function.lower(*arguments).compile().memory_analysis()
    parts = ("temp", "output", "argument")
    return sum(int(getattr(analysis, f"{part}_size_in_bytes")) for part in parts)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def device_memory() -> int:
    """Finds the bytes that a chunk may take on a device: 1 GB of a CPU's, 80 % of others'."""
    stats = None if _on_cpu() else jax.local_devices()[0].memory_stats()
    return int(0.8 * stats["bytes_limit"]) if stats else 10**9


def _too_little(limit: int, spare: int, chunk: int) -> str:
    chips = "one chip" if chunk == 1 else f"a chunk of {chunk} chips"
    # rounded up, so that what it names is enough
    needed = -(-(limit - spare) // 10**7) / 100
    return (
        f"`--memory` is {limit / 1e9:g} GB, and {chips} on each device takes {needed:g} with what "
        f"the process holds beside it; give `--memory` {needed + 0.05:.2f} or more, a "
        "smaller `--batch` or `--chunk`, or leave it out."
    )


def most_chips(chips: int) -> int:
    """Limits the chips on a device at once: more are no faster and leave other devices idle.

    Args:
      chips: all there are; chunks of them are as even as can be.
    """
    most = 16 if _on_cpu() else 64
    return -(-chips // -(-chips // most))


def padded(batches: Iterable[Batch]) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (images, labels, which are real), the last batch as large as the others."""
    size = 0
    for images, labels in batches:
        count = len(labels)
        size = size or count
        pad = [(0, size - count)]
        images = np.pad(images, pad + [(0, 0)] * (images.ndim - 1))
        yield images, np.pad(labels, pad), np.arange(size) < count


def check_same_everywhere(settings: Mapping[str, Any]) -> None:
    """Checks that every process was started with these settings.

    Raises:
      ValueError: another one was started with others.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()
    every = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    every = every.reshape(-1, len(digest))
    other = np.flatnonzero(np.any(every != every[0], axis=1))
    if other.size:
        raise ValueError(
            f"process {other[0]} was started with other options, weights, images or versions than "
            "process 0; start all of them alike."
        )


def on_every_process(work: Callable[[], T]) -> T:
    """Calls `work` on every process; where it fails on any, it fails on all.

    Raises:
      Exception: what `work` raised here, or a RuntimeError that names the process it failed on.
    """
    error = None
    try:
        result = work()
    except Exception as raised:
        error = raised
    failed = np.flatnonzero(multihost_utils.process_allgather(np.bool_(error is not None)))
    if error is not None:
        raise error
    if failed.size:
        raise RuntimeError(f"process {failed[0]} failed; see what it says.")
    return result
