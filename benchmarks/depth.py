"""Joins the runs of docs/when-depth-matters.md: what is known of an edit or merge before a search, and what LiNeS did.

Each run folder has the gate of `lines inspect`, and arms whose profile grows with depth beside their tuned constant. On
validation, the gate says what the target and the control tasks lose without the first and without the last third of the
blocks; on test, the run says by how much LiNeS beat the constant. Rank correlations between the two, over all edits and
within each base, say what predicts it. All other values are points. Runs are named depth-BASE or depth-BASE-RATE.
Matplotlib, for the figure, is not a part of this project.
Run: python -m benchmarks.depth RUN... [--figure depth.svg]
"""

import argparse
import itertools
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from pipeline.records.gate import GatedEdit, RoleLosses
from pipeline.report.data.comparable import members
from pipeline.report.data.estimates import Measure
from pipeline.report.tables.predicted import Outcome, outcomes
from pipeline.report.tables.table import Units
from search.intervals import Interval

#: The arm whose differences are shown; other profiles would count an edit several times.
FUNCTION = "linear"
POINTS = Units(percent=True)
#: The table's columns; a merge has no control tasks.
COLUMNS = (
    "run",
    "edit or merge",
    "the gate",
    "target lost without the first third",
    "without the last",
    "control lost without the first third",
    "without the last",
    "LiNeS - constant: target",
    "control",
)


@dataclass(frozen=True)
class Row:
    """One edit or merge of one run.

    Attributes:
        base, rate: from the run's name.
        outcome: what was predicted, and what came of it.
        experts: what the gate found for the edits of those that a merge combines, if its run has them all.
    """

    base: str
    rate: str
    outcome: Outcome
    experts: tuple[GatedEdit, ...] = ()

    @property
    def shown(self) -> dict[str, Interval]:
        """LiNeS minus its tuned constant on test, by role."""
        return dict(self.outcome.comparison.differences)

    @property
    def worth(self) -> float:
        """The same in one number: of an edit as its search weighs it, 2 target + control; of a merge, the target."""
        shown = [interval.value for interval in self.shown.values()]
        return 2 * shown[0] + sum(shown[1:2]) if self.outcome.edit.kind == "edit" else shown[0]


def read(folders: Iterable[Path]) -> list[Row]:
    """Return the rows of all runs, in their order; a run without a gate has none."""
    found = []
    for folder in folders:
        measure = Measure.read(folder)
        base, _, rate = str(measure.run.provenance["spec"]["name"]).removeprefix("depth-").partition("-")
        rows = [Row(base, rate or "usual", o) for o in outcomes(measure) if _is_shown(o)]
        edits = {row.outcome.edit.name: row.outcome.edit for row in rows if row.outcome.edit.kind == "edit"}
        for row in rows:
            names = members(measure.run, row.outcome.arm) if row.outcome.edit.kind == "merge" else []
            found.append(replace(row, experts=tuple(edits[n] for n in names) if {*names} <= {*edits} else ()))
    return found


def _is_shown(outcome: Outcome) -> bool:
    return any(candidate.recipe.scaling == FUNCTION for candidate in outcome.arm.candidates)


def _last_over_first(losses: RoleLosses | None) -> float:
    """By how much more a role loses without the last third than without the first."""
    return 0.0 if losses is None else losses.cost["last"].value - losses.cost["first"].value


def _target(row: Row) -> float:
    return _last_over_first(row.outcome.edit.target)


def _first_third(row: Row) -> float | None:
    losses = row.outcome.edit.target
    return losses and losses.cost["first"].value


def _neediest(row: Row) -> float | None:
    """Return what the merged expert that needs its last third most loses more without it than without the first."""
    return max((_last_over_first(edit.target) for edit in row.experts), default=None)


def _control(row: Row) -> float:
    return _last_over_first(row.outcome.edit.control)


def _forgotten(row: Row) -> float:
    losses = row.outcome.edit.control
    return 0.0 if losses is None else -losses.gain.value


#: What is known on validation before a search, of edits and of merges; the first is drawn.
PREDICTORS: dict[str, dict[str, Callable[[Row], float | None]]] = {
    "edit": {
        "control: regained without the first third - without the last": _control,
        "target: cost of the last third - of the first": _target,
        "target: cost of the first third": _first_third,
        "control lost by the whole edit": _forgotten,
    },
    "merge": {
        "target of the neediest expert's own edit: cost of the last third - of the first": _neediest,
        "mean of the targets, in the merge": _target,
    },
}


def correlations(rows: list[Row]) -> list[tuple[str, dict[str, tuple[float, int]]]]:
    """Return each predictor of edits or of merges with its rank correlation with the worth of LiNeS.

    Args:
        rows: all edits or all merges; at least one.

    Returns:
        (predictor, {"all" or base: (Spearman's rho, number of rows)}); sets of fewer than five rows are left out, and
        predictors without a set.
    """
    sets = {"all": rows, **{base: [r for r in rows if r.base == base] for base in dict.fromkeys(r.base for r in rows)}}
    found = []
    for name, predictor in PREDICTORS[rows[0].outcome.edit.kind].items():
        known = {of: [(x, r.worth) for r in some if (x := predictor(r)) is not None] for of, some in sets.items()}
        if by_set := {of: (_rho(pairs), len(pairs)) for of, pairs in known.items() if len(pairs) >= 5}:
            found.append((name, by_set))
    return found


def _rho(pairs: list[tuple[float, float]]) -> float:
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def _shown(interval: Interval) -> str:
    return f"{POINTS.number(interval.value, sign=True)} {POINTS.range(interval, sign=True)}"


def _line(row: Row) -> str:
    edit, target, control = row.outcome.edit, row.outcome.edit.target, row.outcome.edit.control
    costs = [_shown(found.cost[third]) if found else "" for found in (target, control) for third in ("first", "last")]
    cells = [edit.name, edit.predicted.word, *costs, *map(_shown, row.shown.values())]
    return f"| {row.base} {row.rate} | {' | '.join(cells)} |"


def draw(rows: list[Row], path: Path) -> None:
    """Draw each edit and each merge: what the gate measured, and the worth of LiNeS against its tuned constant."""
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "lines", "font.size": 9}
    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    worth = {"edit": "2 target + control", "merge": "mean accuracy"}
    bases = list(dict.fromkeys(row.base for row in rows))
    for axes, (kind, predictors) in zip(panels, PREDICTORS.items(), strict=True):
        name, predictor = next(iter(predictors.items()))
        for base, marker in zip(bases, itertools.cycle("osD^v")):
            some = [row for row in rows if (row.base, row.outcome.edit.kind) == (base, kind)]
            pairs = [(x, row.worth) for row in some if (x := predictor(row)) is not None]
            axes.scatter(*(100 * np.array(pairs).reshape(-1, 2).T), s=22, alpha=0.8, marker=marker, label=base)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.axvline(0, color="grey", linewidth=0.5)
        axes.set_title(f"{kind}s", fontsize=10)
        axes.set_xlabel(textwrap.fill(f"{name}, points on validation", 56))
        axes.set_ylabel(f"LiNeS minus its tuned constant on test,\n{worth[kind]}, points")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the table and the correlations, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with the gate of `lines inspect`")
    parser.add_argument("--figure", type=Path, help="write the scatter plot to this file")
    options = parser.parse_args()
    rows = read(options.runs)
    for kind in PREDICTORS:
        if not (some := [row for row in rows if row.outcome.edit.kind == kind]):
            continue
        print(f"\n{len(some)} {kind}s; all values but the gate's are points\n")
        print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *map(_line, some), "", sep="\n")
        for name, by_set in correlations(some):
            print(f"{name}: " + ", ".join(f"{of} {rho:.2f} (n = {n})" for of, (rho, n) in by_set.items()))
        decided = [row.outcome.right for row in some if row.outcome.right is not None]
        better = sum(row.outcome.comparison.word == "better" for row in some)
        print(f"LiNeS was better than its tuned constant in {better} of {len(some)}")
        print(f"the gate was right in {sum(decided)} of {len(decided)} that it decided, of {len(some)}")
    if options.figure:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
