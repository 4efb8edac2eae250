"""Files of plans: nothing in them is believed."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

import memsim
from memsim.files._plan_checks import OPTIONAL, PARTS, parts_of

DATA = Path(__file__).parent / "data"
# words of 6 bits: int8 then holds numbers that no delta can be
CONFIG = memsim.CrossbarConfig(rows=8, bits=6, crossbars=2)
POLICIES = {
    "unsorted": "unsorted",
    "sws": "sws+stuck:p=0.5,low=2",
    "matched": "matched:tolerance=3",
    "negated": "matched:negate=rows",
    "flags of words": "flip-n-write",
    "flags of sections": "flip-n-write:flags=section",
    "aras": "aras",
}
CONFIGS = {"negated": dataclasses.replace(CONFIG, columns=12)}
NAMES = ("layer2.weight", "layer10\x1b[31m/ß.conv.weight")


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    shapes = ((5, 21), (4, 3, 2))
    return {n: np.float32(rng.normal(size=s)) for n, s in zip(NAMES, shapes, strict=True)}


@pytest.fixture(scope="module")
def files(tensors, tmp_path_factory):
    """Tensors and description of the file of each policy's plan."""
    found = {}
    for name, policy in POLICIES.items():
        path = tmp_path_factory.mktemp("plans") / "plan"
        plan = memsim.plan(tensors, CONFIGS.get(name, CONFIG), memsim.Policy.parse(policy))
        memsim.save_plan(path, plan)
        found[name] = read(path)
    return found


def read(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["memsim.plan"])
        return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118


def write(path, tensors, description):
    text = description if isinstance(description, str) else json.dumps(description)
    memsim.save_tensors(path, tensors, metadata={"memsim.plan": text}, force=True)


def refused(tmp_path, tensors, description):
    """Whether loading says in one clear error that this is no plan."""
    path = tmp_path / "plan"
    write(path, tensors, description)
    with pytest.raises(ValueError, match=r"`plan` .*plan is no whole plan: .*plan the network"):
        memsim.load_plan(path)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_plan_comes_back_with_the_same_counts(tmp_path, tensors, key, policy):
    config = CONFIGS.get(policy, CONFIG)
    plan = memsim.plan(tensors, config, memsim.Policy.parse(POLICIES[policy]))
    memsim.save_plan(tmp_path / "plan", plan)
    loaded = memsim.load_plan(tmp_path / "plan")
    assert jax.tree.structure(loaded) == jax.tree.structure(plan)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(plan), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert loaded.names == list(NAMES)


def corruptions(array):
    """Arrays of other shapes and dtypes than this one, and of numbers that no part may hold."""
    yield "a new axis", array[None]
    yield "another dtype", array.astype(np.float64 if array.dtype == np.int64 else np.int64)
    yield "unsigned", array.astype(np.uint64)
    if array.ndim:
        yield "shorter", array[:-1]
        yield "longer", np.concatenate([array, array[-1:]])
        yield "empty", array[:0]
        yield "transposed", array.T.copy() if array.shape != array.T.shape else array[None]
    if array.dtype.kind == "f":
        for number in (np.nan, np.inf, -np.inf, np.finfo(np.float32).max):
            if number != np.finfo(np.float32).max or array.ndim:
                yield str(number), np.where(np.arange(array.size).reshape(array.shape) == 0,
                                            np.float32(number), array)  # fmt: skip


def first_at(array, number):
    changed = array.copy()
    changed.reshape(-1)[0] = number
    return changed


# numbers that are of the right kind, but that no plan has there
OUTSIDE = {
    "weights": [-1, 2**31 - 1, "repeat"],
    "used_rows": [0, -1, 9],
    "scale": [0, -1, 1e-45],
    "low_columns": [-1, 7],
    "reprogram": [-0.1, 1.1],
    "index_bits": [-1],
    "delta": [127, -128],
    "correction": [64, -64],
    "flips": [1, 0xFF],
    "offset": [64, -64],
    "crossbars": [-1, 2],
}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_tensor_of_a_plan_is_checked(tmp_path, files, policy):
    tensors, description = files[policy]
    tried = 0
    for name, array in tensors.items():
        part = name.split(".")[1]
        broken = dict(corruptions(array))
        for number in OUTSIDE.get(part, []):
            if (policy, part, number) == ("flags of sections", "flips", 1):
                continue  # the lowest column of a section complemented: could be
            value = array.reshape(-1)[1] if number == "repeat" else number
            broken[f"{number}"] = first_at(array, value)
        if part in ("weights", "used_rows"):
            broken["zeros"] = np.zeros_like(array)
        for what, other in broken.items():
            if part == "correction" and what == str(np.finfo(np.float32).max):
                other = first_at(array, np.finfo(np.float32).max)
            if part == "scale" and what.startswith("3.4"):
                continue  # finite and positive: a scale
            if np.array_equal(other, array) and other.dtype == array.dtype:
                continue
            print(name, what)  # noqa: T201 - tells which one was accepted
            refused(tmp_path, {**tensors, name: other}, description)
            tried += 1
        print(name, "is missing")  # noqa: T201
        refused(tmp_path, {n: x for n, x in tensors.items() if n != name}, description)
    assert tried > 100


@pytest.mark.parametrize("policy", POLICIES)
def test_no_part_may_be_added(tmp_path, files, policy):
    tensors, description = files[policy]
    every = {n.split(".")[1]: x for others, _ in files.values() for n, x in others.items()}
    assert set(every) == {*PARTS, "weights", "used_rows", "used_words"}
    for part, array in every.items():
        for name in (f"0.{part}", f"2.{part}", part, f"0.{part}.more"):
            if name not in tensors:
                refused(tmp_path, {**tensors, name: array}, description)


def places(value, path=()):
    """The path of every value of a JSON document."""
    yield path
    listed = enumerate(value) if isinstance(value, list) else ()
    for key, x in value.items() if isinstance(value, dict) else listed:
        yield from places(x, (*path, key))


def changed(document, path, change):
    copy = json.loads(json.dumps(document))
    if not path:
        return change(copy, None)
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return copy


@pytest.mark.parametrize("policy", ["matched", "flags of sections"])
def test_every_word_of_the_description_is_checked(tmp_path, files, policy):
    tensors, description = files[policy]
    for path in places(description):
        if path:
            removed = changed(description, path, lambda holder, key: holder.pop(key))
            print("without", path)  # noqa: T201
            refused(tmp_path, tensors, removed)
        for value in (None, -1, 1.5, "x", [], {}, True, 10**30, [[]], "§"):
            renamed = path[:1] == ("layers",) and path[-1] == "name" and isinstance(value, str)
            free = path == ("config", "crossbars") and value is None
            if not path or renamed or free:
                continue
            broken = changed(description, path, lambda h, k, v=value: h.__setitem__(k, v))
            if broken != description:
                print(path, value)  # noqa: T201
                refused(tmp_path, tensors, broken)
    for path in [(), ("config",), ("layers", 0), ("layers", 0, "matrix")]:
        holder = json.loads(json.dumps(description))
        inner = holder
        for key in path:
            inner = inner[key]
        inner["more"] = 1
        refused(tmp_path, tensors, holder)
    for text in ("", "null", "[]", "3", "{", '"x"', '{"format": 2, "format": 2}', "NaN"):
        write(tmp_path / "plan", tensors, text)
        with pytest.raises(ValueError, match=r"`plan` .*(truncated or no plan|saved by memsim)"):
            memsim.load_plan(tmp_path / "plan")


def test_layers_come_in_the_order_in_which_they_are_programmed(tmp_path, files):
    tensors, description = files["sws"]
    swapped = {f"{1 - int(n[0])}{n[1:]}": x for n, x in tensors.items()}
    refused(tmp_path, swapped, {**description, "layers": description["layers"][::-1]})
    refused(tmp_path, tensors, {**description, "layers": description["layers"][:1]})
    twice = [description["layers"][0]] * 2
    refused(tmp_path, {**tensors, **{"1" + n[1:]: x for n, x in tensors.items() if n[0] == "0"}},
            {**description, "layers": twice})  # fmt: skip


def test_optional_parts_cannot_vanish_together_with_their_record(tmp_path, files):
    tensors, description = files["flags of words"]
    for entry in description["layers"]:
        assert "flips" in entry["parts"]
    without = json.loads(json.dumps(description))
    for entry in without["layers"]:
        entry["parts"].remove("flips")
    kept = {name: x for name, x in tensors.items() if not name.endswith("flips")}
    refused(tmp_path, kept, without)


def test_a_plan_that_could_not_be_loaded_is_not_saved(tmp_path, tensors):
    plan = memsim.plan(tensors, CONFIG, memsim.policies.Unsorted())
    layer = plan.layers[NAMES[0]]
    for bad in (jnp.float32(0), jnp.float32(jnp.nan), -layer.scale, layer.scale[None]):
        layers = {**plan.layers, NAMES[0]: layer._replace(scale=bad)}
        with pytest.raises(ValueError, match=r"`plan` cannot be saved: of layer .*`scale`"):
            memsim.save_plan(tmp_path / "plan", plan._replace(layers=layers))
    assert not list(tmp_path.iterdir())


def test_every_part_of_a_layer_has_a_check(tensors):
    plan = memsim.plan(tensors, CONFIG, memsim.policies.Unsorted())
    assert set(parts_of(plan.layers[NAMES[0]].matrix, 15, CONFIG)) == set(PARTS)


def test_flips_are_of_whole_words_or_cells(tmp_path, tensors):
    config = memsim.CrossbarConfig(rows=8, bits=6, cell_bits=2)
    for policy, bad in (("flip-n-write", 3), ("flip-n-write:flags=section", 1)):
        plan = memsim.plan(tensors, config, memsim.Policy.parse(policy))
        memsim.save_plan(tmp_path / "p", plan, force=True)
        arrays, description = read(tmp_path / "p")
        refused(tmp_path, {**arrays, "0.flips": first_at(arrays["0.flips"], bad)}, description)


# writes of two passes that memsim 0.1 counted, of chips of its own
COUNTED = {"unsorted": 952, "sws": 728, "matched": 318, "flip-n-write": 757,
           "flip-n-write-word": 350, "aras": 856}  # fmt: skip


def first_tensors():
    rng = np.random.default_rng(0)
    shapes = {"layer2.weight": (5, 21), "layer10.weight": (4, 3, 2)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("policy", COUNTED)
def test_plans_of_0_1_load_and_count_the_same(key, policy):
    plan = memsim.load_plan(DATA / f"plan_0.1_{policy}.safetensors")
    chip = memsim.sample_chip(key, plan, 0.05, 0.05)
    _, programming = memsim.program(first_tensors(), plan, chip, passes=2)
    assert memsim.summarize(programming, plan).writes == COUNTED[policy]


def test_a_chip_of_0_1_loads_and_counts_the_same():
    plan = memsim.load_plan(DATA / "plan_0.1_sws.safetensors")
    chip = memsim.load_chip(DATA / "chip_0.1.safetensors", plan.config)
    assert chip.passes == 2
    _, programming = memsim.program(first_tensors(), plan, chip)
    assert memsim.summarize(programming, plan).writes == 371


@pytest.mark.parametrize("policy", COUNTED)
def test_plans_of_0_1_are_not_believed_either(tmp_path, policy):
    tensors, description = read(DATA / f"plan_0.1_{policy}.safetensors")
    for name in tensors:
        refused(tmp_path, {n: x for n, x in tensors.items() if n != name}, description)
    for part in OPTIONAL:
        later = {"crossbars": np.zeros(15, np.int32), "negated": np.zeros((15, 8), bool)}
        if part in later:
            refused(tmp_path, {**tensors, f"0.{part}": later[part]}, description)
            continue
        others = [n for n in COUNTED if f"0.{part}" in read(DATA / f"plan_0.1_{n}.safetensors")[0]]
        array = read(DATA / f"plan_0.1_{others[0]}.safetensors")[0][f"0.{part}"]
        if f"0.{part}" not in tensors:
            refused(tmp_path, {**tensors, f"0.{part}": array}, description)
    for path in places(description):
        if path and path[-1] != "format":
            refused(tmp_path, tensors, changed(description, path, lambda h, k: h.pop(k)))
