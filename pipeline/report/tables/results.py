"""The tables of results: the paper's Table 1 and the top of Table 2, arms by tasks, and failures."""

from collections.abc import Mapping, Sequence

from pipeline.merging.scaling import split_control
from pipeline.recipe import COMPONENT, OUTSIDE, PATTERN, ParamValue, Recipe
from pipeline.records.sample_order import data_split
from pipeline.report.data.arms import ArmResult, opponents
from pipeline.report.data.comparable import ComparableArms, GroupTask, members
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import BITS, PRE_TRAINED
from pipeline.report.tables.table import NONE, Table, TableCell, Units, counted, lead, role_units
from pipeline.report.tables.verdict import LOWER, ROLE_WORDS

#: The columns of arms x tasks, in words.
OVER = {
    ("edit", "target"): "each on its own task",
    ("edit", "control"): "each task as a control",
    ("edit", "ood"): "each shifted task",
    ("merge", "target"): "each task",
    ("merge", "control"): "each task as a control",
    ("merge", "ood"): "each shifted task",
    **{(kind, f"control{BITS}"): f"each task as a control{BITS}" for kind in ("edit", "merge")},
    **{(kind, f"ood{BITS}"): f"each shifted task{BITS}" for kind in ("edit", "merge")},
}
Params = Sequence[tuple[str, ParamValue]]
INTERVALS = "95% intervals by bootstrap over the samples"
_DIFFERENCE = "difference to the plain merge"
#: Column of the table of edits -> what it means.
_EDIT_COLUMNS = {
    ROLE_WORDS["edit", "target"]: "Target: the expert's own task.",
    ROLE_WORDS["edit", "control"]: "Control: the other tasks.",
    f"{ROLE_WORDS['edit', 'target']}, normalised": "Normalised target: divided by the fine-tuned expert.",
    f"{ROLE_WORDS['edit', 'control']}, normalised": "Normalised control: divided by the pre-trained model.",
    ROLE_WORDS["edit", f"control{BITS}"]: LOWER,
    f"{ROLE_WORDS['edit', f'control{BITS}']}, normalised": "Normalised, the pre-trained model's / them.",
}
FAILED = "A failed candidate has no score; it never counts as zero."


def result_tables(measure: Measure, split: str) -> list[Table]:
    """Return every table with rows of accuracies on one split, of what validation chose."""
    tables = main_tables(measure, split)
    for bench in measure.benches:
        tables += [task_table(measure, split, bench, role) for role in bench.roles]
    return [table for table in tables if table.rows]


def main_tables(measure: Measure, split: str) -> list[Table]:
    """Return Table 1 and the top of Table 2, once for each bench, if they have rows."""
    make = {"edit": edit_table, "merge": merge_table}
    tables = [make[bench.kind](measure, split, bench) for bench in measure.benches]
    return [table for table in tables if table.rows]


def edit_table(measure: Measure, split: str, bench: ComparableArms) -> Table:
    """Return Table 1 of the paper: target and control accuracy, averaged over the experts."""
    units = Units(measure.run.percent)
    rows = []
    for arm in bench.arms:
        cells = []
        for role in bench.roles:
            places = bench.over(role)
            cells.append(role_units(measure.run, role).mean(measure.mean(arm.chosen, places, split)))
            if not role.startswith("ood"):
                cells.append(units.mean(measure.normalised(arm.chosen, places, split, role == "target")))
        rows.append((lead(arm), *cells))
    columns = ["model"]
    for role in bench.roles:
        word = ROLE_WORDS["edit", role]
        columns += [word] + [f"{word}, normalised"] * (not role.startswith("ood"))
    kept, full = scored(tuple(columns), rows)
    first = f"{split_word(split)}, mean over {counted(len(bench.experts), 'expert')}."
    has_control = any(column.startswith(ROLE_WORDS["edit", "control"]) for column in kept)
    why = [] if has_control else _unscored(measure, bench)
    note = " ".join([first, *explained(kept, _EDIT_COLUMNS), f"{INTERVALS}.", *why])
    title = bench.titled(f"One expert edited at a time: target {'and control ' * has_control}accuracy")
    return Table(title, note, kept, full)


def _unscored(measure: Measure, bench: ComparableArms) -> list[str]:
    """The reason why the unscaled experts of a run that only merges have no accuracy on other tasks."""
    narrowed = measure.run.provenance.get("reference_tasks", {})
    if not set(bench.experts) <= set(narrowed):
        return []
    return [
        "Control tasks are not scored, as no arm edits these experts. The arm fine-tuned: {edit: each_expert} would."
    ]


def merge_table(measure: Measure, split: str, bench: ComparableArms) -> Table:
    """Return the top of Table 2 of the paper: one model for all tasks, with its difference to the plain merge."""
    units, targets = Units(measure.run.percent), bench.over("target")
    plain_edit = next((a for a in measure.arms if a.kind == "edit" and a.role == "plain"), None)
    rows = []
    if plain_edit is not None:
        first = TableCell(f"{plain_edit.name} (one model a task)", tone="lead")
        places = _own_tasks(measure, plain_edit, bench)
        rows.append((first, *_accuracy(measure, plain_edit, places, split), TableCell(NONE), TableCell(NONE)))
    for arm in bench.arms:
        rows.append((lead(arm), *_accuracy(measure, arm, targets, split), *_gain(measure, arm, bench, split)))
    columns = ("model", "mean accuracy", "normalised", _DIFFERENCE, "plain merge")
    kept, full = scored(columns, rows)
    meanings = {
        "normalised": "Normalised: divided by each task's fine-tuned expert.",
        _DIFFERENCE: "The difference is paired, to the merge by the same method without LiNeS, the plain merge"
        f"{units.points and ', in points'}.",
    }
    scope = f"{split_word(split)}, mean over {counted(len(targets), 'task')}."
    note = " ".join([scope, *explained(kept, meanings), f"{INTERVALS}."])
    return Table(bench.titled("Experts in one model: mean accuracy over tasks"), note, kept, full)


def task_table(measure: Measure, split: str, bench: ComparableArms, role: str) -> Table:
    """Return arms x tasks for one role; a control is the mean over the experts of other tasks."""
    units, places, kind = role_units(measure.run, role), bench.over(role), bench.kind
    tasks = list(dict.fromkeys(place.task for place in places))
    rows = []
    for arm in bench.arms:
        cells = [units.mean(measure.mean(arm.chosen, [p for p in places if p.task == t], split)) for t in tasks]
        rows.append((lead(arm), *cells))
    whom = {"edit": "One expert edited at a time", "merge": "Experts in one model"}[kind]
    means = {("edit", "control"): " Mean over the experts of other tasks.", ("edit", "ood"): " Mean over the experts."}
    lower = f" {LOWER}" * role.endswith(BITS)
    note = f"{split_word(split)}.{means.get((kind, role.removesuffix(BITS)), '')} {INTERVALS}.{lower}"
    return Table(bench.titled(f"{whom}: {OVER[kind, role]}"), note, *scored(("model", *tasks), rows))


def failure_table(measure: Measure) -> Table:
    """Return every failure with its kind, place and cause; a recipe that several arms tried is one failure."""
    rows = []
    for failure in measure.run.provenance["failures"]:
        tried = [c for c in measure.run.candidates if c.recipe_id == failure["recipe_id"]]
        where = dict.fromkeys(f"{c.arm} ({c.group})" if c.group else c.arm for c in tried)
        texts = (failure["kind"], ", ".join(where) or NONE, failure["task"], data_split(failure["split"]))
        rows.append((*map(TableCell, texts), TableCell(failure["recipe_id"], tone="code"), TableCell(failure["cause"])))
    columns = ("kind", "arm (expert)", "task", "split", "recipe id", "cause")
    return Table("Failures", FAILED, columns, tuple(rows))


def split_params(recipe: Recipe) -> tuple[Params, Params]:
    """Return the parameters of the method, and those of the function of depth."""
    shape = {OUTSIDE, *(parameter.name for parameter in split_control(recipe.scaling)[1].parameters)}
    of_shape = [(n, value) for n, value in recipe.params if n in shape or n.startswith((COMPONENT, PATTERN))]
    return [pair for pair in recipe.params if pair not in of_shape], of_shape


def split_word(split: str) -> str:
    """Return the name of a split in a note."""
    return {"test": "Test split", "val": "Validation split, on which the choice was made"}[split]


def _own_tasks(measure: Measure, plain: ArmResult, bench: ComparableArms) -> list[GroupTask]:
    """Each merged expert, unchanged, on its own task."""
    merged = {expert for arm in bench.arms if arm.kind == "merge" for expert in members(measure.run, arm)}
    own = measure.run.provenance["targets"].items()
    return [GroupTask(expert, task) for expert, task in own if expert in merged and expert in plain.groups]


def explained(columns: Sequence[str], meanings: Mapping[str, str]) -> list[str]:
    """Return the sentences about the columns that a table has, so that no note speaks of one that was left out."""
    return [meaning for column, meaning in meanings.items() if column in columns]


def scored(
    columns: tuple[str, ...], rows: Sequence[tuple[TableCell, ...]]
) -> tuple[tuple[str, ...], tuple[tuple[TableCell, ...], ...]]:
    """Return columns and rows without the empty ones: shifted tasks have no validation scores, for example."""
    kept = [row for row in rows if any(entry.text != NONE for entry in row[1:])]
    full = [i for i in range(len(columns)) if any(row[i].text != NONE for row in kept)]
    return tuple(columns[i] for i in full), tuple(tuple(row[i] for i in full) for row in kept)


def _accuracy(measure: Measure, arm: ArmResult, places: Sequence[GroupTask], split: str) -> list[TableCell]:
    means = (measure.mean(arm.chosen, places, split), measure.normalised(arm.chosen, places, split, True))
    return [Units(measure.run.percent).mean(mean) for mean in means]


def _gain(measure: Measure, arm: ArmResult, bench: ComparableArms, split: str) -> list[TableCell]:
    """The difference to the plain merge, and its name."""
    plain = _plain_merge(arm, bench)
    if plain is None:
        return [TableCell(NONE), TableCell(NONE)]
    difference = measure.difference(arm.chosen, plain.chosen, bench.over("target"), split)
    return [Units(measure.run.percent).difference(difference), TableCell(plain.name if difference else NONE)]


def _plain_merge(arm: ArmResult, bench: ComparableArms) -> ArmResult | None:
    """The most similar plain arm of the same method; a control has that of its LiNeS arm."""
    if arm.role in (PRE_TRAINED, "plain"):
        return None
    leader = next((a for a in bench.arms if a.name == arm.control_of), arm)
    plain = [a for a in opponents(leader, bench.arms) if a.role == "plain" and a.methods & leader.methods]
    weights, params = _merged(leader)

    def unlike(other: ArmResult) -> tuple[bool, bool]:
        other_weights, other_params = _merged(other)
        return other_weights != weights, other_params != params

    return min(plain, key=unlike, default=None)


def _merged(arm: ArmResult) -> tuple[object, object]:
    """The weights and the method's parameters of the chosen candidate."""
    chosen = arm.chosen("")
    return (chosen.recipe.weights, split_params(chosen.recipe)[0]) if chosen else ((), [])
