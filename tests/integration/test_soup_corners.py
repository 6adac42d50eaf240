"""Proves that runs of rewards that are cut short, resumed, or share scores neither lose nor swap completions."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from small_run import command, rows, tables
from small_soup import REWARDS, soup_spec, write_soup, write_soup_spec
from transformers import AutoModelForCausalLM

from pipeline.loading.prepare import prepare
from pipeline.loading.rewards import prompts_for, reward_tasks
from pipeline.spec.load import load_spec
from pipeline.workers.completion_worker import CompletionWorker
from pipeline.workers.reward_worker import RewardWorker

LINES = {"function": "linear", "alpha": 1.0, "beta": 0.5}
SOUP = {"merge": {"method": "weighted", "lambdas": 3}, "test": "every"}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_soup(tmp_path / "own")


def work(spec: Path, out: Path, *words: str) -> Path:
    status, output = command("run", spec, "--out", out, *words)
    assert status == 0, output
    return out


def texts(run: Path) -> dict[tuple[str, str, int], str]:
    return {(c["recipe_id"], c["split"], c["index"]): c["completion"] for c in rows(run, "completions")}


def test_an_arm_scored_by_some_rewards_keeps_its_completions(own: Path, tmp_path: Path) -> None:
    arms = {"edit": {"edit": "each_expert", "scaling": LINES, "score": "targets", "test": "every"}}
    run = work(write_soup_spec(own, arms=arms, controls=[]), tmp_path / "run")
    mine = {c["recipe_id"] for c in rows(run, "candidates") if c["arm"] == "edit"}
    assert len(mine) == 2 and mine <= {recipe_id for recipe_id, _, _ in texts(run)}


@pytest.mark.parametrize("names", [("open", "brief"), ("open",)])
def test_cached_scores_of_other_reward_orders_include_their_completions(
    own: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    spec = soup_spec(controls=[], arms={"soup": SOUP})
    first = work(write_soup_spec(own, **spec), tmp_path / "first")
    spec["tasks"] = {name: spec["tasks"][name] for name in names}
    spec["targets"] = {expert: names[0] for expert in spec["experts"] if expert not in names}
    second = work(write_soup_spec(own, **spec | {"name": "second"}), tmp_path / "second")
    assert texts(second) == texts(first)


def test_a_reward_without_scores_uses_the_completions_of_the_journal(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_soup_spec(own, controls=[], arms={"soup": SOUP})
    whole = work(spec, tmp_path / "whole", "--no-cache")
    shutil.copytree(whole, tmp_path / "cut")
    journal = tmp_path / "cut" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _task(line) != "open" and json.loads(line)["record"] != "end"]
    assert 0 < len(kept) < len(lines)
    journal.write_text("".join(kept))
    monkeypatch.setattr(CompletionWorker, "evaluate", _refuse)
    work(spec, tmp_path / "cut", "--no-cache")
    assert tables(tmp_path / "cut") == tables(whole)


def _task(line: str) -> str:
    return str(json.loads(line).get("request", ["", "", ""])[2])


def _refuse(*_: object) -> None:
    raise AssertionError("no completion is missing")


def test_a_run_killed_before_its_prompts_were_written_has_a_report(own: Path, tmp_path: Path) -> None:
    run = work(write_soup_spec(own, controls=[], arms={"soup": SOUP}), tmp_path / "run")
    header = (run / "journal.jsonl").read_text().splitlines(keepends=True)[0]
    shutil.rmtree(run)
    run.mkdir()
    (run / "journal.jsonl").write_text(header)
    status, output = command("report", run)
    assert status == 0, output
    assert rows(run, "completions") == []


def test_deleted_prompts_are_rewritten_by_the_same_command(own: Path, tmp_path: Path) -> None:
    spec = write_soup_spec(own, controls=[], arms={"soup": SOUP})
    before = tables(work(spec, tmp_path / "run"))
    (tmp_path / "run" / "prompts.parquet").unlink()
    status, output = command("report", tmp_path / "run")
    assert status == 2 and "prompts.parquet: is missing" in output and "`lines run` writes it again" in output, output
    assert tables(work(spec, tmp_path / "run")) == before


def test_the_plan_of_a_run_of_rewards_names_no_accuracy(own: Path) -> None:
    status, output = command("validate", write_soup_spec(own))
    assert status == 0 and "accuracy" not in output, output


def test_one_completion_on_validation_is_too_few(own: Path) -> None:
    generation = soup_spec()["generation"]
    prompts = generation["prompts"] | {"limits": {"val": 1}}
    spec = write_soup_spec(own, generation=generation | {"prompts": prompts})
    for words in (("validate", spec), ("run", spec, "--out", own / "run")):
        status, output = command(*words)
        assert status == 2 and "generation.prompts: must give at least 2 completions of val" in output, output


def test_a_reward_of_tiny_numbers_is_not_constant(own: Path, tmp_path: Path) -> None:
    (own / "rewards.py").write_text(REWARDS + "\n\ndef tiny(p, c):\n    return [1e-9 * len(set(t)) for t in c]\n")
    tasks = {"brief": "rewards.py:brevity", "open": "rewards.py:tiny"}
    work(write_soup_spec(own, tasks=tasks, controls=[], arms={"soup": SOUP}), tmp_path / "run")


def test_policies_as_adapters_and_as_whole_models_have_the_same_constant_of_equal_mean(
    own: Path, tmp_path: Path
) -> None:
    """It is the mean over the changed parameters, independently of the form of the policies and of other arms."""
    changes: Mapping[str, Any] = {"controls": ["uniform"], "arms": {"LiNeS": {**SOUP, "scaling": LINES}}}
    runs = {"apart": work(write_soup_spec(own, **changes), tmp_path / "apart")}
    arms = {**changes["arms"], "ties": {"merge": "ties"}}
    runs["beside ties"] = work(write_soup_spec(own, **changes | {"name": "ties", "arms": arms}), tmp_path / "ties")
    for name in ("brief", "open"):
        folder = own / "policies" / name
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(own / "sft"), folder)
        shutil.rmtree(folder)
        model.merge_and_unload().save_pretrained(folder)
    runs["whole"] = work(write_soup_spec(own, **changes | {"name": "whole"}), tmp_path / "whole")
    layers = {name: json.loads((run / "provenance.json").read_text())["layers"] for name, run in runs.items()}
    assert layers["apart"] == layers["beside ties"] == layers["whole"]
    made = {name: _along_lambda(run, "LiNeS, uniform") for name, run in runs.items()}
    for name in ("beside ties", "whole"):
        assert made[name].keys() == made["apart"].keys()
        same = sum(made[name][key] == made["apart"][key] for key in made["apart"])
        assert same >= 0.95 * len(made["apart"]), name


def _along_lambda(run: Path, arm: str) -> dict[tuple[str, str, int], str]:
    points = {c["recipe_id"]: c["point"] for c in rows(run, "candidates") if c["arm"] == arm}
    return {(points[r], split, i): text for (r, split, i), text in texts(run).items() if r in points}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_weights_generate_and_are_scored(own: Path, tmp_path: Path, precision: str) -> None:
    backbone = {"family": "causal", "model": "sft", "precision": precision}
    arms = {"LiNeS": {**SOUP, "scaling": LINES}}
    run = work(write_soup_spec(own, backbone=backbone, arms=arms, controls=[]), tmp_path / "run")
    ends = {c["point"]: c["recipe_id"] for c in rows(run, "candidates") if c["arm"] == "LiNeS"}
    assert len(ends) == 3 and {c["state"] for c in rows(run, "candidates")} == {"complete"}


def test_a_reward_that_changed_after_its_preparation_is_refused(own: Path) -> None:
    spec = load_spec(write_soup_spec(own))
    prepared = reward_tasks(spec, prompts_for(spec))["brief"].fingerprint
    RewardWorker("local", spec, "brief", prepared)
    (own / "rewards.py").write_text(REWARDS + "\n# mended\n")
    with pytest.raises(ValueError, match=r"tasks.brief: its reward, or the prompts, differ from the prepared ones"):
        RewardWorker("local", spec, "brief", prepared)


def test_another_configuration_or_tokenizer_is_another_model(own: Path) -> None:
    """The same weights with another end token or norm give other completions, so they share no scores."""
    marks = [fingerprint_of(own)]
    for name, key, value in (("config.json", "rms_norm_eps", 0.1), ("tokenizer_config.json", "eos_token", "<s>")):
        content = json.loads((own / "sft" / name).read_text())
        (own / "sft" / name).write_text(json.dumps(content | {key: value}))
        marks.append(fingerprint_of(own))
    assert len(set(marks)) == 3


def fingerprint_of(folder: Path) -> str:
    return prepare(load_spec(write_soup_spec(folder)), "cpu", lambda what, done, total: None).fingerprint
