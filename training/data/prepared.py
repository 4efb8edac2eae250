"""Sets of TensorFlow Datasets, read without TensorFlow."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Prepared(NamedTuple):
    """A split of a prepared data set.

    Attributes:
      examples: read when asked for.
      features: of an example, by name.
    """

    examples: Sequence[dict[str, Any]]
    features: dict[str, Any]


def open_prepared(
    name: str,
    split: str | None,
    data_dir: str | None,
    *,
    fits: Callable[[Mapping[str, Any]], bool],
    wanted: str,
    defaults: Sequence[str],
) -> Prepared:
    """Opens a split of a set of TensorFlow Datasets.

    Args:
      name: of the set.
      split: such as `validation[:5000]`; None for the first of `defaults` that there is, or the
        last.
      data_dir: where sets are prepared, by default their own place.
      fits: whether a set with these features will do.
      wanted: such a set in words, for the error.
      defaults: names of splits.

    Raises:
      FileNotFoundError: a set that is not prepared (the message says how to).
      ValueError: an unknown set or split, or one of other features.
    """
    import tensorflow_datasets as tfds  # slow to import

    unknown = (
        f"`data` is {name!r}, which is no file and no set (or version) of TensorFlow Datasets "
        "that can be read without TensorFlow; see https://www.tensorflow.org/datasets/catalog."
    )
    if not re.fullmatch(r"[a-z0-9_]+(/[\w.+-]+)?(:[0-9.*]+)?", name):
        raise ValueError(unknown)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, AssertionError, ImportError) as error:
        raise ValueError(unknown) from error
    features = dict(builder.info.features)
    if not fits(features):
        raise ValueError(f"`data` {name} gives {', '.join(features)}; choose a set of {wanted}.")
    there = [one for one in defaults if one in builder.info.splits]
    try:
        examples = builder.as_data_source(split=split or [*there, defaults[-1]][0])
    except NotImplementedError as error:  # not prepared, or in a format without random access
        raise FileNotFoundError(_how_to_prepare(builder, name, data_dir)) from error
    return Prepared(examples, features)


def _how_to_prepare(builder: Any, name: str, data_dir: str | None) -> str:
    root = data_dir or str(builder.data_dir_root)
    if builder.is_prepared():
        state = f"is prepared as {builder.info.file_format.value}, which has no random access"
        data_dir = os.path.join(root, "array_record")
    else:
        state = "is not prepared"
    given = f"data_dir={data_dir!r}, " if data_dir else ""
    lines = [
        f"`data` {name} {state} in {root}; prepare it with",
        "  pip install tensorflow importlib_resources",
        '  python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, {given}file_format='array_record').download_and_prepare()\"",
    ]
    if data_dir:
        lines.append(f"and give --data-dir {data_dir}")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = os.path.join(data_dir or root, "downloads", "manual")
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        lines.append(f"after fetching its files into manual_dir {manual}: {instructions}")
    return "\n".join(lines)
