"""Proves that an arena runs from its spec to its ranking, and that a stopped one resumes with the same tables."""

import json
from statistics import fmean

import pytest
from small_run import Lines, tables

from pipeline.report.data.arena import rankings
from pipeline.report.data.estimates import Measure
from pipeline.report.tables.arena import arena_tables
from pipeline.report.tables.verdict import verdicts


def test_an_arena_is_ranked_on_test_beside_its_cost(lines: Lines) -> None:
    arena = {"methods": ["sum", "iso_c"], "edit": "each_expert", "profiles": ["linear"], "budget": {"evaluations": 3}}
    spec, out = (
        lines.spec(arena=arena, arms={}, controls=["reversed"], limits={"val": 15, "test": 30}, shard_size=30),
        lines.folder / "run",
    )
    status, output = lines.run(spec, out)
    assert status == 0, output
    measure = Measure.read(out)
    edits, by_expert, merges = arena_tables(measure, rankings(measure))
    rows = [dict(zip(merges.columns, row, strict=True)) for row in merges.rows]
    names = {"sum", "sum + linear", "sum + linear, reversed", "iso_c", "iso_c + linear", "iso_c + linear, reversed"}
    assert {row["model"].text for row in rows} == names and rows[0]["behind the best"].tone == "tie"
    means = [float(row["mean accuracy"].text) for row in rows]
    assert means == sorted(means, reverse=True)
    assert {row["free scalars"].text for row in rows if "linear" in row["model"].text} == {"2"}
    assert {row["samples"].text for row in rows} == {"90"} and "candidates" not in merges.columns
    assert not any(row["model"].symbol for row in rows)  # the figure's marks are others
    assert all(float(row["seconds"].text) >= 0 for row in rows)
    ranked = [dict(zip(edits.columns, row, strict=True)) for row in edits.rows]
    edited = {"fine-tuned", "edit", "edit + linear", "edit + linear, reversed"}
    assert {row["model"].text for row in ranked} == {row[0].text for row in by_expert.rows} == edited
    assert by_expert.columns == ("model", *measure.run.provenance["experts"])
    for row in ranked:
        target, control = objective_parts(measure, row["model"].text)
        assert float(row["2 * target + control"].text) == pytest.approx(2 * target + control, abs=1e-4)
    memory = {row["model"].text: row["memory, MB"].text for row in rows + ranked}
    assert memory.pop("fine-tuned") == "–" and len({memory[name] for name in names}) == 1
    assert 1 < float(memory["edit"]) < float(memory["sum"]) < 10  # a combined vector has 3.7 MB
    assert "Ranking" in output and '<section id="arena">' in (out / "report.html").read_text()
    assert "## Arena" in (out / "report.md").read_text()
    (said,) = [v.sentences[0] for v in verdicts(measure) if v.arm.name == "iso_c + linear"]
    assert "the tuned constant" in said or "beats every matched control" in said
    before = tables(out)
    journal = out / "journal.jsonl"
    kept = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(kept[: len(kept) // 2]))
    assert lines.run(spec, out)[0] == 0
    assert tables(out) == before
    assert json.loads((out / "provenance.json").read_text())["arm_seconds"].keys() == names | edited - {"fine-tuned"}


def objective_parts(measure: Measure, arm: str) -> tuple[float, float]:
    """Return normalised target and control on test, means over experts, from the table of scores."""
    found = next(a for a in measure.arms if a.name == arm)
    scores = [
        (s.role, s.normalised)
        for g in found.groups
        if (c := found.chosen(g))
        for (_, split), s in measure.run.scored(c).items()
        if split == "test"
    ]
    target, control = (fmean(v for role, v in scores if role == which) for which in ("target", "control"))
    return target, control
