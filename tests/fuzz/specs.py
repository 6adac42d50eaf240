"""Mutated specs: each of the three kinds of example is changed as text and as a tree, and validated."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

import pipeline.loading.prepare
import pipeline.train.finetune.preparation
import pipeline.train.ppo.preparation
from fuzz.mutations import mutate_text, mutate_tree
from fuzz.oracle import verdict
from fuzz.sandbox import Check, Fault, Limits
from pipeline.cli.validate import validate
from pipeline.messages import Identity
from pipeline.spec.load import load_spec, parse_spec, read_file
from pipeline.spec.run import RunSpec

_EXAMPLES = Path(__file__).parents[2] / "examples"


class Specs:
    """Example specs of runs, fine-tuning and PPO.

    A case never reads a checkpoint or a data set: preparation is replaced by an identity of the spec's own tasks.
    """

    name, share, batch = "specs", 10_000, 25
    limits = Limits()

    def prepare(self, folder: Path) -> None:
        """Copy the examples, and keep each as a tree, with what it extends and without."""
        shutil.copytree(_EXAMPLES, folder / "examples")
        trees = {}
        for path in sorted(_EXAMPLES.rglob("*.yaml")):
            raw = yaml.safe_load(path.read_text())
            if kind := _kind(path, raw):
                whole = read_file(path)
                trees[str(path.relative_to(_EXAMPLES))] = (kind, [raw, whole])
        (folder / "trees.json").write_text(json.dumps(trees))

    def open(self, prepared: Path) -> Check:
        """Read the trees once, for all cases."""
        trees: dict[str, tuple[str, list[Any]]] = json.loads((prepared / "trees.json").read_text())
        donors = [tree for _, versions in trees.values() for tree in versions]
        texts = {name: (prepared / "examples" / name).read_text() for name in trees}

        def check(seed: int, folder: Path) -> str:
            dice = random.Random(f"specs {seed}")
            name = dice.choice(list(trees))
            kind, versions = trees[name]
            if dice.random() < 0.35:
                data = mutate_text(texts[name], dice)
            else:
                tree = mutate_tree(dice.choice(versions), dice, donors)
                text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
                data = mutate_text(text, dice) if dice.random() < 0.15 else text.encode(errors="surrogatepass")
            (folder / "spec.yaml").write_bytes(data)
            path = (prepared / "examples" / name).with_name(f"mutated-{seed}.yaml")  # next to what it extends
            path.write_bytes(data)
            try:
                return _validate(kind, path)
            finally:
                path.unlink()

        return check


def _kind(path: Path, raw: dict[str, Any]) -> str:
    """Return the command that reads a spec; none for the files that others extend."""
    if path.parent.name == "models":
        return ""
    return "finetune" if path.name.startswith("finetune") else "ppo" if path.name.startswith("ppo") else "run"


def _validate(kind: str, path: Path) -> str:
    pipeline.loading.prepare.prepare = _prepared  # type: ignore[assignment]
    pipeline.train.finetune.preparation.prepare = lambda *args: []  # type: ignore[assignment]
    pipeline.train.ppo.preparation.Stages = _NoStages  # type: ignore[assignment, misc]
    found = verdict(lambda: validate(path), [path.name])
    if kind == "run" and found == "accepted":
        _check_header(path)
    return found


class _NoStages:
    """Takes the place of the stages of a PPO, which read its base and prompts."""

    def __init__(self, *args: object) -> None:
        """Read nothing."""

    def first(self) -> list[Any]:
        """Return no job."""
        return []


def _prepared(spec: RunSpec, device_type: str, report: object) -> Identity:
    """Return an identity as preparation would, without reading anything."""
    tasks = {name: ("f", 90, 130) for name in (*spec.tasks, *spec.ood)}
    checkpoints = {"base": "b", **dict.fromkeys(spec.experts, "e")}
    return Identity("f", tasks, dict.fromkeys(tasks, "accuracy"), (10, 10), 5, checkpoints, "n")


def _check_header(path: Path) -> None:
    """Require that the journal's header gives the same spec back: a run is resumed and reported from it."""
    spec = load_spec(path)
    text = json.dumps(spec.model_dump(mode="json"))
    again = parse_spec(json.loads(text), str(path))
    if json.dumps(again.model_dump(mode="json")) != text:
        raise Fault("wrong", "the spec that the journal's header gives back is another one")
