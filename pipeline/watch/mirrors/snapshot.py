"""What a mirror shows of a run: derived from the journal like the tables, so that it can be made again at any time."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.report.data.run import CandidateRow, Run
from pipeline.spec.run import FIELDS_OUTSIDE_RESULT


@dataclass(frozen=True)
class CandidateSnapshot:
    """One candidate.

    Attributes:
        key: the same for the same candidate of the same run, whenever and wherever it is derived.
        name: for people.
        params: its recipe and its point, as text.
        metrics: its objectives, and what each task gave.
        failure: why it has none, or "".
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
        """Changes when anything of it does: a chosen candidate gets scores on test later."""
        return _hash([self.name, dict(self.params), dict(self.metrics), self.failure, self.chosen])


@dataclass(frozen=True)
class Picture:
    """A run by now.

    Attributes:
        run: the same for the same spec, checkpoints and data.
        name: of the run.
        spec: with its defaults, as JSON.
        facts: fingerprints and versions.
        rows: in the order of the tables.
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
        """Of the run as a whole: counts, and the best so far of each arm (the mean over an edit's experts)."""
        chosen: dict[str, list[float]] = {}
        for row in self.rows:
            if row.chosen and "objective" in row.metrics:
                chosen.setdefault(f"best/{row.arm}", []).append(row.metrics["objective"])
        counts = {"candidates": len(self.rows), "failed": sum(bool(row.failure) for row in self.rows)}
        return counts | {arm: sum(values) / len(values) for arm, values in chosen.items()}


class Mirror(Protocol):
    """Somewhere that people look at runs. Showing a picture again changes nothing."""

    def show(self, picture: Picture) -> None:
        """Bring what is there up to the picture.

        Raises:
            ValueError: it cannot be reached, or refuses.
        """
        ...

    def close(self) -> None:
        """There is no more to show."""
        ...


def read_picture(tables: Path) -> Picture:
    """Read a folder of tables."""
    run = Run.read(tables)
    said = run.provenance
    spec = {key: value for key, value in said["spec"].items() if key not in FIELDS_OUTSIDE_RESULT}
    data = {task["name"]: task["fingerprint"] for task in said["tasks"]}
    return Picture(
        run=_hash([spec, said["fingerprint"], data]),
        name=run.name,
        spec=said["spec"],
        facts={"fingerprint": said["fingerprint"], "numerics": said["numerics"], **said["versions"]},
        rows=[_row(run, candidate) for candidate in run.candidates],
        finished=bool(said["complete"]),
    )


def _row(run: Run, candidate: CandidateRow) -> CandidateSnapshot:
    recipe = candidate.recipe
    params = {"arm": candidate.arm, "expert": candidate.group, "recipe_id": candidate.recipe_id}
    params |= {"method": recipe.method, "scaling": recipe.scaling}
    params |= {"alpha": "" if candidate.alpha is None else f"{candidate.alpha:.10g}", "beta": f"{recipe.beta:.10g}"}
    params |= {f"point.{name}": str(value) for name, value in candidate.point.items()}
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
    """Each objective, and their sum, which is what the choice goes by."""
    values = candidate.objectives or ()
    several = {f"objective/{i}": value for i, value in enumerate(values)} if len(values) > 1 else {}
    return {"objective": sum(values), **several} if values else {}


def _hash(content: object) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
