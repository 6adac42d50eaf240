"""A task of lm-eval as a `Task`: its prompts, filters and metrics on the resident model."""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tasks.base import Backbone, NonFiniteOutput, ShardResult
from tasks.language.lm_eval.documents import Documents
from tasks.language.lm_eval.margins import margins_of
from tasks.language.lm_eval.metrics import outcomes_of
from tasks.language.lm_eval.model import ResidentModel
from tasks.language.lm_eval.options import Options
from tasks.language.lm_eval.quiet import quiet
from tasks.language.lm_eval.requests import build_requests, without_own_answer
from tasks.language.lm_eval.rolling import bits, byte_counts, is_rolling
from tasks.metrics import BITS_PER_BYTE
from tasks.rows import check_rows
from tasks.stats import Stats

_CPU_BATCH, _ACCELERATOR_BATCH = 16, 64


class LmEvalTask:
    """A task of lm-eval, with one metric in [0, 1], or with bits per byte."""

    def __init__(
        self,
        name: str,
        task: Any,
        documents: Documents,
        scored: tuple[str, str],
        options: Options,
        fingerprint: str,
        limits: Mapping[str, int | None],
    ) -> None:
        """Take a loaded task of lm-eval.

        Args:
            name: of the task in the spec.
            task: of lm-eval.
            documents: its val and test.
            scored: the metric, and the filter of answers.
            options: of the spec.
            fingerprint: see identity.py.
            limits: number of documents of a split to use, None for all.
        """
        self.name, self.fingerprint = name, fingerprint
        self._task, self._documents, self._options, self._limits = task, documents, options, dict(limits)
        self._metric, self._filter = scored
        self.metric, self._sizes = "accuracy", dict[str, tuple[int, ...]]()
        if is_rolling(task):
            used = {split: held.documents[: self.num_samples(split)] for split, held in documents.splits.items()}
            self.metric, self._sizes = BITS_PER_BYTE, {split: byte_counts(task, some) for split, some in used.items()}
        self._requests: dict[str, list[list[Any]]] = {}
        self._model: ResidentModel | None = None

    def num_samples(self, split: str) -> int:
        """Return the number of documents of `split` to score; 0 if the task lacks the split."""
        if split not in self._documents.splits:
            return 0
        available, limit = len(self._documents.splits[split].documents), self._limits.get(split)
        return available if limit is None else min(limit, available)

    def sizes(self, split: str) -> tuple[int, ...]:
        """Return the bytes of each document, if they are measured in bits per byte: see `tasks.base.Sized`."""
        return self._sizes.get(split, ())

    def keys(self, split: str) -> tuple[str, ...]:
        """Return the content hash of each document, in the order of outcomes."""
        return self._documents.splits[split].keys[: self.num_samples(split)]

    def heaviest(self, split: str) -> tuple[int, int]:
        """Return documents whose first batch takes the most memory: lm-eval begins a shard with the longest."""
        return 0, self.num_samples(split)

    def evaluate(self, backbone: Backbone, split: str, start: int, stop: int) -> ShardResult:
        """Score documents start to stop - 1 as lm-eval does.

        Raises:
            NonFiniteOutput: if a log-likelihood or a logit is NaN or infinite.
            ValueError: if the range is not within the split, or a value of the metric is not in [0, 1].
        """
        if not 0 <= start < stop <= self.num_samples(split):
            raise ValueError(
                f"{self.name}: {split}[{start}:{stop}] is not within its {self.num_samples(split)} samples"
            )
        return self._score(backbone, split, range(start, stop), f"{split}[{start}:{stop}]")

    def together(self, split: str) -> int:
        """Return 1, or 0 if answers are sampled, which depend on a shard: see `tasks.base.ScoresRows`."""
        return 0 if (self._task.config.generation_kwargs or {}).get("do_sample") else 1

    def evaluate_rows(self, backbone: Backbone, split: str, rows: Sequence[int]) -> ShardResult:
        """Score some documents in this order, as `evaluate` does.

        Raises:
            NonFiniteOutput: if a log-likelihood or a logit is NaN or infinite.
            ValueError: if a row is not in the split, or a value of the metric is not in [0, 1].
        """
        check_rows(self.name, split, rows, self.num_samples(split))
        return self._score(backbone, split, rows, f"{len(rows)} rows of {split}")

    def _score(self, backbone: Backbone, split: str, rows: Sequence[int], where: str) -> ShardResult:
        with quiet():
            built = self._built(backbone, split)
            requests = [list(map(_fresh, built[row])) for row in rows]
            self._respond(requests, f"{self.name}: {where}", rows[0])
            values = self._values(requests)
            margins = margins_of(self._task, self._metric, requests)
        try:
            outcomes = self._outcomes(values, split)
        except ValueError as error:
            raise ValueError(f"tasks.{self.name}: {error}") from error
        wide = outcomes.astype(np.float64)
        stats = Stats(len(wide), float(wide.sum()), float((wide * wide).sum()))
        return ShardResult(stats, outcomes, margins)

    def _outcomes(self, values: Sequence[Any], split: str) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
        if sizes := self.sizes(split):
            return bits(values, sum(sizes) / len(sizes))
        return outcomes_of(self._task, self._metric, values)

    def _built(self, backbone: Backbone, split: str) -> list[list[Any]]:
        """Return the requests of a split, which are built when it is first scored."""
        if self._model is None:
            default = _CPU_BATCH if backbone.device.type == "cpu" else _ACCELERATOR_BATCH
            self._model = ResidentModel(self.name, backbone, self._options.batch_size or default)
        if split not in self._requests:
            documents = self._documents.splits[split]
            chat = self._model.apply_chat_template if self._options.apply_chat_template else None
            # On test, exactly lm-eval's own prompts.
            with without_own_answer(self._task, documents) if split == "val" else nullcontext():
                count = self.num_samples(split)
                self._requests[split] = build_requests(self._task, documents, count, self._options, chat)
        return self._requests[split]

    def _respond(self, requests: Sequence[Sequence[Any]], where: str, start: int) -> None:
        """Add the model's answers to the requests; sampled ones depend on the seed and the shard's first document."""
        by_type = defaultdict(list)
        for request in chain.from_iterable(requests):
            by_type[request.request_type].extend([request] * request.repeats)
        model = self._model
        assert model is not None
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(self._options.seed[2] + start)
            for kind, some in by_type.items():
                for request, answer in zip(some, getattr(model, kind)(some, disable_tqdm=True), strict=True):
                    numbers = answer[:1] if isinstance(answer, tuple) else [answer]
                    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
                        raise NonFiniteOutput(f"{where}: non-finite log-likelihood (NaN or infinity)")
                    request.resps.append(answer)

    def _values(self, requests: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the metric of each document."""
        self._task._instances = list(chain.from_iterable(requests))
        self._task.apply_filters()
        return [
            self._task.process_results(some[0].doc, [r.filtered_resps[self._filter] for r in some]).get(self._metric)
            for some in requests
        ]


def _fresh(request: Any) -> Any:
    """Return a request without answers; prompts are shared with those of other candidates."""
    new = copy.copy(request)
    new.resps, new.filtered_resps = [], {}
    return new
