"""Turns arms into groups: each is a space of points with a template that makes a recipe of a point."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.plan.soups import lambda_dimensions, soup_weights
from pipeline.recipe import COMPONENT, OUTSIDE, PATTERN, ParamValue, Recipe, step_titles
from pipeline.spec.arms import Arm, Search, StepSpec
from pipeline.spec.run import RunSpec
from pipeline.spec.values import ONE_MINUS_ALPHA, Grid, Range
from search.space import Choice, Dimension, Float, Space

GroupKind = Literal["pre-trained", "edit", "merge", "mask", "seeds"]
Role = Literal["target", "control", "ood"]
Point = Mapping[str, float | int | str]
#: A constant, or the name of the searched dimension whose value it takes.
Slot = float | int | str | tuple["float | int | str", ...]

PRE_TRAINED = "pre-trained"
FINE_TUNED = "fine-tuned"
GREEDY = "greedy"


@dataclass(frozen=True)
class Template:
    """A recipe in which every string that is the name of a dimension is replaced by the point's value.

    Attributes:
        soup: places of the experts of a rewarded soup; their weights come from the point instead of `weights`.
        then: name and parameters of each step after the merge.
    """

    method: str
    scaling: str
    alpha: Slot
    beta: Slot
    weights: tuple[Slot, ...]
    params: Mapping[str, Slot]
    scale: Slot = 1
    soup: tuple[int, ...] = ()
    then: tuple[tuple[str, Mapping[str, Slot]], ...] = ()

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> "Template":
        """Build a template that makes `recipe` of every point."""
        then = tuple((name, dict(params)) for name, params in recipe.then)
        slots = recipe.scaling, recipe.alpha, recipe.beta, recipe.weights, dict(recipe.params)
        return cls(recipe.method, *slots, then=then)

    def recipe(self, point: Point) -> Recipe:
        """Return the recipe of `point`."""
        alpha = _fill(self.alpha, point)
        beta = 1 - alpha if self.beta == ONE_MINUS_ALPHA else _fill(self.beta, point)  # type: ignore[operator]
        weights, params = self.filled(point)
        if self.scale != 1:
            scale = _fill(self.scale, point)
            alpha, beta = alpha * scale, beta * scale  # type: ignore[operator]
        made = Recipe.make(self.method, self.scaling, alpha, beta, weights, params)  # type: ignore[arg-type]
        return made.followed_by(self.steps(point))

    def filled(self, point: Point) -> tuple[tuple[float, ...], dict[str, ParamValue]]:
        """Return the weights of the experts, and the parameters of method and scaling function, at `point`."""
        weights = tuple(_fill(w, point) for w in self.weights)
        if self.soup:
            of_place = dict(zip(self.soup, soup_weights(point, len(self.soup)), strict=True))
            weights = tuple(of_place.get(place, 0) for place in range(len(weights)))
        return weights, _filled(self.params, point)  # type: ignore[return-value]

    def steps(self, point: Point) -> tuple[tuple[str, dict[str, ParamValue]], ...]:
        """Return name and parameters of each step after the merge, at `point`."""
        return tuple((name, _filled(params, point)) for name, params in self.then)


def _filled(params: Mapping[str, Slot], point: Point) -> dict[str, ParamValue]:
    filled = {name: value if name.startswith(PATTERN) else _fill(value, point) for name, value in params.items()}
    return filled  # type: ignore[return-value]


def _fill(slot: Slot, point: Point) -> ParamValue:
    if isinstance(slot, tuple):
        return tuple(_fill(part, point) for part in slot)  # type: ignore[misc]
    return point.get(slot, slot) if isinstance(slot, str) else slot


@dataclass(frozen=True)
class Derivation:
    """How a group's template derives from the choices of other groups.

    Attributes:
        parents: keys of these groups; they come before this one in the plan.
        complete: (planned group, choices of its parents in their order) -> the group with its complete template.
    """

    parents: tuple[tuple[str, str], ...]
    complete: "Callable[[Group, Sequence[Chosen]], Group]"


@dataclass(frozen=True)
class Group:
    """One search with one chosen candidate: an arm's edit of one expert, or an arm's merge.

    Attributes:
        arm: name of the row in tables.
        kind: pre-trained, edit, merge, mask (the search of one expert's mask for a consensus merge), or seeds (the
            choice of a merge with further seeds).
        name: the expert of an edit or mask; "" otherwise.
        roles: task -> target, control or ood, in the order of the spec.
        space: the searched dimensions; a space without dimensions has one candidate.
        template: makes the recipe of a point.
        search: how the space is searched.
        objectives: expressions to maximise on validation.
        control_of: the arm that this one is a control of, or "".
        control: "", uniform, equal_norm, constant, reversed or seeds.
        test_all: whether all candidates are scored on test, not only the chosen one.
        derivation: the choices that complete the template; None if it is complete.
    """

    arm: str
    kind: GroupKind
    name: str
    roles: Mapping[str, Role]
    space: Space
    template: Template
    search: Search
    objectives: tuple[str, ...]
    control_of: str = ""
    control: str = ""
    test_all: bool = False
    derivation: Derivation | None = None

    @property
    def is_auxiliary(self) -> bool:
        """Whether it has no row in the report's tables: a search of masks, or the further seeds of a choice."""
        return self.kind in ("mask", "seeds")

    @property
    def key(self) -> tuple[str, str]:
        """(arm, name): identifies the group in the journal and in the tables."""
        return self.arm, self.name

    def recipe(self, point: Point) -> Recipe:
        """Return the recipe of a point of the group's space."""
        return self.template.recipe(point)


@dataclass(frozen=True)
class Chosen:
    """The candidate that a group chose.

    It holds the point and not only the recipe, which forgets the merge if alpha is 0.

    Attributes:
        group: the group, with its complete template.
        point: the chosen point of its space.
    """

    group: Group
    point: Point

    @property
    def recipe(self) -> Recipe:
        """The recipe of the chosen point."""
        return self.group.recipe(self.point)


def validation_tasks(group: Group) -> list[str]:
    """Return the tasks that are scored while searching."""
    return [task for task, role in group.roles.items() if role != "ood"]


def make_groups(name: str, arm: Arm, spec: RunSpec) -> list[Group]:
    """Return one group for each expert of an edit, or one for a merge."""
    if arm.edit is None:
        return [_group(name, arm, spec, "")]
    return [_group(name, arm, spec, e) for e in (spec.experts if "each_expert" in arm.edit else arm.edit)]


def _group(name: str, arm: Arm, spec: RunSpec, expert: str) -> Group:
    dims: list[Dimension] = []
    weights, soup = _weights(arm, spec, expert, dims)
    merge, scaling = arm.merge, arm.scaling
    alpha, beta = _slot("alpha", scaling.alpha, dims), _slot("beta", scaling.beta, dims)
    given = {**(merge.params if merge else {}), **scaling.params}
    if scaling.outside != "alpha":
        given[OUTSIDE] = scaling.outside
    given |= {COMPONENT + name: factor for name, factor in scaling.components.items()}
    given |= {PATTERN + name: pattern for name, pattern in scaling.patterns.items()}
    params = {key: _slot(key, value, dims) for key, value in given.items()}
    then = _steps(merge.then if merge else (), dims)
    scale = _slot("scale", scaling.scale, dims)
    known = roles(spec, [spec.target(e) for e in ([expert] if expert else arm.experts or spec.experts)])
    return Group(
        arm=name,
        kind="edit" if expert else "merge",
        name=expert,
        roles=known if arm.score == "all" else {t: role for t, role in known.items() if role != "control"},
        space=Space(tuple(dims)),
        template=Template(
            merge.method if merge else "single", scaling.function, alpha, beta, weights, params, scale, soup, then
        ),
        search=arm.search,
        objectives=(arm.select or spec.select).maximise,
        test_all=arm.test == "every",
    )


def _weights(arm: Arm, spec: RunSpec, expert: str, dims: list[Dimension]) -> tuple[tuple[Slot, ...], tuple[int, ...]]:
    """Return the weights of the experts and the places of a soup's experts; add their dimensions to `dims`."""
    merge, experts = arm.merge, tuple(spec.experts)
    used = (expert,) if merge is None else arm.experts or experts
    if merge is not None and merge.lambdas is not None:
        soup = _soup_places(used, spec)
        dims += lambda_dimensions(merge.lambdas, len(soup))
        return (0,) * len(experts), soup
    if merge is not None and merge.weights:
        return tuple(_slot(f"weights.{e}", merge.weights.get(e, 0.0), dims) for e in experts), ()
    if merge is not None and arm.search.sampler == GREEDY:
        dims += [Choice(f"weights.{e}", (0, 1)) for e in experts if e in used]
        return tuple(f"weights.{e}" if e in used else 0 for e in experts), ()
    all_of_a_merge = merge is not None and len(used) == len(experts)
    return () if all_of_a_merge else tuple(int(e in used) for e in experts), ()


def _steps(then: Sequence[StepSpec], dims: list[Dimension]) -> tuple[tuple[str, Mapping[str, Slot]], ...]:
    """Return name and parameters of each step; searched ones are called "STEP.PARAMETER", a second step "STEP2"."""
    return tuple(
        (each.step, {key: _slot(f"{title}.{key}", value, dims) for key, value in each.params.items()})
        for title, each in zip(step_titles(each.step for each in then), then, strict=True)
    )


def _soup_places(used: tuple[str, ...], spec: RunSpec) -> tuple[int, ...]:
    """Return the places of a soup's experts.

    Raises:
        ValueError: if they are not in the run's order, as lambdas could then be read in either order.
    """
    ordered = [e for e in spec.experts if e in used]
    if ordered != list(used):
        order, got = ", ".join(ordered), ", ".join(used)
        raise ValueError(f"experts: must be in the run's order, {order}, which is that of lambdas, got {got}")
    return tuple(i for i, e in enumerate(spec.experts) if e in used)


def roles(spec: RunSpec, targets: list[str]) -> dict[str, Role]:
    """Return task -> role for a group whose experts were fine-tuned on `targets`."""
    known: dict[str, Role] = {task: "target" if task in targets else "control" for task in spec.tasks}
    return known | dict.fromkeys(spec.ood, "ood")


def _slot(name: str, value: object, dims: list[Dimension]) -> Slot:
    """Return a constant, or add a dimension to `dims` and return its name."""
    if isinstance(value, tuple):
        return tuple(_slot(f"{name}.{i}", part, dims) for i, part in enumerate(value))  # type: ignore[misc]
    if isinstance(value, Grid):
        if len(value.grid) == 1:
            return value.grid[0]
        dims.append(Choice(name, value.grid))
        return name
    if isinstance(value, Range):
        dims.append(Float(name, *value.range, step=value.step, log=value.log))
        return name
    assert isinstance(value, str | float | int)
    return value


def pre_trained(spec: RunSpec) -> Group:
    """Return the group of the pre-trained model: the reference of control tasks, and a row of every table."""
    targets = [spec.target(e) for e in spec.experts]
    template = Template("zero", "constant", 0, 0, (), {})
    shown = ("reward",) if spec.has_rewards else ("accuracy",)
    return Group(PRE_TRAINED, "pre-trained", "", roles(spec, targets), Space(()), template, Search(), shown)


def is_fine_tuned(group: Group) -> bool:
    """Whether the group is an unscaled expert: the reference of its target task."""
    plain = group.kind == "edit" and not group.space.dims and group.derivation is None
    # Lambda outside the blocks makes an arm of its own, whatever it is: plans of older runs stay as they are.
    return plain and OUTSIDE not in group.template.params and group.recipe({}).is_expert
