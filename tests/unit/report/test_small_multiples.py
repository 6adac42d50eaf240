"""Proves that many lines over depth, and bars of many arms, are drawn as small panels with equal axes."""

from typing import Any

import pytest

from pipeline.report.data.arms import ArmResult
from pipeline.report.figures.bars import MANY_ARMS, bar_panels
from pipeline.report.figures.depths import MANY_LINES, depth_line, depth_panels
from pipeline.report.tables.table import Units
from search.intervals import Interval


def arm(name: str) -> ArmResult:
    return ArmResult(name, "edit", "plain", "", (), (), "#0072B2", "circle")


def test_few_lines_share_a_panel() -> None:
    lines = [depth_line(arm("a"), "", [0.1 * i, 1.0]) for i in range(MANY_LINES)]
    (found,) = depth_panels(lines)
    assert list(found.figure.data) == lines and found.figure.layout.yaxis.range is None


def test_many_lines_have_a_panel_for_each_arm_with_the_same_axis() -> None:
    lines = [depth_line(arm(name), "", [value, 0.5]) for name in "ab" for value in (-0.5, *[0.1] * MANY_LINES, 1.5)]
    panels = depth_panels(lines)
    assert [panel.title for panel in panels] == ["a", "b"]
    assert [len(panel.figure.data) for panel in panels] == [MANY_LINES + 2] * 2
    assert [panel.figure.layout.yaxis.range for panel in panels] == [pytest.approx((-0.62, 1.62))] * 2


def means(count: int) -> list[tuple[ArmResult, dict[str, Interval]]]:
    """Arms whose mean on the first task grows with their number; the first one lacks the second task."""
    found = []
    for i in range(count):
        on = {"mnist": Interval(0.1 * i, 0.1 * i, 0.1 * i + 0.05, 50), "kana": Interval(0.3, 0.2, 0.4, 50)}
        found.append((arm(f"arm {i}"), {"mnist": on["mnist"]} if i == 0 else on))
    return found


def drawn(panel: Any) -> dict[str, list[float]]:
    return {trace.name: list(trace.y) for trace in panel.figure.data}


def test_bars_of_few_arms_share_a_panel() -> None:
    (found,) = bar_panels("each task", means(MANY_ARMS), Units(True), "accuracy (%)")
    assert drawn(found)["arm 7"] == pytest.approx([70.0, 30.0]) and found.title == "each task"


def test_bars_of_many_arms_have_a_panel_for_each_task_with_the_same_axis() -> None:
    panels = bar_panels("each task", means(MANY_ARMS + 1), Units(True), "accuracy (%)")
    assert [panel.title for panel in panels] == ["mnist", "kana"]
    mnist, kana = map(drawn, panels)
    assert list(mnist) == [f"arm {i}" for i in range(9)] and "arm 0" not in kana
    assert mnist["arm 8"] == pytest.approx([80.0]) and kana["arm 8"] == pytest.approx([30.0])
    assert [panel.figure.layout.yaxis.range for panel in panels] == [pytest.approx((0, 1.05 * 85.0))] * 2


def test_small_panels_of_rewards_show_negative_bars() -> None:
    rewards = [(arm(f"arm {i}"), {"brief": Interval(-0.5, -1.0, -0.25, 50)}) for i in range(MANY_ARMS + 1)]
    (found,) = bar_panels("each reward", rewards, Units(False), "reward")
    assert found.figure.layout.yaxis.range == pytest.approx((-1.05, 0.0))


def test_no_scores_give_no_panel() -> None:
    assert bar_panels("", [(arm("a"), {})], Units(True), "") == []
    assert bar_panels("", [(arm("a"), {})] * 9, Units(True), "") == []
