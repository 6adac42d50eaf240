"""The journal of a run: what was proposed and what was scored, in the order it happened. The only truth."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import LockedError
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.answers import Answers
from pipeline.records.append_log import AppendLog, Record, read_records
from pipeline.records.outcomes import packed, unpacked
from search.proposer import Proposal
from tasks.stats import Stats

#: Raised by one whenever a record changes its form.
JOURNAL_VERSION = 1
FILE_NAME = "journal.jsonl"
#: Bytes in which the record of a run's end is looked for: it names every worker.
_LAST_RECORD = 4 << 20

ShardKey = tuple[str, str, str, int]
GroupKey = tuple[str, str]


@dataclass
class History:
    """What a journal holds, read back.

    Attributes:
        header: the run's identity, as written first; None in an empty journal.
        proposals: group -> its proposals in order.
        answers: request key -> the score, or the last failure.
        provenance: what the run said of itself at its last end.
        finished: whether the run was worked to its end, and nothing has come since.
    """

    header: Record | None = None
    proposals: dict[GroupKey, list[Proposal]] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    provenance: Record = field(default_factory=dict)
    finished: bool = False


class Journal:
    """The append side.

    Raises:
        LockedError: another run is writing in this folder.
    """

    def __init__(self, folder: Path) -> None:
        """Open the journal of a run's folder."""
        try:
            self._log = AppendLog(folder / FILE_NAME)
        except LockedError:
            raise LockedError(
                f"{folder}: another run is writing in this folder: wait for it, stop it, or give another --out"
            ) from None

    def header(self, identity: Record) -> None:
        """The first record: spec and fingerprints."""
        self._log.append([{"record": "run", "version": JOURNAL_VERSION, **identity}])

    def proposal(self, group: GroupKey, proposal: Proposal) -> None:
        """A point that was asked of a group's proposer."""
        self._log.append([_proposal_record(group, proposal)])

    def answers(self, answers: Iterable[ShardScore | Failure]) -> None:
        """Scores and failures, together in one write."""
        self._log.append([answer_record(a) for a in answers])

    def finish(self, provenance: Record) -> None:
        """The last record of a run that was worked to its end, with what only the run itself knew (times, workers)."""
        self._log.append([{"record": "end", **provenance}])

    def close(self) -> None:
        """Release the folder."""
        self._log.close()


def _proposal_record(group: GroupKey, proposal: Proposal) -> Record:
    return {
        "record": "proposal",
        "group": list(group),
        "number": proposal.number,
        "point": proposal.point,
        "state": proposal.state,
    }


def read_history(folder: Path) -> History:
    """Read a run's journal; a torn last line is left out.

    Raises:
        ValueError: damaged, or of another version.
    """
    history, path = History(), folder / FILE_NAME
    for record in read_records(path):
        take_record(history, record, path)
    return history


def has_ended(folder: Path) -> bool:
    """Whether the last record of a run's journal is that of its end."""
    path = folder / FILE_NAME
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_RECORD))
        lines = file.read().split(b"\n")
    return len(lines) > 1 and lines[-2].startswith(b'{"record":"end"')


def take_record(history: History, record: Record, path: Path) -> ShardScore | Failure | None:
    """Add a journal's next record to what it holds so far; the answer, if it is one.

    Raises:
        ValueError: it is of another version.
    """
    kind = record.pop("record")
    if history.finished and kind not in ("run", "end"):  # it goes on: shards that were lost have another chance
        history.finished, history.provenance = False, {**history.provenance, "complete": False}
    if kind == "run":
        if record["version"] != JOURNAL_VERSION:
            raise ValueError(f"{path}: version {record['version']}, expected {JOURNAL_VERSION}")
        history.header = record
    elif kind == "proposal":
        proposal = Proposal(record["number"], record["point"], record["state"])
        asked = history.proposals.setdefault((record["group"][0], record["group"][1]), [])
        # A number that was there: what was lost has been had anew, and the search went another way from here on.
        asked[proposal.number :] = [proposal]
    elif kind == "end":
        history.finished, history.provenance = True, record
    else:
        answer = parse_answer(kind, record, history.answers.recipes)
        history.answers[answer.request.key] = answer
        return answer
    return None


def answer_record(answer: ShardScore | Failure) -> Record:
    """One line of JSON for a score or a failure."""
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
    }


def parse_answer(kind: str, record: Record, known: Mapping[str, Recipe] = MappingProxyType({})) -> ShardScore | Failure:
    """Inverse of `answer_record`; `known` are recipes by id, which need not be read again."""
    request = parse_request(record["request"], known)
    if kind == "failure":
        return Failure(request, record["kind"], record["cause"], record["worker"])
    stats = Stats(*record["stats"])
    outcomes = _unpack(record["outcomes"], stats.n)
    rebuild, evaluate = record["seconds"]
    note, texts = record.get("note", {}), tuple(record.get("texts", ()))
    return ShardScore(request, stats, outcomes, record["alpha"], (rebuild, evaluate), record["worker"], note, texts)


def request_fields(request: EvalRequest) -> list[Any]:
    """A request as a JSON array."""
    what = [request.recipe.to_json(), request.recipe_id, request.task, request.split]
    return [*what, request.shard, request.start, request.stop]


def parse_request(fields: list[Any], known: Mapping[str, Recipe] = MappingProxyType({})) -> EvalRequest:
    """Inverse of `request_fields`; `known` are recipes by id."""
    recipe, recipe_id, *rest = fields
    return EvalRequest(known.get(recipe_id) or Recipe.from_json(recipe), recipe_id, *rest)


def _pack(outcomes: npt.NDArray[Any]) -> list[str]:
    return ["bits" if outcomes.dtype == np.bool_ else "f4", base64.b64encode(packed(outcomes)).decode()]


def _unpack(told: list[str], n: int) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
    kind, text = told
    return unpacked(base64.b64decode(text), kind == "bits", n)
