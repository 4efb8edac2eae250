"""Hardware: presets and files, the bits that are moved, the energy and time of a pass."""

import dataclasses
import json
import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import memsim
from memsim import hardware as hw

PCM = ("published-pcm", "array-128-pcm", "isaac-pcm")


@pytest.mark.parametrize("name", hw.PRESETS)
def test_every_number_of_a_preset_has_a_source(name):
    hardware = hw.read_hardware(name)
    assert [x for x in hardware.numbers() if hardware.source_of(x) == "default"] == []
    hardware.cells.pulses  # noqa: B018 - there is one
    hardware.writing(hardware.config())


@pytest.mark.parametrize("name", PCM)
def test_twins_of_pcm_differ_in_their_cells_alone(name):
    pcm, hfo2 = hw.read_hardware(name), hw.read_hardware(name.removesuffix("-pcm"))
    differ = {x for x, value in pcm.numbers().items() if value != hfo2.numbers()[x]}
    assert "cells.kind" in differ
    assert all(x.startswith("cells.") for x in differ)


def test_presets_are_what_they_are_called():
    published = hw.read_hardware("published")
    assert published.config() == memsim.CrossbarConfig()
    assert published.writing(published.config()) is None
    array = hw.read_hardware("array-128")
    assert array.config() == memsim.CrossbarConfig(columns=128, crossbars=64)
    assert array.writing(array.config()).controller == "read"


def test_isaac_is_as_published():
    """Table I of ISAAC: 8 arrays take 2.4 mW, 8 converters 16 mW, 1,024 drivers 4 mW."""
    isaac = hw.read_hardware("isaac")
    reading = isaac.reading
    assert (isaac.arrays.rows, isaac.arrays.columns, isaac.cells.bits) == (128, 128, 2)
    assert reading.read_energy / reading.read_time == pytest.approx(2.4e-3 / 8, rel=0.02)
    converting = 128 / reading.converter_rate  # the columns of an array, one after another
    assert converting == pytest.approx(107e-9, rel=0.02)
    assert reading.converter_energy * reading.converter_rate == pytest.approx(2e-3, rel=0.02)
    assert reading.driver_energy / converting == pytest.approx(4e-3 / 1024, rel=0.02)
    area = isaac.area
    unit = 8 * (area.array + area.converter + 128 * area.driver + area.shift_add + area.buffer)
    assert unit == pytest.approx(0.0131, rel=0.02)  # a twelfth of 0.157 mm^2


def test_a_file_starts_from_its_base(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "array-128"\n[memory]\nmove_energy = 3e-12\n[arrays]\nnumber = "none"\n'
        '[sources]\n"memory.move_energy" = "measured"\n'
    )
    mine, base = hw.read_hardware(path), hw.read_hardware("array-128")
    assert mine.name == "mine"
    assert mine.memory.move_energy == 3e-12
    assert mine.source_of("memory.move_energy") == "measured"
    assert mine.source_of("arrays.number") == "your file"
    assert mine.config() == base.config(crossbars=None)
    assert mine.reading == base.reading


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "arrays"', "`base` is 'arrays'; choose one of published,"),
        ("[memories]\nx = 1", "There is no table `memories`; choose of arrays,"),
        ("memory = 3", "There is no table `memory`"),
        ("[memory]\nmove = 1", "There is no key `move` in [memory]; choose of move_energy,"),
        ("[memory]\nmove_energy = -1", "`move_energy` is -1; give joules from 0."),
        ("[memory]\nbandwidth = 0", "`bandwidth` is 0"),
        ("[arrays]\nrows = 0", "`rows` is 0; an array has at least 1 row."),
        ('[cells]\nkind = "sram"', "`kind` is 'sram'; choose one of 'hfo2', 'pcm'."),
        ('[cells]\nkind = "pcm"\nscheme = "ramp"', "`scheme` is 'ramp'; choose one of 'constant',"),
        ("[cells]\nbits = 2", "bits a cell are 4 levels"),
        ("[cells]\nfails = 1", "`fails`"),
        ('[sources]\n"memory.x" = "y"', "`sources` names 'memory.x'"),
        ("[memory", "Expected"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        hw.read_hardware(path)
    assert str(path) in str(caught.value)


def test_what_is_no_hardware_is_named(tmp_path):
    with pytest.raises(ValueError, match="`hardware` is 'arrays'; choose one of published"):
        hw.read_hardware("arrays")
    with pytest.raises(FileNotFoundError, match="is not a file; check the path"):
        hw.read_hardware(tmp_path / "missing.toml")


def summary_of(config, policy="sws", seed=0, **words):
    weights = np.random.default_rng(seed).normal(size=(12, 5)).astype(np.float32)
    policies = {policy: memsim.Policy.parse(policy)}
    return memsim.compare({"kernel": weights}, config, policies, **words).policies[policy]


def test_the_parts_of_a_pass_are_worked_out_by_hand():
    """HfO2: a SET takes 8.3 pJ, a RESET 83 pJ, in 100 ns and 1 us; a bit moved 4 pJ."""
    config = memsim.CrossbarConfig(rows=4)
    summary = summary_of(config)
    cost = hw.pass_cost(summary, hw.read_hardware("published"))
    assert cost.joules["pulses"] == pytest.approx(8.3e-12 * summary.sets + 83e-12 * summary.resets)
    seconds = 100e-9 * summary.set_rows + 1e-6 * summary.reset_rows
    assert cost.seconds["pulses"] == pytest.approx(seconds)
    assert summary.index_bits == 60 * 4  # 12 inputs: 4 bits a weight
    assert cost.joules["index"] == pytest.approx(240 * 4e-12)
    assert cost.seconds["index"] == pytest.approx(240 / 136e9)
    assert cost.joules["data"] == pytest.approx(summary.data_bits * 4e-12)
    assert cost.joules["reads"] == cost.seconds["reads"] == 0
    assert cost.total_joules == sum(cost.joules.values())
    # a controller that reads first reads all 60 words, in rows of one word
    array = hw.read_hardware("array-128").on(config)
    reads = hw.pass_cost(summary, array)
    assert reads.joules["reads"] == pytest.approx(60 * 8 * 1e-12)
    assert reads.seconds["reads"] == pytest.approx(60 * 10e-9)


@hypothesis.given(st.integers(0, 2**31), st.sampled_from((None, 8, 24)), st.integers(1, 3))
@hypothesis.settings(max_examples=8, deadline=None)
def test_words_moved_are_at_most_all_words(seed, columns, passes):
    config = memsim.CrossbarConfig(rows=4, columns=columns)
    found = summary_of(config, "unsorted", seed, passes=passes)
    every = 8 * 60 * passes
    assert 0 < found.data_bits <= every
    assert found.cells_programmed == every
    assert found.rows_programmed == passes * 12 * -(-5 // config.words_per_row)
    again = summary_of(config, "sws", seed, passes=passes)
    assert again.index_bits == passes * 12 * 4 * -(-5 // config.words_per_row)


def test_an_index_is_counted_to_the_bit():
    """More bits than a number of 32 bits tells apart."""
    params = {"kernel": np.zeros((4099, 5991), np.float32)}
    plan = memsim.plan(params, memsim.CrossbarConfig(columns=56), memsim.policies.Sws())
    facts = memsim.summary.layer_facts(plan.layers, plan.config)["kernel"]
    bits = 13 * 4099 * 856  # 7 outputs share a row
    assert round(facts.index_bits * facts.weights) == bits
    assert round(float(np.float32(facts.index_bits)) * facts.weights) != bits


def test_a_pass_that_changes_nothing_moves_flags_alone(key):
    config = memsim.CrossbarConfig(rows=4)
    params = {"kernel": np.ones((4, 1), np.float32)}
    plan = memsim.plan(params, config, memsim.policies.Unsorted())
    chip = memsim.sample_chip(key, plan)
    _, programming = memsim.program(params, plan, chip, passes=2)
    bits = 8 * np.asarray(programming.counts.moved_words) + programming.counts.row_flags
    np.testing.assert_array_equal(bits[:, 0], [4 * 8, 4])  # all words; then a flag for each row


def test_net_reductions_are_of_all_parts():
    config = memsim.CrossbarConfig(rows=4)
    unsorted, sws = summary_of(config, "unsorted"), summary_of(config)
    hardware = hw.read_hardware("published-pcm")
    priced = hw.with_net_reduction(sws, unsorted, hardware)
    before, after = (hw.pass_cost(one, hardware).total_joules for one in (unsorted, sws))
    assert priced.net_reduction == before / after
    assert hw.with_net_reduction(unsorted, unsorted, hardware).net_reduction == 1
    # `compare` prices by `published`
    published = hw.with_net_reduction(sws, unsorted, hw.read_hardware("published"))
    assert sws.net_reduction == pytest.approx(published.net_reduction)


def test_cells_without_prices_have_no_net_reduction():
    summary = summary_of(memsim.CrossbarConfig(rows=4, cell_bits=4))
    assert summary.net_reduction is None
    with pytest.raises(ValueError, match="`summary` is of cells of 4 bits"):
        hw.pass_cost(summary, hw.read_hardware("published"))


def test_the_index_takes_what_others_counted(assets):
    """An independent count: 3.1x, 3.9x, 0.84x and 1.4x where sorting alone gives 1.7x to 25x."""
    checkpoint = memsim.open_checkpoint(assets / "resnet20_cifar10.safetensors")
    policies = {name: memsim.Policy.parse(name) for name in ("sws", "matched")}
    found = memsim.compare(checkpoint, memsim.CrossbarConfig(), policies)
    (unsorted,) = found.baseline

    def reduction(name, preset):
        costs = [
            hw.pass_cost(x, hw.read_hardware(preset)) for x in (unsorted, found.policies[name])
        ]
        before, after = (cost.joules["pulses"] + cost.joules["index"] for cost in costs)
        return before / after

    assert reduction("matched", "published") == pytest.approx(3.1, abs=0.06)
    assert reduction("sws", "published-pcm") == pytest.approx(0.84, abs=0.005)
    assert reduction("matched", "published-pcm") == pytest.approx(1.4, abs=0.04)


# The command line.


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "net.npz"
    rng = np.random.default_rng(0)
    np.savez(path, **{"fc.weight": rng.normal(size=(20, 30)).astype(np.float32)})
    return path


@pytest.fixture
def report(checkpoint, run):
    def report(*options):
        out = checkpoint.parent / "out.json"
        code, printed, error = run("report", checkpoint, "--json", out, "--force", *options)
        assert code == 0, error
        return json.loads(out.read_text()), printed

    return report


def test_hardware_stands_for_a_dozen_options(report):
    document, shown = report("--policy", "sws", "--hardware", "array-128-pcm")
    assert document["config"]["columns"] == 128
    assert document["config"]["crossbars"] == 64
    assert document["writing"]["text"] == "write-verify:cells=pcm,controller=read"
    numbers = document["hardware"]["numbers"]
    assert numbers["cells.kind"]["value"] == "pcm"
    joules = document["policies"]["sws"]["pass"]["joules"]
    total = joules.pop("total")
    assert total == pytest.approx(sum(joules.values()))
    assert "Energy of programming; hardware: array-128-pcm" in shown
    assert "PLACEHOLDER" in shown


def test_single_options_still_count(report):
    options = ("--policy", "sws", "--hardware", "array-128", "--crossbars", "2", "--rows", "16")
    document, _ = report(*options, "--writing", "constant:cells=pcm")
    assert (document["config"]["crossbars"], document["config"]["rows"]) == (2, 16)
    assert document["config"]["columns"] == 128
    numbers = document["hardware"]["numbers"]
    assert numbers["arrays.number"] == {"value": 2, "source": "option"}
    assert numbers["cells.kind"] == {"value": "pcm", "source": "option"}
    assert numbers["cells.scheme"]["value"] == "constant"


def test_reports_without_hardware_name_their_prices(report):
    document, shown = report("--policy", "sws")
    assert document["hardware"]["name"] == "published"
    assert "net energy: constant pulses of hfo2 cells" in " ".join(shown.split())
    document, shown = report("--policy", "sws", "--cell-bits", "4")
    assert document["policies"]["sws"]["net_reduction"] is None
    assert "no energy: no figures of pulses for cells of 4 bits" in shown


def test_every_command_takes_hardware(checkpoint, tmp_path, run):
    made = tmp_path / "plan.safetensors"
    words = ["--policy", "sws", "--hardware", "array-128", "--out"]
    assert run("plan", checkpoint, *words, made)[0] == 0
    assert memsim.load_plan(made).config == hw.read_hardware("array-128").config()
    held = tmp_path / "held.npz"
    code, printed, _ = run("program", checkpoint, *words, held)
    assert code == 0
    assert "are wrong" in printed  # its writes fail
    words = ("--plan", made, "--hardware", "isaac", "--out", tmp_path / "x.npz")
    code, _, error = run("program", checkpoint, *words)
    assert code != 0
    assert "`--hardware` beside `--plan` cannot apply" in error


def test_a_hardware_is_a_value():
    one, other = hw.read_hardware("isaac"), hw.read_hardware("isaac")
    assert one == other
    assert hash(one) == hash(other)
    assert dataclasses.replace(one, name="mine") != one
    with pytest.raises(ValueError, match="`memory` is a int"):
        hw.Hardware(name="mine", memory=3)
