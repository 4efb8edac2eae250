"""Benchmarks that need what few have run everywhere, in small: whoever has it wants no surprise."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import gpu, peers


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


def test_bit_serial_products_are_the_same_as_those_of_a_plain_loop():
    size = peers.Size(side=8, vectors=3)
    memsim, other, plain = peers.product_contenders(size, {})
    loop = np.asarray(plain.call())
    np.testing.assert_allclose(memsim.call(), loop, rtol=1e-5, atol=1e-2)
    weights, inputs = peers.weights_and_inputs(size)
    # within the steps of the converters, two's complement too
    steps = 0.5 * 8 / 255 * 127 * 255
    assert np.abs(loop - inputs @ weights).max() <= steps
    assert np.abs(np.asarray(other.call()) - inputs @ weights).max() <= steps


@pytest.mark.slow
def test_peers_that_are_not_installed_are_left_out(capsys):
    peers.compare(peers.Size(side=16, vectors=4, chips=2, rounds=1), {})
    out = capsys.readouterr().out
    assert out.count("memsim") == 9
    assert "CrossSim" not in out
    assert "aihwkit" not in out
