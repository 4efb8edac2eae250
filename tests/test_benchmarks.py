"""The benchmark for accelerators runs everywhere, in small: whoever has one wants no surprise."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_every_part_runs_without_an_accelerator(tmp_path):
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--json", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr + done.stdout
    figures = json.loads(out.read_text())["figures"]
    assert list(figures) == [part.__name__ for part in gpu.PARTS]
    assert all(figures.values())
    assert set(figures["exactness"].values()) == {0}
