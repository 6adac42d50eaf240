"""Proves that encoders classify texts: by prompts of the base, or by classifiers' own heads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language import bert_config, row, write_tiny_encoder
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ModernBertConfig,
    RobertaConfig,
)

from pipeline.checkpoints.checkpoint import read_checkpoint
from tasks.base import TaskRequest
from tasks.language.encoder import EncoderBackbone, build
from tasks.loading import load_task

CPU = torch.device("cpu")
_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "initializer_range": 0.1,
}
_MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
FAMILIES: dict[str, Any] = {
    "bert": bert_config(),
    "roberta": RobertaConfig(**_SIZES, pad_token_id=1),
    "modernbert": ModernBertConfig(**_SIZES, **_MODERN),
}


def built(folder: Path) -> EncoderBackbone:
    return build(str(folder), read_checkpoint(str(folder)).state, CPU, torch.float32)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("bert"), bert_config())


def write_rows(folder: Path, labels: Sequence[object], count: int = 12) -> Path:
    """Write val.jsonl and test.jsonl of different texts, whose labels take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    for start, split in ((0, "val"), (count, "test")):
        rows = [{"text": row(start + i)["source"], "label": labels[i % len(labels)]} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def load(source: Path, backbone: EncoderBackbone, **options: object) -> Any:
    return load_task(TaskRequest("texts", str(source), {}, options), backbone)


def texts_of(source: Path, split: str, tokenizer: Any) -> tuple[list[str], list[Any]]:
    """Return texts and labels in the order of outcomes: by number of tokens."""
    rows = [json.loads(line) for line in (source / f"{split}.jsonl").read_text().splitlines()]
    rows.sort(key=lambda r: len(tokenizer(r["text"])["input_ids"]))
    return [r["text"] for r in rows], [r["label"] for r in rows]


def margins(logits: Tensor, labels: Sequence[int]) -> list[float]:
    rows = [row.tolist() for row in logits]
    return [max(v for i, v in enumerate(r) if i != label) - r[label] for r, label in zip(rows, labels, strict=True)]


def test_prompts_classify_by_the_bases_embeddings_of_class_names(bert: Path, tmp_path: Path) -> None:
    backbone, data = built(bert), write_rows(tmp_path / "data", ["tool", "font", "game"])
    task = load(data, backbone, templates=["a {}", "about a {}."], batch_size=5)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    texts, labels = texts_of(data, "test", tokenizer)

    def embedded(text: str) -> Tensor:
        found = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            return F.normalize(backbone.module(**found).last_hidden_state[0].mean(dim=0), dim=0)

    classes = ["font", "game", "tool"]
    head = torch.stack([F.normalize((embedded(f"a {c}") + embedded(f"about a {c}.")) / 2, dim=0) for c in classes])
    with torch.no_grad():  # the candidate's weights are not the base's
        for name, parameter in backbone.module.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    logits = 30 * torch.stack([embedded(text) for text in texts]) @ head.T
    right = torch.tensor([classes.index(label) for label in labels])
    result = task.evaluate(backbone, "test", 0, 12)
    assert result.outcomes.tolist() == (logits.argmax(dim=1) == right).tolist()
    assert result.margins == pytest.approx(margins(logits, right.tolist()), abs=1e-4)
    parts = [task.evaluate(backbone, "test", *span) for span in ((0, 4), (4, 11), (11, 12))]
    assert np.array_equal(np.concatenate([p.outcomes for p in parts]), result.outcomes)
    assert np.array_equal(np.concatenate([p.margins for p in parts if p.margins is not None]), result.margins)
    some = [11, 2, 7]
    chosen = task.evaluate_rows(backbone, "test", some)
    assert task.together("test") == 5 and np.array_equal(chosen.outcomes, result.outcomes[some])
    assert np.array_equal(chosen.margins, result.margins[some])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooled", [True, False], ids=["base with pooler", "base without"])
def test_a_head_of_its_own_gives_what_the_classifier_gives(family: str, pooled: bool, tmp_path: Path) -> None:
    """With the classifier's encoder as the candidate, the task gives the classifier's own answers."""
    config = type(FAMILIES[family])(**{**FAMILIES[family].to_diff_dict(), "num_labels": 3})
    expert = write_tiny_encoder(tmp_path / "expert", config, AutoModelForSequenceClassification, seed=3)
    kind = AutoModelForSequenceClassification if pooled else AutoModelForMaskedLM
    base = write_tiny_encoder(tmp_path / "base", config, kind, seed=4)
    data, backbone = write_rows(tmp_path / "data", [0, 1, 2]), built(base)
    task = load(data, backbone, head=str(expert))
    own = backbone.select(read_checkpoint(str(expert)).state, "expert")
    with torch.no_grad():
        for name, parameter in backbone.module.named_parameters():
            parameter.data = own[name].clone()  # as a rebuild does: new storage
    reference = AutoModelForSequenceClassification.from_pretrained(expert).eval()
    tokenizer = AutoTokenizer.from_pretrained(expert)
    texts, labels = texts_of(data, "val", tokenizer)
    with torch.inference_mode():
        logits = torch.cat([reference(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    result = task.evaluate(backbone, "val", 0, 12)
    assert result.outcomes.tolist() == (logits.argmax(dim=1) == torch.tensor(labels)).tolist()
    assert result.margins == pytest.approx(margins(logits, labels), abs=1e-4)


def test_labels_may_be_names_and_values_of_ones_own(bert: Path, tmp_path: Path) -> None:
    config = bert_config(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    expert = write_tiny_encoder(tmp_path / "expert", config, AutoModelForSequenceClassification)
    backbone = built(bert)
    named = load(write_rows(tmp_path / "a", ["no", "yes"]), backbone, head=str(expert))
    turned = load(write_rows(tmp_path / "b", [7, 5]), backbone, head=str(expert), labels=[7, 5])
    numbered = load(write_rows(tmp_path / "c", [0, 1]), backbone, head=str(expert))
    found = [task.evaluate(backbone, "test", 0, 12).outcomes.tolist() for task in (named, turned, numbered)]
    assert found[0] == found[1] == found[2]
    assert load(tmp_path / "a", backbone, head=str(expert)).fingerprint == named.fingerprint == numbered.fingerprint


def test_what_is_wrong_is_named(bert: Path, tmp_path: Path) -> None:
    backbone = built(bert)

    def refuses(message: str, source: Path, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            load(source, backbone, **options)

    names = write_rows(tmp_path / "names", ["tool", "font"])
    numbers = write_rows(tmp_path / "numbers", [0, 1, 2])
    refuses("options.classes: must be two or more names, as the rows have 0; or name a head", numbers)
    refuses(
        r"numbers/val.jsonl: row 3: its label is no class, got 2",
        numbers,
        classes=["a", "b"],
    )
    refuses(r"names/val.jsonl: row 2: .* got 'font'; did you mean 'fonts'", names, classes=["fonts", "tool"])
    refuses(r"options.templates: each must hold \{\} exactly once, got 'a'", names, templates=["a"])
    alike = {"classes": ["a long name", "a long story"], "max_tokens": 3}
    refuses("the classes 'a long name' and 'a long story' have the same tokens .* they are cut after 3", names, **alike)
    refuses("options.classes: must differ, got 'a' twice", names, classes=["a", "b", "a"])
    refuses(
        r"options.head: has classes of its own; leave classes and templates out", names, head="a", classes=["a", "b"]
    )
    refuses(r"options.max_tokens: must be at most the model's 128, got 129", names, max_tokens=129)
    refuses(r"tasks.texts.options.metric: an encoder's texts are scored by accuracy", names, metric="bits_per_byte")
    refuses(r"options.clases: unknown option; did you mean 'classes'", names, clases=["a", "b"])
    refuses(r"row 1: txt: must be a text, got None; did you mean 'text'", names, text="txt")
    refuses(f"options.head: {bert}: is no classifier: its head's classifier.", names, head=str(bert))
    wide = write_tiny_encoder(tmp_path / "wide", RobertaConfig(**_SIZES), AutoModelForSequenceClassification)
    refuses(r"options.head: .*wide: its encoder is a RobertaModel, not the base's BertModel", names, head=str(wide))


def test_with_labels_of_ones_own_numbers_are_no_places(bert: Path, tmp_path: Path) -> None:
    expert = write_tiny_encoder(tmp_path / "expert", bert_config(), AutoModelForSequenceClassification)
    with pytest.raises(ValueError, match=r"val.jsonl: row 2: its label is no class, got 1; .*5"):
        load(write_rows(tmp_path / "a", [7, 1]), built(bert), head=str(expert), labels=[7, 5])


def test_pairs_are_read_together_and_empty_texts_are_refused(bert: Path, tmp_path: Path) -> None:
    expert = write_tiny_encoder(tmp_path / "expert", bert_config(), AutoModelForSequenceClassification)
    backbone, tokenizer = built(bert), AutoTokenizer.from_pretrained(bert)
    rows = [{"text": "a small tool", "second": "a fast font", "label": i % 2} for i in range(2)]
    for split in ("val", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    task = load(tmp_path, backbone, head=str(expert), pair="second")
    model = AutoModelForSequenceClassification.from_pretrained(expert).eval()
    model.bert.load_state_dict(backbone.module.state_dict(), strict=False)
    with torch.inference_mode():
        guess = int(model(**tokenizer("a small tool", "a fast font", return_tensors="pt")).logits.argmax())
    assert task.evaluate(backbone, "test", 0, 2).outcomes.tolist() == [guess == 0, guess == 1]
    assert task.fingerprint != load(tmp_path, backbone, head=str(expert)).fingerprint
    (tmp_path / "test.jsonl").write_text('{"text": "", "label": 0}\n')
    with pytest.raises(ValueError, match="test.jsonl: row 1: its text has no tokens; leave the row out"):
        load(tmp_path, backbone, head=str(expert))
