"""Proves that every YAML block of the README and the documents is valid: as a spec, or as a part put on top of one."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import PAGES, PART, ROOT, Block, blocks, spec_blocks

import lines_sweep
from pipeline.plan.plan import make_plan
from pipeline.spec.commands import command_of
from pipeline.spec.load import load_spec
from pipeline.spec.yaml_reader import read_yaml
from pipeline.train.finetune.spec import load_finetune_spec
from pipeline.train.ppo.spec import load_ppo_spec

LOAD = {"run": lambda path: make_plan(load_spec(path)), "finetune": load_finetune_spec, "ppo": load_ppo_spec}
WHOLE, PARTS = ([block for block in spec_blocks() if (block.title == PART) == part] for part in (False, True))


@pytest.mark.parametrize("block", WHOLE, ids=str)
def test_blocks_without_a_title_are_whole_specs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(block.text)
    LOAD[command_of(read_yaml(tmp_path / "spec.yaml"))](tmp_path / "spec.yaml")


@pytest.mark.parametrize("block", PARTS, ids=str)
def test_parts_are_valid_on_top_of_a_spec(block: Block, tmp_path: Path) -> None:
    (tmp_path / "rest.yaml").write_text(yaml.safe_dump(rest(block)))
    (tmp_path / "spec.yaml").write_text(f"extends: rest.yaml\n{block.text}")
    assert make_plan(load_spec(tmp_path / "spec.yaml")).searched


def rest(part: Block) -> dict[str, Any]:
    """A spec for a part: the first one of its page, else the demo; with experts and tasks that fit the part's."""
    runs = [block for block in WHOLE if block.page == part.page and "arms:" in block.text]
    whole = yaml.safe_load(runs[0].text if runs else (ROOT / "examples" / "demo.yaml").read_text())
    tasks = whole["tasks"]
    if experts := yaml.safe_load(part.text).get("experts"):
        del whole["experts"]
        tasks, whole["arms"] = list(experts), {"sum": {"merge": "sum"}}
    return {**whole, "tasks": {name: f"embedded/{name}" for name in tasks} if isinstance(tasks, list) else tasks}


def test_every_block_has_a_known_kind() -> None:
    assert len(WHOLE) >= 8 and len(PARTS) >= 20 and len(blocks("yaml")) - len(spec_blocks()) == 1
    fences = sum(page.read_text(encoding="utf-8").count("```yaml") for page in PAGES)
    assert fences == len(blocks("yaml")) == len(WHOLE) + len(PARTS) + 1
    assert {block.title for block in WHOLE} == {""}


def test_python_blocks_are_python_and_use_the_interface_as_it_is() -> None:
    assert len([compile(block.text, str(block), "exec") for block in blocks("python")]) > 8
    named = {name for page in PAGES for name in re.findall(r"\blines\.(\w+)\(", page.read_text(encoding="utf-8"))}
    assert {"run", "merge"} <= named <= set(lines_sweep.__all__)
