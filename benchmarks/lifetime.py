"""Lifetime to first failure of 1,000 chips under four policies.

    python -m benchmarks.lifetime resnet50.safetensors

Prints seconds from the open checkpoint: wear counted over a steady pass, once per policy, then the
endurance of every cell of every chip drawn; on one crossbar of 128 rows, and on 64. After that, the
same with rows and crossbars rotated.
"""

import argparse
import time

import numpy as np

import memsim

POLICIES = ("unsorted", "sws", "sws-layer", "sws+stuck:p=0.5,low=3")


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="whose weights are programmed")
    source = memsim.open_checkpoint(parser.parse_args().checkpoint)
    policies = {name: memsim.Policy.parse(name) for name in POLICIES}
    for crossbars in (1, 64):
        start, spent = time.perf_counter(), time.process_time()
        config = memsim.CrossbarConfig(crossbars=crossbars)
        found = memsim.compare(source, config, policies, passes=2, steady=True)
        counted = time.perf_counter()
        inputs, cycles = memsim.service.make_service_inputs(), {}
        for name, last in found.steady.items():
            cycles[name] = [memsim.service.wear_cycles(writes, config) for writes in last.wear]
            life = memsim.service.life_in_service(last.summary, inputs, cycles=cycles[name])
            inferences = life.inferences
            low, median, high = np.quantile(inferences, [0.05, 0.5, 0.95])
            print(
                f"{crossbars:2} crossbars, {name:22} {last.summary.writes:11,} writes, {median:.3g}"
                f" inferences ({low:.3g} to {high:.3g}), {len(inferences):,} chips"
            )
        ended = time.perf_counter()
        print(
            f"{ended - start:.1f} s, {time.process_time() - spent:.1f} s of processor time: wear "
            f"counted in {counted - start:.1f} s, chips drawn in {ended - counted:.1f} s"
        )
        for name, last in found.steady.items():
            level = [memsim.service.levelled_wear(wear, (0, 1)) for wear in cycles[name]]
            inferences = memsim.service.life_in_service(
                last.summary, inputs, cycles=level
            ).inferences
            print(f"{name:22} levelled: {np.median(inferences):.3g} inferences")


if __name__ == "__main__":
    main()
