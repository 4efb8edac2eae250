import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import memsim
from memsim.cells import Wires
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
    currents = memsim.cells.device_currents(conductance, voltages, wires).value
    word, bit = memsim.cells.node_voltages(currents, voltages, wires)
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
    currents = memsim.cells.device_currents(conductance, voltages, wires).value
    word, bit = memsim.cells.node_voltages(currents, voltages, wires)
    residual = currents - conductance * (word - bit)
    ideal = conductance * voltages[:, None]
    assert np.linalg.norm(residual) <= 1e-9 * np.linalg.norm(ideal)
    assert np.linalg.norm(currents - ideal) > 0.01 * np.linalg.norm(ideal)


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6) | st.just(40),
    wires=st.tuples(st.sampled_from([0.1, 3.0, 500.0]), st.sampled_from([0.1, 3.0, 500.0])),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30)
def test_currents_are_those_of_a_nodal_matrix(rows, columns, wires, seed):
    rng = np.random.default_rng(seed)
    conductance = rng.lognormal(np.log(1e-4), 1, (rows, columns))
    voltages = rng.standard_normal((64, rows))  # enough to share an elimination
    alone = memsim.cells.device_currents(conductance, voltages[0], Wires(*wires)).value
    found = memsim.cells.device_currents(conductance, voltages, Wires(*wires)).value
    pairs = [(voltages[0], alone), *((voltages[i], found[i]) for i in (0, 1, 63))]
    for vector, currents in pairs:
        expected = solve_crossbar(conductance, vector, *wires)
        np.testing.assert_allclose(currents, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("wires", [(40.0, 25.0), (0.0, 25.0), (40.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_many_vectors_at_once_are_one_by_one_gradients_too(crossbar, wires, turned):
    conductance, _ = crossbar
    conductance = conductance.T if turned else conductance
    voltages = jnp.asarray(np.random.default_rng(1).uniform(-0.2, 0.2, (64, len(conductance))))

    def total(of, conductance, voltages, wires):
        currents = of(conductance, voltages, Wires(*wires))
        return jnp.sum(
            jnp.sin(1e4 * currents) * jnp.arange(len(voltages), dtype=float)[:, None, None]
        )

    def at_once(*arguments):
        return memsim.cells.device_currents(*arguments, tolerance=1e-12).value

    def one_by_one(conductance, voltages, wires):
        return jax.vmap(lambda vector: at_once(conductance, vector, wires))(voltages)

    def found(of):
        return jax.value_and_grad(total, (1, 2, 3))(of, conductance, voltages, wires)

    pairs = zip(jax.tree.leaves(found(at_once)), jax.tree.leaves(found(one_by_one)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9 * np.abs(other).max())


def test_single_precision_is_refined_to_its_tolerance():
    rng = np.random.default_rng(0)
    conductance = jnp.asarray(rng.choice([200e-6, 11e-6], (128, 48)), jnp.float32)
    voltages = jnp.asarray(rng.integers(0, 2, (64, 128)) * 0.2, jnp.float32)
    found = memsim.cells.device_currents(conductance, voltages, Wires(2.97, 2.97))
    exact = memsim.cells.device_currents(
        jnp.asarray(conductance, jnp.float64), jnp.asarray(voltages, jnp.float64), Wires(2.97, 2.97)
    )
    assert float(found.residual) < 1e-6
    np.testing.assert_allclose(found.value, exact.value, rtol=0, atol=1e-5 * exact.value.max())


def test_the_effective_conductance_takes_any_voltages(crossbar):
    conductance, voltages = crossbar
    wires = Wires(40.0, 25.0)
    effective = memsim.cells.effective_conductance(conductance, wires).value
    for given_voltages in (voltages, jnp.ones(7)):
        currents = memsim.cells.device_currents(conductance, given_voltages, wires).value
        np.testing.assert_allclose(given_voltages @ effective, currents.sum(0), rtol=1e-8)


@pytest.mark.slow
def test_gradients_are_finite_differences(crossbar):
    conductance, voltages = crossbar

    def squares(scaled, voltages, wires):
        currents = memsim.cells.device_currents(scaled * 1e-4, voltages, wires).value
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
        return jnp.sum(
            jnp.square(1e4 * memsim.cells.effective_conductance(scaled * 1e-4, wires).value)
        )

    check_grads(total, (1e4 * conductance + 0.1, 40.0), order=1, rtol=1e-4)


def test_many_crossbars_under_vmap_and_jit_are_a_loop(crossbar):
    conductance, voltages = crossbar
    many = jnp.stack([conductance / 2, conductance, 2 * conductance])
    wires = Wires(40.0, 25.0)

    def solve(conductance):
        return memsim.cells.device_currents(conductance, voltages, wires).value

    together = jax.jit(jax.vmap(solve))(many)
    loop = jnp.stack([solve(one) for one in many])
    np.testing.assert_allclose(together, loop, rtol=1e-8, atol=1e-16)


def test_single_precision_is_single_precision(crossbar):
    conductance, voltages = (x.astype(jnp.float32) for x in crossbar)
    wires = Wires(40.0, 25.0)
    currents = memsim.cells.device_currents(conductance, voltages, wires).value
    assert currents.dtype == jnp.float32
    exact = memsim.cells.device_currents(*crossbar, wires).value
    np.testing.assert_allclose(currents, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("ohm", [2.97, 10.0])
def test_a_solve_says_what_it_left_over(ohm):
    rng = np.random.default_rng(0)
    conductance = jnp.asarray(rng.choice([200e-6, 11e-6], (256, 64)), jnp.float32)
    voltages = jnp.asarray(rng.integers(0, 2, 256) * 0.2, jnp.float32)
    wires = Wires(ohm, ohm)
    found = memsim.cells.device_currents(conductance, voltages, wires)
    exact = np.asarray(found.value, np.float64)
    word, bit = memsim.cells.node_voltages(
        jnp.asarray(exact), jnp.asarray(voltages, jnp.float64), wires
    )
    ideal = np.asarray(conductance, np.float64) * np.asarray(voltages)[:, None]
    left = exact - np.asarray(conductance, np.float64) * (word - bit)
    residual = np.linalg.norm(left) / np.linalg.norm(ideal)
    assert residual < 1e-5
    assert found.converged
    assert 0.3 * residual < float(found.residual) < 1e-5  # measured in single precision


def test_a_solve_that_missed_its_tolerance_raises_outside_jit_and_says_so_inside():
    conductance = jnp.full((256, 16), 2e-4, jnp.float32)
    voltages, wires = jnp.full(256, 0.2, jnp.float32), Wires(50.0, 50.0)
    for solve in (
        lambda: memsim.cells.device_currents(conductance, voltages, wires, tolerance=1e-9),
        lambda: memsim.cells.effective_conductance(conductance, wires, tolerance=1e-9),
    ):
        with pytest.raises(ArithmeticError, match=r"left a residual of .*, `tolerance` is 1e-09"):
            solve()
        inside = jax.jit(solve)()
        assert not inside.converged
        assert inside.residual > 1e-9


def test_what_is_not_finite_inside_jit_has_not_converged(crossbar):
    conductance, voltages = crossbar
    solve = jax.jit(memsim.cells.device_currents)
    for wrong in (jnp.nan, jnp.inf, -1e-4):
        spoiled = conductance.at[2, 2].set(wrong)
        assert not solve(spoiled, voltages, Wires(1.0, 1.0)).converged
    assert not solve(conductance, voltages.at[0].set(jnp.nan), Wires(1.0, 1.0)).converged


def test_one_bad_crossbar_of_a_batch_is_the_only_one(crossbar):
    conductance, voltages = crossbar
    many = jnp.stack([conductance, conductance.at[0, 0].set(jnp.nan)])
    found = jax.vmap(lambda one: memsim.cells.device_currents(one, voltages, Wires(9.0, 9.0)))(many)
    assert found.converged.tolist() == [True, False]
    alone = memsim.cells.device_currents(conductance, voltages, Wires(9.0, 9.0))
    np.testing.assert_allclose(found.value[0], alone.value, rtol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conductance": -np.ones((2, 3))}, "`conductance` has -1.0; give finite siemens from 0"),
        ({"conductance": np.full((2, 3), np.nan)}, "`conductance` has nan"),
        ({"conductance": np.full((2, 3), np.inf)}, "`conductance` has inf"),
        ({"conductance": np.ones((2, 3, 1))}, r"`conductance` has shape \(2, 3, 1\)"),
        ({"conductance": np.ones((0, 3))}, r"`conductance` has shape \(0, 3\)"),
        ({"conductance": np.ones((2, 3), int)}, "`conductance` is int64; give float32 or float64"),
        ({"conductance": {"a": 1}}, "`conductance` is a dict; give an array"),
        ({"voltages": np.ones(3)}, r"`voltages` has shape \(3,\); give one volt for each of 2"),
        ({"voltages": np.ones(2, np.float16)}, "`voltages` is float16"),
        ({"voltages": np.ones(2, int)}, "`voltages` is int64"),
        ({"voltages": np.ones(2, np.float32)}, "`voltages` is float32; give float64, as the dev"),
        ({"voltages": np.asarray([1, np.inf])}, "`voltages` has inf; give finite volts"),
        ({"wires": (1.0, 1.0)}, r"`wires` is a tuple \(\(1.0, 1.0\)\); give a Wires"),
        ({"wires": Wires(-1.0, 1.0)}, "`wires.word_line` is -1.0; give finite ohm from 0"),
        ({"wires": Wires(1.0, float("nan"))}, "`wires.bit_line` is nan"),
        ({"wires": Wires(1.0, "2")}, "`wires.bit_line` is '2'"),
        ({"wires": Wires(1.0, True)}, "`wires.bit_line` is True"),
        ({"wires": Wires(jnp.ones(2), 1.0)}, "`wires.word_line` is .*; give one resistance"),
        ({"tolerance": 0.0}, "`tolerance` is 0.0; give a share above 0"),
        ({"tolerance": "tight"}, "`tolerance` is 'tight'"),
    ],
)
def test_wrong_circuits_are_refused(arguments, message):
    good = {"conductance": np.ones((2, 3)), "voltages": np.ones(2), "wires": Wires(1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        memsim.cells.device_currents(**good | arguments)
    if "voltages" not in arguments:
        good.pop("voltages")
        with pytest.raises(ValueError, match=message):
            memsim.cells.effective_conductance(**good | arguments)


@pytest.mark.parametrize("siemens", [1e-30, 1e-12, 1.0])
def test_conductances_of_any_size_are_solved(siemens):
    rng = np.random.default_rng(2)
    share, voltages = rng.uniform(0, 1, (6, 4)), rng.uniform(-1, 1, 6)
    expected = memsim.cells.device_currents(share, voltages, Wires(0.3, 0.2)).value
    wires = Wires(0.3 / siemens, 0.2 / siemens)
    found = memsim.cells.device_currents(
        jnp.asarray(share * siemens, jnp.float32), jnp.asarray(voltages, jnp.float32), wires
    )
    many = memsim.cells.device_currents(
        jnp.asarray(share * siemens, jnp.float32), jnp.tile(jnp.float32(voltages), (64, 1)), wires
    )
    largest = np.abs(expected).max()
    for value in many.value[:4]:
        np.testing.assert_allclose(value / siemens, expected, rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(found.value / siemens, expected, rtol=0, atol=1e-5 * largest)


def test_a_solution_is_not_taken_for_its_value(crossbar):
    solution = memsim.cells.device_currents(*crossbar, Wires(1.0, 1.0))
    with pytest.raises(ValueError, match="`currents` is a Solution; give its `value`"):
        memsim.cells.node_voltages(solution, crossbar[1], Wires(1.0, 1.0))
