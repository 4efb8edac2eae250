"""Planning `matched`: time, memory, and how they grow with the network and the tolerance.

    python -m benchmarks.planning

Every figure is of a fresh process, so that its peak memory is its own. Prints, for the shapes of
ViT-Base (86 million seeded weights) and each tolerance, the seconds from process start to the plan
(imports included, making up the weights not), the seconds of processor time, which other programs
disturb less, and the peak resident memory; then the cost per weight from 10^6 to 10^8 weights,
after one untimed small plan. Numba's compiled code is on disk before anything is timed: the first
process of all plans one small layer for that.

The bar: at most 20 s and 2 GB for 86 million weights without a tolerance.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.programming import SIZES, seeded, squares, vit_base

TOLERANCES = (0, 1, 3)
GROWTH_TOLERANCES = (0, 1)


def trained_like(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights as training leaves them: long tails, and outputs of different spread."""
    return rng.laplace(size=shape) * rng.lognormal(sigma=0.3, size=shape[-1])


def child(size: int, tolerance: int) -> None:
    """Run in a fresh process: plans `size` weights (0: ViT-Base), prints its figures as JSON."""
    start, used_at_start = time.perf_counter(), time.process_time()
    weights = seeded(squares(size) if size else vit_base(), trained_like)
    made, used_making = time.perf_counter(), time.process_time() - used_at_start
    import jax

    import memsim

    policy = memsim.policies.Matched(tolerance=tolerance)
    if size:
        jax.block_until_ready(memsim.plan(seeded(squares(1)), memsim.CrossbarConfig(), policy))
    begun, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(memsim.plan(weights, memsim.CrossbarConfig(), policy))
    done, used_by_now = time.perf_counter(), time.process_time()
    figures = {
        "count": sum(tensor.size for tensor in weights.values()),
        "making": made - start,
        "planning": done - begun,
        "planning_processor": used_by_now - used,
        "processor": used_by_now - used_making,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


def measure(size: int, tolerance: int) -> dict[str, Any]:
    """What `child` prints, and the seconds of its whole process as `process`."""
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.planning", "--child", str(size), str(tolerance)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout) | {"process": time.perf_counter() - start}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    measure(1, 1)  # compiles
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("ViT-Base's shapes, 86 million weights:")
    for tolerance in TOLERANCES:
        figures = measure(0, tolerance)
        print(
            f"  tolerance {tolerance}: {figures['process'] - figures['making']:5.1f} s from "
            f"process start ({figures['processor']:.1f} s of processor time), peak resident "
            f"memory {figures['peak'] / 1e9:.2f} GB, {4 * figures['count'] / 1e9:.2f} GB of it "
            "the weights"
        )
    print("layers of 500 x 500:")
    for tolerance in GROWTH_TOLERANCES:
        costs = []
        for size in SIZES:
            figures = measure(size, tolerance)
            took, used = (figures[name] / size for name in ("planning", "planning_processor"))
            costs.append((took, used))
            print(
                f"  tolerance {tolerance}, {size:>11,} weights: {1e9 * took:.0f} ns per weight "
                f"({1e9 * used:.0f} ns of processor time), peak {figures['peak'] / 1e9:.2f} GB"
            )
        ratio, ratio_used = (max(cost) / min(cost) for cost in zip(*costs, strict=True))
        print(
            f"  tolerance {tolerance}, most expensive / cheapest size: {ratio:.2f} "
            f"({ratio_used:.2f} in processor time)"
        )


if __name__ == "__main__":
    main()
