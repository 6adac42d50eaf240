"""The worker of a run with rewards: holds base and policies; turns a recipe and a shard into completions."""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from pipeline.loading.experts import has_only_sums
from pipeline.loading.identity import identify
from pipeline.loading.loaded import Fetch
from pipeline.loading.model import LoadedModel
from pipeline.loading.rewards import as_policy, decoding_of, drawn, on_vllm, prompts_of, reward_tasks, samples_of
from pipeline.loading.shared_vectors import load_flat
from pipeline.merging.edited_parameters import EditedParameters
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.resident import Materialised, ResidentModel
from pipeline.merging.resident_low_rank import AdaptedModel, Candidates
from pipeline.messages import Completions, EvalRequest, WorkerInfo
from pipeline.recipe import Recipe
from pipeline.spec.run import RunSpec
from pipeline.workers.held import HeldRecipe, Materialises
from pipeline.workers.worker import describe_device
from tasks.language.base import Engine
from tasks.language.generation import TransformersEngine
from tasks.language.models import model_folder
from tasks.language.vllm_engine import VllmEngine, write_adapter


class CompletionWorker:
    """An `Evaluator` that completes prompts; `RewardWorker` scores the completions."""

    def __init__(self, name: str, spec: RunSpec, device_type: str = "cpu", fetch: Fetch | None = None) -> None:
        """Load everything once; for the arguments see `pipeline.workers.worker.Worker`.

        Raises:
            ValueError: if a checkpoint, the prompts or a reward are not as the spec declares them.
        """
        torch.set_num_threads(max(1, int(spec.resources.per_worker.num_cpus)))
        self.name, self.device = name, torch.device(device_type)
        here = fetch(spec) if fetch else spec
        model, experts = load_flat(here, torch.device("cpu") if on_vllm(spec) else self.device)
        backbone = as_policy(model.backbone)
        prompts = prompts_of(here, backbone)
        fingerprints, deltas, edited = {}, {}, EditedParameters(backbone, has_only_sums(spec))
        for expert in experts:
            fingerprints[expert.name], deltas[expert.name] = expert.fingerprint, expert.delta
            edited.add(expert.delta)
        tasks = reward_tasks(here, prompts)
        self._identity = identify(spec, model, fingerprints, tasks, self.device, edited)
        self._prompts, self._samples, self._decoding = prompts.splits, samples_of(spec), decoding_of(spec)
        self.policy, self._engine = _engine(here, model, deltas, edited)
        self._held = HeldRecipe(self.policy)

    def info(self) -> WorkerInfo:
        """Return what this worker has loaded."""
        return self._identity.worker(self.name, describe_device(self.device))

    def evaluate(self, request: EvalRequest) -> Completions:
        """Set the scales or weights if they are those of another recipe, and complete one shard's prompts.

        Raises:
            ValueError: if the recipe cannot be built.
            NonFiniteError: if factors, weights or logits are NaN or infinite.
        """
        started = time.perf_counter()
        alpha = self._held.hold(request.recipe).alpha
        held = time.perf_counter()
        prompts, draws = drawn(self._prompts[request.split], self._samples, request)
        texts = self._engine.complete(prompts, draws, self._decoding)
        seconds = (held - started, time.perf_counter() - held)
        return Completions(request, tuple(texts), alpha, seconds, self.name)


def _engine(
    spec: RunSpec, model: LoadedModel, deltas: Mapping[str, Mapping[str, Tensor]], edited: EditedParameters
) -> tuple[Materialises, Engine]:
    """Return what sets recipes, and what completes prompts with them."""
    backbone = as_policy(model.backbone)
    module, device = backbone.module, backbone.device
    low = {name: delta for name, delta in deltas.items() if isinstance(delta, LowRankDelta)}
    if on_vllm(spec):
        if not edited.low_rank:
            raise ValueError("generation.engine: vllm: needs LoRA adapters for experts, merged by sums without steps")
        policy = VllmPolicy(spec.backbone.model, Candidates(module, backbone.layer_map, low, device), spec.seed)
        return policy, policy.engine
    engine = TransformersEngine(module, backbone.tokenizer, device)
    if edited.low_rank:
        return AdaptedModel(module, Candidates(module, backbone.layer_map, low, device), backbone.dtype), engine
    resident = ResidentModel(module, backbone.layer_map, model.base.tensors, deltas, device, backbone.dtype)
    resident.sizes = edited.sizes
    return resident, engine


class VllmPolicy:
    """Gives each candidate to vLLM as one adapter: the factors of all policies side by side, with their scales."""

    def __init__(self, model: str, candidates: Candidates, seed: int) -> None:
        """Load the base of `model` into vLLM, for adapters with the ranks of all policies together."""
        self._model, self._candidates = model, candidates
        ranks = (sum(d.factors[n].b.shape[1] for d in candidates.deltas if n in d.factors) for n in candidates.names)
        self.engine = VllmEngine(model_folder(model), max(ranks), seed)
        self._folder = TemporaryDirectory(prefix="lines-candidate-")

    def materialise(self, recipe: Recipe) -> Materialised:
        """Write the candidate's adapter, and make vLLM use it.

        Raises:
            ValueError: as `Candidates.factors`.
        """
        alpha, factors = self._candidates.factors(recipe)
        pairs = {name: (factor.b, factor.a) for name, factor in factors.items()}
        folder = write_adapter(Path(self._folder.name), pairs, self._model) if pairs else None
        self.engine.use(folder)
        return Materialised(alpha, recipe.id("vllm"))
