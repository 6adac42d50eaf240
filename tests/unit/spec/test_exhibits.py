"""Proves how exhibits are read, and that one that cannot be shown is refused with its field and the rule."""

from typing import Any

import pytest
from exhibit_run import EXHIBITS, exhibit_spec

from pipeline.plan.plan import make_plan
from pipeline.spec.load import parse_spec

ONE = {"kind": "table", "columns": {"Target": "target"}, "rows": {"A": "LiNeS"}}


def plan_with(exhibit: dict[str, Any], **changes: Any) -> None:
    make_plan(exhibit_spec(exhibits={"T": exhibit}, **changes))


def test_every_kind_is_accepted_and_survives_the_journal() -> None:
    spec = exhibit_spec()
    assert make_plan(spec).spec.exhibits.keys() == EXHIBITS.keys()
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_a_single_arm_fills_its_row_and_a_cell_has_its_own_metric() -> None:
    exhibits = exhibit_spec().exhibits
    assert [cell.arm for cell in exhibits["Table 1"].rows["+ LiNeS"]] == ["LiNeS"] * 3
    table = exhibits["Table 2"]
    assert table.rows["Zero-shot"][2] is None
    assert [table.metric(2, table.rows[row][2]) for row in ("Task Arithmetic", "+ LiNeS")] == ["alpha", "beta"]


def test_arms_may_be_one_a_list_or_labelled() -> None:
    exhibits = exhibit_spec().exhibits
    assert exhibits["Figure 15"].arms == {"ta 2d": "ta 2d"}
    assert exhibits["Figure 14"].arms == {"ta": "ta", "ta lines": "ta lines"}
    assert exhibits["Figure 10"].arms["FT"] == "fine-tuned"


def test_exhibits_do_not_change_what_is_evaluated() -> None:
    assert make_plan(exhibit_spec()).searched == make_plan(exhibit_spec(exhibits={})).searched


@pytest.mark.parametrize(
    ("exhibit", "message"),
    [
        ({"kind": "tabel"}, r"exhibits\.T\.kind: got 'tabel'; did you mean 'table'"),
        ({"arms": "LiNeS"}, r"exhibits\.T\.kind: is required"),
        (ONE | {"columns": {"Target": "targt"}}, r"exhibits\.T\.columns\.Target: must be .*got 'targt'.*mean 'target'"),
        (
            ONE | {"rows": {"A": ["LiNeS", "ta"]}},
            r"exhibits\.T\.rows\.A: must have one cell .* 1 columns, got 2",
        ),
        (
            ONE | {"rows": {"A": {"arm": "LiNeS", "metric": "bset"}}},
            r"rows\.A\.0\.metric: must be .*got 'bset'.*'best'",
        ),
        (ONE | {"rows": {"A": "LiNes"}}, r"exhibits\.T\.rows\.A: unknown arm 'LiNes'; did you mean 'LiNeS'"),
        (
            ONE | {"columns": {"a": "target", "b": "control"}, "rows": {"A": ["LiNes", "LiNeS"]}},
            r"exhibits\.T\.rows\.A: unknown arm 'LiNes'; did you mean 'LiNeS'",
        ),
        (ONE | {"against": {"A": "B"}}, r"against: unknown row 'B'; known: A"),
        (ONE | {"paper": {"B": [1.0]}}, r"paper: unknown row 'B'"),
        (ONE | {"paper": {"A": [1.0, 2.0]}}, r"paper\.A: must have one cell for each of 1 columns, got 2"),
        (ONE | {"papr": {}}, r"exhibits\.T\.papr: unknown key; did you mean 'paper'"),
        (ONE | {"columns": {"Best": "best"}}, r"rows\.A: best needs an arm that edits several experts of one task"),
        (
            ONE | {"columns": {"C": "control"}, "rows": {"A": "ta"}},
            r"rows\.A: control needs control tasks, but .* 'ta'",
        ),
        (ONE | {"rows": {"A": "ta", "B": "pair"}}, r"columns\.Target: means over different tasks .*'ta'.*'pair'"),
        ({"kind": "curve", "arms": ["LiNeS, reversd"]}, r"exhibits\.T\.arms\.LiNeS, reversd: unknown arm"),
        ({"kind": "curve", "arms": ["ta 2d"]}, r"one searched dimension, got alpha, beta"),
        ({"kind": "curve", "arms": ["ta", "pair"]}, r"arms: means over different tasks"),
        ({"kind": "heatmap", "arms": ["ta"]}, r"the searched dimensions must be beta and alpha, got alpha"),
        ({"kind": "path", "arms": ["LiNeS"]}, r"give the arm 'LiNeS' `test: every`"),
        ({"kind": "path", "arms": ["ta"]}, r"arms\.ta: must edit experts, but 'ta' is a merge"),
        ({"kind": "scatter", "arms": ["ta"]}, r"must edit experts"),
        ({"kind": "bars", "arms": ["ta"], "metric": "control"}, r"control needs control tasks"),
        ({"kind": "coefficients", "arms": ["pre-trained"]}, r"the pre-trained model has no coefficients"),
    ],
)
def test_an_exhibit_that_cannot_be_shown_is_refused(exhibit: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_with(exhibit)


def test_a_path_needs_shifted_sets() -> None:
    with pytest.raises(ValueError, match="ood needs ood tasks"):
        plan_with({"kind": "path", "arms": ["wise"]}, ood={})


def test_plain_experts_may_cover_more_than_a_merge() -> None:
    plan_with(ONE | {"rows": {"A": "pair", "B": "fine-tuned", "C": "pre-trained"}})


def test_best_is_for_experts_of_one_task() -> None:
    exhibit = ONE | {"columns": {"Acc.": "accuracy"}, "rows": {"Best": {"arm": "fine-tuned", "metric": "best"}}}
    plan_with(exhibit, targets=dict.fromkeys(("cats", "dogs", "cars"), "cats"))
