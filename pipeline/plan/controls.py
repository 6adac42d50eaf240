"""The matched controls of LiNeS arms: reversed depth, and constants that are tuned, of equal mean or of equal norm."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.merging.scaling import SCALINGS
from pipeline.plan.groups import Chosen, Derivation, Group, Template
from pipeline.spec.arms import Arm, ScalingSpec, Search
from pipeline.spec.run import RunSpec
from pipeline.spec.values import Grid, Range, listed, searched
from search.space import Space

#: Endings of the names of controls: "ARM, uniform".
NAMES = ("uniform", "equal norm", "constant", "reversed")
#: Controls that derive from the chosen candidate: kind, also the scaling's prefix -> ending of the name.
_DERIVED = {"uniform": "uniform", "equal_norm": "equal norm"}


def is_shaped(arm: Arm) -> bool:
    """Whether lambda depends on depth or on components, so that the arm has controls."""
    return arm.scaling.function != "constant" or bool(arm.scaling.components)


def tuned_controls(arm: Arm, spec: RunSpec) -> dict[str, Arm]:
    """Return control -> arm for the controls with their own search: reversed depth, and a dense grid of constants.

    No candidate of a rewarded soup is chosen, so its controls cover every lambda, each with the constant of equal mean.
    """
    # A constant with factors of components has no depth to reverse.
    kinds = [kind for kind in spec.controls.kinds if kind != "reversed" or arm.scaling.function != "constant"]
    if arm.merge is not None and arm.merge.lambdas is not None:
        kinds = ["uniform" if kind == "equal" else kind for kind in kinds]
        return {kind: _prefixed(arm, kind) for kind in ("uniform", "reversed") if kind in kinds}
    controls = {}
    if "uniform" in kinds:
        controls["constant"] = arm.model_copy(update=_constants(arm, spec))
    if "reversed" in kinds:
        controls["reversed"] = _prefixed(arm, "reversed")
    return controls


def _prefixed(arm: Arm, control: str) -> Arm:
    scaling = arm.scaling.model_copy(update={"function": f"{control}:{arm.scaling.function}"})
    return arm.model_copy(update={"scaling": scaling})


def _constants(arm: Arm, spec: RunSpec) -> dict[str, ScalingSpec | Search]:
    """Return scaling and search of the tuned constants: a dense grid.

    If a sampler also searches the merge, or lambda outside the blocks, no grid covers the space; the control then
    searches the interval of constants with the arm's own sampler and number of trials.
    """
    if searched((arm.merge, arm.scaling.outside)) and arm.search.sampler != "grid":
        constants: Range | Grid = Range(range=(0.0, max(1.0, _highest(arm, spec))))
        return {"scaling": ScalingSpec(alpha=constants, outside=arm.scaling.outside)}
    return {
        "scaling": ScalingSpec(alpha=Grid(grid=dense_constants(arm, spec)), outside=arm.scaling.outside),
        "search": Search(),
    }


def derived_controls(group: Group, spec: RunSpec) -> list[Group]:
    """Return the controls whose recipes derive from the candidate that `group` chooses."""
    if not {"uniform", "equal"} & {*spec.controls.kinds} or group.template.soup:
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
        for control, name in _DERIVED.items()
    ]


def flatten(control: Group, chosen: Sequence[Chosen]) -> Group:
    """Complete a control with the constant of equal mean, or of equal norm, of the chosen candidate's lambda."""
    recipe = chosen[0].recipe
    shaped = recipe.scaling != "constant" or recipe.has_components
    flat = replace(recipe, scaling=f"{control.control}:{recipe.scaling}") if shaped else recipe
    return replace(control, template=Template.from_recipe(flat), derivation=None)


def dense_constants(arm: Arm, spec: RunSpec) -> tuple[float, ...]:
    """Return constants from 0 to the largest coefficient and the arm's own values: never a coarser grid than the arm's.

    LiNeS won against a coarse grid only because of the grid's gaps; a finer one removed the difference.
    """
    own, count = {*listed(arm.scaling.alpha), *listed(arm.scaling.beta)}, spec.controls.constants
    top = max(1.0, _highest(arm, spec))
    evenly = {round(top * i / (count - 1), 6) for i in range(count)}
    return tuple(sorted(evenly | {v for v in own if v >= 0}))


def _highest(arm: Arm, spec: RunSpec) -> float:
    """Return the largest lambda of the arm's space; by equation 2 alpha is 1/N for a sum, 1 for an average or edit."""
    summed = arm.merge is not None and arm.merge.method == "sum"
    auto = 1 / len(arm.experts or spec.experts) if summed else 1.0
    alphas = (auto,) if isinstance(arm.scaling.alpha, str) else listed(arm.scaling.alpha)
    lists = [p for p in SCALINGS[arm.scaling.function].parameters if p.kind == "floats"]
    written = [part for p in lists for part in arm.scaling.params.get(p.name, p.default)]  # type: ignore[union-attr]
    shapes = (0.0, *(value for part in written for value in listed(part))) if lists else (0.0, 1.0)
    factors = [value for factor in arm.scaling.components.values() for value in listed(factor)]
    scale = max(listed(arm.scaling.scale)) * max([1.0, *factors])
    return scale * max(a + b * f for a in alphas for b in listed(arm.scaling.beta) or (1 - a,) for f in shapes)
