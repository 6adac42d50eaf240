"""Proves a run of BERT-like experts from spec to export: tasks with heads of their own, and by prompts of the base."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_run import Lines, write_spec
from tiny_language import bert_config, row, tiny_tokenizer, write_tiny_encoder
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

#: (alpha, beta) of the edit's candidates is (0.5, 0.5) and (1, 0).
SCALING = {"function": "linear", "alpha": {"grid": [0.5, 1.0]}, "beta": "1 - alpha"}


def write_rows(folder: Path, classes: int) -> Path:
    folder.mkdir()
    for start, split in ((0, "val"), (20, "test")):
        rows = [{"text": row(i)["source"], "label": i % classes} for i in range(start, start + 20)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def write_expert(folder: Path, base: Path, labels: int, seed: int) -> Path:
    """Write a classifier whose encoder is the base's with noise, as after fine-tuning."""
    write_tiny_encoder(folder, bert_config(num_labels=labels), AutoModelForSequenceClassification, seed)
    state, theta0 = load_file(folder / "model.safetensors"), load_file(base / "model.safetensors")
    noise = torch.Generator().manual_seed(seed)
    for name in state.keys() & theta0.keys():
        state[name] = theta0[name] + 0.05 * torch.randn(theta0[name].shape, generator=noise)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    base = write_tiny_encoder(folder / "base", bert_config(), AutoModelForMaskedLM)
    for seed, (name, labels) in enumerate({"mood": 2, "topic": 3}.items(), 1):
        write_expert(folder / name, base, labels, seed)
        write_rows(folder / f"{name}-rows", labels)
    write_rows(folder / "kinds-rows", 2)
    return folder


@pytest.fixture(scope="module")
def spec(ground: Path) -> Path:
    prompts = {"classes": ["tool", "library"], "templates": ["a {}", "This package is a {}."], "max_tokens": 24}
    fields: dict[str, Any] = {
        "name": "encoders",
        "backbone": {"family": "encoder", "model": "base"},
        "base": "base",
        "experts": {"mood": "mood", "topic": "topic"},
        "tasks": {
            **{name: {"source": f"{name}-rows", "options": {"head": name}} for name in ("mood", "topic")},
            "kinds": {"source": "kinds-rows", "options": prompts},
        },
        "arms": {"LiNeS": {"edit": "each_expert", "scaling": SCALING}, "sum": {"merge": "sum"}},
        "controls": {"kinds": ["uniform"], "constants": 3},
        "shard_size": 8,
        "resources": {"pool": "local"},
    }
    return write_spec(ground, fields)


@pytest.fixture(scope="module")
def run(ground: Path, spec: Path) -> Path:
    status, output = Lines(ground, {}).run(spec, ground / "run")
    assert status == 0, output
    return ground / "run"


def test_an_experts_own_score_is_that_of_its_classifier(ground: Path, run: Path) -> None:
    scores = {
        (r["group"], r["task"]): r["value"]
        for r in pq.read_table(run / "scores.parquet").to_pylist()
        if r["arm"] == "fine-tuned" and r["split"] == "test"
    }
    tokenizer = tiny_tokenizer()
    for name in ("mood", "topic"):
        model = AutoModelForSequenceClassification.from_pretrained(ground / name).eval()
        rows = [json.loads(line) for line in (ground / f"{name}-rows" / "test.jsonl").read_text().splitlines()]
        with torch.inference_mode():
            found = [int(model(**tokenizer(r["text"], return_tensors="pt")).logits.argmax()) for r in rows]
        right = sum(guess == r["label"] for guess, r in zip(found, rows, strict=True))
        assert scores[name, name] == pytest.approx(right / 20)
    assert {task for _, task in scores} == {"mood", "topic", "kinds"}


def test_what_a_run_needs_can_be_prepared(ground: Path, spec: Path) -> None:
    status, output = Lines(ground, {})("prepare", spec)
    assert status == 0 and "kinds │ 20 │ 20 " in output, output


def test_the_run_names_the_library_and_the_blocks(run: Path) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    assert ", transformers " in provenance["numerics"]
    assert len(provenance["layers"]["block_sizes"]) == 3


def test_a_merge_is_exported_as_an_encoder_that_transformers_loads(ground: Path, run: Path) -> None:
    status, output = Lines(ground, {})("export", run, "--arm", "sum", "-o", ground / "merged")
    assert status == 0, output
    recipe = json.loads((ground / "merged" / "recipe.json").read_text())
    assert recipe["alpha"] == 1
    merged = dict(AutoModel.from_pretrained(ground / "merged").named_parameters())
    base, mood, topic = (load_file(ground / name / "model.safetensors") for name in ("base", "mood", "topic"))
    for name, tensor in merged.items():
        if not name.startswith("pooler."):
            full = f"bert.{name}"
            expected = base[full] + (mood[full] - base[full]) + (topic[full] - base[full])
            torch.testing.assert_close(tensor.data, expected, rtol=0, atol=1e-6)
    assert len(tiny_tokenizer()) == json.loads((ground / "merged" / "config.json").read_text())["vocab_size"]
    assert (ground / "merged" / "tokenizer.json").is_file()


def _mute(ground: Path, spec: dict[str, Any]) -> str:
    (ground / "bad").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ground / "base" / name, ground / "bad")
    spec["backbone"]["model"] = "bad"
    return r"backbone.model: \S+bad: has no tokenizer: expected one of tokenizer.json"


def _longer(ground: Path, spec: dict[str, Any]) -> str:
    config = bert_config(num_labels=2)
    config.vocab_size = 310
    write_tiny_encoder(ground / "bad", config, AutoModelForSequenceClassification)
    spec["experts"]["mood"] = "bad"
    return (
        r"experts.mood: \S+bad: was trained with another vocabulary: its embeddings.word_embeddings.weight has 310 "
        r"tokens, the model's 300; .* set backbone.options.vocabulary: shared"
    )


def _other(ground: Path, spec: dict[str, Any]) -> str:
    other = write_tiny_encoder(ground / "bad" / "other", bert_config(), seed=9)
    model = AutoModel.from_pretrained(other)
    get_peft_model(model, LoraConfig(r=2, target_modules=["query"])).save_pretrained(ground / "bad")
    spec["experts"]["mood"] = "bad"
    return r"experts.mood: its adapter was trained on \S+other, whose \S+ differs from that of the base \S+base"


@pytest.mark.parametrize("spoil", [_mute, _longer, _other], ids=["no tokenizer", "vocabulary", "adapter"])
def test_bad_input_is_named(ground: Path, spec: Path, spoil: Any) -> None:
    shutil.rmtree(ground / "bad", ignore_errors=True)
    fields = yaml.safe_load(spec.read_text())
    message = spoil(ground, fields)
    changed = ground / "bad.yaml"
    changed.write_text(yaml.safe_dump(fields))
    status, output = Lines(ground, {})("validate", changed)
    assert status == 2 and re.search(message, output), output


def test_a_plan_counts_what_the_run_scores(ground: Path, spec: Path, run: Path) -> None:
    status, output = Lines(ground, {})("plan", spec, "--like", run)
    assert status == 0, output
    assert re.search(r"activations of a batch\W+[\d.]+ MiB", output), output
    _, checked = Lines(ground, {})("validate", spec)
    planned = re.search(r"at most ([\d,]+) samples, a forward pass each", output)
    assert planned and f"at most {planned[1]} samples to score" in checked
