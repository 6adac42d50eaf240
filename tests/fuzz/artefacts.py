"""The files that a run writes and later runs read, each made from small inputs, for `fuzz.stored`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from learning_parts import LinearEncoder, Rows
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from toy import IDENTITY, ToyEvaluator, toy_spec
from toy_run import build_run

from fuzz.pictures import PREPROCESS, write_classes
from fuzz.stored import Artefact, Values, digest_of
from pipeline.learning.gatherer import Gatherer
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.messages import COMPLETIONS, Completions, EvalRequest, Identity
from pipeline.parameters import resolve
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.journal import FILE_NAME
from pipeline.records.ledger import Ledger
from pipeline.regress.baseline import read_baseline, write_baseline
from pipeline.regress.snapshot import snapshot_of
from pipeline.report.data.run import Run
from pipeline.run.run import rebuild, run
from pipeline.storage.caches.completions import CompletionCache
from pipeline.storage.caches.scores import ScoreCache
from tasks.vision.decoded import prepare
from tasks.vision.folders import FolderSource
from tasks.vision.heads import text_head


def _files(place: Path, *names: str) -> Values:
    found = {p for name in names for p in place.glob(name)}
    return {
        str(p.relative_to(place)): hashlib.blake2b(p.read_bytes(), digest_size=12).hexdigest() for p in sorted(found)
    }


class JournalFile:
    """The journal of a finished run with edits, controls and a search; its values are the tables made from it."""

    name, lines, required = "journal", True, True

    def write(self, shared: Path, place: Path) -> None:
        """Execute the run."""
        scaling = {"function": "linear", "alpha": {"grid": [0.0, 1.0]}, "beta": "1 - alpha"}
        search = {"sampler": "tpe", "trials": 4, "in_flight": 2, "options": {"startup_trials": 2}}
        arms = {
            "LiNeS": {"edit": ["cats"], "scaling": scaling},
            "merge": {"merge": "sum", "scaling": {"alpha": {"range": [0.0, 1.0]}}, "search": search},
        }
        spec = toy_spec(arms=arms, controls={"kinds": ["uniform"], "constants": 2}, shard_size=130)
        run(make_plan(spec), IDENTITY, shared / "run", lambda: LocalPool(ToyEvaluator()), None)
        (place / FILE_NAME).write_bytes((shared / "run" / FILE_NAME).read_bytes())

    def read(self, shared: Path, place: Path) -> Values:
        """Write the tables and read them."""
        rebuild(place)
        return _files(place, "*.parquet", "samples/*.parquet", "provenance.json")


def _requests() -> list[EvalRequest]:
    recipes = [Recipe.make("sum", "linear", 0.25 * i, 0.5) for i in range(4)]
    return [r for recipe in recipes for r in Ledger(IDENTITY, 40, {}).requests(recipe, ["cats", "dogs"], "val")]


class Scores:
    """The score cache."""

    name, lines, required = "score cache", True, False

    def write(self, shared: Path, place: Path) -> None:
        """Add the scores of several candidates."""
        cache = ScoreCache(place, IDENTITY)
        cache.add([ToyEvaluator().evaluate(request) for request in _requests()])
        cache.flush()

    def read(self, shared: Path, place: Path) -> Values:
        """Look every score up."""
        cache = ScoreCache(place, IDENTITY)
        found = {f"{r.recipe_id} {r.task} {r.start}": cache.get(r) for r in _requests()}
        return {
            key: s and digest_of(s.request, s.stats, s.outcomes.tolist(), s.alpha, s.note, s.texts)
            for key, s in found.items()
        }


class CompletionsFile:
    """The cache of completions."""

    name, lines, required = "completion cache", True, False

    def write(self, shared: Path, place: Path) -> None:
        """Add completions of several candidates."""
        cache = CompletionCache(place, "context")
        for request in self._requests():
            texts = tuple(f"Tale {i}: 'naïve' [bold]\n {request.recipe_id}" for i in range(request.start, request.stop))
            cache.add(Completions(request, texts, 0.5, (0.1, 2.0), "worker-0"))
        cache.flush()

    def read(self, shared: Path, place: Path) -> Values:
        """Look all of them up."""
        cache = CompletionCache(place, "context")
        found = {f"{r.recipe_id} {r.start}": cache.get(r) for r in self._requests()}
        return {key: c and digest_of(c.request, c.texts, c.alpha) for key, c in found.items()}

    def _requests(self) -> list[EvalRequest]:
        recipes = [Recipe.make("rewarded", "constant", 1, 0, (0.25 * i, 1 - 0.25 * i)) for i in range(4)]
        ranges = ((0, 0, 8), (1, 8, 16))
        return [EvalRequest(r, r.id("f"), COMPLETIONS, "val", *place) for r in recipes for place in ranges]


class Packs:
    """Images of a folder, decoded: pixels, labels, keys and fingerprint of each split."""

    name, lines, required = "decoded packs", False, False

    def write(self, shared: Path, place: Path) -> None:
        """Write the images and decode them."""
        write_classes(shared / "classes", 6)
        self.read(shared, place)

    def read(self, shared: Path, place: Path) -> Values:
        """Map the images into memory."""
        splits = prepare(FolderSource(shared / "classes"), PREPROCESS)
        return {
            split: digest_of(s.fingerprint, s.keys, s.labels_N.tolist(), s.slice(0, len(s)).numpy().tobytes())
            for split, s in splits.items()
        }


class _Text:
    """A text tower whose embeddings are hashes."""

    fingerprint, logit_scale = "toy text tower", 10.0

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([list(prompt.encode().ljust(32, b"\0")[:32]) for prompt in prompts])

    def encode(self, tokens_BL: Tensor) -> Tensor:  # noqa: N803
        rows = [np.frombuffer(hashlib.blake2b(bytes(t.tolist())).digest(), np.uint8) for t in tokens_BL]
        return F.normalize(torch.from_numpy(np.stack(rows).astype(np.float32)) - 127, dim=-1)


class Heads:
    """The head of a zero-shot classifier."""

    name, lines, required = "text heads", False, False

    def write(self, shared: Path, place: Path) -> None:
        """Compute it."""
        self.read(shared, place)

    def read(self, shared: Path, place: Path) -> Values:
        """Read it."""
        head = text_head(_Text(), ["cat", "dog", "car"], ["a photo of a {}.", "a {}."])
        return {"head": digest_of(head.key, head.weights_KD.tolist())}


class _Encoder(LinearEncoder):
    """A backbone with everything that learning asks for."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__(a, b)
        self.preprocess, self.head = PREPROCESS, text_head


class Statistics:
    """Fisher information and learned coefficients of two experts."""

    name, lines, required = "statistics", False, False

    def write(self, shared: Path, place: Path) -> None:
        """Compute them."""
        self.read(shared, place)

    def read(self, shared: Path, place: Path) -> Values:
        """Gather them as a worker does."""
        numbers = torch.Generator().manual_seed(0)
        a, b, rows = (torch.randn(shape, generator=numbers) for shape in ((4, 6), (3, 4), (12, 6)))
        base = {"0.weight": a, "1.weight": b}
        deltas = [{n: 0.1 * torch.randn(t.shape, generator=numbers) for n, t in base.items()} for _ in range(2)]
        names = ("cats", "dogs")
        spec = toy_spec(tasks=list(names), experts={n: f"toy/{n}" for n in names}, ood={})
        identity = Identity(
            "f", {n: (n, 12, 1) for n in names}, dict.fromkeys(names, "accuracy"), (1, 1), 0,
            {"base": "b", **{n: f"e-{n}" for n in names}}, "toy",
        )  # fmt: skip
        tasks = {n: Rows(rows + i, [0, 1, 2] * 4) for i, n in enumerate(names)}
        found: dict[str, str] = {}
        for method, given in {"fisher": {"samples": 4}, "adamerging": {"steps": 1, "batch_size": 4}}.items():
            gather = Gatherer(spec, _Encoder(a, b), tasks, identity)  # type: ignore[arg-type]
            params = resolve(METHODS[method].parameters, given)
            parts = gather(method, Experts(deltas, base), (1, 1), params)
            found[method] = digest_of([{name: part[name].tolist() for name in sorted(part)} for part in parts])
        return found


class Baseline:
    """A baseline made from a run."""

    name, lines, required = "baselines", False, True

    def write(self, shared: Path, place: Path) -> None:
        """Make it."""
        folder = build_run().write(shared / "run")
        write_baseline(snapshot_of(Run.read(folder), "toy"), place / "baseline.parquet")

    def read(self, shared: Path, place: Path) -> Values:
        """Read it."""
        found = read_baseline(place / "baseline.parquet")
        rows = [(row.arm, row.recipe, row.task, row.outcomes_N.tolist()) for row in found.rows]
        return {"rows": digest_of(rows), "about": digest_of(found.about)}


ARTEFACTS: tuple[Artefact, ...] = (
    JournalFile(),
    Scores(),
    CompletionsFile(),
    Packs(),
    Heads(),
    Statistics(),
    Baseline(),
)
