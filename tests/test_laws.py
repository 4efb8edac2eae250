"""Conductance laws from outside the library."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim.cells import Conductance, ConductanceLaw, Readout


@dataclasses.dataclass(frozen=True)
class WithoutFigures:
    """A law without defaults."""

    on: float


@dataclasses.dataclass(frozen=True)
class EvenInLog:
    """Levels evenly spaced in the logarithm; what programming reaches spreads, none drifts."""

    on: float = 1e-4
    off: float = 1e-6
    spread: float = 0.0

    def aimed_at(self, share):
        return self.off * (self.on / self.off) ** share

    def programmed(self, key, target):
        return target * jnp.exp(self.spread * jax.random.normal(key, target.shape))

    def drifted(self, key, reached, target, seconds):
        return reached

    def read_deviation(self, target, seconds):
        return None

    def average(self, share, seconds):
        return self.aimed_at(share) * float(np.exp(self.spread**2 / 2))


@dataclasses.dataclass(frozen=True)
class Tunnelling:
    """Three parameters: a gap of `share` is tunnelled through; it widens with time."""

    metal: float = 1e-4
    gap: float = 3.0
    widening: float = 0.01

    def aimed_at(self, share):
        return self.metal * jnp.exp(-self.gap * (1 - share))

    def programmed(self, key, target):
        return target

    def drifted(self, key, reached, target, seconds):
        return reached * (1 + seconds) ** -self.widening

    def read_deviation(self, target, seconds):
        return jnp.full_like(target, 0.01)

    def average(self, share, seconds):
        aimed = self.metal * float(np.exp(-self.gap * (1 - share)))
        return aimed * (1 + seconds) ** -self.widening


@pytest.fixture
def deployed(params, config, key):
    plan = memsim.plan(params, config, memsim.Policy.parse("sws"))
    held, programming = memsim.program(params, plan, memsim.sample_chip(key, plan), words=True)
    return plan, held, programming


@pytest.mark.parametrize("law", [EvenInLog(), Tunnelling(), Conductance.pcm()])
def test_laws_from_outside_are_as_good_as_the_librarys(law):
    assert isinstance(law, ConductanceLaw)
    assert Readout(cells=law) == Readout(cells=law)
    assert len({Readout(cells=law), Readout(cells=law)}) == 1


def test_an_exact_law_of_your_own_reads_the_weights_exactly(deployed, key):
    plan, held, programming = deployed
    readout = Readout(cells=EvenInLog())
    seen = memsim.read_weights(key, held, plan, programming, readout)
    for name in ("layer2", "layer10"):
        found, expected = seen[name]["kernel"], held[name]["kernel"]
        scale = float(plan.layers[f"{name}/kernel"].scale)
        np.testing.assert_allclose(found, expected, atol=1e-3 * scale)
    layer, config = plan.layers["layer2/kernel"], plan.config
    cells = memsim.cells.program_cells(key, programming.words["layer2/kernel"], config, readout)
    inputs = jnp.asarray([3, -4, 5, 0, 1, -128], jnp.int32)
    found = memsim.cells.read_layer(key, inputs, cells, layer, config, readout)
    ideal = memsim.cells.program_cells(key, programming.words["layer2/kernel"], config, Readout())
    expected = memsim.cells.read_layer(key, inputs, ideal, layer, config, Readout())
    np.testing.assert_array_equal(found, expected)
    floats = jnp.asarray([[0.5, -1.0, 0.25, 0.0, 0.1, 2.0]])
    product = memsim.cells.read_matmul(
        key, floats, held["layer2"]["kernel"], cells, layer, config, readout
    )
    np.testing.assert_allclose(product, floats @ held["layer2"]["kernel"], atol=0.1)


def test_levels_that_are_not_evenly_spaced_are_seen_as_they_are(key):
    config = memsim.CrossbarConfig(rows=4, bits=4, cell_bits=2, encoding="offset_binary")
    words = jnp.asarray([[0b0000, 0b0001, 0b0010, 0b0011]], config.word_dtype)
    law = EvenInLog(on=1e-4, off=1e-6)
    cells = memsim.cells.program_cells(key, words, config, Readout(cells=law))
    siemens = 1e-6 * 100 ** (np.arange(4) / 3)
    np.testing.assert_allclose(cells.mean[0, :, 0], (siemens - 1e-6) / 33e-6, atol=1e-4)


def test_reference_columns_and_converters_follow_the_law(key):
    seconds, config = 1e6, memsim.CrossbarConfig(rows=2, bits=4)
    law = Tunnelling()
    readout = Readout(cells=law, seconds=seconds)
    cells = memsim.cells.program_cells(
        key, jnp.asarray([[0, 15]], config.word_dtype), config, readout
    )
    low, high = law.average(0, 0), law.average(1, 0)
    left = (1 + seconds) ** -law.widening
    np.testing.assert_allclose(cells.mean[0, 0], 0, atol=1e-5)  # it drifts as its reference does
    np.testing.assert_allclose(cells.mean[0, 1], left, rtol=1e-4)  # the converter does not
    np.testing.assert_allclose(cells.deviation[0, 1], 0.01 * left * high / (high - low), rtol=1e-4)


@pytest.mark.parametrize("law", [EvenInLog(spread=0.3), Tunnelling()])
def test_training_goes_through_a_law_of_your_own(deployed, params, config, law):
    plan, _, _ = deployed
    chip = memsim.sample_chip(jax.random.key(1), plan)

    @jax.jit
    def loss(params, key):
        held, programming = memsim.program(params, plan, chip, words=True)
        readout = Readout(cells=law, seconds=60.0)
        seen = memsim.read_weights(key, held, plan, programming, readout)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(seen))

    gradients = jax.grad(loss)(params, jax.random.key(2))
    for gradient in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(gradient, np.ones_like(gradient))
    assert loss(params, jax.random.key(2)) != loss(params, jax.random.key(3))  # other draws


def without(method):
    return type("Partial", (), {name: value for name, value in vars(EvenInLog).items()
                                if name != method and not name.startswith("__")})()  # fmt: skip


@pytest.mark.parametrize(
    "method", ["aimed_at", "programmed", "drifted", "read_deviation", "average"]
)
def test_a_method_that_is_missing_is_named(method):
    with pytest.raises(ValueError, match=f"it lacks {method}"):
        Readout(cells=without(method))


@dataclasses.dataclass
class Mutable:  # a class that compares but does not hash
    on: float = 1e-4
    off: float = 1e-6
    spread: float = 0.0
    aimed_at = EvenInLog.aimed_at
    programmed = EvenInLog.programmed
    drifted = EvenInLog.drifted
    read_deviation = EvenInLog.read_deviation
    average = EvenInLog.average


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (EvenInLog, "`cells` is the class EvenInLog; give a value, EvenInLog()"),
        (Mutable(), "is not hashable"),
        (EvenInLog(on=np.ones(3)), "is not hashable"),
        (EvenInLog(on=1e-6), "they must be apart"),
        (EvenInLog(on=float("inf")), "give finite siemens"),
        (EvenInLog(off=-1e-6, on=1.0), "give finite siemens"),
        (None, "`cells` is None; give a Conductance"),
        ({"on": 1e-4}, "give a Conductance"),
    ],
)
def test_what_is_no_law_is_refused(law, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Readout(cells=law)


@pytest.mark.parametrize(
    ("method", "value"),
    [("aimed_at", jnp.ones((2, 3))), ("programmed", "much"), ("drifted", jnp.ones(7))],
)
def test_what_a_law_gives_is_checked(method, value, key):
    config = memsim.CrossbarConfig(rows=2, bits=4)
    law = type("Odd", (Tunnelling,), {method: lambda self, *_: value})()
    words = jnp.zeros((1, 2), config.word_dtype)
    with pytest.raises(ValueError, match=f"`{method}` of Odd gave"):
        memsim.cells.program_cells(key, words, config, Readout(cells=law))


def test_a_law_that_gives_nan_is_refused(key):
    config = memsim.CrossbarConfig(rows=2, bits=4)
    law = type("Odd", (EvenInLog,), {"drifted": lambda self, *_: jnp.nan})()
    words = jnp.zeros((1, 2), config.word_dtype)
    with pytest.raises(ValueError, match="gives no finite cells"):
        memsim.cells.program_cells(key, words, config, Readout(cells=law))


def test_the_text_of_a_law_says_which_and_with_which_figures():
    parse = memsim.cells.parse_law
    assert parse("ideal") == memsim.Conductance()
    assert parse("hfo2") == memsim.Conductance.hfo2()
    assert parse("pcm:drift_start=10,read_time=1e-7") == dataclasses.replace(
        memsim.Conductance.pcm(), drift_start=10.0, read_time=1e-7
    )
    assert parse(f"{__name__}:EvenInLog:on=1e-3") == EvenInLog(on=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flash", "choose one of ideal, hfo2, pcm, or module:Class of your own"),
        ("", "choose one of ideal"),
        (None, "give a text such as 'pcm'"),
        ("hfo2:onn=1", "hfo2 takes on, off"),
        ("hfo2:on=1,on=2", "give on once"),
        ("hfo2:on=much", "on is 'much', give a number"),
        ("hfo2:read_noise=1", "read_noise is '1', which text cannot say; set it in Python"),
        ("hfo2:on=nan", "`on` is nan"),
        ("no_such_module:Law", "cannot be imported"),
        ("math:pi", "is no frozen dataclass"),
        (f"{__name__}:WithoutFigures", "give on too"),
        (f"{__name__}:EvenInLog:on=1e-9", "they must be apart"),
        ("memsim.cells:Wires", "is no frozen dataclass"),
        ("memsim:CrossbarConfig", "give a Conductance"),
    ],
)
def test_a_text_that_is_no_law_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        memsim.cells.parse_law(text)
