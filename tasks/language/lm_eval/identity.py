"""The identity of an lm-eval task: all that its scores depend on besides the model."""

import functools
import json
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.files.cache import digest
from tasks.language.lm_eval.documents import Documents, content_key
from tasks.language.lm_eval.options import Options

#: Fields of a configuration that say where documents come from, which are hashed themselves, or that scores ignore.
_APART = {"dataset_path", "dataset_name", "dataset_kwargs", "custom_dataset", "config_source", "tag", "task_alias"}


def fingerprint(
    task: Any, documents: Documents, scored: tuple[str, str], options: Options, generation: Path | None = None
) -> str:
    """Return the content hash of a task.

    Args:
        task: of lm-eval, with the options applied.
        documents: its val and test.
        scored: the metric, and the filter of answers.
        options: of the spec.
        generation: file with the model's settings of generation, if the task generates.
    """
    how = [options.seed, options.apply_chat_template, options.system_instruction, options.batch_size, documents.divided]
    parts = ["lm_eval", metadata.version("lm_eval"), *scored, json.dumps(how), _text(task.config), _text(type(task))]
    if generation is not None:
        parts.append(generation.read_text(encoding="utf-8"))
    for split in documents.splits.values():
        parts += [str(len(split.keys)), *split.keys]
    if task.config.num_fewshot:
        parts += map(content_key, examples(task))
    return digest(parts)[:16]


def examples(task: Any) -> Iterable[Any]:
    """Return the documents that few-shot examples are drawn from."""
    sampler = getattr(task, "sampler", None)
    found: Iterable[Any] = task.fewshot_docs() if sampler is None else sampler.df
    return found


def _text(value: Any) -> str:
    """Return a configuration as text that holds no path of this machine; functions by the content of their file."""
    if isinstance(value, functools.partial):
        return _text([value.func, value.args, value.keywords])
    if is_dataclass(value) and not isinstance(value, type):
        return _text({f.name: getattr(value, f.name) for f in fields(value)})
    if isinstance(value, dict):
        kept = sorted((str(key), _text(part)) for key, part in value.items() if key not in _APART)
        return json.dumps(kept)
    if isinstance(value, list | tuple):
        return json.dumps([_text(part) for part in value])
    return _code(value) if callable(value) else repr(value)


def _code(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = code.co_filename if code else getattr(module, "__file__", None)
    return f"{name} {digest([Path(file).read_bytes()])}" if file and Path(file).is_file() else name
