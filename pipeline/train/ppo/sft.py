"""Supervised fine-tuning: the base learns to complete prompts as their references do, by trl's SFTTrainer.

Training is cut into segments of `checkpoint_every` steps. A segment depends only on the weights, AdamW's moments and
(seed, number of its first step), so a run that was killed ends with the bits of an undisturbed one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from pipeline.records.tables import write
from pipeline.train.job import TrainingStatus
from pipeline.train.model_folder import (
    LOG,
    State,
    finish,
    load_state,
    optimiser_tensors,
    restore,
    restore_weights,
    save_state,
)
from pipeline.train.ppo.data import context, load_data, prompt_ids, rows
from pipeline.train.ppo.jobs import PpoJob
from pipeline.train.ppo.models import (
    load_plain,
    model_fingerprint,
    one_device,
    seed_everything,
    small_seed,
    trained,
    with_factors,
)
from pipeline.train.ppo.quiet import quiet
from pipeline.train.ppo.spec import Sft
from pipeline.versions import exact_versions
from tasks.language.base import Prompt
from tasks.language.models import load_tokenizer, model_folder, save_model

#: One row for each step.
SFT_LOG = pa.schema(
    [
        pa.field("step", pa.int64(), False),  # updates done
        pa.field("loss", pa.float64(), False),  # mean over the batch's reference tokens, before the update
        pa.field("lr", pa.float64(), False),
        pa.field("grad_norm", pa.float64(), False),  # before clipping at 1
    ]
)


def train_sft(job: PpoJob, report: Callable[[TrainingStatus], None]) -> None:
    """Train the SFT model, from its last checkpoint if it has one.

    Raises:
        ValueError: if this machine has another base or other prompts than the one that prepared, a pair is longer than
            the model takes, or the loss became NaN or infinite.
    """
    torch.set_num_threads(max(1, int(job.spec.resources.per_worker.num_cpus)))
    job.folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        training = _SftState(job)
        training.work(report)
        training.finish()


class _SftState:
    """The model in memory, its data and its progress."""

    def __init__(self, job: PpoJob) -> None:
        assert job.spec.sft is not None
        self._job, self._sft = job, job.spec.sft
        self._tokenizer = load_tokenizer(job.spec.base)
        dtype = getattr(torch, job.spec.precision) if self._sft.lora else torch.float32
        model = load_plain(job.spec.base, self._tokenizer, dtype)
        self._data = load_data(job.spec, self._tokenizer, model.config)
        if (model_fingerprint(job.spec.base), self._data.train_fingerprint) != (
            job.identity["base"],
            job.identity["prompts"],
        ):
            raise ValueError(
                f"{job.name}: this machine has another base or other prompts than the one that prepared the training"
            )
        _check_lengths(self._tokenizer, self._data.train, context(self._tokenizer, model.config))
        self._model = _learning(model, self._sft, model_folder(job.spec.base)).to(job.device_type)
        self._state = load_state(job.folder) if job.condition() == "started" else State()
        if self._state.step:
            restore_weights(trained(self._model), self._state)  # there may be no segment left that would restore them
        self._started = time.perf_counter()

    def work(self, report: Callable[[TrainingStatus], None]) -> None:
        """Train every segment that is left."""
        while self._state.step < self._job.total:
            last = min(self._state.step + self._sft.checkpoint_every, self._job.total)
            self._segment(last, report)
            self._save()

    def _segment(self, last: int, report: Callable[[TrainingStatus], None]) -> None:
        """Train up to step `last`."""
        first, sft = self._state.step, self._sft
        parameters = trained(self._model)
        optimiser = torch.optim.AdamW(parameters.values(), lr=sft.lr, weight_decay=0.0)
        if first:
            restore(optimiser, parameters, self._state)
        schedule = LambdaLR(optimiser, lambda step: rate(first + step, self._job.total, sft.warm_up))
        chosen = rows(len(self._data.train), first * sft.batch_size, last * sft.batch_size, sft.seed)
        examples = [example(self._tokenizer, self._data.train[i]) for i in chosen]
        seed_everything("sft", sft.seed, first)
        with TemporaryDirectory() as folder:
            trainer = SFTTrainer(
                model=self._model,
                args=self._config(folder, first, last),
                train_dataset=Dataset.from_list(examples),
                processing_class=self._tokenizer,
                optimizers=(optimiser, schedule),
                callbacks=[_Log(self._job, self._state, first, report)],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        tensors = optimiser_tensors(optimiser, parameters)
        self._state = replace(self._state, step=last, tensors=tensors)

    def _config(self, folder: str, first: int, last: int) -> SFTConfig:
        config = SFTConfig(
            output_dir=folder,
            max_steps=last - first,
            per_device_train_batch_size=self._sft.batch_size,
            max_grad_norm=1.0,
            loss_type="nll",
            max_length=None,
            gradient_checkpointing=False,
            bf16=self._job.spec.precision == "bfloat16",
            use_cpu=self._job.device_type == "cpu",
            seed=small_seed("sft", self._sft.seed, first),
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        return one_device(config)

    def _save(self) -> None:
        write(self._job.folder / LOG, self._state.log, SFT_LOG)
        save_state(self._job.folder, self._job.identity, replace(self._state, seconds=self._seconds()))

    def _seconds(self) -> float:
        return self._state.seconds + time.perf_counter() - self._started

    def finish(self) -> None:
        """Write the whole model, its tokenizer and the result."""
        job, seconds = self._job, self._seconds()
        count = sum(p.numel() for p in trained(self._model).values())
        model: Any = self._model.merge_and_unload() if self._sft.lora else self._model
        save_model(model.to(getattr(torch, job.spec.precision)), job.folder)
        self._tokenizer.save_pretrained(job.folder)
        log = self._state.log
        result = {
            "name": job.name,
            "identity": job.identity,
            "steps": job.total,
            "loss_first": log[0]["loss"],
            "loss": log[-1]["loss"],
            "train_prompts": len(self._data.train),
            "trained_parameters": count,
            "seconds": round(seconds, 2),
            "device": job.device_type,
            "versions": exact_versions("trl"),
        }
        finish(job.folder, result)


def _learning(model: PreTrainedModel, sft: Sft, base: Any) -> Any:
    """Return the model with its trained parameters set."""
    if sft.lora is None:
        return model.requires_grad_()
    return with_factors(model, sft.lora, base, sft.seed)


def example(tokenizer: Any, prompt: Prompt) -> dict[str, list[int]]:
    """Return one pair as tokens: prompt, space, reference, end-of-sequence token; the last three are learned.

    The tokens that are learned are those that follow the prompt's own tokens, as in generation: tokenized alone, the
    reference would begin with one more space in LLaMA's tokenizer.
    """
    before = prompt_ids(tokenizer, prompt)
    answer = ("" if prompt.text[-1].isspace() else " ") + prompt.reference
    whole = tokenizer(prompt.text + answer)["input_ids"]
    crosses = whole[: len(before)] != before  # a token crosses the end of the prompt
    after = tokenizer(answer, add_special_tokens=False)["input_ids"] if crosses else whole[len(before) :]
    after = [*after, tokenizer.eos_token_id]
    return {"input_ids": before + after, "labels": [-100] * len(before) + after}


def _check_lengths(tokenizer: Any, prompts: Sequence[Prompt], most: int) -> None:
    """Check that every pair fits into the model.

    Raises:
        ValueError: if one does not.
    """
    for prompt in prompts:
        length = len(example(tokenizer, prompt)["input_ids"])
        if length > most:
            raise ValueError(
                f"prompts: {prompt.text[:60]!r} of train with its reference has {length} tokens, and the model takes "
                f"{most}: leave the row out, or set prompts.max_source_tokens"
            )


def rate(step: int, total: int, warm_up: float) -> float:
    """Return the factor of the peak rate: a linear rise over the share `warm_up` of all steps, then a fall to 0."""
    rising = warm_up * total
    return (step + 1) / (rising + 1) if step < rising else (total - step) / max(1.0, total - rising)


class _Log(TrainerCallback):
    """Take what the trainer logs after each step."""

    def __init__(self, job: PpoJob, state: State, first: int, report: Callable[[TrainingStatus], None]) -> None:
        self._job, self._state, self._first, self._report = job, state, first, report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step, loss = self._first + state.global_step, float(logs["loss"])
        norm = float(logs["grad_norm"])
        if not (torch.isfinite(torch.tensor([loss, norm])).all()):
            raise ValueError(
                f"{self._job.name}: the loss is {loss:g} and its gradient's norm {norm:g} at step {step} of "
                f"{self._job.total}: lower sft.lr or raise sft.warm_up, and give another --out or delete "
                f"{self._job.folder}"
            )
        self._state.log.append({"step": step, "loss": loss, "lr": float(logs["learning_rate"]), "grad_norm": norm})
        self._report(TrainingStatus(step, self._job.total, f"loss {loss:.3f}"))
