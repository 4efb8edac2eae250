"""A long sweep: resident memory and chips per second, thousand by thousand.

    python -m benchmarks.long_sweep

The claim: over 10,000 chips of the digits CNN, resident memory is flat within 5 % after the first
500 chips, and the last thousand chips take as long as the first, within 5 %. A child process runs
`python -m training.sweep`, with options of yours that this command does not know; this one reads
from outside what it holds (/proc: Linux alone), the processor time that it has used, and how many
parts it has written. A second sweep is stopped when it has begun, and goes on beside the last
thousand chips of the first one: what else runs on the machine slows both alike.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CHIPS, LINE, CHUNK = 10_000, 1_000, 16
WARM = 500  # chips after which memory is to be flat
OPTIONS = ("--policy", "sws+stuck:p=0.5,low=3", "--stuck-at", "0.01")
_EVERY = 0.05  # seconds between two looks


class Look(NamedTuple):
    """A process at a moment: chips done, seconds, processor seconds, bytes that it holds."""

    chips: int
    seconds: float
    processor: float
    resident: int


class Sweep:
    """A sweep in a process of its own, looked at from outside."""

    def __init__(self, folder: Path, chips: int, chunk: int, options: Sequence[str]) -> None:
        command = (
            *(sys.executable, "-m", "training.sweep", *OPTIONS, *options),
            *("--chips", str(chips), "--chunk", str(chunk), "--out", str(folder)),
        )
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        self._parts, self._chunk = folder / "parts", chunk

    def look(self) -> Look | None:
        """Looks at it; None before its first part and after its end."""
        chips = self._chunk * sum(1 for _ in self._parts.glob("[!.]*"))
        try:
            of = Path(f"/proc/{self.process.pid}")
            resident = int((of / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            # after the name of the program, which may hold blanks
            used = (of / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return None
        processor = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
        return Look(chips, time.perf_counter(), processor, resident) if chips and resident else None


def watch(old: Sweep, young: Sweep, chips: int) -> tuple[list[Look], list[Look]]:
    """Looks at a sweep from its first part to its last, and at another beside its last chips."""
    looks: list[Look] = []
    beside: list[Look] = []
    waits = False
    while old.process.poll() is None:
        time.sleep(_EVERY)
        seen, other = old.look(), young.look()
        if seen:
            looks.append(seen)
        last = bool(seen and seen.chips >= chips - LINE)
        if other and not waits and not last:
            young.process.send_signal(signal.SIGSTOP)
            waits = True
        elif last and waits:
            young.process.send_signal(signal.SIGCONT)
            waits = False
        elif last and other and seen and seen.chips < chips:
            beside.append(other)
    return looks, beside


def rate(looks: Sequence[Look]) -> tuple[float, float]:
    """Finds chips a second, and chips a second of processor time."""
    first, last = looks[0], looks[-1]
    chips = last.chips - first.chips
    return chips / (last.seconds - first.seconds), chips / (last.processor - first.processor)


def show(looks: Sequence[Look], beside: Sequence[Look], line: int) -> None:
    """Prints a line for so many chips, and what the claim is about."""
    chips = looks[-1].chips
    print("   chips             resident GB       chips a second, of processor time")
    for start in range(0, chips - line // 2, line):
        # charts and tables come after the last chip
        inside = [look for look in looks if start <= look.chips <= min(start + line, chips - 1)]
        held = [look.resident / 1e9 for look in inside]
        passed, used = rate(inside)
        print(
            f"  {inside[0].chips:6} to {inside[-1].chips:6}   {min(held):.3f} to {max(held):.3f}   "
            f"{passed:7.1f}   {used:7.1f}"
        )
    warm = [look.resident for look in looks if WARM <= look.chips < chips]
    print(f"memory after {WARM} chips, to the last: {100 * (max(warm) / warm[0] - 1):+.1f} %")
    most = max(look.resident for look in looks)
    print(f"most of it, charts and tables included: {most / 1e9:.3f} GB")
    old = [look for look in looks if beside[0].seconds <= look.seconds <= beside[-1].seconds]
    (passed, used), (first_passed, first_used) = rate(old), rate(beside)
    print(
        f"a sweep of {beside[0].chips} chips beside the last: {first_passed:.1f}   {first_used:.1f}"
    )
    print(
        f"the last against it: {100 * (passed / first_passed - 1):+.1f} %, of processor time "
        f"{100 * (used / first_used - 1):+.1f} %"
    )


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=CHIPS)
    parser.add_argument("--line", type=int, default=LINE, help="chips of a line")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="chips at once")
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        old, young = (
            Sweep(Path(folder) / name, arguments.chips, arguments.chunk, options)
            for name in ("old", "young")
        )
        looks, beside = watch(old, young, arguments.chips)
        young.process.kill()
        young.process.wait()
    if old.process.wait() or not beside:
        sys.exit("the sweep failed, see what it says")
    show(looks, beside, arguments.line)


if __name__ == "__main__":
    main()
