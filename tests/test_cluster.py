"""Launches on a cluster: the files parse, and the commands in them are those of the documents."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from training import sweep

DOCS = Path(__file__).parents[1] / "docs"
SLURM, KUBERNETES = DOCS / "cluster" / "slurm.sh", DOCS / "cluster" / "kubernetes.yaml"


def parsed(words):
    """The options of `python -m training.sweep ...`, as its own parser reads them."""
    assert words[:3] == ["python", "-m", "training.sweep"]
    app = typer.Typer()
    app.command()(sweep.main)
    with typer.main.get_command(app).make_context("sweep", list(words[3:])) as context:
        source = {name: context.get_parameter_source(name).name for name in context.params}
        return {name: x for name, x in context.params.items() if source[name] == "COMMANDLINE"}


def started(number, folder):
    """The command that SLURM starts process `number` of 4 with, by running the script."""
    fakes = {
        "scontrol": '#!/bin/sh\necho "$@" > asked\nprintf "node7\\nnode8\\nnode9\\nnode10\\n"\n',
        "srun": '#!/bin/sh\ntest "$1" = --kill-on-bad-exit=1 || exit 1\nshift\nexec "$@"\n',
        "python": '#!/bin/sh\nprintf "%s\\n" python "$@"\n',
    }
    for name, text in fakes.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    told = {"SLURM_JOB_NODELIST": "node[7-10]", "SLURM_NTASKS": "4", "SLURM_PROCID": str(number)}
    done = subprocess.run(
        ["/bin/bash", SLURM, "--policy", "sws", "--policy", "unsorted", "--chips", "10"],
        cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, **told, "PATH": f"{folder}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (folder / "asked").read_text().strip() == "show hostnames node[7-10]"
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", [0, 3])
def test_slurm_starts_the_command_of_the_documents(number, tmp_path):
    options = parsed(started(number, tmp_path))
    assert options == {
        "policy": ["sws", "unsorted"], "chips": 10, "out": Path("runs/sweep"), "memory": 14,
        "coordinator": "node7:12345", "processes": 4, "process": number,
    }  # fmt: skip


def test_slurm_asks_for_what_the_command_takes():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", SLURM.read_text(), re.MULTILINE))
    assert int(asked["nodes"]) > 1
    assert asked["ntasks-per-node"] == "1"
    (memory,) = re.findall(r"--memory (\d+)", SLURM.read_text())
    assert 0 < int(memory) < int(asked["mem"].removesuffix("G"))


def test_kubernetes_starts_the_command_of_the_documents():
    service, job = yaml.safe_load_all(KUBERNETES.read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (told,) = container["env"]
    index = told["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert container["args"][-1] == f"--process=$({told['name']})"
    for number in range(spec["completions"]):
        args = [arg.replace(f"$({told['name']})", str(number)) for arg in container["args"]]
        assert not any("$" in arg for arg in args)
        options = parsed([*container["command"], *args])
        assert options["process"] == number
        assert options["processes"] == spec["completions"] == spec["parallelism"]
    assert spec["completionMode"] == "Indexed"
    # pods of an Indexed Job are called by its name and their index, under the name of the service
    name, port = options["coordinator"].split(":")
    assert name == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True  # before pods are ready
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert [one["port"] for one in service["spec"]["ports"]] == [int(port)]
    assert [one["containerPort"] for one in container["ports"]] == [int(port)]
    limit = container["resources"]["limits"]["memory"]
    assert options["memory"] * 1e9 < int(limit.removesuffix("Gi")) * 2**30
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"]
    assert options["out"].is_relative_to(mount["mountPath"])


def test_the_commands_of_the_page_are_of_the_same_parser():
    page = (DOCS / "hosts.md").read_text()
    lines = re.findall(r"^(python -m training\.sweep .*)$", page, re.MULTILINE)
    numbers = [parsed(shlex.split(line, comments=True))["process"] for line in lines]
    assert numbers == [0, 1]
    for path in (SLURM, KUBERNETES):
        assert f"cluster/{path.name}" in page
