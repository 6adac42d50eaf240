"""Completions that any run may use again: a reward that is added or fixed later scores earlier completions."""

import hashlib
from dataclasses import replace
from pathlib import Path

from pipeline.messages import Completions, EvalRequest
from pipeline.records.append_log import Record
from pipeline.records.journal import parse_request, request_fields
from pipeline.storage.caches.records import CacheRecords

#: Changed whenever the same weights and prompts would give other completions.
_FORMAT = "1"
_Key = tuple[str, str, int, int]
_BATCH, _SHARED_BATCH = 16, 256


class CompletionCache:
    """Completions under one set of checkpoints, prompts, decoding and numerics."""

    def __init__(self, folder: Path, context: str) -> None:
        """Read the completions of earlier runs, and of other machines if they share a cache.

        Args:
            folder: the local cache.
            context: everything but the recipe that completions depend on.
        """
        name = hashlib.blake2b(f"{_FORMAT} {context}".encode(), digest_size=12).hexdigest()
        self._records = CacheRecords(folder, f"completions/{name}", _BATCH, _SHARED_BATCH)
        self._known: dict[_Key, Completions] = {_key(c.request): c for c in self._records.read(_parse)}

    def get(self, request: EvalRequest) -> Completions | None:
        """Return the cached completions of `request`, with no time spent on them."""
        found = self._known.get(_key(request))
        return None if found is None else replace(found, request=request, seconds=(0.0, 0.0))

    def add(self, completions: Completions) -> None:
        """Add new completions; they are written when a batch is full, or by `flush`."""
        if _key(completions.request) not in self._known:
            self._known[_key(completions.request)] = completions
            self._records.add([_record(completions)])

    def flush(self) -> None:
        """Write what is new."""
        self._records.flush()


def _key(request: EvalRequest) -> _Key:
    return request.recipe_id, request.split, request.start, request.stop


def _record(completions: Completions) -> Record:
    return {
        "record": "completions",
        "request": request_fields(completions.request),
        "texts": list(completions.texts),
        "alpha": completions.alpha,
        "worker": completions.worker,
    }


def _parse(record: Record) -> Completions:
    request, texts = parse_request(record["request"]), tuple(record["texts"])
    return Completions(request, texts, record["alpha"], worker=record["worker"])
