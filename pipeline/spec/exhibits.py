"""The exhibits of a run: the tables and figures at the start of its report, such as those of the paper."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.parameters import require_known
from pipeline.spec.values import SpecModel
from tasks.registry import near

#: Accuracy -> the role of the tasks it averages, and whether each task is divided by its reference (section 3).
ACCURACIES: dict[str, tuple[Literal["target", "control", "ood"], bool]] = {
    "accuracy": ("target", False),
    "target": ("target", False),
    "control": ("control", False),
    "ood": ("ood", False),
    "normalised": ("target", True),
    "target_normalised": ("target", True),
    "control_normalised": ("control", True),
}
#: Other values of the chosen candidate that a cell may show.
NUMBERS = ("alpha", "beta", "objective", "seconds", "peak_gb")
METRICS = (*ACCURACIES, "best", *NUMBERS)

Split = Literal["test", "val"]


def _one_of(names: Iterable[str]) -> AfterValidator:
    known = tuple(names)

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be a known metric, got {value!r}; {near(value, known)}")
        return value

    return AfterValidator(check)


Metric = Annotated[str, _one_of(METRICS)]
Accuracy = Annotated[str, _one_of(ACCURACIES)]


def _labelled(value: object) -> object:
    """Turn one arm or a list of arms into label -> arm."""
    value = [value] if isinstance(value, str) else value
    if isinstance(value, list) and all(isinstance(arm, str) for arm in value):
        return {arm: arm for arm in value}
    return value


Arms = Annotated[
    dict[str, str],
    BeforeValidator(_labelled, json_schema_input_type=str | list[str] | dict[str, str]),
    Field(min_length=1),
]


def _cells(row: object) -> object:
    return [{"arm": cell} if isinstance(cell, str) else cell for cell in row] if isinstance(row, list) else row


class Cell(SpecModel):
    """One cell of a table, in full form."""

    arm: str
    """The arm to show."""
    metric: Annotated[str, _one_of(("", *METRICS))] = ""
    """The metric to show, instead of the column's."""


class TableExhibit(SpecModel):
    """A table of the chosen candidates."""

    kind: Literal["table"]
    """Always table."""
    columns: dict[str, Metric] = Field(min_length=1)
    """Column -> metric: accuracy (of the targets), control, ood, normalised, control_normalised, best, alpha, ..."""
    rows: Annotated[
        dict[str, tuple[Cell | None, ...]],
        BeforeValidator(lambda rows: rows, json_schema_input_type=dict[str, str | Cell | list[str | Cell | None]]),
        Field(min_length=1),
    ]
    """Row -> arm, {arm: ..., metric: ...}, or a list with one of these for each column, null for an empty cell."""
    against: dict[str, str] = {}
    """Row -> the row to compare it with; its cells then show the paired difference, 95% interval and verdict."""
    paper: dict[str, tuple[float | None, ...]] = {}
    """Row -> the paper's numbers, one for each column, to show next to ours."""
    split: Split = "test"
    """test or val."""
    note: str = ""
    """Words under the title."""

    @model_validator(mode="before")
    @classmethod
    def _whole_rows(cls, data: Any) -> Any:
        """Repeat a single arm over its row, and turn names of arms into cells."""
        if not (isinstance(data, dict) and all(isinstance(data.get(key), dict) for key in ("rows", "columns"))):
            return data
        width = len(data["columns"])
        rows = {name: [row] * width if isinstance(row, str | dict) else row for name, row in data["rows"].items()}
        return {**data, "rows": {name: _cells(row) for name, row in rows.items()}}

    @model_validator(mode="after")
    def _consistent(self) -> "TableExhibit":
        width = len(self.columns)
        lists: dict[str, dict[str, tuple[Any, ...]]] = {"rows": dict(self.rows), "paper": dict(self.paper)}
        for field, named in lists.items():
            for row, cells in named.items():
                if len(cells) != width:
                    raise ValueError(f"{field}.{row}: must have one cell for each of {width} columns, got {len(cells)}")
        for field, rows in (("against", [*self.against, *self.against.values()]), ("paper", list(self.paper))):
            for row in rows:
                require_known(field, row, self.rows, "row")
        return self

    def metric(self, column: int, cell: Cell) -> str:
        """Return the metric that a cell shows."""
        return cell.metric or list(self.columns.values())[column]


class CurveExhibit(SpecModel):
    """Accuracy over the one dimension that each arm searched; an arm without one is a horizontal line."""

    kind: Literal["curve"]
    """Always curve."""
    arms: Arms
    """The arms, or label -> arm."""
    metrics: Annotated[tuple[Accuracy, ...], Field(min_length=1)] = ("accuracy",)
    """One panel for each metric."""
    x_title: str = ""
    """Title of the x axis; default: the names of the searched dimensions."""
    split: Split | None = None
    """test or val; default: test if every candidate was scored on it (`test: every`), else val."""
    note: str = ""
    """Words under the title."""


class ScatterExhibit(SpecModel):
    """Normalised accuracy on the target against that on the controls, with a dot for each expert of each arm."""

    kind: Literal["scatter"]
    """Always scatter."""
    arms: Arms
    """Arms that edit experts, and pre-trained."""
    labels: bool = False
    """Label every dot with its expert; each arm then has its own panel."""
    split: Split = "test"
    """test or val."""
    note: str = ""
    """Words under the title."""


class PathExhibit(SpecModel):
    """Accuracy on shifted sets against accuracy on the target, along each arm's candidates; needs `test: every`."""

    kind: Literal["path"]
    """Always path."""
    arms: Arms
    """Arms that edit experts, and pre-trained."""
    panels: Literal["ood", "experts"] = "ood"
    """ood: a panel for each shifted set and for their mean, averaged over experts; experts: a panel for each expert."""
    note: str = ""
    """Words under the title."""


class CoefficientsExhibit(SpecModel):
    """Lambda of each block of the chosen candidates, averaged over experts."""

    kind: Literal["coefficients"]
    """Always coefficients."""
    arms: Arms
    """The arms, or label -> arm."""
    note: str = ""
    """Words under the title."""


class HeatmapExhibit(SpecModel):
    """Accuracy over two searched dimensions; a box marks the best on validation."""

    kind: Literal["heatmap"]
    """Always heatmap."""
    arms: Arms
    """The arms, or label -> arm; each has a panel."""
    x: str = "beta"
    """The dimension along x."""
    y: str = "alpha"
    """The dimension along y."""
    metric: Accuracy = "accuracy"
    """The accuracy to show."""
    split: Split | None = None
    """test or val; default: test if every candidate was scored on it, else val."""
    note: str = ""
    """Words under the title."""


class BarsExhibit(SpecModel):
    """Accuracy of the chosen candidates, task by task."""

    kind: Literal["bars"]
    """Always bars."""
    arms: Arms
    """The arms, or label -> arm."""
    metric: Accuracy = "accuracy"
    """The accuracy to show."""
    split: Split = "test"
    """test or val."""
    note: str = ""
    """Words under the title."""


KINDS = ("table", "curve", "scatter", "path", "coefficients", "heatmap", "bars")


def _known_kind(value: object) -> object:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if kind not in KINDS:
        got = "is required" if kind is None else f"got {kind!r}"
        raise ValueError(f"kind: {got}; {near(str(kind), KINDS)}")
    return value


def _tag(value: object) -> str:
    return f"<{value['kind'] if isinstance(value, dict) else getattr(value, 'kind', '')}>"


Exhibit = Annotated[
    Annotated[TableExhibit, Tag("<table>")]
    | Annotated[CurveExhibit, Tag("<curve>")]
    | Annotated[ScatterExhibit, Tag("<scatter>")]
    | Annotated[PathExhibit, Tag("<path>")]
    | Annotated[CoefficientsExhibit, Tag("<coefficients>")]
    | Annotated[HeatmapExhibit, Tag("<heatmap>")]
    | Annotated[BarsExhibit, Tag("<bars>")],
    Discriminator(_tag),
    BeforeValidator(_known_kind),
]
Exhibits = dict[Annotated[str, Field(min_length=1)], Exhibit]
