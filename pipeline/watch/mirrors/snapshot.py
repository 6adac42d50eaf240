"""The results of a run that mirrors show, derived from its tables, so that a mirror can be rebuilt at any time."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.recipe import step_text
from pipeline.report.data.run import CandidateRow, Run
from pipeline.spec.run import FIELDS_OUTSIDE_RESULT


@dataclass(frozen=True)
class CandidateSnapshot:
    """One candidate.

    Attributes:
        key: the same for the same candidate of the same run, whenever and wherever it is derived.
        name: for users.
        params: its recipe and its point, as text.
        metrics: its objectives, and its value on each task.
        failure: the cause of its failure, or "".
        chosen: whether its search would choose it now.
    """

    key: str
    name: str
    arm: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    failure: str
    chosen: bool

    @property
    def digest(self) -> str:
        """A hash of all fields: a chosen candidate gets scores on test later."""
        return _hash([self.name, dict(self.params), dict(self.metrics), self.failure, self.chosen])


@dataclass(frozen=True)
class RunSnapshot:
    """A run so far.

    Attributes:
        run: the same for the same spec, checkpoints and data.
        name: the run's name.
        spec: its spec with defaults, as JSON.
        facts: fingerprints and versions.
        rows: candidates in the order of the tables.
        finished: whether the run was worked to its end.
    """

    run: str
    name: str
    spec: Mapping[str, Any]
    facts: Mapping[str, str]
    rows: Sequence[CandidateSnapshot]
    finished: bool

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the whole run: counts, and the best so far of each arm (the mean over an edit's experts)."""
        chosen: dict[str, list[float]] = {}
        for row in self.rows:
            if row.chosen and "objective" in row.metrics:
                chosen.setdefault(f"best/{row.arm}", []).append(row.metrics["objective"])
        counts = {"candidates": len(self.rows), "failed": sum(bool(row.failure) for row in self.rows)}
        return counts | {arm: sum(values) / len(values) for arm, values in chosen.items()}


class Mirror(Protocol):
    """A service that shows runs. Showing a snapshot again changes nothing."""

    def show(self, snapshot: RunSnapshot) -> None:
        """Update the service to the snapshot.

        Raises:
            ValueError: if it cannot be reached, or refuses.
        """
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def read_snapshot(tables: Path) -> RunSnapshot:
    """Read a folder of tables."""
    run = Run.read(tables)
    facts = run.provenance
    spec = {key: value for key, value in facts["spec"].items() if key not in FIELDS_OUTSIDE_RESULT}
    data = {task["name"]: task["fingerprint"] for task in facts["tasks"]}
    return RunSnapshot(
        run=_hash([spec, facts["fingerprint"], data]),
        name=run.name,
        spec=facts["spec"],
        facts={"fingerprint": facts["fingerprint"], "numerics": facts["numerics"], **facts["versions"]},
        rows=[_row(run, candidate) for candidate in run.candidates],
        finished=bool(facts["complete"]),
    )


def _row(run: Run, candidate: CandidateRow) -> CandidateSnapshot:
    recipe = candidate.recipe
    params = {"arm": candidate.arm, "expert": candidate.group, "recipe_id": candidate.recipe_id}
    params |= {"method": recipe.method, "scaling": recipe.scaling}
    params |= {"alpha": "" if candidate.alpha is None else f"{candidate.alpha:.10g}", "beta": f"{recipe.beta:.10g}"}
    params |= {f"point.{name}": str(value) for name, value in candidate.point.items()}
    params |= {"then": ", ".join(step_text(*step) for step in recipe.then)} if recipe.then else {}
    params |= {"state": "stopped"} if candidate.stopped else {}
    place = [candidate.arm, candidate.group, candidate.number]
    scores = run.scored(candidate)
    return CandidateSnapshot(
        key=_hash([*place, candidate.recipe_id]),
        name=" ".join(filter(None, (candidate.arm, candidate.group, str(candidate.number)))),
        arm=candidate.arm,
        params={name: value for name, value in params.items() if value},
        metrics=_objectives(candidate) | {f"{split}/{task}": score.value for (task, split), score in scores.items()},
        failure=candidate.failure,
        chosen=candidate.chosen,
    )


def _objectives(candidate: CandidateRow) -> dict[str, float]:
    """Return each objective, and their sum, which decides the choice."""
    values = candidate.objectives or ()
    several = {f"objective/{i}": value for i, value in enumerate(values)} if len(values) > 1 else {}
    return {"objective": sum(values), **several} if values else {}


def _hash(content: object) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
