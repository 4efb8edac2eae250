"""Folders of jobs: what one leaves there, and how one that was killed goes on.

The settings of a job are on record, so that it goes on only as it was started; its results appear
whole or not at all, the JSON last; a training loop goes on from its last checkpoint to the same
bits. What a sweep leaves on the way are parts, see `training.sweep.parts`.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import jax
import orbax.checkpoint as ocp
import rich.progress
from jaxtyping import Array
from matplotlib.figure import Figure

import memsim
from memsim import plot
from memsim.files.writing import check_output, write_text
from training.data import Batch

State = TypeVar("State")
METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints"
_AFRESH = "use --force to start afresh"


# --- settings


def read_settings(path: Path) -> dict[str, Any]:
    """Reads the settings on record, empty if there are none.

    Raises:
      ValueError: a file that does not hold any.
    """
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or not settings:
        raise ValueError(f"`{path}` holds no settings; {_AFRESH}.")
    return settings


def check_settings(path: Path, settings: Mapping[str, Any], later: Sequence[str] = ()) -> None:
    """Checks that the job on record, if there is one, can go on with these settings.

    Args:
      later: names of settings that are on record too, but not known yet.

    Raises:
      ValueError: it was started with others, or the record lacks some or holds unknown ones.
    """
    old, new = read_settings(path), json.loads(json.dumps(settings))
    if not old:
        return
    for name in (*new, *later):
        if name not in old:
            raise ValueError(f"`{path}` lacks `{name}`; {_AFRESH}.")
    for name in new:
        # 1, 1.0 and true are equal in Python, but not one option
        if json.dumps(old[name]) != json.dumps(new[name]):
            raise ValueError(
                f"`{path.parent}` holds a job with {name} {_short(old[name])}, not "
                f"{_short(new[name])}; go on with the same options, choose another --out, or "
                f"{_AFRESH} (the settings are in {path.name})."
            )
    for name in old:
        if name not in new and name not in later:
            raise ValueError(
                f"`{path}` has `{name}` {_short(old[name])}, which this job does not know; "
                f"{_AFRESH}."
            )


def recorded_count(path: Path, name: str, most: int) -> int | None:
    """Reads a setting on record that is a whole number from 1 to `most`; None without a record.

    Raises:
      ValueError: it is missing, or no such number.
    """
    settings = read_settings(path)
    if not settings:
        return None
    value = settings.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(
            f"`{path}` has `{name}` {_short(value)}, not a whole number from 1 to {most}; "
            f"{_AFRESH}."
        )
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Puts settings on record."""
    write_text(path, json.dumps(settings, indent=1), force=True)


def start_afresh(out: Path, patterns: Sequence[str], settings: str) -> None:
    """Removes what an earlier job left in its folder.

    Args:
      patterns: names of its files and folders, `*` standing for anything.
      settings: name of the file of its settings, which goes last: as long as it is there, the rest
        may be its own.
    """
    for pattern in patterns:
        for path in sorted(out.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    (out / settings).unlink(missing_ok=True)


# --- results


def check_file(out: Path, force: bool) -> None:
    """Makes the folder of a results file, and checks before long work that it may be written.

    Raises:
      OSError: see `memsim.files.writing.check_output`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    check_output(out, force)


def check_results(out: Path, name: str, force: bool, goes_on: bool = False) -> None:
    """Makes the folder, and checks before long work that earlier results may be replaced.

    Args:
      name: of the JSON file.
      goes_on: whether a job that was killed may have left its page, but not yet the JSON.

    Raises:
      OSError: see `memsim.files.writing.check_output`.
    """
    for file in (name, *([] if goes_on else ["report.html"])):
        check_file(out / file, force)


def write_document(path: Path, document: Mapping[str, Any], force: bool = True) -> None:
    """Writes the JSON of a job, whole or not at all."""
    write_text(path, json.dumps(document, indent=1), force=force)


def write_charts(
    out: Path,
    figures: Mapping[str, Figure],
    made_by: Mapping[str, Any],
    kinds: Sequence[str] = ("png",),
) -> None:
    """Writes figures by the name of their file, in files of each kind, with how they were made."""
    for file, figure in figures.items():
        for kind in kinds:
            plot.save_chart(out / f"{file}.{kind}", figure, made_by, force=True)


def write_results(
    out: Path,
    name: str,
    document: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, float]],
    figures: Mapping[str, Figure],
    pictures: Mapping[str, str],
    kinds: Sequence[str] = ("png",),
) -> None:
    """Writes charts, `report.html` and the JSON.

    Args:
      out: the folder.
      name: of the JSON file.
      document: the report, see `memsim.report.to_json`, with how it was made.
      scores: for the page, `accuracy` in shares of 1 or `perplexity`, each by what it is of.
      figures: by the name of their file.
      pictures: those of them on the page: names by title.
      kinds: of the files.
    """
    write_charts(out, figures, document["made_by"], kinds)
    drawn = {title: plot.to_svg(figures[file]) for title, file in pictures.items()}
    page = memsim.report.to_html(document, pictures=drawn, **scores)
    write_text(out / "report.html", page, force=True)
    write_document(out / name, document)


# --- a training loop


def run_steps(
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

    Raises:
      ValueError: a checkpoint or metrics that cannot be read.
    """
    leaves, structure = jax.tree.flatten(state)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with ocp.CheckpointManager((folder / CHECKPOINTS).absolute(), options=options) as manager:
        start = manager.latest_step() or 0
        if start:
            state = jax.tree.unflatten(structure, _restore(manager, start, leaves, folder))
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


def last_checkpoint(folder: Path) -> int:
    """Returns the step of the last checkpoint; 0 without any."""
    names = (path.name for path in (folder / CHECKPOINTS).glob("[0-9]*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _restore(
    manager: ocp.CheckpointManager, step: int, leaves: list[Array], folder: Path
) -> list[Array]:
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"leaves": leaves})
    try:
        restored = manager.restore(step, args=ocp.args.StandardRestore(like))
    except Exception as error:  # orbax has no error of its own for a broken checkpoint
        raise ValueError(
            f"`{folder / CHECKPOINTS / str(step)}` cannot be read ({type(error).__name__}); remove "
            f"it to go on from the one before, or {_AFRESH}."
        ) from error
    return list(restored["leaves"])


def _reopen(path: Path, start: int) -> IO[str]:
    """Opens the metrics up to step `start` to append; leaves out a line cut short by a kill."""
    lines = path.read_text().splitlines(keepends=True) if start and path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    try:
        kept = [line for line in whole if json.loads(line)["step"] <= start]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` holds a line that is no metrics; {_AFRESH}.") from error
    write_text(path, "".join(kept), force=True)
    return path.open("a")
