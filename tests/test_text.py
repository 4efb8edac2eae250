"""Text for language models: where it comes from, its tokens, its windows."""

import json
import sys
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from training.data.text import (
    cut_windows,
    open_tokenizer,
    read_bytes,
    read_text,
    window_batches,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("".join(f"line {i} é\n" for i in range(100)), encoding="utf-8")
    return path


def test_a_file_is_read_whole_or_in_two_parts(file):
    whole, train, test = (read_text(str(file), split) for split in ("all", "train", "test"))
    assert whole == file.read_text(encoding="utf-8")
    assert train + test == whole
    assert abs(len(test) - len(whole) / 10) <= 1
    assert read_text(str(file)) == test


def test_help_texts_are_on_every_machine_and_the_same_each_time():
    whole = read_text("help", "all")
    assert len(whole) > 100_000
    assert "yield" in whole
    assert read_text("help", "train") + read_text("help") == whole


def test_a_set_of_texts_is_a_line_for_each_example():
    with tfds.testing.mock_data(num_examples=3):
        text = read_text("lm1b")
        assert read_text("tiny_shakespeare", "train")
    assert text.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("poem.txt", "validation"), ValueError, "`split` is 'validation'; .* has train, test, al"),
        (("help", None, "/data"), ValueError, "`data_dir` is '/data', but help has none; leave it"),
        (("missing.txt",), FileNotFoundError, "`data` missing.txt is not a file; check the path"),
        (("noise.txt",), ValueError, "noise.txt is no text in UTF-8 .* at byte 0.; convert it"),
        (("shakespeare?",), ValueError, "`data` is 'shakespeare.', which is no file and no set"),
        (("mnist",), ValueError, "`data` mnist gives image, label; choose a set of texts"),
    ],
)
def test_texts_that_there_are_not(arguments, error, message, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    (file.parent / "noise.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(error, match=message):
        read_text(*arguments)


def test_a_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="`data` lm1b is not prepared"):
        read_text("lm1b", data_dir=str(tmp_path))


def test_windows_foretell_every_token_but_the_first_once():
    tokens = np.arange(23, dtype=np.int32)
    inputs, after = cut_windows(tokens, 5)
    assert inputs.shape == (4, 5)
    np.testing.assert_array_equal(inputs.reshape(-1), tokens[:20])
    np.testing.assert_array_equal(after, inputs + 1)
    assert len(cut_windows(np.arange(6, dtype=np.int32), 5)[0]) == 1
    with pytest.raises(ValueError, match="`data` poem has 5 tokens here, too few for a window of"):
        cut_windows(np.arange(5, dtype=np.int32), 5, "poem")


def test_training_windows_are_the_same_from_wherever_they_start():
    tokens = np.arange(50, dtype=np.int32)
    batches = window_batches(tokens, 7, 6, seed=3)
    first, second = next(batches), next(batches)
    again = next(window_batches(tokens, 7, 6, seed=3, start=1))
    np.testing.assert_array_equal(second, again)
    assert np.any(first[0] != second[0])
    seen = set()
    for inputs, after in (next(batches) for _ in range(60)):
        np.testing.assert_array_equal(after, inputs + 1)
        np.testing.assert_array_equal(np.diff(inputs), 1)
        seen |= {*inputs.ravel(), *after.ravel()}
    assert seen == set(range(50))


def test_bytes_are_the_tokens_of_a_model_of_256():
    tokenize = open_tokenizer(None, 256)
    tokens = tokenize("aé")
    assert tokens.dtype == np.int32
    assert bytes(tokens.astype(np.uint8)).decode() == "aé"
    with pytest.raises(ValueError, match=r"model of 512 tokens, and no tokenizer\.json is beside"):
        open_tokenizer(None, 512)


class Words:
    """As much of `tokenizers.Tokenizer` as is used."""

    def __init__(self, words):
        self.words = words

    @classmethod
    def from_file(cls, path):
        with open(path) as file:
            return cls(json.load(file))

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return types.SimpleNamespace(ids=[self.words.index(word) for word in text.split()])


def test_a_tokenizer_of_its_own(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"tokenizer.json` is read by .* pip install tokenizers"):
        open_tokenizer(path, 512)
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Words))
    path.write_text(json.dumps(["to", "be", "or", "not"]))
    tokens = open_tokenizer(path, 4)("to be or not to be")
    np.testing.assert_array_equal(tokens, [0, 1, 2, 3, 0, 1])
    assert tokens.dtype == read_bytes("").dtype
    with pytest.raises(ValueError, match="makes tokens up to 3 of this text and the model knows 3"):
        open_tokenizer(path, 3)("to be or not to be")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer.json` is no tokenizer"):
        open_tokenizer(path, 4)
