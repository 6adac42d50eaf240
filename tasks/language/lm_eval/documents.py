"""Which documents of an lm-eval task become val and which test.

`test` is what lm-eval itself scores: the task's test split, else its validation split. `val` is, in this order:

- the split that the spec's `val_split` names;
- the task's validation split, if it scores another one;
- a share of the only split, by the content of each document (`val_fraction`); `test` is then the rest.

Documents of val that are also in test are left out of val, so the two are disjoint. A task of `ood` has test alone.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.files.cache import digest
from tasks.language.lm_eval.options import Options
from tasks.language.rows import in_validation
from tasks.registry import near

logger = logging.getLogger(__name__)

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """Documents in the data set's order.

    Attributes:
        documents: as lm-eval's functions get them.
        keys: content hash of each.
        name: of the data set's split that they come from.
    """

    documents: Sequence[Any]
    keys: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Documents:
    """The documents of a task.

    Attributes:
        splits: "test", and "val" unless only test is scored.
        divided: whether both are parts of one split.
    """

    splits: Mapping[str, Split]
    divided: bool


def documents_of(task: Any, options: Options, test_only: bool = False) -> Documents:
    """Read the documents of a loaded task; without val if `test_only`.

    Raises:
        ValueError: if `val_split` is no split of the data set, or the one that is scored.
    """
    scored = _scored_split(task)
    test = _split(task.eval_docs, scored)
    if test_only:
        return Documents({"test": test}, divided=False)
    if options.val_split is not None:
        return _apart(_split(_chosen(task, options, scored), options.val_split), test)
    if task.has_test_docs() and task.has_validation_docs() and task.config.validation_split != scored:
        return _apart(_split(task.validation_docs(), task.config.validation_split or "validation"), test)
    return _divided(test, options.val_fraction)


def _scored_split(task: Any) -> str:
    """Return the split that lm-eval scores; tasks that are Python classes may name none."""
    named = task.config.test_split if task.has_test_docs() else task.config.validation_split
    return named or ("test" if task.has_test_docs() else "validation")


def _chosen(task: Any, options: Options, scored: str) -> Iterable[Any]:
    name, where = options.val_split, f"{options.where}.val_split"
    if name == scored:
        raise ValueError(f"{where}: {name!r} is the split that is scored as test: name another, or leave it out")
    if name not in task.dataset:
        raise ValueError(f"{where}: {name!r} is no split of the data set; {near(str(name), task.dataset)}")
    docs: Iterable[Any] = task.dataset[name]
    return task.config.process_docs(docs) if task.config.process_docs is not None else docs


def _split(documents: Iterable[Any], name: str) -> Split:
    held = list(documents)
    return Split(held, tuple(map(content_key, held)), name)


def content_key(document: Any) -> str:
    """Return the content hash of a document."""
    return digest([json.dumps(document, sort_keys=True, default=str)])


def _apart(val: Split, test: Split) -> Documents:
    shared = set(val.keys) & set(test.keys)
    if shared:
        logger.warning("%d documents of %s are also in %s: they are left out of val", len(shared), val.name, test.name)
    kept = [i for i, key in enumerate(val.keys) if key not in shared]
    return Documents({"val": _taken(val, kept), "test": test}, divided=False)


def _divided(only: Split, fraction: float) -> Documents:
    """Cut by content, so that copies of a document are on one side and new documents move none of the others."""
    below = [in_validation(key, fraction) for key in only.keys]
    sides = {"val": True, "test": False}
    return Documents(
        {side: _taken(only, [i for i, b in enumerate(below) if b == is_val]) for side, is_val in sides.items()},
        divided=True,
    )


def _taken(split: Split, rows: Sequence[int]) -> Split:
    return Split([split.documents[i] for i in rows], tuple(split.keys[i] for i in rows), split.name)
