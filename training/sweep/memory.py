"""Memory that the process of a sweep holds, and the limit that it keeps to."""

import resource
import sys
from pathlib import Path

# Bytes that come after the first chunk, whatever its size: tables, charts, programs of other
# crossbars. Measured on the digits CNN and ResNet-20: 40 to 70 MB.
LATER = 10**8

_STATUS = Path("/proc/self/status")


def resident() -> int:
    """Reads the bytes that this process holds now; where that is not told, the most it has held."""
    return _read("VmRSS")


def peak() -> int:
    """Reads the most bytes that this process has held at any time."""
    return _read("VmHWM")


def _read(name: str) -> int:
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    # what getrusage tells is in bytes on macOS, in kilobytes elsewhere
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check_peak(limit: int) -> None:
    """Checks that the process has stayed within a limit.

    Args:
      limit: bytes.

    Raises:
      RuntimeError: it has held more.
    """
    held = peak()
    if held > limit:
        raise RuntimeError(
            f"`--memory` is {limit / 1e9:g} GB, and the process has held {held / 1e9:.2f}; start "
            "the same command again with more: it goes on where it stopped."
        )
