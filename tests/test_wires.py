import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import memsim
from memsim import Wires
from tests.oracles import solve_crossbar


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64():
        yield


@pytest.fixture
def crossbar():
    """Conductances of HfO2 cells, a third of them open, and voltages."""
    rng = np.random.default_rng(0)
    conductance = rng.choice([200e-6, 11e-6, 0], (7, 5))
    return jnp.asarray(conductance), jnp.asarray(rng.uniform(-0.2, 0.2, 7))


CIRCUITS = [
    f"{size}-{kind}-{number}"
    for size, kinds in (("1x1", "abcde"), ("5x4", "abcdef"))
    for kind in kinds
    for number in (1, 2, 3)
]


@pytest.mark.parametrize("name", CIRCUITS)
def test_currents_and_voltages_are_those_of_a_circuit_simulator(name, ir_drop_circuits):
    circuit = {
        key: ir_drop_circuits[f"{name}/{key}"]
        for key in ("R", "V", "r_wl", "r_bl", "i_dev", "i_out", "i_wl", "i_bl", "v_wl", "v_bl")
    }
    conductance, voltages = jnp.asarray(1 / circuit["R"]), jnp.asarray(circuit["V"][:, 0])
    wires = Wires(float(circuit["r_wl"]), float(circuit["r_bl"]))
    currents = memsim.device_currents(conductance, voltages, wires).value
    word, bit = memsim.node_voltages(currents, voltages, wires)
    before = jnp.cumsum(currents[:, ::-1], axis=1)[:, ::-1]
    after = jnp.cumsum(currents, axis=0)
    largest = max(np.abs(circuit[key]).max() for key in ("i_dev", "i_out", "i_wl", "i_bl"))
    tolerance = {"rtol": 0, "atol": max(1e-6 * largest, 1e-30)}
    np.testing.assert_allclose(currents, circuit["i_dev"], **tolerance)
    np.testing.assert_allclose(currents.sum(0)[None], circuit["i_out"], **tolerance)
    np.testing.assert_allclose(before, circuit["i_wl"], **tolerance)
    np.testing.assert_allclose(after, circuit["i_bl"], **tolerance)
    highest = np.abs(circuit["V"]).max()
    np.testing.assert_allclose(word, circuit["v_wl"], rtol=0, atol=1e-6 * highest)
    np.testing.assert_allclose(bit, circuit["v_bl"], rtol=0, atol=1e-6 * highest)


@pytest.mark.parametrize("wires", [Wires(2.97, 2.97), Wires(0.35, 0.0), Wires(0.0, 20.0)])
def test_a_large_crossbar_leaves_kirchhoff_little_to_complain_of(wires):
    rng = np.random.default_rng(1)
    conductance = jnp.asarray(rng.choice([200e-6, 11e-6], (128, 128)))
    voltages = jnp.asarray(rng.integers(0, 2, 128) * 0.2)
    currents = memsim.device_currents(conductance, voltages, wires).value
    word, bit = memsim.node_voltages(currents, voltages, wires)
    residual = currents - conductance * (word - bit)
    ideal = conductance * voltages[:, None]
    assert np.linalg.norm(residual) <= 1e-9 * np.linalg.norm(ideal)
    assert np.linalg.norm(currents - ideal) > 0.01 * np.linalg.norm(ideal)


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    wires=st.tuples(st.sampled_from([0.1, 3.0, 500.0]), st.sampled_from([0.1, 3.0, 500.0])),
    seed=st.integers(0, 2**16),
)
def test_currents_are_those_of_a_nodal_matrix(rows, columns, wires, seed):
    rng = np.random.default_rng(seed)
    conductance = rng.lognormal(np.log(1e-4), 1, (rows, columns))
    voltages = rng.standard_normal(rows)
    expected = solve_crossbar(conductance, voltages, *wires)
    found = memsim.device_currents(
        jnp.asarray(conductance), jnp.asarray(voltages), Wires(*wires)
    ).value
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_the_effective_conductance_takes_any_voltages(crossbar):
    conductance, voltages = crossbar
    wires = Wires(40.0, 25.0)
    effective = memsim.effective_conductance(conductance, wires).value
    for given_voltages in (voltages, jnp.ones(7)):
        currents = memsim.device_currents(conductance, given_voltages, wires).value
        np.testing.assert_allclose(given_voltages @ effective, currents.sum(0), rtol=1e-8)


def test_gradients_are_finite_differences(crossbar):
    conductance, voltages = crossbar

    def squares(scaled, voltages, wires):
        currents = memsim.device_currents(scaled * 1e-4, voltages, wires).value
        return jnp.sum(jnp.square(1e4 * currents))

    # one-sided at an open device: a conductance is not negative
    check_grads(squares, (1e4 * conductance + 0.1, voltages, Wires(40.0, 25.0)), order=2, rtol=1e-4)
    gradient = jax.grad(squares)(1e4 * conductance, voltages, Wires(40.0, 25.0))
    open_device = tuple(np.argwhere(conductance == 0)[0])
    step = jnp.zeros_like(conductance).at[open_device].set(1e-5)
    wires = Wires(40.0, 25.0)
    change = squares(1e4 * conductance + step, voltages, wires)
    change -= squares(1e4 * conductance, voltages, wires)
    np.testing.assert_allclose(gradient[open_device], change / 1e-5, rtol=1e-3)


def test_the_gradient_of_the_effective_conductance_is_a_finite_difference(crossbar):
    conductance, _ = crossbar

    def total(scaled, word_line):
        wires = Wires(word_line, 25.0)
        return jnp.sum(jnp.square(1e4 * memsim.effective_conductance(scaled * 1e-4, wires).value))

    check_grads(total, (1e4 * conductance + 0.1, 40.0), order=1, rtol=1e-4)


def test_many_crossbars_under_vmap_and_jit_are_a_loop(crossbar):
    conductance, voltages = crossbar
    many = jnp.stack([conductance / 2, conductance, 2 * conductance])
    wires = Wires(40.0, 25.0)

    def solve(conductance):
        return memsim.device_currents(conductance, voltages, wires).value

    together = jax.jit(jax.vmap(solve))(many)
    loop = jnp.stack([solve(one) for one in many])
    np.testing.assert_allclose(together, loop, rtol=1e-8, atol=1e-16)


def test_single_precision_is_single_precision(crossbar):
    conductance, voltages = (x.astype(jnp.float32) for x in crossbar)
    wires = Wires(40.0, 25.0)
    currents = memsim.device_currents(conductance, voltages, wires).value
    assert currents.dtype == jnp.float32
    exact = memsim.device_currents(*crossbar, wires).value
    np.testing.assert_allclose(currents, exact, rtol=0, atol=1e-5 * np.abs(exact).max())
