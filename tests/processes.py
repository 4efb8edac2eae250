"""Jobs of the command line in processes of their own, to be killed or to run side by side."""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import time

import jax
import typer

MODULES = ("training.sweep", "training.finetune")


def start(module, options, devices=1):
    """Starts a job. A server that has imported everything, and no more, forks it."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(MODULES))
    process = server.Process(
        target=_main, args=(module, [*map(str, options)], devices), daemon=True
    )
    process.start()
    return process


def _main(module, options, devices):
    jax.config.update("jax_num_cpu_devices", devices)
    with open(os.devnull, "w") as nothing:
        sys.stdout = sys.stderr = nothing
        sys.argv = [module, *options]
        typer.run(importlib.import_module(module).main)


def finish(*processes):
    for process in processes:
        process.join(480)
        assert process.exitcode == 0


def kill(again, out, count, kills, moment):
    """Starts a job again and again, and kills it at random moments.

    Args:
      again: starts it, with results in the folder `out`.
      count: of what it has finished.
      moment: seconds that it is left alone at most, after start-up or after something is finished.

    Returns:
      What it had finished at each kill.
    """
    rng, finished = random.Random(kills), []  # noqa: S311
    while len(finished) < kills:
        process = again()
        wanted = count() + rng.choice([0, 0, 1, 1, 2])
        until_killed = rng.uniform(0, moment / 25 if wanted > count() else moment)
        while process.is_alive() and count() < wanted:
            time.sleep(0.001)
        time.sleep(until_killed)
        if process.is_alive():
            process.kill()
            finished.append(count())
        else:  # quicker than we
            shutil.rmtree(out)
        process.join()
    return finished


def figures_of(path):
    """What a file holds; of a report without how it was made, which has its folder and date."""
    if path.suffix == ".json":
        document = json.loads(path.read_text())
        assert document.pop("made_by")["version"]
        return document
    if path.suffix == ".html":
        return path.read_text().partition("<footer>")[0]
    return path.read_bytes()
