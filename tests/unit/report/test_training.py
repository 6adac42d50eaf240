"""Proves that training curves show the numbers of their tables, and what the page of `lines ppo` contains."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.report.training.curves import training_figures
from pipeline.report.training.page import build_training_report
from pipeline.train.policy_log import TRAINING


def curve(rewards: list[float]) -> pa.Table:
    rows = [
        {
            **{"step": i, "episodes": 8 * i, "reward": reward, "reward_std": 0.1, "kl": i / 2, "kl_coef": 0.05},
            **{"entropy": 2.0, "length": 7.5, "eos": 0.5, "seconds": 1.0},
        }
        for i, reward in enumerate(rewards, 1)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING)


def test_each_policy_has_its_own_reward_panel_and_all_share_the_others() -> None:
    figures = training_figures({"plain": curve([1.0, 2.0]), "faithful": curve([0.5, 0.25, 0.75])})
    reward, kl, health = figures
    assert [panel.title for panel in reward.panels] == ["plain: reward", "faithful: reward"]
    assert [list(panel.figure.data[0].y) for panel in reward.panels] == [[1.0, 2.0], [0.5, 0.25, 0.75]]
    assert [list(trace.y) for trace in kl.panels[0].figure.data] == [[0.5, 1.0], [0.5, 1.0, 1.5]]
    names = [arm.name for arm in reward.legend]
    assert names == [trace.name for trace in kl.panels[0].figure.data] == ["plain", "faithful"]
    assert len({arm.colour for arm in reward.legend}) == 2 and health.folded
    assert reward.table is not None and [row[1].text for row in reward.table.rows] == ["1", "2", "1", "2", "3"]


def test_no_curves_give_no_figures() -> None:
    assert training_figures({}) == [] == training_figures({"plain": curve([])})


def write_policy(folder: Path, name: str, **changes: Any) -> None:
    own, measured = folder / "policies" / name, folder / "measured" / "r"
    for path in (own, measured):
        path.mkdir(parents=True, exist_ok=True)
    result = {
        **{"name": name, "algorithm": "ppo", "reward": "r", "updates": 3, "stopped": "", "seconds": 5.0, "kl": 1.5},
        **{"sft": {"reward_mean": 0.25}, "val": {"reward_mean": 0.5, "n": 2}, "warnings": []},
        **{"sampled": "sampled at temperature 1", **changes},
    }
    (own / "train.json").write_text(json.dumps(result))
    pq.write_table(curve([0.5, 0.25, 0.75]), own / "training.parquet")
    for path, text in ((measured, "before | <b>"), (own, "")):
        rows = [{"prompt": f"p{i}", "reference": "ref", "completion": text, "reward": i / 10} for i in range(2)]
        pq.write_table(pa.Table.from_pylist(rows), path / "completions.parquet")


def test_the_page_has_results_warnings_and_escaped_samples(tmp_path: Path) -> None:
    stopped = "kl 31.2 above kl.stop 20 after update 3"
    write_policy(tmp_path, "one", stopped=stopped, warnings=["KL ran away: 31.2 nats"])
    write_policy(tmp_path, "two")
    html, markdown = (path.read_text() for path in build_training_report(tmp_path, "both", ["one", "two"]))
    assert f"| one | ppo | r | 0.250 | 0.500 | 1.5 | 3 | 5 | {stopped} |" in markdown
    assert "**Warning.** one: KL ran away: 31.2 nats" in markdown and "two: KL" not in markdown
    assert "| p0 | ref | before \\| &lt;b&gt; (0.000) | – (0.000) |" in markdown  # an empty completion is a dash
    assert "KL ran away: 31.2 nats" in html and "before | &lt;b&gt;" in html and "<td>p1</td>" in html


def test_a_page_without_a_finished_policy(tmp_path: Path) -> None:
    _, markdown = build_training_report(tmp_path, "none", [])
    assert "No policy is finished." in markdown.read_text()
