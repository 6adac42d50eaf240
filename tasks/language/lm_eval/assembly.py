"""Put a task of lm-eval together: configuration, data set, documents, metric, identity."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants
from lm_eval.models.utils import normalize_gen_kwargs

from tasks.base import TaskRequest
from tasks.files.cache import digest
from tasks.files.hub import hub_silence
from tasks.language.lm_eval.configuration import Refused, build_task, read_configuration
from tasks.language.lm_eval.documents import Documents, documents_of
from tasks.language.lm_eval.identity import fingerprint
from tasks.language.lm_eval.metrics import choose_metric
from tasks.language.lm_eval.model import generation_file
from tasks.language.lm_eval.options import Options
from tasks.language.lm_eval.quiet import quiet, seeded
from tasks.language.lm_eval.requests import prepare_examples
from tasks.language.lm_eval.rolling import is_rolling
from tasks.language.lm_eval.task import LmEvalTask

logger = logging.getLogger(__name__)

#: Readers of `datasets` for files that a task names.
_FILES = {"json", "csv", "text", "parquet", "arrow", "pandas"}
#: Fields of a configuration that name a data set.
_DATA = ("dataset_path", "dataset_name")
#: Errors of lm-eval and of `datasets` that do not explain themselves.
_MEANS: dict[type[Exception], str] = {
    KeyError: ": a split, a field or a metric of this name does not exist",
    StopIteration: ": a data file is empty",
}
_MAX_GENERATED = 256


def assemble(request: TaskRequest, options: Options, backbone: Any) -> LmEvalTask:
    """Load a task whose options are checked.

    Raises:
        ValueError: see `tasks.language.lm_eval.loading.load`; all but those of options begin with the source.
    """
    with _about(request.source, options), quiet(), seeded(options.seed):
        task = _read(request, options)
        _check(task, options, backbone)
        documents = _documents(task, options, request)
        _check_documents(documents, request, options)
        prepare_examples(task, documents, options.where)
        scored = choose_metric(task, options)
        generation = generation_file(backbone) if task.OUTPUT_TYPE == "generate_until" else None
        mark = fingerprint(task, documents, scored, options, generation)
        if is_rolling(task):  # outcomes are over the mean document's bytes, so a limit changes them all
            mark = digest([mark, repr(sorted(request.limits.items()))])[:16]
        return LmEvalTask(request.name, task, documents, scored, options, mark, request.limits)


def task_of(request: TaskRequest, options: Options) -> Any:
    """Return lm-eval's task, whose data set is then read.

    Raises:
        ValueError: as `assemble`, as far as no model is needed to know it.
    """
    with _about(request.source, options), quiet(), seeded(options.seed):
        return _read(request, options)


def _read(request: TaskRequest, options: Options) -> Any:
    """Read the configuration and the data set.

    Raises:
        ValueError: if the data set is not at hand, or lm-eval cannot read one of them.
    """
    config: dict[str, Any] = {}
    try:
        config = read_configuration(request.source.partition("/")[2], options)
        with _offline(_from_hub(config)):
            return build_task(config, options)
    except Refused:
        raise
    except (ConnectionError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        if not config:
            raise ValueError(f"lm-eval cannot read its YAML file: {_text(error)}") from error
        data = f"its data set {' '.join(str(config[key]) for key in _DATA if config.get(key))}"
        if isinstance(error, datasets.exceptions.DatasetGenerationError):
            raise ValueError(f"{data} cannot be read: {_text(error.__cause__ or error)}") from error
        raise ValueError(f"{data} is not at hand ({_text(error)}): {_remedy(config)}") from error
    except Exception as error:  # a task's own functions and templates raise anything
        raise _unreadable(error) from error


def _documents(task: Any, options: Options, request: TaskRequest) -> Documents:
    """Read the documents.

    Raises:
        ValueError: as `documents_of`, or if one of the task's functions fails.
    """
    try:
        return documents_of(task, options, request.test_only)
    except ValueError:
        raise
    except Exception as error:  # a task's own functions raise anything
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ValueError:
    cause = f"{type(error).__name__}: {_text(error)}{_MEANS.get(type(error), '')}"
    return ValueError(f"lm-eval cannot load it: {cause}")


@contextmanager
def _about(source: str, options: Options) -> Iterator[None]:
    """Put the source in front of errors that name no option.

    Raises:
        ValueError: if the block raises one.
    """
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(options.where) else f"{source}: {text}") from error


def _text(error: BaseException) -> str:
    """Return the start of an error's text, with the place that YAML names in its second line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _from_hub(config: Mapping[str, Any]) -> bool:
    path = config.get("dataset_path")
    return isinstance(path, str) and path not in _FILES and not Path(path).exists()


def _remedy(config: Mapping[str, Any]) -> str:
    if not _from_hub(config):
        return "put the files where the task's dataset_kwargs name them, relative to its YAML file"
    return (
        "load it once where the hub answers, with `lines prepare`, and copy the caches "
        f"{datasets.config.HF_DATASETS_CACHE} and {constants.HF_HUB_CACHE}; or give a folder as "
        "options.include_path with a YAML file of the task whose dataset_kwargs name local data_files"
    )


@contextmanager
def _offline(from_hub: bool) -> Iterator[None]:
    """Read data sets from the cache alone for the block if the hub gives no answer: retries take half a minute."""
    held = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if from_hub and hub_silence() is not None:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = held


def _check(task: Any, options: Options, backbone: Any) -> None:
    """Refuse what the model cannot do."""
    if getattr(task, "MULTIMODAL", False):
        raise ValueError("its documents hold images or sound, which a language model does not read")
    if is_rolling(task) and backbone.family != "causal":
        raise ValueError(
            f"measures texts as a whole (loglikelihood_rolling), which needs a backbone of family causal, "
            f"got {backbone.family}"
        )
    if options.apply_chat_template and backbone.tokenizer.chat_template is None:
        raise ValueError(f"{options.where}.apply_chat_template: the model's tokenizer has no chat template")
    if task.OUTPUT_TYPE == "generate_until" and backbone.family == "causal":
        longest = normalize_gen_kwargs(task.config.generation_kwargs, _MAX_GENERATED)["max_gen_toks"]
        if backbone.context is not None and longest >= backbone.context:
            raise ValueError(
                f"{options.where}.gen_kwargs.max_gen_toks: must be less than the model's context, {backbone.context}, "
                f"so that a prompt fits, got {longest}"
            )


def _check_documents(documents: Documents, request: TaskRequest, options: Options) -> None:
    """Require documents in every split, and warn if test is not what lm-eval scores.

    Raises:
        ValueError: if a split has none.
    """
    counts = {split: len(held.documents) for split, held in documents.splits.items()}
    name = documents.splits["test"].name
    for split, count in counts.items():
        if not count:
            how = f" after its {sum(counts.values())} were divided by {options.where}.val_fraction"
            raise ValueError(f"has no {split} documents in {name}{how * documents.divided}")
    if documents.divided:
        logger.warning(
            "tasks.%s: %s: scores the split %s alone: %d documents become val and %d test, so its test score is not "
            "lm-eval's own; options.val_split names another split for val",
            request.name,
            request.source,
            name,
            counts["val"],
            counts["test"],
        )
