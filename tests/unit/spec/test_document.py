"""Proves that docs/reference/spec.md describes every field as the models do, and that its examples are valid."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.plan.plan import make_plan
from pipeline.spec.arena import Arena, Budget
from pipeline.spec.arms import Arm, Merge, Race, ScalingSpec, Search, Select, StepSpec
from pipeline.spec.exhibits import (
    BarsExhibit,
    Cell,
    CoefficientsExhibit,
    CurveExhibit,
    HeatmapExhibit,
    PathExhibit,
    ScatterExhibit,
    TableExhibit,
)
from pipeline.spec.generation import Generation, Prompts
from pipeline.spec.load import parse_spec
from pipeline.spec.resources import PerReward, PerWorker, Resources
from pipeline.spec.run import Controls, RunSpec
from pipeline.spec.sources import BackboneSpec, TaskSpec
from pipeline.spec.thresholds import ArmThreshold, Regress, Threshold
from pipeline.spec.values import Grid, Range

DOCUMENT = (Path(__file__).parents[3] / "docs" / "reference" / "spec.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "The run": RunSpec,
    "backbone": BackboneSpec,
    "tasks and ood, in full": TaskSpec,
    "arena": Arena,
    "budget": Budget,
    "arms": Arm,
    "merge": Merge,
    "a step after a merge": StepSpec,
    "scaling": ScalingSpec,
    "search": Search,
    "race, a way to stop": Race,
    "select": Select,
    "controls": Controls,
    "resources": Resources,
    "per_worker": PerWorker,
    "per_reward": PerReward,
    "regress": Regress,
    "an arm's thresholds": ArmThreshold,
    "a task's thresholds": Threshold,
    "generation": Generation,
    "prompts": Prompts,
    "grid": Grid,
    "range": Range,
    "exhibits of kind table": TableExhibit,
    "a cell of a table, in full": Cell,
    "exhibits of kind curve": CurveExhibit,
    "exhibits of kind scatter": ScatterExhibit,
    "exhibits of kind path": PathExhibit,
    "exhibits of kind coefficients": CoefficientsExhibit,
    "exhibits of kind heatmap": HeatmapExhibit,
    "exhibits of kind bars": BarsExhibit,
}


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default()
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple):
        return f"`{', '.join(map(str, value))}`" if value else "none"
    return "none" if value is None or value == {} else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table(model: type[BaseModel]) -> str:
    """The table of a model's fields, as the document must have it."""
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", r"\|")
        rows.append(f"| `{name}` | {default_of(field)} | {meaning} |")
    return "\n".join(rows)


def test_every_model_has_a_section() -> None:
    assert {m.__name__ for m in SECTIONS.values()} == {"RunSpec", *RunSpec.model_json_schema()["$defs"]}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_document_and_the_models_agree(section: str) -> None:
    expected = table(SECTIONS[section])
    text = DOCUMENT.split(f"### {section}\n", 1)[1].split("\n#", 1)[0]
    assert expected in text, f"docs/reference/spec.md, section {section}: put this table there:\n{expected}"


def test_the_examples_are_valid() -> None:
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml[^\n]*\n(.*?)```", DOCUMENT, re.DOTALL)]
    whole, *parts = examples
    assert len(parts) >= 3
    for part in parts:
        plan = make_plan(parse_spec({**whole, **part}))
        assert plan.searched
