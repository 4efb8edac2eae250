"""Text to train and test language models on, as windows of tokens."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int32

from training.data.images import Batch
from training.data.prepared import open_prepared

# Python's own help texts.
HELP = "help"
# Windows are no longer, whatever a model takes.
LONGEST = 2048

Tokenize: TypeAlias = Callable[[str], Int32[np.ndarray, " tokens"]]

# the last tenth is held out
_SPLITS = {"train": slice(0, 9), "test": slice(9, 10), "all": slice(0, 10)}


def read_text(data: str, split: str | None = None, data_dir: str | None = None) -> str:
    """Reads a text, or the part of it that is asked for.

    Args:
      data: a text file, UTF-8; `help`, Python's own help texts, which every machine has; or the
        name of a set of TensorFlow Datasets whose examples have a `text`, such as
        `tiny_shakespeare` or `lm1b`: its examples, a line each.
      split: of a file and of `help`, `train`, `test` (the last tenth, by default) or `all`; else a
        split of the set, by default its test split, or else its validation split.
      data_dir: where TensorFlow Datasets are prepared, by default their own place.

    Raises:
      FileNotFoundError: no such file, or a set that is not prepared (the message says how to).
      ValueError: an unknown set or split, one without `text`, or a file that is no text.

    Example:
      >>> len(read_text("help", "all")) > 100_000
      True
    """
    if data == HELP:
        return _part(_help_texts(), data, split, data_dir)
    path = Path(data)
    if path.is_file() or path.suffix in (".txt", ".md", ".text"):
        return _part(_read_file(path), data, split, data_dir)
    found = open_prepared(
        data, split, data_dir,
        fits=lambda features: "text" in features, wanted="texts", defaults=("test", "validation"),
    )  # fmt: skip
    texts = (found.examples[i]["text"] for i in range(len(found.examples)))
    return "\n".join(x.decode() if isinstance(x, bytes) else str(x) for x in texts)


def _help_texts() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"`data` {path} is not a file; check the path.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"`data` {path} is no text in UTF-8 ({error.reason} at byte {error.start}); convert it."
        ) from error


def _part(text: str, data: str, split: str | None, data_dir: str | None) -> str:
    if data_dir is not None:
        raise ValueError(f"`data_dir` is {data_dir!r}, but {data} has none; leave it out.")
    if split is not None and split not in _SPLITS:
        raise ValueError(f"`split` is {split!r}; {data} has {', '.join(_SPLITS)}.")
    ends = _SPLITS[split or "test"]
    return text[len(text) * ends.start // 10 : len(text) * ends.stop // 10]


def read_bytes(text: str) -> Int32[np.ndarray, " tokens"]:
    """Gives the bytes of a text, for models of 256 tokens.

    Example:
      >>> read_bytes("é")
      array([195, 169], dtype=int32)
    """
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def open_tokenizer(path: Path | None, vocabulary: int) -> Tokenize:
    """Opens what makes tokens of a text.

    Args:
      path: of a `tokenizer.json`; None for a model that reads bytes.
      vocabulary: tokens that the model knows.

    Raises:
      ValueError: no such file and more tokens than bytes, or a file that cannot be read; later, a
        token that the model does not know.
      ImportError: the package `tokenizers` is not installed (the message says how to).
    """
    if path is None and vocabulary == 256:
        return read_bytes
    if path is None:
        raise ValueError(
            f"`weights` are of a model of {vocabulary} tokens, and no tokenizer.json is beside "
            "them; put that of its repository there."
        )
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            f"`{path}` is read by the package tokenizers; pip install tokenizers."
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # it has no error of its own
        raise ValueError(f"`{path}` is no tokenizer ({error}); fetch it again.") from error

    def tokenize(text: str) -> Int32[np.ndarray, " tokens"]:
        tokens = np.asarray(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        if tokens.size and tokens.max() >= vocabulary:
            raise ValueError(
                f"`{path}` makes tokens up to {tokens.max()} of this text and the model knows "
                f"{vocabulary}; put that of the model's own repository there."
            )
        return tokens

    return tokenize


def cut_windows(
    tokens: Int32[np.ndarray, " tokens"], length: int, data: str = "text"
) -> tuple[Int32[np.ndarray, "windows length"], Int32[np.ndarray, "windows length"]]:
    """Cuts a text into windows that do not overlap; what is left at its end is dropped.

    Args:
      tokens: of the text.
      length: of a window.
      data: its name, for the error.

    Returns:
      The tokens of each window, and the token after each: every token but the first is to be
      foretold once.

    Raises:
      ValueError: the text is too short for one.

    Example:
      >>> cut_windows(np.arange(6, dtype=np.int32), 2)[1].tolist()
      [[1, 2], [3, 4]]
    """
    count = (len(tokens) - 1) // length
    if count < 1:
        raise ValueError(
            f"`data` {data} has {len(tokens)} tokens here, too few for a window of {length} and "
            "the token after it; give a longer text."
        )
    at = slice(0, count * length), slice(1, count * length + 1)
    inputs, after = (tokens[part].reshape(count, length) for part in at)
    return inputs, after


def window_batches(
    tokens: Int32[np.ndarray, " tokens"], length: int, size: int, seed: int, start: int = 0
) -> Iterator[Batch]:
    """Yields training batches without end: windows from anywhere in a text.

    Batch number i is the same for every `start`: a run that is resumed goes on where it was.

    Args:
      tokens: of the text, more than `length`.
      length: of a window.
      size: windows per batch.
      seed: of the places.
      start: number of the first batch.
    """
    number = start
    while True:
        places = np.random.default_rng((seed, number)).integers(0, len(tokens) - length, size)
        windows = tokens[places[:, None] + np.arange(length + 1)]
        yield windows[:, :-1], windows[:, 1:]
        number += 1
