"""How far what `matched` finds is from the fewest writes that there can be, layer by layer.

    python -m benchmarks.floor resnet20_cifar10.safetensors --include "conv1|layer1"

Every layer is programmed again and again on a crossbar of its own, one word wide, whose rows hold
an output whole. Errors are those that `WordChains` makes at a price of a write.
"""

import argparse

import jax
import numpy as np
import rich.table

import memsim
from memsim.report.terminal import results_console

_PRICES = (0.0, 4.0, 16.0)


def main() -> None:
    """Prints what was found and the floor for each layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--include", help="regular expression of names")
    parser.add_argument("--rows", type=int, default=288)
    parser.add_argument("--encoding", default="twos_complement")
    arguments = parser.parse_args()
    source = memsim.open_checkpoint(arguments.checkpoint)
    config = memsim.CrossbarConfig(rows=arguments.rows, encoding=arguments.encoding)
    select = memsim.select_by_name(include=arguments.include)
    params = {name: np.asarray(source.load(name)) for name in source.tensors}
    table = rich.table.Table(title=f"{arguments.checkpoint}, {arguments.encoding}")
    for heading in ("layer", "unsorted", "rms error", "found", "floor", "above it"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for name in memsim.plan(params, config, memsim.policies.Unsorted(), select=select).names:
        one = {name: params[name]}
        unsorted = steady(one, memsim.plan(one, config, memsim.policies.Unsorted()))
        plan = memsim.plan(one, config, memsim.policies.Matched())
        scale = np.asarray(plan.layers[name].scale)
        codes, chains = np.rint(params[name] / scale), memsim.WordChains(plan)
        for price in _PRICES:
            held = chains.cheapest(one, price)
            error = float(np.square(np.rint(held[name] / scale) - codes).sum())
            found, floor = (
                steady(held, plan),
                memsim.writes_floor(one, config, error)[name],
            )
            rms = (error / codes.size) ** 0.5
            table.add_row(
                name, f"{unsorted:,}", f"{rms:.2f}", f"{found:,}", f"{floor:,}",
                f"{100 * (found / floor - 1):.1f} %",
            )  # fmt: skip
    results_console().print(table)


def steady(params: dict[str, np.ndarray], plan: memsim.Plan) -> int:
    """Counts the writes of a second pass."""
    chip = memsim.sample_chip(jax.random.key(0), plan)
    _, programming = memsim.program(params, plan, chip, passes=2)
    return memsim.summarize(programming, plan).writes_per_pass[-1]


if __name__ == "__main__":
    main()
