"""Load the prompts and rewards of a spec: the same code in preparation, in workers and in rewards' actors."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.messages import EvalRequest, Identity
from pipeline.records import tables
from pipeline.spec.generation import Generation
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, Scored
from tasks.files.cache import digest
from tasks.files.models import nearby
from tasks.language.base import Decoding, Prompt, PromptRequest, Sample
from tasks.language.causal import CausalBackbone
from tasks.language.models import check_completes, load_tokenizer
from tasks.language.prompts import PromptSet, load_prompts
from tasks.language.rewards.loading import checked, reward_config

_SPLITS: tuple[Literal["val"], Literal["test"]] = ("val", "test")
#: Files that `lines ppo` writes beside a policy: its curves, and its result.
_TRAINING = ("training.parquet", "train.json")
#: Completions that a Python function is tried on before anything is generated, as it may be new code.
_TRIED = 4


@dataclass
class RewardTask:
    """The samples and the identity of a reward; an actor of the reward scores them.

    Attributes:
        name: of the task.
        fingerprint: of prompts, decoding and reward.
        counts: split -> number of completions.
    """

    name: str
    fingerprint: str
    counts: dict[str, int]
    metric: str = "reward"

    def num_samples(self, split: str) -> int:
        """Return the number of completions of `split`: prompts times samples of each."""
        return self.counts[split]


def as_policy(backbone: Backbone) -> CausalBackbone:
    """Return a backbone that completes prompts.

    Raises:
        ValueError: if the backbone does not, or its tokenizer has no end-of-sequence token and another one to pad with.
    """
    if not isinstance(backbone, CausalBackbone):
        raise ValueError(f"backbone.family: must be causal if tasks are rewards, got {backbone.family}")
    try:
        check_completes(backbone.tokenizer, backbone.model_name)
    except ValueError as error:
        raise ValueError(f"backbone.model: {error}") from error
    return backbone


def prompts_for(spec: RunSpec) -> PromptSet:
    """Load the run's prompts without the model, for actors that score completions.

    Raises:
        ValueError: as `prompts_of`.
    """
    return _prompts(spec, load_tokenizer(spec.backbone.model), None)


def prompts_of(spec: RunSpec, backbone: CausalBackbone) -> PromptSet:
    """Load the run's prompts for the model that completes them.

    Raises:
        ValueError: if there are no such prompts, or one is empty or too long; the field or the file is named.
    """
    new = _generation(spec).max_new_tokens
    if backbone.context is None:
        return _prompts(spec, backbone.tokenizer, None)
    if new >= backbone.context:
        raise ValueError(
            f"generation.max_new_tokens: must leave tokens for a prompt of the model's {backbone.context}, got {new}"
        )
    return _prompts(spec, backbone.tokenizer, backbone.context - new)


def _prompts(spec: RunSpec, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> PromptSet:
    """Read prompts of at most `longest` tokens; without it they fit: the model has no bound, or they were checked."""
    prompts = _generation(spec).prompts
    limits: dict[str, int] = {split: prompts.limits[split] for split in _SPLITS if split in prompts.limits}
    request = PromptRequest(prompts.source, prompts.template, prompts.max_source_tokens, limits)
    try:
        return load_prompts(request, tokenizer, sys.maxsize if longest is None else longest, _SPLITS)
    except ValueError as error:
        raise ValueError(f"generation.prompts: {error}") from error


def samples_of(spec: RunSpec) -> int:
    """Return the number of completions of each prompt."""
    return _generation(spec).samples


def on_vllm(spec: RunSpec) -> bool:
    """Whether vLLM generates; it has its own copy of the base."""
    return _generation(spec).engine == "vllm"


def decoding_of(spec: RunSpec) -> Decoding:
    """Return how completions are drawn."""
    generation = _generation(spec)
    return Decoding(generation.max_new_tokens, generation.temperature, generation.batch_size, spec.seed)


def reward_tasks(spec: RunSpec, prompts: PromptSet) -> dict[str, Scored]:
    """Return every reward of the run without loading it; Python functions are tried on a few references.

    Raises:
        ValueError: if there are fewer than 2 completions of val, a reward or an option is unknown, files are missing,
            or a function returns a wrong number of scores or scores that are not finite; the field is named.
    """
    counts: dict[str, int] = {split: samples_of(spec) * len(prompts.splits[split]) for split in _SPLITS}
    if counts["val"] < 2:  # they are counted in standard deviations
        raise ValueError(
            f"generation.prompts: must give at least 2 completions of val, to compare rewards, got {counts['val']}"
        )
    tried = [Sample(prompt, prompt.reference or prompt.source) for prompt in prompts.splits["val"][:_TRIED]]
    tasks: dict[str, Scored] = {}
    for name, task in spec.tasks.items():
        try:
            reward = reward_config(task.source, task.options)
            reward.check_prompts(chain.from_iterable(prompts.splits.values()))
            mark = scored_fingerprint(spec, prompts, name, reward.fingerprint())
            if ":" in task.source:
                checked(task.source, reward.load(torch.device("cpu")), tried, is_accuracy(spec, name))
        except ValueError as error:
            raise ValueError(f"tasks.{name}: {error}") from error
        tasks[name] = RewardTask(name, mark, counts, task.metric or "reward")
    return tasks


def is_accuracy(spec: RunSpec, task: str) -> bool:
    """Whether a reward's values are accuracies in [0, 1]."""
    return spec.tasks[task].metric == "accuracy"


def scored_fingerprint(spec: RunSpec, prompts: PromptSet, task: str, reward: str) -> str:
    """Hash all that a task's values depend on besides the weights.

    These are the completions that are scored, the reward's own fingerprint, whole rows if the reward takes them, and
    whether values outside [0, 1] are refused.
    """
    generation, of = _generation(spec), spec.tasks[task]
    made = digest([prompts.fingerprint, repr(decoding_of(spec)), str(generation.samples), generation.engine])
    rows = [prompts.rows_fingerprint()] if reward_config(of.source, of.options).reads_rows() else []
    return digest([made, reward, *rows, *["accuracy"] * is_accuracy(spec, task)])[:16]


def keep_inputs(spec: RunSpec, folder: Path) -> PromptSet:
    """Write the prompts into a run's folder, and the training curves of its policies if `lines ppo` trained them.

    Returns:
        The prompts.
    """
    prompts = prompts_for(spec)
    rows: list[dict[str, object]] = [
        {"split": split, "index": i, "prompt": p.text, "source": p.source, "reference": p.reference}
        for split in _SPLITS
        for i, p in enumerate(prompts.splits[split])
    ]
    tables.write(folder / "prompts.parquet", rows, tables.PROMPTS)
    for expert, source in spec.experts.items():
        for file in _TRAINING:
            if (path := Path(nearby(source)) / file).is_file():
                (folder / "training").mkdir(exist_ok=True)
                shutil.copyfile(path, folder / "training" / f"{expert}{path.suffix}")
    return prompts


def completions_context(spec: RunSpec, identity: Identity, prompts: PromptSet) -> str:
    """Return everything that completions depend on, except the recipe."""
    generation = _generation(spec)
    parts = [identity.fingerprint, identity.numerics, prompts.fingerprint, repr(decoding_of(spec))]
    return "\0".join([*parts, str(generation.samples), generation.engine])


def drawn(prompts: Sequence[Prompt], samples: int, request: EvalRequest) -> tuple[list[Prompt], list[int]]:
    """Return the prompt of each of a request's completions, and the number of its sample."""
    places = [divmod(index, samples) for index in range(request.start, request.stop)]
    return [prompts[i] for i, _ in places], [draw for _, draw in places]


def _generation(spec: RunSpec) -> Generation:
    assert spec.generation is not None, "a run of rewards"
    return spec.generation
