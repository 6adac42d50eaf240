"""Proves that docs/guides/ppo.md describes every field of the spec of `lines ppo` as the models do."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.spec.generation import RewardSpec
from pipeline.train.ppo.spec import Kl, Lora, PolicyEntry, PpoSpec, PpoTraining, Sft

DOCUMENT = (Path(__file__).parents[3] / "docs" / "guides" / "ppo.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "The training": PpoSpec,
    "sft": Sft,
    "rewards": RewardSpec,
    "policies": PolicyEntry,
    "lora": Lora,
    "training": PpoTraining,
    "kl": Kl,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_described_by_its_docstring(section: str) -> None:
    text = DOCUMENT.split(f"### {section}\n", 1)[1].split("\n### ", 1)[0]
    for name, field in SECTIONS[section].model_fields.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert row.endswith(f"| {field.description} |"), (
            f"docs/guides/ppo.md, section {section}: {name}: {field.description}"
        )
