"""A synthetic run whose tasks are rewards: tables of the real schemas, with outcomes from a toy model of soups."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.merging.scaling import LayerSizes, coefficients
from pipeline.recipe import Recipe
from pipeline.records import tables
from pipeline.report.data.estimates import Measure
from pipeline.report.soups import SoupPage, soup_page

SIZES = LayerSizes(60_000, (110_000,) * 8)
PROMPTS = {"val": 40, "test": 60}
UNTRUSTED = "a <script>alert('|')</script> library"
WORDS = ("fast", "small", "tool", "for", "reading", "maps", "of", "sound", "and", "text", "with", "plain", "files")
#: reward -> prompt-major outcomes, of each split.
Outcomes = Mapping[str, Mapping[str, np.ndarray]]
PLAIN, LINES = "rewarded soup", "LiNeS"
NAMES = ("faithful", "plain")
#: The mean rewards of three points of a front.
BEND = ((0.0, 0.8), (0.5, 0.6), (0.9, 0.0))


@dataclass
class SoupBuilder:
    """Collects the rows of a run of rewards and writes its folder.

    Attributes:
        rewards: their names, which are also the policies'.
        draws: completions of each prompt.
    """

    rewards: tuple[str, ...] = ("faithful", "plain")
    draws: int = 1
    candidates: list[dict[str, object]] = field(default_factory=list)
    scores: list[dict[str, object]] = field(default_factory=list)
    samples: dict[str, dict[tuple[str, str], list[float]]] = field(default_factory=dict)
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(
        self, arm: tuple[str, str, str, str], group: str, recipe: Recipe, outcomes: Outcomes, **point: object
    ) -> str:
        """Add a candidate of an arm (name, kind, control_of, control) with its outcomes; return its recipe id."""
        name, kind, control_of, control = arm
        number = sum(row["arm"] == name and row["group"] == group for row in self.candidates)
        row: dict[str, object] = {"arm": name, "kind": kind, "group": group, "number": number}
        row |= {"recipe_id": recipe.id("toy"), "method": recipe.method, "scaling": recipe.scaling}
        row |= {"alpha": recipe.alpha, "alpha_auto": False, "beta": recipe.beta, "weights": list(recipe.weights)}
        row |= {"params": "{}", "point": json.dumps(point), "control_of": control_of, "control": control}
        row |= {"state": "complete", "failure": "", "on_front": False, "chosen": False, "note": "", "objectives": [0.0]}
        self.candidates.append(row)
        for reward, by_split in outcomes.items():
            for split, values in by_split.items():
                self.samples.setdefault(reward, {})[str(row["recipe_id"]), split] = values.tolist()
                score: dict[str, object] = {key: row[key] for key in ("arm", "group", "number", "recipe_id")}
                score |= {"task": reward, "split": split, "role": "target", "metric": "reward"}
                score |= {"value": float(values.mean()), "std_err": 0.0, "n": len(values), "normalised": None}
                self.scores.append(score)
        return str(row["recipe_id"])

    def complete(self, recipe_id: str, split: str, texts: Sequence[str]) -> None:
        """Set the completions of a candidate."""
        self.texts[recipe_id, split] = list(texts)

    def write(self, folder: Path) -> Path:
        """Write the whole run folder, with completions.parquet if there are completions."""
        tables.write(folder / "candidates.parquet", self.candidates, tables.CANDIDATES)
        tables.write(folder / "scores.parquet", self.scores, tables.SCORES)
        for reward, kept in self.samples.items():
            rows = [{"recipe_id": i, "split": s, "outcomes": o} for (i, s), o in kept.items()]
            tables.write(folder / "samples" / f"{reward}.parquet", rows, tables.SAMPLES)
        if self.texts:
            tables.write(folder / "completions.parquet", self._completions(), tables.COMPLETIONS)
        (folder / "provenance.json").write_text(json.dumps(self._provenance()), encoding="utf-8")
        return folder

    def _completions(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for (recipe_id, split), texts in self.texts.items():
            for i, text in enumerate(texts):
                prompt = {
                    "prompt": f"Describe {UNTRUSTED} {i // self.draws}:",
                    "reference": f"number {i // self.draws}",
                }
                rows.append({"recipe_id": recipe_id, "split": split, "index": i, "completion": text} | prompt)
        return rows[::-1]  # the order in the file has no meaning

    def _provenance(self) -> dict[str, object]:
        hint = {"role_hint": "task", "shifted_from": None, "n": {s: n * self.draws for s, n in PROMPTS.items()}}
        arms = list(dict.fromkeys(str(row["arm"]) for row in self.candidates))
        generation = {"prompts": {"source": "embedded/packages"}, "max_new_tokens": 16, "samples": self.draws}
        spec = {"name": "toy soups", "generation": generation, "arms": {arm: {"test": "every"} for arm in arms}}
        return {
            "schema_version": tables.SCHEMA_VERSION,
            "name": "toy soups",
            "spec": spec,
            "objectives": {arm: ["reward"] for arm in arms},
            "tasks": [
                {"name": name, "fingerprint": f"{zlib.crc32(name.encode()):016x}"} | hint for name in self.rewards
            ],
            "experts": list(self.rewards),
            "targets": {name: name for name in self.rewards},
            "layers": {"block_sizes": list(SIZES.blocks), "outside_size": SIZES.outside},
            "checkpoints": {name: f"{zlib.crc32(name.encode()):016x}" for name in ("base", *self.rewards)},
            "numerics": "float32, cpu, torch 2.15",
            "versions": {"lines-sweep": "0.1.0"},
            "workers": [{"name": "worker-0", "device": "cpu (2 threads)"}],
            "counts": {"candidates": len(self.candidates), "shards_scored": 123, "failures": 0},
            "seconds": {"total": 61.4},
            "failures": [],
            "not_searched": [],
            "complete": True,
        }


def toy_outcomes(recipe: Recipe, rewards: Sequence[str], draws: int, splits: Sequence[str]) -> Outcomes:
    """Return outcomes: a reward grows with its own policy's weight and falls with others'; deep changes help more."""
    pull = np.zeros(len(rewards))
    if recipe.method != "zero":
        blocks = coefficients(recipe, SIZES, float(recipe.alpha)).blocks
        pull = np.array(recipe.weights, dtype=float) * (0.2 * np.mean(blocks[:4]) + 0.8 * np.mean(blocks[4:]))
    found: dict[str, dict[str, np.ndarray]] = {}
    for k, reward in enumerate(rewards):
        mean = 0.4 + 0.2 * k + 0.5 * (1 - np.exp(-1.4 * pull[k])) - 0.12 * (pull.sum() - pull[k]) ** 1.5
        found[reward] = {split: mean + _noise(recipe, reward, draws, split) for split in splits}
    return found


def _noise(recipe: Recipe, reward: str, draws: int, split: str) -> np.ndarray:
    """Return noise by prompt and seed that all recipes share, plus a little of each recipe."""
    shared = np.random.default_rng(zlib.crc32(f"{reward} {split}".encode()))
    own = np.random.default_rng(zlib.crc32(f"{reward} {split}".encode() + recipe.canonical()))
    count = PROMPTS[split]
    prompts = np.repeat(shared.normal(scale=0.15, size=count), draws)
    return prompts + shared.normal(scale=0.05, size=count * draws) + own.normal(scale=0.02, size=count * draws)


def toy_texts(recipe: Recipe, prompts: int, draws: int) -> list[str]:
    """Return random sentences, and one script."""
    rng = np.random.default_rng(zlib.crc32(recipe.canonical()))
    texts = [" ".join(rng.choice(WORDS, size=6, replace=False)) for _ in range(prompts * draws)]
    texts[(prompts // 6) * draws] = UNTRUSTED
    return texts


def simplex(count: int) -> list[tuple[float, ...]]:
    """Return 11 points of an edge, or the 15 points of a triangle in quarters."""
    if count == 2:
        return [(round(0.1 * i, 1), round(1 - 0.1 * i, 1)) for i in range(11)]
    return [(a / 4, b / 4, (4 - a - b) / 4) for a in range(5) for b in range(5 - a)]


def build_soups(
    rewards: tuple[str, ...] = ("faithful", "plain"), draws: int = 1, splits: Sequence[str] = ("val", "test")
) -> SoupBuilder:
    """Build SFT, policies, the plain soup, LiNeS and both its controls, with completions."""
    run, count = SoupBuilder(rewards, draws), len(rewards)

    def add(arm: tuple[str, str, str, str], group: str, recipe: Recipe, **point: object) -> None:
        recipe_id = run.add(arm, group, recipe, toy_outcomes(recipe, rewards, draws, splits), **point)
        for split in splits:
            run.complete(recipe_id, split, toy_texts(recipe, PROMPTS[split], draws))

    add(("pre-trained", "pre-trained", "", ""), "", Recipe.make("zero"))
    for i, reward in enumerate(rewards):
        add(
            ("fine-tuned", "edit", "", ""),
            reward,
            Recipe.make("single", weights=tuple(int(i == j) for j in range(count))),
        )
    scalings = {(PLAIN, ""): "constant", (LINES, ""): "linear"}
    scalings |= {(f"{LINES}, {c}", c): f"{c}:linear" for c in ("uniform", "reversed")}
    for (name, control), scaling in scalings.items():
        for weights in simplex(count):
            point = weights[0] if count == 2 else ", ".join(map(str, weights))
            recipe = Recipe.make("weighted", scaling, 1, 1, weights)
            add((name, "merge", control and LINES, control), "", recipe, **{"lambda": point})
    return run


def known_soups(
    fronts: Mapping[str, tuple[tuple[float, float], ...]], noise: float = 0.05, draws: int = 1
) -> SoupBuilder:
    """Return arms with these mean rewards, of one noise; SFT is at (0, 0), the policies are at (1, 0) and (0, 1)."""
    run, rng = SoupBuilder(draws=draws), np.random.default_rng(7)
    shared = rng.normal(size=(2, PROMPTS["test"] * draws))
    shared = noise * (shared - shared.mean(axis=1, keepdims=True))

    def outcomes(mean: tuple[float, float]) -> dict[str, dict[str, np.ndarray]]:
        return {name: {"test": (mean[k] + shared[k]).astype(np.float32)} for k, name in enumerate(NAMES)}

    run.add(("pre-trained", "pre-trained", "", ""), "", Recipe.make("zero"), outcomes((0, 0)))
    for i, name in enumerate(NAMES):
        own = (1.0 - i, float(i))
        run.add(("fine-tuned", "edit", "", ""), name, Recipe.make("single", weights=own), outcomes(own))
    for number, (name, means) in enumerate(fronts.items()):
        for i, mean in enumerate(means):
            weight = (i + 1) / (len(means) + 1)
            scaling = "constant" if name == PLAIN else "linear"
            recipe = Recipe.make("weighted", scaling, 1 + number, 1, (weight, 1 - weight))
            control = name.partition(", ")[2]
            arm = (name, "merge", control and LINES, control)
            run.add(arm, "", recipe, outcomes(mean), **{"lambda": weight})
    return run


def page_of(run: SoupBuilder, folder: Path) -> SoupPage:
    """Write the run folder, and return its page."""
    return soup_page(Measure.read(run.write(folder)))
