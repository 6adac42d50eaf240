"""The YAML configuration of a task of lm-eval, with what the spec changes."""

from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from tasks.language.lm_eval.catalogue import find_task
from tasks.language.lm_eval.options import Options

#: Fields of `dataset_kwargs` that hold paths.
_PATHS = ("data_files", "data_dir")


class Refused(ValueError):
    """The spec asks for what the task does not have or does not allow."""


def read_configuration(name: str, options: Options) -> dict[str, Any]:
    """Return the configuration of a task; paths of data next to its file are absolute.

    Raises:
        Refused: if the name is unknown, or the task runs code that the model writes and the spec does not allow it.
    """
    installed = Path(lm_eval.tasks.__file__).parent
    try:
        path = find_task(name, (*([options.include_path] if options.include_path else []), installed))
    except ValueError as error:
        raise Refused(str(error)) from error
    # Before any function is imported: some run code to see whether they may.
    if load_yaml(path, resolve_func=False).get("unsafe_code") and not options.confirm_run_unsafe_code:
        raise Refused(
            f"runs code that the model writes, with your rights: set {options.where}.confirm_run_unsafe_code: true if "
            "this machine may run it"
        )
    config: dict[str, Any] = load_yaml(path, resolve_func=True)
    folder = path.parent
    data = config.get("dataset_path")
    if isinstance(data, str) and data.startswith(("./", "../")):
        config["dataset_path"] = _near(data, folder)
    given = config.get("dataset_kwargs") or {}
    # Code of data sets never runs.
    kept = {key: value for key, value in given.items() if key != "trust_remote_code"}
    config["dataset_kwargs"] = {key: _near(value, folder) if key in _PATHS else value for key, value in kept.items()}
    return config


def _near(value: Any, folder: Path) -> Any:
    """Make relative paths that exist in `folder` absolute; lm-eval takes them from the working folder."""
    if isinstance(value, dict):
        return {key: _near(part, folder) for key, part in value.items()}
    if isinstance(value, list):
        return [_near(part, folder) for part in value]
    if isinstance(value, str) and value and not Path(value).is_absolute() and "://" not in value:
        return str(folder / value) if any(folder.glob(value)) else value
    return value


def build_task(config: dict[str, Any], options: Options) -> Any:
    """Build lm-eval's task of a configuration, which reads its data set, and set what the spec changes."""
    (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    _set_generation(task, options)
    _set_fewshot(task, options)
    return task


def _set_generation(task: Any, options: Options) -> None:
    if not options.gen_kwargs:
        return
    if task.OUTPUT_TYPE != "generate_until":
        raise Refused(f"{options.where}.gen_kwargs: the task generates nothing ({task.OUTPUT_TYPE}); leave it out")
    task.set_config(key="generation_kwargs", value=dict(options.gen_kwargs), update=True)


def _set_fewshot(task: Any, options: Options) -> None:
    own = task.get_config("num_fewshot")
    if options.num_fewshot is not None:
        if own == 0 and options.num_fewshot:
            raise Refused(
                f"{options.where}.num_fewshot: the task is defined with 0, which lm-eval never changes; leave it out"
            )
        task.set_config(key="num_fewshot", value=options.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
