"""Selection of weight matrices: which tensors they are, their names, their axes of outputs."""

from memsim.selection.choosing import (
    ByName,
    Rule,
    Select,
    Selected,
    reading_of,
    select_by_name,
    select_layers,
    with_layouts,
)
from memsim.selection.layouts import LAYOUTS, Word, describe, layout_of, read_layout
from memsim.selection.matrices import (
    Matrix,
    Reading,
    by_output,
    from_output,
    from_slices,
    matrix_name,
    slice_of,
    slices,
    tensor_name,
)
from memsim.selection.names import (
    in_natural_order,
    is_floating,
    leaf_name,
    named_leaves,
    natural_key,
)

__all__ = [
    "LAYOUTS",
    "ByName",
    "Matrix",
    "Reading",
    "Rule",
    "Select",
    "Selected",
    "Word",
    "by_output",
    "describe",
    "from_output",
    "from_slices",
    "in_natural_order",
    "is_floating",
    "layout_of",
    "leaf_name",
    "matrix_name",
    "named_leaves",
    "natural_key",
    "read_layout",
    "reading_of",
    "select_by_name",
    "select_layers",
    "slice_of",
    "slices",
    "tensor_name",
    "with_layouts",
]
