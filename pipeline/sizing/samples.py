"""The samples of a run's tasks, the memory of their data, and that of a forward pass; no weights are needed."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from pipeline.learning.live_bytes import LiveBytes
from pipeline.loading.model import Report
from pipeline.loading.tasks import load_tasks
from pipeline.sizing.forward_bytes import WithoutPairs, peak_bytes
from pipeline.sizing.model import ModelSize
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, KeepsOutputs, Task, TaskRequest
from tasks.registry import TASKS
from tasks.vision.backbones import ImageBackbone
from tasks.vision.classification import image_batch, image_preprocess
from tasks.vision.decoded import count_images
from tasks.vision.sources import image_source


@dataclass(frozen=True, slots=True)
class Samples:
    """What there is to score.

    Attributes:
        counts: task -> (validation samples, test samples).
        activations: bytes of the largest forward pass; None if not known.
        data: bytes of the decoded samples that a worker keeps on its device.
        tokens: of all samples that a backbone reads whose outputs are kept; 0 if none are.
    """

    counts: Mapping[str, tuple[int, int]]
    activations: int | None
    data: int = 0
    tokens: int = 0


@runtime_checkable
class KnowsHeaviest(Protocol):
    """A task that does not begin with its last sample."""

    def heaviest(self, split: str) -> tuple[int, int]:
        """Return samples, as start and stop, whose first forward pass takes the most memory."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A task whose samples are read in batches that stay the same, so that a backbone can keep its outputs."""

    @property
    def tokens(self) -> int:
        """The number of tokens of both splits, padding included."""
        ...


def measure_samples(spec: RunSpec, model: ModelSize, device_type: str, report: Report) -> Samples:
    """Count the samples of a run's tasks, and run their forward passes without values.

    Args:
        spec: the run.
        model: without values.
        device_type: of the workers: the default batch of images depends on it.
        report: called with what is being done.

    Raises:
        ValueError: if a task's data is missing or wrong; the field is named.
    """
    backbone = model.backbone
    if spec.generation is not None:
        return _completions(spec, backbone)
    sources = [task.source for task in (*spec.tasks.values(), *spec.ood.values())]
    if isinstance(backbone, ImageBackbone) and not any(source in TASKS for source in sources):
        return _images(spec, backbone, device_type, report)
    try:
        tasks = load_tasks(spec, backbone, report)
    except (RuntimeError, TypeError):  # a task that computes with the base when it is loaded, such as its head
        backbone = model.build(torch.device("cpu"))
        tasks = load_tasks(spec, backbone, report)
    found = [_pass(task, backbone, split) for task in tasks.values() for split in ("val", "test")]
    known = [size for size in found if size is not None]
    counts = {name: (task.num_samples("val"), task.num_samples("test")) for name, task in tasks.items()}
    keeps = isinstance(backbone, KeepsOutputs)
    tokens = sum(task.tokens for task in tasks.values() if keeps and isinstance(task, CountsTokens))
    return Samples(counts, max(known, default=None), tokens=tokens)


def _pass(task: Task, backbone: Backbone, split: str) -> int | None:
    """Return the bytes of the pass with a split's last sample, as text tasks sort theirs by length, or the heaviest."""
    count = task.num_samples(split)
    if not count:
        return None
    start, stop = task.heaviest(split) if isinstance(task, KnowsHeaviest) else (count - 1, count)
    return peak_bytes(lambda: task.evaluate(backbone, split, start, stop))


def _images(spec: RunSpec, backbone: ImageBackbone, device_type: str, report: Report) -> Samples:
    counts: dict[str, tuple[int, int]] = {}
    batches = [1]
    for name, task in {**spec.tasks, **spec.ood}.items():
        report(f"counting {name}", len(counts), len(spec.tasks) + len(spec.ood))
        limits = {**spec.limits, **task.limits}
        request = TaskRequest(name, task.source, {}, task.options)
        found = count_images(image_source(request), image_preprocess(request, backbone.preprocess))
        val, test = (min(found.get(s, 0), limits.get(s, found.get(s, 0))) for s in ("val", "test"))
        counts[name] = (val, test)
        batches.append(image_batch(request, device_type))
    shape = (3, *backbone.preprocess.size)
    images = torch.empty((max(batches), *shape), dtype=torch.uint8, device="meta")
    data = sum(map(sum, counts.values())) * images[0].numel()
    return Samples(counts, peak_bytes(lambda: backbone.embed(images)), data)


def _completions(spec: RunSpec, backbone: Backbone) -> Samples:
    from pipeline.loading.rewards import as_policy, prompts_of, samples_of  # transformers: not for other runs

    policy, generation = as_policy(backbone), spec.generation
    assert generation is not None, "a run of rewards"
    splits = prompts_of(spec, policy).splits
    val, test = (samples_of(spec) * len(splits[split]) for split in ("val", "test"))
    texts = [prompt.text for prompts in splits.values() for prompt in prompts]
    longest = max(len(ids) for ids in policy.tokenizer(texts, verbose=False)["input_ids"])
    rows = min(generation.batch_size, max(val, test))
    size = generation_bytes(policy.module, rows, longest, generation.max_new_tokens)
    return Samples(dict.fromkeys(spec.tasks, (val, test)), size)


@torch.inference_mode()
def generation_bytes(module: Any, rows: int, longest: int, new: int) -> int:
    """Return the most bytes that completing prompts takes: reading the prompts, or the last step with a full cache.

    Args:
        module: a causal language model of transformers, on the meta device.
        rows: prompts of a batch.
        longest: tokens of the longest prompt.
        new: tokens of the longest completion.
    """
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(type(module).forward).parameters else {}

    def tokens(count: int) -> torch.Tensor:
        return torch.empty((rows, count), dtype=torch.int64, device="meta")

    reading = peak_bytes(lambda: module(input_ids=tokens(longest), use_cache=True, **last))
    with LiveBytes() as live, WithoutPairs():
        cache = module(input_ids=tokens(longest + new - 1), use_cache=True, **last).past_key_values
        live.peak = live.now
        module(input_ids=tokens(1), past_key_values=cache, use_cache=True, **last)
    most: int = max(reading or 0, live.peak)
    return most
