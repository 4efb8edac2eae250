"""Redeployment: a fine-tuned ResNet-20 programmed over the one that the crossbars hold.

    python -m benchmarks.redeployment --assets DIR

`DIR` holds ResNet-20 and images of CIFAR-10, as `python -m training.reproduce --assets DIR` takes
them. The images are made dull and noisy, as of a camera at dusk, and the network is fine-tuned for
them: both are left in `runs/redeployment/`. Then `python -m training.codesign --from` deploys it,
16 words a row, weight stationary.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

import memsim
from memsim.selection import named_leaves
from training.finetune import complete, learned
from training.float_training import train
from training.options import CIFAR10, CIFAR10_TRAIN, RESNET20
from training.progress import progress_bar
from training.tasks import open_task

_OUT = Path("runs/redeployment")
_STEPS, _BATCH, _RATE = 300, 64, 3e-4
_PRICES, _STEPS_A_PRICE = (4, 16, 64), 150


def dusk(source: Path, target: Path, seed: int) -> None:
    """Writes the images of a file with seven tenths of their contrast, and noise."""
    examples = dict(np.load(source))
    images = examples["image"].astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 10, images.shape)
    dull = 0.7 * images + 0.3 * images.mean() + noise
    examples["image"] = np.clip(np.rint(dull), 0, 255).astype(np.uint8)
    np.savez(target, **examples)


def main() -> None:
    """Makes the images and the network, and deploys it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True)
    assets = parser.parse_args().assets
    _OUT.mkdir(parents=True, exist_ok=True)
    test, learn = _OUT / "test.npz", _OUT / "train.npz"
    dusk(assets / CIFAR10, test, 0)
    dusk(assets / CIFAR10_TRAIN, learn, 1)
    old, new = assets / RESNET20, _OUT / "finetuned.safetensors"
    task = open_task("resnet20", str(old), str(test), train_data=str(learn))
    assert task.training is not None  # noqa: S101 - images to learn from were given
    with progress_bar() as bar:
        tuned = train(
            lambda params, images: task.apply(complete(params, task.params), images),
            learned(task.params),
            task.training(_BATCH, 0, 0),
            _STEPS,
            _RATE,
            bar,
        )
    memsim.save_tensors(new, named_leaves(complete(tuned, task.params)), force=True)
    prices = [word for price in _PRICES for word in ("--price", str(price))]
    job = [
        "training.codesign", "--model", "resnet20", "--weights", str(new), "--data", str(test),
        "--train-data", str(learn), "--from", str(old), *prices, "--steps", str(_STEPS_A_PRICE),
        "--learning-rate", "3e-4", "--out", str(_OUT / "codesign"), "--force",
    ]  # fmt: skip
    print("python -m", *job, flush=True)
    sys.exit(subprocess.run([sys.executable, "-m", *job], check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
