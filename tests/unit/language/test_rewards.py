"""Proves that rewards score the right label and text, the same in any batch, and have content fingerprints."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_rewards import (
    CONTEXT,
    END,
    TEXTS,
    write_bart,
    write_bert,
    write_encoder,
    write_gpt2,
    write_roberta,
)
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tasks.base import NonFiniteOutput
from tasks.language.base import Prompt, Reward, Sample
from tasks.language.rewards.classifier import ClassifierReward
from tasks.language.rewards.config import RewardConfig
from tasks.language.rewards.loading import REWARDS, checked, load_reward, reward_config, reward_fingerprint
from tasks.plugins import load_plugins

CPU = torch.device("cpu")
WRITERS = {"bert": write_bert, "roberta": write_roberta, "bart": write_bart, "gpt2": write_gpt2}
SPOILT = {"bart": {"label": "FAITHFUL"}, "bert": {"label": "GOOD"}}


def sample(completion: str, source: str = TEXTS[0]) -> Sample:
    return Sample(Prompt(f"Description: {source}\nSynopsis:", source), completion)


SAMPLES = [
    sample(completion, source)
    for completion in ("", "a tool", "a library that reads files. It has few dependencies.", "graphs of data " * 4)
    for source in TEXTS
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("rewards")
    encoder = write_encoder(root / "encoder")
    return {"encoder": encoder, **{name: write_it(root / name) for name, write_it in WRITERS.items()}}


def by_hand(folder: Path, *texts: str) -> torch.Tensor:
    """Return the logits of one input by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model(**AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")).logits[0]
    return logits


@pytest.mark.parametrize("form", ["pair", "completion", "{source} {completion}"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_score_does_not_depend_on_its_batch(name: str, form: str, folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders[name]), "inputs": form, **SPOILT.get(name, {})}
    samples = SAMPLES if form != "completion" else SAMPLES[4:]
    reward = load_reward("reward/classifier", {**options, "batch_size": 5}, CPU)
    assert isinstance(reward, ClassifierReward) and reward.batch_size == 5
    together = checked(name, reward, samples)
    alone = [load_reward("reward/classifier", {**options, "batch_size": 1}, CPU).score([s])[0] for s in samples]
    assert np.std(alone) > 0.01
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(checked(name, reward, samples[::-1]), together[::-1], atol=1e-4)


def test_the_label_is_found_by_name_and_by_index(folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders["bert"])}
    expected = by_hand(folders["bert"], TEXTS[0], "a tool")
    found = [
        load_reward("reward/classifier", {**options, "label": label}, CPU).score([sample("a tool")])[0]
        for label in ("BAD", "FAIR", "GOOD", 0, 1, 2)
    ]
    assert found == pytest.approx([*expected.tolist(), *expected.tolist()], abs=1e-5)


def test_probabilities_and_differences(folders: Mapping[str, Path]) -> None:
    logits = by_hand(folders["bert"], TEXTS[0], "a tool")
    options = {"model": str(folders["bert"]), "label": "GOOD"}
    softmax = load_reward("reward/classifier", {**options, "probability": True}, CPU)
    assert softmax.score([sample("a tool")]) == pytest.approx([logits.softmax(0)[2].item()], abs=1e-5)
    odds = load_reward("reward/classifier", {**options, "minus": "BAD"}, CPU)
    assert odds.score([sample("a tool")]) == pytest.approx([(logits[2] - logits[0]).item()], abs=1e-5)
    one = load_reward("reward/classifier", {"model": str(folders["roberta"]), "probability": True}, CPU)
    expected = by_hand(folders["roberta"], TEXTS[0], "a tool").sigmoid().item()
    assert one.score([sample("a tool")]) == pytest.approx([expected], abs=1e-5)


def test_templates_take_source_completion_and_prompt(folders: Mapping[str, Path]) -> None:
    form = "{prompt} {completion} of {source}"
    reward = load_reward("reward/classifier", {"model": str(folders["roberta"]), "inputs": form}, CPU)
    # A text that looks like a place of the template stays as it is.
    one = sample("a {source} tool", "data")
    expected = by_hand(folders["roberta"], "Description: data\nSynopsis: a {source} tool of data").item()
    assert reward.score([one]) == pytest.approx([expected], abs=1e-5)


def test_the_named_rewards_ask_as_rewarded_soups_does(folders: Mapping[str, Path]) -> None:
    one = sample("A tool. It has few dependencies.")
    bart = load_reward("reward/bart-faithful", {"model": str(folders["bart"])}, CPU)
    expected = by_hand(folders["bart"], "A tool.", TEXTS[0])  # the pair of the model's card: the summary comes first
    assert bart.score([one]) == pytest.approx([expected[1].item()], abs=1e-5)
    gpt2 = load_reward("reward/gpt2-summary", {"model": str(folders["gpt2"])}, CPU)
    assert gpt2.score([one]) == pytest.approx(by_hand(folders["gpt2"], f"A tool. {END} {TEXTS[0]}").tolist(), abs=1e-5)
    whole = load_reward("reward/gpt2-summary", {"model": str(folders["gpt2"]), "first_sentence": False}, CPU)
    expected = by_hand(folders["gpt2"], f"A tool. It has few dependencies. {END} {TEXTS[0]}")
    assert whole.score([one]) == pytest.approx(expected.tolist(), abs=1e-5)


def test_special_tokens_in_texts_are_left_out(folders: Mapping[str, Path]) -> None:
    bart = load_reward("reward/bart-faithful", {"model": str(folders["bart"])}, CPU)
    scores = bart.score([sample("a</s> tool<pad>", f"<s>{TEXTS[1]}</s>"), sample("a tool", TEXTS[1]), sample("tools")])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5) and abs(scores[1] - scores[2]) > 1e-3


@pytest.mark.parametrize("pad_token", [None, END, "<pad>"])
def test_a_decoder_without_a_pad_token_reads_its_last_token(pad_token: str | None, tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "gpt2", pad_token)
    reward = load_reward("reward/classifier", {"model": str(folder), "inputs": "{source}: {completion}"}, CPU)
    samples = [sample("a tool"), sample("tools to draw graphs")]
    expected = [by_hand(folder, f"{TEXTS[0]}: {s.completion}").item() for s in samples]
    assert reward.score(samples) == pytest.approx(expected, abs=1e-4)


def test_inputs_that_end_with_the_token_for_padding_are_scored_one_by_one(
    folders: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    options = {"model": str(folders["gpt2"]), "inputs": "{source}: {completion}" + END}
    reward = load_reward("reward/classifier", options, CPU)
    assert "scores samples one by one" in caplog.text
    samples = [sample("a tool"), sample("tools to draw graphs")]
    expected = [by_hand(folders["gpt2"], f"{TEXTS[0]}: {s.completion}{END}").item() for s in samples]
    assert reward.score(samples) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("form", ["pair", "{completion}{source}", "{prompt}{completion}"])
@pytest.mark.parametrize("name", WRITERS)
def test_only_the_source_is_cut(name: str, form: str, folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders[name]), "inputs": form, **SPOILT.get(name, {})}
    reward = load_reward("reward/classifier", options, CPU)
    long = " ".join(TEXTS) * 3
    scores = reward.score(
        [sample(c, s) for s in (long, long + " state", "a " + long) for c in ("the state", "the net")]
    )
    assert scores[2:4] == pytest.approx(scores[:2], abs=1e-5)  # beyond the cut
    assert abs(scores[0] - scores[1]) > 1e-4 and abs(scores[0] - scores[4]) > 1e-4  # the completion, and before the cut
    short = load_reward("reward/classifier", {**options, "max_length": 24}, CPU)
    with pytest.raises(ValueError, match=r"options\.max_length: is too short for the completion 'graphs of .*than 24"):
        short.score([sample("graphs of data " * 9)])


def test_a_longer_input_than_the_model_takes_is_refused(folders: Mapping[str, Path]) -> None:
    for name in ("roberta", "bert"):
        options = {"model": str(folders[name]), "label": 0, "max_length": CONTEXT + 1}
        with pytest.raises(ValueError, match=rf"options\.max_length: must be at most the model's {CONTEXT} tokens"):
            load_reward("reward/classifier", options, CPU)


LABELS = r"BAD \(0\), FAIR \(1\), GOOD \(2\)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, rf"options\.label: is required: the model has the labels {LABELS}"),
        ({"label": "GOD"}, rf"options\.label: no label 'GOD'; did you mean 'GOOD'\?; all: {LABELS}"),
        ({"label": 3}, rf"options\.label: must be one of {LABELS}, got 3"),
        ({"label": 1, "minus": "X"}, r"options\.minus: no label 'X'"),
        ({"label": 1, "minus": 0, "probability": True}, r"options\.probability: must be left out if minus is given"),
        ({"labl": 1}, r"options\.labl: unknown option; did you mean 'label'"),
        ({"inputs": "pairs"}, r"options\.inputs: must be pair, completion, or a template with .*, got 'pairs'"),
        ({"batch_size": 0}, r"options\.batch_size: input should be greater than or equal to 1, got 0"),
        ({"probability": "yes"}, r"options\.probability: input should be a valid boolean, got 'yes'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str, folders: Mapping[str, Path]) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        load_reward("reward/classifier", {"model": str(folders["bert"]), **options}, CPU)


def test_what_is_no_classifier_is_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"encoder: is not a BertForSequenceClassification: 2 tensors are missing.*class"
    ):
        load_reward("reward/classifier", {"model": str(folders["encoder"]), "label": 0}, CPU)
    with pytest.raises(ValueError, match=r"^options\.model: is required"):
        load_reward("reward/classifier", {}, CPU)
    with pytest.raises(ValueError, match=r"^options\.model: .*absent: no such folder"):
        reward_fingerprint("reward/classifier", {"model": str(tmp_path / "absent")})
    damaged = Path(shutil.copytree(folders["roberta"], tmp_path / "damaged")) / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"^options\.model: .*damaged: its weights are damaged"):
        load_reward("reward/classifier", {"model": str(damaged.parent)}, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match=r"^options\.model: .*: cannot be read: Unrecognized .*Classification\.$"):
        load_reward("reward/classifier", {"model": str(tmp_path)}, CPU)


def as_pickle(folder: Path, state: object) -> None:
    """Save a folder's weights in the format before safetensors."""
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("evil-was-here",)


def test_weights_as_a_pickle_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_roberta(tmp_path / "roberta")
    expected = load_reward("reward/classifier", {"model": str(folder)}, CPU).score(SAMPLES)
    state = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    as_pickle(folder, state)
    assert load_reward("reward/classifier", {"model": str(folder)}, CPU).score(SAMPLES) == pytest.approx(expected)
    torch.save({**state, "evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"^options\.model: .*its \.bin holds more than tensors"):
        load_reward("reward/classifier", {"model": str(folder)}, CPU)
    assert not (tmp_path / "evil-was-here").exists()


def test_fingerprints_are_of_content(tmp_path: Path) -> None:
    one, other = write_bert(tmp_path / "a"), write_bert(tmp_path / "b", seed=1)
    copy = Path(shutil.copytree(one, tmp_path / "copy"))
    options: dict[str, object] = {"model": str(one), "label": "GOOD"}
    expected = reward_fingerprint("reward/classifier", options)
    assert load_reward("reward/classifier", options, CPU).fingerprint == expected
    same = [{"model": str(copy)}, {"batch_size": 2}, {"inputs": "pair"}]
    assert {reward_fingerprint("reward/classifier", {**options, **more}) for more in same} == {expected}
    (copy / "README.md").write_text("says nothing of scores")
    assert reward_fingerprint("reward/classifier", {**options, "model": str(copy)}) == expected
    differs = [{"model": str(other)}, {"label": "BAD"}, {"inputs": "completion"}, {"max_length": 9}, {"minus": 0}]
    found = {reward_fingerprint("reward/classifier", {**options, **more}) for more in differs}
    assert len(found | {expected}) == 6
    tokenizer = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(tokenizer.replace('"lowercase": true', '"lowercase": false'))
    assert reward_fingerprint("reward/classifier", {**options, "model": str(copy)}) != expected


def test_similarity_is_the_cosine_of_mean_states(folders: Mapping[str, Path]) -> None:
    model, tokenizer = AutoModel.from_pretrained(folders["encoder"]), AutoTokenizer.from_pretrained(folders["encoder"])

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            states: torch.Tensor = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return states.mean(dim=0)

    reward = load_reward("reward/similarity", {"model": str(folders["encoder"]), "batch_size": 3}, CPU)
    expected = [
        torch.cosine_similarity(embed(s.prompt.source), embed(s.completion), dim=0).item() if s.completion else 0.0
        for s in SAMPLES
    ]
    scores = checked("similarity", reward, SAMPLES)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert reward.score([sample(TEXTS[1], TEXTS[1])]) == pytest.approx([1.0])
    assert reward.score([]) == []


def test_similarity_to_the_reference(folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders["encoder"]), "against": "reference"}
    reward = load_reward("reward/similarity", options, CPU)
    assert reward.score([Sample(Prompt("x", "x", TEXTS[2]), TEXTS[2])]) == pytest.approx([1.0])
    with pytest.raises(ValueError, match=r"options\.against: reference: the prompt 'Description: .*has none"):
        reward.score([sample("a tool")])
    assert reward.fingerprint == reward_fingerprint("reward/similarity", options)
    assert reward.fingerprint != reward_fingerprint("reward/similarity", {**options, "against": "source"})
    with pytest.raises(ValueError, match=r"options\.against: input should be 'source' or 'reference', got 'prompt'"):
        load_reward("reward/similarity", {**options, "against": "prompt"}, CPU)


def test_plainness_is_the_mean_logarithm_of_frequencies(tmp_path: Path) -> None:
    rows = '{"source": "a tool, a library", "reference": "The A."}\n\n{"source": "A file\u2028of a tool"}\n'
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "test.jsonl").write_text('{"source": "unseen"}\n')
    reward = load_reward("reward/plainness", {"corpus": str(tmp_path)}, CPU)
    completions = ("a tool", "TOOL, tool!", "a unseen", "", "...")
    scores = checked("plain", reward, [sample(c) for c in completions])
    per_word = {"a": 5, "tool": 2, "unseen": 0.5}
    a, tool, floor = (np.log10(count / 11 * 1e6) for count in per_word.values())
    np.testing.assert_allclose(scores, [(a + tool) / 2, tool, (a + floor) / 2, floor, floor], rtol=1e-6)
    assert reward.fingerprint == reward_fingerprint("reward/plainness", {"corpus": str(tmp_path)})
    (tmp_path / "words.txt").write_text("a tool a")
    options = {"corpus": str(tmp_path / "words.txt")}
    assert load_reward("reward/plainness", options, CPU).score([sample("a")]) == pytest.approx([np.log10(2 / 3 * 1e6)])
    assert reward_fingerprint("reward/plainness", options) != reward.fingerprint


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x", r"a\.csv: must be a \.txt or \.jsonl file"),
        ("a.txt", "!", r"a\.txt: holds no words"),
        ("a.jsonl", "{", r"a\.jsonl: row 1: not JSON"),
        (
            "a.jsonl",
            '{"source": "x"}\n{"sources": "y"}',
            r"row 2: no text in source or reference; did you mean 'sources'",
        ),
        ("a.jsonl", "[]", r"row 1: must be an object"),
        ("b", "", r"a: no such folder"),
    ],
)
def test_a_corpus_that_is_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    corpus = tmp_path / (name if name != "b" else "a")
    with pytest.raises(ValueError, match=rf"^options\.corpus: .*{message}"):
        load_reward("reward/plainness", {"corpus": str(corpus)}, CPU)


def test_the_default_corpus_is_built_first() -> None:
    with pytest.raises(ValueError, match=r"^options\.corpus: embedded/packages: not built yet: `make rewarded-soups`"):
        load_reward("reward/plainness", {}, CPU)


FUNCTIONS = """
LIMIT = 3
def length(prompts, completions):
    return [len(c) - len(p) for p, c in zip(prompts, completions, strict=True)]
def one(prompts, completions):
    return 1.0
def broken(prompts, completions):
    return [0.0, float("nan"), float("inf")][: len(completions)]
def fewer(prompts, completions):
    return [0.0] * (len(completions) - 1)
"""


def test_functions_of_files_and_of_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_a_test.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    samples = [sample("abc", "a"), sample("", "ab")]
    for source in (f"{tmp_path}/rewards_of_a_test.py:length", "rewards_of_a_test:length"):
        reward = load_reward(source, {}, CPU)
        assert checked("length", reward, samples).tolist() == [2, -2]
        assert reward.fingerprint == reward_fingerprint(source, {})
    with pytest.raises(ValueError, match=r"one: must return a list of numbers, got 1\.0"):
        load_reward("rewards_of_a_test:one", {}, CPU).score(samples)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mine.py:lenght", {}, r"mine\.py: has no function 'lenght'; did you mean 'length'"),
        ("mine.py:LIMIT", {}, r"mine\.py: 'LIMIT' must be a function, got 3"),
        ("mine.py:length", {"model": "x"}, r"options\.model: unknown option; known: columns"),
        ("absent.py:length", {}, r"cannot import '.*absent\.py': FileNotFoundError: no such file"),
        ("broken.py:length", {}, r"cannot import '.*broken\.py': ZeroDivisionError"),
        ("no_such_module:length", {}, r"cannot import '.*no_such_module': ModuleNotFoundError"),
    ],
)
def test_functions_that_are_none(source: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    (tmp_path / "broken.py").write_text("1 / 0")
    where = source if source.startswith("no_") else f"{tmp_path}/{source}"
    with pytest.raises(ValueError, match=message):
        load_reward(where, options, CPU)


def test_a_function_is_known_by_its_source(tmp_path: Path) -> None:
    file, copy = tmp_path / "mine.py", tmp_path / "copy.py"
    for path in (file, copy):
        path.write_text(FUNCTIONS)
    first = reward_fingerprint(f"{file}:length", {})
    assert reward_fingerprint(f"{copy}:length", {}) == first
    assert reward_fingerprint(f"{file}:one", {}) != first
    file.write_text(FUNCTIONS.replace("len(c) -", "len(c) +"))
    assert reward_fingerprint(f"{file}:length", {}) != first


@pytest.mark.parametrize(
    ("parameters", "taken"),
    [
        ("sources, completions, rows", True),
        ("prompts, texts, *, rows=None", True),
        ("prompts, rows", False),
        ("rows, completions", False),
        ("prompts, completions, **options", False),
    ],
)
def test_rows_are_taken_after_sources_and_completions(tmp_path: Path, parameters: str, taken: bool) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"def f({parameters}):\n    return [float(rows[0]['k'])]\n")
    sample = Sample(Prompt("a", "a", row={"k": 1}), "text")
    config = reward_config(f"{path}:f", {})
    assert config.reads_rows() == taken
    if taken:
        assert config.load(CPU).score([sample]) == [1.0]


def test_unknown_rewards_suggest_near_names() -> None:
    with pytest.raises(ValueError, match="unknown reward 'clasifier': did you mean 'classifier'"):
        load_reward("reward/clasifier", {}, CPU)
    with pytest.raises(
        ValueError, match=r"unknown reward 'plainness': did you mean 'reward/plainness'\?; a function is"
    ):
        load_reward("plainness", {}, CPU)


def test_scores_are_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    samples = [sample("one"), sample("two"), sample("three " * 30)]

    def reward(name: str) -> Reward:
        return load_reward(f"{tmp_path}/mine.py:{name}", {}, CPU)

    message = r"reward 'r': 2 of 3 scores are not finite; the first is nan for completion 1, 'two'"
    with pytest.raises(NonFiniteOutput, match=message):
        checked("r", reward("broken"), samples)
    message = (
        r"reward 'r': must give one score a completion, got scores of shape \(2,\) for 3 .*number 2, '(three ){13}"
    )
    with pytest.raises(ValueError, match=message):
        checked("r", reward("fewer"), samples)
    empty = checked("r", reward("length"), [])
    assert empty.shape == (0,) and empty.dtype == np.float32


PLUGIN = """
from tasks.language.rewards.config import RewardConfig
from tasks.language.rewards.loading import REWARDS

class Constant(RewardConfig):
    value: float = 1.0
    def fingerprint(self):
        return f"constant {self.value}"
    def load(self, device):
        return self
    def score(self, samples):
        return [self.value] * len(samples)

REWARDS.register("constant-of-a-test", Constant)
"""


def test_a_plugin_brings_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugins([str(tmp_path / "plugin.py")])
    kind: type[RewardConfig] = REWARDS["constant-of-a-test"]
    assert "value" in kind.model_fields
    assert (
        checked("c", load_reward("reward/constant-of-a-test", {"value": 2.5}, CPU), SAMPLES[:2]).tolist() == [2.5] * 2
    )
    with pytest.raises(ValueError, match=r"options\.valeu: unknown option; did you mean 'value'"):
        load_reward("reward/constant-of-a-test", {"valeu": 2}, CPU)


def test_naming_a_reward_needs_no_torch() -> None:
    code = "import sys, tasks.language.rewards.loading; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
