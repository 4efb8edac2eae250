import dataclasses
import json
import math
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

import memsim
from memsim.report.documents import service_life_json
from memsim.report.texts import number_text, time_text
from memsim.service.costs import Costs, make_service_inputs, read_service_inputs, total_cost
from memsim.service.ownership import life_in_service


def life_of(summary, writes, inputs, seed=0, **upkeep):
    """Of cells of one bit: as many cycles as half their writes."""
    cycles = [of_chip / np.float32(2) for of_chip in writes]
    return life_in_service(summary, inputs, cycles=cycles, seed=seed, **upkeep)


FILE = """
[endurance]
law = "weibull"
median = 1e8
shape = 2

[cost]
inferences_per_day = 1_000_000
batch = 8
chip_price = 500
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {"fc.weight": rng.standard_normal((10, 40), np.float32)}
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return path


def test_what_a_file_lacks_is_a_placeholder(file):
    found = read_service_inputs(file)
    assert found.endurance == memsim.service.Weibull(median=1e8, shape=2)
    assert found.costs == Costs(inferences_per_day=1e6, batch=8, chip_price=500)
    assert found.placeholders == ("cost.energy_price", "cost.read_joules", "cost.service_years")
    assert found.given == (
        "endurance.law", "endurance.median", "endurance.shape", "cost.inferences_per_day",
        "cost.batch", "cost.chip_price",
    )  # fmt: skip
    everything = {f"cost.{field.name}" for field in dataclasses.fields(Costs)} - {"cost.currency"}
    guessed = {"endurance.law", "endurance.sigma_ln"} | everything
    assert set(make_service_inputs().placeholders) == guessed
    assert make_service_inputs().given == ()
    assert make_service_inputs().endurance == memsim.service.Lognormal()


def test_every_figure_is_what_its_formula_says():
    costs = Costs(
        inferences_per_day=2e6, batch=4, chip_price=300, energy_price=0.25, read_joules=1e-4,
        service_years=6, currency="EUR",
    )  # fmt: skip
    figures = total_cost(1e8, 2e-5, 0.3, costs)
    given = dataclasses.asdict(costs) | {
        "programmings_until_failure": 1e8, "write_joules": 2e-5, "write_seconds": 0.3
    }  # fmt: skip
    programmings = 2e6 / 4
    chips = math.ceil(programmings * 0.3 / 86400)
    assert chips == 2
    years = 1e8 * chips / programmings / 365.25
    energy = (programmings * 2e-5 + 2e6 * 1e-4) * 365.25 / 3.6e6
    total = chips * 300 / years + 0.25 * energy
    np.testing.assert_allclose(figures["lifetime_years"].value, years)
    np.testing.assert_allclose(figures["total_cost"].value, total)
    np.testing.assert_allclose(figures["cost_per_million"].value, total / (2 * 365.25))
    assert figures["total_cost"].unit == "EUR/year"
    for name, figure in figures.items():
        words = set(re.findall("[a-z_]+", re.sub(r"[0-9.]+e[0-9]+", "", figure.formula)))
        assert words - {"min", "max", "ceil"} == set(figure.inputs), name
        for word, value in figure.inputs.items():  # a figure above it, or what was given
            assert value == (figures[word].value if word in figures else given[word])


def test_a_chip_that_outlives_its_service_is_replaced_all_the_same():
    for programmings in (1e12, math.inf):
        figures = total_cost(programmings, 1e-6, 1e-3, Costs(service_years=4, chip_price=80))
        assert figures["hardware_cost"].value == 20
        assert figures["chips"].value == 1


def test_lifetimes_and_costs_are_those_of_the_counted_wear(key):
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.standard_normal((30, 20)).astype(np.float32)}
    config = memsim.CrossbarConfig(rows=16)
    policies = {"sws": memsim.policies.Sws()}
    last = memsim.compare(weights, config, policies, passes=2, steady=True).steady["sws"]
    plan = memsim.plan(weights, config, policies["sws"])
    chip = memsim.sample_chip(key, plan)
    _, first = memsim.program(weights, plan, chip)
    _, second = memsim.program(weights, plan, first.chip, wear=True)
    np.testing.assert_array_equal(last.wear[0], second.wear)
    assert last.summary == memsim.summarize(second, plan, None)
    inputs = make_service_inputs(costs={"inferences_per_day": 5000, "batch": 3})
    found = life_of(*last, inputs)
    assert found.years.shape == (1000,)
    pulses = memsim.cells.ConstantPulses()
    assert found.write_joules == memsim.cells.write_energy(last.summary, pulses)
    assert found.write_seconds == memsim.cells.write_time(last.summary, pulses)
    median = np.quantile(found.years, 0.5, method="nearest")
    np.testing.assert_allclose(median, found.figures["lifetime_years"].value)
    batched = life_of(*last, make_service_inputs(costs={"inferences_per_day": 5000, "batch": 6}))
    np.testing.assert_allclose(batched.years, 2 * found.years)
    document = json.loads(json.dumps(service_life_json(found), allow_nan=False))
    low, high = document["years_to_first_failure_90"]
    assert low < document["years_to_first_failure"] < high
    inside = np.mean((found.years >= low) & (found.years <= high))
    np.testing.assert_allclose(inside, 0.9, atol=0.01)


@pytest.fixture(scope="module")
def steady_pass():
    weights = {"kernel": np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)}
    config = memsim.CrossbarConfig(rows=16, crossbars=2)
    policies = {"sws": memsim.policies.Sws()}
    return memsim.compare(weights, config, policies, passes=2, steady=True).steady["sws"]


def test_a_scheme_changes_time_and_energy_alone(steady_pass):
    found = life_of(*steady_pass, make_service_inputs())
    for scheme in memsim.cells.HFO2.values():
        under = life_of(*steady_pass, make_service_inputs(), scheme=scheme)
        np.testing.assert_array_equal(under.inferences, found.inferences)
        assert under.write_joules == memsim.cells.write_energy(steady_pass.summary, scheme)
        assert under.write_seconds == memsim.cells.write_time(steady_pass.summary, scheme)


@pytest.mark.parametrize(("levelling", "axes"), [("rows", 1), ("crossbars", 0), ("both", (0, 1))])
def test_levelled_chips_wear_at_the_mean_rate(steady_pass, levelling, axes):
    summary, (wear,) = steady_pass
    mean = np.broadcast_to(wear.mean(axis=axes, keepdims=True), wear.shape).astype(np.float32)
    found = life_of(*steady_pass, make_service_inputs(), levelling=levelling)
    np.testing.assert_array_equal(
        found.inferences, life_of(summary, [mean], make_service_inputs()).inferences
    )
    assert np.median(found.inferences) > np.median(
        life_of(*steady_pass, make_service_inputs()).inferences
    )


@pytest.mark.slow
def test_spare_rows_are_used_up_before_a_chip_fails(steady_pass):
    summary, (wear,) = steady_pass
    keys = jax.random.split(jax.random.key(7), (1, 1000))[0]
    found = life_of(summary, [wear], make_service_inputs(), 7, spares=2).inferences
    law = make_service_inputs().endurance
    for i in (0, 500, 999):
        cells = np.asarray(wear, np.float32) / np.float32(2)
        alone = memsim.service.programmings_with_spares(keys[i], cells, law, 2)
        np.testing.assert_allclose(found[i], alone, rtol=1e-6)
    none = life_of(summary, [wear], make_service_inputs(), 7).inferences
    assert np.median(found) > 1.2 * np.median(none)


def test_phase_change_cells_survive_more():
    assert make_service_inputs(cells="pcm").endurance == memsim.service.Lognormal(median=1e8)
    assert make_service_inputs({"law": "weibull", "median": 5.0}, cells="pcm").endurance.median == 5


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            {"levelling": "all"},
            "`levelling` is 'all'; choose one of 'none', 'rows', 'crossbars', 'both'",
        ),
        ({"spares": -1}, "`spares` is -1; give a number of rows from 0"),
    ],
)
def test_how_a_chip_is_kept_is_checked(steady_pass, kept, message):
    with pytest.raises(ValueError, match=message):
        life_of(*steady_pass, make_service_inputs(), **kept)


def test_what_is_never_written_lasts_for_ever():
    weights = {"kernel": np.eye(4, dtype=np.float32)}
    config = memsim.CrossbarConfig(rows=4, crossbars=None)
    policies = {"sws": memsim.policies.Sws()}
    last = memsim.compare(weights, config, policies, passes=2, steady=True).steady["sws"]
    document = json.loads(
        json.dumps(service_life_json(life_of(*last, make_service_inputs())), allow_nan=False)
    )
    assert document["writes"] == 0
    assert document["years_to_first_failure"] is None
    assert document["figures"]["lifetime_years"]["value"] is None


def test_times_are_told_in_a_fitting_unit():
    years = [math.inf, 1234.5, 1, 0.5, 2 / 8766, 4 / 8766 / 60, 3 / 8766 / 3600]
    texts = ["never", "1,234 years", "1 year", "183 days", "2 h", "4 min", "3 s"]
    assert [time_text(value) for value in years] == texts
    assert [number_text(value) for value in (999.4, 999.6, 1e-7)] == ["999", "1,000", "1e-07"]


@pytest.mark.slow
def test_chips_that_draw_differ(file):
    weights = {"kernel": np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)}
    policies = {"stuck": memsim.Policy.parse("sws+stuck:p=0.5,low=3")}
    config = memsim.CrossbarConfig(rows=16)
    last = memsim.compare(
        weights,
        config,
        policies,
        passes=2,
        steady=True,
        chips=memsim.Chips(number=3),
    ).steady["stuck"]
    assert len(last.wear) == last.summary.chips == 3
    assert last.summary.writes == round(np.mean([wear.sum() for wear in last.wear]))
    years = life_of(*last, read_service_inputs(file)).years
    assert years.shape == (3 * 334,)
    assert np.all(np.isfinite(years) & (years > 0))
    one = [life_of(last.summary, [wear], read_service_inputs(file)).years for wear in last.wear]
    medians = np.median(years.reshape(3, -1), axis=1)
    np.testing.assert_allclose(medians, np.median(one, axis=1), rtol=0.1)


@pytest.mark.slow
def test_what_draws_differently_wears_by_the_mean_of_its_passes():
    weights = {"kernel": np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)}
    policies = {"stuck": memsim.Policy.parse("sws+stuck:p=0.5,low=3")}
    config = memsim.CrossbarConfig(rows=16)
    last = memsim.compare(weights, config, policies, passes=5, steady=True).steady["stuck"]
    plan = memsim.plan(weights, config, policies["stuck"])
    (key,) = jax.random.split(jax.random.key(0), 1)
    wear = memsim.service.steady_wear(weights, plan, memsim.sample_chip(key, plan), passes=4)
    np.testing.assert_allclose(memsim.service.wear_cycles(last.wear[0], config), wear)
    assert np.any(last.wear[0] % 1)


def test_report_tells_years_and_cost(run, checkpoint, file, tmp_path):
    out = tmp_path / "out.json"
    policies = ("--policy", "unsorted", "--policy", "sws", "--rows", 8)
    code, printed, errors = run("report", checkpoint, *policies, "--lifetime", "--json", out)
    assert code == 0, errors
    for text in ("Lifetime", "inferences", "PLACEHOLDER", "endurance.sigma_ln"):
        assert text in printed
    assert "chip_price" not in printed
    document = json.loads(out.read_text())
    assert "endurance.sigma_ln" in document["lifetime"]["placeholders"]
    years = [entry["lifetime"]["years_to_first_failure"] for entry in document["policies"].values()]
    assert 0 < years[0] < math.inf
    assert len(document["policies"]["sws"]["writes_per_pass"]) == 2
    steady = document["policies"]["sws"]["writes_per_pass"][1]
    assert document["policies"]["sws"]["lifetime"]["writes"] == steady
    code, printed, _ = run("report", checkpoint, *policies, "--lifetime", "--cost", file,
                           "--json", out, "--force")  # fmt: skip
    assert code == 0
    for text in (
        "How it comes about", "hardware_cost", "chip_price", "min(lifetime_years", "write_joules",
        "median of the chips drawn", "program the network, 2 passes", "your file", "PLACEHOLDER",
    ):  # fmt: skip
        assert text in printed
    document = json.loads(out.read_text())
    assert document["lifetime"]["endurance"] == {"law": "weibull", "median": 1e8, "shape": 2}
    figure = document["policies"]["sws"]["lifetime"]["figures"]["hardware_cost"]
    assert figure["inputs"]["chip_price"] == 500
    assert figure["formula"] == "chips * chip_price / replaced_after"


@pytest.mark.slow
def test_report_tells_the_lifetime_of_chips_that_are_kept(run, checkpoint, file, tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    kept = ("--cells", "pcm", "--scheme", "write-verify", "--levelling", "rows", "--spares", 2)
    code, printed, errors = run("report", checkpoint, "--rows", 8, "--lifetime", "--json", out,
                                "--html", page, *kept)  # fmt: skip
    assert code == 0, errors
    title = "no spare row is left (2 per crossbar), at 10,000 inferences a day, write-verify on pcm"
    assert title in " ".join(printed.split())
    document = json.loads(out.read_text())
    assert document["lifetime"]["endurance"]["median"] == 1e8
    assert document["lifetime"] | {"scheme": "write-verify", "spares": 2} == document["lifetime"]
    entry = document["policies"]["sws"]
    pulses = memsim.cells.PCM["write-verify"]
    per_write = memsim.cells.cell_writes(pulses)[0].energy
    assert entry["lifetime"]["write_joules"] > per_write * entry["lifetime"]["writes"]
    text = page.read_text()
    assert title in " ".join(text.split())
    assert "PLACEHOLDER" in text
    assert "chip_price" not in text
    assert "Chips still at work" in text
    run("report", checkpoint, "--rows", 8, "--lifetime", "--cost", file, "--html", page, "--force")
    assert "chips * chip_price / replaced_after" in page.read_text()


@pytest.mark.parametrize("programmings", [0, -1.0, math.nan])
def test_a_chip_lasts_for_some_time(programmings):
    with pytest.raises(ValueError, match=f"`programmings` is {programmings}; a chip"):
        total_cost(programmings, 1e-6, 1e-3, Costs())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cost", "is no TOML file"),
        ("[prices]\na = 1", "prices.toml: There is no table named `prices`; choose of endurance"),
        (
            "cost = 3",
            r"prices.toml: `cost` stands by itself; put it below \[endurance\] or \[cost\]",
        ),
        ("[cost]\nchip = 1", r"no key of \[cost\] named `chip`; choose of inferences_per_day"),
        ("[endurance]\nlaw = 'normal'", "`law` is 'normal'; choose one of lognormal, weibull"),
        ("[endurance]\nshape = 2", r"no key of \[endurance\] named `shape`; choose of median"),
        ("[endurance]\nmedian = 0", "`median` is 0; give a positive number"),
        ("[endurance]\nmedian = 'high'", "`median` is 'high'; give a positive number"),
        ("[cost]\ncurrency = 1", "`currency` is 1; give a text in quotes"),
        ("[endurance]\nlaw = ['weibull']", r"`law` is \['weibull'\]; choose one of lognormal"),
        ("[cost]\nbatch = 0", "`batch` is 0; give a whole number from 1"),
        ("[cost]\nbatch = 1.5", "`batch` is 1.5; give a whole number from 1"),
        ("[cost]\nchip_price = -1", "`chip_price` is -1; give a number from 0"),
        ("[cost]\nchip_price = 'much'", "`chip_price` is 'much'; give a number from 0"),
        ("[cost]\ninferences_per_day = 0", "`inferences_per_day` is 0; give a positive number"),
    ],
)
def test_files_are_checked(tmp_path, text, message):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_service_inputs(path)


def test_a_file_of_prices_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`cost` .*nothing.toml is not a file"):
        read_service_inputs(tmp_path / "nothing.toml")


def test_options_that_do_not_go_together(run, checkpoint, file):
    code, _, errors = run("report", checkpoint, "--cost", file)
    assert code == 1
    assert "are of the lifetime; give --lifetime too" in errors
    code, _, errors = run("report", checkpoint, "--lifetime", "--scheme", "ramp")
    assert code == 1
    assert "`--scheme` is 'ramp'; choose one of constant, or give --cells, which" in errors
    code, _, errors = run("report", checkpoint, "--lifetime", "--cells", "pcm", "--scheme", "ramp")
    assert code == 1
    assert "`--scheme` is 'ramp'; choose one of constant, write-verify." in errors
    code, _, errors = run("report", checkpoint, "--lifetime", "--crossbars", "all")
    assert code == 1
    assert "a steady pass writes nothing" in errors
    code, _, errors = run("report", checkpoint, "--lifetime", "--passes", 1)
    assert code == 1
    assert "the first pass is not `steady`; give at least 2" in errors
