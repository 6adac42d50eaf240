"""The further seeds with which the choice of a random merge method is scored again."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.merging.methods import METHODS, look_up_method
from pipeline.plan.groups import Chosen, Derivation, Group, Template
from pipeline.spec.arms import Arm, Search
from search.space import Choice, Space

#: The kind of these groups, and the ending of their arms' names: "ARM, seeds".
SEEDS = "seeds"
_SEED = "seed"


def with_seeds(arm: Arm) -> bool:
    """Whether the choice of an arm is scored with several seeds."""
    return arm.merge is not None and arm.merge.seeds > 1


def seed_groups(group: Group, arm: Arm) -> list[Group]:
    """Return the group of an arm's further seeds: the numbers after the one that the arm uses.

    They are scored on the same splits as the choice, on test too, and none of them is chosen.

    Raises:
        ValueError: if the method has no random parts, or its seed is searched.
    """
    if not with_seeds(arm):
        return []
    assert arm.merge is not None
    name = group.template.method
    declared = next((p for p in look_up_method(name, "merge.method").parameters if p.name == _SEED), None)
    if declared is None:
        random = [known for known, method in METHODS.items() if any(p.name == _SEED for p in method.parameters)]
        raise ValueError(f"merge.seeds: {name} has no random parts; methods that have: {', '.join(random)}")
    first = group.template.params.get(_SEED, declared.default)
    if not isinstance(first, int | float):
        raise ValueError("merge.seeds: scores the choice with further seeds; give params.seed one number, or leave it")
    return [
        replace(
            group,
            arm=f"{group.arm}, {SEEDS}",
            kind="seeds",
            space=Space((Choice(_SEED, tuple(range(int(first) + 1, int(first) + arm.merge.seeds))),)),
            search=Search(),
            test_all=True,
            control_of=group.arm,
            control=SEEDS,
            derivation=Derivation((group.key,), _reseeded),
        )
    ]


def _reseeded(group: Group, chosen: Sequence[Chosen]) -> Group:
    """Complete the group with the chosen recipe, but the seed of each point."""
    template = Template.from_recipe(chosen[0].recipe)
    return replace(group, template=replace(template, params={**template.params, _SEED: _SEED}), derivation=None)
