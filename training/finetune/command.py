"""The command of fine-tuning: what is checked first, what is on record, what goes on."""

import hashlib

import typer

from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from training import runs
from training.finetune.job import fine_tune
from training.finetune.report import describe, save, show
from training.finetune.settings import FinetuneOptions, check_options
from training.models.language import LANGUAGE_MODELS
from training.options import on_hardware
from training.progress import progress_bar
from training.tasks import choose_task, measure_float

SETTINGS = "finetune.json"


@with_options(FinetuneOptions)
def main(chosen: FinetuneOptions) -> None:
    """Fine-tune a network for the chips that it is programmed onto."""
    out, force, record = chosen.out, chosen.force, chosen.out / SETTINGS
    chosen = on_hardware(chosen)
    config, policy = check_options(chosen)
    open_chosen = choose_task(
        chosen, chosen.test_batch, chosen.images_to_learn, chosen.train_split, chosen.epochs
    )
    if not chosen.dry_run:
        runs.check_results(out, "report.json", force, goes_on=record.is_file())
    if not force:
        runs.check_settings(record, chosen.on_record(), later=chosen.digests())
    if chosen.dry_run:
        show_plan(chosen)
        return
    if force:
        runs.start_afresh(out, (runs.CHECKPOINTS, runs.METRICS, "report.json"), SETTINGS)
    with progress_bar() as bar:
        task = open_chosen(chosen.seed, bar)
        _, _, fingerprints = measure_float(task)
        if chosen.start:
            fingerprints["start"] = hashlib.sha256(chosen.start.read_bytes()).hexdigest()
        digests = {f"{name}_sha256": digest for name, digest in fingerprints.items()}
        settings = chosen.on_record() | digests
        runs.check_settings(record, settings)  # what is in the files, too
        runs.write_settings(record, settings)
        outcome = fine_tune(task, config, policy, chosen, bar)
    document = describe(task.name, config, policy, settings, outcome)
    document["made_by"] = how_made("python -m training.finetune", chosen)
    save(out, config, document, outcome)
    show(chosen, document, outcome)


def show_plan(chosen: FinetuneOptions) -> None:
    """Prints what a run would do."""
    start = 0 if chosen.force else runs.last_checkpoint(chosen.out)
    if chosen.robust:
        what = f"one network, another chip every step; tested on {chosen.chips} chips unseen"
    else:
        what = f"a network for each of {chosen.chips} chips, {chosen.group} in one vmap"
    refreshed = f"made afresh every {chosen.refresh} steps" if chosen.refresh else "made once"
    examples = "windows" if chosen.model in LANGUAGE_MODELS else "images"
    width = f"{chosen.columns} columns" if chosen.columns else "one word wide"
    lines = {
        "network": chosen.model or ("resnet20" if chosen.assets else "digits CNN"),
        "policy": chosen.policy,
        "crossbars": f"{chosen.crossbars} of {chosen.rows} rows, "
        f"{width}, {chosen.bits} bits, "
        f"{100 * chosen.stuck_at:g} % of cells stuck",
        "read": f"{chosen.cells} cells after {chosen.seconds:g} s, wires of {chosen.ohm:g} ohm "
        "from cell to cell",
        "written": chosen.writing or "no write fails",
        "fine-tuning": what,
        "steps": f"{start} to {chosen.steps} of {chosen.batch} {examples} each",
        "plan": refreshed,
        "results": f"{chosen.out}/",
    }
    for name, line in lines.items():
        typer.echo(f"{name:12} {line}")
