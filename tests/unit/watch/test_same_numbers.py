"""Proves that terminal, Prometheus, dashboard, report, index and mirrors count the same candidates of one run."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records import tables
from pipeline.records.journal import FILE_NAME
from pipeline.report.index import build_index
from pipeline.report.page import build
from pipeline.run.progress import RunProgress
from pipeline.run.run import rebuild, run
from pipeline.watch.dashboard.live import Live
from pipeline.watch.mirrors.snapshot import read_snapshot
from pipeline.watch.terminal import RunDisplay


class Failing(ToyEvaluator):
    """Fails for some candidates."""

    def evaluate(self, request):  # type: ignore[no-untyped-def]
        if request.recipe.alpha == 0.25:
            raise ArithmeticError("no")
        return super().evaluate(request)


class Metric:
    """Sums what Ray's metrics are given."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.total = name, 0.0

    def inc(self, value: float, tags: object) -> None:
        """Add a value."""
        self.total += value

    def set(self, value: float, tags: object) -> None:
        """Take no part."""

    observe = set


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str], Any]]:
    """A finished run with failures, what the terminal printed, and its Prometheus metrics."""
    from pipeline.watch import prometheus

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(prometheus, kind, Metric)
    metrics, lines = prometheus.RayMetrics("toy"), []

    def watch(progress: RunProgress) -> None:
        metrics(progress)
        display = RunDisplay(Console(file=io.StringIO(), width=200))
        display._printed = float("-inf")
        display(progress)
        lines.append(display._console.file.getvalue())  # type: ignore[attr-defined]

    plan = make_plan(toy_spec())
    run(plan, IDENTITY, tmp_path / "run", lambda: LocalPool(Failing("")), None, watch)
    yield tmp_path / "run", lines, metrics


def candidates_of_page(folder: Path) -> int:
    live = Live(str(folder))
    live.look()
    html = json.loads(live.state)["html"]["status"]
    return int(re.search(r"<dt>candidates</dt><dd>([\d,]+)</dd>", html)[1].replace(",", ""))  # type: ignore[index]


def rows(folder: Path) -> int:
    return len(tables.read(folder / "candidates.parquet", tables.CANDIDATES))


def test_every_view_of_a_run_counts_the_rows_of_its_table(seen: tuple[Path, list[str], Any]) -> None:
    folder, lines, metrics = seen
    html, markdown = build(folder)
    index, _, _ = build_index([folder], folder.parent)
    count, references = rows(folder), 3
    snapshot = read_snapshot(folder)
    assert count > references
    assert f" {count} candidates, " in lines[-1]
    assert metrics._counters["candidates_total"].total == count
    assert candidates_of_page(folder) == count
    assert snapshot.metrics["candidates"] == len(snapshot.rows) == count
    assert json.loads((folder / "provenance.json").read_text())["counts"]["candidates"] == count
    assert f"<dt>candidates</dt><dd>{count}</dd>" in html.read_text()
    assert f" {count} candidates, " in markdown.read_text()
    assert f" {count} candidates, " in index.read_text()


def test_a_run_in_progress_is_counted_in_one_way_too(seen: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    lines = (seen[0] / FILE_NAME).read_bytes().splitlines(keepends=True)
    part = tmp_path / "part"
    part.mkdir()
    for share in (0.05, 0.3, 0.6):
        (part / FILE_NAME).write_bytes(b"".join(lines[: round(share * len(lines))]))
        rebuild(part)
        counts = json.loads((part / "provenance.json").read_text())["counts"]
        assert counts["candidates"] == candidates_of_page(part) == rows(part) == len(read_snapshot(part).rows)
