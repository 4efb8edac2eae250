"""Lifetime to first failure of 1,000 chips under four policies.

    python -m benchmarks.lifetime resnet50.safetensors

Prints seconds from the open checkpoint: wear counted over a steady pass, once per policy, then the
endurance of every cell of every chip drawn; on one crossbar of 128 rows, and of 64.
"""

import sys
import time

import numpy as np

import memsim

POLICIES = ("unsorted", "sws", "sws-layer", "sws+stuck:p=0.5,low=3")


def main() -> None:
    """Prints the figures."""
    source = memsim.open_checkpoint(sys.argv[1])
    policies = {name: memsim.Policy.parse(name) for name in POLICIES}
    for crossbars in (1, 64):
        start, spent = time.perf_counter(), time.process_time()
        config = memsim.CrossbarConfig(crossbars=crossbars)
        found = memsim.compare(
            source.tensors, config, policies, load=source.load, passes=2, steady=True
        )
        counted = time.perf_counter()
        for name, last in found.steady.items():
            years = memsim.worth(*last, memsim.assume()).years
            low, median, high = np.quantile(years, [0.05, 0.5, 0.95])
            print(
                f"{crossbars:2} crossbars, {name:22} {last.summary.writes:13,} writes, "
                f"{median:.3g} years ({low:.3g} to {high:.3g}), {len(years):,} chips"
            )
        ended = time.perf_counter()
        print(
            f"{ended - start:.1f} s, {time.process_time() - spent:.1f} s of processor time: wear "
            f"counted in {counted - start:.1f} s, chips drawn in {ended - counted:.1f} s"
        )


if __name__ == "__main__":
    main()
