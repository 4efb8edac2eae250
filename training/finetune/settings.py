"""The options of fine-tuning: one record, checked before any work."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

import memsim
from memsim.cli.made_by import versions
from training import options, policies


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneOptions(options.WritingOptions, options.ReadOptions, options.LearningOptions):
    """The options of `python -m training.finetune`."""

    start: Annotated[
        Path | None, typer.Option(help="weights to go on from, as an earlier run left them")
    ] = None
    policy: Annotated[str, typer.Option(help="how chips are programmed")] = "sws+stuck:p=0.5,low=4"
    robust: Annotated[
        bool, typer.Option("--robust", help="tune one network for chips unseen, not one per chip")
    ] = False
    chips: Annotated[
        int, typer.Option(min=1, help="chips to tune for; with --robust, to test on")
    ] = 32
    chips_at_once: Annotated[
        int | None,
        typer.Option(
            min=1, help="chips tuned in one vmap; by default all, or 1 for a --model on a CPU"
        ),
    ] = None
    crossbars: options.Crossbars = 16
    rows: options.Rows = 128
    columns: options.Columns = None
    bits: options.Bits = 8
    stuck_at: options.StuckAt = 0.03
    steps: Annotated[int, typer.Option(min=1, help="steps of fine-tuning")] = 300
    batch: Annotated[int, typer.Option(min=1, help="images, or windows of a text, per step")] = 64
    learning_rate: Annotated[float, typer.Option(help="learning rate of Adam at its peak")] = 3e-3
    warmup: Annotated[
        int, typer.Option(min=0, help="steps up to the peak; a cosine leads down to 0 after it")
    ] = 0
    refresh: Annotated[
        int, typer.Option(min=0, help="plan afresh every so many steps; 0: never")
    ] = 0
    write_price: Annotated[
        float, typer.Option(min=0, help="loss that one write per weight counts as")
    ] = 0.0
    write_width: Annotated[
        float, typer.Option(min=1, help="codes that weights are dithered by to foresee writes")
    ] = 1.0
    epochs: options.Epochs = 40
    seed: options.Seed = 0
    save_every: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = 100
    log_every: Annotated[int, typer.Option(min=1, help="steps between lines of metrics")] = 10
    out: options.OutFolder = Path("runs/finetune")
    force: options.StartAfresh = False
    dry_run: options.DryRun = False

    @property
    def group(self) -> int:
        """Chips tuned in one `vmap`."""
        # a CPU is slow where a convolution has a kernel for every chip
        one_by_one = jax.default_backend() == "cpu" and (self.model or self.assets)
        return self.chips_at_once or (1 if one_by_one else self.chips)

    def on_record(self) -> dict[str, Any]:
        """Returns what results depend on, as JSON values; the files themselves have digests."""
        aside = ("data_dir", "test_batch", "out", "force", "dry_run")
        chosen = options.as_json(self, leave_out=aside)
        return chosen | {"chips_at_once": self.group} | versions()

    def digests(self) -> tuple[str, ...]:
        """Names of the digests that go on record beside the options."""
        files = ("weights", "images", *(["start"] if self.start else []))
        return tuple(f"{file}_sha256" for file in files)


def check_options(chosen: FinetuneOptions) -> tuple[memsim.CrossbarConfig, memsim.Policy]:
    """Checks which options go with which, and returns the crossbars and the policy.

    Raises:
      ValueError: options that do not go together.
    """
    chosen.check_examples()
    chosen.readout()
    if chosen.warmup >= chosen.steps:
        raise ValueError(
            f"`--warmup` is {chosen.warmup}; it ends before the {chosen.steps} `--steps` do."
        )
    config = memsim.CrossbarConfig(
        crossbars=chosen.crossbars, rows=chosen.rows, columns=chosen.columns, bits=chosen.bits
    )
    chosen.read_writing(config)
    policy = memsim.Policy.parse(chosen.policy)
    policy.check(policy.stored_on(config))
    policies.check_trainable(chosen.policy, policy)
    if chosen.robust and chosen.chips_at_once:
        raise ValueError(
            "`--chips-at-once` goes with a network for each chip; leave it out of `--robust`."
        )
    if chosen.start and not chosen.start.is_file():
        raise ValueError(f"`--start` {chosen.start} is not a file; check the path.")
    if chosen.robust and policy.avoids_faults:
        raise ValueError("`--robust` is for chips unseen; `faults=avoid` needs to know its chip.")
    return config, policy
