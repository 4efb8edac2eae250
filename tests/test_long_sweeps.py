"""Sweeps that run for long: the memory that they keep to, what they compile, kills of many."""

import socket
import time
from pathlib import Path

import jax
import pytest
import rich.progress
import typer
from typer.testing import CliRunner

from memsim.hardware import read_hardware
from tests import processes
from training import sweep
from training.sweep import devices, list_combinations, list_configs, list_policies, memory
from training.sweep.measuring import make_measure
from training.sweep.parts import Layout
from training.tasks import digits_task

SHAPE = ("--crossbars", 8, "--chunk", 2)
GRID = (*SHAPE, "--policy", "sws+stuck:p=0.5,low=3", "--stuck-at", 0, "--stuck-at", 0.02,
        "--chips", 15)  # fmt: skip


@pytest.fixture(scope="module")
def task(digits_weights):
    with rich.progress.Progress(disable=True) as bar:
        return digits_task(0, bar, str(digits_weights))


@pytest.fixture
def engine(task):
    return devices.Engine(task.apply, task.params, seed=0, passes=1)


def combinations(rows, policies, stuck_at):
    configs = list_configs([8], rows, ["twos_complement"], 8)
    return list_combinations(configs, list_policies(*policies), stuck_at)


def test_combinations_of_one_shape_are_compiled_once(engine, task, compilations):
    every = combinations([128], (["sws", "unsorted"], [0.5], [0, 3]), [0.02, 0, 0.1])
    measure = make_measure(engine, task, 0, Layout(4, 2), read_hardware("published"))
    counts = []
    for number, one in enumerate(every):
        before = compilations()
        measure(one, [0, 1] if number % 2 else [2, 3])
        counts.append(compilations() - before)
    assert len(counts) == 12
    assert counts[0] >= 2
    assert counts[1:] == [0] * 11


@pytest.fixture
def sized(engine, monkeypatch):
    """An engine on a made-up device: 10 MB and 1 MB a chip, in a process that holds 500 MB."""
    monkeypatch.setattr(engine, "_bytes", lambda plan, batch, chips, own: 10**7 + chips * 10**6)
    monkeypatch.setattr(memory, "resident", lambda: 500 * 10**6)
    monkeypatch.setattr(devices, "_on_cpu", lambda: True)
    return engine


def test_a_chunk_is_as_large_as_the_limit_allows(sized):
    held = 500 * 10**6 + memory.LATER + 10**7
    many = len(jax.local_devices())
    assert many == 1
    for chips in (1, 2, 5, 15):
        assert sized.chunk_in_memory(None, None, held + chips * 10**6, 16) == chips
        assert sized.chunk_in_memory(None, None, held + chips * 10**6 + 999_999, 16) == chips
    assert sized.chunk_in_memory(None, None, 10**9, 16) == 16
    sized.check_chunk(None, None, held + 16 * 10**6, 16)


def test_what_cannot_fit_is_refused_with_the_memory_that_it_takes(sized):
    with pytest.raises(ValueError, match=r"`--memory` is 0.6 GB, and one chip .* takes 0.62 with"):
        sized.chunk_in_memory(None, None, 6 * 10**8, 16)
    with pytest.raises(ValueError, match=r"a chunk of 16 chips .* takes 0.63 .*`--memory` 0.68"):
        sized.check_chunk(None, None, 6 * 10**8, 16)


def test_a_sweep_ends_where_it_has_held_more_than_its_limit(digits_weights, tmp_path, monkeypatch):
    app = typer.Typer()
    app.command()(sweep.main)
    options = (*GRID, "--weights", digits_weights, "--out", tmp_path, "--memory")
    refused = CliRunner().invoke(app, [*map(str, options), "0.1"])
    assert "`--memory` is 0.1 GB, and a chunk of 2 chips" in str(refused.exception)
    held = iter([1, 2 * 10**12])
    monkeypatch.setattr(memory, "peak", lambda: next(held))
    ended = CliRunner().invoke(app, [*map(str, options), "1000"])
    assert "the process has held 2000.00; start the same command again" in str(ended.exception)
    assert len(list((tmp_path / "parts").glob("[!.]*"))) == 2


def test_memory_is_read_from_the_process():
    before = memory.resident()
    block = bytearray(200 * 10**6)
    block[::4096] = b"x" * len(block[::4096])
    assert memory.resident() - before > 150 * 10**6
    assert memory.peak() >= memory.resident()
    memory.check_peak(memory.peak() + 10**9)
    with pytest.raises(RuntimeError, match=r"`--memory` is 0.001 GB, and the process has"):
        memory.check_peak(10**6)


def most_held(process):
    """The most bytes that a process holds at any time, read from outside until it ends."""
    most, status = 0, Path(f"/proc/{process.pid}/status")
    while process.is_alive():
        try:
            lines = status.read_text().splitlines()
        except OSError:
            break
        most = max([most, *(1024 * int(x.split()[1]) for x in lines if x.startswith("VmHWM"))])
        time.sleep(0.02)
    process.join()
    return most


@pytest.mark.slow
def test_a_sweep_stays_within_its_memory(assets, tmp_path):
    network = ("--assets", assets, "--limit", 100, "--crossbars", 64, "--policy",
               "sws+stuck:p=0.5,low=3", "--stuck-at", 0.02)  # fmt: skip
    options = (*network, "--chips", 16, "--out", tmp_path)
    limit = 0.9  # as a process compiles, it holds 0.6 to 0.75 before the first chip
    child = processes.start("training.sweep", (*options, "--memory", limit))
    held = most_held(child)
    assert child.exitcode == 0
    assert held <= limit * 1e9


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_four(out, weights):
    coordinator = f"127.0.0.1:{free_port()}"
    return [
        processes.start(
            "training.sweep",
            (*GRID, "--weights", weights, "--out", out / str(number), "--coordinator", coordinator,
             "--processes", 4, "--process", number),
        )
        for number in range(4)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(2,), (0, 1, 2, 3)])
def test_four_processes_of_which_some_are_killed_end_with_the_same_bytes(
    digits_weights, tmp_path, undisturbed, victims
):
    done = tmp_path / "0" / "parts"
    running = start_four(tmp_path, digits_weights)
    until = time.monotonic() + 240
    while len(list(done.glob("[!.]*"))) < 4 and time.monotonic() < until:
        time.sleep(0.005)
    assert all(process.is_alive() for process in running)
    for victim in victims:
        running[victim].kill()
    time.sleep(2)
    for process in running:  # those that are left wait for the others, as a scheduler ends them
        process.kill()
        process.join()
    there = len(list(done.glob("[!.]*")))
    assert 4 <= there < 16
    processes.finish(*start_four(tmp_path, digits_weights))
    assert results(tmp_path / "0") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def results(out):
    return [processes.figures_of(out / name) for name in ("sweep.parquet", "summary.json")]


@pytest.fixture(scope="module")
def undisturbed(digits_weights, tmp_path_factory):
    """The results of the same sweep on one process, from first to last."""
    out = tmp_path_factory.mktemp("undisturbed")
    options = (*GRID, "--weights", digits_weights, "--out", out)
    processes.finish(processes.start("training.sweep", options))
    return results(out)
