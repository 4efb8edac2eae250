"""Figures of parts from `hwcomponents`: of a stand-in everywhere, of the package where it is."""

import importlib.util
import math
import re
import sys
import types
from pathlib import Path

import pytest

from memsim import hardware as hw


class Cost:
    def __init__(self, energy, latency, throughput):
        self.energy, self.latency, self.throughput = energy, latency, throughput


class Model:
    """As the package has them: areas in m^2, figures that go by the node."""

    component_name = None
    priority = 0.5
    area = 1e-9

    @classmethod
    def get_action_names(cls):
        return sorted(name for name in ("convert", "read", "shift_add") if hasattr(cls, name))


class Converter(Model):
    component_name = ("Sar", "Fast")

    def __init__(self, tech_node, resolution=8, power=1.0):
        self.node, self.resolution, self.power = tech_node, resolution, power

    def convert(self):
        joules = self.power * 2e-12 * (self.node / 32e-9) * 2 ** (self.resolution - 8)
        return Cost(joules, 1e-9, 1e9)


class Worse(Converter):
    component_name = "sar"
    priority = 0.1


class Adder(Model):
    def __init__(self, tech_node):
        pass

    def shift_add(self):
        return Cost(3e-14, 0.0, math.inf)


class Cells(Model):
    def __init__(self, tech_node, rows, cycle_period):
        self.rows, self.cycle_period = rows, cycle_period

    def read(self):
        return Cost(self.rows * 1e-17, 2 * self.cycle_period, 1.0)


class Ram(Model):
    def __init__(self, width=None):
        if width is None:
            raise AssertionError("no width")
        self.width = width

    def read(self, bits_per_action=None):
        return Cost(5e-14 * (bits_per_action or self.width), 1e-9, 1e9)


@pytest.fixture
def stand_in(monkeypatch):
    module = types.ModuleType("hwcomponents")
    module.get_models = lambda: [Worse, Converter, Adder, Cells, Ram]
    monkeypatch.setitem(sys.modules, "hwcomponents", module)


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return hw.read_hardware(path)

    return read


def test_figures_of_components_take_the_place_of_others(stand_in, read):
    mine, base = (
        read(
            'base = "isaac"\n[components]\nnode = "16 nm"\nconverter = "Fast"\n'
            'shift_add = { name = "adder", units = 0.5 }\n'
            'array = { name = "Cells", units = 16384 }\n'
            'buffer = { name = "Ram", units = 2, width = 64 }\n'
            'memory = { name = "Ram", width = 64 }\n'
        ),
        hw.read_hardware("isaac"),
    )
    assert mine.reading.converter_energy == pytest.approx(1e-12)  # at half the node
    assert mine.reading.converter_rate == 1e9
    assert mine.area.converter == pytest.approx(1e-3)  # of 1e-9 m^2
    assert mine.reading.shift_add_energy == 3e-14
    assert mine.area.shift_add == pytest.approx(5e-4)
    # cells know the rows and the cycle; all of an array count
    assert mine.reading.read_energy == pytest.approx(16384 * 128 * 1e-17)
    assert mine.reading.read_time == pytest.approx(200e-9)
    assert mine.area.array == pytest.approx(16.384)
    assert mine.memory.buffer_energy == mine.memory.move_energy == 5e-14  # of a bit
    assert mine.area.buffer == pytest.approx(2e-3)
    assert mine.source_of("reading.converter_energy") == "hwcomponents: Converter at 16 nm"
    assert mine.source_of("area.shift_add") == "hwcomponents: Adder at 16 nm"
    assert mine.source_of("memory.move_energy") == "hwcomponents: Ram"  # whatever the node
    # what no component says is as it was
    assert mine.reading.driver_energy == base.reading.driver_energy
    assert mine.source_of("reading.driver_energy") == base.source_of("reading.driver_energy")
    assert (mine.cells, mine.arrays) == (base.cells, base.arrays)


def test_components_know_the_bits_of_a_converter(stand_in, read):
    mine = read(
        '[reading]\nconverter_bits = 6\n[components]\nnode = "32nm"\n'
        'converter = { name = "SAR", power = 3.0 }\n'
    )
    assert mine.reading.converter_energy == pytest.approx(3 * 2e-12 / 4)
    assert mine.source_of("reading.converter_energy") == "hwcomponents: Converter at 32 nm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('converter = "Convertor"', "`converter` is 'Convertor', which hwcomponents does not have"),
        ('converter = "Convertor"', "near it are Converter"),
        ('converter = "zzz"', "the command `hwc --list` lists all"),
        ('converters = "Fast"', "There is no part `converters` in [components]; choose of array,"),
        ("converter = 3", "`converter` is"),
        ('driver = "Adder"', "`driver`: Adder does none of convert, drive, read"),
        ('shift_add = "Adder"', "`shift_add` lacks `units`; give how many an array has"),
        ('shift_add = { name = "Adder", units = 0 }', "`units` is 0"),
        ('converter = { name = "Fast", bits = 3 }', "Converter has no argument `bits`; it takes"),
        ('memory = "Ram"', "`memory`: Ram says no width; it takes width"),
        ('buffer = { name = "Cells", units = 1, rows = 2, cycle_period = 1.0 }', "of a bit"),
        ('converter = "Fast"\n[reading]\nconverter_energy = 1e-12', "`reading.converter_energy`"),
    ],
)
def test_what_is_wrong_in_components_is_named(stand_in, read, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(f'[components]\nnode = "32 nm"\n{text}\n')


@pytest.mark.parametrize("node", ["", 'node = "32"', 'node = "0 nm"', "node = 32"])
def test_a_node_is_in_nanometres(stand_in, read, node):
    with pytest.raises(ValueError, match=r"`node` is .*; give nanometres"):
        read(f"[components]\n{node}\n")


def test_without_the_package_the_one_command_is_named(monkeypatch, read):
    monkeypatch.setitem(sys.modules, "hwcomponents", None)
    with pytest.raises(ValueError, match=r"pip install 'memsim\[hardware\]', with Python 3.12"):
        read('[components]\nnode = "32 nm"\nconverter = "IsaacADC"\n')
    hw.read_hardware("isaac")  # needs none of it


# With the package.

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("hwcomponents") is None,
    reason="needs hwcomponents: pip install 'memsim[hardware]' with Python 3.12 or newer",
)
ISAAC = """
base = "isaac"
[components]
node = "{} nm"
converter = "IsaacADC"
driver = "IsaacDAC"
shift_add = {{ name = "IsaacShiftAdd", units = 0.5 }}  # 4 for 8 arrays
buffer = {{ name = "IsaacEDRAM", depth = 2048, units = {} }}  # of 12 x 8 arrays
"""


@needs_package
def test_the_package_has_the_figures_of_isaac(read):
    mine, isaac = read(ISAAC.format(32, 1 / 96)), hw.read_hardware("isaac")
    reading = mine.reading
    assert reading.converter_energy == pytest.approx(2e-3 / 1.2e9, rel=0.02)
    assert reading.converter_rate == pytest.approx(1.2e9, rel=0.02)
    assert reading.driver_energy == pytest.approx(0.417e-12, rel=0.02)
    assert reading.shift_add_energy == pytest.approx(0.021e-12, rel=0.02)
    assert mine.memory.buffer_energy == pytest.approx(20.45e-12 / 256, rel=0.02)
    # it has no array of ISAAC: that of the preset stays, 0.3 mW for 100 ns
    assert reading.read_energy == pytest.approx(0.3e-3 * 100e-9, rel=0.02)
    assert mine.source_of("reading.read_energy") == isaac.source_of("reading.read_energy")
    for name in ("array", "converter", "driver", "shift_add"):
        assert getattr(mine.area, name) == pytest.approx(getattr(isaac.area, name), rel=0.02)
    assert mine.area.buffer == pytest.approx(0.083 / 96, rel=0.02)
    assert mine.source_of("reading.converter_energy") == "hwcomponents: IsaacADC at 32 nm"


@needs_package
def test_a_smaller_node_takes_less(read):
    mine, isaac = read(ISAAC.format(22, 1 / 96)), hw.read_hardware("isaac")
    assert 0.4 < mine.reading.converter_energy / isaac.reading.converter_energy < 0.5
    assert 0.5 < mine.area.converter / isaac.area.converter < 0.6
    assert mine.reading.converter_rate > isaac.reading.converter_rate


@needs_package
def test_the_file_of_the_page_is_read(read):
    page = Path(__file__).parents[1] / "docs" / "hardware.md"
    _, text = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    mine = read(text)
    assert mine.source_of("reading.driver_energy") == "hwcomponents: IsaacDAC at 22 nm"


@needs_package
def test_the_package_knows_near_names(read):
    with pytest.raises(ValueError, match="near it are IsaacADC"):
        read('[components]\nnode = "32 nm"\nconverter = "IsaacADCs"\n')
