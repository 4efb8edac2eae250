"""The command of co-design: what is checked first, what is on record, what goes on."""

from memsim.cli.made_by import how_made
from memsim.cli.records import with_options
from training import runs
from training.codesign.job import run_rounds
from training.codesign.report import describe, save, show
from training.codesign.settings import CodesignOptions, check_options
from training.options import on_hardware
from training.progress import progress_bar
from training.tasks import choose_task, fingerprint, load_like, measure_float

SETTINGS = "settings.json"


@with_options(CodesignOptions)
def main(chosen: CodesignOptions) -> None:
    """Train a network to resemble what the crossbars hold already."""
    chosen.check_crossbars()
    chosen = on_hardware(chosen)
    out, force, record = chosen.out, chosen.force, chosen.out / SETTINGS
    config, policy = check_options(chosen)
    open_chosen = choose_task(chosen, chosen.test_batch, chosen.images_to_learn, chosen.train_split)
    runs.check_results(out, "codesign.json", force, goes_on=record.is_file())
    files = ("weights_sha256", "images_sha256", *(["from_sha256"] if chosen.old else []))
    if force:
        runs.start_afresh(out, (runs.CHECKPOINTS, runs.METRICS, "codesign.json"), SETTINGS)
    runs.check_settings(record, chosen.on_record(), later=files)
    with progress_bar() as bar:
        task = open_chosen(chosen.seed, bar)
        old = load_like("from", chosen.old, task.params) if chosen.old else None
        _, _, fingerprints = measure_float(task)
        if old is not None:
            fingerprints["from"] = fingerprint(old)
        digests = {f"{name}_sha256": digest for name, digest in fingerprints.items()}
        settings = chosen.on_record() | digests
        runs.check_settings(record, settings)  # what is in the files, too
        runs.write_settings(record, settings)
        outcome = run_rounds(task, config, policy, chosen, chosen.priced(config), bar, old)
    document = describe(task, settings, outcome)
    document["made_by"] = how_made("python -m training.codesign", chosen)
    save(out, task, policy, document, outcome)
    show(out, document, task.score, outcome)
    if outcome.kept is None:
        raise ValueError(
            f"`--max-drop` is {chosen.max_drop:g}, but every round loses more on the examples that "
            "choose: no network is kept. Lower the prices, train for more steps, or allow more."
        )
