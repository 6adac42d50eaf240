"""Compute what a merge method needs of models and data, once for each machine: results are kept on its disk."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.checkpoints.lazy import Renamed, StoredTensors
from pipeline.learning.coefficients import RULES, LearningSettings, learn
from pipeline.learning.inputs import LabelledImages, as_encoder, labelled, overwrite
from pipeline.learning.merged_grams import merged_grams
from pipeline.learning.meter import Meter
from pipeline.learning.statistics import STATISTICS, Progress, silent
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts, Params, number, resolve_weights, used_experts
from pipeline.messages import Identity
from pipeline.parameters import resolve
from pipeline.recipe import Number, Recipe
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, LayerMap, NonFiniteOutput, Task
from tasks.files.cache import cache_root, cached, digest

#: Part of every key: raised when the same inputs give another result, or files get another form.
_FORMAT = "1"
#: Costs, and a summary of the coefficients: plain JSON, which travels with every score (see `ShardScore.note`).
Note: TypeAlias = Mapping[str, Any]
Tensors: TypeAlias = Mapping[str, Tensor]
_Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class _CachedFile:
    """A result on disk, and the cost of computing it."""

    path: Path
    seconds: float
    peak_bytes: int


class Gatherer:
    """Makes `Experts.statistics` for the methods that need any, and overwrites the backbone's weights for it.

    Results depend only on checkpoints, validation data, numerics and parameters. These are the key of a result in the
    cache folder, so that one process of a machine computes it and all others read it.
    """

    def __init__(self, spec: RunSpec, backbone: Backbone, tasks: Mapping[str, Task], identity: Identity) -> None:
        """Take the parts of a worker.

        Args:
            spec: maps each expert to its own task.
            backbone: whose module is overwritten.
            tasks: every task of the run.
            identity: fingerprints and numerics of the run.
        """
        self._backbone = backbone
        self._experts = tuple(spec.experts)
        self._tasks = {expert: (spec.target(expert), tasks[spec.target(expert)]) for expert in spec.experts}
        self._data = {expert: identity.tasks[name][:2] for expert, (name, _) in self._tasks.items()}
        inputs, base = repr(getattr(backbone, "preprocess", "")), identity.checkpoints["base"]
        context = [_FORMAT, spec.backbone.family, spec.backbone.model, inputs, identity.numerics, base]
        self._keys = {e: digest([*context, identity.checkpoints[e], *map(str, d)]) for e, d in self._data.items()}
        self._notes: dict[_Key, Note] = {}
        self._diverged: dict[_Key, str] = {}

    def __call__(self, method: str, experts: Experts, weights: Sequence[Number], params: Params) -> list[Tensors]:
        """Return what `method` needs of each expert, in the run's order; nothing for experts of weight 0.

        Raises:
            NonFiniteOutput: if a logit or a gradient is NaN or infinite; for further shards of the recipe it is raised
                again without computing.
            ValueError: if a task has no labelled images, or the backbone embeds none.
        """
        used, key = used_experts(weights), _key(method, weights, params)
        if key in self._diverged:
            raise NonFiniteOutput(self._diverged[key])
        gathers = {"learned": self._learned, "merged_gram": self._merged_grams}
        gather = gathers.get(METHODS[method].needs, self._statistics)
        try:
            found, self._notes[key] = gather(method, experts, used, params)
        except NonFiniteOutput as error:
            self._diverged[key] = str(error)
            raise
        by_expert = dict(zip(used, found, strict=True))
        return [by_expert.get(i, {}) for i in range(len(weights))]

    def note(self, recipe: Recipe) -> Note:
        """Return the cost of gathering for `recipe`; empty if its method needs nothing.

        It has `seconds` and `peak_bytes` of the computation, in whichever process; and for learned coefficients
        `coefficients`: expert -> outside the blocks, then each block. The method must have been called before.
        """
        method = METHODS[recipe.method]
        if not method.needs:
            return {}
        params = resolve(method.parameters, dict(recipe.params))
        return self._notes[_key(recipe.method, resolve_weights(recipe.weights, len(self._experts)), params)]

    def statistic(
        self, kind: str, expert: str, base: Tensors, delta: Tensors, samples: int, progress: Progress = silent
    ) -> _CachedFile:
        """Return the file of one expert's "fisher" or "gram", computed unless it exists.

        Raises:
            ValueError: if its task has no labelled images, or the backbone embeds none.
        """
        backbone, task = as_encoder(self._backbone), self._labelled(expert)

        def compute() -> dict[str, Tensor]:
            overwrite(backbone, base, [(delta, dict.fromkeys(base, 1.0))])
            return STATISTICS[kind](backbone, task, samples, progress)

        return self._keep(kind, [self._keys[expert], str(samples)], compute)

    def _statistics(
        self, method: str, experts: Experts, used: Sequence[int], params: Params
    ) -> tuple[Sequence[Tensors], Note]:
        assert experts.base is not None
        kind, samples = METHODS[method].needs, int(number(params, "samples"))
        kept = [self.statistic(kind, self._experts[i], experts.base, experts.deltas[i], samples) for i in used]
        return [StoredTensors([k.path], self._backbone.device) for k in kept], _cost(kept)

    def _learned(
        self, method: str, experts: Experts, used: Sequence[int], params: Params
    ) -> tuple[Sequence[Tensors], Note]:
        backbone, names = as_encoder(self._backbone), [self._experts[i] for i in used]
        part = Experts([experts.deltas[i] for i in used], experts.base)
        # Experts may share a task; its images then count once.
        tasks = list({self._data[expert]: self._labelled(expert) for expert in names}.values())

        def compute() -> dict[str, Tensor]:
            rows = learn(backbone, tasks, part, RULES[method], LearningSettings(**params))  # type: ignore[arg-type]
            return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}

        kept = self._keep(method, [*(self._keys[n] for n in names), json.dumps(sorted(params.items()))], compute)
        stored = load_file(kept.path)
        found = [{name: by_expert[t] for name, by_expert in stored.items()} for t in range(len(used))]
        shapes = {n: p.shape for n, p in self._backbone.module.named_parameters()}
        rows = {e: by_block(row, shapes, backbone.layer_map) for e, row in zip(names, found, strict=True)}
        return found, {**_cost([kept]), "coefficients": rows}

    def _merged_grams(
        self, method: str, experts: Experts, used: Sequence[int], params: Params
    ) -> tuple[Sequence[Tensors], Note]:
        backbone, names = as_encoder(self._backbone), [self._experts[i] for i in used]
        part = Experts([experts.deltas[i] for i in used], experts.base)

        def compute() -> dict[str, Tensor]:
            each = merged_grams(backbone, [self._labelled(name) for name in names], part, params)
            return {f"{i}/{name}": tensor for i, grams in enumerate(each) for name, tensor in grams.items()}

        kept = self._keep(method, [*(self._keys[n] for n in names), json.dumps(sorted(params.items()))], compute)
        stored = StoredTensors([kept.path], backbone.device)
        own = [{n.partition("/")[2]: n for n in stored if n.startswith(f"{i}/")} for i in range(len(used))]
        return [Renamed(stored, names) for names in own], _cost([kept])

    def _labelled(self, expert: str) -> LabelledImages:
        name, task = self._tasks[expert]
        return labelled(task, name)

    def _keep(self, kind: str, key: Sequence[str], compute: Callable[[], dict[str, Tensor]]) -> _CachedFile:
        def create(path: Path) -> None:
            with Meter(self._backbone.device) as meter:
                tensors = compute()
            cost = {"seconds": repr(meter.seconds), "peak_bytes": str(meter.peak_bytes)}
            save_file({name: t.contiguous() for name, t in tensors.items()}, path, cost)

        path = cached(cache_root() / "statistics" / f"{kind}-{digest([kind, *key])}.safetensors", create)
        with safe_open(path, "pt") as file:
            cost = file.metadata()
        return _CachedFile(path, float(cost["seconds"]), int(cost["peak_bytes"]))


def by_block(coefficients: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], layers: LayerMap) -> list[float]:
    """Return the mean coefficient outside the blocks, then of each block, over its matrices, as in figure 5.

    Matrices are the weights of attention and linear layers. If a block has one coefficient, it is the mean.
    """
    means = []
    for group in (None, *range(layers.num_blocks)):
        names = [n for n in coefficients if layers.blocks.get(n) == group]
        matrices = [n for n in names if len(shapes[n]) > 1] or names
        means.append(sum(float(coefficients[n]) for n in matrices) / max(1, len(matrices)))
    return [round(m, 5) for m in means]


def _cost(kept: Sequence[_CachedFile]) -> Note:
    """Add the cost of results: seconds add up, and memory is the largest."""
    seconds = sum(k.seconds for k in kept)
    return {"seconds": round(seconds, 2), "peak_bytes": max((k.peak_bytes for k in kept), default=0)}


def _key(method: str, weights: Sequence[Number], params: Params) -> _Key:
    return method, tuple(weights), tuple(sorted(params.items()))
