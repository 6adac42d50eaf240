"""Proves that one failing spec of a command with several specs does not stop the others."""

from pathlib import Path
from typing import Any

import yaml
from small_run import Lines, small_spec, write_experts


def test_a_failing_spec_is_reported_and_the_others_run(tmp_path: Path) -> None:
    experts = write_experts(tmp_path)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(next(iter(experts.values())).read_bytes()[:1000])
    changes: dict[str, dict[str, Any]] = {
        "first": {},
        "second": {"experts": {**{name: str(path) for name, path in experts.items()}, "mnist": str(torn)}},
        "third": {"limits": {"val": 10, "test": 10}},
    }
    specs = []
    for name, change in changes.items():
        specs.append(tmp_path / f"{name}.yaml")
        spec = {**small_spec(experts, name=name, arms={"sum": {"merge": "sum"}}), **change}
        specs[-1].write_text(yaml.safe_dump(spec, sort_keys=False))
    status, output = Lines(tmp_path, experts)("run", *specs, "--out", tmp_path / "runs", "--no-cache")
    assert status == 2 and "torn.safetensors" in output
    assert [name for name in changes if (tmp_path / "runs" / name / "report.html").is_file()] == ["first", "third"]
    index = (tmp_path / "runs" / "index.md").read_text(encoding="utf-8")
    assert "third" in index and "second" not in index
