"""A stretch by trl's RLOOTrainer or GRPOTrainer: several completions of each prompt against each other, no critic."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from pipeline.train.ppo.models import one_device
from pipeline.train.ppo.reward_model import completion
from pipeline.train.ppo.segment import Measures, Noting, Stretch

_TRAINERS: dict[str, tuple[Any, Any]] = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}


def train(stretch: Stretch) -> None:
    """Make the stretch's updates.

    Raises:
        Stopped: the KL went above its limit.
        ValueError: of the reward, or of a KL that is no number.
    """
    kind, trainer_kind = _TRAINERS[stretch.run.algorithm]

    def reward(completion_ids: Sequence[Sequence[int]], index: Sequence[int], **_: Any) -> list[float]:
        pairs = zip(completion_ids, index, strict=True)
        return stretch.scorer([completion(stretch.tokenizer, stretch.prompts[i], list(ids)) for ids, i in pairs])

    with TemporaryDirectory() as folder:
        noting = Noting(stretch, _measures, lambda coef: setattr(trainer, "beta", coef))
        trainer = trainer_kind(
            model=stretch.policy,
            reward_funcs=reward,
            args=_config(kind, stretch, folder),
            train_dataset=Dataset.from_list([{"prompt": p.text, "index": i} for i, p in enumerate(stretch.prompts)]),
            processing_class=stretch.tokenizer,
            optimizers=(stretch.optimiser, LambdaLR(stretch.optimiser, lambda _: 1.0)),
            callbacks=[noting],
        )
        # It took the factors as they are for the reference; without its copy, the SFT model is.
        stretch.policy.delete_adapter("ref")
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _config(kind: Any, stretch: Stretch, folder: str) -> Any:
    settings = stretch.run.settings
    mini = settings.batch_size // settings.mini_batches
    micro = settings.micro_batch_size or mini
    config = kind(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=mini // micro,
        steps_per_generation=settings.batch_size // micro,
        num_generations=settings.samples_per_prompt,
        num_iterations=settings.epochs,
        max_steps=stretch.updates * settings.steps,
        max_completion_length=stretch.spec.max_new_tokens,
        temperature=settings.temperature,
        beta=stretch.coef,
        learning_rate=settings.lr,
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=stretch.spec.precision == "bfloat16",
        use_cpu=stretch.use_cpu,
        seed=stretch.seed,
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
