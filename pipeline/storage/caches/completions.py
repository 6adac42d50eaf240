"""Completions that any run may use again: a reward that is added or mended later scores what was generated before."""

import hashlib
from dataclasses import replace
from pathlib import Path

from pipeline.messages import Completions, EvalRequest
from pipeline.records.append_log import Record
from pipeline.records.journal import parse_request, request_fields
from pipeline.storage.caches.local import LocalRecords
from pipeline.storage.caches.shared import SharedRecords

#: Raised whenever the same weights and prompts come to give other completions.
_FORMAT = "1"
_Key = tuple[str, str, int, int]
#: Completions written together: each write opens, locks and syncs the file; in the shared cache it makes an object.
_BATCH, _TOGETHER = 16, 256


class CompletionCache:
    """Completions under one set of checkpoints, prompts, decoding and numerics, in one file."""

    def __init__(self, folder: Path, context: str) -> None:
        """Read what earlier runs have left, those of other machines too where they share a cache.

        Args:
            folder: the cache's folder, shared by runs.
            context: all that completions stand on but the recipe.
        """
        name = hashlib.blake2b(f"{_FORMAT} {context}".encode(), digest_size=12).hexdigest()
        self._known: dict[_Key, Completions] = {}
        local = LocalRecords(folder / "completions" / f"{name}.jsonl", _BATCH)
        self._stores = (local, SharedRecords(f"completions/{name}", _TOGETHER))
        for store in self._stores:
            for found in store.read(_parse):
                self._known[_key(found.request)] = found

    def get(self, request: EvalRequest) -> Completions | None:
        """The answer to `request`, if it is known; generated without any time of this run's."""
        found = self._known.get(_key(request))
        return None if found is None else replace(found, request=request, seconds=(0.0, 0.0))

    def add(self, found: Completions) -> None:
        """Keep new completions, for later runs once there are enough of them, or at the next `flush`."""
        if _key(found.request) not in self._known:
            self._known[_key(found.request)] = found
            for store in self._stores:
                store.add([_record(found)])

    def flush(self) -> None:
        """Write what is new; what cannot be written may cost time, never truth."""
        for store in self._stores:
            store.flush()


def _key(request: EvalRequest) -> _Key:
    return request.recipe_id, request.split, request.start, request.stop


def _record(found: Completions) -> Record:
    return {
        "record": "completions",
        "request": request_fields(found.request),
        "texts": list(found.texts),
        "alpha": found.alpha,
        "worker": found.worker,
    }


def _parse(record: Record) -> Completions:
    request, texts = parse_request(record["request"]), tuple(record["texts"])
    return Completions(request, texts, record["alpha"], worker=record["worker"])
