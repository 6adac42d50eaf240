"""Proves on embedded models that stops change no choice, and that two workers on Ray give the tables of one."""

from typing import Any

import pyarrow.parquet as pq
from small_run import Lines, tables

from pipeline.report.data.run import Run

GRID = {"grid": [0.0, 0.25, "...", 1.5]}


def arms(stop: str) -> dict[str, Any]:
    scaling = {"function": "linear", "alpha": GRID, "beta": GRID}
    merge = {"method": "sum", "then": ["norm_match"]}
    return {"merge": {"merge": merge, "scaling": scaling, "search": {"stop": stop}, "select": {"maximise": "mean"}}}


def test_a_merge_is_chosen_as_in_full_and_as_on_two_workers(lines: Lines) -> None:
    limits = {"limits": {"val": 120, "test": 30}, "controls": []}
    for stop in ("none", "auto"):
        status, output = lines.run(lines.spec(arms=arms(stop), **limits), lines.folder / stop)
        assert status == 0, output
    full, stopped = (pq.read_table(lines.folder / s / "candidates.parquet").to_pylist() for s in ("none", "auto"))
    assert {row["state"] for row in full} == {"complete"} and sum(r["state"] == "stopped" for r in stopped) > 20
    for mine, other in zip(stopped, full, strict=True):
        assert mine["chosen"] == other["chosen"] and mine["objectives"] in (None, other["objectives"])
    spared, whole = Run.read(lines.folder / "auto").spared["merge"]
    assert whole == 49 * 240 and spared > 0.3 * whole
    report = " ".join((lines.folder / "auto" / "report.md").read_text(encoding="utf-8").split())
    assert f"{spared:,} of {whole:,} sample scores" in report
    status, output = lines("plan", lines.spec(arms=arms("auto"), **limits))
    assert status == 0 and "merge: candidates that cannot win are stopped: yes" in output, output
    on_ray = {"pool": "ray", "workers": 2, "per_worker": {"num_cpus": 1}}
    status, output = lines.run(lines.spec(arms=arms("auto"), resources=on_ray, **limits), lines.folder / "ray")
    assert status == 0 and tables(lines.folder / "ray") == tables(lines.folder / "auto"), output
