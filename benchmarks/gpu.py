"""Everything that an accelerator is to be fast at, in one run of at most eight minutes.

    python -m benchmarks.gpu

Takes Python, JAX for the accelerator, Flax and optax, and no network. Parts that cannot run say
why, and the others go on. Without an accelerator sizes are a hundredth, to see that all of it runs.
`--json FILE` keeps the figures.
"""

import argparse
import functools
import json
import statistics
import time
import traceback
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import memsim
from benchmarks.programming import seeded, squares, vit_base
from memsim.cells import Readout, Wires, device_currents, program_cells, read_matmul
from memsim.config import Encoding

STUCK_AT = 0.005
ENCODINGS: tuple[Encoding, ...] = typing.get_args(Encoding)
_ROUNDS, _WIRE = 7, Wires(2.97, 2.97)
# A part that begins later than this is left out.
_MOST_SECONDS = 420.0

Figures = Iterator[tuple[str, float, str]]


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    """Median seconds of a call, compiled before."""
    jax.block_until_ready(work(*arguments))
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(work(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ceilings(share: float) -> Figures:
    """The bytes that a copy moves, and the floating-point operations of a product, a second."""
    values = jnp.ones(int(share * 2**28), jnp.float32)
    yield "copy", 8 * values.size / seconds(jax.jit(lambda x: x + 1), values) / 1e9, "GB/s"
    size = int(8192 * share ** (1 / 3)) // 128 * 128
    for dtype in (jnp.float32, jnp.bfloat16):
        square = jnp.ones((size, size), dtype)
        passed = seconds(jax.jit(jnp.matmul), square, square)
        yield f"product, {jnp.dtype(dtype).name}", 2 * size**3 / passed / 1e12, "TFLOP/s"


def programming(share: float) -> Figures:
    """The weights of ViT-Base, programmed and counted."""
    shapes = vit_base() if share == 1 else squares(int(86e6 * share))
    params = jax.tree.map(jnp.asarray, seeded(shapes))
    weights = sum(leaf.size for leaf in params.values())
    copy = seconds(jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree)), params)
    yield "weights", weights / 1e6, "million"
    yield "copy", 1e9 * copy / weights, "ns a weight"
    for columns in (None, 128):
        for policy in ("unsorted", "sws"):
            config = memsim.CrossbarConfig(columns=columns)
            plan = memsim.plan(params, config, memsim.Policy.parse(policy))
            chip = memsim.sample_chip(jax.random.key(0), plan)

            def program(tree: Any, chip: memsim.Chip, plan: memsim.Plan = plan) -> Any:
                held, counted = memsim.program(tree, plan, chip)
                return held, counted.counts

            passed = seconds(jax.jit(program), params, chip)
            name = f"{policy}, {columns or 'one word'} columns"
            yield name, 1e9 * passed / weights, "ns a weight"
            yield f"{name}, against the copy", passed / copy, "x"


def sweep(share: float) -> Figures:
    """Chips of 256 x 256 weights with stuck cells: drawn, programmed and used, in chunks."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.standard_normal((256, 256), np.float32))
    batch = jnp.asarray(rng.standard_normal((64, 256), np.float32))
    config = memsim.CrossbarConfig(crossbars=None)
    policy = memsim.Policy.parse("sws+stuck:p=0.5,low=3")
    plan = memsim.plan({"kernel": weights}, config, policy)

    def draw(key: jax.Array) -> memsim.Chip:
        return memsim.sample_chip(key, plan, STUCK_AT, STUCK_AT)

    def use(key: jax.Array) -> Any:
        held, counted = memsim.program({"kernel": weights}, plan, draw(key))
        return batch @ held["kernel"], counted.counts.sets

    for chunk in (64, 256, 1024, 4096) if share == 1 else (4, 8):
        keys = jax.random.split(jax.random.key(0), chunk)
        for name, work in (("drawn", draw), ("drawn, programmed, used", use)):
            passed = seconds(jax.jit(jax.vmap(work)), keys)
            yield f"{name}, {chunk} at once", 1e6 * passed / chunk, "us a chip"


def training(share: float) -> Figures:
    """A step of ResNet-20 on 128 images, with and without a chip in its loss."""
    import optax

    from benchmarks.evaluation import seeded_resnet20
    from training.data.preprocessing import normalise
    from training.finetune import complete, learned
    from training.finetune.steps import Objective, robust_step
    from training.float_training import TrainState, float_step
    from training.models.pretrained import MODELS, build

    tensors, rng = seeded_resnet20(), np.random.default_rng(0)
    params, count = learned(tensors), 128 if share == 1 else 8
    images = jnp.asarray(rng.integers(0, 256, (count, 32, 32, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, count), jnp.int32)
    policy = memsim.Policy.parse("sws+stuck:p=0.25,low=4")
    plan = memsim.plan(params, memsim.CrossbarConfig(), policy)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        network = build("resnet20", complete(params, tensors))
        return network(normalise(images, MODELS["resnet20"].preprocessing))

    optimizer = optax.adam(1e-3)
    state = TrainState(params, optimizer.init(params))
    plain = jax.jit(functools.partial(float_step, apply=apply, optimizer=optimizer))
    aware = jax.jit(
        functools.partial(
            robust_step,
            optimizer=optimizer,
            stuck_at=2 * STUCK_AT,
            objective=Objective(apply=apply, passes=2),
        )
    )
    passed = seconds(plain, state, images, labels)
    yield "plain step", 1e3 * passed, "ms"
    stuck = seconds(aware, state, plan, jax.random.key(0), images, labels)
    yield "stuck-aware step", 1e3 * stuck, "ms"
    yield "stuck-aware against plain", stuck / passed, "x"


def reading(share: float) -> Figures:
    """Bit-serial products through 256 x 256 weights, beside a float32 product as large."""
    rng = np.random.default_rng(0)
    vectors = 1024 if share == 1 else 16
    params = {"kernel": jnp.asarray(rng.standard_normal((256, 256), np.float32))}
    inputs = jnp.asarray(rng.standard_normal((vectors, 256), np.float32))
    driven, levels = jnp.ones((8 * vectors, 256)), jnp.ones((256, 2048))
    product = seconds(jax.jit(jnp.matmul), driven, levels)
    config = memsim.CrossbarConfig(rows=256, crossbars=None)
    plan = memsim.plan(params, config, memsim.Policy.parse("sws"))
    chip = memsim.sample_chip(jax.random.key(0), plan)
    held, programmed = memsim.program(params, plan, chip, words=True)
    assert programmed.words is not None  # noqa: S101 - they were asked for
    for name, law in (("ideal", memsim.Conductance()), ("PCM", memsim.Conductance.pcm())):
        readout = Readout(adc_bits=8, cells=law)
        cells = program_cells(chip.key, programmed.words["kernel"], config, readout)
        read = functools.partial(
            read_matmul, layer=plan.layers["kernel"], config=config, readout=readout
        )
        passed = seconds(jax.jit(read), chip.key, inputs, held["kernel"], cells)
        yield f"{name} cells, {vectors} vectors", 1e6 * passed / vectors, "us a vector"
        yield f"{name} cells, against the product", passed / product, "x"


def wires(share: float) -> Figures:
    """Currents of HfO2 crossbars between wires of 22 nm: one vector each, and many through one."""
    rng = np.random.default_rng(0)
    size, many = (128, 64) if share == 1 else (32, 8)
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            devices = jnp.asarray(rng.choice([200e-6, 11e-6], (many, size, size)).astype(dtype))
            volts = jnp.asarray((0.2 * rng.integers(0, 2, (many, size))).astype(dtype))
            solve = functools.partial(device_currents, wires=_WIRE)
            each = jax.jit(jax.vmap(solve))
            together = jax.jit(solve)
            name = np.dtype(dtype).name
            yield f"{name}, {many} crossbars", 1e3 * seconds(each, devices, volts), "ms"
            passed = seconds(together, devices[0], volts)
            yield f"{name}, {many} vectors through one", 1e3 * passed, "ms"
            yield f"{name}, residual", float(together(devices[0], volts).residual), ""


def exactness(share: float) -> Figures:
    """Counts and weights of chips against those of the CPU, bit for bit."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.standard_normal((200, 70), np.float32)}
    host = jax.devices("cpu")[0]
    for encoding in ENCODINGS:
        config = memsim.CrossbarConfig(encoding=encoding, columns=128, crossbars=4)
        policy = memsim.Policy.parse("sws+stuck:p=0.5,low=2")
        plan = memsim.plan(params, config, policy)

        def found(plan: memsim.Plan = plan) -> Any:
            chip = memsim.sample_chip(jax.random.key(0), plan, STUCK_AT, STUCK_AT)
            return memsim.program(params, plan, chip, passes=2, words=True)

        here = jax.tree.leaves(found())
        with jax.default_device(host):
            there = jax.tree.leaves(found())
        apart = sum(
            int((np.asarray(one) != np.asarray(other)).sum())
            for one, other in zip(here, there, strict=True)
            if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key)
        )
        yield f"{encoding}: numbers that differ", apart, ""


PARTS = (ceilings, exactness, sweep, programming, training, reading, wires)


def main() -> None:
    """Runs every part, and prints its figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    keep = parser.parse_args().json
    device, began = jax.devices()[0], time.perf_counter()
    share = 0.01 if device.platform == "cpu" else 1.0
    print(f"{device.device_kind} ({device.platform}), JAX {jax.__version__}")
    if share < 1:
        print("no accelerator: pip install 'jax[cuda13]' (or jax[tpu]); a hundredth of each size")
    figures: dict[str, dict[str, float]] = {}
    for part in PARTS:
        print(f"{part.__name__}: {(part.__doc__ or '').strip()}", flush=True)
        if time.perf_counter() - began > _MOST_SECONDS:
            print("  left out: no time is left")
            continue
        of_part = figures.setdefault(part.__name__, {})
        try:
            for name, figure, unit in part(share):
                of_part[name] = figure
                print(f"  {name:44} {figure:12.4g} {unit}", flush=True)
        except Exception:
            traceback.print_exc(limit=3)
    print(f"{time.perf_counter() - began:.0f} s in all")
    if keep:
        keep.write_text(json.dumps({"device": device.device_kind, "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
