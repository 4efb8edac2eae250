"""Sweeping 256 chips of one layer of 256 x 256 weights: each its own draws and stuck cells.

    python -m benchmarks.sweep

The claim: at most 1 ms a chip on two cores and at most 1 GB resident. Of every chip 1 % of the
cells are stuck, half of them at 0; it is drawn, programmed (weight stationary, 8 bits,
`sws+stuck:p=0.5,low=3`) and its effective weights multiply a batch of 64. The same at p = 0.3,
which is no sum of few powers of two; beside it, one chip at a time by the same code, and CrossSim
where it is installed (8 slices of one bit, as here, and a balanced core, which has one pair of
cells a weight; 1 % programming error, no bit stucking; written from its source, never run). At 128
columns, writes that fail take at most 1.5 times as long as writes that do not.
Every figure is of a fresh process, warm: compilation is left out.
"""

import argparse
import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

CHIPS = 256
CHUNK = 4  # chips together: what they hold stays in cache
BATCH = 64
SIZE = 256
STUCK_AT = 0.005  # at 0, and as much at 1
_ROUNDS = 7


def layer_and_batch() -> tuple[np.ndarray, np.ndarray]:
    """Float32 weights [inputs, outputs], and inputs [batch, inputs]."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((SIZE, SIZE), np.float32)
    return weights, rng.standard_normal((BATCH, SIZE), np.float32)


def best(call: Callable[[], object]) -> dict[str, float]:
    """Milliseconds a chip, passed and of processor time, of the best round; peak bytes."""
    call()  # compiles
    passed, processor = [], []
    for _ in range(_ROUNDS):
        start, used = time.perf_counter(), time.process_time()
        call()
        passed.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {
        "passed": 1e3 * min(passed) / CHIPS,
        "processor": 1e3 * min(processor) / CHIPS,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def sweep(p: str, chunk: int, columns: int | None, writing: str | None) -> dict[str, float]:
    """Draws, programs and uses every chip, `chunk` of them together; 0 for a loop over chips."""
    import jax

    import memsim

    weights, batch = layer_and_batch()
    config = memsim.CrossbarConfig(crossbars=None, columns=columns)
    failing = memsim.cells.parse_writing(writing, config) if writing else None
    plan = memsim.plan({"kernel": weights}, config, memsim.Policy.parse(f"sws+stuck:p={p},low=3"))

    def use(key: jax.Array) -> object:
        chip = memsim.sample_chip(key, plan, STUCK_AT, STUCK_AT)
        effective, programming = memsim.program({"kernel": weights}, plan, chip, writing=failing)
        return batch @ effective["kernel"], programming.counts.sets

    use_all = jax.jit(jax.vmap(use) if chunk else use)

    def run() -> object:
        keys = jax.random.split(jax.random.key(0), CHIPS)
        parts = list(keys.reshape(-1, chunk) if chunk else keys)
        return list(threads.map(lambda part: jax.block_until_ready(use_all(part)), parts))

    # calls of one thread follow one another, most of their work on one core
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return best(run)


def crosssim(style: str) -> dict[str, float]:
    """The same chips in CrossSim: a core is programmed, with errors of its own, and used.

    Args:
      style: `BITSLICED` for 8 slices of one bit in offset binary, or `BALANCED` for one pair of
        cells a weight.
    """
    simulator = importlib.import_module("simulator")

    weights, batch = layer_and_batch()
    params = simulator.CrossSimParameters()
    params.core.style = style
    params.core.weight_bits = 8
    params.xbar.device.cell_bits = 7
    if style == "BITSLICED":
        params.core.bit_sliced.num_slices = 8
        params.core.bit_sliced.style = "OFFSET"
        params.xbar.device.cell_bits = 1
    params.xbar.device.programming_error.enable = True
    params.xbar.device.programming_error.model = "NormalIndependentDevice"
    params.xbar.device.programming_error.magnitude = 2 * STUCK_AT
    return best(lambda: [simulator.AnalogCore(weights.T, params) @ batch.T for _ in range(CHIPS)])


def fresh(*arguments: str) -> dict[str, float]:
    """The figures of a fresh process with these arguments."""
    child = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.sweep", *arguments],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(child.stdout)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", help=argparse.SUPPRESS)
    parser.add_argument("--columns", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--writing", help=argparse.SUPPRESS)
    parser.add_argument("--chunk", type=int, default=CHUNK, help="chips together")
    parser.add_argument("--crosssim", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sweep or arguments.crosssim:
        asked = (arguments.sweep, arguments.chunk, arguments.columns, arguments.writing)
        print(json.dumps(crosssim(arguments.crosssim) if arguments.crosssim else sweep(*asked)))
        return
    print(f"{CHIPS} chips of {SIZE} x {SIZE} weights, batch {BATCH}:")

    def show(name: str, figures: dict[str, float]) -> None:
        print(
            f"  {name:24} {figures['passed']:7.2f} ms a chip "
            f"({figures['processor']:.2f} ms of processor time), {figures['peak'] / 1e9:.2f} GB"
        )

    for p in ("0.5", "0.3"):
        together = fresh("--sweep", p, "--chunk", str(arguments.chunk))
        show(f"p = {p}, chunks of {arguments.chunk}", together)
        alone = fresh("--sweep", p, "--chunk", "0")
        show(f"p = {p}, one at a time", alone)
        print(f"  one at a time / chunks   {alone['passed'] / together['passed']:7.2f}")
    wide = ("--sweep", "0.5", "--chunk", str(arguments.chunk), "--columns", "128")
    sure = fresh(*wide)
    show("128 columns", sure)
    for writing in ("constant", "constant:controller=blind", "write-verify"):
        failing = fresh(*wide, "--writing", writing)
        show(writing, failing)
        print(f"  {writing} / no failures   {failing['processor'] / sure['processor']:7.2f}")
    if importlib.util.find_spec("simulator"):
        for style in ("BITSLICED", "BALANCED"):
            show(f"CrossSim, {style}", fresh("--crosssim", style))
    else:
        print("  CrossSim                 is not installed")


if __name__ == "__main__":
    main()
