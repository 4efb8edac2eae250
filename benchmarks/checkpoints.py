"""A language model of a billion weights through `memsim report`: time and peak memory.

    python -m benchmarks.checkpoints [--head 32000] [--columns 128]
    python -m benchmarks.checkpoints --advise

Writes seeded weights in bfloat16, sharded, one block at a time, shaped as a Llama of 20 blocks,
2,048 wide (1.03e9 weights, 2.1 GB on disk, removed again), and runs the command in a process of its
own. The bar: 4 GB of resident memory for `unsorted` and `sws`. With --advise it is `memsim advise`
on the shapes of GPT-2 (85 million mapped weights); the bar: 3 minutes, 4 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

_WIDTH, _MLP = 2048, 5632
_BLOCK = {
    **{f"self_attn.{name}_proj": (_WIDTH, _WIDTH) for name in "qkvo"},
    "mlp.gate_proj": (_MLP, _WIDTH), "mlp.up_proj": (_MLP, _WIDTH), "mlp.down_proj": (_WIDTH, _MLP),
}  # fmt: skip


# Of GPT-2's: [in, out].
_GPT2_BLOCK = {
    "attn.c_attn": (768, 2304), "attn.c_proj": (768, 768), "mlp.c_fc": (768, 3072),
    "mlp.c_proj": (3072, 768),
}  # fmt: skip


def llama(blocks: int, head: int) -> dict[str, tuple[int, int]]:
    """Lists the weights of a Llama, with an untied head of so many tokens."""
    layers = range(blocks)
    shapes = {f"model.layers.{n}.{k}.weight": of for n in layers for k, of in _BLOCK.items()}
    return shapes | ({"lm_head.weight": (head, _WIDTH)} if head else {})


def gpt2() -> dict[str, tuple[int, int]]:
    """Lists the weights of GPT-2 that are mapped."""
    return {f"h.{n}.{k}.weight": of for n in range(12) for k, of in _GPT2_BLOCK.items()}


def write(folder: Path, shapes: dict[str, tuple[int, int]]) -> int:
    """Writes a checkpoint in shards; gives how many weights it has."""
    rng, index, count = np.random.default_rng(0), {}, 0
    for number, (name, shape) in enumerate(shapes.items()):
        weights = (0.02 * rng.standard_normal(shape, dtype=np.float32)).astype(ml_dtypes.bfloat16)
        index[name] = f"model-{number:05d}.safetensors"
        save_file({name: weights}, folder / index[name])
        count += weights.size
    document = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    return count


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--head", type=int, default=0, help="tokens of an untied head; 0: none")
    parser.add_argument("--columns", type=int)
    parser.add_argument("--advise", action="store_true", help="`memsim advise` on GPT-2's shapes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shapes = gpt2() if arguments.advise else llama(arguments.blocks, arguments.head)
        count = write(Path(folder), shapes)
        asked = ["--positions", "64", "--batch", "16"] if arguments.advise else []
        asked += ["--columns", str(arguments.columns)] if arguments.columns else []
        command = [
            sys.executable, "-m", "memsim", "advise" if arguments.advise else "report",
            f"{folder}/model.safetensors.index.json", "--policy", "unsorted", "--policy", "sws",
            *asked,
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{count:,} weights: {took:.0f} s, peak resident memory {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
