"""Public functions called with wrong shapes, dtypes, kinds and values.

Each gives a sensible result, or an error that names an argument.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memsim
from memsim import (
    attention,
    cells,
    chip,
    codes,
    draws,
    files,
    hardware,
    intervals,
    placement,
    policies,
    schedule,
    service,
)
from memsim.selection import select_by_name

CONFIG = memsim.CrossbarConfig(rows=4, bits=4)
PARAMS = {"a": {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)}}
POLICY = memsim.Policy.parse("sws")
PLAN = memsim.plan(PARAMS, CONFIG, POLICY)
KEY = jax.random.key(0)
CHIP = memsim.sample_chip(KEY, PLAN)
HELD, DONE = memsim.program(PARAMS, PLAN, CHIP, words=True, wear=True)
SUMMARY = memsim.summarize(DONE, PLAN)
LAYER = PLAN.layers["a/kernel"]
WORDS = DONE.words["a/kernel"]
READOUT = memsim.Readout()
HARDWARE = hardware.read_hardware("published")
HEADS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 1, 4, 3)
STAGES = [hardware.Stage("a", 2, 1.0, 2.0, 0.5)]
WRITING = memsim.Writing(set_success=0.5, reset_success=(0.2, 0.4, 0.8, 1.0))
CELLS = cells.program_cells(KEY, WORDS, CONFIG, READOUT)
CODES = jnp.asarray([[1, -2], [3, -7]], jnp.int8)
CODED = codes.encode(CODES, CONFIG)
LEVELS = codes.bit_slice(CODED, CONFIG)
PLACED = placement.sorted_placement(np.asarray(CODES), 4)
TABLE = schedule.block_schedule(6, 2)
WEIGHTS = jnp.linspace(-1, 1, 8, dtype=jnp.float32)
SCALE = codes.quantization_scale(np.asarray(WEIGHTS), 4)
WEAR = np.ones((1, 4, 4), np.float32)
HISTOGRAM = service.wear_histogram(WEAR)
LIFE = service.Lognormal()
LIVES = service.sample_lives(KEY, (1, 4, 4), LIFE, 0.5)
FAULTS = np.zeros((1, 4, 4), bool)
STUCK = chip.fault_words(FAULTS, 1, CONFIG)
SCHEME = cells.WriteVerify()
WIRES = cells.Wires(1.0, 1.0)
BATCH = (np.eye(6, dtype=np.float32), np.float32(np.arange(6) % 2))


def outputs(params, batch):
    return batch[0] @ params["a"]["kernel"]


def loss(params, batch):
    return jnp.square(outputs(params, batch)[:, 0] - batch[1]).mean()


def accuracy(params, batch):
    one, other = outputs(params, batch).T
    return (other > one) == (batch[1] == 1)


CHAINS = memsim.WordChains(PLAN)
JUDGE = memsim.Judge(loss, accuracy, BATCH)

# function: arguments that are right, by name
CALLS = {
    memsim.CrossbarConfig: {"rows": 4, "bits": 4, "cell_bits": 1, "encoding": "differential",
                            "crossbars": 2, "schedule": "block", "flags": "none"},
    memsim.plan: {"params": PARAMS, "config": CONFIG, "policy": POLICY, "select": None},
    memsim.with_stucking: {"plan": PLAN, "policy": memsim.Policy.parse("sws+stuck:p=0.5,low=2")},
    memsim.sample_chip: {"key": KEY, "plan": PLAN, "stuck_at_0": 0.1, "stuck_at_1": 0.1},
    memsim.program: {"params": PARAMS, "plan": PLAN, "chip": CHIP, "passes": 1,
                     "writing": WRITING},
    memsim.summarize: {"programming": DONE, "plan": PLAN, "baseline": SUMMARY},
    memsim.mean_over_chips: {"summaries": [SUMMARY, SUMMARY]},
    memsim.compare: {"tensors": {"kernel": PARAMS["a"]["kernel"]}, "config": CONFIG,
                     "policies": {"sws": POLICY}, "passes": 1, "chips": memsim.Chips(),
                     "writing": WRITING},
    memsim.enable_words: {"plan": PLAN, "chip": CHIP},
    memsim.Writing: {"set_success": 0.5, "reset_pulses": (2.0,) * 4, "controller": "blind"},
    draws.success_words: {"plan": PLAN, "chip": CHIP, "writing": WRITING},
    cells.parse_writing: {"text": "write-verify:low=2", "config": CONFIG},
    cells.scheme_writing: {"scheme": SCHEME, "config": CONFIG, "low": 1, "low_scheme": SCHEME},
    memsim.writes_floor: {
        "params": PARAMS,
        "config": memsim.CrossbarConfig(rows=8, bits=4),
        "squared_error": 1.0,
    },
    memsim.expected_writes: {"params": PARAMS, "plan": PLAN, "chip": CHIP, "width": 1.0},
    memsim.WordChains: {"plan": PLAN},
    CHAINS.cheapest: {"params": PARAMS, "price": 3.0},
    memsim.budget: {"params": PARAMS, "config": CONFIG, "judge": JUDGE, "max_drop": 0.9,
                    "batch": 4, "chips": 1, "seed": 0},
    chip.clustered_faults: {"key": KEY, "crossbars": 1, "config": CONFIG, "stuck_at_0": 0.1,
                            "stuck_at_1": 0.1, "in_lines": 0.5},
    chip.with_faults: {"key": KEY, "stuck_at_0": STUCK, "stuck_at_1": STUCK},
    chip.fault_words: {"cells": FAULTS, "crossbars": 1, "config": CONFIG},
    chip.fault_cells: {"chip": CHIP, "config": CONFIG},
    policies.Policy.parse: {"text": "matched:tolerance=1"},
    policies.Sws: {"p": 0.5, "low": 2, "draws": "fresh"},
    policies.Matched: {"tolerance": 2, "price": 3, "pool": "output", "faults": "ignore"},
    policies.FlipNWrite: {"flags": "word"},
    policies.Aras: {},
    select_by_name: {"map": ["a=in-out"], "include": None, "exclude": "b"},
    codes.quantization_scale: {"weights": np.asarray(WEIGHTS), "bits": 4, "output_axes": ()},
    codes.quantize: {"weights": WEIGHTS, "scale": SCALE, "config": CONFIG},
    codes.dequantize: {"codes": CODES, "scale": SCALE, "dtype": np.dtype(np.float32)},
    codes.encode: {"codes": CODES, "config": CONFIG},
    codes.decode: {"words": CODED, "config": CONFIG},
    codes.bit_slice: {"words": CODED, "config": CONFIG},
    codes.join_slices: {"levels": LEVELS, "config": CONFIG},
    codes.cell_changes: {"old": CODED, "new": CODED, "config": CONFIG},
    codes.hamming_distance: {"old": CODED, "new": CODED, "config": CONFIG},
    codes.column_counts: {"cells": CODED, "config": CONFIG},
    placement.unsorted_placement: {"outputs": 2, "inputs": 3, "rows": 2},
    placement.sorted_placement: {"codes": np.asarray(CODES), "rows": 4, "scope": "output"},
    placement.apply_placement: {"values": jnp.arange(4), "placement": PLACED},
    placement.invert_placement: {"sections": jnp.zeros((2, 4)), "placement": PLACED},
    placement.negate_rows: {
        "values": jnp.zeros(PLACED.positions.shape, jnp.int32),
        "negated": np.zeros(PLACED.weights.shape, bool),
        "placement": PLACED,
    },
    schedule.block_schedule: {"sections": 6, "crossbars": 2},
    schedule.interleaved_schedule: {"sections": 6, "crossbars": None},
    schedule.apply_schedule: {"values": jnp.zeros((6, 3)), "schedule": TABLE},
    schedule.invert_schedule: {"values": jnp.zeros((3, 2, 3)), "schedule": TABLE},
    schedule.layer_schedule: {"sections": 6, "config": CONFIG},
    schedule.network_schedule: {"placements": [PLACED], "config": CONFIG, "first_layer": 0},
    cells.parse_law: {"text": "hfo2:on=1e-3"},
    cells.Conductance: {"on": 200.0, "off": 11.0},
    cells.Readout: {"seconds": 1.0, "input_bits": 4, "adc_bits": 6, "adc_range": 3.0},
    cells.program_cells: {"key": KEY, "words": WORDS, "config": CONFIG, "readout": READOUT},
    cells.read_layer: {"key": KEY, "inputs": jnp.ones(6, jnp.int32), "cells": CELLS,
                       "layer": LAYER, "config": CONFIG, "readout": READOUT},
    cells.read_matmul: {"key": KEY, "inputs": jnp.ones(6), "cells": CELLS,
                        "effective": HELD["a"]["kernel"], "layer": LAYER,
                        "config": CONFIG, "readout": READOUT},
    cells.read_weights: {"key": KEY, "effective": HELD, "plan": PLAN, "programming": DONE,
                         "readout": READOUT},
    cells.device_currents: {"conductance": jnp.full((3, 2), 1e-4), "voltages": jnp.ones(3),
                            "wires": WIRES},
    cells.effective_conductance: {"conductance": jnp.full((3, 2), 1e-4), "wires": WIRES},
    cells.write_time: {"summary": SUMMARY, "scheme": SCHEME},
    cells.write_energy: {"summary": SUMMARY, "scheme": SCHEME},
    cells.WriteVerify: {"set_p99": 40, "cap": 100},
    service.Lognormal: {"median": 1e6, "sigma_ln": 0.7},
    service.Weibull: {"median": 1e6, "shape": 2.0},
    service.Costs: {"batch": 1, "inferences_per_day": 10.0},
    service.cycles_per_write: {"config": CONFIG},
    service.wear_cycles: {"writes": WEAR, "config": CONFIG},
    service.wear_histogram: {"wear": WEAR},
    service.levelled_wear: {"wear": WEAR, "axes": (1,)},
    service.programmings_until_failure: {"key": KEY, "histogram": HISTOGRAM, "endurance": LIFE,
                                         "failures": 1},
    service.lifetime_years: {"programmings": np.ones(3), "inferences_per_day": 2.0, "batch": 1},
    service.programmings_with_spares: {"key": KEY, "wear": WEAR, "endurance": LIFE, "spares": 1},
    service.wear_out: {"chip": CHIP, "lives": LIVES, "cycles": WEAR, "config": CONFIG},
    service.total_cost: {"programmings": 1e6, "write_joules": 1e-6, "write_seconds": 1e-3,
                         "costs": service.Costs()},
    service.life_in_service: {"summary": SUMMARY, "inputs": service.make_service_inputs(),
                              "cycles": [WEAR], "seed": 1, "levelling": "rows", "spares": 1},
    service.sample_lives: {"key": KEY, "shape": (1, 4, 4), "endurance": LIFE, "share_at_1": 0.5},
    hardware.read_hardware: {"text": "array-128"},
    hardware.pass_cost: {"summary": SUMMARY, "hardware": HARDWARE},
    hardware.inference_cost: {"summary": SUMMARY, "positions": {"a/kernel": 2}, "config": CONFIG,
                              "hardware": HARDWARE, "batch": 2, "overlap": False},
    hardware.make_timeline: {"stages": STAGES, "config": CONFIG},
    memsim.advise: {"tensors": {"kernel": PARAMS["a"]["kernel"]}, "hardware": HARDWARE,
                    "policies": {"sws": POLICY}, "positions": 3, "config": CONFIG, "seed": 1,
                    "service": service.Service(batch=2)},
    attention.attention_cost: {"keys": HEADS, "values": HEADS, "config": CONFIG,
                               "hardware": HARDWARE, "policy": None},
    service.Service: {"batch": 3, "inferences_per_programming": 10.0, "adapter_rank": 2},
    intervals.share_interval: {"count": 3, "trials": 8},
    intervals.confidence_interval: {"values": [1.0, 2.0]},
    files.save_plan: {"path": "plan.safetensors", "plan": PLAN, "force": True},
    files.save_chip: {"path": "chip.safetensors", "chip": CHIP, "config": CONFIG, "force": True},
    files.save_faults: {"path": "faults.safetensors", "chip": CHIP, "config": CONFIG,
                        "force": True},
    files.load_faults: {"path": "faults.safetensors"},
    files.load_plan: {"path": "plan.safetensors"},
    files.load_chip: {"path": "chip.safetensors", "config": CONFIG},
    files.open_checkpoint: {"path": "none.safetensors"},
    memsim.save_tensors: {"path": "t.safetensors", "tensors": {"a": np.ones(2)}, "force": True},
}  # fmt: skip
WRONG = [
    None, "text", "", {}, [], (), {"rows": 4}, float("nan"), float("inf"), -1, 0, 2**40, 1.5, True,
    KEY, CHIP, CONFIG, PLAN, POLICY, PARAMS, READOUT, np.float32(2), np.zeros((0, 3)),
    np.ones((2, 2, 2), np.complex64), np.asarray(["a"]), jnp.full((3, 5), jnp.nan), jnp.int32(-5),
    np.zeros(3, np.uint8), object(),
]  # fmt: skip
ALLOWED = (ValueError, TypeError, OSError, ArithmeticError)


def is_sensible(result):
    """No number is none, no count negative."""
    for leaf in jax.tree.leaves(result):
        if isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, np.floating):
            if np.isnan(leaf).any():
                return False
        elif (
            isinstance(leaf, memsim.Programming)
            and min(map(np.min, jax.tree.leaves(leaf.counts))) < 0
        ):
            return False
    return True


def label(value):
    return f"{type(value).__name__} {str(value)[:60]}"


def fault_of(function, random):
    """Calls a function, up to two of its arguments wrong; gives what is wrong with the outcome."""
    given = dict(CALLS[function])
    changed = random.permutation(list(given)).tolist()[: random.integers(3)]
    for name in changed:
        others = [value for other, value in CALLS[function].items() if other != name]
        pool = others if others and random.random() < 0.3 else WRONG
        given[name] = pool[random.integers(len(pool))]
    call = f"{function.__qualname__}({ {name: label(given[name]) for name in changed} })"
    try:
        result = function(**given)
    except ALLOWED as error:
        if not changed and not isinstance(error, FileNotFoundError):
            return f"{call} is right, but {error}"
        # of a file it is enough to name the file
        if "`" in str(error) or isinstance(error, FileNotFoundError):
            return None
        return f"{call}: {type(error).__name__}: {str(error)[:150]}"
    except Exception as error:
        return f"{call}: {type(error).__name__}: {str(error)[:150]}"
    return None if changed or is_sensible(result) else f"{call}: {result}"


@pytest.mark.parametrize(
    "part", [*range(6), *(pytest.param(part, marks=pytest.mark.slow) for part in range(6, 10))]
)
def test_wrong_calls_are_refused_by_name(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(part)
    functions = list(CALLS)
    found = [fault_of(functions[random.integers(len(functions))], random) for _ in range(30)]
    assert [fault for fault in found if fault] == []
