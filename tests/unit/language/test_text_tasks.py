"""Proves that text tasks rank choices, score answers and read rows as plain loops over transformers do."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language import bart_config, row, t5_config, write_tiny_llama, write_tiny_seq2seq

from pipeline.checkpoints.checkpoint import read_checkpoint
from tasks.base import Backbone, ScoresRows, Task, TaskRequest
from tasks.language.text.published import catalogue
from tasks.loading import load_task
from tasks.registry import BACKBONES

MODELS = ("causal", "t5", "bart")
CHOICES = ("a small tool", "a library", "a compiler for robots", "data")


@pytest.fixture(scope="module", params=MODELS)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return built(request.param, tmp_path_factory.mktemp("model"))


def built(name: str, folder: Path) -> Backbone:
    if name == "causal":
        write_tiny_llama(folder, layers=2)
    else:
        write_tiny_seq2seq(folder, t5_config(2, 2, tied=False) if name == "t5" else bart_config(2, 2))
    family = "causal" if name == "causal" else "seq2seq"
    state = read_checkpoint(str(folder)).state
    return BACKBONES[family](str(folder), state, torch.device("cpu"), torch.float32)


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of 2 to 4 choices; a missing one is null."""
    found = []
    for i in range(start, start + count):
        choices = [*CHOICES[: 2 + i % 3], *[None] * (i % 2)]
        found.append({"prompt": row(i)["source"][: 20 + 7 * (i % 9)].strip(), "choices": choices, "label": i % 2})
    return found


def write(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    folder.mkdir(exist_ok=True)
    for split, some in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some), encoding="utf-8")
    return str(folder)


def task(source: str, backbone: Backbone, **options: Any) -> Task:
    return load_task(TaskRequest("mine", source, {}, options), backbone)


def log_likelihood(backbone: Any, prompt: str, choice: str) -> tuple[float, int]:
    """One choice of one prompt, by itself."""
    tokenizer, module = backbone.tokenizer, backbone.module
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    if backbone.family == "causal":
        whole = tokenizer(f"{prompt} {choice}", return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        logits, tokens = module(whole).logits[0, start - 1 : -1], whole[0, start:]
    else:
        tokens = torch.tensor([*tokenizer(choice)["input_ids"], tokenizer.eos_token_id])
        inputs = torch.cat([torch.tensor([module.config.decoder_start_token_id]), tokens[:-1]])
        logits = module(input_ids=ids, decoder_input_ids=inputs[None]).logits[0]
    return float(logits.log_softmax(-1).gather(1, tokens[:, None]).sum()), len(tokens)


@pytest.mark.parametrize("normalised", [False, True])
@torch.inference_mode()
def test_choices_are_ranked_as_one_by_one(backbone: Backbone, normalised: bool, tmp_path: Path) -> None:
    some = rows(13)
    mine = task(write(tmp_path / "t", {"val": some, "test": some[:5]}), backbone, length_normalised=normalised)
    assert (mine.num_samples("val"), mine.num_samples("test"), mine.metric) == (13, 5, "accuracy")
    found = mine.evaluate(backbone, "val", 0, 13)
    expected = []
    for r in some:
        scores = [log_likelihood(backbone, r["prompt"], c) for c in r["choices"] if c is not None]
        values = [s / n if normalised else s for s, n in scores]
        wrong = max(v for i, v in enumerate(values) if i != r["label"])
        expected.append((int(np.argmax(values)) == r["label"], wrong - values[r["label"]]))
    assert found.margins is not None
    # Samples are sorted by length: the sets of both are compared.
    np.testing.assert_allclose(sorted(found.margins), sorted(m for _, m in expected), atol=2e-4)
    assert found.stats.total == sum(right for right, _ in expected) == found.outcomes.sum()
    assert ((found.margins < 0) == found.outcomes).all()


def test_scores_have_the_same_bits_in_every_shard(backbone: Backbone, tmp_path: Path) -> None:
    mine = task(write(tmp_path / "t", {"val": rows(11), "test": rows(3)}), backbone, batch_size=4)
    whole = mine.evaluate(backbone, "val", 0, 11)
    parts = [mine.evaluate(backbone, "val", i, min(i + 3, 11)) for i in range(0, 11, 3)]
    assert whole.margins is not None
    assert np.concatenate([p.margins for p in parts if p.margins is not None]).tobytes() == whole.margins.tobytes()
    some = [10, 3, 8, 0]
    assert isinstance(mine, ScoresRows)
    chosen = mine.evaluate_rows(backbone, "val", some)
    assert mine.together("val") == 4 and chosen.outcomes.tolist() == whole.outcomes[some].tolist()
    assert chosen.margins is not None and chosen.margins.tobytes() == whole.margins[some].tobytes()
    with pytest.raises(ValueError, match=r"mine: val\[0:12\] is not within its 11 samples"):
        mine.evaluate(backbone, "val", 0, 12)


def test_answers_are_scored_by_exact_match_and_f1(backbone: Backbone, tmp_path: Path) -> None:
    some = [{"prompt": row(i)["source"][:60].strip(), "answers": ["x"]} for i in range(3)]
    source = write(tmp_path / "t", {"val": some, "test": some})
    options = {"metric": "squad", "max_new_tokens": 4}
    model: Any = backbone
    assert task(source, backbone, **options).evaluate(backbone, "val", 0, 3).stats.total == 0
    # The model's own greedy answers are right.
    for r in some:
        ids = model.tokenizer(r["prompt"], return_tensors="pt")["input_ids"]
        new = model.module.generate(ids, max_new_tokens=4, do_sample=False)[0]
        text = model.tokenizer.decode(
            new[ids.shape[1] :] if model.family == "causal" else new, skip_special_tokens=True
        )
        r["answers"] = [text.strip().split("\n")[0] if model.family == "causal" else text]
    mine = task(write(tmp_path / "t", {"val": some, "test": some}), backbone, **options)
    assert mine.evaluate(backbone, "val", 0, 3).outcomes.tolist() == [1, 1, 1]


def test_columns_and_templates_are_options(tmp_path: Path) -> None:
    backbone = built("causal", tmp_path / "m")
    plain = [{"prompt": f"Is it {i}?", "choices": ["yes", "no"], "label": i % 2} for i in range(4)]
    other = [{"q": i, "answer": ("yes", "no")[i % 2]} for i in range(4)]
    named = [{"q": i, "answer": "YN"[i % 2]} for i in range(4)]
    first = task(write(tmp_path / "a", {"val": plain, "test": plain}), backbone)
    options = {"template": "Is it {{ q }}?", "choices": ["yes", "no"], "label": "answer"}
    second = task(write(tmp_path / "b", {"val": other, "test": other}), backbone, **options)
    third = task(write(tmp_path / "c", {"val": named, "test": named}), backbone, **options, labels=["Y", "N"])
    assert first.fingerprint == second.fingerprint == third.fingerprint
    assert task(str(tmp_path / "a"), backbone, length_normalised=True).fingerprint != first.fingerprint


GOOD = {"prompt": "p", "choices": ["a", "b"], "label": 0}


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        ({**GOOD, "choices": ["a", "a"]}, {}, r"val\.jsonl: row 2: its choices repeat: \['a'\]; each must differ"),
        ({**GOOD, "choices": ["a"]}, {}, "row 2: must have two choices or more"),
        ({**GOOD, "choices": ["a", " "]}, {}, "row 2: a choice is empty"),
        ({**GOOD, "label": 2}, {}, "row 2: its label is 2, which is the place of none of"),
        ({**GOOD, "label": "c"}, {}, "row 2: label: must be a choice's place, from 0, or its text, got 'c'"),
        (
            {"prompt": "p", "choice": ["a", "b"], "label": 0},
            {},
            "row 2: has no column 'choices'; did you mean 'choice'",
        ),
        ({**GOOD, "prompt": "word " * 300}, {}, "row 2: its prompt has [0-9]+ tokens, and the model takes at most 25"),
        (GOOD, {"template": "{{ prompt"}, r"tasks\.mine\.options\.template: not a Jinja template"),
        (
            GOOD,
            {"template": "{{ prompts }}"},
            "row 1: the template fails: 'prompts' is undefined; its columns are prompt",
        ),
        (GOOD, {"length_normalise": True}, r"tasks\.mine\.options\.length_normalise: unknown option; did you mean"),
        (GOOD, {"length_normalised": "yes"}, r"options\.length_normalised: must be true or false, got 'yes'"),
        (GOOD, {"metric": "accurac"}, r"options\.metric: did you mean 'accuracy'\?, got 'accurac'"),
        (GOOD, {"batch_size": 0}, r"options\.batch_size: must be a whole number, at least 1, got 0"),
    ],
)
def test_a_wrong_row_or_option_is_named(
    bad: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    backbone = built("causal", tmp_path / "m")
    source = write(tmp_path / "t", {"val": [GOOD, bad], "test": [GOOD]})
    with pytest.raises(ValueError, match=message):
        task(source, backbone, **options)


def test_a_prompt_beyond_an_encoders_context_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "t", {"val": [GOOD, {**GOOD, "prompt": "word " * 40}], "test": [GOOD]})
    with pytest.raises(
        ValueError, match=r"row 2: its prompt has \d+ tokens, and the model takes at most 64; set options"
    ):
        task(source, built("bart", tmp_path / "bart"))
    assert task(source, built("t5", tmp_path / "t5")).num_samples("val") == 2  # relative positions have no end


def test_a_long_prompt_may_be_cut(tmp_path: Path) -> None:
    backbone = built("causal", tmp_path / "m")
    long = [{**GOOD, "prompt": "word " * 300}]
    source = write(tmp_path / "t", {"val": long, "test": long})
    assert task(source, backbone, max_prompt_tokens=64).evaluate(backbone, "val", 0, 1).stats.n == 1


PROMPTSOURCE = """
dataset: paws
subset: labeled_final
templates:
{entries}
"""
ENTRY = """  {number}: !Template
    answer_choices: No ||| Yes
    id: {number}
    jinja: "{number}: {{{{sentence1}}}} same as {{{{sentence2}}}}? ||| {{{{answer_choices[label]}}}}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [en]
      metrics: [{metric}]
      original_task: {original}
    name: t{number}
    reference: ''
"""


def test_a_published_task_uses_its_templates_in_turn(tmp_path: Path) -> None:
    """The layout of promptsource's files; a template of another task or metric does not count."""
    backbone = built("t5", tmp_path / "m")
    place = tmp_path / "templates" / "paws" / "labeled_final"
    place.mkdir(parents=True)
    kinds = [("Accuracy", "true")] * 11 + [("Accuracy", "false"), ("BLEU", "true")]
    entries = "".join(ENTRY.format(number=i, metric=m, original=o) for i, (m, o) in enumerate(kinds))
    (place / "templates.yaml").write_text(PROMPTSOURCE.format(entries=entries), encoding="utf-8")
    some = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "label": i % 2} for i in range(1005)]
    write(tmp_path / "paws", {"train": some, "validation": [{**r, "sentence2": "c"} for r in some[:13]]})
    options = {"root": str(tmp_path), "templates": str(tmp_path / "templates")}
    paws = task("text/paws", backbone, **options)
    assert (paws.num_samples("val"), paws.num_samples("test")) == (1000, 13)
    trained = load_task(TaskRequest("mine", "text/paws", {}, options, train=True), backbone)
    assert [trained.num_samples(s) for s in ("train", "val", "test")] == [5, 1000, 13]
    assert task("text/paws", backbone, **options, template=0).fingerprint != paws.fingerprint
    assert paws.evaluate(backbone, "test", 0, 13).margins is not None
    with pytest.raises(ValueError, match=r"options\.template: must be mod, or a number from 0 to 10, got 11"):
        task("text/paws", backbone, **options, template=11)
    with pytest.raises(ValueError, match="unknown text task 'pas': did you mean 'paws'"):
        task("text/pas", backbone)
    with pytest.raises(ValueError, match=r"wiki_qa/templates\.yaml: no such file; known: paws"):
        task("text/wiki_qa", backbone, **options)
    (tmp_path / "paws" / "train.jsonl").unlink()
    with pytest.raises(ValueError, match=r"options\.root: .*paws: has no train\.jsonl or train\.parquet or train/\*"):
        task("text/paws", backbone, **options)


def test_the_catalogue_has_the_published_benchmarks() -> None:
    found = catalogue()
    assert {name: len(tasks) for name, tasks in found.benchmarks.items()} == {"seven": 7, "eight": 8, "eleven": 11}
    assert {name for tasks in found.benchmarks.values() for name in tasks} == set(found.tasks)
    counts = {name: entry.templates.count for name, entry in found.tasks.items()}
    assert counts == {
        "paws": 11,
        "qasc": 5,
        "quartz": 8,
        "story_cloze": 5,
        "wiki_qa": 5,
        "winogrande": 5,
        "wsc": 10,
        "cosmos_qa": 10,
        "social_iqa": 4,
        "quail": 10,
        "ropes": 10,
    }
    assert found.tasks["qasc"].val == found.tasks["qasc"].test and "not confirmed" in found.tasks["qasc"].note
