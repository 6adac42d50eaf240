"""Resolves the relative paths of a spec against its folder."""

import os
from pathlib import Path
from typing import Any, TypeVar

from pipeline.spec.generation import Prompts, RewardSpec, is_reward_source
from pipeline.spec.run import RunSpec
from pipeline.spec.sources import LM_EVAL, PUBLISHED_TEXT, ModelSpec, TaskSpec
from tasks.embedded import task_names
from tasks.files.sources import Source

_R = TypeVar("_R", TaskSpec, RewardSpec)
#: Options of rewards that hold paths.
_PATHS = ("model", "corpus")


def resolve_run_paths(spec: RunSpec, folder: Path) -> RunSpec:
    """Return the spec with its paths resolved against `folder`."""
    experts = {name: resolve_path(source, folder) for name, source in spec.experts.items()}
    changes = {**resolve_model_paths(spec, folder), "experts": experts, "ood": _resolve_tasks(spec.ood, folder)}
    if spec.generation is not None:
        changes["generation"] = spec.generation.model_copy(
            update={"prompts": resolve_prompts(spec.generation.prompts, folder)}
        )
    return spec.model_copy(update=changes)


def resolve_model_paths(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """Return a model's fields with paths that exist in `folder` made absolute, so that remote workers find them."""
    return {
        "base": resolve_path(spec.base, folder),
        "backbone": spec.backbone.model_copy(update={"model": resolve_path(spec.backbone.model, folder)}),
        "tasks": _resolve_tasks(spec.tasks, folder),
        # Other names are modules, even if the spec's folder has a file or folder of that name.
        "plugins": tuple(resolve_path(p, folder) if p.endswith(".py") else p for p in spec.plugins),
    }


def resolve_path(source: str, folder: Path) -> str:
    """Return `source` as an absolute path if it exists in `folder`, else unchanged."""
    if source.startswith("local-dir:"):
        return f"local-dir:{resolve_path(source.removeprefix('local-dir:'), folder)}"
    if Source.parse(source).kind != "path" or Path(source).is_absolute():
        return source
    # os.path: a name that is too long for the disk is not there; Path raises an error without the field.
    return str((folder / source).resolve()) if os.path.exists(folder / source) else source


def resolve_prompts(prompts: Prompts, folder: Path) -> Prompts:
    """Return the prompts with their source resolved against `folder`."""
    return prompts.model_copy(update={"source": resolve_path(prompts.source, folder)})


def _resolve_tasks(tasks: dict[str, TaskSpec], folder: Path) -> dict[str, TaskSpec]:
    return {name: _resolve(task, folder) for name, task in tasks.items()}


def _resolve(task: TaskSpec, folder: Path) -> TaskSpec:
    if is_reward_source(task.source):
        return resolve_reward(task, folder)
    if task.source.startswith(LM_EVAL):
        return task.model_copy(update={"options": _resolve_options(task.options, ("include_path",), folder)})
    if task.source.startswith(PUBLISHED_TEXT):
        return task.model_copy(update={"options": _resolve_options(task.options, ("root", "templates"), folder)})
    options = _resolve_options(task.options, ("head", "fitted_on"), folder)
    return task.model_copy(update={"source": _resolve_task(task.source, folder), "options": options})


def resolve_reward(reward: _R, folder: Path) -> _R:
    """Return the reward with its file, and the paths among its options, resolved against `folder`."""
    options = _resolve_options(reward.options, _PATHS, folder)
    file, colon, name = reward.source.rpartition(":")
    source = f"{resolve_path(file, folder)}:{name}" if colon else reward.source
    return reward.model_copy(update={"source": source, "options": options})


def _resolve_options(options: dict[str, Any], paths: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return {k: resolve_path(v, folder) if k in paths and isinstance(v, str) else v for k, v in options.items()}


def _resolve_task(source: str, folder: Path) -> str:
    """Resolve a task's source; a bare name that is no embedded task may be a file or folder next to the spec."""
    name = source.removeprefix("embedded/")
    bare = name != source and name not in task_names() and os.path.exists(folder / name)
    return resolve_path(name if bare else source, folder)
