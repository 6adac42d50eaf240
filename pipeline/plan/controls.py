"""The matched controls of LiNeS arms: reversed depth, tuned constants, constants of equal mean and of equal norm."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.plan.groups import Chosen, Derivation, Group, Template
from pipeline.spec.arms import Arm, ScalingSpec, Search
from pipeline.spec.run import RunSpec
from pipeline.spec.values import Grid, Range
from search.space import Space

#: What `uniform` and `reversed` add to an arm's name, in all.
NAMES = ("uniform", "equal norm", "constant", "reversed")
#: Controls that follow from what the arm chose: the kind, which is also the scaling's prefix -> their name.
_FOLLOWING = {"uniform": "uniform", "equal_norm": "equal norm"}


def tuned_controls(arm: Arm, spec: RunSpec) -> dict[str, Arm]:
    """The reversed depth, and a dense curve of constants, each searched and chosen as the arm itself is.

    Of a rewarded soup nothing is chosen, so its controls run along all of lambda: at each, the constant of equal mean.
    """
    if arm.merge is not None and arm.merge.lambdas is not None:
        return {kind: _prefixed(arm, kind) for kind in ("uniform", "reversed") if kind in spec.controls.kinds}
    controls = {}
    if "uniform" in spec.controls.kinds:
        controls["constant"] = arm.model_copy(update=_constants(arm, spec))
    if "reversed" in spec.controls.kinds:
        controls["reversed"] = _prefixed(arm, "reversed")
    return controls


def _prefixed(arm: Arm, control: str) -> Arm:
    scaling = arm.scaling.model_copy(update={"function": f"{control}:{arm.scaling.function}"})
    return arm.model_copy(update={"scaling": scaling})


def _constants(arm: Arm, spec: RunSpec) -> dict[str, ScalingSpec | Search]:
    """Every constant of a dense grid; where a sampler searches the merge too, no grid spans that: it gets the interval.

    The arm's own search then has as many trials for the control as for the arm.
    """
    merge = arm.merge
    searched = merge is not None and any(_is_searched(d) for d in (*merge.params.values(), *merge.weights.values()))
    if searched and arm.search.sampler != "grid":
        return {"scaling": ScalingSpec(alpha=Range(range=(0.0, max(1.0, _highest(arm, spec)))))}
    return {"scaling": ScalingSpec(alpha=_dense(arm, spec)), "search": Search()}


def _is_searched(value: object) -> bool:
    if isinstance(value, tuple):
        return any(map(_is_searched, value))
    return isinstance(value, Range) or (isinstance(value, Grid) and len(value.grid) > 1)


def derived_controls(group: Group, spec: RunSpec) -> list[Group]:
    """The constants of equal mean and of equal norm of what `group` chooses, known only then."""
    if "uniform" not in spec.controls.kinds or group.template.soup:
        return []
    return [
        replace(
            group,
            arm=f"{group.arm}, {name}",
            space=Space(()),
            search=Search(),
            control_of=group.arm,
            control=control,
            derivation=Derivation((group.key,), flatten),
        )
        for control, name in _FOLLOWING.items()
    ]


def flatten(control: Group, chosen: Sequence[Chosen]) -> Group:
    """The control with its recipe: the constant equal to the mean, or of the norm, of the chosen one's lambda."""
    recipe = chosen[0].recipe
    flat = recipe if recipe.scaling == "constant" else replace(recipe, scaling=f"{control.control}:{recipe.scaling}")
    return replace(control, template=Template.from_recipe(flat), derivation=None)


def _dense(arm: Arm, spec: RunSpec) -> Grid:
    """Constants from 0 to the largest coefficient, and the arm's own values: never a coarser grid than the arm's.

    A coarse curve of constants loses by its gaps and so makes LiNeS win: that was seen, and undone by a finer one.
    """
    own, count = {*_values(arm.scaling.alpha), *_values(arm.scaling.beta)}, spec.controls.constants
    top = max(1.0, _highest(arm, spec))
    evenly = {round(top * i / (count - 1), 6) for i in range(count)}
    return Grid(grid=tuple(sorted(evenly | {v for v in own if v >= 0})))


def _highest(arm: Arm, spec: RunSpec) -> float:
    """The largest lambda that a point of the arm can give; by equation 2 a sum has alpha 1/N, an average or edit 1."""
    summed = arm.merge is not None and arm.merge.method == "sum"
    auto = 1 / len(arm.experts or spec.experts) if summed else 1.0
    alphas = (auto,) if isinstance(arm.scaling.alpha, str) else _values(arm.scaling.alpha)
    knots = arm.scaling.params.get("knots", (1.0,))
    assert isinstance(knots, tuple), "checked with the arm itself"
    shapes = (0.0, *(value for knot in knots for value in _values(knot)))
    scale = max(_values(arm.scaling.scale))
    return scale * max(a + b * f for a in alphas for b in _values(arm.scaling.beta) or (1 - a,) for f in shapes)


def _values(dimension: object) -> tuple[float, ...]:
    if isinstance(dimension, Grid):
        return dimension.grid
    if isinstance(dimension, Range):
        return dimension.range
    return (dimension,) if isinstance(dimension, float | int) else ()
