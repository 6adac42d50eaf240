"""Proves that tokenizers of older folders are read, and that what is missing is named."""

import importlib.util
from pathlib import Path

import pytest
from transformers import BertConfig

from tasks.language.models import has_tokenizer, inputs_fingerprint, read_tokenizer


def write_vocabulary(folder: Path, *words: str) -> Path:
    folder.mkdir()
    BertConfig(vocab_size=8).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    return folder


def test_a_vocabulary_of_words_is_a_tokenizer_and_part_of_the_identity(tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "a", "the", "cat", "##s")
    assert has_tokenizer(folder)
    assert read_tokenizer(str(folder))("the cats")["input_ids"] == [2, 5, 6, 7, 3]
    other = write_vocabulary(tmp_path / "b", "the", "cat", "##z")
    assert inputs_fingerprint(str(folder)) != inputs_fingerprint(str(other))
    (folder / "tokenizer.json").write_text("{}")
    before = inputs_fingerprint(str(folder))
    (folder / "vocab.txt").unlink()
    assert inputs_fingerprint(str(folder)) == before  # as before other files were known


def test_a_sentencepiece_model_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BertConfig().save_pretrained(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"pieces")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(
        ValueError, match="spiece.model is read by the package sentencepiece, which is not installed: pip"
    ):
        read_tokenizer(str(tmp_path))


def test_a_folder_without_one_says_which_files_were_expected(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"has no tokenizer: expected one of tokenizer.json, .*spiece.model, .*vocab.txt"
    ):
        read_tokenizer(str(tmp_path))
