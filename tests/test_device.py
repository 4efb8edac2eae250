import numpy as np
import pytest

import memsim


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["set_width", "reset_energy", "parallel_rows"])
def test_pulses_are_positive(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}; give a positive number"):
        memsim.ConstantPulses(**{name: value})


def test_rows_are_whole():
    with pytest.raises(ValueError, match=r"`parallel_rows` is 1\.5; give a whole number"):
        memsim.ConstantPulses(parallel_rows=1.5)


def test_writes_take_the_time_and_energy_of_their_pulses(key):
    codes = np.array([-7, -4, 2, -1, 0, 1, 3, -5, 7])
    weights = {"kernel": codes.astype(np.float32)[:, None]}
    config = memsim.CrossbarConfig(rows=3, bits=4)
    plan = memsim.plan(weights, config, memsim.Policy.unsorted())
    _, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan))
    summary = memsim.summarize(programming, plan)
    pulses = memsim.ConstantPulses(
        set_width=2e-7, reset_width=3e-7, set_energy=1e-12, reset_energy=5e-12, parallel_rows=4
    )
    words = codes.reshape(3, 3) & 15
    before, sets, resets, rows = np.zeros(3, int), 0, 0, 0
    for section in words:
        sets += sum(bin(new & ~old).count("1") for new, old in zip(section, before, strict=True))
        resets += sum(bin(old & ~new).count("1") for new, old in zip(section, before, strict=True))
        rows += np.sum(section != before)
        before = section
    np.testing.assert_allclose(memsim.write_time(summary, pulses), rows * 5e-7 / 4)
    np.testing.assert_allclose(memsim.write_energy(summary, pulses), sets * 1e-12 + resets * 5e-12)


def test_default_energies_follow_from_voltage_conductance_and_width():
    pulses = memsim.ConstantPulses()
    conductance = 2 / (1 / 200e-6 + 1 / 11e-6)
    for energy, width in (
        (pulses.set_energy, pulses.set_width),
        (pulses.reset_energy, pulses.reset_width),
    ):
        np.testing.assert_allclose(energy, 2**2 * conductance * width, rtol=0.01)
