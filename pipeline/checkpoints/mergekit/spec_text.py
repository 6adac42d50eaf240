"""The spec of `lines run` that has a recipe of mergekit as an arm, as YAML with comments."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.checkpoints.mergekit.arms import ArmOfRecipe, arm_of
from pipeline.checkpoints.mergekit.schedule import Schedule
from pipeline.checkpoints.mergekit.sources import sources_of
from pipeline.merging.methods import METHODS
from pipeline.spec.load import parse_spec
from tasks.files.sources import Source

#: Characters that names of a spec may have.
_NAME = re.compile(r"[^\w .,+()=-]")
#: Stands for tasks if none are given.
_TASKS = """\
# What is scored, on validation while searching and on test at the end. Remove the # and put your own tasks here:
# docs/guides/language-models.md lists them. `targets` names the task that each expert was trained for.
# tasks:
#   science: lm_eval/arc_easy
#   answers: {source: data/answers}
# targets:
"""


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """What a recipe does not have and a spec needs.

    Attributes:
        folder: of the spec; paths are written as seen from it.
        tasks: name -> source.
        base: the pre-trained model, for recipes without one.
    """

    folder: Path
    tasks: Mapping[str, str]
    base: str | None = None


def spec_text(schedule: Schedule, options: SpecOptions) -> str:
    """Return a spec as YAML.

    Raises:
        ValueError: if a spec cannot hold the recipe, it has no base and none is given, or a task is not valid.
    """
    recipe, arm = schedule.recipe, arm_of(schedule)
    sources = sources_of(recipe)
    base = _base(schedule, arm, options)
    names = _names(arm.experts)
    start = sources[base].model if base in sources else base
    experts = {}
    for name, model in zip(names, arm.experts, strict=True):
        source = sources[model]
        if source.adapter and source.model != start:
            raise ValueError(f"{recipe.path}: {model}: is an adapter on {source.model}, but the base is {start}")
        written = model.rpartition("+")[2] if source.adapter else model
        experts[name] = _path(source.adapter or source.model, written, options.folder)
    family, known = _family(start)
    backbone: dict[str, Any] = {"family": family, "model": _path(start, base, options.folder)}
    if (precision := recipe.config.out_dtype or recipe.config.dtype) and precision != "float32":
        backbone["precision"] = precision
    head = {"name": _name(recipe.path.stem), "backbone": backbone, "base": backbone["model"], "experts": experts}
    first = next(iter(options.tasks), "")
    targets = {name: first for name in names if name not in options.tasks}
    tasks = {"tasks": dict(options.tasks), **({"targets": targets} if targets else {})}
    merge = _merge(arm, names)
    name, scaling = f"{recipe.config.merge_method} of mergekit", {} if arm.scaling == {"alpha": 1.0} else arm.scaling
    arms = {name: {"merge": merge, **({"scaling": scaling} if scaling else {})}}
    controls = {"controls": ["uniform", "reversed"]} if "function" in arm.scaling else {}
    if options.tasks:
        parse_spec({**head, **tasks, "arms": arms, **controls}, "--task")
    parts = [
        f"# Made of {recipe.path.name}, a recipe of mergekit. The guide: docs/guides/mergekit.md\n",
        "" if known else "# The family is a guess: causal, seq2seq or encoder.\n",
        _yaml(head),
        _yaml(tasks) if options.tasks else _TASKS + "".join(f"#   {name}: science\n" for name in names),
        "arms:\n",
        _arm(name, arms[name]),
        "" if controls else _lines_arm(arm, merge),
        _yaml(controls) if controls else "",
    ]
    return "".join(parts)


def _base(schedule: Schedule, arm: ArmOfRecipe, options: SpecOptions) -> str:
    method = schedule.recipe.config.merge_method
    if arm.base is not None:
        if options.base is not None:
            raise ValueError(f"--base: the recipe has one, {arm.base}; leave --base out")
        return arm.base
    if options.base is None:
        raise ValueError(
            f"--base: is required, as {method} in this recipe has no base and a run needs the model that its experts "
            "were trained from; the merge is the same with any base"
        )
    return options.base


def _merge(arm: ArmOfRecipe, names: Sequence[str]) -> str | dict[str, Any]:
    if not arm.params and not arm.weights:
        return arm.method
    weights = {"weights": dict(zip(names, arm.weights, strict=True))} if arm.weights else {}
    return {"method": arm.method, **({"params": dict(arm.params)} if arm.params else {}), **weights}


def _lines_arm(arm: ArmOfRecipe, merge: str | Mapping[str, Any]) -> str:
    """Return a search of LiNeS over the same merge, as a comment."""
    alpha = {"grid": [0.5, 0.75, 1.0]} if METHODS[arm.method].whole else "auto"
    scaling = {"function": "linear", "alpha": alpha, "beta": {"grid": [0.0, 0.25, 0.5]}}
    text = _arm("the same merge with LiNeS", {"merge": merge, "scaling": scaling}) + "controls: [uniform, reversed]\n"
    return "# Remove the # to search a merge that grows with depth, and its controls.\n" + "".join(
        f"#{line}\n" for line in text.splitlines()
    )


def _arm(name: str, fields: Mapping[str, Any]) -> str:
    """Return an arm with each field in one line."""
    lines = [f"    {key}: {value if isinstance(value, str) else _flow(value)}\n" for key, value in fields.items()]
    return f"  {name}:\n{''.join(lines)}"


def _flow(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, default_flow_style=True, width=10_000).strip()


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, width=110)


def _name(text: str) -> str:
    return _NAME.sub("-", text).lstrip(" .,+()=-") or "mergekit"


def _names(models: Sequence[str]) -> list[str]:
    """Return a name for each expert: the last part of its path or repository, with a number if it is there twice."""
    names: list[str] = []
    for model in models:
        last = model.rpartition("+")[2].rstrip("/").rpartition("/")[2]
        name = _name(last.partition("@")[0])
        if name in names or name == "base":
            name = f"{name}-{len(names) + 1}"
        names.append(name)
    return names


def _path(source: str, written: str, folder: Path) -> str:
    """Return a source as the spec's folder sees it; a path that the user wrote in full stays so."""
    if Source.parse(source).kind != "path" or Path(written).expanduser().is_absolute():
        return source
    return os.path.relpath(source, folder)


def _family(source: str) -> tuple[str, bool]:
    """Return the family of a model by its config.json, and whether there is one on this machine."""
    config = Path(source) / "config.json"
    if not config.is_file():
        return "causal", False
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.get("is_encoder_decoder"):
        return "seq2seq", True
    return ("causal" if any("CausalLM" in name for name in content.get("architectures") or ()) else "encoder"), True
