"""`--evaluate` of `memsim report`: a function of the user says how good held weights are."""

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import typer

from memsim.cli import options
from memsim.cli.encoding_options import Row
from memsim.cli.failures import JudgeError
from memsim.files.checkpoints import Checkpoint
from memsim.files.raw import RawTensor
from memsim.intervals import confidence_interval
from memsim.network import program, sample_chip
from memsim.planning import plan
from memsim.policies import Unsorted, chips_differ
from memsim.selection import tensor_name

__all__ = ["EvaluateOption", "Evaluation", "load_function"]

_EXAMPLE = "evaluate:resnet20 for the function resnet20 of evaluate.py in this folder"


class Evaluation(NamedTuple):
    """The numbers that a function returned.

    Attributes:
      function: its name, as typed.
      checkpoint: of the weights of the checkpoint itself.
      policies: of the weights that each chip holds, by the row of the report; a single number where
        all chips hold the same.
    """

    function: str
    checkpoint: float
    policies: dict[str, list[float]]

    def add_to(self, document: dict[str, Any]) -> None:
        """Adds them to the JSON of a report."""
        document["evaluation"] = {"function": self.function, "checkpoint": self.checkpoint}
        for row, values in self.policies.items():
            document["policies"][row]["evaluation"] = {
                "mean": sum(values) / len(values),
                "interval": confidence_interval(values) if len(values) > 1 else None,
                "per_chip": values,
            }


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOption(options.SeedOption, options.WritingOption, options.FaultOptions):
    """The function that says how good weights are, and the options that held weights depend on."""

    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="how good the weights are that chips hold under each policy: a function of this "
            "folder, or an installed one, of {name: array} that returns a number, such as the "
            "accuracy",
            rich_help_panel=options.POLICY,
        ),
    ] = None

    def start_evaluation(self, source: Checkpoint) -> Evaluation | None:
        """Loads the function and calls it with the checkpoint; None where there is none.

        Raises:
          ValueError: no such function; it returned no finite number.
          JudgeError: it failed.
        """
        if self.evaluate is None:
            return None
        load_function(self.evaluate)  # before anything is read
        tensors = {name: source.load(name) for name in source.tensors}
        return Evaluation(self.evaluate, _number(self.evaluate, tensors, "the checkpoint"), {})

    def evaluate_rows(
        self,
        begun: Evaluation,
        source: Checkpoint,
        rows: Mapping[str, Row],
        select: Any,
        chips: int,
        passes: int,
        tell: Callable[[float | None, str], None],
    ) -> Evaluation:
        """Programs the network under every row of a report, and calls the function.

        Args:
          begun: what `start_evaluation` gave.
          source: the checkpoint.
          rows: of the report, by name.
          select: of `plan`.
          chips, passes: how many.
          tell: says how far it is, and with what.
        """
        tensors = {name: source.load(name) for name in source.tensors}
        # JAX would make float32 of float64 tensors
        double = any(tensor.dtype == np.float64 for tensor in source.tensors.values())
        found = {}
        with jax.enable_x64(double):
            for number, (name, row) in enumerate(rows.items()):
                tell(number / len(rows), f"evaluating {name}")
                found[name] = [
                    _number(begun.function, held, name)
                    for held in self._held(tensors, row, select, chips, passes)
                ]
        return begun._replace(policies=found)

    def _held(
        self,
        tensors: Mapping[str, np.ndarray | RawTensor],
        row: Row,
        select: Any,
        chips: int,
        passes: int,
    ) -> Iterator[dict[str, Any]]:
        """Gives the tensors that each chip of `memsim report` holds; one where they are alike."""
        policy, writing = row.policy, self.read_writing(row.config)
        # the draws of the report: chips have the same keys
        keys = jax.random.split(jax.random.key(self.seed), chips)
        rates = (self.stuck_at_0, self.stuck_at_1)
        differ = chips_differ(policy.stucking, *rates, writing=writing)
        # stuck cells are avoided once there is a chip: a plain plan has as many crossbars
        plain = Unsorted() if policy.avoids_faults else policy
        made = plan(tensors, row.config, plain, select=select)
        for key in keys if differ else keys[:1]:
            chip = options.chip_of_files(key, None, self.faults, made)
            chip = chip or sample_chip(key, made, *rates)
            if policy.avoids_faults:
                made = plan(tensors, row.config, policy, select=select, chip=chip)
            # a stacked tensor has a layer for each of its matrices
            read = {tensor_name(name, layer.matrix) for name, layer in made.layers.items()}
            mapped = {name: jnp.asarray(tensors[name]) for name in tensors if name in read}
            held, _ = program(mapped, made, chip, passes=passes, writing=writing)
            yield {**tensors, **{name: np.asarray(tensor) for name, tensor in held.items()}}


def load_function(text: str) -> Callable[..., Any]:
    """Loads the function that `module:function` names, from the present folder too."""
    module, _, name = text.partition(":")
    try:
        with options.here_first():
            function = getattr(importlib.import_module(module), name)
        if not callable(function):
            raise ValueError(f"{name} is {type(function).__name__}")
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`--evaluate` {text} is no MODULE:FUNCTION ({error}); give one such as {_EXAMPLE}."
        ) from error
    except Exception as error:
        raise JudgeError(f"`--evaluate` {text}: its module failed.") from error
    return cast(Callable[..., Any], function)


def _number(text: str, tensors: Mapping[str, Any], whose: str) -> float:
    """Calls the function; what it raises is its own, and shown with its lines."""
    # arrays of its own: what it changes is not what the next policy is programmed from
    own = {
        name: np.array(tensor) if isinstance(tensor, np.ndarray) else tensor
        for name, tensor in tensors.items()
    }
    try:
        value = load_function(text)(own)
    except JudgeError:
        raise
    except Exception as error:
        raise JudgeError(f"`--evaluate` {text} failed.") from error
    # scalars of NumPy, JAX and torch are numbers too; a text or a truth value is a mistake
    kind = type(value).__name__
    scalar = getattr(value, "shape", ()) == () and not isinstance(value, (str, bool, np.bool_))
    try:
        number = float(value) if scalar else None
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ValueError(
            f"`--evaluate` {text} returned {kind} {str(value)[:40]!r} of the weights of {whose}; "
            "return one number, such as the share of examples that are right."
        )
    if not math.isfinite(number):
        raise ValueError(
            f"`--evaluate` {text} returned {number} of the weights of {whose}; return a finite "
            "number."
        )
    return number
