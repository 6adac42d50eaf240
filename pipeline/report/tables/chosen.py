"""The table of what validation chose: each arm's recipe in words, and its loss from validation to test."""

import json
from collections.abc import Sequence

from pipeline.merging.scaling import alpha_is_constant, origin_of_constant
from pipeline.recipe import step_text
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run
from pipeline.report.tables.results import Params, explained, scored, split_params
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead

#: Column -> what it means.
_MEANINGS = {
    "objective": "Objective: on validation, in the order of provenance.json.",
    "val": "Val: accuracy on the target tasks of validation.",
    "test": "Test: the same on test.",
    "gap": "Gap: validation minus test.",
    "recipe id": "The recipe id identifies the recipe and its checkpoints.",
    "scale": "Scale: the searched factor; alpha and beta already include it.",
}


def chosen_table(measure: Measure) -> Table:
    """Return the chosen candidates, and the gap between their validation and test accuracy on the target tasks."""
    rows = []
    for arm in (a for a in measure.arms if a.kind != PRE_TRAINED):
        for group in arm.groups:
            candidate = arm.chosen(group)
            if candidate is not None:
                rows.append(_row(measure, arm, candidate))
    recipe = ("method", "scaling", "alpha", "beta", "scale")
    columns = ("arm", "expert", *recipe, "objective", "val", "test", "gap", "recipe id")
    kept, full = scored(columns, rows)
    sentences = [*explained(kept, _MEANINGS), *spared_sentences(measure.run)]
    return Table("What validation chose", " ".join(sentences), kept, full)


def spared_sentences(run: Run) -> list[str]:
    """Say for each arm how many scores of samples were not needed, as candidates could not win any more."""
    return [
        f"{arm}: candidates were stopped: {spared:,} of {whole:,} sample scores ({spared / whole:.0%}) were not needed."
        for arm, (spared, whole) in run.spared.items()
    ]


def alpha_origin(candidate: CandidateRow) -> str:
    """Return the origin of an alpha that was not searched: the constant of equal norm or mean, or equation 2."""
    if origin := origin_of_constant(candidate.recipe):
        return f"({origin})"
    return "(equation 2)" if candidate.alpha_auto else ""


def ingredients(weights: Sequence[float], experts: Sequence[str]) -> str:
    """Return the experts of a merge ("2 of 3 experts: cats, dogs"); "" if all of them have the same weight."""
    used = {expert: weight for expert, weight in zip(experts, weights, strict=False) if weight}
    if not used or (len(used) == len(experts) and len(set(used.values())) == 1):
        return ""
    names = ", ".join(name if weight == 1 else f"{weight:.4g} × {name}" for name, weight in used.items())
    return f"{len(used)} of {len(experts)} experts: {names}" if len(used) < len(experts) else names


def _row(measure: Measure, arm: ArmResult, candidate: CandidateRow) -> tuple[TableCell, ...]:
    units, recipe = Units(measure.run.percent), candidate.recipe
    kinds = measure.run.scored(candidate).items()
    targets = [
        GroupTask(candidate.group, task) for task in dict.fromkeys(t for (t, _), s in kinds if s.role == "target")
    ]
    val, test = (measure.mean(arm.chosen, targets, split) if targets else None for split in ("val", "test"))
    gap = NONE if val is None or test is None else units.number(val.value - test.value, True)
    of_method, of_shape = split_params(recipe)
    # An edit's expert has its own column.
    experts = "" if arm.kind == "edit" else ingredients(recipe.weights, measure.run.provenance["experts"])
    steps = (f"then {step_text(name, params)}" for name, params in recipe.then)
    details = "; ".join(filter(None, (experts, _listed(of_method), *steps)))
    return (
        lead(arm),
        TableCell(candidate.group or NONE),
        TableCell(recipe.method, f"({details})" if details else ""),
        TableCell(recipe.scaling, f"({_listed(of_shape)})" if of_shape else ""),
        TableCell(NONE if candidate.alpha is None else f"{candidate.alpha:.4g}", alpha_origin(candidate)),
        TableCell(NONE if alpha_is_constant(recipe) else f"{recipe.beta:.4g}"),
        TableCell(_scale(candidate)),
        TableCell(", ".join(f"{v:.4f}" for v in candidate.objectives or ()) or NONE),
        *(TableCell(NONE if i is None else units.number(i.value)) for i in (val, test)),
        TableCell(gap),
        TableCell(candidate.recipe_id, tone="code"),
    )


def _listed(params: Params) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in params)


def _scale(candidate: CandidateRow) -> str:
    scale = candidate.point.get("scale")
    return f"{scale:.4g}" if isinstance(scale, int | float) else NONE
