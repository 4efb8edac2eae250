"""The energy that policies save on several kinds of hardware, the index and words included.

    python -m benchmarks.energy resnet20_cifar10.safetensors
    python -m benchmarks.energy FILE --hardware array-128 --encoding sign_magnitude

Writes are counted once, as if none failed, and priced on each hardware, against `unsorted`
twos_complement. By default the arithmetic of the published model, for HfO2 and PCM.
"""

import argparse

import memsim
from memsim.hardware import read_hardware, with_net_reduction
from memsim.report import policy_table, to_json
from memsim.report.documents import add_hardware
from memsim.report.hardware_tables import energy_table
from memsim.report.terminal import results_console
from memsim.summary import with_reduction

_HARDWARE = ["published", "published-pcm"]
_POLICIES = ["sws", "matched", "matched:tolerance=1"]


def main() -> None:
    """Prints the writes and the energy on each hardware."""
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
    usual, config = every[0].config(), every[0].config(encoding=arguments.encoding)
    unsorted = {"unsorted": memsim.policies.Unsorted()}
    baseline = memsim.compare(source, usual, unsorted).policies["unsorted"]
    found = memsim.compare(source, config, policies)
    console = results_console()
    for hardware in every:
        summaries = {
            name: with_net_reduction(with_reduction(one, baseline), baseline, hardware)
            for name, one in found.policies.items()
        }
        document = to_json(arguments.checkpoint, config, summaries, found.digital)
        baselines = dict.fromkeys(summaries, baseline)
        add_hardware(document, summaries, baselines, hardware, None, {})
        console.print(policy_table(summaries))
        console.print(energy_table(document))


if __name__ == "__main__":
    main()
