"""Shared steps of pre-training, distillation and fine-tuning."""

import argparse
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from .records import load_split
from .towers import jitter, normalise

Encoder = Callable[[Tensor], Tensor]
"""Input images (B, 3, 32, 32) -> unit embeddings (B, E)."""

_BATCH = 512
_log = logging.getLogger(__name__)


def accuracy(encode: Encoder, name: str, split: str, head_KE: Tensor) -> float:
    """Return the accuracy in percent on one split of a pack."""
    images, labels = load_split(name, split)
    return 100 * correct(encode, normalise(images), torch.from_numpy(labels), head_KE).float().mean().item()


@torch.inference_mode()
def correct(encode: Encoder, images: Tensor, labels: Tensor, head_KE: Tensor) -> Tensor:
    """Return whether each image's nearest class is its label, as a bool tensor (n,)."""
    parts = [encode(images[i : i + _BATCH]) @ head_KE.t() for i in range(0, len(labels), _BATCH)]
    return torch.cat(parts).argmax(1) == labels


def share_spent(seen: int, started: float, args: argparse.Namespace) -> float:
    """Return the share of the budget spent: of ``args.samples`` if given, else of ``args.minutes``."""
    if args.samples:
        return seen / float(args.samples)
    return (time.monotonic() - started) / (60 * float(args.minutes))


def set_rate(opt: torch.optim.Optimizer, peak: float, warm: float, spent: float, least: float = 0.0) -> None:
    """Set the rate to a warm-up times half a cosine from the peak to ``least`` times the peak."""
    for group in opt.param_groups:
        group["lr"] = peak * warm * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * spent)))


def descend(opt: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor]) -> None:
    """Take one step, with the gradient's norm cut at 1."""
    opt.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    opt.step()


@dataclass(frozen=True, slots=True)
class ExpertTuning:
    """The fine-tuning of one expert.

    Attributes:
        task: the pack whose train split is used.
        head_KE: the task's frozen class embeddings.
        scale: of the logits.
        batches: rows of each step's images.
        rate: peak learning rate, after 10 % warm-up.
    """

    task: str
    head_KE: Tensor
    scale: float
    batches: Sequence[NDArray[np.int64]]
    rate: float


def fine_tune(tower: Mapping[str, Tensor], encode: Encoder, how: ExpertTuning) -> None:
    """Train the tower's parameters in place against the frozen head, in float32."""
    opt = torch.optim.AdamW(tower.values(), lr=how.rate, weight_decay=0.0, fused=True)
    images, labels = load_split(how.task, "train")
    targets, steps = torch.from_numpy(labels), len(how.batches)
    for step, rows in enumerate(how.batches):
        set_rate(opt, how.rate, min(1, (step + 1) / (0.1 * steps)), step / steps)
        logits_BK = how.scale * encode(jitter(normalise(images[rows]))) @ how.head_KE.t()
        descend(opt, F.cross_entropy(logits_BK, targets[rows]), tower.values())


def write_expert(path: Path, tower: Mapping[str, Tensor], encode: Encoder, how: ExpertTuning) -> None:
    """Fine-tune the tower and write it in half precision, under open_clip's names (``visual.``...)."""
    started = time.process_time()
    before = accuracy(encode, how.task, "val", how.head_KE)
    fine_tune(tower, encode, how)
    after = accuracy(encode, how.task, "val", how.head_KE)
    tensors = {f"visual.{name}": tensor.detach().half().contiguous() for name, tensor in tower.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    seconds = time.process_time() - started
    _log.info("%s: validation %.1f -> %.1f in %.0f CPU s", how.task, before, after, seconds)
