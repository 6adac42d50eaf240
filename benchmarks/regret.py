"""What searches of few candidates lose against a grid of 121, and how much of a choice's score is noise.

Two real runs score alpha and beta from 0 to 1 on embedded tasks: a merge of eight experts in steps of 0.05, 441
candidates, and an edit of one in steps of 0.1, 121. Each resample divides the samples of each task into halves at
random. A search sees the scores of one half; what it chose is then scored on the other. Samplers search the same points
(ranges with a step), so every proposal has a real score. Points are hundredths of an objective that is 1 for a model as
good as its references. Run: python -m benchmarks.regret
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import lines_sweep as lines
from search.objectives import Objective, Role, role_metrics
from search.proposer import Outcome, Proposer
from search.sampling import SearchConfig, make_proposer
from search.space import Float, Space

COUNTS = (16, 20, 24)
SAMPLES = 120
EIGHT = ("mnist", "fashion", "letters", "kana", "greek", "emoji", "icons", "clipart")
FOUR = ("mnist", "fashion", "emoji", "icons")
Place = tuple[float, float]
Scores = Mapping[Place, float]


@dataclass(frozen=True)
class Setting:
    """One of the two runs: `steps` from 0 to 1; its objective over `scale` is 1 at the level of the references."""

    arm: dict[str, Any]
    experts: dict[str, str]
    tasks: tuple[str, ...]
    objective: str
    scale: float
    steps: int

    @property
    def space(self) -> Space:
        """The points that samplers search."""
        return Space((Float("alpha", 0.0, 1.0, step=1 / self.steps), Float("beta", 0.0, 1.0, step=1 / self.steps)))

    def product(self, alphas: int, betas: int) -> list[Place]:
        """Return a grid from 0 to 1, on the steps of the space."""
        levels = [[round(round(self.steps * i / (n - 1)) / self.steps, 2) for i in range(n)] for n in (alphas, betas)]
        return [(alpha, beta) for alpha in levels[0] for beta in levels[1]]


SETTINGS = {
    "merge": Setting({"merge": "sum"}, {t: f"embedded/{t}" for t in EIGHT}, EIGHT, "mean", 1, 20),
    "edit": Setting({"edit": "mnist"}, {"mnist": "embedded/demo-mnist"}, FOUR, "2 * target + retained", 3, 10),
}


def spec_of(name: str) -> dict[str, Any]:
    """Return the spec of a setting."""
    setting = SETTINGS[name]
    steps = {"range": [0, 1], "step": 1 / setting.steps}
    scaling = {"function": "linear", "alpha": steps, "beta": steps}
    arm = {**setting.arm, "scaling": scaling, "select": {"maximise": setting.objective}, "test": "every"}
    return {
        "name": f"regret-{name}",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "experts": setting.experts,
        "tasks": list(setting.tasks),
        "limits": {"val": SAMPLES, "test": SAMPLES},
        "arms": {name: arm},
        "resources": {"pool": "local"},
    }


class Scored:
    """The outcomes of a run: of each model, (T, P) for the samples of each task, both splits together.

    A model is a point of the space, an expert by the name of its task, or "" for the pre-trained model.
    """

    def __init__(self, name: str, folder: Path) -> None:
        """Make the run of a setting, or read the one in `folder`."""
        self.setting, place = SETTINGS[name], folder / name
        run = lines.open_run(place) if (place / "report.html").exists() else lines.run(spec_of(name), out=place)
        models: dict[str | Place, str] = {}
        for row in run.candidates.to_pylist():
            model = at(json.loads(row["point"])) if row["arm"] == name else row["group"]
            models[model] = row["recipe_id"]
        outcomes: dict[str, list[npt.NDArray[np.float64]]] = {recipe: [] for recipe in models.values()}
        unknown = [math.nan] * SAMPLES
        for task in self.setting.tasks:
            rows = {(r["recipe_id"], r["split"]): r["outcomes"] for r in run.samples(task).to_pylist()}
            for recipe, tasks in outcomes.items():
                # An expert that is merged has scores of its own task only.
                tasks.append(np.concatenate([rows.get((recipe, split), unknown) for split in ("val", "test")]))
        self.outcomes = {model: np.stack(outcomes[recipe]) for model, recipe in models.items()}

    def halves(self, seed: int) -> tuple[Scores, Scores]:
        """Return the objective of every point on one random half of the samples of each task, and on the other."""
        rng = np.random.default_rng(seed)
        order_TP = np.stack([rng.permutation(2 * SAMPLES) for _ in self.setting.tasks])
        return self._scores(order_TP[:, :SAMPLES]), self._scores(order_TP[:, SAMPLES:])

    def _scores(self, indices_TN: npt.NDArray[np.int64]) -> Scores:
        """Return point -> objective on some samples of each task; 100 is as good as the references."""
        setting, accuracy = self.setting, {}
        for model, outcomes_TP in self.outcomes.items():
            means = np.take_along_axis(outcomes_TP, indices_TN, 1).mean(1).tolist()
            accuracy[model] = dict(zip(setting.tasks, means, strict=True))
        roles: dict[str, Role] = {t: "target" if t in setting.experts else "control" for t in setting.tasks}
        tuned = {t: accuracy[t][t] for t in setting.experts}
        objective = Objective.parse(setting.objective)
        return {
            model: 100 / setting.scale * objective(role_metrics(values, roles, tuned, accuracy[""]))
            for model, values in accuracy.items()
            if isinstance(model, tuple)
        }


def at(point: Mapping[str, Any]) -> Place:
    """Return (alpha, beta); Optuna's steps are not rounded."""
    return round(point["alpha"], 2), round(point["beta"], 2)


#: Name -> sampler and options.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "qmc": ("qmc", {}),
    "tpe": ("tpe", {}),
    "gp, 8 random": ("gp", {"startup_trials": 8}),
    "gp, 8 spread": ("gp", {"startup_trials": 8, "startup": "spread"}),
}


def asked(proposer: Proposer, scores: Scores, in_flight: int = 4) -> list[Place]:
    """Return the points of a search, driven as a run does: ask n follows outcomes 0 to n - `in_flight`."""
    places: list[Place] = []
    while (proposal := proposer.ask()) is not None:
        places.append(at(proposal.point))
        if (number := len(places) - in_flight) >= 0:
            proposer.tell(Outcome(number, (scores[places[number]],)))
    return places


class Loss(NamedTuple):
    """Of one resample, in points.

    Attributes:
        searched: by how much the choice of the grid of 121 is better, on the half that was searched.
        other: the same on the other half.
        noise: by how much the choice scores higher on the half that was searched than on the other.
    """

    searched: float
    other: float
    noise: float


def loss(places: Sequence[Place], reference: Sequence[Place], halves: tuple[Scores, Scores]) -> Loss:
    """Return what a search of `places` loses against the grid of 121; both choose the first of the best."""
    searched, other = halves
    ours, grid = max(places, key=searched.__getitem__), max(reference, key=searched.__getitem__)
    return Loss(searched[grid] - searched[ours], other[grid] - other[ours], searched[ours] - other[ours])


def show(name: str, count: int, losses: Sequence[Loss]) -> None:
    """Print a row: mean loss on the searched half with its 95th percentile, on the other half, and the noise."""
    searched, other, noise = zip(*losses, strict=True)
    means = [f"{statistics.mean(values):.2f}" for values in (searched, other, noise)]
    print(
        f"| {name} | {count} | {means[0]} ({np.percentile(searched, 95):.2f}) | {means[1]} | {means[2]} |", flush=True
    )


def study(name: str, folder: Path, resamples: int, samplers: Sequence[str]) -> None:
    """Print the table of a setting."""
    scored = Scored(name, folder)
    setting, halves = scored.setting, [scored.halves(seed) for seed in range(resamples)]
    grid = setting.product(11, 11)
    print(f"{name}, {resamples} resamples\n| search | candidates | searched half (95 %) | other half | noise |")
    finest = setting.steps + 1
    for a, b in dict.fromkeys([(finest, finest), (11, 11), *((count // 4, 4) for count in COUNTS)]):
        show(f"grid of {a} x {b}", a * b, [loss(setting.product(a, b), grid, pair) for pair in halves])
    for label in samplers:
        sampler, options = SAMPLERS[label]
        searches = []
        for seed, (searched, _) in enumerate(halves):
            # No sampler looks at the number of trials: a shorter search is the beginning of a longer one.
            config = SearchConfig(sampler, max(COUNTS), 1, seed, options)
            searches.append(asked(make_proposer(setting.space, config), searched))
        for count in COUNTS:
            found = [loss(places[:count], grid, pair) for places, pair in zip(searches, halves, strict=True)]
            show(label, count, found)


def main() -> None:
    """Print the tables of both settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the two runs, for a second time")
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        for name in options.settings:
            study(name, options.folder or Path(made), options.resamples, options.samplers)


if __name__ == "__main__":
    main()
