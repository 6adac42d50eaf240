"""A synthetic finished run: tables of the real schemas, with paired outcomes from a toy model of editing."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.merging.scaling import LayerSizes, coefficients
from pipeline.recipe import Recipe
from pipeline.records import tables

EXPERTS = ("digits", "fashion", "letters", "textures")
UNTRUSTED = "LiNeS <script>alert('|')</script>"
SIZES = LayerSizes(60_000, (110_000,) * 8)
SAMPLES = {"val": 300, "test": 400}
GRID = [round(0.1 * i, 1) for i in range(11)]
ZERO = Recipe.make("zero")
Arm = tuple[str, str, str, str]  # name, kind, control_of, control


@dataclass
class RunBuilder:
    """Collects the rows of a run and writes its folder."""

    candidates: list[dict[str, object]] = field(default_factory=list)
    scores: list[dict[str, object]] = field(default_factory=list)
    samples: dict[str, dict[tuple[str, str], list[float]]] = field(default_factory=dict)
    failures: list[dict[str, object]] = field(default_factory=list)

    def add_group(self, arm: Arm, group: str, points: list[tuple[dict[str, float], Recipe]]) -> None:
        """Score every point on validation, choose the best, and score it on test."""
        first = len(self.candidates)
        for number, (point, recipe) in enumerate(points):
            self._add(arm, group, number, point, recipe)
        best = max(self.candidates[first:], key=lambda row: row["objectives"] or [-1.0])
        best["chosen"] = best["on_front"] = True
        self._score(best, "test")

    def fail_last(self, kind: str, cause: str) -> None:
        """Make the last candidate a failure without scores."""
        row = self.candidates[-1]
        row |= {"state": "failed", "failure": cause, "objectives": None, "on_front": False}
        keys = ("arm", "group", "number")
        self.scores = [s for s in self.scores if any(s[k] != row[k] for k in keys)]
        self.failures.append(
            {"recipe_id": row["recipe_id"], "task": "digits", "split": "val", "kind": kind, "cause": cause}
        )

    def write(self, folder: Path) -> Path:
        """Write the whole run folder."""
        tables.write(folder / "candidates.parquet", self.candidates, tables.CANDIDATES)
        tables.write(folder / "scores.parquet", self.scores, tables.SCORES)
        for task, kept in self.samples.items():
            rows = [{"recipe_id": i, "split": s, "outcomes": o} for (i, s), o in kept.items()]
            tables.write(folder / "samples" / f"{task}.parquet", rows, tables.SAMPLES)
        (folder / "provenance.json").write_text(json.dumps(self._provenance()), encoding="utf-8")
        return folder

    def _add(self, arm: Arm, group: str, number: int, point: Mapping[str, float], recipe: Recipe) -> None:
        name, kind, control_of, control = arm
        row: dict[str, object] = {"arm": name, "kind": kind, "group": group, "number": number}
        row |= {
            "recipe_id": recipe.id("toy"),
            "method": recipe.method,
            "scaling": recipe.scaling,
            "alpha": recipe.alpha,
        }
        row |= {"alpha_auto": False, "beta": recipe.beta, "weights": list(recipe.weights), "params": "{}"}
        row |= {"point": json.dumps(point), "control_of": control_of, "control": control, "state": "complete"}
        row |= {"failure": "", "on_front": False, "chosen": False, "note": ""}
        self.candidates.append(row)
        by_role = self._score(row, "val")
        row["objectives"] = [2 * np.mean(by_role["target"]) + np.mean(by_role.get("control", [1.0]))]

    def _score(self, row: dict[str, object], split: str) -> dict[str, list[float]]:
        recipe = Recipe.make(row["method"], row["scaling"], row["alpha"], row["beta"], tuple(row["weights"]))  # type: ignore[arg-type]
        found: dict[str, list[float]] = {}
        for task in (*EXPERTS, "digits, tilted"):
            outcomes = toy_outcomes(recipe, task, split)
            self.samples.setdefault(task, {})[str(row["recipe_id"]), split] = outcomes.tolist()
            role = "ood" if task not in EXPERTS else "target" if row["group"] in ("", task) else "control"
            reference = toy_outcomes(single(task) if role == "target" else ZERO, task, split).mean()
            value, n = float(outcomes.mean()), len(outcomes)
            score: dict[str, object] = {key: row[key] for key in ("arm", "group", "number", "recipe_id")}
            score |= {"task": task, "split": split, "role": role, "metric": "accuracy", "value": value, "n": n}
            score |= {"std_err": (value * (1 - value) / (n - 1)) ** 0.5, "normalised": value / float(reference)}
            self.scores.append(score)
            found.setdefault(role, []).append(value / float(reference))
        return found

    def _provenance(self) -> dict[str, object]:
        hint = {"role_hint": "task", "shifted_from": None, "n": SAMPLES}
        tasks = [{"name": name, "fingerprint": f"{zlib.crc32(name.encode()):016x}"} | hint for name in EXPERTS]
        ood = {
            "name": "digits, tilted",
            "fingerprint": "00ff",
            "role_hint": "ood",
            "shifted_from": "digits",
            "n": SAMPLES,
        }
        arms = list(dict.fromkeys(str(row["arm"]) for row in self.candidates))
        counts = {"candidates": len(self.candidates), "shards_scored": 1234, "shards_from_cache": 56}
        return {
            "schema_version": tables.SCHEMA_VERSION,
            "name": "a toy run",
            "spec": {
                "name": "a toy run",
                "experts": {e: f"embedded/{e}" for e in EXPERTS},
                "arms": {arm: {"test": "chosen"} for arm in arms},
            },
            "objectives": {arm: ["2 * target + control"] for arm in arms},
            "tasks": [*tasks, ood],
            "experts": list(EXPERTS),
            "targets": {expert: expert for expert in EXPERTS},
            "layers": {"block_sizes": list(SIZES.blocks), "outside_size": SIZES.outside},
            "checkpoints": {name: f"{zlib.crc32(name.encode()):016x}" for name in ("base", *EXPERTS)},
            "numerics": "float32, cpu, torch 2.15",
            "versions": {"lines-sweep": "0.1.0", "torch": "2.15.0"},
            "workers": [{"name": "worker-0", "device": "cpu (2 threads)"}],
            "counts": counts | {"failures": len(self.failures)},
            "seconds": {"total": 61.4},
            "failures": self.failures,
            "complete": True,
        }


def toy_outcomes(recipe: Recipe, task: str, split: str) -> np.ndarray:
    """Return 0 or 1 per sample, paired across recipes: shallow changes harm other tasks, deep ones help their own."""
    shallow, deep = (0.0, 0.0)
    if recipe.method != "zero":
        blocks = coefficients(recipe, SIZES, float(recipe.alpha)).blocks
        shallow, deep = float(np.mean(blocks[:4])), float(np.mean(blocks[4:]))
    parent = task.split(",")[0]
    own = recipe.method == "sum" or (recipe.weights and recipe.weights[EXPERTS.index(parent)] == 1)
    skill = 0.05 * EXPERTS.index(parent) - 0.3 * ("," in task)
    # In a merge depth makes no difference, so that the report contains a tie.
    deeper = 0.5 if recipe.method == "sum" else 0.7
    harm = 0.5 * (shallow + deep) ** 2 if recipe.method == "sum" else 0.45 * shallow**2 + 0.12 * deep**2
    skill += 1.5 * (1 - np.exp(-2.5 * ((1 - deeper) * shallow + deeper * deep))) - 0.3 * harm if own else -harm
    rng = np.random.default_rng(zlib.crc32(f"{task} {split}".encode()))
    hardness = rng.normal(size=SAMPLES[split])
    own_noise = np.random.default_rng(zlib.crc32(f"{task} {split}".encode() + recipe.canonical()))
    return (skill + own_noise.normal(scale=0.1, size=SAMPLES[split]) > hardness).astype(np.float32)


def single(expert: str, scaling: str = "constant", alpha: float = 1, beta: float = 0) -> Recipe:
    weights = tuple(int(e == expert) for e in EXPERTS)
    return Recipe.make("single", scaling, alpha, beta, weights)


def build_run() -> RunBuilder:
    """Edits and merges with all their controls, one failure, and an arm whose name is a script."""
    run = RunBuilder()
    run.add_group(("pre-trained", "pre-trained", "", ""), "", [({}, ZERO)])
    for expert in EXPERTS:
        run.add_group(("fine-tuned", "edit", "", ""), expert, [({}, single(expert))])
    shapes = {"": "linear", "uniform": "uniform:linear", "constant": "constant", "reversed": "reversed:linear"}
    for control, scaling in shapes.items():
        name = f"{UNTRUSTED}, {control}" if control else UNTRUSTED
        for expert in EXPERTS:
            points = [({"alpha": a}, single(expert, scaling, a, 1 - a)) for a in GRID]
            run.add_group((name, "edit", control and UNTRUSTED, control), expert, points)
    merges = [({"alpha": a}, Recipe.make("sum", "constant", a)) for a in GRID]
    run.add_group(("task arithmetic", "merge", "", ""), "", merges)
    for control, scaling in shapes.items():
        leader = "task arithmetic + LiNeS"
        name = f"{leader}, {control}" if control else leader
        scaled = [({"beta": b}, Recipe.make("sum", scaling, 0.1, b)) for b in GRID]
        run.add_group((name, "merge", control and leader, control), "", merges if control == "constant" else scaled)
    run.fail_last("non_finite", "digits: the logits of 3 samples are not finite")
    return run
