"""The report of `lines ppo`: the results of its policies, their training, and samples of their completions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.records.tables import read_parquet
from pipeline.report.figures.figure import Figure
from pipeline.report.rendering import render
from pipeline.report.tables.table import NONE, Table, TableCell, decimal
from pipeline.report.training.curves import training_figures
from tasks.files.atomic import write_whole

#: Prompts of val whose completions are shown, evenly spread from the shortest to the longest.
_SHOWN = 6


@dataclass(frozen=True)
class _Policy:
    """One policy's folder, read.

    Attributes:
        name: of the policy.
        result: its train.json.
        curve: its training.parquet.
        before: the SFT model's completions of val, with this policy's reward.
        after: the policy's completions of val.
    """

    name: str
    result: dict[str, Any]
    curve: pa.Table
    before: pa.Table
    after: pa.Table


@dataclass(frozen=True)
class TrainingPage:
    """The content of the page."""

    title: str
    policies: Sequence[_Policy]
    table: Table
    figures: Sequence[Figure]
    samples: Sequence[Table]

    @property
    def warnings(self) -> list[str]:
        """The warnings of every policy, with its name."""
        return [f"{p.name}: {warning}" for p in self.policies for warning in p.result["warnings"]]


def build_training_report(folder: Path, title: str, names: Sequence[str]) -> tuple[Path, Path]:
    """Write report.html and report.md into an output folder of `lines ppo`.

    Args:
        folder: the output folder.
        title: the spec's name.
        names: the finished policies.
    """
    policies = [_read(folder, name) for name in names]
    figures = training_figures({p.name: p.curve for p in policies})
    page = TrainingPage(title, policies, _results(policies), figures, [_samples(p) for p in policies])
    html = write_whole(folder / "report.html", render.html("training.html.j2", page=page))
    return html, write_whole(folder / "report.md", render.markdown("training.md.j2", page=page))


def _read(folder: Path, name: str) -> _Policy:
    own = folder / "policies" / name
    result = json.loads((own / "train.json").read_text())
    before = folder / "measured" / result["reward"] / "completions.parquet"
    tables = (read_parquet(path) for path in (own / "training.parquet", before, own / "completions.parquet"))
    return _Policy(name, result, *tables)


def _results(policies: Sequence[_Policy]) -> Table:
    columns = ("policy", "algorithm", "reward", "SFT", "policy", "KL, nats", "updates", "seconds", "stopped early")
    note = "No policy is finished."
    if policies:
        first = policies[0].result
        note = (
            f"Mean raw rewards over {first['val']['n']} val prompts, {first['sampled']}, with the same random numbers "
            "for the SFT model and the policies. KL: of the last update, against the SFT model."
        )
    return Table("Policies", note, columns, tuple(_result(p.result) for p in policies))


def _result(of: dict[str, Any]) -> tuple[TableCell, ...]:
    before, after = (decimal(of[key]["reward_mean"], 3) for key in ("sft", "val"))
    numbers = (decimal(of["kl"], 1), str(of["updates"]), f"{of['seconds']:.0f}")
    texts = (of["algorithm"], of["reward"], before, after, *numbers, of["stopped"] or NONE)
    return (TableCell(of["name"], tone="lead"), *map(TableCell, texts))


def _samples(policy: _Policy) -> Table:
    before, after = policy.before.to_pylist(), policy.after.to_pylist()
    last = len(after) - 1
    chosen = dict.fromkeys(round(i * last / max(1, _SHOWN - 1)) for i in range(_SHOWN))
    rows = tuple(_sample(before[i], after[i]) for i in chosen)
    note = f"In brackets: the raw reward {policy.result['reward']}. Prompts are sorted by length, the shortest first."
    return Table(f"Completions of {policy.name}", note, ("prompt", "reference", "SFT model", policy.name), rows)


def _sample(before: dict[str, Any], after: dict[str, Any]) -> tuple[TableCell, ...]:
    made = (TableCell(row["completion"] or NONE, f"({decimal(row['reward'], 3)})") for row in (before, after))
    return (TableCell(after["prompt"]), TableCell(after["reference"] or NONE), *made)
