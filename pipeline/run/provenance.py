"""The contents of provenance.json: what a run was, derived from its journal."""

from collections.abc import Mapping
from typing import Any

from pipeline.plan.plan import Plan
from pipeline.plan.references import narrowed_references
from pipeline.records import tables
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import Candidate, choose


def provenance(
    plan: Plan, ledger: Ledger, judged: Mapping[GroupKey, list[Candidate]], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the contents of provenance.json, to which every number of the report can be traced.

    Args:
        plan: the run's plan.
        ledger: its answers.
        judged: the final candidates of every group but the references (see `judge_all`).
        known: facts that only the run itself knows: versions, workers, seconds, counts, whether it is complete.
    """
    identity, spec = ledger.identity, plan.spec
    return {
        "schema_version": tables.SCHEMA_VERSION,
        "name": spec.name,
        "spec": spec.model_dump(mode="json"),
        "objectives": {g.arm: list(g.objectives) for g in plan.groups if g.kind != "seeds"},
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
        **({"reference_tasks": narrowed} if (narrowed := narrowed_references(spec, plan.references)) else {}),
        "layers": {"block_sizes": list(identity.block_sizes), "outside_size": identity.outside_size},
        "checkpoints": dict(identity.checkpoints),
        "fingerprint": identity.fingerprint,
        "numerics": identity.numerics,
        **({"calibration": dict(identity.calibration)} if identity.calibration else {}),
        **(_costs(ledger, judged) if spec.arena else {}),
        "failures": _failures(ledger),
        "not_searched": _not_searched(plan, judged) if known["complete"] else [],
        **({"nothing_chosen": failed} if known["complete"] and (failed := _nothing_chosen(judged)) else {}),
        **known,
    }


def _not_searched(plan: Plan, judged: Mapping[GroupKey, list[Candidate]]) -> list[dict[str, str]]:
    """Return the groups without candidates: every candidate of a group that they derive from failed."""
    found = []
    for group in (g for g in plan.searched if g.key not in judged):
        assert group.derivation is not None, "every other group is judged"
        parents = [key for key in group.derivation.parents if choose(judged.get(key, [])) is None]
        cause = f"nothing could be chosen of {', '.join(f'{a} ({name})' if name else a for a, name in parents)}"
        found.append({"arm": group.arm, "group": group.name, "cause": cause})
    return found


def _nothing_chosen(judged: Mapping[GroupKey, list[Candidate]]) -> list[dict[str, str]]:
    """Return the groups whose candidates all failed, so that the report has no row of them."""
    return [
        {
            "arm": candidates[0].group.arm,
            "group": candidates[0].group.name,
            "cause": f"all {len(candidates)} candidates failed; the first: {candidates[0].failure}",
        }
        for candidates in judged.values()
        if candidates and all(candidate.failure for candidate in candidates)
    ]


def _costs(ledger: Ledger, judged: Mapping[GroupKey, list[Candidate]]) -> dict[str, dict[str, float]]:
    """Return arm -> the seconds of workers that its candidates took, and the most bytes to set the weights of one."""
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    for candidate in (c for candidates in judged.values() for c in candidates):
        arm = candidate.group.arm
        seconds[arm] = seconds.get(arm, 0.0) + ledger.answers.seconds(candidate.recipe_id)
        memory[arm] = max(memory.get(arm, 0), ledger.answers.memory(candidate.recipe_id))
    return {
        "arm_seconds": {arm: round(found, 1) for arm, found in seconds.items()},
        "arm_memory": {arm: found for arm, found in memory.items() if found},
    }


def _failures(ledger: Ledger) -> list[dict[str, Any]]:
    fields = ("recipe_id", "task", "split", "shard")
    return [
        {**{name: getattr(failure.request, name) for name in fields}, "kind": failure.kind, "cause": failure.cause}
        for failure in ledger.answers.failures.values()
    ]
