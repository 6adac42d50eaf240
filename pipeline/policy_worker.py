"""The worker of a run of rewards: base and policies on one device; a recipe and a shard in, completions out."""

import time
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from pipeline.loading import Model, edited_by, identify, load_experts, load_model, merge_methods
from pipeline.merging.adapted import AdaptedModel
from pipeline.merging.lowrank import LowRankDelta
from pipeline.merging.resident import Applied, ResidentModel
from pipeline.messages import Completions, EvalRequest, WorkerInfo
from pipeline.recipe import Recipe
from pipeline.rewards import as_policy, decoding_of, drawn, prompts_of, reward_tasks, samples_of
from pipeline.spec import RunSpec
from pipeline.worker import info_of
from tasks.language.base import Engine
from tasks.language.generation import TransformersEngine


class Policy(Protocol):
    """What sets a candidate's weights, or the scales beside them."""

    def materialise(self, recipe: Recipe) -> Applied:
        """Have the model compute as `recipe` says."""
        ...


class PolicyWorker:
    """A plain class, as `pipeline.worker.Worker` is; its answers are completions, which others score."""

    def __init__(self, spec: RunSpec, name: str = "local", device_type: str = "cpu") -> None:
        """Load everything once.

        Args:
            spec: the run.
            name: unique within the pool.
            device_type: "cuda", the first GPU that this process may use, or "cpu".

        Raises:
            ValueError: a checkpoint, the prompts or a reward are not what the spec says.
        """
        torch.set_num_threads(max(1, int(spec.resources.per_worker.num_cpus)))
        self.name, self.device = name, torch.device(device_type)
        model = load_model(spec, self.device)
        backbone = as_policy(model.backbone)
        prompts = prompts_of(spec, backbone)
        fingerprints, deltas = {}, {}
        for expert in load_experts(spec, model):
            fingerprints[expert.name], deltas[expert.name] = expert.fingerprint, expert.delta
        edited = edited_by(model, list(deltas.values()), merge_methods(spec))
        tasks = reward_tasks(spec, prompts)
        self._identity = identify(spec, model, fingerprints, tasks, self.device, edited)
        self._prompts, self._samples, self._decoding = prompts.splits, samples_of(spec), decoding_of(spec)
        self.policy: Policy = _apart(model, deltas) if edited else _dense(model, deltas, self.device)
        self._engine: Engine = TransformersEngine(backbone.module, backbone.tokenizer, self.device)
        self._holds: tuple[Recipe, Applied] | None = None

    def info(self) -> WorkerInfo:
        """What it has loaded."""
        return info_of(self._identity, self.name, self.device)

    def evaluate(self, request: EvalRequest) -> Completions:
        """Set the scales or weights unless they are there already, and complete one shard's prompts.

        Raises:
            ValueError: the recipe cannot be built, or gives NaN or infinite factors or logits.
        """
        started = time.perf_counter()
        alpha = self._hold(request.recipe).alpha
        held = time.perf_counter()
        prompts, draws = drawn(self._prompts[request.split], self._samples, request)
        texts = self._engine.complete(prompts, draws, self._decoding)
        seconds = (held - started, time.perf_counter() - held)
        return Completions(request, tuple(texts), alpha, seconds, self.name)

    def _hold(self, recipe: Recipe) -> Applied:
        if self._holds is None or self._holds[0] != recipe:
            self._holds = None  # what fails leaves the weights of no recipe
            self._holds = recipe, self.policy.materialise(recipe)
        return self._holds[1]


def _apart(model: Model, deltas: Mapping[str, Mapping[str, Tensor]]) -> AdaptedModel:
    """The adapters beside the base, which is not kept a second time."""
    low = {name: delta for name, delta in deltas.items() if isinstance(delta, LowRankDelta)}
    backbone = model.backbone
    return AdaptedModel(backbone.module, backbone.layer_map, low, backbone.device, backbone.dtype)


def _dense(model: Model, deltas: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> ResidentModel:
    backbone = model.backbone
    return ResidentModel(
        backbone.module,
        backbone.layer_map,
        model.base.tensors,
        deltas,
        device,
        backbone.dtype,
    )


def make_policy_worker(name: str, spec: RunSpec, device_type: str = "cpu") -> PolicyWorker:
    """What a Ray actor calls to make its worker."""
    return PolicyWorker(spec, name, device_type)
