"""The options of co-design: one record, checked before any work."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

import memsim
from memsim.cli.made_by import versions
from memsim.config import Encoding
from training import options

# How far words may be off where places are chosen, in codes, and what a write may make up for.
_TOLERANCE, _MOST_PRICE = 15, 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodesignOptions(options.WritingOptions, options.LearningOptions):
    """The options of `python -m training.codesign`."""

    old: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="OLD",
            help="an older version of the weights, which the crossbars hold, weight stationary; "
            "the network takes its places",
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            help="how weights are placed; a tolerance and a price foresee that they will move",
            show_default=f"matched:tolerance={_TOLERANCE},correction=none,index=order at the "
            "highest price, in wide rows negate=rows too; with --from unsorted",
        ),
    ] = None
    price: Annotated[
        list[float],
        typer.Option(
            help="squared code errors that a write less makes up for; repeatable, a round for each"
        ),
    ] = dataclasses.field(default_factory=lambda: [30.0, 60.0, 100.0])
    steps: Annotated[int, typer.Option(min=1, help="steps of training in each round")] = 150
    words_every: Annotated[
        int, typer.Option(min=1, help="steps after which words are chosen afresh")
    ] = 4
    pull: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="share of the way to its word that a weight is moved then, at the peak of the "
            "learning rate",
        ),
    ] = 0.02
    rows: options.Rows = 128
    columns: options.Columns = 128
    crossbars: Annotated[
        int | None,
        typer.Option(min=1, help="number of crossbars", show_default="16; with --from all"),
    ] = None
    bits: options.Bits = 8
    encoding: options.EncodingName = "sign_magnitude"
    stuck_at: options.StuckAt = 0.0
    chips: Annotated[
        int, typer.Option(min=1, help="chips tested on, where they differ; none is trained for")
    ] = 4
    batch: Annotated[int, typer.Option(min=1, help="images, or windows of a text, per step")] = 64
    learning_rate: Annotated[float, typer.Option(help="learning rate of Adam at its peak")] = 1e-3
    max_drop: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="accuracy that may be lost, a share; of a perplexity added"
        ),
    ] = 0.01
    seed: options.Seed = 0
    save_every: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = 50
    log_every: Annotated[int, typer.Option(min=1, help="steps between lines of metrics")] = 10
    out: options.OutFolder = Path("runs/codesign")
    force: options.StartAfresh = False

    def check_crossbars(self) -> None:
        """Checks that no crossbars were counted that have to be as many as sections.

        Raises:
          ValueError: they were.
        """
        if self.old and self.crossbars is not None:
            raise ValueError(
                f"`--crossbars` is {self.crossbars}, but over the network of `--from` every "
                "section has a crossbar of its own; leave one of them out."
            )

    @property
    def placing(self) -> str:
        """The policy by which weights are placed."""
        if self.policy or self.old:
            return self.policy or "unsorted"
        price = min(max(1, round(max(self.price))), _MOST_PRICE)
        negate = ",negate=rows" if self.config().words_per_row > 1 else ""
        return f"matched:tolerance={_TOLERANCE},price={price},correction=none,index=order{negate}"

    @property
    def chips_differ(self) -> bool:
        """Says whether cells are stuck or writes fail."""
        return self.stuck_at > 0 or self.writing is not None

    @property
    def chips_tested(self) -> int:
        """Chips that are tested on: one where all are alike."""
        return self.chips if self.chips_differ else 1

    @property
    def total(self) -> int:
        """Steps of all rounds."""
        return self.steps * len(self.price)

    def config(self) -> memsim.CrossbarConfig:
        """Returns the crossbars: over an old network as many as it takes."""
        return memsim.CrossbarConfig(
            crossbars=None if self.old else self.crossbars or 16,
            rows=self.rows,
            columns=self.columns,
            bits=self.bits,
            encoding=cast(Encoding, self.encoding),
        )

    def on_record(self) -> dict[str, Any]:
        """Returns what results depend on, as JSON values; the files themselves have digests."""
        aside = ("data_dir", "test_batch", "out", "force")
        return options.as_json(self, leave_out=aside) | versions()


def check_options(chosen: CodesignOptions) -> tuple[memsim.CrossbarConfig, memsim.Policy]:
    """Checks which options go with which, and returns the crossbars and the policy.

    Raises:
      ValueError: options that do not go with each other.
    """
    chosen.check_examples()
    if not chosen.price or not all(price >= 0 for price in chosen.price):
        raise ValueError(f"`--price` is {chosen.price}; give a price from 0 for every round.")
    config, policy = chosen.config(), memsim.Policy.parse(chosen.placing)
    policy.check(policy.stored_on(config))
    chosen.read_writing(config)
    if policy.stucking.low or policy.avoids_faults or not policy.analog_valid(2):
        raise ValueError(f"`--policy` is {chosen.placing}; give matched, sws or unsorted alone.")
    # what cannot be chosen for is refused at once, on a small network
    small = {"kernel": np.random.default_rng(0).laplace(size=(8, 4)).astype(np.float32)}
    memsim.WordChains(memsim.plan(small, config, policy), small if chosen.old else None)
    return config, policy
