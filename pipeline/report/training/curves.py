"""Figures of the training of policies: reward, KL and signs of health over the updates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.report.data.arms import DASHES, ArmResult, legend_arm
from pipeline.report.figures.figure import Figure, MarkStyle, Panel, marks, panel
from pipeline.report.tables.table import Table, TableCell, decimal

_HOVER = "%{hovertext}<br>update %{x}: %{y:.4g}<extra></extra>"


@dataclass(frozen=True, slots=True)
class _Curve:
    """A column of TRAINING with its title and unit."""

    column: str
    title: str
    unit: str


_REWARD = _Curve("reward", "reward", "mean raw reward")
_KL = (
    _Curve("kl", "KL against the SFT model", "nats a completion"),
    _Curve("kl_coef", "price of a nat", "coefficient"),
)
_HEALTH = (
    _Curve("entropy", "entropy", "nats a token"),
    _Curve("length", "length", "tokens a completion"),
    _Curve("eos", "completions with an end token", "fraction"),
)


def training_figures(curves: Mapping[str, pa.Table]) -> list[Figure]:
    """Return the figures of the training of policies; none if there are no curves.

    Args:
        curves: policy -> its table of the schema TRAINING. A policy has the same colour in every figure.
    """
    filled = {name: table for name, table in curves.items() if table.num_rows}
    if not filled:
        return []
    arms = {name: legend_arm(name, number) for number, name in enumerate(filled)}
    rewards = [_panel({name: table}, arms, _REWARD, f"{name}: reward") for name, table in filled.items()]
    return [
        Figure(
            "Reward during training",
            "Mean raw reward of each update's completions, by the policy's own reward. The first update shows the SFT "
            "model.",
            rewards,
            list(arms.values()),
            _numbers(filled),
        ),
        Figure(
            "KL during training",
            "The distance of a policy from the SFT model, and the price of a nat of it in units of the centred reward.",
            [_panel(filled, arms, curve, curve.title) for curve in _KL],
            list(arms.values()),
        ),
        Figure(
            "Health of the training",
            "Entropy that falls to 0, and lengths that all grow to the allowed maximum, are signs of reward hacking.",
            [_panel(filled, arms, curve, curve.title) for curve in _HEALTH],
            list(arms.values()),
            folded=True,
        ),
    ]


def _panel(curves: Mapping[str, pa.Table], arms: Mapping[str, ArmResult], curve: _Curve, title: str) -> Panel:
    dashes = list(dict.fromkeys(DASHES.values()))
    order = list(arms)
    traces = [
        marks(
            arms[name],
            table["step"].to_pylist(),
            (round(value, 4) for value in table[curve.column].to_pylist()),
            [name] * table.num_rows,
            _HOVER,
            MarkStyle(5, joined=2),
        ).update(line_dash=dashes[order.index(name) % len(dashes)])
        for name, table in curves.items()
    ]
    return panel(title, traces, "update", curve.unit)


def _numbers(curves: Mapping[str, pa.Table]) -> Table:
    """First, middle and last update of every policy."""
    rows = [
        (TableCell(name, tone="lead"), *_row(table.slice(at, 1).to_pylist()[0]))
        for name, table in curves.items()
        for at in dict.fromkeys((0, table.num_rows // 2, table.num_rows - 1))
    ]
    columns = ("policy", "update", "reward", "KL, nats", "coefficient", "entropy", "length", "ended")
    return Table("Training", "First, middle and last update.", columns, tuple(rows))


def _row(row: Mapping[str, float]) -> Sequence[TableCell]:
    shown = [str(row["step"]), decimal(row["reward"], 3), decimal(row["kl"], 2), decimal(row["kl_coef"], 4)]
    shown += [decimal(row["entropy"], 2), decimal(row["length"], 1), decimal(row["eos"], 2)]
    return [TableCell(text) for text in shown]
