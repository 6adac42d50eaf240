"""The requests of a split: prompts with their few-shot examples, as lm-eval builds them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tasks.language.lm_eval.documents import Documents, Split
from tasks.language.lm_eval.options import Options

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Where few-shot examples come from.

    Attributes:
        split: of the data set; "" if the task lists its examples itself.
        size: number of documents.
    """

    split: str
    size: int


def pool_of(task: Any) -> Pool:
    """Return where lm-eval takes the few-shot examples of a task."""
    own = getattr(task, "fewshot_cfg", None)
    if own is not None and own.split is None and own.samples is not None:
        return Pool("", len(task.sampler.df))
    named = own.split if own is not None else None
    for has, split in (
        (True, named),
        (task.has_training_docs(), task.config.training_split),
        (task.has_validation_docs(), task.config.validation_split),
        (task.has_test_docs(), task.config.test_split),
    ):
        if has and split:
            break
    sampler = getattr(task, "sampler", None)
    return Pool(split or "", len(list(task.fewshot_docs()) if sampler is None else sampler.df))


def prepare_examples(task: Any, documents: Documents, where: str) -> None:
    """Keep documents of test out of the few-shot examples if val and test are parts of one split.

    Raises:
        ValueError: if there are fewer examples than `num_fewshot`.
    """
    shots = task.config.num_fewshot or 0
    if not shots:
        return
    pool = pool_of(task)
    size = pool.size
    if documents.divided and pool.split == documents.splits["val"].name:
        task.sampler.replace_df(list(documents.splits["val"].documents))
        size = len(documents.splits["val"].documents)
    # One more than the examples is drawn where a document is taken out of its own.
    most = size - 1 if pool.split in {split.name for split in documents.splits.values()} else size
    if shots > most:
        raise ValueError(f"{where}.num_fewshot: must be at most {most}, the documents for examples, got {shots}")


def build_requests(task: Any, split: Split, count: int, options: Options, chat_template: Any) -> list[list[Any]]:
    """Return the requests of the first `count` documents, a list for each.

    The generator of few-shot examples starts at the seed, so that the first documents get the same for every count.

    Raises:
        ValueError: if an answer to score is empty; the document is named, counted from 0.
    """
    where = options.where.removesuffix(".options")
    task.set_fewshot_seed(seed=options.seed[3])
    chat: dict[str, Any] = {"apply_chat_template": options.apply_chat_template, "chat_template": chat_template}
    built = []
    for number, document in enumerate(split.documents[:count]):
        context = task.fewshot_context(
            document,
            num_fewshot=task.config.num_fewshot or 0,
            system_instruction=options.system_instruction,
            fewshot_as_multiturn=True,
            gen_prefix=task.doc_to_prefix(document),
            **chat,
        )
        place = (task.config.task, number, task.config.repeats)
        made = task.construct_requests(doc=document, ctx=context, metadata=place, **chat)
        built.append(made if isinstance(made, list) else [made])
        if any(r.request_type == "loglikelihood" and not r.arguments[1] for r in built[-1]):
            raise ValueError(f"{where}: document {number} of {split.name}: an answer to score is empty")
    if twice := sum(len({str(r.arguments) for r in some}) < len(some) for some in built):
        logger.warning(
            "%s: in %d documents of %s choices repeat; of equal ones the first is taken", where, twice, split.name
        )
    return built


@contextmanager
def without_own_answer(task: Any, split: Split) -> Iterator[None]:
    """Keep each document of `split` out of its own few-shot examples.

    lm-eval takes a document out if the examples come from `test_split`, so `split` takes that place for the block.
    """
    own, pool = getattr(task, "fewshot_cfg", None), pool_of(task)
    if own is None:
        yield
        return
    held = own.split, task.config.test_split
    task.config.test_split = split.name
    own.split = split.name if pool.split == split.name else held[0]
    try:
        yield
    finally:
        own.split, task.config.test_split = held
