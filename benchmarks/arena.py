"""How often a ranking leaves out the truly best model, on simulated outcomes: python -m benchmarks.arena."""

import argparse

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline.report.data.ranking import ranked
from search.intervals import TaskOutcomes

#: Share of a sample's difficulty that all models have in common: merges of the same experts agree on most samples.
_SHARED = 0.8


def simulated(rates: np.ndarray, samples: int, tasks: int, rng: np.random.Generator) -> list[list[TaskOutcomes]]:
    """Return outcomes of models that are right with `rates`, in truth, and agree on most samples."""
    hard, own = rng.normal(size=(tasks, samples)), rng.normal(size=(len(rates), tasks, samples))
    latent = np.sqrt(_SHARED) * hard + np.sqrt(1 - _SHARED) * own
    quantiles = np.quantile(rng.normal(size=1_000_000), rates)
    right = latent < quantiles[:, None, None]
    return [[TaskOutcomes(str(task), right[a, task].astype(float)) for task in range(tasks)] for a in range(len(rates))]


def main() -> None:
    """Print, for equal models and for one that is best, what the ranking gets wrong and what it finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    shown = Table("models", "samples", "best by", "a best one left out", "worse ones shown to be worse")
    for models, samples, lead in ((5, 300, 0.0), (30, 300, 0.0), (30, 2000, 0.0), (30, 2000, 0.02), (30, 2000, 0.05)):
        rng = np.random.default_rng(models + samples)
        rates = np.full(models, 0.7)
        rates[0] += lead
        left_out, found = 0, 0
        for _ in track(range(repeats), f"{models} models, {samples} samples"):
            ranks = ranked(simulated(rates, samples // 2, 2, rng))
            best = rates == rates.max()
            left_out += any(best[rank.place] and not rank.ties for rank in ranks)
            found += sum(not best[rank.place] and not rank.ties for rank in ranks)
        worse = int((~best).sum())
        cells = f"{left_out / repeats:.1%}", f"{found / repeats / worse:.0%}" if worse else ""
        shown.add_row(str(models), str(samples), f"{100 * lead:g} points", *cells)
    Console().print(shown)


if __name__ == "__main__":
    main()
