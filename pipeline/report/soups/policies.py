"""How the policies were trained: the curves and ends that `lines ppo` left, where the run has a copy of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.report.data.run import Run
from search.pareto import Array


@dataclass(frozen=True)
class Policy:
    """The end of one policy's training.

    Attributes:
        name: of the expert.
        kl: nats a completion against the SFT model, mean over the last tenth of the updates.
        rising: whether the reward rose over the last half of them.
        limit: above which its KL has run away; None where nothing was said.
        stopped: why it ended early, or "".
        warnings: what its training said besides.
    """

    name: str
    kl: float
    rising: bool
    limit: float | None
    stopped: str
    warnings: Sequence[str]


def read_curves(run: Run) -> dict[str, pa.Table]:
    """Expert -> one row an update, for those that the run has curves of."""
    paths = {str(expert): run.folder / "training" / f"{expert}.parquet" for expert in run.provenance["experts"]}
    found = {expert: pq.read_table(path) for expert, path in paths.items() if path.exists()}
    return {expert: table for expert, table in found.items() if table.num_rows}


def read_policies(run: Run, curves: Mapping[str, pa.Table]) -> list[Policy]:
    """How each training ended."""
    return [_policy(expert, table, run.folder / "training" / f"{expert}.json") for expert, table in curves.items()]


def _policy(expert: str, table: pa.Table, path: Path) -> Policy:
    said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kl, reward = (table[name].to_numpy().astype(np.float64) for name in ("kl", "reward"))
    last = float(kl[-max(1, len(kl) // 10) :].mean())
    # Of its KL the report speaks itself, since it knows how the reward went on.
    others = [text for text in said.get("warnings", ()) if not text.startswith("KL ran away")]
    return Policy(expert, last, _is_rising(reward), said.get("kl_limit"), said.get("stopped") or "", others)


def _is_rising(reward: Array) -> bool:
    """Whether the last quarter has a higher mean than the quarter before it."""
    quarter = max(1, len(reward) // 4)
    return len(reward) > 1 and float(reward[-quarter:].mean()) > float(reward[-2 * quarter : -quarter].mean())
