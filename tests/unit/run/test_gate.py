"""Proves that the gate leaves out thirds, asks for validation once, and says what its thresholds say; and is kept."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, _uniform, toy_spec

from pipeline.inspection.gate_figure import gate_figure
from pipeline.inspection.rows import GATE, gate_rows
from pipeline.merging.scaling import LayerSizes, coefficients
from pipeline.messages import EvalRequest, Identity, ShardScore
from pipeline.plan.plan import corners, make_plan
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.gate import FILE_NAME, THIRDS, Gate, GatedEdit, RoleLosses, combination, thirds
from pipeline.report.tables.gate import gate_sentences, gate_tables
from pipeline.run.gate import gate_edits, planned_edits
from pipeline.spec.generation import Generation
from pipeline.storage.caches.gates import bring_gate, find_gate, keep_gate
from pipeline.storage.caches.scores import ScoreCache
from search.intervals import Interval
from tasks.stats import Stats

SPEC = toy_spec(
    arms={
        "fine-tuned": {"edit": "each_expert"},
        "LiNeS": {"edit": "each_expert", "scaling": {"function": "linear", "alpha": 0.5, "beta": 0.5}},
        "zero-shot": {"merge": {"method": "sum", "then": ["norm_match"]}, "scaling": {"alpha": 0}},
        "sum": {"merge": {"method": "sum", "then": ["norm_match"]}, "scaling": {"alpha": {"grid": [0.5, 1.0]}}},
        "again": {
            "merge": {"method": "sum", "then": ["norm_match"]},
            "scaling": {"function": "linear", "alpha": "auto", "beta": {"grid": [0.0, 0.5]}},
        },
    },
    controls=[],
)
#: What the update of each of the four blocks adds to the accuracy of its own task, and of each other task.
OWN, OTHER = np.array([0.02, 0.0, 0.1, 0.3]), np.array([-0.1, 0.0, 0.0, -0.05])


def accuracy(recipe: Recipe, task: str) -> float:
    sizes = LayerSizes(IDENTITY.outside_size, IDENTITY.block_sizes)
    lambdas = np.array(coefficients(recipe, sizes, float(recipe.alpha)).blocks) * (recipe.method != "zero")
    weights = recipe.weights or (1,) * len(TASKS)
    own, others = weights[TASKS.index(task)], sum(weights) - weights[TASKS.index(task)]
    return float(0.5 + (own * OWN + others * OTHER) @ lambdas)


class Blocks(ToyEvaluator):
    """Scores by what each block adds."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        self.evaluated.append(request)
        outcomes = self.outcomes(request.recipe, request.task, range(request.start, request.stop))
        if request.recipe.scaling == "grouped" and request.task == self._broken:
            raise ValueError("broken")
        total = float(outcomes.sum())
        return ShardScore(request, Stats(len(outcomes), total, total), outcomes, 1.0, (0.0, 0.0), self.name)

    def outcomes(self, recipe: Recipe, task: str, rows: range) -> np.ndarray:
        return np.array([_uniform(task, "val", i) < accuracy(recipe, task) for i in rows])


def measured(
    folder: Path,
    cache: ScoreCache | None = None,
    broken: str = "",
    identity: Identity = IDENTITY,
    samples: int | None = None,
) -> tuple[list[GatedEdit], Blocks]:
    folder.mkdir()
    worker, plan = Blocks(broken=broken), make_plan(SPEC)  # type: ignore[arg-type]
    if samples:
        data = {"prompts": {"source": "prompts"}, "max_new_tokens": 1, "temperature": 1, "samples": samples}
        generation = Generation.model_validate(data)
        plan = replace(plan, spec=plan.spec.model_copy(update={"generation": generation}))
    return gate_edits(plan, identity, folder, lambda: LocalPool(worker), cache), worker


def test_thirds_are_left_out_and_scores_are_those_of_validation_and_shared(tmp_path: Path) -> None:
    found, worker = measured(tmp_path / "gate", ScoreCache(tmp_path / "cache", IDENTITY))
    assert [(edit.kind, edit.name, edit.constant) for edit in found] == [
        *(("edit", task, 1) for task in TASKS),
        ("merge", "sum", 1),
    ]
    only = ("single [1, 0, 0] []", "single [0, 1, 0] []", "single [0, 0, 1] []")
    assert [edit.combined for edit in found] == [*only, "sum [] ['norm_match']"]
    assert [list(blocks) for blocks in thirds(4)] == [[0], [1], [2, 3]]
    cats, rows = found[0], range(IDENTITY.tasks["cats"][1])
    for third, lambdas in zip(THIRDS, ((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 0)), strict=True):
        expected = [_uniform("cats", "val", i) for i in rows]
        whole, without = (np.mean([u < 0.5 + OWN @ np.array(x) for u in expected]) for x in ((1, 1, 1, 1), lambdas))
        assert cats.roles["target"].cost[third].value == pytest.approx(whole - without)
    middle = cats.roles["target"].cost["middle"]
    assert (middle.value, middle.low, middle.high) == (0, -3 / 90, 3 / 90), "no answer differs: the rule of three"
    costs, over = cats.roles["control"].cost, cats.control_last_over_first
    assert costs["first"].value < 0 and over is not None
    assert over.value == pytest.approx(costs["last"].value - costs["first"].value)
    assert found[3].control_last_over_first is None, "a merge of all experts has no control tasks"
    asked = [request.key for request in worker.evaluated]
    assert len(asked) == len(set(asked)) and {request.split for request in worker.evaluated} == {"val"}
    again, worker = measured(tmp_path / "again", ScoreCache(tmp_path / "cache", IDENTITY))
    assert again == found and not worker.evaluated
    plan = make_plan(SPEC)
    of_the_run = {group.recipe(point) for group in plan.groups for point in group.space.grid()}
    assert {edit.whole(c) for edit in planned_edits(plan) for c in edit.constants} <= of_the_run


def test_merges_are_told_apart_by_parameters_and_by_what_is_searched(tmp_path: Path) -> None:
    keeps = {"few": 10, "some": {"grid": [5, 10, 90]}, "many": 90}
    arms = {
        name: {"merge": {"method": "ties", "params": {"keep": keep}}, "scaling": {"alpha": {"grid": [0.5, 1.0]}}}
        for name, keep in keeps.items()
    }
    edits = planned_edits(make_plan(toy_spec(arms=arms, controls=[])))
    combined = [f"ties:keep={keep} [] []" for keep in ("10", "*", "90")]
    assert [(edit.name, edit.combined) for edit in edits] == list(zip(keeps, combined, strict=True))
    gates = [Gate({}, {}, "", (GatedEdit("merge", "TIES", made, 1.0),)) for made in combined]
    assert [edit.combined for edit in gates[2].with_earlier(gates[0]).edits] == [combined[2], combined[0]]


def test_merges_with_searched_weights_are_told_apart_by_their_experts() -> None:
    grid = {"grid": [0.0, 0.5, 0.9]}
    weights = {"two": {"cats": grid, "dogs": grid}, "others": {"dogs": grid, "cars": grid}, "one": {"cats": grid}}
    weights["one"] |= {"dogs": 0.5, "cars": 0.3}
    scaling = {"function": "linear", "alpha": 0.5, "beta": {"grid": [0.1, 0.5]}}
    arms = {
        name + lines: {"merge": {"method": "weighted", "weights": of}, "experts": list(of), **scaled}
        for name, of in weights.items()
        for lines, scaled in (("", {}), (" + LiNeS", {"scaling": scaling}))
    }
    plan = make_plan(toy_spec(arms=arms, controls=[]))
    combined = {edit.name: edit.combined for edit in planned_edits(plan)}
    assert list(combined.values()) == [f"weighted {of} []" for of in ("[*, *, 0]", "[0, *, *]", "[*, 0.5, 0.3]")]
    for group in (g for g in plan.groups if g.arm in arms):
        made = {combination(group.template.recipe(point), point, TASKS) for point in corners(group)}
        assert made - {"zero [] []"} == {combined[group.arm.removesuffix(" + LiNeS")]}
    old, new = (GatedEdit("merge", "two", made, 1.0) for made in ("weighted * []", combined["two"]))
    of_both = Gate({}, {}, "", (new,)).with_earlier(Gate({}, {}, "", (old, replace(old, name="others"))))
    assert [(edit.name, edit.combined) for edit in of_both.edits] == [("two", new.combined), ("others", old.combined)]


def test_with_batch_normalisation_no_edit_keeps_the_statistics_of_a_file(tmp_path: Path) -> None:
    found, worker = measured(tmp_path / "gate", identity=replace(IDENTITY, calibration={"cats": 2}))
    assert not any(request.recipe.is_expert for request in worker.evaluated)
    assert found == measured(tmp_path / "other")[0], "in this toy a group of lambda 1 is the expert"


def test_completions_of_a_prompt_are_no_samples_of_their_own(tmp_path: Path) -> None:
    samples, prompts = (measured(tmp_path / str(n), samples=n)[0][0].roles["target"].gain for n in (1, 3))
    assert (samples.n, prompts.n) == (90, 30) and samples.value == pytest.approx(prompts.value)


def test_a_failure_is_a_record(tmp_path: Path) -> None:
    found, _ = measured(tmp_path / "gate", broken="dogs")
    assert all("broken" in edit.failure and edit.predicted.word == "open" and not edit.roles for edit in found)
    assert "broken" in gate_sentences(found)[0]


def test_a_gate_is_kept_for_runs_of_the_same_checkpoints_and_data(tmp_path: Path) -> None:
    cats, *others = measured(tmp_path / "gate")[0]
    keep_gate(tmp_path, IDENTITY, Gate.of(IDENTITY, others))
    keep_gate(tmp_path, IDENTITY, Gate.of(IDENTITY, [cats]))
    (tmp_path / "run").mkdir()
    bring_gate(tmp_path, IDENTITY, tmp_path / "run")
    written = json.loads((tmp_path / "run" / FILE_NAME).read_text())["gate"]
    gate = Gate.from_json(written)
    assert gate.edits == (cats, *others) and gate == find_gate(tmp_path, IDENTITY)
    (tmp_path / "run" / FILE_NAME).write_text("{}")
    bring_gate(tmp_path, IDENTITY, tmp_path / "run")
    assert (tmp_path / "run" / FILE_NAME).read_text() == "{}", "what was predicted first stays"
    for damaged in ({}, {**written, "version": 1}, {**written, "edits": [{}]}):
        with pytest.raises(ValueError, match="inspect"):
            Gate.from_json(damaged)
    assert len(gate_rows(gate)) == 3 * 8 + 4 and set(gate_rows(gate)[0]) == set(GATE.names)
    assert [len(table.rows) for table in gate_tables(gate.edits)] == [4, 3] and len(gate_figure(gate.edits).panels) == 2


def test_a_gate_that_cannot_be_kept_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    keep_gate(tmp_path / "file", IDENTITY, Gate.of(IDENTITY, []))
    assert "not kept" in caplog.text and find_gate(tmp_path / "file", IDENTITY) is None


def test_gates_that_are_kept_at_once_are_all_kept(tmp_path: Path) -> None:
    names = [f"merge {number}" for number in range(6)]
    gates = [Gate.of(IDENTITY, [GatedEdit("merge", name, "sum [] []", 1.0)]) for name in names]
    with ThreadPoolExecutor(len(gates)) as threads:
        list(threads.map(lambda gate: keep_gate(tmp_path, IDENTITY, gate), gates))
    kept = find_gate(tmp_path, IDENTITY)
    assert kept is not None and sorted(edit.name for edit in kept.edits) == names


def interval(value: float, width: float = 0.004) -> Interval:
    return Interval(value, value - width, value + width, 500)


@pytest.mark.parametrize(
    ("gain", "first", "over", "control", "word", "why"),
    [
        (0.3, 0.004, 0.16, (-0.17, -0.02), "room", "free"),
        (0.3, 0.08, 0.09, (-0.17, -0.02), "no room", "needed"),
        (0.3, 0.004, 0.002, (-0.17, -0.02), "no room", "even"),
        (0.3, 0.004, 0.16, (-0.001, -0.02), "no room", "nothing lost"),
        (0.3, 0.004, 0.16, (-0.17, 0.04), "no room", "not given back"),
        (0.3, 0.004, 0.16, (-0.17, -0.02, -0.05), "no room", "lost deep"),
        (0.3, 0.004, 0.16, (-0.17, -0.02, -0.003), "room", "free"),
        (0.0, 0.01, 0.16, (-0.17, -0.02), "open", "nothing gained"),
        (0.3, 0.01, 0.16, (-0.17, -0.02), "open", "unsure"),
    ],
)
def test_the_gate_says_what_its_thresholds_say(
    gain: float, first: float, over: float, control: tuple[float, ...], word: str, why: str
) -> None:
    roles = {
        role: RoleLosses(interval(whole), dict.fromkeys(THIRDS, interval(cost)))
        for role, whole, cost in (("target", gain, first), ("control", *control[:2]))
    }
    deep = [interval(value) for value in control[2:]]
    edit = GatedEdit("edit", "cats", "single [1, 0, 0] []", 1.0, True, roles, interval(over), *deep)
    assert (edit.predicted.word, edit.predicted.why) == (word, why)
    bits = {name.replace("control", "control (bits per byte)"): losses for name, losses in roles.items()}
    assert why == "nothing lost" or replace(edit, roles=bits).predicted == edit.predicted
    assert gate_sentences([edit])[0].startswith(f"cats: removing the first third costs the target {100 * first:.1f} [")
