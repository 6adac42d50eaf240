"""The rows of the tables, derived only from the journal, so that any process can rebuild them at any time."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan
from pipeline.records import tables
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import REWARD, Candidate, References, Stopped, answered, choose, references
from search.intervals import Array, linearised_ratio, sample_means
from search.pareto import non_dominated
from search.proposer import Proposal
from tasks.metrics import lower_is_better
from tasks.stats import Stats

Row = dict[str, object]
_SPLITS = ("val", "test")
#: Recipe id, split, and the splits under which the ledger may have its outcomes.
_Place = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True)
class _Entry:
    """A candidate of the tables."""

    candidate: Candidate
    chosen: bool
    on_front: bool


def write_tables(folder: Path, plan: Plan, ledger: Ledger, judged: Mapping[GroupKey, list[Candidate]]) -> int:
    """Write candidates, scores, samples/, margins/, sizes/ and completions (.parquet) for all answers so far.

    Args:
        folder: of the run.
        plan: of the run.
        ledger: the answers.
        judged: the final candidates of every group but the references (see `judge_all`).

    Returns:
        The number of candidates, references included, as every count of candidates has it.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if the prompts.parquet of a run with rewards is missing.
    """
    entries = list(_entries(plan, ledger, judged))
    recipe_ids = list(dict.fromkeys(entry.candidate.recipe_id for entry in entries))
    places = _places(entries)
    refs = {split: references(plan, ledger, split) for split in _SPLITS}
    tables.write(folder / "candidates.parquet", (_candidate_row(e, ledger) for e in entries), tables.CANDIDATES)
    scores = (row for e in entries for row in _score_rows(e, ledger, refs, plan.spec.draws))
    tables.write(folder / "scores.parquet", scores, tables.SCORES)
    if stopped := [_stopped_row(e.candidate, e.candidate.stopped) for e in entries if e.candidate.stopped]:
        tables.write(folder / "stopped.parquet", stopped, tables.STOPPED)
    else:
        (folder / "stopped.parquet").unlink(missing_ok=True)
    for task in ledger.identity.tasks:
        samples = _sample_rows(task, places, ledger)
        tables.write(folder / "samples" / f"{task}.parquet", samples, tables.SAMPLES)
        if margins := list(_margin_rows(task, places, ledger)):
            tables.write(folder / "margins" / f"{task}.parquet", margins, tables.MARGINS)
        if sizes := ledger.identity.sizes.get(task):
            rows: list[Row] = [{"split": split, "sizes": list(some)} for split, some in sizes.items()]
            tables.write(folder / "sizes" / f"{task}.parquet", rows, tables.SIZES)
    if plan.spec.generation is not None:
        completions = _completion_rows(folder, plan.spec.generation.samples, recipe_ids, ledger)
        tables.write(folder / "completions.parquet", completions, tables.COMPLETIONS)
    return len(entries)


def _places(entries: Iterable[_Entry]) -> list[_Place]:
    """Return the recipes and splits of `samples/`: validation of what was scored in full, and what counts on test.

    The ledger may have more, which depends on the run's course: stages of a stopped candidate, or the test scores of
    another choice, made while a shard was lost.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for entry in entries:
        candidate = entry.candidate
        known = found.setdefault(candidate.recipe_id, {"val": {}, "test": {}})
        if candidate.split == "val" or candidate.values is not None:
            known["val"][candidate.split] = None
        if entry.chosen or candidate.group.test_all:
            known["test"]["test"] = None
    return [
        (recipe_id, split, tuple(sorted(of_ledger)))
        for recipe_id, known in found.items()
        for split, of_ledger in known.items()
    ]


def _completion_rows(folder: Path, samples: int, recipe_ids: Iterable[str], ledger: Ledger) -> list[Row]:
    """Return every completion with its prompt, for the candidates that a reward has scored in full.

    Raises:
        ValueError: if the prompts are missing.
    """
    completions = {(r, split): texts for r in recipe_ids for split in _SPLITS if (texts := _texts(r, split, ledger))}
    if not completions:  # a run that was stopped early may have no prompts
        return []
    path = folder / "prompts.parquet"
    if not path.is_file():
        raise ValueError(f"{path}: is missing, and completions.parquet needs its prompts: `lines run` writes it again")
    prompts: dict[str, list[Row]] = {split: [] for split in _SPLITS}
    for row in tables.read(path, tables.PROMPTS).to_pylist():
        prompts[row["split"]].append(row)
    rows: list[Row] = []
    for (recipe_id, split), texts in completions.items():
        for index, text in enumerate(texts):
            prompt = prompts[split][index // samples]
            row = {"recipe_id": recipe_id, "split": split, "index": index, "completion": text}
            rows.append(row | {"prompt": prompt["prompt"], "reference": prompt["reference"]})
    return rows


def _texts(recipe_id: str, split: str, ledger: Ledger) -> list[str]:
    """Return a candidate's completions in order, each shard's from any reward's score; none if a shard lacks them."""
    scored = [scores for task in ledger.identity.tasks if (scores := ledger.scores(recipe_id, task, split))]
    by_shard = {score.request.shard: score.texts for scores in scored for score in scores if score.texts}
    if not scored or len(by_shard) < len(scored[0]):
        return []
    return [text for shard in range(len(by_shard)) for text in by_shard[shard]]


def _entries(plan: Plan, ledger: Ledger, judged: Mapping[GroupKey, list[Candidate]]) -> Iterator[_Entry]:
    for group in plan.references:
        if answered(group, Proposal(0, {}), ledger):
            yield _reference(group, ledger)
    for candidates in judged.values():
        # Seeds are scored for their spread; none of them is a choice.
        chosen = choose(c for c in candidates if c.group.kind != "seeds")
        for candidate, on_front in zip(candidates, _front(candidates), strict=True):
            yield _Entry(candidate, candidate is chosen, on_front)


def _reference(group: Group, ledger: Ledger) -> _Entry:
    recipe = group.recipe({})
    recipe_id = ledger.recipe_id(recipe)
    failed = ledger.failure(recipe_id, [t for t, role in group.roles.items() if role != "ood"], "val")
    failure = "" if failed is None else f"{failed.kind} on {failed.request.task}: {failed.cause}"
    return _Entry(Candidate(group, Proposal(0, {}), recipe, recipe_id, None, failure), not failure, not failure)


def _front(candidates: list[Candidate]) -> list[bool]:
    scored = [c.values for c in candidates if c.values is not None]
    mask = iter(non_dominated(np.asarray(scored)) if scored else ())
    return [c.values is not None and bool(next(mask)) for c in candidates]


def _candidate_row(entry: _Entry, ledger: Ledger) -> Row:
    candidate = entry.candidate
    group, recipe = candidate.group, candidate.recipe
    score = ledger.any_score(candidate.recipe_id, group.roles)
    return {
        "arm": group.arm,
        "kind": group.kind,
        "group": group.name,
        "number": candidate.proposal.number,
        "recipe_id": candidate.recipe_id,
        "method": recipe.method,
        "scaling": recipe.scaling,
        "alpha": None if score is None else score.alpha,
        "alpha_auto": isinstance(recipe.alpha, str),
        "beta": recipe.beta,
        "weights": list(recipe.weights),
        "params": json.dumps(dict(recipe.params) | ({"then": recipe.to_json()[-1]} if recipe.then else {})),
        "point": json.dumps(candidate.proposal.point),
        "control_of": group.control_of,
        "control": group.control,
        "state": "failed" if candidate.failure else "stopped" if candidate.stopped else "complete",
        "failure": candidate.failure,
        "objectives": None if candidate.values is None else list(candidate.values),
        "on_front": entry.on_front,
        "chosen": entry.chosen,
        "note": json.dumps(score.note) if score is not None and score.note else "",
    }


def _stopped_row(candidate: Candidate, stopped: Stopped) -> Row:
    return {
        "arm": candidate.group.arm,
        "group": candidate.group.name,
        "number": candidate.proposal.number,
        "recipe_id": candidate.recipe_id,
        **asdict(stopped),
    }


def _score_rows(entry: _Entry, ledger: Ledger, refs: Mapping[str, References], draws: int) -> Iterator[Row]:
    candidate = entry.candidate
    group, metrics = candidate.group, ledger.identity.metrics
    for split in _SPLITS if candidate.stopped is None else ():
        known = refs[split].known(group)
        for task, role in group.roles.items():
            stats = ledger.stats(candidate.recipe_id, task, candidate.split if split == "val" else split)
            if stats is None or (split == "test" and not (entry.chosen or group.test_all)):
                continue
            yield {
                "arm": group.arm,
                "group": group.name,
                "number": candidate.proposal.number,
                "recipe_id": candidate.recipe_id,
                "task": task,
                "split": split,
                "role": role,
                "metric": metrics[task],
                "value": stats.mean,
                "std_err": _std_err(stats, _independent(candidate.recipe_id, task, split, ledger, draws)),
                "n": stats.n,
                "normalised": _normalised(stats.mean, task, metrics[task], known, refs[split]),
            }


def _independent(recipe_id: str, task: str, split: str, ledger: Ledger, draws: int) -> Array | None:
    """Return values of independent samples whose mean is a score; None if each outcome is one."""
    sizes, outcomes = ledger.identity.sizes.get(task), ledger.outcomes(recipe_id, task, split)
    if outcomes is None or (sizes is None and draws == 1):
        return None
    return sample_means(outcomes if sizes is None else linearised_ratio(outcomes, sizes[split]), draws)


def _std_err(stats: Stats, values_N: Array | None) -> float:
    """Return the standard error of a mean, or of a ratio of sums."""
    if values_N is None or len(values_N) < 2:
        return stats.std_err
    return float(values_N.std(ddof=1) / math.sqrt(len(values_N)))


def _normalised(value: float, task: str, metric: str, known: Mapping[str, float], refs: References) -> float | None:
    """Return a value against its reference, above 1 if it is better; None without one."""
    if metric == REWARD:
        return _gain(value, task, refs)
    if task not in known:
        return None
    if lower_is_better(metric):
        return known[task] / value if value else None
    return value / known[task]


def _gain(value: float, task: str, refs: References) -> float | None:
    """Return a reward on the scale from the base (0) to the task's own policy (1)."""
    start, own = refs.control.get(task), refs.own(task)
    return (value - start) / (own - start) if start is not None and own is not None and own > start else None


def _sample_rows(task: str, places: Iterable[_Place], ledger: Ledger) -> Iterator[Row]:
    for recipe_id, split, own in places:
        found = (ledger.outcomes(recipe_id, task, s) for s in own)
        if (outcomes := next((o for o in found if o is not None), None)) is not None:
            yield {"recipe_id": recipe_id, "split": split, "outcomes": outcomes.astype(np.float32)}


def _margin_rows(task: str, places: Iterable[_Place], ledger: Ledger) -> Iterator[Row]:
    for recipe_id, split, own in places:
        found = (ledger.margins(recipe_id, task, s) for s in own)
        if (margins := next((m for m in found if m is not None), None)) is not None:
            yield {"recipe_id": recipe_id, "split": split, "margins": margins}
