"""Cold compilation of `program` for the 50 matrices of DeiT-Tiny.

    python -m benchmarks.compilation

Prints seconds to trace and compile `jax.jit(memsim.program)` whole (50 layers in one computation),
alone and inside a gradient, in a process that has compiled nothing like it before.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import memsim


def deit_tiny() -> dict[str, np.ndarray]:
    """Seeded kernels in DeiT-Tiny's shapes."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "patch/kernel": (16, 16, 3, 192),
        "head/kernel": (192, 1000),
    }
    for block in range(12):
        shapes |= {
            f"blocks/{block}/qkv/kernel": (192, 576),
            f"blocks/{block}/proj/kernel": (192, 192),
            f"blocks/{block}/fc1/kernel": (192, 768),
            f"blocks/{block}/fc2/kernel": (768, 192),
        }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def cold(function: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """(seconds to trace, seconds to compile)."""
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    traced = time.perf_counter()
    lowered.compile()
    return traced - start, time.perf_counter() - traced


def main() -> None:
    """Prints the figures."""
    params = deit_tiny()
    policy = memsim.policies.Sws(low=3, p=0.5)
    plan = memsim.plan(params, memsim.CrossbarConfig(), policy)
    chip = memsim.sample_chip(jax.random.key(0), plan, 0.005, 0.005)

    def loss(params: Any, plan: Any, chip: Any) -> jax.Array:
        effective, _ = memsim.program(params, plan, chip)
        return sum((jnp.sum(w * w) for w in effective.values()), jnp.float32(0))

    for name, function in (("program", memsim.program), ("grad of a loss of it", jax.grad(loss))):
        traced, compiled = cold(function, params, plan, chip)
        print(
            f"{name:22} traced {traced:.2f} s, compiled {compiled:.2f} s, {traced + compiled:.2f} s"
        )


if __name__ == "__main__":
    main()
