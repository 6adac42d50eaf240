"""Load a task of texts and labels for an encoder: a folder of rows, and the head that the options name."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tasks.base import Backbone, Task, TaskRequest
from tasks.files.cache import digest
from tasks.language.encoder import EncoderBackbone
from tasks.language.rewards.config import parsed
from tasks.language.sentences.batches import SentenceBatch
from tasks.language.sentences.heads import OwnHead, PromptHead, SentenceHead, new_classifier
from tasks.language.sentences.options import SentenceOptions
from tasks.language.sentences.rows import LabelledText, labelled_texts
from tasks.language.sentences.task import SentenceTask
from tasks.language.sentences.training import SentenceTraining
from tasks.registry import near
from tasks.vision.heads import check_templates

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
#: Encoders without a bound of their own read this many tokens.
_LONGEST = 512
#: Texts a forward pass.
_CPU_BATCH, _ACCELERATOR_BATCH = 32, 128
#: Part of every fingerprint: raised when a sample would be scored in another way.
_FORMAT = "1"


def load(request: TaskRequest, backbone: Backbone, progress: Callable[[int, int], None] | None = None) -> Task:
    """Load val.jsonl and test.jsonl (or .parquet) of a folder.

    Raises:
        ValueError: if the backbone is no encoder, or an option or a row is wrong; the field or the row is named.
    """
    if not isinstance(backbone, EncoderBackbone):
        raise ValueError(f"backbone.family: must be encoder, got {backbone.family}")
    where = f"tasks.{request.name}."
    if "metric" in request.options:
        raise ValueError(
            f"{where}options.metric: an encoder's texts are scored by accuracy; bits_per_byte and squad need a "
            "backbone of family causal"
        )
    options = _named(where, lambda: parsed(SentenceOptions, request.options))
    longest = _longest(f"{where}options.max_tokens", options, backbone)
    rows = _rows(request, options)
    head, values = _head(request, options, backbone, rows, longest)
    places: dict[object, int] = {value: place for place, value in enumerate(values)}
    if options.labels is None:
        places |= {number: number for number in range(len(head.classes))}
    size = options.batch_size or (_CPU_BATCH if backbone.device.type == "cpu" else _ACCELERATOR_BATCH)
    training, batches, parts = None, {}, [_FORMAT, head.key, str(longest), str(size)]
    for split, some in rows.items():
        labels = [_place(row, places) for row in some]
        parts += [split, *(part for row, label in zip(some, labels, strict=True) for part in (*row.texts, str(label)))]
        if split == "train":
            training = _training(request, head, backbone, list(zip(some, labels, strict=True)), longest)
        else:
            batches[split] = _batches(head, backbone, some, labels, longest, size)
    return SentenceTask(request.name, batches, digest(parts)[:16], training)


def _rows(request: TaskRequest, options: SentenceOptions) -> dict[str, list[LabelledText]]:
    limits = {split: request.limits.get(split) for split in ("val", "test")}
    if not request.train:
        return labelled_texts(request.source, limits, options)
    found = labelled_texts(request.source, dict.fromkeys(("train", *limits)), options)
    scored = {row.texts for split in limits for row in found[split]}
    train = [row for row in found["train"] if row.texts not in scored]
    if copies := len(found["train"]) - len(train):
        logger.warning("tasks.%s: %d training rows are in val or test too, and are left out", request.name, copies)
    return {"train": train, **{split: found[split][:limit] for split, limit in limits.items()}}


def _training(
    request: TaskRequest,
    head: SentenceHead,
    backbone: EncoderBackbone,
    labelled: Sequence[tuple[LabelledText, int]],
    longest: int,
) -> SentenceTraining:
    rows = [row for row, _ in labelled]
    if cut := sum(len(whole["input_ids"]) > longest for whole in _tokens(backbone, rows, None)):
        logger.warning("tasks.%s: %d of %d training texts are cut to %d tokens", request.name, cut, len(rows), longest)
    classifier = head.model if isinstance(head, OwnHead) and request.head_seed is not None else None
    labels = [label for _, label in labelled]
    return SentenceTraining(head, backbone.tokenizer, _tokens(backbone, rows, longest), labels, classifier)


def _longest(where: str, options: SentenceOptions, backbone: EncoderBackbone) -> int:
    found, special = options.max_tokens or backbone.context or _LONGEST, _special(options, backbone)
    if found <= special:
        raise ValueError(f"{where}: must be more than the {special} special tokens of a text, got {found}")
    if backbone.context is not None and found > backbone.context:
        raise ValueError(f"{where}: must be at most the model's {backbone.context}, got {found}")
    return found


def _special(options: SentenceOptions, backbone: EncoderBackbone) -> int:
    tokenizer: Any = backbone.tokenizer
    return int(tokenizer.num_special_tokens_to_add(pair=options.pair is not None))


def _head(
    request: TaskRequest,
    options: SentenceOptions,
    backbone: EncoderBackbone,
    rows: Mapping[str, Sequence[LabelledText]],
    longest: int,
) -> tuple[SentenceHead, Sequence[object]]:
    """Return the head, and what the column of labels holds for each of its classes."""
    where, source = f"tasks.{request.name}.options", options.head
    if request.head_seed is not None:
        return _new_head(where, options, backbone, rows, request.head_seed)
    if source is not None:
        own = _named(f"{where}.head: ", lambda: OwnHead(backbone, source))
        values: Sequence[object] = own.classes if options.labels is None else options.labels
        if len(values) != len(own.classes):
            raise ValueError(f"{where}.labels: must be {len(own.classes)}, as the head's classes, got {len(values)}")
        return own, values
    classes = options.classes or _names(rows[split] for split in ("val", "test"))
    if len(classes) < 2:
        raise ValueError(f"{where}.classes: must be two or more names, as the rows have {len(classes)}; or name a head")
    check_templates(where, options.templates)
    head = _named(f"{where}: ", lambda: PromptHead(backbone, classes, options.templates, longest))
    for line in head.warnings:
        logger.warning("tasks.%s: %s", request.name, line)
    return head, classes


def _new_head(
    where: str,
    options: SentenceOptions,
    backbone: EncoderBackbone,
    rows: Mapping[str, Sequence[LabelledText]],
    seed: int,
) -> tuple[SentenceHead, Sequence[object]]:
    """Return a head to train, with a class for each name or number in the rows, and its classes."""
    for name in ("head", "templates"):
        if name in options.model_fields_set:
            raise ValueError(f"{where}.{name}: is of a frozen head, and training.head: own trains one: leave one out")
    numbers = [row.label for some in rows.values() for row in some if isinstance(row.label, int)]
    classes = options.classes or _names(rows.values()) or [str(number) for number in range(max(numbers, default=0) + 1)]
    if len(classes) < 2:
        raise ValueError(f"{where}.classes: must be two or more, and the rows have {len(classes)}")
    own = _named(f"{where}: ", lambda: OwnHead(backbone, "its head", new_classifier(backbone, classes, seed)))
    return own, classes


def _names(splits: Iterable[Sequence[LabelledText]]) -> list[str]:
    return sorted({row.label for some in splits for row in some if isinstance(row.label, str)})


def _named(where: str, make: Callable[[], _T]) -> _T:
    """Return `make()`, and put the place in front of its errors."""
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _place(row: LabelledText, places: Mapping[object, int]) -> int:
    """Return the class of a row."""
    if (place := places.get(row.label)) is None:
        raise ValueError(
            f"{row.where}: its label is no class, got {row.label!r:.60}; {near(str(row.label), map(str, places))}"
        )
    return place


def _batches(
    head: SentenceHead,
    backbone: EncoderBackbone,
    rows: Sequence[LabelledText],
    labels: Sequence[int],
    longest: int,
    size: int,
) -> list[SentenceBatch]:
    """Return batches of texts of similar length; equal lengths stay in the order of the rows."""
    tokens = _tokens(backbone, rows, longest)
    order = sorted(range(len(rows)), key=lambda i: len(tokens[i]["input_ids"]))
    cut = [order[start : start + size] for start in range(0, len(order), size)]
    return [
        SentenceBatch(head, backbone.tokenizer, [tokens[i] for i in some], [labels[i] for i in some]) for some in cut
    ]


def _tokens(backbone: EncoderBackbone, rows: Sequence[LabelledText], longest: int | None) -> list[dict[str, list[int]]]:
    """Return the model's inputs for each row, cut to `longest` tokens."""
    if not rows:
        return []
    tokenizer: Any = backbone.tokenizer
    texts = [list(column) for column in zip(*(row.texts for row in rows), strict=True)]
    found = tokenizer(*texts, truncation=longest is not None, max_length=longest, verbose=False)
    tokens = [{name: found[name][i] for name in found} for i in range(len(rows))]
    if empty := next((row.where for row, t in zip(rows, tokens, strict=True) if not t["input_ids"]), None):
        raise ValueError(f"{empty}: its text has no tokens; leave the row out")
    return tokens
