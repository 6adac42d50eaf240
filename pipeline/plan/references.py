"""The unscaled experts that are no arm of the spec: each is scored on the tasks that something uses."""

from collections.abc import Iterable
from dataclasses import replace

from pipeline.plan.exhibit_checks import roles_shown
from pipeline.plan.groups import FINE_TUNED, Group, make_groups
from pipeline.spec.arms import Arm
from pipeline.spec.run import RunSpec


def implicit_experts(experts: Iterable[str], planned: Iterable[Group], spec: RunSpec, whole: bool) -> list[Group]:
    """Return one reference for each expert that no arm leaves unscaled.

    Its own task is always scored: it normalises. Other tasks are scored where an edit of the expert is scored, whose
    row they are compared with, and where an exhibit or `regress.arms` names the references. In a run of rewards all
    tasks score the same completions, and the report compares the policies on each.

    Args:
        experts: their names.
        planned: the groups of the arms and of their controls.
        spec: of the run.
        whole: whether they are scored on all tasks, as older versions did.
    """
    groups = make_groups(FINE_TUNED, Arm(edit=tuple(experts)), spec)
    if whole or spec.generation is not None or FINE_TUNED in spec.regress.arms:
        return groups
    shown = {"target"} | roles_shown(spec.exhibits, FINE_TUNED)
    edited: dict[str, set[str]] = {}
    for group in planned:
        if group.kind == "edit":
            edited.setdefault(group.name, set()).update(group.roles)
    return [_narrowed(group, shown, edited.get(group.name, set())) for group in groups]


def _narrowed(group: Group, shown: set[str], compared: set[str]) -> Group:
    return replace(group, roles={t: role for t, role in group.roles.items() if role in shown or t in compared})


def narrowed_references(spec: RunSpec, references: Iterable[Group]) -> dict[str, list[str]]:
    """Return expert -> the tasks it is scored on, of the implicit references that are not scored on all tasks."""
    count = len(spec.tasks) + len(spec.ood)
    implicit = (g for g in references if g.arm == FINE_TUNED and FINE_TUNED not in spec.arms)
    return {group.name: list(group.roles) for group in implicit if len(group.roles) < count}
