"""Starting: what importing memsim costs, and whole commands on small and on many layers.

    python -m benchmarks.starting

Every figure is of fresh processes, that have compiled nothing. Prints the processor time of
`import jax` and `import memsim`, medians of seven; of `memsim report` with one policy on a file of
350 kB, the median of three; of `memsim program` on 2,000 layers of 8 x 16, with its peak resident
memory.

The bars: 1.2 times `import jax`; 15 s and 1 GB for 2,000 layers.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from safetensors.numpy import save_file

SMALL = ((128, 256), (64, 128), (128, 256), (100, 130))
MANY = ((8, 16),) * 2000


def write_layers(path: pathlib.Path, shapes: tuple[tuple[int, int], ...]) -> None:
    """Writes normal weights of these shapes, as layers of one checkpoint."""
    rng = np.random.default_rng(0)
    save_file(
        {
            f"layers.{i}.weight": rng.standard_normal(shape, np.float32)
            for i, shape in enumerate(shapes)
        },
        path,
    )


def run(arguments: list[str]) -> tuple[float, float, int]:
    """Runs Python on `arguments` in a process of its own.

    Returns:
      (seconds, seconds of processor time, bytes of peak resident memory)
    """
    kept = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    start = time.perf_counter()
    child = subprocess.Popen(  # noqa: S603
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=kept
    )
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{' '.join(arguments)} exited with status {status}.")
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def memsim(*arguments: object) -> tuple[float, float, int]:
    """Runs a memsim command, see `run`."""
    return run(["-m", "memsim", *map(str, arguments)])


def main() -> None:
    """Prints the figures."""
    imports = {name: ["-c", f"import {name}"] for name in ("jax", "memsim")}
    for command in imports.values():
        run(command)  # writes bytecode
    # in turn, so that a slow minute of the machine meets both
    turns = [[run(command)[1] for command in imports.values()] for _ in range(7)]
    jax, ours = map(statistics.median, zip(*turns, strict=True))
    print(f"import jax {jax:.2f} s, import memsim {ours:.2f} s of processor time: {ours / jax:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        small, many, out = (
            pathlib.Path(folder, f"{name}.safetensors") for name in ("small", "many", "held")
        )
        write_layers(small, SMALL)
        write_layers(many, MANY)
        reports = [memsim("report", small, "--policy", "sws") for _ in range(3)]
        took, used, _ = map(statistics.median, zip(*reports, strict=True))
        print(
            f"memsim report, {small.stat().st_size / 1e3:.0f} kB, one policy: {took:.1f} s, "
            f"{used:.1f} s of processor time, {used / jax:.1f} times import jax"
        )
        took, used, peak = memsim("program", many, "--policy", "sws", "--out", out)
        print(
            f"memsim program, {len(MANY):,} layers: {took:.1f} s, {used:.1f} s of processor time, "
            f"peak resident memory {peak / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
