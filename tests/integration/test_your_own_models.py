"""Proves that a ten-line spec of a user's models and image folders gives tables, a report and a usable export.

The models are trained here from random weights and written in the formats of four programs.
"""

from collections.abc import Iterator
from pathlib import Path

import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from own_models import EXAMPLE, TASKS, bring
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.loading.experts import load_checkpoints
from pipeline.spec.load import load_spec
from tasks.base import TaskRequest
from tasks.loading import load_task


def lines(*words: object) -> str:
    result = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder after `lines run`."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINES_SWEEP_CACHE", str(folder / "cache"))
        spec = bring(folder)
        lines("run", spec, "--pool", "local", "--out", folder / "run")
        yield folder


def scores(folder: Path) -> dict[tuple[str, str, str], float]:
    """Return (arm, group, task) -> test accuracy."""
    rows = pq.read_table(folder / "run" / "scores.parquet").to_pylist()
    return {(r["arm"], r["group"], r["task"]): r["value"] for r in rows if r["split"] == "test"}


def test_the_spec_is_short_and_the_document_shows_it() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) <= 10
    document = EXAMPLE.parents[1] / "docs" / "start" / "your-own-models.md"
    assert "\n".join(lines) in document.read_text(encoding="utf-8")


def test_validate_shows_the_plan_and_evaluates_nothing(brought: Path) -> None:
    shown = lines("validate", brought / EXAMPLE.name)
    assert "3 blocks, 3 tasks" in shown and "valid: " in shown


def test_fine_tuning_taught_the_experts_their_task_and_the_tables_say_so(brought: Path) -> None:
    found = scores(brought)
    for task in TASKS:
        assert found["fine-tuned", task, task] > found["pre-trained", "", task] + 0.05
    arms = {arm for arm, _, _ in found}
    assert arms >= {"pre-trained", "fine-tuned", "LiNeS", "LiNeS, constant", "LiNeS, reversed", "task arithmetic"}
    for name in ("report.html", "report.md"):
        assert "task arithmetic" in (brought / "run" / name).read_text(encoding="utf-8")


def own_accuracy(folder: Path, exported: Path) -> float:
    """Return the accuracy on data/grounds/test with only open_clip: its model, tokenizer and preprocessing."""
    where = f"local-dir:{exported}"
    model, _, preprocess = open_clip.create_model_and_transforms(where)
    tokens = open_clip.get_tokenizer(where)([f"a photo of a {name}." for name in sorted(TASKS["grounds"])])
    root = folder / "data" / "grounds" / "test"
    paths = sorted(root.rglob("*.jpg"))
    labels = torch.tensor([sorted(TASKS["grounds"]).index(p.parent.name) for p in paths])
    with torch.inference_mode():
        image, text, scale = model.eval()(torch.stack([preprocess(Image.open(p)) for p in paths]), tokens)
    return float(((scale * image @ text.T).argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize(("arm", "expert"), [("task arithmetic", ""), ("LiNeS", "grounds"), ("LiNeS", "frames")])
def test_open_clip_loads_the_export_and_finds_the_same_accuracy(brought: Path, arm: str, expert: str) -> None:
    output = brought / f"export-{arm}-{expert}".replace(" ", "-")
    lines("export", brought / "run", "--arm", arm, "--expert", expert, "-o", output)
    assert own_accuracy(brought, output) == pytest.approx(scores(brought)[arm, expert, "grounds"], abs=1e-6)


def test_an_export_can_be_the_base_of_the_next_run(brought: Path) -> None:
    output = brought / "next-base"
    lines("export", brought / "run", "--arm", "task arithmetic", "-o", output)
    spec = load_spec(brought / EXAMPLE.name)
    config = spec.backbone.model_copy(update={"model": str(output / "open_clip_config.json")})
    spec = spec.model_copy(update={"base": str(output), "backbone": config})
    model, _ = load_checkpoints(spec, torch.device("cpu"))
    images = load_task(TaskRequest("grounds", spec.tasks["grounds"].source, {}, {}), model.backbone)
    correct = images.evaluate(model.backbone, "test", 0, images.num_samples("test")).outcomes
    assert correct.mean() == pytest.approx(scores(brought)["task arithmetic", "", "grounds"])
