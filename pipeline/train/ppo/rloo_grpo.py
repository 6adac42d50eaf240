"""Train a segment by RLOO or GRPO with trl's trainers: completions of a prompt are compared; there is no critic."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from pipeline.train.ppo.models import one_device
from pipeline.train.ppo.reward_model import completion
from pipeline.train.ppo.segment import Measures, Segment, UpdateLogger

_TRAINERS: dict[str, tuple[Any, Any]] = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}


def train(segment: Segment) -> None:
    """Make the segment's updates.

    Raises:
        Stopped: if the KL is above its limit.
        ValueError: if the reward fails, or the KL is not finite.
    """
    kind, trainer_kind = _TRAINERS[segment.run.algorithm]

    def reward(completion_ids: Sequence[Sequence[int]], index: Sequence[int], **_: Any) -> list[float]:
        pairs = zip(completion_ids, index, strict=True)
        return segment.scorer([completion(segment.tokenizer, segment.prompts[i], list(ids)) for ids, i in pairs])

    with TemporaryDirectory() as folder:
        logger = UpdateLogger(segment, _measures, lambda coef: setattr(trainer, "beta", coef))
        trainer = trainer_kind(
            model=segment.policy,
            reward_funcs=reward,
            args=_config(kind, segment, folder),
            train_dataset=Dataset.from_list([{"prompt": p.text, "index": i} for i, p in enumerate(segment.prompts)]),
            processing_class=segment.tokenizer,
            optimizers=(segment.optimiser, LambdaLR(segment.optimiser, lambda _: 1.0)),
            callbacks=[logger],
        )
        # The trainer copied the current factors as its reference; without the copy, the SFT model is the reference.
        segment.policy.delete_adapter("ref")
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _config(kind: Any, segment: Segment, folder: str) -> Any:
    settings = segment.run.settings
    mini = settings.batch_size // settings.mini_batches
    micro = settings.micro_batch_size or mini
    config = kind(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=mini // micro,
        steps_per_generation=settings.batch_size // micro,
        num_generations=settings.samples_per_prompt,
        num_iterations=settings.epochs,
        max_steps=segment.updates * settings.steps,
        max_completion_length=segment.spec.max_new_tokens,
        temperature=settings.temperature,
        beta=segment.coef,
        learning_rate=settings.lr,
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=segment.spec.precision == "bfloat16",
        use_cpu=segment.use_cpu,
        seed=segment.seed,
        report_to="none",
        save_strategy="no",
        logging_steps=settings.steps,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return one_device(config)


def _measures(logs: dict[str, float], length: float) -> Measures | None:
    if "kl" not in logs:
        return None
    return Measures(float(logs["kl"]) * length, float(logs["entropy"]))
