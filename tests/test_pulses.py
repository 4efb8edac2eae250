import dataclasses
import itertools
import json
import math
import re
from statistics import NormalDist

import numpy as np
import pytest
import safetensors.numpy

import memsim
from memsim import cells

NORMAL = NormalDist()
SCHEMES = {
    f"{cell} {name}": scheme
    for cell, schemes in (("hfo2", memsim.cells.HFO2), ("pcm", memsim.cells.PCM))
    for name, scheme in schemes.items()
}
FEEDBACK = {
    name: scheme for name, scheme in SCHEMES.items() if isinstance(scheme, memsim.cells.WriteVerify)
}


def law(mean, p99, cap):
    """mu and sigma of ln X, pulses being ceil(X): from the definition, by bisection."""

    def mean_of(sigma):
        mu = math.log(p99) - NORMAL.inv_cdf(0.99) * sigma
        return 1 + sum(1 - NORMAL.cdf((math.log(k) - mu) / sigma) for k in range(1, cap))

    low, high = 0.01, 10.0
    for _ in range(60):
        sigma = (low + high) / 2
        low, high = (sigma, high) if mean_of(sigma) > mean else (low, sigma)
    return math.log(p99) - NORMAL.inv_cdf(0.99) * sigma, sigma


def write_cell(scheme, direction, rng):
    """One write, pulse by pulse: seconds, joules, and whether the cell is right."""
    width = getattr(scheme, f"{direction}_width")
    energy = getattr(scheme, f"{direction}_energy")
    if isinstance(scheme, memsim.cells.ConstantPulses):
        return width, energy, rng.random() < getattr(scheme, f"{direction}_success")
    mean, p99 = getattr(scheme, f"{direction}_mean"), getattr(scheme, f"{direction}_p99")
    needed = math.ceil(math.exp(rng.normal(*LAWS[mean, p99, scheme.cap])))
    amplitude = getattr(scheme, "first_amplitude", 1.0)
    seconds = joules = 0.0
    for pulse in range(scheme.cap):
        seconds += width + scheme.read_time
        joules += energy * amplitude**2 + scheme.read_energy
        if pulse + 1 == needed:
            return seconds, joules, True
        if isinstance(scheme, memsim.cells.RampedPulses):
            amplitude = min(amplitude + scheme.amplitude_step, scheme.last_amplitude)
    return seconds, joules, False


LAWS = {
    arguments: law(*arguments)
    for scheme in FEEDBACK.values()
    for arguments in (
        (scheme.set_mean, scheme.set_p99, scheme.cap),
        (scheme.reset_mean, scheme.reset_p99, scheme.cap),
    )
}


def summary_of(sets, resets, row_operations, set_rows=None, reset_rows=None, cell_bits=1):
    """Of rows of which each has SETs and RESETs, unless said otherwise."""
    return memsim.Summary(
        writes=sets + resets,
        sets=sets,
        resets=resets,
        writes_per_pass=[sets + resets],
        row_operations=row_operations,
        reduction=None,
        index_bits_per_weight=0.0,
        analog_valid=True,
        max_cell_writes=None,
        writes_per_column=[sets + resets],
        layers={},
        set_rows=row_operations if set_rows is None else set_rows,
        reset_rows=row_operations if reset_rows is None else reset_rows,
        pulses=sets + resets,
        set_pulses=sets,
        reset_pulses=resets,
        wrong_cells=None,
        wrong_share=None,
        cell_bits=cell_bits,
    )


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["set_width", "reset_energy", "parallel_rows"])
def test_pulses_are_positive(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}; give a positive number"):
        memsim.cells.ConstantPulses(**{name: value})


@pytest.mark.parametrize(
    ("scheme", "fields", "message"),
    [
        (cells.ConstantPulses, {"parallel_rows": 1.5}, "`parallel_rows` is 1.5; give a whole"),
        (cells.ConstantPulses, {"set_success": 1.2}, "`set_success` is 1.2; a probability"),
        (cells.ConstantPulses, {"placeholders": ("cap",)}, "`placeholders` has 'cap'; give names"),
        (cells.WriteVerify, {"cap": 99.5}, "`cap` is 99.5; give a whole number"),
        (cells.WriteVerify, {"set_p99": 101}, "`p99` is 101; give 1 to the `cap`, 100"),
        (cells.WriteVerify, {"reset_mean": 1.5}, "`mean` is 1.5; with 99 % of all writes done in "
         "40 pulses and a cap of 100 give 2.04 to 39.6"),
        (cells.WriteVerify, {"reset_mean": 40.0}, "`mean` is 40.0; with"),
        (cells.RampedPulses, {"last_amplitude": 0.25}, "`last_amplitude` is 0.25; give at least"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(scheme, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        scheme(**fields)


@pytest.mark.parametrize("arguments", LAWS)
def test_pulses_have_the_mean_and_99th_percentile_asked_for(arguments):
    mean, p99, cap = arguments
    left = memsim.cells.pulse_survival(*arguments)
    mu, sigma = LAWS[arguments]
    expected = [1] + [1 - NORMAL.cdf((math.log(k) - mu) / sigma) for k in range(1, cap + 1)]
    np.testing.assert_allclose(left, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(left[:-1].sum(), mean)
    np.testing.assert_allclose(left[p99], 0.01)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_probabilities_of_pulses_sum_to_one(scheme):
    for write in memsim.cells.cell_writes(scheme):
        assert write.pmf.min() >= 0
        np.testing.assert_allclose(write.pmf.sum(), 1)
        mean = (write.pmf * np.arange(1, write.pmf.size + 1)).sum()
        np.testing.assert_allclose(write.time, mean * write.pulse_time)


def test_the_law_agrees_with_what_else_is_published():
    one = [write.pmf[0] for write in memsim.cells.cell_writes(memsim.cells.HFO2["write-verify"])]
    assert 0.41 < one[0] < 0.69  # a single pulse is a constant pulse
    assert 0.37 < one[1] < 0.75
    for write in memsim.cells.cell_writes(memsim.cells.HFO2["ramp"]):
        assert 10 <= 1 + np.searchsorted(np.cumsum(write.pmf), 0.5) <= 12  # the median
    for write in memsim.cells.cell_writes(memsim.cells.PCM["write-verify"]):
        assert write.residual_error <= 0.01 + 1e-12
    thin = math.log(0.01) / math.log(1 - 1 / memsim.cells.WriteVerify().reset_mean)  # geometric
    assert thin < memsim.cells.WriteVerify().reset_p99 / 2


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_the_slowest_of_some_cells_by_enumeration(cells):
    pmf = np.array([0.5, 0.2, 0.0, 0.3])
    expected = sum(
        max(pulses) * math.prod(pmf[k - 1] for k in pulses)
        for pulses in itertools.product(range(1, 5), repeat=cells)
    )
    np.testing.assert_allclose(memsim.cells.expected_maximum(pmf, cells), expected)


@pytest.mark.parametrize("cells", [3, 16])
def test_the_slowest_of_some_cells_by_sampling(cells):
    (write, _) = memsim.cells.cell_writes(memsim.cells.WriteVerify())
    draws = np.random.default_rng(0).choice(write.pmf.size, (50_000, cells), p=write.pmf)
    slowest = 1 + draws.max(axis=1)
    error = slowest.std() / math.sqrt(len(slowest))
    assert abs(memsim.cells.expected_maximum(write.pmf, cells) - slowest.mean()) < 4 * error


def test_a_row_takes_its_pulses_however_many_could_go_at_once():
    one = memsim.cells.ConstantPulses(parallel_rows=128)
    assert memsim.cells.write_time(summary_of(1, 1, 1), one) == one.set_width + one.reset_width


@pytest.mark.parametrize("parallel_rows", [1, 2])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_time_energy_and_failures_are_those_of_cells_pulsed_one_by_one(scheme, parallel_rows):
    scheme = dataclasses.replace(scheme, parallel_rows=parallel_rows)
    rng = np.random.default_rng(1)
    cells = {"set": 3, "reset": 2}  # of each row
    steps = 1500
    times, joules, failed = [], [], 0
    for _ in range(steps):
        time = energy = 0.0
        for direction, of_row in cells.items():
            done = [write_cell(scheme, direction, rng) for _ in range(of_row * parallel_rows)]
            time += max(seconds for seconds, _, _ in done)
            energy += sum(joules for _, joules, _ in done)
            failed += sum(not right for _, _, right in done)
        times.append(time)
        joules.append(energy)
    rows = steps * parallel_rows
    summary = summary_of(3 * rows, 2 * rows, rows)
    for figure, seen in (("write_time", times), ("write_energy", joules)):
        error = 4 * math.sqrt(steps) * np.std(seen) + 1e-9 * sum(seen)
        assert abs(getattr(memsim.cells, figure)(summary, scheme) - sum(seen)) < error
    expected = memsim.cells.failed_writes(summary, scheme)
    assert abs(expected - failed) <= 4 * math.sqrt(expected)


def test_one_write_alone_takes_its_time_and_energy():
    for scheme in SCHEMES.values():
        set_, reset = memsim.cells.cell_writes(scheme)
        time = memsim.cells.write_time(summary_of(1, 1, 1), scheme)
        np.testing.assert_allclose(time, set_.time + reset.time)
        np.testing.assert_allclose(
            memsim.cells.write_energy(summary_of(2, 3, 4), scheme),
            2 * set_.energy + 3 * reset.energy,
        )
        assert memsim.cells.write_time(summary_of(0, 0, 0), scheme) == 0


def changes_by_row(codes, rows, bits):
    """SETs and RESETs of every row operation of one crossbar, in plain loops."""
    state, found = [0] * rows, []
    for start in range(0, len(codes), rows):
        for row, code in enumerate(codes[start : start + rows]):
            word = int(code) & (2**bits - 1)
            if word != state[row]:
                rising, falling = word & ~state[row], state[row] & ~word
                found.append((rising.bit_count(), falling.bit_count()))
                state[row] = word
    return found


def programmed(codes, rows, bits, key):
    weights = {"kernel": codes.astype(np.float32)[:, None]}
    config = memsim.CrossbarConfig(rows=rows, bits=bits)
    plan = memsim.plan(weights, config, memsim.policies.Unsorted())
    _, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan))
    return memsim.summarize(programming, plan)


def test_writes_take_the_time_and_energy_of_their_pulses(key):
    codes = np.array([-7, -4, 2, -1, 0, 1, 3, -5, 7])
    summary = programmed(codes, 3, 4, key)
    pulses = memsim.cells.ConstantPulses(
        set_width=2e-7, reset_width=3e-7, set_energy=1e-12, reset_energy=5e-12, parallel_rows=4
    )
    changes = changes_by_row(codes, 3, 4)
    sets, resets = (sum(column) for column in zip(*changes, strict=True))
    rows = [sum(count > 0 for count in column) for column in zip(*changes, strict=True)]
    assert [summary.set_rows, summary.reset_rows] == rows
    assert max(rows) < len(changes)  # some rows need one phase only
    steps = [max(count / 4, 1) for count in rows]  # a phase takes its time, however few rows
    seconds = steps[0] * 2e-7 + steps[1] * 3e-7
    np.testing.assert_allclose(memsim.cells.write_time(summary, pulses), seconds)
    np.testing.assert_allclose(
        memsim.cells.write_energy(summary, pulses), sets * 1e-12 + resets * 5e-12
    )


def test_means_of_rows_bound_their_time_closely(key):
    codes = np.random.default_rng(0).integers(-127, 128, 512)
    codes[0] = 127  # one step of the quantizer is 1
    summary = programmed(codes, 16, 8, key)
    for scheme in FEEDBACK.values():
        exact = sum(
            memsim.cells.expected_maximum(write.pmf, cells) * write.pulse_time
            for of_row in changes_by_row(codes, 16, 8)
            for write, cells in zip(memsim.cells.cell_writes(scheme), of_row, strict=True)
            if cells
        )
        assert exact <= memsim.cells.write_time(summary, scheme) < 1.2 * exact


def test_default_energies_follow_from_voltage_conductance_and_width():
    pulses = memsim.cells.ConstantPulses()
    conductance = 2 / (1 / 200e-6 + 1 / 11e-6)
    for energy, width in (
        (pulses.set_energy, pulses.set_width),
        (pulses.reset_energy, pulses.reset_width),
    ):
        np.testing.assert_allclose(energy, 2**2 * conductance * width, rtol=0.01)


def test_what_nobody_publishes_is_marked():
    assert (
        memsim.cells.HFO2["constant"].placeholders
        == memsim.cells.ConstantPulses().placeholders
        == ()
    )
    assert memsim.cells.HFO2["write-verify"].placeholders == ("cap",)
    assert "first_amplitude" in memsim.cells.HFO2["ramp"].placeholders
    assert memsim.cells.PCM["constant"].placeholders == ("set_success", "reset_success")
    assert memsim.cells.PCM["write-verify"].placeholders == ("set_mean", "reset_mean")


def test_report_compares_schemes(run, tmp_path):
    weights = np.random.default_rng(1).standard_normal((10, 30), np.float32)
    safetensors.numpy.save_file({"fc.weight": weights}, tmp_path / "net.safetensors")
    options = ["--rows", 16, "--policy", "unsorted", "--policy", "sws", "--json"]
    checkpoint, out = tmp_path / "net.safetensors", tmp_path / "out.json"
    code, printed, _ = run("report", checkpoint, *options, out)
    assert code == 0
    assert "write-verify" not in printed
    plain = json.loads(out.read_text())
    assert "cells" not in plain
    code, printed, _ = run("report", checkpoint, *options, out, "--force", "--cells", "hfo2")
    assert code == 0
    for text in ("write-verify*", "constant ", "ramp*: placeholders, nobody publishes cap, first_"):
        assert text in printed
    document = json.loads(out.read_text())
    page = memsim.report.to_html(document)
    assert "Programming hfo2 cells" in page
    assert "write-verify: nobody publishes cap" in page
    assert document["cells"]["name"] == "hfo2"
    schemes = document["cells"]["schemes"]
    assert schemes["write-verify"]["placeholders"] == ["cap"]
    for name, entry in document["policies"].items():
        costs = entry.pop("schemes")
        assert entry == plain["policies"][name]
        counts = ("sets", "resets", "row_operations", "set_rows", "reset_rows")
        summary = summary_of(*(entry[name] for name in counts))
        assert list(costs) == list(schemes) == list(memsim.cells.HFO2)
        for scheme, cost in costs.items():
            assert cost == {
                "write_seconds": memsim.cells.write_time(summary, memsim.cells.HFO2[scheme]),
                "write_joules": memsim.cells.write_energy(summary, memsim.cells.HFO2[scheme]),
                "failed_writes": memsim.cells.failed_writes(summary, memsim.cells.HFO2[scheme]),
            }
    code, _, error = run("report", checkpoint, "--cells", "flash")
    assert code == 1
    assert error == "memsim: `--cells` is 'flash'; give hfo2 or pcm."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.287, "287.0 ms"), (48.3e-6, "48.3 µs"), (2.0, "2.0 s"), (0.0, "0.0 s"),
        (1500, "1.5 ks"), (0.99994, "999.9 ms"), (0.99996, "1.0 s"), (1e-3, "1.0 ms"),
    ],
)  # fmt: skip
def test_quantities_take_a_prefix(value, text):
    assert memsim.report.texts.quantity_text(value, "s") == text


@pytest.mark.parametrize(
    ("set_rows", "reset_rows", "seconds"), [(3, 0, 3e-7), (0, 3, 3e-6), (2, 1, 1.2e-6)]
)
def test_a_row_takes_only_the_phases_it_needs(set_rows, reset_rows, seconds):
    summary = summary_of(4 * set_rows, 4 * reset_rows, 3, set_rows, reset_rows)
    np.testing.assert_allclose(
        memsim.cells.write_time(summary, memsim.cells.ConstantPulses()), seconds
    )


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_phase_that_no_row_needs_costs_nothing(scheme):
    set_, reset = memsim.cells.cell_writes(scheme)
    only_sets = memsim.cells.write_time(summary_of(5, 0, 5, 5, 0), scheme)
    only_resets = memsim.cells.write_time(summary_of(0, 5, 5, 0, 5), scheme)
    np.testing.assert_allclose([only_sets, only_resets], [5 * set_.time, 5 * reset.time])


@pytest.mark.parametrize(
    "price", [memsim.cells.write_time, memsim.cells.write_energy, memsim.cells.failed_writes]
)
@pytest.mark.parametrize(("cell_bits", "fitting"), [(1, 3), (2, 1), (4, 0)])
def test_cells_of_several_bits_take_a_scheme_of_their_levels(price, cell_bits, fitting):
    summary = summary_of(10, 10, 10, cell_bits=cell_bits)
    kept = memsim.cells.prices.fitting_schemes(memsim.cells.HFO2, cell_bits)
    assert len(kept) == fitting
    for name, scheme in memsim.cells.HFO2.items():
        if name in kept:
            assert price(summary, scheme) >= 0
            continue
        with pytest.raises(ValueError, match=f"bits a cell are {2**cell_bits} levels; give one"):
            price(summary, scheme)
        assert price(summary, dataclasses.replace(scheme, levels=2**cell_bits)) >= 0


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), [1], 1j])
@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        (scheme, field.name)
        for scheme in (memsim.cells.ConstantPulses, memsim.cells.RampedPulses)
        for field in dataclasses.fields(scheme)
    ],
)
def test_what_is_no_number_is_no_pulse(scheme, name, value):
    with pytest.raises(ValueError, match=f"`{name}` "):
        scheme(**{name: value})


@pytest.mark.parametrize(
    "price", [memsim.cells.write_time, memsim.cells.write_energy, memsim.cells.failed_writes]
)
def test_swapped_arguments_of_prices_are_named(price):
    summary, scheme = summary_of(1, 1, 1), memsim.cells.ConstantPulses()
    with pytest.raises(ValueError, match="`summary` is a ConstantPulses"):
        price(scheme, summary)
    with pytest.raises(ValueError, match="`scheme` is a str; give a ConstantPulses"):
        price(summary, "constant")


def test_a_network_in_cells_of_two_bits_is_not_priced_as_one_of_one_bit(key):
    weights = {"kernel": np.arange(-8, 8, dtype=np.float32)[:, None]}
    plan = memsim.plan(
        weights, memsim.CrossbarConfig(rows=4, cell_bits=2), memsim.Policy.parse("unsorted")
    )
    _, programming = memsim.program(weights, plan, memsim.sample_chip(key, plan))
    summary = memsim.summarize(programming, plan)
    assert summary.cell_bits == 2
    with pytest.raises(ValueError, match="figures for cells of 2 levels, but 2 bits"):
        memsim.cells.write_time(summary, memsim.cells.HFO2["write-verify"])
    assert memsim.cells.write_time(summary, memsim.cells.HFO2["ramp"]) > 0


def test_a_report_prices_cells_of_two_bits_by_what_fits_them(run, tmp_path):
    weights = np.random.default_rng(1).standard_normal((10, 30), np.float32)
    safetensors.numpy.save_file({"fc.weight": weights}, tmp_path / "net.safetensors")
    checkpoint, out = tmp_path / "net.safetensors", tmp_path / "out.json"
    options = ["--rows", 16, "--cell-bits", 2, "--policy", "sws"]
    code, printed, _ = run("report", checkpoint, *options, "--cells", "hfo2", "--json", out)
    assert code == 0
    assert "not priced, figures are of cells of one bit: constant, write-verify" in printed
    document = json.loads(out.read_text())
    assert list(document["policies"]["sws"]["schemes"]) == ["ramp"]
    code, _, error = run("report", checkpoint, *options, "--lifetime")
    assert code == 1
    assert "`--cell-bits` is 2, but the constant scheme" in error
    code, _, error = run("report", checkpoint, *options, "--cells", "pcm")
    assert code == 1
    assert "`--cell-bits` is 2" in error
