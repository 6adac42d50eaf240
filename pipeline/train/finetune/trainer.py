"""Fine-tune one model on one task by AdamW.

A step depends only on the weights, the optimiser's moments and (seed, step): the order of samples and every random
number follow from the latter two. So a checkpoint needs no generator's state, and a run that was killed ends with the
bits of an undisturbed one (on the CPU with as many threads; GPUs do not always add in the same order).
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.train.finetune.batches import EpochBatches
from pipeline.train.finetune.learners import ImageLearner, Learner, TextLearner
from pipeline.train.finetune.preparation import FinetuneJob, identify, load_base, load_training_task
from pipeline.train.finetune.rates import rate_at
from pipeline.train.finetune.selection import tuning_of
from pipeline.train.finetune.tuning import Tuning
from pipeline.train.job import TrainingStatus
from pipeline.train.model_folder import (
    State,
    finish,
    load_state,
    optimiser_tensors,
    restore,
    save_state,
    write_log,
)
from pipeline.train.seeds import seed_of
from pipeline.versions import exact_versions
from tasks.base import Backbone
from tasks.batch_norm import freeze
from tasks.vision.classification import ZeroShotClassification

#: Limit of the gradient's norm, as in the authors' code.
_MAX_NORM = 1.0
#: Validation samples a call; sums are added over the calls.
_SHARD = 512


class NonFiniteTraining(ValueError):
    """Loss or gradients became NaN or infinite."""


def finetune(job: FinetuneJob, report: Callable[[TrainingStatus], None]) -> None:
    """Train one model to its end, from its last checkpoint if it has one.

    Args:
        job: the model.
        report: called after each step.

    Raises:
        NonFiniteTraining: if the loss or its gradient became NaN or infinite; the last checkpoint is kept.
        ValueError: if this machine sees other checkpoints or data than the one that prepared, or cannot write.
    """
    torch.set_num_threads(max(1, int(job.spec.resources.per_worker.num_cpus)))
    job.folder.mkdir(parents=True, exist_ok=True)
    training = _FinetuneState(job)
    training.work(report)
    training.finish()


class _FinetuneState:
    """One model in memory: its data, optimiser and progress."""

    def __init__(self, job: FinetuneJob) -> None:
        self._job, self._settings = job, job.run.settings
        model = load_base(job.spec, torch.device(job.device_type))
        self._backbone: Backbone = model.backbone
        self._task = load_training_task(job.spec, job.run.task, model.backbone, job.run.head_seed)
        if identify(job.spec, job.run, model, self._task) != job.identity:
            raise ValueError(
                f"{job.run.name}: this machine has other checkpoints or data than the one that prepared the training"
            )
        self._learner, classifier = self._learned()
        self._batches = EpochBatches(self._task.num_samples("train"), self._settings, self._learner.lengths)
        self._tuning = tuning_of(model.backbone, job.run, job.spec.base, classifier)
        self._optimiser = _optimiser(self._tuning, self._settings.weight_decay)
        self._state = load_state(job.folder) if job.condition() == "started" else State()
        if self._state.step:
            restore(self._optimiser, self._tuning.trained, self._state)
        self._started = time.perf_counter()

    def _learned(self) -> tuple[Learner, torch.nn.Module | None]:
        """Return the loss of the training samples, and the classifier whose head is trained, if there is one."""
        if isinstance(self._task, ZeroShotClassification):
            return ImageLearner(self._backbone, self._task, self._settings, self._autocast), None
        assert self._task.training is not None
        samples = self._task.training
        return TextLearner(self._backbone, samples, self._settings, self._autocast), samples.classifier

    def work(self, report: Callable[[TrainingStatus], None]) -> None:
        """Do every step that is left."""
        if not self._state.log:
            self._log(loss=None, lr=None, grad_norm=None, val_accuracy=self._accuracy())
        self._train_mode()
        while self._state.step < self._job.total:
            loss = self._step()
            report(TrainingStatus(self._state.step, self._job.total, f"loss {loss:.3f}"))
            if self._state.step % self._job.spec.checkpoint_every == 0 and self._state.step < self._job.total:
                self._state.log[-1]["val_accuracy"] = self._accuracy()
                self._save()

    def _step(self) -> float:
        """Make one update; return the loss before it."""
        step, settings = self._state.step, self._settings
        rate = settings.lr * rate_at(step, self._job.total, settings.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self._optimiser.zero_grad()
        loss = self._backward(step)
        norm = torch.nn.utils.clip_grad_norm_(self._tuning.trained.values(), _MAX_NORM)
        if not (math.isfinite(loss) and bool(norm.isfinite())):
            self._stop(rate, loss, float(norm))
        self._optimiser.step()
        self._state.step += 1
        self._log(loss=loss, lr=rate, grad_norm=float(norm), val_accuracy=None)
        return loss

    def _backward(self, step: int) -> float:
        """Add the gradients of a batch, and return its loss."""
        torch.manual_seed(seed_of("model", self._settings.seed, step))  # for modules that drop paths or units
        total = torch.zeros(())
        for rows, share in self._learner.parts(self._batches.rows(step)):
            loss = share * self._learner.loss(rows, self._tuning.weights(), step)
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        return float(total)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._job.spec.backbone.precision == "float32":
            return nullcontext()
        return torch.autocast(self._job.device_type, torch.bfloat16)

    def _train_mode(self) -> None:
        """Put the module into training, without the statistics of batch normalisation, which stay the base's."""
        self._learner.module.train()
        freeze(self._learner.module)

    def _accuracy(self) -> float:
        """Return the accuracy of the current weights on validation."""
        self._tuning.settle()
        self._learner.module.eval()
        count = self._task.num_samples("val")
        starts = range(0, count, _SHARD)
        results = [self._task.evaluate(self._backbone, "val", s, min(s + _SHARD, count)) for s in starts]
        self._train_mode()
        return sum(r.stats.total for r in results) / count

    def _log(self, **values: float | None) -> None:
        self._state.log.append({"step": self._state.step, **values})

    def _save(self) -> None:
        tensors = optimiser_tensors(self._optimiser, self._tuning.trained)
        save_state(self._job.folder, self._job.identity, replace(self._state, seconds=self._seconds(), tensors=tensors))
        write_log(self._job.folder, self._state)

    def _seconds(self) -> float:
        """Return the duration of this attempt and of earlier ones up to their last checkpoints."""
        return self._state.seconds + time.perf_counter() - self._started

    def _stop(self, rate: float, loss: float, norm: float) -> None:
        write_log(self._job.folder, self._state)
        raise NonFiniteTraining(
            f"{self._job.run.name}: the loss is {loss:g} and its gradient's norm {norm:g} at step "
            f"{self._state.step + 1} of {self._job.total}, at a rate of {rate:.3g}: lower training.lr or raise "
            f"training.warm_up, and give another --out or delete {self._job.folder}, whose log.parquet has the losses"
        )

    def finish(self) -> None:
        """Write weights, log and result."""
        job, dtype = self._job, getattr(torch, self._job.spec.save_dtype)
        seconds = self._seconds()
        self._save()  # if killed from here on, the folder is still recognised, and no step is repeated
        self._tuning.write(job.folder, dtype)
        accuracy = self._accuracy()
        self._state.log[-1]["val_accuracy"] = accuracy
        write_log(job.folder, self._state)
        result = {
            "name": job.run.name,
            "task": job.run.task,
            "identity": job.identity,
            "steps": self._job.total,
            "val_accuracy": accuracy,
            "base_val_accuracy": self._state.log[0]["val_accuracy"],
            "val_samples": self._task.num_samples("val"),
            "train_samples": self._task.num_samples("train"),
            "trained_parameters": sum(p.numel() for p in self._tuning.trained.values()),
            "seconds": round(seconds, 2),
            "device": job.device_type,
            "versions": exact_versions(),
        }
        finish(job.folder, result)


def _optimiser(tuning: Tuning, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with one group for each factor of the rate."""
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in tuning.trained.items():
        groups.setdefault(tuning.factors[name], []).append(parameter)
    by_factor = [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]
    return torch.optim.AdamW(by_factor, lr=0.0, weight_decay=weight_decay, fused=True)
