"""What solving the wires of a crossbar costs, beside a sparse direct solve of the same circuits.

    python -m benchmarks.readout

64 crossbars of 128x128, HfO2 cells (200 and 11 uS, half of them each), wires of 22 nm (2.97 ohm
per cell), one vector of voltages each, float64.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import memsim
from memsim.cells.wires import voltage_drop

CROSSBARS, ROWS, COLUMNS, DIRECT = 64, 128, 128, 8
OHM = 2.97
WIRES = memsim.cells.Wires(OHM, OHM)


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


def main() -> None:
    """Prints the times of both, their ratio, the residual and the largest difference."""
    rng = np.random.default_rng(0)
    conductance = rng.choice([200e-6, 11e-6], (CROSSBARS, ROWS, COLUMNS))
    voltages = rng.integers(0, 2, (CROSSBARS, ROWS)) * 0.2

    def direct(crossbar: int) -> np.ndarray:
        matrix, sources = nodal_system(conductance[crossbar], voltages[crossbar])
        nodes = scipy.sparse.linalg.spsolve(matrix, sources)
        return conductance[crossbar] * (nodes[: ROWS * COLUMNS] - nodes[ROWS * COLUMNS :]).reshape(
            ROWS, COLUMNS
        )

    @jax.jit
    def solve(conductance: jax.Array, voltages: jax.Array) -> jax.Array:
        return jax.lax.map(
            lambda one: memsim.cells.device_currents(one[0], one[1], WIRES).value,
            (conductance, voltages),
        )

    with jax.enable_x64():
        arguments = jnp.asarray(conductance), jnp.asarray(voltages)
        currents = np.asarray(solve(*arguments))
        best = {"memsim": np.inf, "scipy": np.inf}
        for _ in range(3):
            start = time.perf_counter()
            solve(*arguments).block_until_ready()
            best["memsim"] = min(best["memsim"], (time.perf_counter() - start) / CROSSBARS)
            start = time.perf_counter()
            expected = np.stack([direct(crossbar) for crossbar in range(DIRECT)])
            best["scipy"] = min(best["scipy"], (time.perf_counter() - start) / DIRECT)
        left = currents - conductance * (
            voltages[:, :, None] - np.asarray(jax.vmap(lambda i: voltage_drop(i, WIRES))(currents))
        )
    ideal = conductance * voltages[:, :, None]
    print(f"{CROSSBARS} crossbars of {ROWS}x{COLUMNS}, float64, {jax.default_backend()}")
    print(f"memsim {1e3 * best['memsim']:8.1f} ms per crossbar")
    print(f"scipy  {1e3 * best['scipy']:8.1f} ms per crossbar, assembling included")
    print(f"ratio  {best['scipy'] / best['memsim']:8.1f}x")
    print(f"residual {np.linalg.norm(left) / np.linalg.norm(ideal):.1e} of the ideal currents")
    apart = np.abs(currents[:DIRECT] - expected).max() / np.abs(expected).max()
    print(f"apart    {apart:.1e} of the largest current")


if __name__ == "__main__":
    main()
