"""The plan of a run: references first, then the arms, each followed by its matched controls."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pipeline.merging.components import Components
from pipeline.merging.methods import look_up_method
from pipeline.merging.methods.base import resolve_weights
from pipeline.merging.scaling import LAMBDA_OUTSIDE, SCALINGS
from pipeline.merging.steps import resolve_step
from pipeline.parameters import look_up, require_known, resolve
from pipeline.plan.controls import derived_controls, is_shaped, tuned_controls
from pipeline.plan.derived import needs_tall_masks, rescaled_merge, tall_mask_groups, with_tall_masks
from pipeline.plan.exhibit_checks import check_exhibits, shown_in_full
from pipeline.plan.groups import (
    FINE_TUNED,
    GREEDY,
    Chosen,
    Group,
    is_fine_tuned,
    make_groups,
    pre_trained,
    validation_tasks,
)
from pipeline.plan.references import implicit_experts
from pipeline.plan.seeds import seed_groups
from pipeline.plan.spec_checks import check_arena, check_merge_of_rewards, check_name, check_size, taken_names
from pipeline.recipe import COMPONENT, PATTERN
from pipeline.spec.arms import Arm
from pipeline.spec.run import RunSpec
from pipeline.spec.thresholds import check_regress
from search.greedy import GreedyProposer
from search.objectives import METRICS, REWARD_METRICS, Objective
from search.proposer import Proposer
from search.sampling import SearchConfig, make_proposer
from search.space import Choice, Float

_SCALE_SEPARATELY = "scale the soup in another arm, with merge: {of: THIS ARM}"


@dataclass(frozen=True)
class Plan:
    """The groups of a run, in the order of the tables.

    Attributes:
        references: the pre-trained model and each unscaled expert; accuracies are normalised by them.
        searched: all other groups; a group with a derivation comes after its parents.
        shown_in_full: arms of which an exhibit shows every candidate; in a run, also those that one has shown before.
    """

    spec: RunSpec
    references: tuple[Group, ...]
    searched: tuple[Group, ...]
    shown_in_full: frozenset[str] = frozenset()

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, in the order of the tables."""
        return self.references + self.searched


def make_plan(spec: RunSpec, whole_references: bool = False) -> Plan:
    """Plan a run, and check everything that needs no checkpoint.

    Args:
        spec: of the run.
        whole_references: whether all unscaled experts are scored on all tasks, as in the runs of older versions, and
            not only on those that something uses.

    Raises:
        ValueError: if a function, sampler or metric is unknown, a grid is empty, a sampler cannot search the space, or
            a name is taken; the message names the arm and the field.

    Example:
        >>> from pipeline.spec.load import parse_spec
        >>> plan = make_plan(parse_spec({
        ...     "name": "quickstart",
        ...     "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        ...     "base": "embedded/base",
        ...     "experts": {"mnist": "embedded/mnist", "fashion": "embedded/fashion"},
        ...     "tasks": ["mnist", "fashion"],
        ...     "arms": {"task arithmetic": {"merge": "sum", "scaling": {"alpha": {"grid": [0.5, 1.0]}}}},
        ... }))
        >>> [group.key for group in plan.groups]
        [('pre-trained', ''), ('fine-tuned', 'mnist'), ('fine-tuned', 'fashion'), ('task arithmetic', '')]
        >>> merge = plan.searched[0]
        >>> [str(merge.recipe(point)) for point in merge.space.grid()]
        ['method sum, scaling constant, alpha 0.5, beta 0', 'method sum, scaling constant, alpha 1, beta 0']
    """
    check_size(spec)
    check_arena(spec)
    taken = taken_names(spec)
    references: list[Group] = [pre_trained(spec)]
    planned = _Planned()
    for name, arm in spec.arms.items():
        check_name(name, taken)
        if spec.generation is not None and arm.merge is not None:
            check_merge_of_rewards(f"arms.{name}.merge", arm.merge)
        groups = _checked_groups(name, arm, spec, planned)
        references += [g for g in groups if is_fine_tuned(g)]
        planned.add(g for g in groups if not is_fine_tuned(g))
        with _at(f"arms.{name}."):
            planned.add(further for g in groups if g.kind == "merge" for further in seed_groups(g, arm))
        if spec.controls.kinds and is_shaped(arm):
            for control, tuned in tuned_controls(arm, spec).items():
                planned.add(_arm_groups(f"{name}, {control}", tuned, spec, planned.groups, (name, control)))
            followed = [g for g in groups if g.kind != "mask" and not is_fine_tuned(g)]
            planned.add(c for g in followed for c in derived_controls(g, spec))
    named = {g.name for g in references}
    missing = [e for e in spec.experts if e not in named]
    if missing and FINE_TUNED in spec.arms:
        raise ValueError(f"arms.{FINE_TUNED}: this name is taken by the unscaled experts; use another one")
    if missing:
        references += implicit_experts(missing, planned.groups.values(), spec, whole_references)
    searched = [*planned.groups.values()]
    check_exhibits(spec.exhibits, references + searched)
    check_regress(spec.regress, {g.arm for g in references + searched if not g.is_auxiliary}, {*spec.tasks, *spec.ood})
    return Plan(spec, tuple(references), tuple(searched), shown_in_full(spec.exhibits))


class _Planned:
    """The groups above an arm.

    Attributes:
        groups: by key, in the order of the tables.
    """

    def __init__(self) -> None:
        """Start at the top of a spec."""
        self.groups: dict[tuple[str, str], Group] = {}
        self._examples: dict[tuple[str, str], Group] = {}

    def add(self, groups: Iterable[Group]) -> None:
        """Add the groups of an arm."""
        self.groups |= {g.key: g for g in groups}

    def example(self, group: Group) -> Group:
        """Complete a group as if its parents, which were added before, had chosen the last of their points."""
        if group.derivation is None:
            return group
        if group.key not in self._examples:
            parents = [self.example(self.groups[key]) for key in group.derivation.parents]
            chosen = [Chosen(parent, corners(parent)[-1]) for parent in parents]
            self._examples[group.key] = group.derivation.complete(group, chosen)
        return self._examples[group.key]


def _arm_groups(
    name: str, arm: Arm, spec: RunSpec, above: Mapping[tuple[str, str], Group], control: tuple[str, str] = ("", "")
) -> list[Group]:
    """Return an arm's groups, after the mask searches that they derive from and no arm above has."""
    groups = [replace(g, control_of=control[0], control=control[1]) for g in make_groups(name, arm, spec)]
    if arm.merge is not None and arm.merge.of:
        return [rescaled_merge(g, arm, spec, above) for g in groups]
    if not needs_tall_masks(groups[0]):
        return groups
    masks = tall_mask_groups(groups[0], arm, spec)
    return [m for m in masks if m.key not in above] + [with_tall_masks(g, masks, spec) for g in groups]


def _checked_groups(name: str, arm: Arm, spec: RunSpec, planned: _Planned) -> list[Group]:
    """Return an arm's groups after checking everything that could make their searches fail later."""
    with _at(f"arms.{name}: "):
        groups = _arm_groups(name, arm, spec, planned.groups)
    planned.add(group for group in groups if group.kind == "mask")
    for group in groups:
        with _at(f"arms.{name}.search: "):
            _check_greedy(group, arm)
            proposer(group, spec)
        with _at(f"arms.{name}."):
            for point in corners(group):
                _check_recipe(planned.example(group), point, len(spec.experts))
        for expression in group.objectives:
            with _at(f"arms.{name}.select.maximise: " if arm.select else "select.maximise: "):
                known = REWARD_METRICS if spec.has_rewards else METRICS
                Objective.parse(expression, validation_tasks(group), known)
    return groups


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Put the path of a field in front of errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}{error}") from error


def _check_recipe(group: Group, point: dict[str, float | int | str], num_experts: int) -> None:
    """Require known method, scaling function and steps, which accept the parameters and weights of the point."""
    template = group.template
    scaling = look_up(SCALINGS, template.scaling, "scaling.function")
    method = look_up_method(template.method, "merge.method")
    declared = {p.name: p for p in (*method.parameters, *scaling.parameters, LAMBDA_OUTSIDE)}
    weights, params = template.filled(point)
    with _at("scaling."):
        Components.of(params)
    for name, value in params.items():
        if name.startswith((COMPONENT, PATTERN)):
            continue
        require_known("params", name, declared, "parameter")
        with _at("params."):
            declared[name].check(value)
    for place, (step, given) in enumerate(template.steps(point)):
        resolve_step(step, given, f"merge.then[{place}]")
    with _at("merge.weights: "):
        method.check(resolve_weights(weights, num_experts), resolve(method.parameters, params))


def _check_greedy(group: Group, arm: Arm) -> None:
    """Require that a greedy soup only searches which experts take part."""
    if arm.search.sampler != GREEDY:
        return
    if arm.merge is None or arm.merge.method != "average":
        raise ValueError("greedy: builds a soup and needs a merge by the method average")
    if arm.merge.weights:
        raise ValueError("greedy: searches the weights; leave merge.weights out")
    if arm.search.trials is not None or arm.search.options:
        raise ValueError("greedy: has no trials or options; leave them out")
    if arm.scaling.function != "constant":
        raise ValueError(f"greedy: builds a soup of constant scaling, got {arm.scaling.function}: {_SCALE_SEPARATELY}")
    if others := [d.name for d in group.space.dims if not d.name.startswith("weights.")]:
        raise ValueError(
            f"greedy: only searches which experts take part, got {', '.join(others)} too: {_SCALE_SEPARATELY}"
        )


def corners(group: Group) -> list[dict[str, float | int | str]]:
    """Return the points with all dimensions at their lowest, middle and highest values; allowed values are intervals.

    A greedy soup has only the highest: it never proposes a soup without experts.
    """
    ends = {
        d.name: sorted(d.choices) if isinstance(d, Choice) else [d.low, _middle(d), d.high] for d in group.space.dims
    }
    places = (2,) if group.search.sampler == GREEDY else (0, 1, 2)
    return [{name: values[i * (len(values) - 1) // 2] for name, values in ends.items()} for i in places]


def _middle(dimension: Float) -> float:
    """Return a value between the lowest and the highest, on a step if the dimension has steps."""
    half = (dimension.high - dimension.low) / 2
    return dimension.low + (half // dimension.step * dimension.step if dimension.step else half)


def proposer(group: Group, spec: RunSpec) -> Proposer:
    """Return a new proposer for the group's space; its seed depends on the run's seed and on the group.

    Raises:
        ValueError: if the sampler is unknown or cannot search the space.
    """
    search = group.search
    if search.sampler == GREEDY:
        return GreedyProposer([d.name for d in group.space.dims], len(group.objectives))
    seed = zlib.crc32(f"{spec.seed}/{group.arm}/{group.name}".encode())
    config = SearchConfig(search.sampler, search.trials, len(group.objectives), seed, search.options)
    return make_proposer(group.space, config)
