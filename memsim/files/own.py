"""Reading the files that memsim itself writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy


def load_own(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and description of a plan or chip file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`{kind}` {path} is not a file; check the path.")
    try:
        with safetensors.safe_open(path, framework="numpy") as source:
            description = json.loads((source.metadata() or {}).get(f"memsim.{kind}", "null"))
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"`{kind}` {path} is truncated or no {kind} file: {error}.") from error
    if description is None:
        raise ValueError(f"`{kind}` {path} was not saved by memsim as a {kind}.")
    return tensors, description
