"""What reading costs, beside the work that it cannot do without.

    python -m benchmarks.readout

One crossbar of 256x256 weights of 8 bits, 8-bit inputs and converters, 64 vectors, beside one
float32 product of the same multiply-adds; the wires of 128x128 HfO2 cells (200 and 11 uS, half of
them each; 22 nm, 2.97 ohm per cell), float64, beside a sparse direct solve of the same circuits;
and 8 chips of PCM under `vmap` beside a loop. Rounds alternate; each ratio is the median of those
of the rounds.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import memsim
from memsim.cells import Readout, Wires, device_currents, program_cells, read_matmul

CROSSBARS, ROWS, COLUMNS, VECTORS, CHIPS, ROUNDS = 64, 128, 128, 64, 8, 15
OHM = 2.97
WIRES = Wires(OHM, OHM)


def nodal_system(
    conductance: np.ndarray, voltages: np.ndarray
) -> tuple[scipy.sparse.csc_matrix, np.ndarray]:
    """Kirchhoff's law at each of the 2 * rows * columns nodes."""
    rows, columns = conductance.shape
    word = np.arange(rows * columns).reshape(rows, columns)
    bit = word + word.size
    one = np.concatenate([a.ravel() for a in (word[:, :-1], bit[:-1], word)])
    other = np.concatenate([b.ravel() for b in (word[:, 1:], bit[1:], bit)])
    wires = np.full(rows * (columns - 1) + (rows - 1) * columns, 1 / OHM)
    siemens = np.concatenate([wires, conductance.ravel()])
    driven, grounded = word[:, 0], bit[-1]
    diagonal = np.zeros(2 * word.size)
    np.add.at(diagonal, one, siemens)
    np.add.at(diagonal, other, siemens)
    np.add.at(diagonal, np.concatenate([driven, grounded]), 1 / OHM)
    nodes = np.arange(diagonal.size)
    matrix = scipy.sparse.csc_matrix(
        (
            np.concatenate([diagonal, -siemens, -siemens]),
            (np.concatenate([nodes, one, other]), np.concatenate([nodes, other, one])),
        )
    )
    sources = np.zeros(diagonal.size)
    sources[driven] = voltages / OHM
    return matrix, sources


def compare(
    name: str, ours: Callable[[], object], other: str, theirs: Callable[[], object]
) -> None:
    """Prints the median times of both, and the median of the ratios."""
    times = np.empty((ROUNDS, 2))
    for work in (ours, theirs):
        jax.block_until_ready(work())  # compiles
    for row in times:
        for i, work in enumerate((ours, theirs)):
            start = time.perf_counter()
            jax.block_until_ready(work())
            row[i] = 1e3 * (time.perf_counter() - start)
    ours_ms, theirs_ms = np.median(times, axis=0)
    ratio = np.median(times[:, 0] / times[:, 1])
    print(f"{name:<44} {ours_ms:8.1f} ms | {other} {theirs_ms:.1f} ms | {ratio:.2f}x", flush=True)


def products() -> None:
    """Compares `read_matmul` with a product of floats."""
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.standard_normal((256, 256), np.float32))}
    vectors = jnp.asarray(rng.standard_normal((VECTORS, 256), np.float32))
    driven = jnp.asarray(rng.integers(0, 2, (8 * VECTORS, 256)), jnp.float32)
    levels = jnp.asarray(rng.integers(0, 2, (256, 8 * 256)), jnp.float32)
    product = jax.jit(jnp.matmul)
    for policy, columns, name, cells in (
        ("unsorted", 2048, "ideal", memsim.Conductance()),
        ("sws", None, "ideal", memsim.Conductance()),
        ("sws", None, "HfO2", memsim.Conductance.hfo2()),
    ):
        config = memsim.CrossbarConfig(rows=256, columns=columns, crossbars=None)
        plan = memsim.plan(params, config, memsim.Policy.parse(policy))
        chip = memsim.sample_chip(jax.random.key(0), plan)
        held, programming = memsim.program(params, plan, chip, words=True)
        assert programming.words is not None  # noqa: S101 - they were asked for
        readout = Readout(adc_bits=8, cells=cells)
        cells_of = program_cells(chip.key, programming.words["kernel"], config, readout)
        layer = plan.layers["kernel"]
        read = jax.jit(functools.partial(read_matmul, layer=layer, config=config, readout=readout))
        arguments = chip.key, vectors, held["kernel"], cells_of
        compare(
            f"read_matmul, {policy}, {columns or 8} columns, {name}",
            functools.partial(read, *arguments),
            "float32 product",
            lambda: product(driven, levels),
        )


def chips_at_once() -> None:
    """Compares 8 chips read under `vmap` with a loop over them."""
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.standard_normal((144, 32), np.float32))}
    vectors = jnp.asarray(rng.standard_normal((256, 144), np.float32))
    config = memsim.CrossbarConfig(crossbars=None)
    plan = memsim.plan(params, config, memsim.Policy.parse("sws"))
    readout = Readout(adc_bits=8, cells=memsim.Conductance.pcm())

    def of_chip(key: jax.Array) -> jax.Array:
        held, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), words=True)
        assert programming.words is not None  # noqa: S101 - they were asked for
        cells = program_cells(key, programming.words["kernel"], config, readout)
        return read_matmul(
            key, vectors, held["kernel"], cells, plan.layers["kernel"], config, readout
        )

    keys = jax.random.split(jax.random.key(1), CHIPS)
    one, many = jax.jit(of_chip), jax.jit(jax.vmap(of_chip))
    compare("8 chips of PCM under vmap", lambda: many(keys), "a loop", lambda: list(map(one, keys)))


def wires() -> None:
    """Compares solves of the wires with SciPy's, and prints residuals."""
    rng = np.random.default_rng(0)
    conductance = rng.choice([200e-6, 11e-6], (CROSSBARS, ROWS, COLUMNS))
    volts = rng.integers(0, 2, (VECTORS, ROWS)) * 0.2

    def direct(crossbar: int, voltages: np.ndarray) -> np.ndarray:
        # assembled once: circuits of a crossbar differ in their sources alone
        matrix, first = nodal_system(conductance[crossbar], voltages[0])
        sources = np.zeros((len(first), len(voltages)))
        sources[np.arange(ROWS) * COLUMNS] = voltages.T / OHM
        found: np.ndarray = scipy.sparse.linalg.splu(matrix).solve(sources)
        return found

    solve_each = jax.jit(
        lambda of, at: jax.lax.map(
            lambda one: device_currents(one[0], one[1], WIRES).value, (of, at)
        )
    )
    solve_many = jax.jit(lambda of, at: device_currents(of, at, WIRES))
    gradient = jax.jit(
        jax.grad(lambda of, at: jnp.sum(jnp.square(device_currents(of, at, WIRES).value)))
    )
    with jax.enable_x64():
        every, at = jnp.asarray(conductance), jnp.asarray(volts)
        found = solve_many(every[0], at)
        nodes = direct(0, volts)
        seen = nodes[: ROWS * COLUMNS] - nodes[ROWS * COLUMNS :]
        expected = conductance[0] * seen.T.reshape(VECTORS, ROWS, COLUMNS)
        apart = np.abs(found.value - expected).max() / np.abs(expected).max()
        compare(
            f"{VECTORS} vectors through one crossbar",
            lambda: solve_many(every[0], at),
            f"SciPy, factorised once, {VECTORS} solves",
            lambda: direct(0, volts),
        )
        print(f"residual {float(found.residual):.1e}, apart {apart:.1e} of the largest current")
        compare(
            "their gradient",
            lambda: gradient(every[0], at),
            "the solve",
            lambda: solve_many(every[0], at),
        )
        compare(
            f"{CROSSBARS} crossbars, one vector each",
            lambda: solve_each(every, at),
            "SciPy, 8 of them",
            lambda: [direct(number, volts[number : number + 1]) for number in range(8)],
        )


def main() -> None:
    """Runs all."""
    print(jax.default_backend())
    products()
    chips_at_once()
    wires()


if __name__ == "__main__":
    main()
