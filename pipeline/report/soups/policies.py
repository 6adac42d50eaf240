"""How the policies were trained: curves and results of `lines ppo`, if the run has a copy of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.records.tables import read_parquet
from pipeline.report.data.run import Run
from search.pareto import Array


@dataclass(frozen=True)
class Policy:
    """The result of one policy's training.

    Attributes:
        name: of the expert.
        kl: against the SFT model, in nats a completion; mean over the last tenth of the updates.
        rising: whether the reward rose over the last half of the updates.
        limit: the KL above which it has run away; None if the training names none.
        stopped: why it stopped early, or "".
        warnings: other warnings of its training.
    """

    name: str
    kl: float
    rising: bool
    limit: float | None
    stopped: str
    warnings: Sequence[str]


def read_curves(run: Run) -> dict[str, pa.Table]:
    """Return expert -> one row an update, for the experts whose curves the run has."""
    paths = {str(expert): run.folder / "training" / f"{expert}.parquet" for expert in run.provenance["experts"]}
    found = {expert: read_parquet(path) for expert, path in paths.items() if path.exists()}
    return {expert: table for expert, table in found.items() if table.num_rows}


def read_policies(run: Run, curves: Mapping[str, pa.Table]) -> list[Policy]:
    """Return the result of each training."""
    return [_policy(expert, table, run.folder / "training" / f"{expert}.json") for expert, table in curves.items()]


def _policy(expert: str, table: pa.Table, path: Path) -> Policy:
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kl, reward = (table[name].to_numpy().astype(np.float64) for name in ("kl", "reward"))
    last = float(kl[-max(1, len(kl) // 10) :].mean())
    # The report has its own warning about the KL, since it knows whether the reward was still rising.
    others = [text for text in result.get("warnings", ()) if not text.startswith("KL ran away")]
    return Policy(expert, last, _is_rising(reward), result.get("kl_limit"), result.get("stopped") or "", others)


def _is_rising(reward: Array) -> bool:
    """Whether the last quarter has a higher mean than the quarter before it."""
    quarter = max(1, len(reward) // 4)
    return len(reward) > 1 and float(reward[-quarter:].mean()) > float(reward[-2 * quarter : -quarter].mean())
