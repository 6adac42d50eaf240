"""Proves that a report says whether the gate of an inspection was right, and ignores one of other checkpoints."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_run import EXPERTS, SAMPLES, UNTRUSTED

from pipeline.recipe import Recipe
from pipeline.records.gate import FILE_NAME, THIRDS, Gate, GatedEdit, RoleLosses
from pipeline.records.provenance_file import read_provenance
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow
from pipeline.report.tables.predicted import predicted
from search.intervals import Interval


def gated(expert: str, first: float) -> GatedEdit:
    """Return an edit of which the gate says: room at 0, no room at 0.1, open at 0.01."""
    found = {
        name: Interval(value, value - 0.002, value + 0.002, 300) for name, value in (("gain", 0.3), ("first", first))
    }
    losses = RoleLosses(found["gain"], dict.fromkeys(THIRDS, found["first"]))
    weights = [int(expert == name) for name in EXPERTS]
    return GatedEdit("edit", expert, f"single {weights} []", 1.0, True, {"target": losses}, found["gain"])


@pytest.fixture(scope="module")
def measure(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("predicted") / "run")
    provenance = read_provenance(folder / "provenance.json")
    tasks = {task["name"]: (task["fingerprint"], SAMPLES["val"]) for task in provenance["tasks"]}
    edits = [gated(expert, first) for expert, first in zip(EXPERTS, (0.0, 0.1, 0.1, 0.01), strict=True)]
    edits.append(replace(gated("digits", 0.1), kind="merge", name="any", combined="sum [] []"))
    gate = Gate(provenance["checkpoints"], tasks, "", tuple(edits))
    (folder / FILE_NAME).write_text(json.dumps({"gate": gate.to_json()}))
    return Measure.read(folder)


def test_a_report_says_what_was_predicted_and_what_came_of_it(measure: Measure) -> None:
    found = predicted(measure)
    assert found is not None
    rows = [[cell.text for cell in row] for row in found.table.rows]
    assert [row[0] for row in rows] == [*[UNTRUSTED] * 4, "task arithmetic + LiNeS"]
    assert [row[1] for row in rows] == ["room", "no room", "no room", "open", "no room"]
    assert found.table.rows[-1][0].plain == "task arithmetic + LiNeS (merge of any at λ = 1)"
    for _, word, shown, verdict, *_ in rows:
        assert verdict == (
            "open" if word == "open" else "right" if (word == "room") == (shown == "better") else "wrong"
        )
    lines = next(arm for arm in measure.arms if arm.name == UNTRUSTED)
    constant = next(arm for arm in measure.arms if arm.name == f"{UNTRUSTED}, constant")
    places = [p for p in measure.benches[0].over("target") if p.group == "digits"]
    difference = measure.difference(lines.chosen, constant.chosen, places, "test")
    assert difference is not None and found.table.rows[0][4].text == f"{100 * difference.value:+.1f}".replace("-", "−")
    right = [row[3] for row in rows].count("right")
    assert found.sentence.startswith(f"The gate was right in {right} of 4: room for 1, of which LiNeS beat")
    assert found.sentence.endswith("It left 1 open.")


@pytest.mark.parametrize(
    ("point", "edits", "judged"),
    [
        ({}, {"TIES 10": "ties:keep=10 [] []", "TIES 90": "ties:keep=90 [] []"}, "TIES 90"),
        ({}, {"task arithmetic + LiNeS": "ties:keep=10 [] []", "TIES": "ties:keep=* [] []"}, ""),
        ({"keep": 90}, {"TIES": "ties:keep=90 [] []", "wide": "ties:keep=* [] []"}, "wide"),
        (
            {f"weights.{EXPERTS[1]}": 0.3},
            {"another": "ties:keep=90 [*, 0.3, 0, 0.5] []", "mixed": "ties:keep=90 [0, *, 0, 0.5] []"},
            "mixed",
        ),
        ({f"weights.{EXPERTS[1]}": 0.3}, {"an old gate": "ties:keep=90 * []"}, ""),
        (
            {f"weights.{EXPERTS[1]}": 0.3},
            {"task arithmetic + LiNeS": "ties:keep=90 * []"},
            "task arithmetic + LiNeS",
        ),
        (
            {"keep": 90},
            {"wide": "ties:keep=* [] []", "task arithmetic + LiNeS": "ties:keep=* [] []"},
            "task arithmetic + LiNeS",
        ),
    ],
)
def test_a_merge_is_judged_by_one_with_its_parameters(
    measure: Measure, point: dict[str, object], edits: dict[str, str], judged: str, tmp_path: Path
) -> None:
    gate = Gate.from_json(json.loads((measure.run.folder / FILE_NAME).read_text())["gate"])
    merges = [replace(gated("digits", 0.1), kind="merge", name=name, combined=made) for name, made in edits.items()]
    (tmp_path / FILE_NAME).write_text(json.dumps({"gate": replace(gate, edits=tuple(merges)).to_json()}))
    arms = [replace(arm, candidates=tuple(as_ties(c, point) for c in arm.candidates)) for arm in measure.arms]
    found = predicted(Measure(replace(measure.run, folder=tmp_path), arms))
    leads = [row[0].plain for row in found.table.rows] if found else []
    assert leads == ([f"task arithmetic + LiNeS (merge of {judged} at λ = 1)"] if judged else [])


def as_ties(candidate: CandidateRow, point: dict[str, object]) -> CandidateRow:
    """Return a merge as one by TIES that keeps 90 per cent, of two experts if a weight is searched."""
    if candidate.kind != "merge":
        return candidate
    old = candidate.recipe
    weights = (0, 0.3, 0, 0.5) if any(name.startswith("weights.") for name in point) else ()
    recipe = Recipe.make("ties", old.scaling, old.alpha, old.beta, weights, {"keep": 90})
    return replace(candidate, recipe=recipe, point={**candidate.point, **point})


@pytest.mark.parametrize("damage", ["checkpoints", "tasks", "damaged", "absent"])
def test_a_gate_of_something_else_is_ignored(measure: Measure, damage: str, tmp_path: Path) -> None:
    gate = json.loads((measure.run.folder / FILE_NAME).read_text())
    if damage != "absent":
        gate["gate"][damage] = {name: ["0", 1] if damage == "tasks" else "0" for name in gate["gate"].get(damage, {})}
        (tmp_path / FILE_NAME).write_text("[" if damage == "damaged" else json.dumps(gate))
    assert predicted(Measure(replace(measure.run, folder=tmp_path), measure.arms)) is None
