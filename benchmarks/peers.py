"""memsim beside CrossSim and IBM's aihwkit, on what both sides do.

    python -m benchmarks.peers

Bit-serial products through one array of 8-bit weights; draws of PCM cells; an array of PCM
programmed; layers of PCM programmed, an hour old and read, on one chip and on many. All in one
process, round by round, on the same number of threads (one; `--threads`): medians of processor time
and of time passed, and what a side's processor time is of memsim's (the median over the rounds).
Beside each stands how far its numbers are off. A peer that is not installed is said to be missing.
`NumPy` is a plain loop over bits and slices: what such a product takes without a library.

The part of CrossSim is written for its version 3.1, from its source, and has never been run.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import memsim
from benchmarks.peer_cores import (
    ADC_BITS,
    BITS,
    SECONDS,
    Size,
    aihwkit_bit_wise,
    aihwkit_chips,
    aihwkit_modules,
    aihwkit_pcm,
    crosssim_core,
)
from memsim.cells import Readout, program_cells, read_matmul, read_weights

FIRST_READ = 20.0
MICRO = 1e6  # siemens to the unit of aihwkit
# of each peer: the module, the distribution, and the command that installs it
PEERS = {
    "CrossSim": (
        "simulator",
        "CrossSim",
        "pip install git+https://github.com/sandialabs/cross-sim",
    ),
    "aihwkit": ("aihwkit", "aihwkit", "pip install aihwkit"),
}


class Contender(NamedTuple):
    """One side of a comparison.

    Attributes:
      name: what is printed.
      call: does the work, and gives its numbers.
      remark: what it does differently.
    """

    name: str
    call: Callable[[], Any]
    remark: str = ""


def installed() -> dict[str, str]:
    """Gives the version of each peer that is installed."""
    return {
        name: importlib.metadata.version(distribution)
        for name, (module, distribution, _) in PEERS.items()
        if importlib.util.find_spec(module)
    }


def weights_and_inputs(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers: weights [inputs, outputs] of 8 bits, inputs [vectors, inputs] of 0 to 127.

    The largest of each is there, so that nobody scales them. None of the inputs is negative: then
    two's complement and the unsigned inputs of others are the same bits.
    """
    rng = np.random.default_rng(0)
    most = 2 ** (BITS - 1) - 1
    weights = rng.integers(-most, most + 1, (size.side, size.side)).astype(np.float32)
    inputs = rng.integers(0, most + 1, (size.vectors, size.side)).astype(np.float32)
    weights[0, :], inputs[:, 0] = most, most
    return weights, inputs


def numpy_products(levels: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """One product, conversion, shift and addition for every bit of the inputs and every slice."""
    rows = len(levels[0])
    steps = (2**ADC_BITS - 1) / rows
    codes = inputs.astype(np.int32)
    total = np.zeros((len(inputs), levels.shape[2]), np.float32)
    for bit in range(BITS - 1):  # the top bit is that of a sign, which none has
        driven = (codes >> bit & 1).astype(np.float32)
        for place, slice_ in enumerate(levels):
            sums = np.rint((driven @ slice_) * np.float32(steps))
            total += np.clip(sums, 0, 2**ADC_BITS - 1) * np.float32(2 ** (bit + place) / steps)
    return total - 2 ** (BITS - 1) * inputs.sum(axis=1, keepdims=True)


def product_contenders(size: Size, peers: dict[str, str]) -> list[Contender]:
    """Bit-serial products: 8 slices of one bit, offset binary, one conversion a bit and slice."""
    weights, inputs = weights_and_inputs(size)
    found = []
    for encoding in ("offset_binary", "twos_complement"):
        config = memsim.CrossbarConfig(
            rows=size.side, columns=BITS * size.side, crossbars=None, encoding=encoding
        )
        plan = memsim.plan({"kernel": weights}, config, memsim.Policy.parse("unsorted"))
        chip = memsim.sample_chip(jax.random.key(0), plan)
        held, programming = memsim.program({"kernel": weights}, plan, chip, words=True)
        assert programming.words is not None  # noqa: S101 - they were asked for
        readout = Readout(input_bits=BITS, adc_bits=ADC_BITS)
        cells = program_cells(chip.key, programming.words["kernel"], config, readout)
        layer = plan.layers["kernel"]
        read = jax.jit(functools.partial(read_matmul, layer=layer, config=config, readout=readout))
        call = functools.partial(read, chip.key, jnp.asarray(inputs), held["kernel"], cells)
        found.append(Contender(f"memsim, {encoding}", call))
    # slices as offset binary stores them
    stored = (weights + 2 ** (BITS - 1)).astype(np.int32)
    levels = np.stack([stored >> place & 1 for place in range(BITS)]).astype(np.float32)
    found.append(Contender("NumPy, offset_binary", lambda: numpy_products(levels, inputs)))
    if "CrossSim" in peers:
        for style in ("BITSLICED", "BALANCED"):
            core = crosssim_core(weights, style, size)
            remark = "" if style == "BITSLICED" else "one pair of cells a weight, no slices"
            found.append(
                Contender(
                    f"CrossSim, {style}",
                    functools.partial(lambda core: (core @ inputs.T).T, core),
                    remark,
                )
            )
    if "aihwkit" in peers:
        remark = "one pair of cells a weight, no slices"
        found.append(
            Contender("aihwkit, BIT_WISE", aihwkit_bit_wise(weights, inputs, size), remark)
        )
    return found


def cell_contenders(size: Size, peers: dict[str, str]) -> list[Contender]:
    """Draws of PCM cells: programmed, drifted and read once; of 16 levels, as many of each."""
    count = BITS * size.side**2
    law = memsim.Conductance.pcm()
    share = np.repeat(np.linspace(0, 1, 16, dtype=np.float32), count // 16)
    target = law.aimed_at(jnp.asarray(share))

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        programming, drift, read = jax.random.split(key, 3)
        reached = law.programmed(programming, target)
        seen = law.drifted(drift, reached, target, SECONDS + FIRST_READ)
        deviation = law.read_deviation(target, SECONDS + FIRST_READ)
        assert deviation is not None  # noqa: S101 - an hour old
        return jnp.maximum(seen * (1 + deviation * jax.random.normal(read, seen.shape)), 0)

    found = [Contender("memsim", lambda: draw(jax.random.key(1)) * MICRO)]
    if "aihwkit" in peers:
        torch, _, _ = aihwkit_modules()
        noise = aihwkit_pcm()
        aimed = torch.from_numpy(np.asarray(target) * np.float32(MICRO))

        def theirs() -> np.ndarray:
            reached = noise.apply_programming_noise_to_conductance(aimed)
            exponent = noise.generate_drift_coefficients(aimed)
            seen: np.ndarray = noise.apply_drift_noise_to_conductance(
                reached, exponent, SECONDS
            ).numpy()
            return seen

        found.append(Contender("aihwkit", theirs))
    return found


def pcm_weights(size: Size) -> np.ndarray:
    """Weights of 15 levels and a sign: what a pair of cells of 4 bits holds too."""
    return 8 * np.round(weights_and_inputs(size)[0] / 9)


def pcm_contenders(size: Size, peers: dict[str, str], chips: int, read: bool) -> list[Contender]:
    """Chips of PCM, each with draws of its own.

    Args:
      size, peers: as elsewhere.
      chips: how many.
      read: whether they are an hour old, read, and multiply; else what programming reached.
    """
    weights, inputs = pcm_weights(size), weights_and_inputs(size)[1]
    seconds = SECONDS + FIRST_READ if read else 0.0
    found = []
    for bits, cell_bits, cells in ((5, 4, "2 cells of 4 bits"), (8, 1, "14 cells of 1 bit")):
        config = memsim.CrossbarConfig(
            rows=size.side, crossbars=None, bits=bits, cell_bits=cell_bits, encoding="differential"
        )
        call = memsim_chips(weights, inputs if read else None, config, chips, seconds)
        found.append(Contender(f"memsim, {cells}", call, "writes counted"))
    if "CrossSim" in peers:

        def crosssim_chips() -> np.ndarray:
            cores = (crosssim_core(weights, "BALANCED", size, pcm=True) for _ in range(chips))
            return np.stack([(c @ inputs.T).T if read else c.get_matrix().T for c in cores])

        remark = "neither drift nor read noise, another law of programming"
        found.append(Contender("CrossSim, 2 cells", crosssim_chips, remark))
    if "aihwkit" in peers:
        call = aihwkit_chips(weights, inputs if read else None, size, chips)
        found.append(Contender("aihwkit, 2 cells", call, "not quantized"))
    return found


def memsim_chips(
    weights: np.ndarray,
    inputs: np.ndarray | None,
    config: memsim.CrossbarConfig,
    chips: int,
    seconds: float,
) -> Callable[[], Any]:
    """Programs and reads chips of PCM under `vmap`: their products, or their weights."""
    params = {"kernel": jnp.asarray(weights)}
    plan = memsim.plan({"kernel": weights}, config, memsim.Policy.parse("unsorted"))
    readout = Readout(cells=memsim.Conductance.pcm(), seconds=seconds)

    def of_chip(key: jax.Array) -> jax.Array:
        chip_key, cell_key = jax.random.split(key)
        chip = memsim.sample_chip(chip_key, plan)
        held, programming = memsim.program(params, plan, chip, words=True)
        seen = read_weights(cell_key, held, plan, programming, readout)["kernel"]
        return seen if inputs is None else jnp.asarray(inputs) @ seen

    return functools.partial(jax.jit(jax.vmap(of_chip)), jax.random.split(jax.random.key(0), chips))


def measure(contenders: list[Contender], rounds: int) -> np.ndarray:
    """Milliseconds [rounds, contenders, 2] of processor time, and passed; they take turns."""
    times = np.empty((rounds, len(contenders), 2))
    for contender in contenders:
        jax.block_until_ready(contender.call())  # compiles
    for row in times:
        for i, contender in enumerate(contenders):
            start, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(contender.call())
            row[i] = time.process_time() - used, time.perf_counter() - start
    return 1e3 * times


def show(title: str, contenders: list[Contender], rounds: int, off: Callable[..., str]) -> None:
    """Prints the times of all, against the first, and how far the numbers of each are off."""
    times = measure(contenders, rounds)
    medians = np.median(times, axis=0)
    ratios = np.median(times[:, :, 0] / times[:, :1, 0], axis=0)
    first = np.asarray(contenders[0].call())
    print(f"\n{title}")
    for contender, (processor, passed), ratio in zip(contenders, medians, ratios, strict=True):
        numbers = np.asarray(contender.call())
        remark = f"; {contender.remark}" if contender.remark else ""
        print(
            f"  {contender.name:<25} {processor:8.2f} ms of processor time {passed:8.2f} ms passed "
            f"{ratio:6.2f}x  {off(numbers, first)}{remark}",
            flush=True,
        )


def off_exact(exact: np.ndarray, drawn: bool) -> Callable[[np.ndarray, np.ndarray], str]:
    """Says how far numbers are off the exact ones, and unless drawn by chance off the first."""
    spread = exact.std()

    def off(numbers: np.ndarray, first: np.ndarray) -> str:
        error = np.sqrt(np.mean(np.square(numbers - exact))) / spread
        said = f"{100 * error:.2f} % off the exact numbers"
        if drawn:
            return said
        return f"{said}, at most {100 * np.abs(numbers - first).max() / spread:.1g} % off the first"

    return off


def off_cells(numbers: np.ndarray, first: np.ndarray) -> str:
    """Says by how much the mean and the deviation of each level differ, at most."""
    ours, theirs = first.reshape(16, -1), numbers.reshape(16, -1)
    means, spreads = (
        np.abs(f(theirs, axis=1) / f(ours, axis=1) - 1).max() for f in (np.mean, np.std)
    )
    return f"means of levels at most {means:.1%} off the first, deviations {spreads:.1%}"


def compare(size: Size, peers: dict[str, str]) -> None:
    """Prints all comparisons."""
    weights, inputs = weights_and_inputs(size)
    array = f"{size.side}x{size.side} weights"
    exact = inputs.astype(np.float64) @ weights
    print("Numbers are off by so many % of the deviation of the exact ones (root mean square).")
    show(
        f"Bit-serial products: {array} of {BITS} bits, {size.vectors} vectors, {ADC_BITS}-bit ADCs",
        product_contenders(size, peers), size.rounds, off_exact(exact, drawn=False),
    )  # fmt: skip
    show(
        f"{BITS * size.side**2:,} PCM cells programmed, an hour old and read once",
        cell_contenders(size, peers), size.rounds, off_cells,
    )  # fmt: skip
    show(
        f"{array} programmed into PCM",
        pcm_contenders(size, peers, 1, read=False), size.rounds,
        off_exact(pcm_weights(size), drawn=True),
    )  # fmt: skip
    exact = inputs.astype(np.float64) @ pcm_weights(size)
    for chips in (1, size.chips):
        show(
            f"The same an hour old, read, {size.vectors} vectors, chips: {chips}",
            pcm_contenders(size, peers, chips, read=True), size.rounds,
            off_exact(exact, drawn=True),
        )  # fmt: skip


def main() -> None:
    """Runs everything in a process that has as many processors as threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of every side")
    parser.add_argument("--pinned", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads = arguments.threads
    if not arguments.pinned:
        if hasattr(os, "sched_setaffinity"):  # JAX has as many threads as it may use processors
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
        environment = os.environ | dict.fromkeys(names, str(threads))
        again = [sys.executable, "-m", "benchmarks.peers", "--pinned", "--threads", str(threads)]
        raise SystemExit(subprocess.run(again, env=environment, check=False).returncode)  # noqa: S603
    peers = installed()
    versions = {"memsim": memsim.__version__, "jax": jax.__version__, "numpy": np.__version__}
    if "aihwkit" in peers:
        torch, _, _ = aihwkit_modules()
        torch.set_num_threads(threads)
        versions["torch"] = torch.__version__
    print(f"Python {platform.python_version()}, {threads} thread(s) on every side;", end=" ")
    print(*(f"{name} {version}" for name, version in (versions | peers).items()), sep=", ")
    for name, (_, _, command) in PEERS.items():
        if name not in peers:
            print(f"{name} is not installed, and left out: {command}")
    compare(Size(), peers)


if __name__ == "__main__":
    main()
