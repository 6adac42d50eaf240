"""A stretch by trl's PPOTrainer."""

from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from pipeline.train.ppo.data import prompt_ids
from pipeline.train.ppo.reward_model import PromptCollator, RewardModule
from pipeline.train.ppo.segment import Measures, Noting, Stretch

#: Completions that are made and scored at once.
_ROLLOUT = 64


def train(stretch: Stretch) -> None:
    """Make the stretch's updates.

    Raises:
        Stopped: the KL went above its limit.
        ValueError: of the reward, or of a KL that is no number.
    """
    batches = PromptCollator(stretch.tokenizer, stretch.prompts)
    rows = [{"index": i, "input_ids": prompt_ids(stretch.tokenizer, p)} for i, p in enumerate(stretch.prompts)]
    with TemporaryDirectory() as folder:
        config = _config(stretch, folder)
        noting = Noting(stretch, _measures, lambda coef: setattr(config, "kl_coef", coef))
        parts: Any = {  # of kinds that the trainer works with but does not declare
            "model": stretch.policy,
            "reward_model": RewardModule(stretch.scorer, stretch.tokenizer, batches),
            "value_model": stretch.critic,
            "data_collator": batches,
        }
        trainer: Any = PPOTrainer(
            args=config,
            processing_class=stretch.tokenizer,
            ref_model=None,
            train_dataset=Dataset.from_list(rows),
            optimizers=(stretch.optimiser, LambdaLR(stretch.optimiser, lambda _: 1.0)),
            callbacks=[noting],
            **parts,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.accelerator.print = lambda *_: None  # one line, in the middle of the display
        _accumulate(trainer, stretch)
        trainer.train()


def _config(stretch: Stretch, folder: str) -> PPOConfig:
    settings, size = stretch.run.settings, stretch.run.settings.batch_size
    micro = settings.micro_batch_size or size // settings.mini_batches
    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=size // micro,  # of a whole batch, as the trainer counts; see _accumulate
        num_mini_batches=settings.mini_batches,
        num_ppo_epochs=settings.epochs,
        total_episodes=stretch.updates * size,
        local_rollout_forward_batch_size=min(size, _ROLLOUT),
        response_length=stretch.spec.max_new_tokens,
        stop_token="eos",
        missing_eos_penalty=None,  # the scorer's, which knows the raw reward
        temperature=settings.temperature,
        lam=settings.lam,
        kl_coef=stretch.coef,
        learning_rate=settings.lr,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=stretch.spec.precision == "bfloat16",
        use_cpu=stretch.use_cpu,
        seed=stretch.seed,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )


def _accumulate(trainer: Any, stretch: Stretch) -> None:
    """Step once a mini-batch.

    The trainer cuts a batch into gradient_accumulation_steps micro-batches, and its accelerator steps once in as many,
    which is once a batch however many mini-batches there are (counted); and it would step at every micro-batch of the
    last batch of the data.
    """
    settings = stretch.run.settings
    micro = settings.micro_batch_size or settings.batch_size // settings.mini_batches
    trainer.accelerator.gradient_accumulation_steps = settings.batch_size // settings.mini_batches // micro
    trainer.accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False


def _measures(logs: dict[str, float], length: float) -> Measures | None:
    if "objective/kl" not in logs:
        return None
    return Measures(logs["objective/kl"], logs["objective/entropy"] / length)
