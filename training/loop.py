"""A training loop that, once killed, goes on to the same bits."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp
import rich.progress
from jaxtyping import Array

from memsim.files.writing import write_text
from training.data import Batch

State = TypeVar("State")
METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints"


def run(
    step: Callable[[int, State, Batch], tuple[State, Mapping[str, float | Array]]],
    state: State,
    batches: Callable[[int], Iterator[Batch]],
    steps: int,
    *,
    folder: Path,
    save_every: int,
    log_every: int,
    description: str,
    bar: rich.progress.Progress,
) -> State:
    """Trains to the end, from the last checkpoint in `folder` if there is one.

    Every `log_every` steps and at the end a line of metrics goes to `metrics.jsonl`; every
    `save_every` steps and at the end the state goes to `checkpoints`, of which the last two are
    kept.

    Args:
      step: `(number, state, batch) -> (state, metrics)`; a function of these alone, so that a run
        that goes on does the same.
      state: any pytree of arrays; as it starts.
      batches: `start -> batches`, the first of which is number `start`.
      description: of the progress bar.
    """
    leaves, structure = jax.tree.flatten(state)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with ocp.CheckpointManager((folder / CHECKPOINTS).absolute(), options=options) as manager:
        start = manager.latest_step() or 0
        if start:
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"leaves": leaves})
            restored = manager.restore(start, args=ocp.args.StandardRestore(like))
            state = jax.tree.unflatten(structure, restored["leaves"])
        progress = bar.add_task(description, total=steps, completed=start)
        ahead = batches(start)
        with _reopen(folder / METRICS, start) as log:
            for number in range(start, steps):
                state, metrics = step(number, state, next(ahead))
                done = number + 1
                if done % log_every == 0 or done == steps:
                    figures = {name: float(value) for name, value in metrics.items()}
                    print(json.dumps({"step": done, **figures}), file=log, flush=True)
                if done % save_every == 0 or done == steps:
                    saved = {"leaves": jax.tree.leaves(state)}
                    manager.save(done, args=ocp.args.StandardSave(saved))
                bar.advance(progress)
    return state


def _reopen(path: Path, start: int):  # type: ignore[no-untyped-def]
    """The metrics up to step `start`, open to append; a line cut short by a kill is left out."""
    lines = path.read_text().splitlines(keepends=True) if start and path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole if json.loads(line)["step"] <= start]
    write_text(path, "".join(kept), force=True)
    return path.open("a")
