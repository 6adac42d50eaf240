"""How often a ranking leaves out the truly best model, on simulated outcomes: python -m benchmarks.arena."""

import argparse

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import norm

from pipeline.report.data.ranking import ranked
from search.intervals import TaskOutcomes

#: Share of a sample's difficulty that all models have in common: merges of the same experts agree on most samples.
_SHARED = 0.8
#: (models, samples, accuracy, by how much the first is the best in truth)
_WORLDS = (
    (5, 100, 0.7, 0.0),
    (30, 100, 0.7, 0.0),
    (5, 300, 0.7, 0.0),
    (30, 300, 0.7, 0.0),
    (30, 300, 0.95, 0.0),
    (30, 2000, 0.7, 0.0),
    (30, 2000, 0.7, 0.02),
    (30, 2000, 0.7, 0.05),
)


def simulated(rates: np.ndarray, samples: int, tasks: int, rng: np.random.Generator) -> list[list[TaskOutcomes]]:
    """Return outcomes of models that are right with `rates`, in truth, and agree on most samples."""
    hard, own = rng.normal(size=(tasks, samples)), rng.normal(size=(len(rates), tasks, samples))
    right = np.sqrt(_SHARED) * hard + np.sqrt(1 - _SHARED) * own < norm.ppf(rates)[:, None, None]
    return [[TaskOutcomes(str(task), right[a, task].astype(float)) for task in range(tasks)] for a in range(len(rates))]


def measured(models: int, samples: int, accuracy: float, lead: float, repeats: int) -> tuple[float, float]:
    """Return how often a best model is left out, and the share of worse ones that are shown to be worse."""
    rng = np.random.default_rng(models + samples)
    rates = np.full(models, accuracy)
    rates[0] += lead
    best = rates == rates.max()
    left_out, found = 0, 0
    for _ in track(range(repeats), f"{models} models, {samples} samples"):
        ranks = ranked(simulated(rates, samples // 2, 2, rng))
        left_out += any(best[rank.place] and not rank.ties for rank in ranks)
        found += sum(not best[rank.place] and not rank.ties for rank in ranks)
    return left_out / repeats, found / repeats / max(1, (~best).sum())


def main() -> None:
    """Print, for equal models and for one that is best, what the ranking gets wrong and what it finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    shown = Table("models", "samples", "accuracy", "best by", "a best one left out", "worse ones shown to be worse")
    for models, samples, accuracy, lead in _WORLDS:
        wrong, found = measured(models, samples, accuracy, lead, repeats)
        world = (str(models), str(samples), f"{accuracy:.0%}", f"{100 * lead:g} points")
        shown.add_row(*world, f"{wrong:.1%}", f"{found:.0%}" * bool(lead))
    Console().print(shown)


if __name__ == "__main__":
    main()
