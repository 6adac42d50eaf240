"""Rewarded soups on SmolLM2: tokens a second against bare `generate`, and staged against serial generation and scoring.

Needs the models that `make rewarded-soups` builds first; adapters and the reward of GPT-2's size have random weights,
since speed does not depend on them. Each process has one thread, except the serial side with two. Timing begins when
workers have loaded. Run: python -m benchmarks.soups
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, GPT2Config, GPT2ForSequenceClassification

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.loading.prepare import prepare
from pipeline.messages import COMPLETIONS, EvalRequest, Identity, ShardScore
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool
from pipeline.pools.staged import StagedPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.completion_worker import CompletionWorker
from pipeline.workers.reward_worker import RewardWorker
from tasks.language.models import load_causal, load_tokenizer, model_folder

BASE = "embedded/smollm2"
TEMPLATE = "Package description: {source}\nSynopsis:"
NEW_TOKENS = 16
SOUP = Recipe.make("weighted", "linear", 1, 1, (0.4, 0.6))


def write_models(folder: Path) -> None:
    """Write two adapters of rank 16 on every linear layer, and a classifier of the size of the paper's first reward."""
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(load_causal(BASE, torch.float32), config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=1e-3)
        model.save_pretrained(str(folder / name))
    tokenizer = load_tokenizer(BASE)
    config = GPT2Config(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id)
    GPT2ForSequenceClassification(config).save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")


def spec_of(folder: Path, prompts: int, batch: int) -> RunSpec:
    """Return a spec with two rewards, as in the paper: a classifier of 124 M parameters, and a light one."""
    return parse_spec(
        {
            "name": "benchmark",
            "backbone": {"family": "causal", "model": str(model_folder(BASE))},
            "base": str(model_folder(BASE)),
            "experts": {name: str(folder / name) for name in ("first", "second")},
            "generation": {
                "prompts": {
                    "source": "embedded/packages",
                    "template": TEMPLATE,
                    "max_source_tokens": 48,
                    "limits": {"val": prompts, "test": batch},
                },
                "max_new_tokens": NEW_TOKENS,
                "batch_size": batch,
            },
            "tasks": {
                "first": {"source": "reward/classifier", "options": {"model": str(folder / "reward")}},
                "second": {"source": "reward/similarity", "options": {"model": "embedded/minilm"}},
            },
            "arms": {"soup": {"merge": {"method": "weighted", "lambdas": 2}}},
        }
    )


def requests(identity: Identity, spec: RunSpec, tasks: list[str], recipe: Recipe = SOUP) -> list[EvalRequest]:
    """Return the requests for every shard of one candidate on validation."""
    return Ledger(identity, spec.shard_size, {}).requests(recipe, tasks, "val")


def bare(worker: CompletionWorker, batch: int, recipe: Recipe) -> Callable[[], int]:
    """Return a run of the merged model's `generate` over the same batches, which returns the number of tokens."""
    tokenizer, prompts = load_tokenizer(BASE), [p.text for p in worker._prompts["val"]]
    model: Any = load_causal(BASE, torch.float32)
    _, factors = worker.policy._candidates.factors(recipe)  # type: ignore[attr-defined]
    with torch.no_grad():
        for name, factor in factors.items():
            model.get_parameter(name).add_(factor.dense())
    ends: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, **ends)  # type: ignore[no-untyped-call]
    parts = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
    inputs = [tokenizer(part, padding=True, return_tensors="pt") for part in parts]

    @torch.inference_mode()
    def work() -> int:
        made = 0
        for part in inputs:
            tokens = model.generate(**part, generation_config=config)[:, part["input_ids"].shape[1] :]
            made += int((tokens != tokenizer.pad_token_id).sum())
        return made

    return work


def timed(sides: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, tuple[float, int]]:
    """Return side -> (median seconds, its result); sides take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, int] = {}
    for _ in range(rounds):
        for name, work in sides.items():
            started = time.perf_counter()
            found[name] = work()
            seconds[name].append(time.perf_counter() - started)
    return {name: (statistics.median(values), found[name]) for name, values in seconds.items()}


def overhead(folder: Path, prompts: int, rounds: int, batch: int) -> None:
    """Print tokens a second of a worker with separate adapters, and of bare generate of the merged model."""
    torch.set_num_threads(1)
    spec = spec_of(folder, prompts, batch)
    worker = CompletionWorker("local", spec)
    for what, recipe in (("the SFT model", Recipe.make("zero")), ("a soup, rank 32, width 576", SOUP)):
        asked = requests(worker._identity, spec, ["first"], recipe)
        wanted = [replace(request, task=COMPLETIONS) for request in asked]
        sides = {"bare": bare(worker, batch, recipe), "worker": partial(completed, worker, wanted)}
        found = timed(sides, rounds)
        rates = {name: tokens / seconds for name, (seconds, tokens) in found.items()}
        for name, (seconds, tokens) in found.items():
            print(f"{what}, {name}: {tokens} tokens in {seconds:.1f} s, {rates[name]:.1f} tokens/s")
        print(f"{what}: bare generate is {rates['bare'] / rates['worker']:.3f} times as fast (aim: at most 1.1)")


def completed(worker: CompletionWorker, wanted: list[EvalRequest]) -> int:
    """Answer every request; return the number of generated tokens."""
    before = worker._engine.tokens  # type: ignore[attr-defined]
    for request in wanted:
        worker.evaluate(request)
    return int(worker._engine.tokens - before)  # type: ignore[attr-defined]


def drain(pool: StagedPool, wanted: list[EvalRequest]) -> int:
    """Get a score for every request; return their number."""
    pool._completions.clear()
    pool.submit(wanted)
    answers = []
    while len(answers) < len(wanted):
        answers += pool.wait(timeout=5.0)
    assert all(isinstance(a, ShardScore) for a in answers), answers
    return len(answers)


def overlap(folder: Path, prompts: int, rounds: int, batch: int) -> None:
    """Print the time of one candidate's shards: separate actors for generation and each reward, against one process."""
    spec = spec_of(folder, prompts, batch)
    identity = prepare(spec, "cpu", lambda what, done, total: None)
    wanted = requests(identity, spec, list(spec.tasks))
    serial = StagedPool(
        LocalPool(CompletionWorker("local", spec)), {t: LocalPool(RewardWorker("local", spec, t)) for t in spec.tasks}
    )

    def with_threads(threads: int) -> int:
        torch.set_num_threads(threads)
        return drain(serial, wanted)

    with local_ray(num_cpus=3):
        pools = {f"staged, {n} generating": staged(spec, n) for n in (1, 2)}
        for pool in pools.values():
            drain(pool, wanted)  # until all workers have loaded
        sides = {"serial, 1 thread": partial(with_threads, 1), "serial, 2 threads": partial(with_threads, 2)}
        found = timed({**sides, **{name: partial(drain, pool, wanted) for name, pool in pools.items()}}, rounds)
        for pool in pools.values():
            pool.close()
    for name, (seconds, scores) in found.items():
        print(f"{name}: {scores} shards scored in {seconds:.1f} s")
    for name in pools:
        for other in sides:
            print(f"{name} against {other}: {found[other][0] / found[name][0]:.2f} times as fast (aim: 1.3)")


def staged(spec: RunSpec, workers: int) -> StagedPool:
    """Make a pool of generating actors with a thread each, and one actor a reward."""
    generators = RayPool(partial(CompletionWorker, spec=spec), ActorShape(workers))
    scorers = {t: RayPool(partial(RewardWorker, spec=spec, task=t), ActorShape(1, num_cpus=0)) for t in spec.tasks}
    return StagedPool(generators, scorers)


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        overhead(Path(folder), arguments.prompts, arguments.rounds, arguments.batch)
        overlap(Path(folder), arguments.prompts, arguments.rounds, arguments.batch)


if __name__ == "__main__":
    main()
