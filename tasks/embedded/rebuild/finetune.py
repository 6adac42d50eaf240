"""Fine-tunes the image tower on each task against the base's frozen class embeddings."""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from .catalogue import BY_NAME, TASKS, PackSpec
from .records import load_split
from .towers import (
    OUT,
    build_model,
    build_tokenizer,
    class_embeddings,
    correct,
    encode_image,
    jitter,
    normalise,
    visual_parameters,
    with_prefix,
)

_log = logging.getLogger(__name__)


def load_base(path: Path) -> CLIP:
    """The base model in float32, from its half-precision file."""
    model = build_model()
    state = {k: v.float() for k, v in load_file(path).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"attn_mask"} and not unexpected
    return model.eval()


def accuracy(params: dict[str, Tensor], name: str, split: str, head_KE: Tensor) -> float:
    """Accuracy in percent on one split."""
    images, labels = load_split(name, split)
    return 100 * correct(params, normalise(images), torch.from_numpy(labels), head_KE).float().mean().item()


def fine_tune(model: CLIP, spec: PackSpec, head_KE: Tensor, args: argparse.Namespace) -> dict[str, Tensor]:
    """Trains the image tower in place and returns its parameters."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    params = visual_parameters(model)
    opt = torch.optim.AdamW(params.values(), lr=spec.rate, weight_decay=0.0, fused=True)
    images, labels = load_split(spec.name, "train")
    targets = torch.from_numpy(labels)
    scale = model.logit_scale.exp().item()
    steps_an_epoch = len(labels) // args.batch
    epochs = max(spec.epochs, math.ceil(args.min_steps / steps_an_epoch))
    total = epochs * steps_an_epoch
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        for k in range(steps_an_epoch):
            step = epoch * steps_an_epoch + k
            rate = spec.rate * min(1, (step + 1) / (0.1 * total)) * 0.5 * (1 + math.cos(math.pi * step / total))
            for group in opt.param_groups:
                group["lr"] = rate
            index = order[k * args.batch : (k + 1) * args.batch]
            logits_BK = scale * encode_image(params, jitter(normalise(images[index]))) @ head_KE.t()
            loss = F.cross_entropy(logits_BK, targets[index])
            opt.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
            opt.step()
        _log.info("  %s epoch %d: validation %.1f", spec.name, epoch + 1, accuracy(params, spec.name, "val", head_KE))
    return params


def main() -> None:
    """Writes one ``<task>.safetensors`` a task beside the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=OUT / "base.safetensors")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--tasks", nargs="+", default=[spec.name for spec in TASKS])
    parser.add_argument("--min-steps", type=int, default=600, help="more epochs where the training split is small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    for name in args.tasks:
        started = time.process_time()
        model, spec = load_base(args.base), BY_NAME[name]
        head_KE = class_embeddings(model, tokenizer, spec)
        before = accuracy(visual_parameters(model), name, "val", head_KE)
        params = fine_tune(model, spec, head_KE, args)
        after = accuracy(params, name, "val", head_KE)
        save_file(with_prefix(params), args.out / f"{name}.safetensors", metadata={"format": "pt"})
        seconds = time.process_time() - started
        _log.info("%s: validation %.1f -> %.1f in %.0f CPU s", name, before, after, seconds)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
