"""One run in its folder: open or resume the journal, work to the end, write tables and provenance."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.messages import Identity
from pipeline.plan.plan import Plan, make_plan
from pipeline.pools.base import Pool
from pipeline.records.answers import Answers
from pipeline.records.journal import History, Journal, has_ended, read_history
from pipeline.records.ledger import Ledger
from pipeline.records.provenance_file import write_provenance
from pipeline.run.driver import Driver
from pipeline.run.progress import RunProgress
from pipeline.run.provenance import provenance
from pipeline.run.rows import write_tables
from pipeline.run.walk import judge_all
from pipeline.spec.load import parse_spec
from pipeline.spec.run import FIELDS_OUTSIDE_RESULT, REPORTING_FIELDS
from pipeline.storage.caches.scores import ScoreCache
from pipeline.versions import exact_versions

_ABSENT = object()
#: Field of a journal's header: the unscaled experts are scored where it is of use, as `make_plan` does. Journals of
#: older versions lack it; their runs keep the references that they have, on all tasks.
_REFERENCES = {"references": "used tasks"}
#: Field of a journal's header: the arms whose candidates are never stopped, as an exhibit shows or has shown all.
_IN_FULL = "shown_in_full"


class RunFolderError(ValueError):
    """The folder holds no run, or another one."""


def run(
    plan: Plan,
    identity: Identity,
    folder: Path,
    open_pool: Callable[[], Pool],
    cache: ScoreCache | None,
    watch: Callable[[RunProgress], None] = lambda progress: None,
) -> None:
    """Work a run to its end; a stopped run is resumed.

    Args:
        plan: the arms and their groups.
        identity: the checkpoints, data and numerics, as prepared.
        folder: the run's folder, which is created.
        open_pool: opens the pool; called only once the folder is known to be usable.
        cache: scores of other runs; None evaluates everything.
        watch: called after every step.

    Raises:
        LockedError: if another run is writing in the folder.
        RunFolderError: if the folder holds another run.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    try:
        history = read_history(folder)
        identity = _as_begun(identity, history)
        _check_header(plan, identity, folder, history, journal)
        plan = _as_recorded(plan, history)
        journal.knows(history.stopped)
        ledger = Ledger(identity, plan.spec.shard_size, _without_lost(history))
        pool = open_pool()
        try:
            _work(Driver(plan, ledger, journal, pool, cache, watch), history, journal, pool, folder)
        finally:
            pool.close()
            if cache is not None:
                cache.flush()
    finally:
        journal.close()


def _as_recorded(plan: Plan, history: History) -> Plan:
    """Return the plan of a new run, or of one of an older version with the references that it began with."""
    if history.header is None:
        return plan
    known = plan if _has_used_tasks(history.header) else make_plan(plan.spec, whole_references=True)
    return replace(known, shown_in_full=_shown(plan, history.header))


def _shown(plan: Plan, header: Mapping[str, Any]) -> frozenset[str]:
    """Return the arms whose candidates are scored in full for an exhibit, also for one that was there before."""
    return plan.shown_in_full | frozenset(header.get(_IN_FULL, ()))


def _has_used_tasks(header: Mapping[str, Any]) -> bool:
    return _REFERENCES.items() <= header.items()


def _as_begun(identity: Identity, history: History) -> Identity:
    """Return the identity without what a run of an earlier version does not know: it goes on without stops."""
    begun = history.header is None or "together" in history.header["identity"]
    return identity if begun else replace(identity, together={})


def _without_lost(history: History) -> Answers:
    """Return scores and application failures; a shard whose worker was lost or out of memory is evaluated again."""
    failures = history.answers.failures
    for key in [k for k, failure in failures.items() if failure.kind in ("lost", "out_of_memory")]:
        del failures[key]
    return history.answers


def _work(driver: Driver, history: History, journal: Journal, pool: Pool, folder: Path) -> None:
    started, now = time.monotonic(), _utc()
    driver.run(history.proposals)
    earlier = history.provenance.get("seconds", {}).get("total", 0.0)
    workers = [{"name": w.name, "device": w.device} for w in pool.workers]
    known = {
        "complete": True,
        "versions": exact_versions(),
        "workers": workers or history.provenance.get("workers", []),
        "started": history.provenance.get("started", now),
        "finished": _utc(),
        "seconds": {"total": round(time.monotonic() - started + earlier, 1)},
        "counts": {
            "candidates": driver.progress.candidates_done,
            **_counts(driver.ledger),
            "shards_from_cache": driver.progress.from_cache,
        },
    }
    journal.finish(known)
    write_results(folder, driver.plan, driver.ledger, driver.proposals, known)


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _counts(ledger: Ledger) -> dict[str, int]:
    failures = len(ledger.answers.failures)
    return {"shards_scored": len(ledger.answers) - failures, "failures": failures}


def _check_header(plan: Plan, identity: Identity, folder: Path, history: History, journal: Journal) -> None:
    """Write the header of a new run; require that a resumed run has the same one."""
    new = {"spec": plan.spec.model_dump(mode="json"), "identity": identity.to_json()}
    if history.header is None:
        journal.header(new | _REFERENCES | {_IN_FULL: sorted(plan.shown_in_full)})
        return
    # Fields of the execution, of the report and of later comparisons may change in between.
    recorded, ours = history.header["spec"], {k: v for k, v in new["spec"].items() if k not in FIELDS_OUTSIDE_RESULT}
    completed = _completed(recorded)
    pairs = [(f"spec.{k}", completed.get(k), json.loads(json.dumps(v))) for k, v in ours.items()]
    pairs += [(k, history.header["identity"].get(k), v) for k, v in identity.to_json().items()]
    if differing := [_first_difference(*pair) for pair in pairs if pair[1] != pair[2]]:
        raise RunFolderError(
            f"{folder}: holds another run, which differs in {', '.join(differing)}: give another --out, or delete it"
        )
    if any(recorded.get(k, {}) != json.loads(json.dumps(new["spec"][k])) for k in REPORTING_FIELDS):
        # `lines report` and `lines regress` use the last header
        references = _REFERENCES if _has_used_tasks(history.header) else {}
        journal.header(new | references | {_IN_FULL: sorted(_shown(plan, history.header))})


def _completed(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded spec with the defaults of fields that came after it; one that is not valid stays as it is."""
    try:
        completed: dict[str, Any] = json.loads(json.dumps(parse_spec(recorded).model_dump(mode="json")))
    except ValueError:
        return recorded
    return completed


def _first_difference(path: str, recorded: object, new: object) -> str:
    """Return the path of keys below `path` at which two unequal values first differ."""
    if not (isinstance(recorded, dict) and isinstance(new, dict)):
        return path
    key = next(k for k in recorded | new if recorded.get(k, _ABSENT) != new.get(k, _ABSENT))
    return _first_difference(f"{path}.{key}", recorded.get(key, _ABSENT), new.get(key, _ABSENT))


def reopen(folder: Path) -> tuple[Plan, Ledger, History]:
    """Read a run back from its journal.

    Raises:
        RunFolderError: if there is no run in the folder.
        ValueError: if the journal is damaged or of another version.

    Example:
        >>> plan, ledger, history = reopen(Path("runs/demo"))
        >>> [group.arm for group in plan.references][:2], len(ledger.answers)
        (['pre-trained', 'fine-tuned'], 2472)
    """
    history = read_history(folder)
    if history.header is None:
        raise RunFolderError(f"{folder}: no run here: there is no journal.jsonl with a first record")
    return *plan_and_ledger(history.header, history.answers, str(folder)), history


def plan_and_ledger(header: dict[str, Any], answers: Answers, place: str) -> tuple[Plan, Ledger]:
    """Return the plan of a journal's header, and a ledger on its answers.

    Args:
        header: the spec and identity.
        answers: used as they are: the ledger sees answers that are added later.
        place: the subject of errors.

    Raises:
        ValueError: if another version of this program wrote the header.
    """
    plan = make_plan(parse_spec(header["spec"], place), whole_references=not _has_used_tasks(header))
    plan = replace(plan, shown_in_full=_shown(plan, header))
    return plan, Ledger(Identity.from_json(header["identity"]), plan.spec.shard_size, answers)


def rebuild(folder: Path) -> None:
    """Write the tables and provenance of a run, finished or not, from its journal.

    Raises:
        RunFolderError: if there is no run in the folder.
    """
    finished = False
    while not finished:
        plan, ledger, history = reopen(folder)
        known = history.provenance or {
            "complete": False,
            "versions": exact_versions(),
            "workers": [],
            "seconds": {},
            "counts": _counts(ledger),
        }
        write_results(folder, plan, ledger, history.proposals, known)
        # If the run has ended in between, these tables may have overwritten its own.
        finished = history.finished or not has_ended(folder)


def write_results(folder: Path, plan: Plan, ledger: Ledger, proposals: Any, known: dict[str, Any]) -> None:
    """Write the tables, and provenance.json last."""
    counts = {"candidates": 0, **known["counts"]}
    judged = judge_all(plan, ledger, proposals)
    counts["candidates"] = write_tables(folder, plan, ledger, judged)
    contents = provenance(plan, ledger, judged, {**known, "counts": counts})
    write_provenance(folder, contents)
