"""Train a segment by PPO, with trl's PPOTrainer."""

from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from pipeline.train.ppo.data import prompt_ids
from pipeline.train.ppo.reward_model import PromptCollator, RewardModule
from pipeline.train.ppo.segment import Measures, Segment, UpdateLogger

#: Completions that are sampled and scored at once.
_ROLLOUT = 64


def train(segment: Segment) -> None:
    """Make the segment's updates.

    Raises:
        Stopped: if the KL is above its limit.
        ValueError: if the reward fails, or the KL is not finite.
    """
    batches = PromptCollator(segment.tokenizer, segment.prompts)
    rows = [{"index": i, "input_ids": prompt_ids(segment.tokenizer, p)} for i, p in enumerate(segment.prompts)]
    with TemporaryDirectory() as folder:
        config = _config(segment, folder)
        logger = UpdateLogger(segment, _measures, lambda coef: setattr(config, "kl_coef", coef))
        parts: Any = {  # types that the trainer accepts but does not declare
            "model": segment.policy,
            "reward_model": RewardModule(segment.scorer, segment.tokenizer, batches),
            "value_model": segment.critic,
            "data_collator": batches,
        }
        trainer: Any = PPOTrainer(
            args=config,
            processing_class=segment.tokenizer,
            ref_model=None,
            train_dataset=Dataset.from_list(rows),
            optimizers=(segment.optimiser, LambdaLR(segment.optimiser, lambda _: 1.0)),
            callbacks=[logger],
            **parts,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.accelerator.print = lambda *_: None  # it prints a line into the display
        _accumulate(trainer, segment)
        trainer.train()


def _config(segment: Segment, folder: str) -> PPOConfig:
    settings, size = segment.run.settings, segment.run.settings.batch_size
    micro = settings.micro_batch_size or size // settings.mini_batches
    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=size // micro,  # of a whole batch, as the trainer counts; see _accumulate
        num_mini_batches=settings.mini_batches,
        num_ppo_epochs=settings.epochs,
        total_episodes=segment.updates * size,
        local_rollout_forward_batch_size=min(size, _ROLLOUT),
        response_length=segment.spec.max_new_tokens,
        stop_token="eos",
        missing_eos_penalty=None,  # the scorer subtracts it, as it knows the raw reward
        temperature=settings.temperature,
        lam=settings.lam,
        kl_coef=segment.coef,
        learning_rate=settings.lr,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=segment.spec.precision == "bfloat16",
        use_cpu=segment.use_cpu,
        seed=segment.seed,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )


def _accumulate(trainer: Any, segment: Segment) -> None:
    """Make the optimiser step once a mini-batch.

    The trainer cuts a batch into gradient_accumulation_steps micro-batches, and its accelerator steps once in that
    many: once a batch, whatever the number of mini-batches (counted), but at every micro-batch of the last batch.
    """
    settings = segment.run.settings
    micro = settings.micro_batch_size or settings.batch_size // settings.mini_batches
    trainer.accelerator.gradient_accumulation_steps = settings.batch_size // settings.mini_batches // micro
    trainer.accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False


def _measures(logs: dict[str, float], length: float) -> Measures | None:
    if "objective/kl" not in logs:
        return None
    return Measures(logs["objective/kl"], logs["objective/entropy"] / length)
