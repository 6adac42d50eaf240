"""Arms that derive from the choices of others: a rescaled merge, and consensus merging with tuned masks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.merging.methods import METHODS
from pipeline.plan.groups import Chosen, Derivation, Group, Template
from pipeline.spec.arms import Arm, Search
from pipeline.spec.run import RunSpec
from search.space import Choice, Space
from tasks.registry import near

#: Name of the arm that searches the masks, or its beginning.
MASKS = "TALL masks"
#: Lambdas of TALL masks to try for each task (Wang et al. 2024, values of the authors' code).
TALL_LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)
_AUTO = "auto"


def rescaled_merge(group: Group, arm: Arm, spec: RunSpec, above: Mapping[tuple[str, str], Group]) -> Group:
    """Complete the group of an arm with `merge: {of: ...}`, whose experts, method and weights the named arm chooses.

    Raises:
        ValueError: if no merge of that name is above this arm.
    """
    assert arm.merge is not None
    parent = above.get((arm.merge.of, ""))
    if parent is None or parent.kind != "merge":
        below = spec.arms.get(arm.merge.of)
        is_below = below is not None and below.merge is not None and below is not arm
        merges = [g.arm for g in above.values() if g.kind == "merge"]
        hint = ", which is below: move it above this arm" if is_below else f"; {near(arm.merge.of, merges)}"
        raise ValueError(f"merge.of: must be a merge above this arm, got {arm.merge.of!r}{hint}")
    roles = {t: role for t, role in parent.roles.items() if arm.score == "all" or role != "control"}
    return replace(group, roles=roles, derivation=Derivation((parent.key,), _with_merge))


def _with_merge(group: Group, chosen: Sequence[Chosen]) -> Group:
    """Complete the group with the parent's method, its weights and parameters, and steps; keep its own scaling."""
    (parent,) = chosen
    own, method = group.template, parent.group.template.method
    weights, params = parent.group.template.filled(parent.point)
    of_method = {p.name: params[p.name] for p in METHODS[method].parameters if p.name in params}
    then = parent.group.template.steps(parent.point)
    template = replace(own, method=method, weights=weights, params={**of_method, **own.params}, then=then)
    return replace(group, template=template, derivation=None)


def needs_tall_masks(group: Group) -> bool:
    """Whether the lambdas of a consensus merge's masks are chosen on validation (`tall_lambda: auto`).

    Raises:
        ValueError: if `tall_lambda` is another word.
    """
    value, searched = group.template.params.get("tall_lambda"), {d.name for d in group.space.dims}
    if group.template.method != "consensus" or not isinstance(value, str) or value in searched:
        return False
    if value != _AUTO:
        raise ValueError(f"merge.params.tall_lambda: must be a number, one for each expert, or {_AUTO}, got {value!r}")
    return True


def tall_mask_groups(group: Group, arm: Arm, spec: RunSpec) -> list[Group]:
    """Return one search for each expert of the merge: the lambda of its mask that is best on the expert's own task."""
    used, experts = list(arm.experts or spec.experts), list(spec.experts)
    name = MASKS if len(used) == len(experts) else f"{MASKS} of {', '.join(used)}"
    mask = Template("tall_mask", "constant", 1, 0, group.template.weights, {})
    return [
        Group(
            arm=name,
            kind="mask",
            name=expert,
            roles={spec.target(expert): "target"},
            space=Space((Choice("tall_lambda", TALL_LAMBDAS),)),
            template=replace(mask, params={"tall_lambda": "tall_lambda", "expert": experts.index(expert)}),
            search=Search(),
            objectives=("target",),
        )
        for expert in used
    ]


def with_tall_masks(group: Group, masks: Sequence[Group], spec: RunSpec) -> Group:
    """Return the merge with a derivation from the lambdas that `masks` choose."""

    def complete(planned: Group, chosen: Sequence[Chosen]) -> Group:
        by_expert = {mask.name: best.point["tall_lambda"] for mask, best in zip(masks, chosen, strict=True)}
        # An unused expert has no mask; its lambda changes nothing, so it is always the first.
        lambdas = tuple(float(by_expert.get(e, TALL_LAMBDAS[0])) for e in spec.experts)
        template = replace(planned.template, params={**planned.template.params, "tall_lambda": lambdas})
        return replace(planned, template=template, derivation=None)

    return replace(group, derivation=Derivation(tuple(mask.key for mask in masks), complete))
