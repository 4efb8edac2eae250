"""The energy that policies save on several kinds of hardware, the index and words included.

    python -m benchmarks.energy resnet20_cifar10.safetensors
    python -m benchmarks.energy FILE --hardware array-128 --encoding sign_magnitude

Writes are counted once, as if none failed, and priced on each hardware, against `unsorted`
twos_complement. By default the arithmetic of the published model, for HfO2 and PCM.
"""

import argparse

import rich.table

import memsim
from memsim.hardware import pass_cost, read_hardware
from memsim.hardware.passes import PART_NAMES
from memsim.report.terminal import results_console
from memsim.report.texts import quantity_text

_HARDWARE = ["published", "published-pcm"]
_POLICIES = ["sws", "matched", "matched:tolerance=1"]


def main() -> None:
    """Prints a table for each hardware."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--hardware", action="append", help="repeatable; of arrays of one size")
    parser.add_argument("--policy", action="append", help="repeatable")
    parser.add_argument("--encoding", default="twos_complement")
    arguments = parser.parse_args()
    source = memsim.open_checkpoint(arguments.checkpoint)
    policies = {str(one): one for one in map(memsim.Policy.parse, arguments.policy or _POLICIES)}
    every = [read_hardware(name) for name in arguments.hardware or _HARDWARE]
    sizes = {one.arrays for one in every}
    if len(sizes) > 1:
        parser.error("--hardware: give several of arrays of one size and number")
    config = every[0].config()
    unsorted = memsim.compare(source, config, {"unsorted": memsim.policies.Unsorted()})
    before = unsorted.policies["unsorted"]
    config = every[0].config(encoding=arguments.encoding)
    found = memsim.compare(source, config, policies).policies
    console = results_console()
    for hardware in every:
        table = rich.table.Table(title=hardware.name, title_justify="left")
        table.add_column("policy")
        for heading in ("writes", "with index", "net", *PART_NAMES):
            table.add_column(heading, justify="right")
        base = pass_cost(before, hardware)
        for name, summary in found.items():
            cost = pass_cost(summary, hardware)
            with_index = cost.joules["pulses"] + cost.joules["index"]
            saved = (
                before.writes / summary.writes,
                base.joules["pulses"] / with_index,
                base.total_joules / cost.total_joules,
            )
            parts = (quantity_text(cost.joules[part], "J") for part in PART_NAMES)
            table.add_row(name, *(f"{times:.2f}x" for times in saved), *parts)
        console.print(table)


if __name__ == "__main__":
    main()
