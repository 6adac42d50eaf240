"""Load text tasks: `text/NAME` for the published ones, a folder of rows for one's own."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.base import Backbone, Task, TaskRequest
from tasks.language.text.answers import AnswerBatch
from tasks.language.text.backbone import LanguageBackbone, as_language, has_encoder
from tasks.language.text.encoding import Encoder
from tasks.language.text.examples import Example, check_choices, fingerprint, repeats
from tasks.language.text.options import Options
from tasks.language.text.own import ANSWER_OPTIONS, CHOICE_OPTIONS, OwnRows, own_examples
from tasks.language.text.perplexity import load_documents
from tasks.language.text.published import PublishedTask, published_rows, published_task
from tasks.language.text.ranking import ChoiceBatch
from tasks.language.text.task import Batch, TextTask, by_length
from tasks.language.text.templates import PublishedTemplate, published_templates
from tasks.language.text.training import training_samples, without_scored
from tasks.metrics import BITS_PER_BYTE
from tasks.registry import near

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
ACCURACY, SQUAD = "accuracy", "squad"
_METRICS = (ACCURACY, SQUAD, BITS_PER_BYTE)
_RANKED = ("length_normalised", "delimiter")
_COMMON = ("metric", "batch_size", "max_prompt_tokens")
#: Tam et al. read the first 512 tokens of a prompt, and let an answer have 64.
_PUBLISHED_LENGTH, _NEW_TOKENS = 512, 64
#: Part of every fingerprint: raised when a sample would be scored in another way.
_FORMAT = "1"


def load(request: TaskRequest, backbone: Backbone, progress: Progress | None = None) -> Task:
    """Load one's own task by options.metric: rows with choices, with answers (squad), or documents (bits_per_byte).

    Raises:
        ValueError: if an option or a row is wrong; the field, or the file and the row, is named.
    """
    model = as_language(backbone)
    metric = request.options.get("metric", ACCURACY)
    if metric not in _METRICS:
        raise ValueError(f"tasks.{request.name}.options.metric: {near(str(metric), _METRICS)}, got {metric!r}")
    if metric == BITS_PER_BYTE:
        return load_documents(request, model)
    if Path(request.source).expanduser().is_file():
        raise ValueError(
            f"{request.source}: is a file of documents: set tasks.{request.name}.options.metric: {BITS_PER_BYTE}, or "
            "name a folder of rows"
        )
    ranked = metric == ACCURACY
    own = (*CHOICE_OPTIONS, *_RANKED) if ranked else (*ANSWER_OPTIONS, "max_new_tokens")
    options = Options(request, (*_COMMON, *own))
    examples = own_examples(request.source, _limits(request), OwnRows(options, ranked))
    for example in (e for some in examples.values() for e in some if ranked):
        check_choices(example)
        if twice := repeats(example):
            raise ValueError(f"{example.where}: its choices repeat: {twice}; each must differ, or none can be right")
    return _task(request, model, options, examples, str(metric), options.count("max_prompt_tokens", None))


def load_published(request: TaskRequest, backbone: Backbone, progress: Progress | None = None) -> Task:
    """Load a task of published.yaml.

    Raises:
        ValueError: if there is no such task, an option is wrong, or its rows or templates cannot be had.
    """
    model, name = as_language(backbone), request.source.removeprefix("text/")
    task = published_task(name)
    options = Options(
        request, ("root", "templates", "template", "batch_size", "max_prompt_tokens", "max_new_tokens", *_RANKED)
    )
    templates = _chosen(options, task)
    root = _folder(options, "root")
    examples: dict[str, list[Example]] = {}
    for split, limit in _limits(request).items():
        where, rows = published_rows(name, task.rows(split), root)
        examples[split] = [
            _published_example(task, templates[i % len(templates)], row, f"{where}: row {i + 1}")
            for i, row in enumerate(rows[:limit])
        ]
    _warn(request, task, examples)
    longest = options.count("max_prompt_tokens", _PUBLISHED_LENGTH if has_encoder(model) else None)
    return _task(request, model, options, examples, task.metric, longest)


def _published_example(
    task: PublishedTask, template: PublishedTemplate, row: Mapping[str, object], where: str
) -> Example:
    prompt, choices = template.apply(row, where)
    if task.metric == SQUAD:
        answers = row.get("answers")
        texts = answers.get("text") if isinstance(answers, Mapping) else None
        if not texts:
            raise ValueError(f"{where}: has no answers")
        return Example(where, prompt, answers=tuple(map(str, texts)))
    example = Example(where, prompt, choices, task.label.of(row, where))
    check_choices(example)
    return example


def _chosen(options: Options, task: PublishedTask) -> Sequence[PublishedTemplate]:
    """Return the templates that samples use in turn: all, or the one that the spec names by its number."""
    metrics = {ACCURACY: ("Accuracy",), SQUAD: ("Squad",)}[task.metric]
    which = task.templates
    try:
        found = published_templates(which.place, _folder(options, "templates"), metrics, which.dropped)
    except ValueError as error:
        raise ValueError(f"{options.where.removesuffix('.options')}: {error}") from error
    if len(found) != which.count:
        names = ", ".join(template.name for template in found)
        raise ValueError(
            f"{options.where}.templates: {which.place} has {len(found)} templates of the original task, and the "
            f"published task {which.count}: use promptsource 0.2.3; found {names or 'none'}"
        )
    index = options.raw("template")
    if index is None or index == "mod":
        return found
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(found):
        raise options.wrong("template", f"mod, or a number from 0 to {len(found) - 1}")
    return [found[index]]


def _warn(request: TaskRequest, task: PublishedTask, examples: Mapping[str, Sequence[Example]]) -> None:
    where = f"tasks.{request.name}: {request.source}"
    if task.note:
        logger.warning("%s: %s", where, task.note)
    if twice := sum(bool(repeats(example)) for some in examples.values() for example in some):
        logger.warning("%s: in %d samples choices repeat; of equal choices the first is taken", where, twice)


def _task(
    request: TaskRequest,
    model: LanguageBackbone,
    options: Options,
    examples: Mapping[str, list[Example]],
    metric: str,
    longest: int | None,
) -> TextTask:
    """Cut examples into batches of choices or of prompts to answer."""
    size, delimiter = options.batch_size(model), options.get("delimiter", str, " ")
    normalised, new = options.get("length_normalised", bool, False), options.count("max_new_tokens", _NEW_TOKENS)
    assert new is not None
    encoder = Encoder(model, delimiter, longest)
    training = None
    if request.train:
        examples = without_scored(request, examples)
        training = training_samples(f"tasks.{request.name}", examples["train"], encoder, model)

    def batches(some: Sequence[Example]) -> Sequence[Batch]:
        if metric == ACCURACY:
            encoded = [encoder.choices(example) for example in some]
            return [ChoiceBatch(b, model, normalised) for b in by_length(encoded, [e.longest for e in encoded], size)]
        prompts = [(encoder.prompt(example, new), example.answers) for example in some]
        cut = by_length(prompts, [len(tokens) for tokens, _ in prompts], size)
        return [AnswerBatch([t for t, _ in b], [a for _, a in b], model, new) for b in cut]

    how = (_FORMAT, metric, size, delimiter, normalised, longest, new if metric == SQUAD else None)
    mark = fingerprint(examples, how)
    scored = {split: batches(some) for split, some in examples.items() if split != "train"}
    return TextTask(request.name, scored, mark, training=training)


def _limits(request: TaskRequest) -> dict[str, int | None]:
    """Return the splits to read; training needs all rows, to leave those out that are scored."""
    if request.train:
        return dict.fromkeys(("train", "val", "test"))
    return {split: request.limits.get(split) for split in ("val", "test")}


def _folder(options: Options, name: str) -> Path | None:
    given = options.get(name, str, "")
    if not given:
        return None
    if not (folder := Path(given).expanduser()).is_dir():
        raise ValueError(f"{options.where}.{name}: {given}: no such folder")
    return folder
