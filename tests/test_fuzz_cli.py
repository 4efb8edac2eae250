"""The command line under random options, sense and nonsense: never a traceback, a hang, or nonsense
with exit status 0."""

import json
import math
import random
import signal
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import memsim

# (options that make sense, options that make none); None is a flag without a value. What makes
# sense and compiles anew has few values, so that most of it is compiled once.
CROSSBARS = {
    "--rows": ([16], [0, -1, "x", 2**31, 10**12, 1.5, "", "16 "]),
    "--bits": ([8, 4], [1, 17, 0, -8, "eight", 10**9]),
    "--cell-bits": ([1, 2], [3, 0, 8, "one"]),
    "--encoding": (["twos_complement", "differential"], ["gray", "", "TWOS"]),
    "--crossbars": ([1, 2, "all"], [0, -1, "some", "1e3", 10**14, "", "٣", "²"]),
    "--schedule": (["block", "interleaved"], ["random", ""]),
    "--scale-per": (["tensor", "output"], ["weight", "0"]),
}
SELECTION = {
    "--include": (["weight", "fc"], ["(", "nothing at all", "[", "*", ""]),
    "--exclude": (["bias", "digital"], ["(", ".", "(?P<", "\\"]),
    "--map": (
        ["fc=out-in", "lstm=out-in", "mlp=stacked-in-out", "a.weight=digital"],
        ["fc=up-down", "=", "fc", "(=out-in", "fc=", "fc=out-in-in-out-in", ".=depthwise"],
    ),
}
RATES = {
    "--stuck-at-0": ([0.0, 0.1], [-0.1, 1.5, "nan", "inf", "x"]),
    "--stuck-at-1": ([0.1], [-1, 2, "nan", "-inf", "0,5"]),
}
POLICIES = (
    ["unsorted", "sws", "sws-layer", "sws+stuck:p=0.5,low=3", "matched:tolerance=1",
     "flip-n-write", "aras", "flip-n-write:flags=section"],
    ["best", "", ":", "sws:", "sws+stuck", "sws+stuck:p=2,low=3", "sws+stuck:p=nan,low=3",
     "sws+stuck:p=0.5,low=-1", "sws+stuck:p=0.5,low=99", "matched:tolerance=x", "aras:flags=word",
     "matched:price=0", "os:path", "nowhere:Nothing", "json:loads", "memsim.policies:Policy",
     "memsim:CrossbarConfig", "sws+stuck:p=,low=", "matched:tolerance=1,tolerance=2", "a:b:c:d",
     "unsorted+stuck:p=0.5,low=3,draws=never", "sws\x1b[31m", "matched:faults=avoid"],
)  # fmt: skip
OPTIONS = {
    "report": CROSSBARS | SELECTION | RATES | {
        "--policy": POLICIES,
        "--from": (["{fc}"], ["{no}", "{cut}", "{emb}", "{lstm}"]),
        "--keep-placement": ([None], [None]),
        "--passes": ([1, 2], [0, -1, "two", 2**63, 1.5]),
        "--chips": ([1, 2], [0, -3, "many", 10**15]),
        "--seed": ([0, 7], [-1, 2**63, 2**64, "x", "0x1", 2**32]),
        "--faults": (["{faults}"], ["{no}", "{fc}", "{cut}", "{plan}"]),
        "--cells": (["hfo2", "pcm"], ["flash", "", "HFO2"]),
        "--lifetime": ([None], [None]),
        "--cost": (["{cost}"], ["{no}", "{bad_cost}", "{fc}"]),
        "--scheme": (["constant", "ramp"], ["best", ""]),
        "--levelling": (["rows", "none"], ["all", ""]),
        "--spares": ([0], [-1, "x", 10**9]),
        "--html": (["{out}.html"], ["{dir}", "{no}/x.html", "{fc}"]),
    },
    "program": CROSSBARS | SELECTION | RATES | {
        "--policy": POLICIES,
        "--plan": (["{plan}"], ["{no}", "{fc}", "{cut}", "{chip}", "{dir}"]),
        "--chip": (["{chip}"], ["{no}", "{fc}", "{plan}"]),
        "--faults": (["{faults}"], ["{no}", "{chip}"]),
        "--passes": ([1, 2], [0, -1, 2**70]),
        "--seed": ([0, 7], [-1, 2**63, "1e3"]),
        "--save-chip": (["{out}.chip"], ["{dir}", "{no}/x", "{out}.npz"]),
        "--force": ([None], [None]),
    },
    "plan": CROSSBARS | SELECTION | {
        "--policy": POLICIES,
        "--max-drop": ([0.5], [-1, 2, "nan", "x"]),
        "--evaluate": (["judges_of_fuzz:none"], ["nowhere:f", "os", "os:nothing", ":", "os:sep"]),
        "--json": (["{out}.json"], ["{dir}", "{no}/x.json"]),
        "--seed": ([0], [-1, 2**63]),
        "--chip": (["{chip}"], ["{no}", "{fc}"]),
        "--faults": (["{faults}"], ["{no}"]),
        "--force": ([None], [None]),
    },
}  # fmt: skip
GOOD = ["fc", "fc", "fc", "fc", "fc", "fc", "scan", "gpt2", "emb", "bf", "endian", "index"]
ODD = ["keras", "lstm", "e4m3", "e8m0", "f4", "nan", "cut", "no", "dir", "complex", "empty", "zero",
       "double", "names", "plan", "broken_index"]  # fmt: skip


class Hangs(BaseException):
    """Raised where a command takes too long; no command catches it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths by name: checkpoints of many kinds, a plan, a chip, a fault map, prices."""
    folder = tmp_path_factory.mktemp("fuzz")
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    def raw(name, dtype, size):
        entry = {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}
        other = {"dtype": dtype, "shape": [4, 8], "data_offsets": [128, 128 + size]}
        header = json.dumps({"w.weight": entry, "s.weight": other}).encode()
        (folder / f"{name}.safetensors").write_bytes(
            struct.pack("<Q", len(header)) + header + normal(4, 8).tobytes() + bytes(size)
        )

    nets = {
        "fc": {"fc.weight": normal(10, 30), "fc.bias": normal(10)},
        "scan": {"layers/mlp/kernel": normal(3, 8, 16)},
        "gpt2": {"h.0.attn.c_attn.weight": normal(16, 48)},
        "keras": {"dw/depthwise_kernel": normal(3, 3, 8, 1)},
        "emb": {"tok_embeddings.weight": normal(50, 8), "fc.weight": normal(8, 32)},
        "bf": {"fc.weight": normal(10, 30).astype(ml_dtypes.bfloat16)},
        "lstm": {"lstm.weight_ih_l0": normal(32, 8), "lstm.weight_hh_l0": normal(32, 8)},
        "nan": {"fc.weight": np.full((4, 8), np.nan, np.float32)},
        "empty": {"fc.weight": np.zeros((0, 8), np.float32)},
        "zero": {"fc.weight": np.zeros((10, 30), np.float32)},
        "double": {"fc.weight": rng.standard_normal((10, 30)) * 1e-300},
        "names": {"\x1b[31m\n.weight": normal(4, 8), "é\u202e.weight": normal(4, 8)},
        "m-1": {"a.weight": normal(4, 8)},
        "m-2": {"b.weight": normal(4, 8), "a.weight": normal(4, 8)},
    }
    paths = {name: folder / f"{name}.safetensors" for name in nets}
    for name, tensors in nets.items():
        safetensors.numpy.save_file(tensors, paths[name], {"format": "pt"})
    for name, dtype, size in (("e4m3", "F8_E4M3", 32), ("e8m0", "F8_E8M0", 32), ("f4", "F4", 16)):
        raw(name, dtype, size)
        paths[name] = folder / f"{name}.safetensors"
    for name, of in (("index", "m-1"), ("broken_index", "m-2")):
        paths[name] = folder / f"{name}.safetensors.index.json"
        shards = {"a.weight": f"{of}.safetensors", "b.weight": "m-2.safetensors"}
        shards |= {} if name == "index" else {"gone.weight": "m-1.safetensors"}
        paths[name].write_text(json.dumps({"weight_map": shards}))
    paths |= {name: folder / f"{name}.npz" for name in ("endian", "complex", "faults")}
    np.savez(paths["endian"], **{"a.weight": normal(4, 8).astype(">f4")})
    np.savez(paths["complex"], **{"a.weight": normal(4, 8) + 1j})
    every = np.zeros((1, 16, 8), bool)
    np.savez(paths["faults"], stuck_at_0=every, stuck_at_1=~every)
    paths |= {"no": folder / "none" / "there.safetensors", "dir": folder}
    paths["cut"] = folder / "cut.safetensors"
    paths["cut"].write_bytes(paths["fc"].read_bytes()[:-100])
    paths |= {"cost": folder / "cost.toml", "bad_cost": folder / "bad.toml"}
    paths["cost"].write_text("[cost]\nbatch = 10\n")
    paths["bad_cost"].write_text("[cost]\nbatches = -1\n")
    config = memsim.CrossbarConfig(rows=16)
    plan = memsim.plan(nets["fc"], config, memsim.Policy.parse("sws"))
    paths |= {"plan": folder / "plan.safetensors", "chip": folder / "chip.safetensors"}
    memsim.save_plan(paths["plan"], plan)
    memsim.save_chip(paths["chip"], memsim.sample_chip(memsim_key(), plan, 0.1), config)
    (folder / "judges_of_fuzz.py").write_text("def none(tensors):\n    return None\n")
    return paths


def memsim_key():
    import jax

    return jax.random.key(0)


def draw(rng, files, out):
    """A random command: (command, checkpoint, arguments, the JSON file of a report)."""
    command = rng.choice(["report", "report", "program", "plan"])
    checkpoint = files[rng.choice(GOOD if rng.random() < 0.75 else ODD)]
    arguments = {}
    if rng.random() < 0.95:
        arguments["--rows"] = [16]
    if command == "report" or rng.random() < 0.85:
        names = rng.sample(POLICIES[0], 1 if command != "report" else rng.choice([1, 1, 2]))
        arguments["--policy"] = names if rng.random() < 0.5 else ["sws"]
    if command != "report" and rng.random() < 0.95:
        arguments["--out"] = [f"{out}.npz" if command == "program" else f"{out}.safetensors"]
    # half of all cases have a single fault, or none
    wrong = rng.choice([0.0, 0.0, 0.5, 1.0])
    for option in rng.sample(sorted(OPTIONS[command]), rng.choice([0, 1, 1, 2, 3, 5])):
        sense, nonsense = OPTIONS[command][option]
        values = nonsense if rng.random() < wrong else sense[: rng.choice([1, 1, len(sense)])]
        arguments[option] = [rng.choice(values)]
    if command == "report":
        arguments["--json"] = [f"{out}.json"]
    words = []
    for option, values in arguments.items():
        for value in values:
            text = str(value)
            for name, path in files.items():
                text = text.replace(f"{{{name}}}", str(path))
            text = text.replace("{out}", str(out))
            words += [option] if value is None else [option, text]
    if rng.random() < 0.03:
        words.append(rng.choice(["--nothing", "-x", "more"]))
    return command, checkpoint, words


def refuse_constant(text):
    raise AssertionError(f"{text} in JSON")


def check_report(path, checkpoint):
    document = json.loads(path.read_text(), parse_constant=refuse_constant)
    source = memsim.open_checkpoint(checkpoint)
    for entry in document["policies"].values():
        assert entry["writes"] >= 0
        assert entry["writes"] == sum(entry["writes_per_pass"]) or entry["chips"] > 1
        # 0 where all cells are stuck: unsorted then writes nothing, flags are written still
        assert entry["reduction"] is None or 0 <= entry["reduction"] < math.inf
        assert 0 <= entry["index_bits_per_weight"] < 64
        assert document["weights"] == sum(x["weights"] for x in entry["layers"].values())
        for layer in entry["layers"].values():
            assert layer["inputs"] * layer["outputs"] == layer["weights"] > 0
        read = {name.partition("[")[0] if name not in source.tensors else name
                for name in entry["layers"]}  # fmt: skip
        assert read | set(document["digital"]) == set(source.tensors)
        assert not read & set(document["digital"])
        sizes = {name: math.prod(source.tensors[name].shape) for name in read}
        assert document["weights"] == sum(sizes.values())


def check_program(path, checkpoint):
    before, after = memsim.open_checkpoint(checkpoint), memsim.open_checkpoint(path)
    assert {name: x.shape for name, x in before.tensors.items()} == {
        name: x.shape for name, x in after.tensors.items()
    }
    assert before.metadata == after.metadata
    for name, tensor in before.tensors.items():
        assert after.tensors[name].dtype == tensor.dtype
        was, now = before.load(name), after.load(name)
        if isinstance(was, np.ndarray) and np.issubdtype(was.dtype, np.floating):
            assert np.all(np.isfinite(now[np.isfinite(was)]))


def try_commands(run, files, folder, seed, count):
    rng = random.Random(seed)  # noqa: S311
    codes = []

    def hang(*_):
        raise Hangs

    signal.signal(signal.SIGALRM, hang)
    for number in range(count):
        out = folder / f"out{number}"
        command, checkpoint, words = draw(rng, files, out)
        told = " ".join(["memsim", command, str(checkpoint), *words])
        signal.alarm(120)
        try:
            code, printed, error = run(command, checkpoint, *words)
        except Hangs:
            pytest.fail(f"{told} hangs")
        finally:
            signal.alarm(0)
        codes.append(code)
        what = f"{told}\n{code}: {printed}{error}"
        assert code in (0, 1, 2), what
        assert "Traceback" not in error, what
        assert "\x1b[31m" not in printed + error, what
        if code == 1:
            assert error.startswith("memsim: "), what
            assert len(error) > 20, what
            assert not printed, what
        if code == 0:
            assert not error, what
            try:
                if command == "report":
                    check_report(out.with_suffix(".json"), checkpoint)
                if command == "program":
                    check_program(out.with_suffix(".npz"), checkpoint)
                if command == "plan":
                    memsim.load_plan(out.with_suffix(".safetensors"))
            except Exception as problem:
                raise AssertionError(what) from problem
        else:  # nothing half done
            names = [name for name in folder.iterdir() if name.name.startswith(f"{out.name}.")]
            assert not names, what
    return codes


SLOW_BATCHES = [pytest.param(batch, marks=pytest.mark.slow) for batch in range(2, 10)]


@pytest.mark.parametrize("batch", [0, 1, *SLOW_BATCHES])
def test_300_random_commands(run, files, tmp_path, monkeypatch, batch):
    monkeypatch.chdir(files["dir"])
    codes = try_commands(run, files, tmp_path, f"memsim {batch}", 30)
    assert 0 in codes
    assert 1 in codes


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
def test_3000_random_commands(run, files, tmp_path, monkeypatch, batch):
    monkeypatch.chdir(files["dir"])
    try_commands(run, files, tmp_path, f"more of memsim {batch}", 300)
