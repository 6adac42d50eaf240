"""From the journal's facts to the rows of the tables: pure, so that any process can rebuild them at any time."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan
from pipeline.recipe import Recipe
from pipeline.records import tables
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import REWARD, Candidate, References, answered, choose, judge_all, references
from search.pareto import non_dominated
from search.proposer import Proposal

Row = dict[str, object]


@dataclass(frozen=True)
class _Entry:
    """A candidate as it stands in the tables."""

    group: Group
    proposal: Proposal
    recipe: Recipe
    recipe_id: str
    values: tuple[float, ...] | None
    failure: str
    chosen: bool
    on_front: bool


def write_tables(folder: Path, plan: Plan, ledger: Ledger, proposals: Mapping[GroupKey, list[Proposal]]) -> None:
    """Write candidates.parquet, scores.parquet and samples/ for what is known by now.

    Raises:
        OSError: the folder cannot be written.
        ValueError: a run of rewards has lost its prompts.parquet.
    """
    entries = list(_entries(plan, ledger, proposals))
    refs = {split: references(plan, ledger, split) for split in ("val", "test")}
    tables.write(folder / "candidates.parquet", (_candidate_row(e, ledger) for e in entries), tables.CANDIDATES)
    scores = (row for e in entries for row in _score_rows(e, ledger, refs))
    tables.write(folder / "scores.parquet", scores, tables.SCORES)
    for task in ledger.identity.tasks:
        samples = _sample_rows(task, dict.fromkeys(e.recipe_id for e in entries), ledger)
        tables.write(folder / "samples" / f"{task}.parquet", samples, tables.SAMPLES)
    if plan.spec.generation is not None:
        completions = _completion_rows(folder, plan, dict.fromkeys(e.recipe_id for e in entries), ledger)
        tables.write(folder / "completions.parquet", completions, tables.COMPLETIONS)


def _completion_rows(folder: Path, plan: Plan, recipe_ids: Iterable[str], ledger: Ledger) -> list[Row]:
    """Every completion of what a reward has scored in full, beside its prompt.

    Raises:
        ValueError: the prompts are no longer beside the journal.
    """
    assert plan.spec.generation is not None
    samples = plan.spec.generation.samples
    said = {(r, split): texts for r in recipe_ids for split in ("val", "test") if (texts := _texts(r, split, ledger))}
    if not said:  # a run that was stopped early may not even have kept its prompts
        return []
    path = folder / "prompts.parquet"
    if not path.is_file():
        raise ValueError(f"{path}: is gone, and completions stand beside their prompts: `lines run` writes it anew")
    prompts: dict[str, list[Row]] = {"val": [], "test": []}
    for row in tables.read(path, tables.PROMPTS).to_pylist():
        prompts[row["split"]].append(row)
    rows: list[Row] = []
    for (recipe_id, split), texts in said.items():
        for index, text in enumerate(texts):
            of = prompts[split][index // samples]
            line: Row = {"recipe_id": recipe_id, "split": split, "index": index, "completion": text}
            rows.append(line | {"prompt": of["prompt"], "reference": of["reference"]})
    return rows


def _texts(recipe_id: str, split: str, ledger: Ledger) -> list[str]:
    """A candidate's completions in order; of each shard some reward's score carries them. None where one lacks them."""
    scored = [found for task in ledger.identity.tasks if (found := ledger.scores(recipe_id, task, split))]
    carried = {score.request.shard: score.texts for found in scored for score in found if score.texts}
    if not scored or len(carried) < len(scored[0]):
        return []
    return [text for shard in range(len(carried)) for text in carried[shard]]


def _entries(plan: Plan, ledger: Ledger, proposals: Mapping[GroupKey, list[Proposal]]) -> Iterator[_Entry]:
    for group in plan.references:
        if answered(group, Proposal(0, {}), ledger):
            yield _reference(group, ledger)
    for found in judge_all(plan, ledger, proposals).values():
        chosen = choose(found)
        for candidate, on_front in zip(found, _front(found), strict=True):
            yield _Entry(
                candidate.group,
                candidate.proposal,
                candidate.recipe,
                candidate.recipe_id,
                candidate.values,
                candidate.failure,
                candidate is chosen,
                on_front,
            )


def _reference(group: Group, ledger: Ledger) -> _Entry:
    recipe = group.recipe({})
    recipe_id = ledger.recipe_id(recipe)
    failed = ledger.failure(recipe_id, [t for t, role in group.roles.items() if role != "ood"], "val")
    failure = "" if failed is None else f"{failed.kind} on {failed.request.task}: {failed.cause}"
    return _Entry(group, Proposal(0, {}), recipe, recipe_id, None, failure, not failure, not failure)


def _front(found: list[Candidate]) -> list[bool]:
    scored = [c.values for c in found if c.values is not None]
    mask = iter(non_dominated(np.asarray(scored)) if scored else ())
    return [c.values is not None and bool(next(mask)) for c in found]


def _candidate_row(entry: _Entry, ledger: Ledger) -> Row:
    group, recipe = entry.group, entry.recipe
    score = ledger.any_score(entry.recipe_id, group.roles)
    return {
        "arm": group.arm,
        "kind": group.kind,
        "group": group.name,
        "number": entry.proposal.number,
        "recipe_id": entry.recipe_id,
        "method": recipe.method,
        "scaling": recipe.scaling,
        "alpha": None if score is None else score.alpha,
        "alpha_auto": isinstance(recipe.alpha, str),
        "beta": recipe.beta,
        "weights": list(recipe.weights),
        "params": json.dumps(dict(recipe.params)),
        "point": json.dumps(entry.proposal.point),
        "control_of": group.control_of,
        "control": group.control,
        "state": "failed" if entry.failure else "complete",
        "failure": entry.failure,
        "objectives": None if entry.values is None else list(entry.values),
        "on_front": entry.on_front,
        "chosen": entry.chosen,
        "note": json.dumps(score.note) if score is not None and score.note else "",
    }


def _score_rows(entry: _Entry, ledger: Ledger, refs: Mapping[str, References]) -> Iterator[Row]:
    for split in ("val", "test"):
        known = refs[split].known(entry.group)
        for task, role in entry.group.roles.items():
            stats = ledger.stats(entry.recipe_id, task, split)
            if stats is None or (split == "test" and not (entry.chosen or entry.group.test_all)):
                continue
            yield {
                "arm": entry.group.arm,
                "group": entry.group.name,
                "number": entry.proposal.number,
                "recipe_id": entry.recipe_id,
                "task": task,
                "split": split,
                "role": role,
                "metric": ledger.identity.metrics[task],
                "value": stats.mean,
                "std_err": stats.std_err,
                "n": stats.n,
                "normalised": _on_the_way(stats.mean, task, refs[split])
                if ledger.identity.metrics[task] == REWARD
                else (stats.mean / known[task] if task in known else None),
            }


def _on_the_way(value: float, task: str, refs: References) -> float | None:
    """A reward on the way from the base (0) to the task's own policy (1)."""
    start, own = refs.control.get(task), refs.own(task)
    return (value - start) / (own - start) if start is not None and own is not None and own > start else None


def _sample_rows(task: str, recipe_ids: Iterable[str], ledger: Ledger) -> Iterator[Row]:
    for recipe_id in recipe_ids:
        for split in ("val", "test"):
            outcomes = ledger.outcomes(recipe_id, task, split)
            if outcomes is not None:
                yield {"recipe_id": recipe_id, "split": split, "outcomes": outcomes.astype(np.float32)}


def provenance(
    plan: Plan, ledger: Ledger, proposals: Mapping[GroupKey, list[Proposal]], known: Mapping[str, Any]
) -> dict[str, Any]:
    """The contents of provenance.json: what every number of the report can be traced to.

    Args:
        plan: the run's plan.
        ledger: what is known.
        proposals: what was proposed, by group.
        known: what only the run itself knew: versions, workers, seconds, counts, whether it is complete.
    """
    identity, spec = ledger.identity, plan.spec
    return {
        "schema_version": tables.SCHEMA_VERSION,
        "name": spec.name,
        "spec": spec.model_dump(mode="json"),
        "objectives": {g.arm: list(g.objectives) for g in plan.groups},
        "tasks": [
            {
                "name": name,
                "fingerprint": fingerprint,
                "role_hint": "ood" if name in spec.ood else "task",
                "n": {"val": val, "test": test},
            }
            for name, (fingerprint, val, test) in identity.tasks.items()
        ],
        "experts": list(spec.experts),
        "targets": {expert: spec.target(expert) for expert in spec.experts},
        "layers": {"block_sizes": list(identity.block_sizes), "outside_size": identity.outside_size},
        "checkpoints": dict(identity.checkpoints),
        "fingerprint": identity.fingerprint,
        "numerics": identity.numerics,
        "failures": _failures(plan, ledger),
        "not_searched": _not_searched(plan, ledger, proposals) if known["complete"] else [],
        **known,
    }


def _not_searched(plan: Plan, ledger: Ledger, proposals: Mapping[GroupKey, list[Proposal]]) -> list[dict[str, str]]:
    """Groups without candidates: every candidate of one that they build on failed."""
    if all(g.derivation is None for g in plan.searched):
        return []
    judged = judge_all(plan, ledger, proposals)
    found = []
    for group in (g for g in plan.searched if g.key not in judged):
        assert group.derivation is not None, "every other group is judged"
        parents = [key for key in group.derivation.parents if choose(judged.get(key, [])) is None]
        cause = f"nothing could be chosen of {', '.join(f'{a} ({name})' if name else a for a, name in parents)}"
        found.append({"arm": group.arm, "group": group.name, "cause": cause})
    return found


def _failures(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    return [
        {
            "recipe_id": a.request.recipe_id,
            "task": a.request.task,
            "split": a.request.split,
            "shard": a.request.shard,
            "kind": a.kind,
            "cause": a.cause,
        }
        for a in ledger.answers.failures.values()
    ]
