"""Plans of memsim 0.1: their description has no format, and does not list the parts of layers."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from memsim.config import CrossbarConfig
from memsim.files.own import check_keys, read_record
from memsim.selection import Matrix

# what a config of 0.1 has; what came later is at its default there
CONFIG = frozenset(
    ("rows", "bits", "cell_bits", "encoding", "crossbars", "schedule", "scale_per", "flags")
)
# and what it tells of a placement
PLACEMENT = ("weights", "used_rows")


def read_entry(number: int, entry: object) -> tuple[str, Matrix]:
    """Reads the name and the matrix that a description of 0.1 has of one layer.

    Raises:
      ValueError: it is not that of a layer.
    """
    what = f"layer {number} of its description"
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is no JSON object")
    sizes = ("inputs", "outputs")
    check_keys(what, entry, ("name", "shape", "axes", *sizes))
    name: Any = entry["name"]
    if not isinstance(name, str):
        raise ValueError(f"{what} has a name that is no text")
    # fields that a matrix got later are at their defaults
    fields = {field.name for field in dataclasses.fields(Matrix)}
    flat = {field: x for field, x in entry.items() if field != "name" and field in fields}
    matrix = read_record(Matrix, flat, what, fields - set(flat))
    # where a matrix works its sizes out of its shape, those of the file must agree
    if [entry[size] for size in sizes] != [getattr(matrix, size) for size in sizes]:
        raise ValueError(f"{what} has other inputs and outputs than its shape")
    return name, matrix


def check_optional(
    there: Collection[str], matrix: Matrix, index_bits: np.ndarray, config: CrossbarConfig
) -> None:
    """Checks which optional parts a layer has: its index bits tell its policy, and that the parts.

    Args:
      there: optional parts that the file has of the layer.
      index_bits: of the layer.

    Raises:
      ValueError: parts that no policy of 0.1 with these index bits has.
    """
    inputs, outputs = matrix.inputs, matrix.outputs
    order = (outputs - 1).bit_length()  # of the outputs, once for each
    pools = [(pool - 1).bit_length() for pool in (inputs, min(config.rows, inputs))]
    policies: list[tuple[float, set[str]]] = [
        (0, set()),  # unsorted
        ((inputs - 1).bit_length(), set()),  # sws
        ((inputs * outputs - 1).bit_length(), set()),  # sws-layer
        ((config.bits + 1) / (inputs * outputs), {"offset"}),  # aras
        *((bits + order / inputs, {"delta"}) for bits in pools),  # matched
        *((bits + (order + 16) / inputs, {"delta", "correction"}) for bits in pools),
    ]
    # flag cells are of flip-n-write alone
    if config.flags != "none":
        policies = [(float(index_bits), {"flips"})]
    possible = [parts for bits, parts in policies if np.float32(bits) == index_bits]
    if set(there) not in possible:
        raise ValueError(
            f"it has {', '.join(sorted(there)) or 'no optional part'}, but no policy with "
            f"{index_bits} index bits a weight stores that"
        )
