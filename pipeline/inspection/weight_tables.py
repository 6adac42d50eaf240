"""The measured weights as tables and figures."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from pipeline.inspection.rows import OUTSIDE, number, parts
from pipeline.inspection.weights import Array, Weights
from pipeline.records.gate import THIRDS, thirds
from pipeline.report.data.arms import legend_arm
from pipeline.report.figures.figure import Figure, MarkStyle, Panel, marks, panel, safe
from pipeline.report.tables.table import NONE, Table, TableCell, decimal

#: More experts are summed up in the table by block.
_COLUMNS = 6
#: Cells with a number in a matrix, and their colours (see `exhibits.heatmap`).
_WRITTEN, _INK, _PALE = 144, "#1C2126", ((0.0, "#F3F7FB"), (1.0, "#4F97D0"))
_TITLES = {"cosines": "Cosines", "sign_conflicts": "Sign conflicts", "overlaps": "Subspace overlap"}


def weight_tables(weights: Weights) -> list[Table]:
    """Return the experts, their pairs, and the blocks."""
    pairs = [_pair_table(weights)] if weights.pairs else []
    return [_expert_table(weights), *pairs, _block_table(weights)]


def weight_figures(weights: Weights) -> list[Figure]:
    """Return norms over depth, and what pairs have in common as matrices and over depth."""
    return [_norm_figure(weights), *([_matrix_figure(weights)] if weights.pairs else [])]


def _expert_table(weights: Weights) -> Table:
    columns = {"all": slice(None), "outside": slice(0, 1)}
    columns |= {f"{name} third": slice(r.start + 1, r.stop + 1) for name, r in _thirds(weights).items()}
    values = [weights.relative(groups) for groups in columns.values()]
    norms = weights.norm()
    rows = [
        (TableCell(name, tone="lead"), _cell(norms[i]), *(_percent(relative[i]) for relative in values))
        for i, name in enumerate(weights.experts)
    ]
    note = (
        "‖τ‖ is the L2 norm of the expert's weights minus the base's. The others are ‖τ‖ / ‖θ0‖ in per cent: the "
        "distance to the base in the whole model, outside the blocks, and in each third of the blocks."
    )
    return Table("Distance to the base", note, ("expert", "‖τ‖", *columns), tuple(rows))


def _thirds(weights: Weights) -> dict[str, range]:
    return dict(zip(THIRDS, thirds(weights.num_blocks), strict=True)) if weights.num_blocks >= len(THIRDS) else {}


def _pair_table(weights: Weights) -> Table:
    cosines, conflicts, overlaps = weights.cosines(), weights.sign_conflicts(), weights.overlaps()
    chance = _cell(weights.mean_chance())
    rows = [
        (
            TableCell(f"{weights.experts[a]}, {weights.experts[b]}", tone="lead"),
            _cell(cosines[a, b]),
            _percent(conflicts[a, b]),
            _cell(overlaps[a, b]),
            chance,
        )
        for a, b in sorted(weights.pairs, key=lambda pair: -cosines[pair])
    ]
    columns = ("experts", "cosine", "sign conflicts", "overlap", "by chance")
    return Table("Pairs of experts", pair_note(weights), columns, tuple(rows))


def pair_note(weights: Weights) -> str:
    """Return the definitions of what is measured of a pair."""
    return (
        "Cosine of the task vectors. Sign conflicts: the per cent of the entries that both change which they move in "
        "opposite directions (independent ones: 50). Overlap: φ of LoRA's section 7.2 (Hu et al. 2022, equation 4), "
        f"the mean squared cosine of the principal angles between the {weights.rank} leading singular directions of "
        "both updates of a weight matrix, averaged over left and right side and over the matrices of the blocks; 1 is "
        "the same subspace, by chance is that of random ones."
    )


def _block_table(weights: Weights) -> Table:
    few, several = len(weights.experts) <= _COLUMNS, bool(weights.pairs)
    experts = tuple(weights.experts) if few else ("mean ‖τ‖", "least", "most")
    rows = []
    for part, groups in list(parts(weights))[1:]:
        relative = weights.relative(groups)
        shown = relative if few else np.array([relative.mean(), relative.min(), relative.max()])
        cells = [_percent(value) for value in shown]
        if several:
            cells += [
                _cell(_over_pairs(weights, weights.cosines(groups))),
                _percent(_over_pairs(weights, weights.sign_conflicts(groups))),
                _cell(_over_pairs(weights, weights.overlaps(groups))),
                _cell(weights.mean_chance(groups)),
            ]
        rows.append((TableCell(part if part == OUTSIDE else f"block {part}", tone="lead"), *cells))
    pairs = ("cosine", "sign conflicts", "overlap", "by chance") if several else ()
    note = "‖τ‖ / ‖θ0‖ of each expert in per cent" + "; the rest are means over the pairs of experts" * several + "."
    return Table("By block", note, ("part", *experts, *pairs), tuple(rows))


def _over_pairs(weights: Weights, matrix: Array) -> float:
    known = [matrix[pair] for pair in weights.pairs if not np.isnan(matrix[pair])]
    return float(np.mean(known)) if known else np.nan


def _cell(value: float) -> TableCell:
    return TableCell(NONE if np.isnan(value) else decimal(float(value), 3))


def _percent(value: float) -> TableCell:
    return TableCell(NONE if np.isnan(value) else decimal(100 * float(value), 1))


def _norm_figure(weights: Weights) -> Figure:
    experts = [legend_arm(name, i, "plain") for i, name in enumerate(weights.experts)]
    template = "%{hovertext}<br>block %{x}: %{y:.3g} %<extra></extra>"
    blocks = range(1, weights.num_blocks + 1)
    values = [100 * weights.relative(slice(block, block + 1)) for block in blocks]
    lines = [
        marks(arm, blocks, [v[i] for v in values], [arm.name] * len(blocks), template, MarkStyle(5, joined=2))
        for i, arm in enumerate(experts)
    ]
    drawn = [panel("", lines, "residual block", "‖τ‖ / ‖θ0‖ (%)")]
    return Figure("Norms of the task vectors over depth", "The numbers are in the table by block.", drawn, experts)


def _matrix_figure(weights: Weights) -> Figure:
    found = {"cosines": weights.cosines(), "sign_conflicts": weights.sign_conflicts(), "overlaps": weights.overlaps()}
    panels = [_heatmap(_TITLES[what], weights.experts, matrix) for what, matrix in found.items()]
    return Figure("Pairs of experts, as matrices", "Of the whole model; the definitions are at the table.", panels, [])


def _heatmap(title: str, experts: Sequence[str], matrix: Array) -> Panel:
    values = [[None if a == b else number(float(v)) for b, v in enumerate(row)] for a, row in enumerate(matrix)]
    written = matrix.size <= _WRITTEN
    names = [safe(name) for name in experts]
    trace = go.Heatmap(
        x=names,
        y=names,
        z=values,
        colorscale=_PALE if written else "Cividis",
        colorbar={"thickness": 12, "outlinewidth": 0},
        texttemplate="%{z:.2f}" if written else None,
        textfont={"color": _INK},
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    )
    return panel(title, [trace], "", "", xaxis_type="category", yaxis_type="category", yaxis_autorange="reversed")
