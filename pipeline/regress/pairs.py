"""The comparable parts of two runs, the others with the reason, and the changes from one run to the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from pipeline.plan.groups import FINE_TUNED
from pipeline.regress.snapshot import Snapshot, SnapshotKey
from pipeline.spec.thresholds import Regress
from tasks.registry import near

#: Fields of the spec that change no score, or whose content is compared elsewhere.
_IGNORED = ("name", "base", "experts", "resources", "exhibits", "regress")


@dataclass(frozen=True)
class Allowed:
    """The differences that the user allows.

    Attributes:
        only_common: leave out arms and tasks that one of the two lacks.
        same_samples: tasks have the same samples in the same order although their fingerprints differ; a fingerprint
            also covers the classifier, which the base's text tower makes.
    """

    only_common: bool = False
    same_samples: bool = False


def paired(
    run: Snapshot, baseline: Snapshot, regress: Regress, allowed: Allowed
) -> tuple[list[SnapshotKey], list[str]]:
    """Return the cells that both runs have, and the reasons for leaving out the others.

    Raises:
        ValueError: if one run lacks a cell of the other and this is not allowed, or nothing is left to compare.
    """
    arms = list(regress.arms) or list(dict.fromkeys([*run.plain_arms, *baseline.plain_arms]))
    known = {*run.arms, *baseline.arms}
    if unknown := [arm for arm in arms if arm not in known]:
        raise ValueError(f"regress.arms: {unknown[0]!r} is in neither run; {near(unknown[0], sorted(known))}")
    wrong = _data(run, baseline, allowed.same_samples)
    keys = [key for key in dict.fromkeys([*run.cells, *baseline.cells]) if key[0] in arms]
    common = [key for key in keys if key[2] not in wrong and _groups(run, key) == _groups(baseline, key)]
    out = list(wrong.values()) + _missing(run, baseline, [key for key in keys if key[2] not in wrong])
    if out and not allowed.only_common:
        hint = "--only-common compares the rest; `lines baseline set` makes a new baseline"
        raise ValueError("\n".join([f"{run.place} cannot be compared with {baseline.place} as a whole:", *out, hint]))
    if not common:
        raise ValueError("\n".join([f"{run.place} has nothing in common with {baseline.place}:", *out]))
    return common, out


def _groups(snapshot: Snapshot, key: SnapshotKey) -> set[str]:
    return set(snapshot.cells.get(key, ()))


def _data(run: Snapshot, baseline: Snapshot, same_samples: bool) -> dict[str, str]:
    """Task -> the difference of its data, for the tasks that both runs have."""
    wrong = {}
    for task in (name for name in run.tasks if name in baseline.tasks):
        (new, n), (old, baseline_n) = run.tasks[task], baseline.tasks[task]
        if n != baseline_n:
            wrong[task] = f"task {task}: {n} test samples, {baseline_n} in the baseline"
        elif new != old and not same_samples:
            wrong[task] = (
                f"task {task}: other data: fingerprint {new}, {old} in the baseline (if only the base's text tower "
                "changed, which the fingerprint covers, use --same-samples)"
            )
    return wrong


def _missing(run: Snapshot, baseline: Snapshot, keys: Sequence[SnapshotKey]) -> list[str]:
    """Arms, tasks, and models on tasks that one run lacks; the tasks of a missing arm are not listed again."""
    lines = []
    for one, other, where in ((run, baseline, "the baseline"), (baseline, run, "the run")):
        arms = [arm for arm in dict.fromkeys(key[0] for key in keys) if arm in one.arms and arm not in other.arms]
        tasks = [t for t in dict.fromkeys(key[2] for key in keys) if t in one.tasks and t not in other.tasks]
        lines += [f"arm {arm}: not in {where}{_cause(other)}" for arm in arms]
        lines += [f"task {task}: not in {where}" for task in tasks]
        for key in (k for k in keys if k[0] not in arms and k[2] not in tasks):
            if lacking := sorted(_groups(one, key) - _groups(other, key)):
                of = f", expert {', '.join(lacking)}" if any(lacking) else ""
                lines.append(f"arm {key[0]}{of}, task {key[2]} as {key[1]}: not in {where}{_cause(other)}")
    return lines


def _cause(snapshot: Snapshot) -> str:
    """The first failure, which is the likely reason for missing scores."""
    failures = snapshot.about["failures"]
    if not failures:
        return ""
    return f" ({len(failures)} shards failed; the first: {failures[0]['kind']}: {failures[0]['cause']})"


def changes(earlier: Snapshot, later: Snapshot) -> list[str]:
    """Return the differences between two runs in words: checkpoints, data, versions, numerics, fields of the spec."""
    found = [f"checkpoint {line}" for line in _differing(earlier.about["checkpoints"], later.about["checkpoints"])]
    # Older runs recorded fewer packages: one that a run does not record is not a difference.
    old, new = earlier.about["versions"], later.about["versions"]
    found += [f"{name} {old[name]} → {new[name]}" for name in old if name in new and old[name] != new[name]]
    found += [f"data of {line}" for line in _differing(_fingerprints(earlier), _fingerprints(later))]
    if earlier.narrowed != later.narrowed:
        found.append(f"{FINE_TUNED}: {_reference_tasks(earlier)} → {_reference_tasks(later)}")
    numerics = (snapshot.about["numerics"].split(", ") for snapshot in (earlier, later))
    found += [f"numerics {a} → {b}" for a, b in zip_longest(*numerics, fillvalue="none") if a != b]
    return found + [f"spec.{line}" for line in _differing(_scoring_spec(earlier), _scoring_spec(later))]


def _reference_tasks(snapshot: Snapshot) -> str:
    """The tasks on which the references were scored, in words."""
    own = (f"{expert} on {', '.join(tasks)}" for expert, tasks in snapshot.narrowed.items())
    return _short("; ".join(own) or "all on all tasks")


def _fingerprints(snapshot: Snapshot) -> dict[str, str]:
    return {name: fingerprint for name, (fingerprint, _) in snapshot.tasks.items()}


def _scoring_spec(snapshot: Snapshot) -> dict[str, Any]:
    return {key: value for key, value in snapshot.about["spec"].items() if key not in _IGNORED}


def _differing(earlier: Mapping[str, Any], later: Mapping[str, Any], path: str = "") -> list[str]:
    found = []
    for key in dict.fromkeys([*earlier, *later]):
        a, b = earlier.get(key), later.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differing(a, b, f"{path}{key}.")
        elif a != b:
            found.append(f"{path}{key} {_short(a)} → {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
