"""Checks, before anything is evaluated, that the arms of a spec can fill its exhibits."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.parameters import require_known
from pipeline.plan.groups import PRE_TRAINED, Group, is_fine_tuned
from pipeline.spec.exhibits import (
    ACCURACIES,
    BarsExhibit,
    CoefficientsExhibit,
    CurveExhibit,
    Exhibit,
    HeatmapExhibit,
    PathExhibit,
    ScatterExhibit,
    TableExhibit,
)

_Figure = CurveExhibit | ScatterExhibit | PathExhibit | CoefficientsExhibit | HeatmapExhibit | BarsExhibit
#: Arm -> its groups.
Groups = Mapping[str, Sequence[Group]]


def check_exhibits(exhibits: Mapping[str, Exhibit], groups: Iterable[Group]) -> None:
    """Check every exhibit against the groups of the plan.

    Raises:
        ValueError: if an arm is unknown or of a kind that the exhibit cannot show, means would be over different tasks,
            or an arm's searched dimensions are not those of the figure; the message names the exhibit and the field.
    """
    arms: dict[str, list[Group]] = {}
    for group in groups:
        if not group.is_auxiliary:
            arms.setdefault(group.arm, []).append(group)
    for name, exhibit in exhibits.items():
        try:
            _check_names(exhibit, arms)
            if isinstance(exhibit, TableExhibit):
                _check_table(exhibit, arms)
            else:
                _check_figure(exhibit, arms)
        except ValueError as error:
            raise ValueError(f"exhibits.{name}.{error}") from error


def roles_shown(exhibits: Mapping[str, Exhibit], arm: str) -> set[str]:
    """Return the roles of the tasks on which exhibits show an arm."""
    metrics: set[str] = set()
    for exhibit in exhibits.values():
        if isinstance(exhibit, TableExhibit):
            cells = (pair for row in exhibit.rows.values() for pair in enumerate(row))
            metrics |= {exhibit.metric(i, cell) for i, cell in cells if cell and cell.arm == arm}
        elif arm in exhibit.arms.values():
            metrics |= {*_metrics(exhibit)}
    return {ACCURACIES[metric][0] for metric in metrics if metric in ACCURACIES}


def shown_in_full(exhibits: Mapping[str, Exhibit]) -> frozenset[str]:
    """Return the arms of which an exhibit shows every candidate."""
    found = (e for e in exhibits.values() if isinstance(e, CurveExhibit | PathExhibit | HeatmapExhibit))
    return frozenset(arm for exhibit in found for arm in exhibit.arms.values())


def _check_names(exhibit: Exhibit, arms: Groups) -> None:
    if isinstance(exhibit, TableExhibit):
        named = [(f"rows.{row}", cell.arm) for row, cells in exhibit.rows.items() for cell in cells if cell]
    else:
        named = [(f"arms.{label}", arm) for label, arm in exhibit.arms.items()]
    for field, arm in named:
        require_known(field, arm, arms, "arm")


def _check_table(exhibit: TableExhibit, arms: Groups) -> None:
    for i, column in enumerate(exhibit.columns):
        cells = {row: cells[i] for row, cells in exhibit.rows.items()}
        used = {row: arms[cell.arm] for row, cell in cells.items() if cell}
        _check_same_tasks(f"columns.{column}", used.values())
        for row, groups in used.items():
            cell = cells[row]
            assert cell is not None
            _check_metric(f"rows.{row}", exhibit.metric(i, cell), groups)


def _check_metric(field: str, metric: str, groups: Sequence[Group]) -> None:
    if metric == "best" and (groups[0].kind != "edit" or len(_targets(groups)) > 1):
        raise ValueError(f"{field}: best needs an arm that edits several experts of one task")
    role = ACCURACIES[metric][0] if metric in ACCURACIES else "target"
    if groups[0].kind != PRE_TRAINED and not any(role in group.roles.values() for group in groups):
        raise ValueError(f"{field}: {metric} needs {role} tasks, but the arm {groups[0].arm!r} has none")


def _check_figure(exhibit: _Figure, arms: Groups) -> None:
    if isinstance(exhibit, CurveExhibit | BarsExhibit):
        _check_same_tasks("arms", [arms[name] for name in exhibit.arms.values()])
    for label, name in exhibit.arms.items():
        _check_arm(f"arms.{label}", exhibit, arms[name])


def _check_arm(field: str, exhibit: _Figure, groups: Sequence[Group]) -> None:
    """Require that a figure can show an arm: its kind, its tasks and its searched dimensions."""
    name, dimensions = groups[0].arm, _dimensions(groups)
    if isinstance(exhibit, ScatterExhibit | PathExhibit) and groups[0].kind == "merge":
        raise ValueError(f"{field}: must edit experts, but {name!r} is a merge")
    for metric in _metrics(exhibit):
        _check_metric(field, metric, groups)
    match exhibit:
        case CoefficientsExhibit() if name == PRE_TRAINED:
            raise ValueError(f"{field}: the pre-trained model has no coefficients")
        case CurveExhibit() if len(dimensions) > 1:
            raise ValueError(f"{field}: a curve needs one searched dimension, got {', '.join(dimensions)}")
        case PathExhibit() if dimensions and not all(group.test_all for group in groups):
            raise ValueError(f"{field}: a path shows all candidates on test: give the arm {name!r} `test: every`")
        case HeatmapExhibit() if sorted(dimensions) != sorted((exhibit.x, exhibit.y)):
            got = ", ".join(dimensions) or "none"
            raise ValueError(f"{field}: the searched dimensions must be {exhibit.x} and {exhibit.y}, got {got}")


def _metrics(exhibit: _Figure) -> tuple[str, ...]:
    match exhibit:
        case CurveExhibit():
            return exhibit.metrics
        case HeatmapExhibit() | BarsExhibit():
            return (exhibit.metric,)
        case ScatterExhibit():
            return ("control",)
    return ("ood",) if isinstance(exhibit, PathExhibit) else ()


def _check_same_tasks(field: str, used: Iterable[Sequence[Group]]) -> None:
    """Require means over the same tasks; theta0 and the plain experts are scored on all that is shown, so they fit."""
    scored = list({groups[0].arm: groups for groups in used if groups[0].kind != PRE_TRAINED}.values())
    leaders = [groups for groups in scored if not all(map(is_fine_tuned, groups))] or scored
    expected = _targets(leaders[0]) if leaders else set()
    for groups in scored:
        own = _targets(groups)
        if not (own == expected or (expected < own and all(map(is_fine_tuned, groups)))):
            raise ValueError(
                f"{field}: means over different tasks cannot be compared, got {leaders[0][0].arm!r} over "
                f"{_few(expected)} and {groups[0].arm!r} over {_few(own)}: use separate columns or exhibits"
            )


def _targets(groups: Sequence[Group]) -> set[str]:
    return {task for group in groups for task, role in group.roles.items() if role == "target"}


def _dimensions(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(d.name for group in groups for d in group.space.dims))


def _few(tasks: set[str]) -> str:
    return ", ".join(sorted(tasks)[:4]) + ", ..." * (len(tasks) > 4)
