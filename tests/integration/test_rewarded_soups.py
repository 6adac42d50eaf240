"""Proves that rewarded soups run end to end on a tiny random Llama, and that their points are exported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel
from small_run import command, rows, tables
from small_soup import soup_spec, write_soup, write_soup_spec
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.records.journal import read_history
from pipeline.workers.completion_worker import CompletionWorker


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soup(tmp_path_factory.mktemp("soup"))


@pytest.fixture(scope="module")
def undisturbed(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    status, output = command("run", write_soup_spec(files), "--out", folder, "--no-cache")
    assert status == 0, output
    return folder


def test_every_point_of_every_arm_is_scored_on_test_by_every_reward(undisturbed: Path) -> None:
    scores = [s for s in rows(undisturbed, "scores") if s["split"] == "test"]
    found = {arm: {(s["number"], s["task"]) for s in scores if s["arm"] == arm} for arm in {s["arm"] for s in scores}}
    every = {(number, task) for number in range(3) for task in ("brief", "open")}
    assert {found[a] == every for a in ("soup", "LiNeS", "LiNeS, uniform", "LiNeS, reversed")} == {True}
    assert all(s["metric"] == "reward" and s["n"] == 8 for s in scores)


def test_ends_of_the_plain_soup_are_the_policies(undisturbed: Path) -> None:
    found = rows(undisturbed, "candidates")
    ends = {json.loads(c["point"])["lambda"]: c["recipe_id"] for c in found if c["arm"] == "soup"}
    policies = {c["group"]: c["recipe_id"] for c in found if c["arm"] == "fine-tuned"}
    assert (ends[0.0], ends[1.0]) == (policies["open"], policies["brief"])


def test_completions_are_those_of_the_policy_as_peft_and_transformers_make_them(files: Path, undisturbed: Path) -> None:
    policy = next(c["recipe_id"] for c in rows(undisturbed, "candidates") if c["group"] == "brief")
    kept = [c for c in rows(undisturbed, "completions") if (c["recipe_id"], c["split"]) == (policy, "test")]
    assert [c["index"] for c in kept] == list(range(8))
    model = AutoModelForCausalLM.from_pretrained(files / "sft")
    model = PeftModel.from_pretrained(model, files / "policies" / "brief").eval()
    tokenizer = AutoTokenizer.from_pretrained(files / "sft")
    for row in kept:
        ids = tokenizer(row["prompt"], return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        text = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.strip() == row["completion"]
    assert all(c["reference"] for c in kept)


def test_outcomes_are_the_rewards_of_the_completions(undisturbed: Path) -> None:
    texts: dict[str, list[str]] = {}
    for row in rows(undisturbed, "completions"):
        if row["split"] == "val":
            texts.setdefault(row["recipe_id"], []).append(row["completion"])
    scored = {s["recipe_id"]: s["outcomes"] for s in rows(undisturbed, "samples/brief") if s["split"] == "val"}
    assert texts.keys() == scored.keys()
    for recipe_id, mine in texts.items():
        assert scored[recipe_id] == pytest.approx([-sum(map(ord, t)) / 100 for t in mine], rel=1e-6)


def test_two_ray_workers_give_the_same_tables(files: Path, undisturbed: Path, tmp_path: Path) -> None:
    spec = write_soup_spec(files, name="on-ray", resources={"pool": "ray", "workers": 2})
    status, output = command("run", spec, "--out", tmp_path / "run", "--no-cache")
    assert status == 0, output
    assert tables(tmp_path / "run") == tables(undisturbed)


def test_other_shards_give_the_same_completions_and_outcomes(files: Path, undisturbed: Path, tmp_path: Path) -> None:
    status, output = command("run", write_soup_spec(files, shard_size=8), "--out", tmp_path / "run", "--no-cache")
    assert status == 0, output
    mine, theirs = tables(tmp_path / "run"), tables(undisturbed)
    for table in ("completions.parquet", "samples/brief.parquet", "samples/open.parquet"):
        assert mine[table] == theirs[table], table


def test_the_report_shows_fronts_and_completions(undisturbed: Path) -> None:
    html, markdown = ((undisturbed / f"report.{kind}").read_text() for kind in ("html", "md"))
    for word in ("ypervolume", "SFT model", "constant of equal mean", "reversed depth", "one training"):
        assert word in html and word in markdown, word
    prompts = [p["source"][:60] for p in rows(undisturbed, "prompts") if p["split"] == "test"]
    assert sum(p in markdown for p in prompts) >= 3
    assert "accuracy" not in markdown.split("## Provenance")[0]


def test_a_killed_and_resumed_run_gives_the_same_tables(files: Path, undisturbed: Path, tmp_path: Path) -> None:
    words = ["run", str(write_soup_spec(files)), "--out", str(tmp_path / "run"), "--no-cache"]
    call = [sys.executable, "-c", "from pipeline.cli.main import main; main()", *words]
    child = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(read_history(tmp_path / "run").answers) < 10 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not read_history(tmp_path / "run").finished
    status, output = command(*words)
    assert status == 0, output
    assert tables(tmp_path / "run") == tables(undisturbed)


def test_a_reward_added_later_scores_the_existing_completions(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("run", write_soup_spec(files), "--out", tmp_path / "first")[0] == 0
    (files / "more.py").write_text("def words(prompts, completions):\n    return [len(set(c)) for c in completions]\n")
    tasks = {**soup_spec()["tasks"], "rich": "more.py:words"}
    spec = write_soup_spec(files, name="more", tasks=tasks)
    monkeypatch.setattr(CompletionWorker, "evaluate", _refuse)
    status, output = command("run", spec, "--out", tmp_path / "second")
    assert status == 0, output
    first, second = ({r["completion"] for r in rows(tmp_path / n, "completions")} for n in ("first", "second"))
    assert first == second and tables(tmp_path / "second").keys() >= {"samples/rich.parquet"}


def _refuse(*_: object) -> None:
    raise AssertionError("no completion is missing")


def test_several_samples_of_a_prompt_are_seeded_each(files: Path, tmp_path: Path) -> None:
    generation = soup_spec()["generation"] | {"temperature": 1.0, "samples": 3, "batch_size": 6}
    out = []
    for name, size in (("one", 6), ("other", 12)):
        spec = write_soup_spec(files, name=name, generation=generation, shard_size=size, controls=[])
        status, output = command("run", spec, "--out", tmp_path / name, "--no-cache")
        assert status == 0, output
        out.append(
            [(c["recipe_id"], c["split"], c["index"], c["completion"]) for c in rows(tmp_path / name, "completions")]
        )
    assert out[0] == out[1]
    score, samples = rows(tmp_path / "one", "scores")[0], rows(tmp_path / "one", "samples/brief")
    assert score["task"] == "brief"
    of_prompts = next(
        np.reshape(s["outcomes"], (-1, 3)).mean(axis=1)
        for s in samples
        if (s["recipe_id"], s["split"]) == (score["recipe_id"], score["split"])
    )
    assert score["std_err"] == pytest.approx(of_prompts.std(ddof=1) / len(of_prompts) ** 0.5)
    of_one_prompt = [c[3] for c in out[0][:3]]
    assert len(set(of_one_prompt)) > 1


def test_three_policies_are_mixed_over_the_simplex(tmp_path: Path) -> None:
    folder = write_soup(tmp_path / "three", policies=("brief", "open", "rich"))
    (folder / "more.py").write_text("def words(prompts, completions):\n    return [len(set(c)) for c in completions]\n")
    spec = soup_spec(controls=[])
    spec["experts"] |= {"rich": "policies/rich"}
    spec["tasks"] |= {"rich": "more.py:words"}
    status, output = command("run", write_soup_spec(folder, **spec), "--out", tmp_path / "run")
    assert status == 0, output
    weights = [tuple(c["weights"]) for c in rows(tmp_path / "run", "candidates") if c["arm"] == "LiNeS"]
    assert len(set(weights)) == 6 and all(sum(w) == pytest.approx(1) and len(w) == 3 for w in weights)
    assert "ypervolume" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("sampler", [{"sampler": "nsga2", "options": {"population_size": 4}}, {"sampler": "gp"}])
def test_samplers_search_the_front_over_lambda_alpha_and_beta(
    files: Path, tmp_path: Path, sampler: dict[str, Any]
) -> None:
    arm = {
        "merge": {"method": "weighted", "lambdas": {"range": [0, 1]}},
        "scaling": {"function": "linear", "alpha": {"range": [0.5, 1.5]}, "beta": {"range": [0, 1]}},
        "search": {**sampler, "trials": 12},
        "select": {"maximise": ['task["brief"]', 'task["open"]']},
        "test": "every",
    }
    spec = write_soup_spec(files, name=str(sampler["sampler"]), arms={"searched": arm}, controls=["reversed"])
    status, output = command("run", spec, "--out", tmp_path / "run")
    assert status == 0, output
    found = [c for c in rows(tmp_path / "run", "candidates") if c["arm"] == "searched"]
    # A child of NSGA-II may equal its parent.
    assert len(found) == 12 and len({c["point"] for c in found}) > 8
    assert 1 <= sum(c["on_front"] for c in found) <= 12 and all(len(c["objectives"]) == 2 for c in found)


def test_full_checkpoints_beside_adapters_are_merged_in_place(files: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The same policies, one of them as a whole model: completions are the same except for rounding."""
    own = Path(shutil.copytree(files, tmp_path / "own"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(own / "sft"), own / "policies" / "open")
    shutil.rmtree(own / "policies" / "open")
    model.merge_and_unload().save_pretrained(own / "policies" / "open")
    status, output = command("run", write_soup_spec(own, controls=[]), "--out", tmp_path / "run")
    assert status == 0, output
    made = {}
    for name, run in (("whole", tmp_path / "run"), ("apart", undisturbed)):
        ids = {c["recipe_id"]: (c["arm"], c["point"]) for c in rows(run, "candidates") if c["arm"] in ("soup", "LiNeS")}
        kept = [c for c in rows(run, "completions") if c["recipe_id"] in ids]
        made[name] = {(ids[c["recipe_id"]], c["split"], c["index"]): c["completion"] for c in kept}
    assert made["whole"].keys() == made["apart"].keys()
    same = sum(made["whole"][key] == made["apart"][key] for key in made["whole"])
    assert same >= 0.95 * len(made["whole"])


@pytest.mark.parametrize(("arm", "point"), [("LiNeS", "0.5"), ("soup", "0")])
def test_a_point_is_exported_and_its_card_loads_the_model_that_was_scored(
    files: Path, undisturbed: Path, tmp_path: Path, arm: str, point: str
) -> None:
    words = ["export", undisturbed, "--arm", arm, "--point", f"lambda={point}", "-o", tmp_path / "out"]
    status, output = command(*words)
    assert status == 0, output
    card = (tmp_path / "out" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("PATH/TO/THIS/FOLDER", str(tmp_path / "out"))
    code = code.replace("PATH/TO/sft", str(files / "sft"))
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - a card of our own
    found = [c for c in rows(undisturbed, "candidates") if c["arm"] == arm]
    chosen = next(c["recipe_id"] for c in found if json.loads(c["point"])["lambda"] == float(point))
    kept = [c for c in rows(undisturbed, "completions") if (c["recipe_id"], c["split"]) == (chosen, "test")]
    tokenizer = names["tokenizer"]
    for row in kept:
        ids = tokenizer(row["prompt"], return_tensors="pt")
        made = names["model"].generate(**ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        text = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.strip() == row["completion"]


def test_a_point_that_was_not_tried_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    words = ["export", undisturbed, "--arm", "soup", "--point", "lambda=0.3", "-o", tmp_path / "out"]
    status, output = command(*words)
    assert status == 2 and "--point lambda=0.3: was not tried by soup; its points: lambda=0.0; lambda=0.5" in output
