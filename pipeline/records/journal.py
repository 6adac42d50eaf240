"""The journal of a run: proposals and answers in the order they were made; all other results derive from it."""

import base64
import binascii
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import LockedError
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.answers import Answers
from pipeline.records.append_log import AppendLog, Record, damaged_line, read_records
from pipeline.records.header import FILE_NAME as FILE_NAME
from pipeline.records.outcomes import packed, unpacked
from search.proposer import Proposal
from tasks.stats import Stats

#: Increased whenever the form of a record changes.
JOURNAL_VERSION = 1
#: The record of a run's end names every worker; it is looked for in this many last bytes.
_LAST_RECORD = 4 << 20

ShardKey = tuple[str, str, str, int]
GroupKey = tuple[str, str]


@dataclass
class History:
    """The contents of a journal.

    Attributes:
        header: the run's identity, from the first record; None in an empty journal.
        proposals: group -> its proposals in order.
        answers: request key -> the score, or the last failure.
        provenance: the facts that the run recorded at its last end: versions, workers, times.
        finished: whether the run has ended and nothing was added since.
        stopped: (group, number) -> why the candidate was stopped, as it was written last.
    """

    header: Record | None = None
    proposals: dict[GroupKey, list[Proposal]] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    provenance: Record = field(default_factory=dict)
    finished: bool = False
    stopped: dict[tuple[GroupKey, int], Record] = field(default_factory=dict)


class DamagedRecord(ValueError):
    """A record lacks a field, or a field does not hold what it should."""


class Journal:
    """The writer of a journal.

    Raises:
        LockedError: if another run is writing in this folder.
    """

    def __init__(self, folder: Path) -> None:
        """Open the journal of a run's folder."""
        try:
            self._log = AppendLog(folder / FILE_NAME)
        except LockedError:
            raise LockedError(
                f"{folder}: another run is writing in this folder: wait for it, stop it, or give another --out"
            ) from None
        self._stopped: dict[tuple[GroupKey, int], Record] = {}

    def header(self, identity: Record) -> None:
        """Write the first record: spec and fingerprints."""
        self._log.append([{"record": "run", "version": JOURNAL_VERSION, **identity}])

    def proposal(self, group: GroupKey, proposal: Proposal) -> None:
        """Write a point that a group's proposer gave."""
        fields = {"number": proposal.number, "point": proposal.point, "state": proposal.state}
        self._log.append([{"record": "proposal", "group": list(group), **fields}])

    def knows(self, stopped: Mapping[tuple[GroupKey, int], Record]) -> None:
        """Take the stopped candidates of the journal's history, which are not written again."""
        self._stopped = dict(stopped)

    def stopped(self, group: GroupKey, number: int, fields: Record) -> None:
        """Write that a candidate was stopped, for readers of the journal: the answers determine it."""
        record = {"record": "stopped", "group": list(group), "number": number, **fields}
        if self._stopped.get((group, number)) != fields:
            self._log.append([record])

    def answers(self, answers: Iterable[ShardScore | Failure]) -> None:
        """Write scores and failures at once."""
        self._log.append([answer_record(a) for a in answers])

    def finish(self, provenance: Record) -> None:
        """Write the last record of a finished run, with facts that nothing else records (times, workers)."""
        self._log.append([{"record": "end", **provenance}])

    def close(self) -> None:
        """Release the folder."""
        self._log.close()


def read_history(folder: Path) -> History:
    """Read a run's journal without a torn last line; a folder without a journal gives an empty history.

    Raises:
        ValueError: if the journal is damaged, or of another version.

    Example:
        >>> history = read_history(Path("runs/demo"))
        >>> history.finished, len(history.answers), history.header["spec"]["name"]
        (True, 2472, 'demo')
        >>> [proposal.point for proposal in history.proposals["fine-tuned + LiNeS", "mnist"]][:2]
        [{'alpha': 0.0}, {'alpha': 0.25}]
    """
    history, path = History(), folder / FILE_NAME
    for number, record in enumerate(read_records(path), 1):
        try:
            take_record(history, record, path)
        except DamagedRecord as error:
            raise damaged_line(path, number, error) from error
    return history


def has_ended(folder: Path) -> bool:
    """Return whether a run's journal ends with the record of its end."""
    path = folder / FILE_NAME
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_RECORD))
        lines = file.read().split(b"\n")
    return len(lines) > 1 and lines[-2].startswith(b'{"record":"end"')


def take_record(history: History, record: Record, path: Path) -> ShardScore | Failure | None:
    """Add a journal's next record to its history, and return the answer if it is one.

    Raises:
        DamagedRecord: if the record cannot be read.
        ValueError: if it is of another version.
    """
    if record["record"] == "run" and record.get("version") != JOURNAL_VERSION:
        raise ValueError(f"{path}: version {record.get('version')}, expected {JOURNAL_VERSION}")
    try:
        return _take(history, record)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
        raise DamagedRecord(f"{type(error).__name__}: {error}") from error


def _take(history: History, record: Record) -> ShardScore | Failure | None:
    kind = record.pop("record")
    if kind == "stopped":
        group, number = record.pop("group"), record.pop("number")
        history.stopped[(group[0], group[1]), number] = record
        return None
    if history.finished and kind not in ("run", "end"):  # it was resumed to score lost shards
        history.finished, history.provenance = False, {**history.provenance, "complete": False}
    if kind == "run":
        history.header = record
    elif kind == "proposal":
        proposal = Proposal(record["number"], record["point"], record["state"])
        asked = history.proposals.setdefault((record["group"][0], record["group"][1]), [])
        if proposal.number > len(asked):
            raise ValueError(f"proposal {proposal.number} follows {len(asked)} others: a line before it is missing")
        # A known number: a lost shard was scored after all, and the search continued differently from here.
        asked[proposal.number :] = [proposal]
    elif kind == "end":
        history.finished, history.provenance = True, record
    else:
        answer = parse_answer(kind, record, history.answers.recipes)
        history.answers[answer.request.key] = answer
        return answer
    return None


def answer_record(answer: ShardScore | Failure) -> Record:
    """Return the record of a score or a failure."""
    record: Record = {"request": request_fields(answer.request), "worker": answer.worker}
    if isinstance(answer, Failure):
        return {"record": "failure", **record, "kind": answer.kind, "cause": answer.cause}
    stats = answer.stats
    note = {"note": dict(answer.note)} if answer.note else {}
    return {
        "record": "score",
        **record,
        "stats": [stats.n, stats.total, stats.squares],
        "outcomes": _pack(answer.outcomes),
        "alpha": answer.alpha,
        "seconds": [round(s, 4) for s in answer.seconds],
        **note,
        **({"texts": list(answer.texts)} if answer.texts else {}),
        **({"margins": _pack(answer.margins)} if answer.margins is not None else {}),
        **({"memory": answer.memory} if answer.memory else {}),
    }


def parse_answer(kind: str, record: Record, known: Mapping[str, Recipe] = MappingProxyType({})) -> ShardScore | Failure:
    """Return the answer of a record; `known` holds recipes by id, which are not parsed again.

    Raises:
        ValueError: if it is of another kind; other errors if its fields do not hold what they should.
    """
    request = parse_request(record["request"], known)
    if kind not in ("score", "failure"):
        raise ValueError(f"unknown kind of record: {kind!r}")
    if kind == "failure":
        return Failure(request, record["kind"], record["cause"], record["worker"])
    n, total, squares = record["stats"]
    stats = Stats(n, total, squares)
    outcomes = _unpack(record["outcomes"], stats.n)
    rebuild, evaluate = record["seconds"]
    note, texts, seconds = record.get("note", {}), tuple(record.get("texts", ())), (rebuild, evaluate)
    margins = _unpack(record["margins"], stats.n).astype(np.float32) if "margins" in record else None
    score = ShardScore(request, stats, outcomes, record["alpha"], seconds, record["worker"], note, texts, margins)
    return replace(score, memory=record["memory"]) if "memory" in record else score


def request_fields(request: EvalRequest) -> list[Any]:
    """Return a request as a JSON array."""
    what = [request.recipe.to_json(), request.recipe_id, request.task, request.split]
    return [*what, request.shard, request.start, request.stop]


def parse_request(fields: list[Any], known: Mapping[str, Recipe] = MappingProxyType({})) -> EvalRequest:
    """Return the request of a JSON array; `known` holds recipes by id."""
    recipe, recipe_id, *rest = fields
    return EvalRequest(known.get(recipe_id) or Recipe.from_json(recipe), recipe_id, *rest)


def _pack(outcomes: npt.NDArray[Any]) -> list[str]:
    return ["bits" if outcomes.dtype == np.bool_ else "f4", base64.b64encode(packed(outcomes)).decode()]


def _unpack(pair: list[str], n: int) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
    kind, text = pair
    data = binascii.a2b_base64(text, strict_mode=True)
    if len(data) != (-(-n // 8) if kind == "bits" else 4 * n):
        raise ValueError(f"{len(data)} bytes of outcomes ({kind}) are not those of {n} samples")
    return unpacked(data, kind == "bits", n)
