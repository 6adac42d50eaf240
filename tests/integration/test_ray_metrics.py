"""Proves that Ray exports every metric that the dashboard for Grafana shows."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray_head import fetched, wait_until
from toy import IDENTITY, ToyEvaluator, toy_spec
from toy_nodes import TOYS

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.messages import Failure
from pipeline.plan.plan import make_plan
from pipeline.pools.ray_pool import RayPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.run.progress import RunProgress
from pipeline.run.run import run
from pipeline.watch.prometheus import export_to_ray

ROOT = Path(__file__).parents[2]
ZERO = Recipe.make("zero")


@pytest.mark.cluster
def test_ray_exports_every_metric_that_the_dashboard_for_grafana_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", TOYS)
    metrics = export_to_ray("toy")
    metrics(RunProgress())  # nothing, as there is no Ray yet
    with local_ray(num_cpus=1):
        spec = toy_spec(resources={"pool": "ray"})
        shape = ActorShape(workers=1)
        run(make_plan(spec), IDENTITY, tmp_path / "run", lambda: RayPool(ToyEvaluator, shape), None, metrics)
        score = ToyEvaluator("worker-0").evaluate(Ledger(IDENTITY, 40, {}).requests(ZERO, ["cats"], "val")[0])
        worker = replace(ToyEvaluator("worker-0").info(), device="cpu (a processor, 2 threads)")
        latest = [replace(score, seconds=(0.25, 0.5)), Failure(score.request, "lost", "gone", "worker-0")]
        metrics(RunProgress(from_cache=2, latest=latest, workers=[worker]))
        (node,) = ray.nodes()
        where = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"

        def exported() -> str:
            text = fetched(f"http://{where}/metrics")
            return text if "ray_lines_sweep_shard_seconds_bucket" in text else ""

        text = wait_until(exported, 120)
    answers = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").open()]
    scored = sum(record["record"] == "score" for record in answers)
    assert value(text, "shards_total", "toy") == scored > 100
    assert value(text, "busy_seconds_total", "toy", device="cpu") == 0.75
    assert value(text, "shard_seconds_count", "toy") == 1
    assert value(text, "failures_total", "toy", kind="lost") == 1 and value(text, "cache_hits_total", "toy") == 2
    panels = json.loads((ROOT / "deploy" / "prometheus" / "grafana.json").read_text())["panels"]
    asked = {n for p in panels for t in p["targets"] for n in re.findall(r"ray_lines_sweep_\w+", t["expr"])}
    assert len(asked) >= 9 and {n for n in asked if not re.search(rf"^{n}\{{", text, re.M)} == set()


def value(text: str, name: str, run: str, **labels: str) -> float:
    """Return a sample of the text that Prometheus reads."""
    wanted = [f'{key}="{label}"' for key, label in {"run": run, **labels}.items()]
    lines = [line for line in text.splitlines() if line.startswith(f"ray_lines_sweep_{name}{{")]
    (found,) = [line for line in lines if all(label in line for label in wanted)]
    return float(found.rpartition(" ")[2])
