"""Proves that embedded text tasks keep their splits apart and load by name, and that their sources are read rightly."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_language import t5_config, write_tiny_seq2seq

from pipeline.checkpoints.checkpoint import read_checkpoint
from tasks.base import TaskRequest
from tasks.embedded import text_names, text_path
from tasks.embedded.rebuild.icd import entries
from tasks.embedded.rebuild.t5 import continued, corrupted
from tasks.embedded.rebuild.texts import PROMPTS, Row, divided, split_of
from tasks.embedded.rebuild.wordnet import WordNet
from tasks.loading import load_task
from tasks.registry import BACKBONES

SPLITS = ("train", "val", "test")
Tables = dict[str, dict[str, pa.Table]]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return {name: {split: pq.read_table(text_path(name) / f"{split}.parquet") for split in SPLITS} for name in PROMPTS}


def test_every_row_has_a_prompt_and_its_label_among_the_choices(tables: Tables) -> None:
    assert text_names() == sorted(PROMPTS)
    for name, parts in tables.items():
        choices = parts["train"]["choices"][0].as_py()
        assert len(choices) == len(set(choices)) >= 6
        for split, table in parts.items():
            texts, prompts = table["text"].to_pylist(), table["prompt"].to_pylist()
            assert prompts == [PROMPTS[name].format(text) for text in texts]
            assert table["choices"].combine_chunks().flatten().to_pylist() == choices * len(table)
            shares = Counter(table["label"].to_pylist())
            assert set(shares) == set(choices), (name, split)
            assert max(shares.values()) < 0.5 * len(table)
        assert len(parts["train"]) >= 1500 and len(parts["val"]) >= 250 and len(parts["test"]) >= 400


def test_no_text_of_val_or_test_is_trained_on_by_any_task(tables: Tables) -> None:
    texts = {s: [t.lower() for parts in tables.values() for t in parts[s]["text"].to_pylist()] for s in SPLITS}
    train, val, test = (set(texts[split]) for split in SPLITS)
    assert not train & (val | test) and not val & test
    for parts in tables.values():
        within = [text for split in SPLITS for text in parts[split]["text"].to_pylist()]
        assert len(within) == len(set(within))


def test_a_name_loads_the_task_and_a_wrong_name_suggests_it(tmp_path: Path) -> None:
    write_tiny_seq2seq(tmp_path, t5_config(2, 2))
    state = read_checkpoint(str(tmp_path)).state
    backbone = BACKBONES["seq2seq"](str(tmp_path), state, torch.device("cpu"), torch.float32)
    task = load_task(TaskRequest("animals", "embedded/animals", {"val": 20, "test": 4}), backbone)
    assert (task.num_samples("val"), task.num_samples("test")) == (20, 4)
    assert len(task.evaluate(backbone, "test", 0, 4).outcomes) == 4
    with pytest.raises(ValueError, match="embedded/animal: no such embedded text task; did you mean 'animals'"):
        load_task(TaskRequest("animal", "embedded/animal", {}), backbone)


def test_wordnet_is_read_with_its_pointers(tmp_path: Path) -> None:
    header = "  1 This software and database is being provided to you\n"
    bird = '00000001 05 n 02 bird 0 fowl(a) 1 001 @ 00000002 n 0000 | an animal that flies; "a bird sang"  \n'
    animal = "00000002 03 n 01 living_animal 0 000 | a living thing that moves  \n"
    fly = "00000003 38 v 01 fly 0 002 ;c 00000001 n 0000 + 00000002 n 0101 01 + 08 00 | travel through the air  \n"
    for name, lines in {"noun": bird + animal, "verb": fly, "adj": "", "adv": ""}.items():
        (tmp_path / f"data.{name}").write_text(header + lines)
    words = WordNet(tmp_path)
    found = words.synsets["n00000001"]
    assert (found.words, found.category, found.definition) == (("bird", "fowl"), "animal", "an animal that flies")
    assert words.ancestors("n00000001") == {"n00000002"} and words.synsets["n00000002"].words == ("living animal",)
    verb = words.synsets["v00000003"]
    assert (verb.category, words.topics(verb), verb.part_of_speech) == ("motion", ["bird"], "v")


def test_the_tabular_list_is_read_with_sections_and_other_names(tmp_path: Path) -> None:
    (tmp_path / "list.xml").write_text(
        "<root><chapter><name>1</name><desc>Infections (A00-B99)</desc><section id='A00-A09'><desc>Of the gut (A00-A09)"
        "</desc><diag><name>A00</name><desc>Cholera</desc><diag><name>A00.0</name><desc>Cholera, classical</desc>"
        "<inclusionTerm><note>Classical cholera</note></inclusionTerm></diag></diag></section></chapter></root>"
    )
    found = list(entries(tmp_path / "list.xml"))
    assert [(e.code, e.text) for e in found] == [
        ("A00", "Cholera"), ("A00.0", "Cholera, classical"), ("A00.0", "Classical cholera")
    ]  # fmt: skip
    assert {(e.section, e.chapter, e.first) for e in found} == {("Of the gut", 1, "A00")}


def test_rows_of_one_key_share_a_split_and_a_repeated_text_stays_once() -> None:
    rows = [Row(f"text number {i} of its key", "ab"[i % 2], f"key {i // 4}") for i in range(400)]
    parts = divided([*rows, Row("TEXT number 0 of its key.", "a", "another key")])
    where = {row.key: split for split, some in parts.items() for row in some}
    assert all(where[row.key] == split == split_of(row.key) for split, some in parts.items() for row in some)
    assert sum(map(len, parts.values())) == 400 and all(parts.values())


@pytest.mark.parametrize("length", [4, 5, 17, 64])
def test_spans_and_rest_make_up_the_document(length: int) -> None:
    tokens, sentinels = np.arange(100, 100 + length), np.arange(32)
    for seed in range(20):
        source, target = corrupted(tokens, sentinels, np.random.default_rng(seed))
        spans: dict[int, list[int]] = {}
        for token in target.tolist():
            if token < 32:
                spans[token] = []
            else:
                spans[max(spans)].append(token)
        whole = [t for token in source.tolist() for t in (spans[token] if token < 32 else [token])]
        assert whole == tokens.tolist() and list(spans) == list(range(len(spans))) and all(spans.values())
        assert sum(map(len, spans.values())) == max(1, round(length / 4))
        beginning, rest = continued(tokens, np.random.default_rng(seed))
        assert [*beginning, *rest] == tokens.tolist() and len(beginning) and len(rest)
