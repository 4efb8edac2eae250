"""The options of a sweep: one record, checked before any work."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from memsim.cli.made_by import versions
from memsim.config import Encoding
from training import options
from training.models.language import LANGUAGE_MODELS
from training.sweep.combinations import (
    Combination,
    list_combinations,
    list_configs,
    list_policies,
)

# What is on record beside the options: found when the network is opened.
FOUND = ("task", "platform", "weights", "images", "chunk")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes(options.Options):
    """The processes of a sweep on several hosts, and which of them this one is."""

    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of process 0, where there are several")
    ] = None
    processes: Annotated[int | None, typer.Option(min=1, help="number of processes")] = None
    process: Annotated[int | None, typer.Option(min=0, help="number of this process")] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(Processes, options.WritingOptions, options.ReadOptions, options.TaskOptions):
    """The options of `python -m training.sweep`."""

    batch: options.BatchSize = 250
    bits: Annotated[
        list[int], typer.Option(help="bits of a weight, its sign included; repeatable")
    ] = dataclasses.field(default_factory=lambda: [8])
    rows: Annotated[list[int], typer.Option(help="rows of a crossbar; repeatable")] = (
        dataclasses.field(default_factory=lambda: [128])
    )
    columns: Annotated[
        list[int] | None,
        typer.Option(help="bit lines of a crossbar; one word without it; repeatable"),
    ] = None
    encoding: Annotated[
        list[str], typer.Option(help="encoding of a weight, see `memsim report`; repeatable")
    ] = dataclasses.field(default_factory=lambda: ["twos_complement"])
    policy: Annotated[
        list[str], typer.Option(help="policy, as `memsim report` takes it; repeatable")
    ] = dataclasses.field(default_factory=lambda: ["unsorted", "sws"])
    p: Annotated[
        list[float] | None,
        typer.Option(help="share of low cells reprogrammed, with --low; repeatable"),
    ] = None
    low: Annotated[
        list[int] | None, typer.Option(help="low columns, with --p; 0: none; repeatable")
    ] = None
    tolerance: Annotated[
        list[int] | None, typer.Option(help="tolerance of policies that take one; repeatable")
    ] = None
    stuck_at: Annotated[
        list[float], typer.Option(help="share of cells stuck, half at each level; repeatable")
    ] = dataclasses.field(default_factory=lambda: [0.0])
    chips: Annotated[int, typer.Option(min=1, help="chips of each combination")] = 100
    crossbars: options.Crossbars = 1
    passes: options.Passes = 1
    seed: options.Seed = 0
    yield_at: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="accuracy of a chip that counts, share of 1; default: the float network's - 0.01",
        ),
    ] = None
    chunk: Annotated[
        int | None, typer.Option(min=1, help="chips on a device at once; default: by --memory")
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GB that the process may hold on a CPU, or take of each other device; sizes the "
            "chunk; default: no limit, chunks of at most 1 GB on a CPU, else of 80 % of the device",
        ),
    ] = None
    out: options.OutFolder = Path("runs/sweep")
    force: options.StartAfresh = False
    dry_run: options.DryRun = False

    @property
    def trains(self) -> bool:
        """Says whether the digits CNN is trained on the spot."""
        return not (self.model or self.weights or self.data or self.assets)

    @property
    def memory_limit(self) -> int | None:
        """The limit of memory in bytes; None where there is none."""
        return None if self.memory is None else int(self.memory * 1e9)

    def combinations(self) -> list[Combination]:
        """Lists the combinations that are measured.

        Raises:
          ValueError: options that do not go together.
        """
        configs = list_configs(
            self.bits,
            self.rows,
            cast(list[Encoding], self.encoding),
            self.crossbars,
            self.columns or (None,),
        )
        wanted = list_policies(self.policy, self.p or (), self.low or (), self.tolerance or ())
        for config in configs:
            self.read_writing(config)
        return list_combinations(configs, wanted, self.stuck_at, self.readout(), self.writing)

    def on_record(self) -> dict[str, Any]:
        """Returns what results depend on, but the network and the images themselves."""
        network = [field.name for field in dataclasses.fields(options.TaskOptions)]
        processes = [field.name for field in dataclasses.fields(Processes)]
        aside = (*network, *processes, "yield_at", "memory", "out", "force", "dry_run")
        chosen = options.as_json(self, leave_out=aside)
        if self.chunk is None:
            del chosen["chunk"]
        return chosen | versions()

    def found_later(self) -> tuple[str, ...]:
        """Names what is on record beside `on_record`."""
        return tuple(name for name in FOUND if name != "chunk" or self.chunk is None)


def check_options(chosen: SweepOptions) -> None:
    """Checks which options go with which, as far as the combinations do not.

    Raises:
      ValueError: options that do not go together.
    """
    if chosen.coordinator is None and (chosen.processes, chosen.process) != (None, None):
        raise ValueError("`--processes` and `--process` need `--coordinator`, HOST:PORT.")
    if chosen.model in LANGUAGE_MODELS:
        raise ValueError(
            f"`--model` is {chosen.model!r}, and a sweep counts the images that chips get right; "
            "use training.reproduce or training.finetune."
        )
    weights, out = chosen.weights, chosen.out.resolve()
    if chosen.force and weights and Path(weights).resolve().parent == out and not chosen.dry_run:
        raise ValueError(
            f"`--force` would remove what is in {chosen.out}, and `--weights` {weights} with it; "
            "choose another --out."
        )
