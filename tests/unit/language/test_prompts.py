"""Proves that prompt sets keep their texts, are cut and ordered by tokens, and that errors name the row."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from tiny_language import TEMPLATE, row, tiny_tokenizer, write_prompts, write_tiny_llama
from transformers import PreTrainedTokenizerFast

from tasks.language.base import Prompt, PromptRequest
from tasks.language.models import load_causal, load_tokenizer, model_folder, read_tokenizer
from tasks.language.prompts import PromptSet, load_prompts

ROOM = 200


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def write(folder: Path, rows: Sequence[object], name: str = "val.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def load(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    template: str = "{source}",
    cut: int | None = None,
    limits: Mapping[str, int] | None = None,
    room: int = ROOM,
    splits: Sequence[str] = ("val",),
) -> PromptSet:
    return load_prompts(PromptRequest(str(folder), template, cut, limits or {}), tokenizer, room, splits)


def length(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    return len(tokenizer(text)["input_ids"])


def test_templates_are_filled_in(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = load(write_prompts(tmp_path), tokenizer, TEMPLATE, splits=("train",)).splits["train"]
    assert [p.source for p in found] == [row(i)["source"] for i in range(32)]
    assert [p.reference for p in found] == [row(i)["reference"] for i in range(32)]
    assert all(p.text == f"Package description: {p.source}\nSynopsis:" for p in found)


def test_a_row_may_have_a_prompt_of_its_own(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        {"prompt": "Sum up: {source}\n", "source": "a long text", "reference": None},
        {"prompt": "Say more:\n\n", "reference": " such \n"},
    ]
    found = set(load(write(tmp_path, rows), tokenizer, "never {source}", cut=1).splits["val"])
    assert found == {Prompt("Sum up: {source}\n", "a long text"), Prompt("Say more:\n\n", "Say more:", "such")}


def test_evaluated_splits_go_from_short_to_long_and_ties_keep_their_order(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["ccc ccc", "b b", "a", "zz", "y", "x" * 9]
    for name in ("train", "val", "test"):
        write(tmp_path, [{"source": text} for text in texts], f"{name}.jsonl")
    found = load(tmp_path, tokenizer, limits={"test": 3}, splits=("train", "val", "test")).splits
    assert [p.source for p in found["train"]] == texts
    assert [p.source for p in found["val"]] == sorted(texts, key=lambda text: length(tokenizer, text)) != texts
    assert [p.source for p in found["test"]] == ["a", "b b", "ccc ccc"]  # of the first three rows


def test_parquet_gives_the_same_set(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [row(i) | {"package": f"p{i}"} for i in range(5)] + [{"source": "a line\u2028and more", "reference": ""}]
    (tmp_path / "b").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "b" / "val.parquet")
    assert load(write(tmp_path / "a", rows), tokenizer) == load(tmp_path / "b", tokenizer)


def test_sources_are_cut_by_tokens_and_templates_are_not(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = write_prompts(tmp_path)
    whole, cut = (load(folder, tokenizer, TEMPLATE, cut=n, splits=("train",)).splits["train"] for n in (None, 20))
    for long, short in zip(whole, cut, strict=True):
        assert long.source.startswith(short.source) and len(short.source) < len(long.source)
        assert 18 <= length(tokenizer, short.source) <= 20  # a space at the end is one token less
        assert short.text == TEMPLATE.replace("{source}", short.source) and short.reference == long.reference


def test_a_cut_never_leaves_half_a_character(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    text = "né à Zürich 漢字 in 🦊"
    for tokens in range(1, length(tokenizer, text) + 2):
        source = load(write(tmp_path, [{"source": text}]), tokenizer, cut=tokens).splits["val"][0].source
        assert text.startswith(source) and length(tokenizer, source) <= tokens


def test_the_fingerprint_is_of_what_was_asked_for(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = write_prompts(tmp_path / "a")
    first = load(folder, tokenizer, TEMPLATE).fingerprint
    assert first == load(write_prompts(tmp_path / "b"), tokenizer, TEMPLATE).fingerprint
    others = [
        load(folder, tokenizer, "{source}").fingerprint,
        load(folder, tokenizer, TEMPLATE, cut=30).fingerprint,
        load(folder, tokenizer, TEMPLATE, limits={"val": 7}).fingerprint,
        load(folder, tokenizer, TEMPLATE, splits=("test",)).fingerprint,
        load(folder, tokenizer, TEMPLATE, splits=("val", "test")).fingerprint,
        load(write_prompts(tmp_path / "c", train=31), tokenizer, TEMPLATE).fingerprint,
    ]
    assert len({first, *others}) == 7


def test_a_prompt_must_leave_room_for_its_completion(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = write(tmp_path, [{"source": "short"}, {"source": "x" * 40}])
    assert length(tokenizer, "x" * 40) == 40
    assert len(load(folder, tokenizer, room=40).splits["val"]) == 2
    message = r"val\.jsonl: row 2: its prompt has 40 tokens, and the model takes at most 39; set prompts\.max_source_to"
    with pytest.raises(ValueError, match=message):
        load(folder, tokenizer, room=39)
    assert len(load(folder, tokenizer, room=39, limits={"val": 1}).splits["val"]) == 1


def test_a_prompt_that_holds_the_pad_token_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Training recognises padding by its token, so it would learn from another prompt than the completed one."""
    write(tmp_path, [{"source": "a tool"}, {"source": "a <pad> tool"}])
    with pytest.raises(ValueError, match=r"val\.jsonl: row 2: its prompt holds the pad token '<pad>'"):
        load(tmp_path, tokenizer)


def test_rows_that_are_no_prompts_are_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    good = {"source": "fine", "reference": "fine"}
    for bad, message in (
        ({"source": " \n"}, "its source is empty; remove the row"),
        ({"prompt": "", "source": "x"}, "its prompt is empty"),
        ({"sources": "x", "id": 3}, "must have a column prompt or source, got sources, id"),
        ({"reference": "x"}, "must have a column prompt or source, got reference"),
        ({}, "must have a column prompt or source, got none"),
        ({"source": 3}, "source: must be a text, got 3"),
        ({"source": "漢字"}, "its source is empty when cut to 1 tokens"),
        (["x"], r"must be an object with prompt or source, got \['x'\]"),
    ):
        with pytest.raises(ValueError, match=rf"val\.jsonl: row 2: {message}"):
            load(write(tmp_path, [good, bad]), tokenizer, cut=1)
    (tmp_path / "val.jsonl").write_text(json.dumps(good) + "\n{'source'\n")
    with pytest.raises(ValueError, match=r"val\.jsonl: row 2: not JSON"):
        load(tmp_path, tokenizer)
    (tmp_path / "val.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"val\.jsonl: has no rows"):
        load(tmp_path, tokenizer)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "val.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"val\.parquet: not a Parquet file"):
        load(tmp_path / "p", tokenizer)


def test_sets_that_are_not_there_are_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = write(tmp_path / "set", [row(0)], "vall.jsonl")
    with pytest.raises(ValueError, match=r"set: has no val\.jsonl or val\.parquet; did you mean 'vall\.jsonl'"):
        load(folder, tokenizer)
    with pytest.raises(ValueError, match="sett: no such folder; did you mean 'set'"):
        load(tmp_path / "sett", tokenizer)
    with pytest.raises(ValueError, match=r"vall\.jsonl: must be a folder, got a file"):
        load(folder / "vall.jsonl", tokenizer)


def test_models_are_found_by_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path))
    message = "embedded/smollm2: not built yet: .* `python -m tasks.embedded.bases.build smollm2` .*; built: none"
    with pytest.raises(ValueError, match=message):
        model_folder("embedded/smollm2")
    (tmp_path / "language" / "smollm2").mkdir(parents=True)
    assert model_folder("embedded/smollm2") == tmp_path / "language" / "smollm2"
    with pytest.raises(ValueError, match="no such folder; a repository of the hub is written hf:meta-llama/Llama-2-7b"):
        model_folder("meta-llama/Llama-2-7b")
    with pytest.raises(ValueError, match=r"hf:llama: must be hf:OWNER/REPO\[@REVISION\]"):
        model_folder("hf:llama")


def test_without_a_network_the_hubs_cache_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    revision, repo = "0123456789abcdef0123456789abcdef01234567", tmp_path / "models--owner--cached"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    folder = write_tiny_llama(repo / "snapshots" / revision, layers=1)
    for source in ("hf:owner/cached", "hf:owner/cached@main", f"hf:owner/cached@{revision}"):
        assert model_folder(source) == folder
    with pytest.raises(ValueError, match="hf:owner/tiny: not in the local cache, and the hub is out of reach"):
        model_folder("hf:owner/tiny")


def test_a_tokenizer_pads_on_the_left_with_a_token_of_its_own(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(tmp_path)
    assert read_tokenizer(str(tmp_path)).padding_side == "right"
    found = load_tokenizer(str(tmp_path))
    assert found.padding_side == "left" and found.get_vocab() == tokenizer.get_vocab()
    for field, message in (("eos_token", "has no end-of-sequence token"), ("pad_token", "has no pad token: set one")):
        broken = tiny_tokenizer()
        setattr(broken, field, None)
        broken.save_pretrained(tmp_path / field)
        with pytest.raises(ValueError, match=f"^tokenizer of .*{field}: {message}"):
            load_tokenizer(str(tmp_path / field))


def test_a_model_to_train_is_whole(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path / "model")
    model = load_causal(str(folder), torch.bfloat16)
    assert model.dtype == torch.bfloat16 and not model.training
    state = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in state.items() if n != "model.norm.weight"}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 missing tensors \(model\.norm\.weight\)"):
        load_causal(str(folder), torch.float32)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be read: .*model.safetensors"):
        load_causal(str(folder), torch.float32)
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ValueError, match=r"has no config\.json; it holds a LoRA adapter: give the adapter's base"):
        load_causal(str(folder), torch.float32)
