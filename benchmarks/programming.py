"""Counting the writes of `unsorted`, `sws` and `sws+stuck`: time, memory, and how they scale.

    python -m benchmarks.programming

Prints, for the shapes of ViT-Base (86 million seeded weights), the time of a fresh process from its
start to the counts (imports and compilation included, making up the weights not) and its peak
memory; then the warm cost per weight from 10^6 to 10^8 weights (seconds passed, and seconds of
processor time, which other programs disturb less), weights per second, and the ratio to the time
of copying the same bytes once; at last the ratio of crossbars of 128 columns to those of one word,
in processor time, for ViT-Base's shapes and one policy at a time.

The bar of the ratio: 1.2.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

POLICIES = ("unsorted", "sws", "sws+stuck:p=0.5,low=3")
SIZES = (10**6, 10**7, 10**8)


def vit_base() -> dict[str, tuple[int, ...]]:
    """Kernel shapes of ViT-Base, patch 16: 86 million weights in 50 matrices."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(12):
        shapes |= {
            f"blocks/{block}/qkv/kernel": (768, 3 * 768),
            f"blocks/{block}/proj/kernel": (768, 768),
            f"blocks/{block}/fc1/kernel": (768, 4 * 768),
            f"blocks/{block}/fc2/kernel": (4 * 768, 768),
        }
    return shapes | {"patch/kernel": (16, 16, 3, 768), "head/kernel": (768, 1000)}


def squares(weights: int) -> dict[str, tuple[int, ...]]:
    """Shapes of 500 x 500, at least one, of so many weights together."""
    return {f"{i}/kernel": (500, 500) for i in range(max(1, weights // 250_000))}


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal weights."""
    return rng.standard_normal(shape, np.float32)


def seeded(
    shapes: dict[str, tuple[int, ...]],
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] = normal,
) -> dict[str, np.ndarray]:
    """Float32 weights of these shapes, each drawn by `draw`."""
    rng = np.random.default_rng(0)
    return {name: draw(rng, shape).astype(np.float32, copy=False) for name, shape in shapes.items()}


def count(weights: dict[str, np.ndarray]) -> list[int]:
    """Writes of each policy."""
    import memsim

    policies = {name: memsim.Policy.parse(name) for name in POLICIES}
    result = memsim.compare(weights, memsim.CrossbarConfig(), policies)
    return [summary.writes for summary in result.policies.values()]


def wide(names: tuple[str, ...], repeats: int) -> Iterator[tuple[str, float, float]]:
    """(policy, processor seconds one word wide, and at 128 columns): the best runs, in turn."""
    import memsim

    weights = seeded(vit_base())
    for name in names:
        policies = {name: memsim.Policy.parse(name)}
        best = {None: float("inf"), 128: float("inf")}
        for number in range(repeats + 1):
            for columns in best:
                start = time.process_time()
                # the baseline is counted too: policies and `unsorted` are one stream each
                memsim.compare(weights, memsim.CrossbarConfig(columns=columns), policies)
                if number:  # the first run compiles
                    best[columns] = min(best[columns], time.process_time() - start)
        yield name, best[None], best[128]


def cold() -> None:
    """Run in a fresh process: prints seconds of weights and counting, and peak bytes, as JSON."""
    start = time.perf_counter()
    weights = seeded(vit_base())
    made = time.perf_counter()
    writes = count(weights)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps({"weights": made - start, "count": done - made, "peak": peak, "writes": writes})
    )


def warm(repeats: int) -> Iterator[tuple[int, float, float, float]]:
    """(weights, seconds to count them, processor seconds, seconds to copy them): the best runs."""
    for size in SIZES:
        weights = seeded(squares(size))
        count(weights)
        times, processor, copies = [], [], []
        for _ in range(repeats if size < 10**8 else 3):
            start, used = time.perf_counter(), time.process_time()
            count(weights)
            times.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
            start = time.perf_counter()
            for tensor in weights.values():
                tensor.copy()
            copies.append(time.perf_counter() - start)
        yield size, min(times), min(processor), min(copies)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.cold:
        cold()
        return
    start = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.programming", "--cold"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    whole = time.perf_counter() - start
    figures = json.loads(child.stdout)
    print("ViT-Base's shapes, 86 million weights, cold:")
    for name, writes in zip(POLICIES, figures["writes"], strict=True):
        print(f"  {name:24} {writes:>13,} writes")
    print(f"  three policies together  {whole - figures['weights']:.1f} s from process start")
    print(f"  peak resident memory     {figures['peak'] / 1e9:.2f} GB (0.35 GB of it the weights)")
    print("warm, three policies together, layers of 500 x 500:")
    costs, processor_costs = [], []
    for size, seconds, processor, copying in warm(arguments.repeats):
        costs.append(seconds / size)
        processor_costs.append(processor / size)
        print(
            f"  {size:>11,} weights: {1e9 * costs[-1]:.1f} ns per weight "
            f"({1e9 * processor_costs[-1]:.1f} ns of processor time), "
            f"{size / seconds / 1e6:.0f} M weights/s, {seconds / copying:.0f}x a copy"
        )
    print(
        f"  most expensive / cheapest size: {max(costs) / min(costs):.2f} "
        f"({max(processor_costs) / min(processor_costs):.2f} in processor time)"
    )
    print("ViT-Base's shapes at 128 columns against one word wide, processor time:")
    for name, narrow, broad in wide(POLICIES[:2], 3):
        print(f"  {name:10} {broad:.1f} s, {narrow:.1f} s: {broad / narrow:.2f}")


if __name__ == "__main__":
    main()
