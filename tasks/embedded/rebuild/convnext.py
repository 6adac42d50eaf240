"""Distils the base's image tower into a ConvNeXt, and fine-tunes that on a few tasks.

The student matches the frozen ViT as a function (Beyer et al. 2022, arXiv 2106.05237): both see the same heavily
augmented image, and no label is used. Images are the train splits of the tasks that the base has seen.
"""

import argparse
import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.vision.clip.architectures import create

from .catalogue import SEEN, TASKS
from .pretrain import optimiser, save_base
from .records import load_split
from .towers import (
    CONFIG,
    OUT,
    build_tokenizer,
    class_embeddings,
    encode_image,
    jitter,
    load_base,
    normalise,
    visual_parameters,
)
from .training import ExpertTuning, accuracy, descend, set_rate, share_spent, write_expert

NAME = "tiny-convnext"
TRUNK: dict[str, Any] = {
    "architecture": "convnext_tiny",
    "pretrained_cfg": {"input_size": [3, 32, 32], "pool_size": [2, 2]},
    "model_args": {"depths": [1, 2, 4, 2], "dims": [32, 64, 112, 144], "patch_size": 2, "ls_init_value": 0.1},
}
"""timm's ConvNeXt for 32 x 32 images: a stem of patches of 2, and stages at 16, 8, 4 and 2 pixels."""

VISION: dict[str, Any] = {
    "image_size": 32,
    "timm_model_name": f"local-dir:{NAME}",
    "timm_pool": "avg",
    "timm_proj": "linear",
}
EXPERTS = {"fashion": 3e-4, "emoji": 3e-4, "icons": 3e-4, "katakana": 1e-3}
"""Task -> peak learning rate."""

COSINE_WEIGHT = 5.0
"""Weight of 1 - cosine; the other term, the divergence of the class distributions, starts about five times as large."""

_log = logging.getLogger(__name__)


def write_config() -> None:
    """Write ``tiny-convnext.json`` and the folder with timm's ``config.json``."""
    (OUT / NAME).mkdir(parents=True, exist_ok=True)
    (OUT / NAME / "config.json").write_text(json.dumps(TRUNK, indent=2) + "\n")
    (OUT / f"{NAME}.json").write_text(json.dumps(CONFIG | {"vision_cfg": VISION}, indent=2) + "\n")


def student(text_of: CLIP) -> CLIP:
    """Return an untrained ConvNeXt tower with the text tower and logit scale of another CLIP."""
    model: CLIP = create(f"embedded/{NAME}", {}).model
    text = {n: t for n, t in text_of.state_dict().items() if not n.startswith("visual.")}
    missing, unexpected = model.load_state_dict(text, strict=False)
    assert all(n.startswith("visual.") for n in missing) and not unexpected
    model.visual.to(memory_format=torch.channels_last)
    return model.requires_grad_(False)


def embed(tower: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return unit image embeddings (B, E), float32."""
    features: Tensor = tower(images_BCHW.contiguous(memory_format=torch.channels_last))
    return F.normalize(features.float(), dim=-1)


def augment(pixels: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Return input images (B, 3, 32, 32), all turned, scaled and moved twice, some inverted, recoloured and mixed."""
    batch = len(pixels)
    invert, recolour, blend = rng.random((3, batch)) < np.array([[0.3], [0.3], [0.5]])
    images = jitter(jitter(normalise(pixels)))
    images[invert] *= -1
    images[recolour] = images[recolour][:, rng.permutation(3)]
    share_B = torch.from_numpy(np.where(blend, rng.beta(1, 1, batch), 1)).float().view(-1, 1, 1, 1)
    return share_B * images + (1 - share_B) * images.roll(1, 0)


def distillation_loss(student_BE: Tensor, teacher_BE: Tensor, heads_KE: Tensor, scale: float) -> Tensor:
    """Return KL of the distributions over all classes of all tasks, plus the cosine distance of the embeddings."""
    wanted, found = (F.log_softmax(scale * e @ heads_KE.t(), -1) for e in (teacher_BE, student_BE))
    divergence = F.kl_div(found, wanted, log_target=True, reduction="batchmean")
    return divergence + COSINE_WEIGHT * (1 - (student_BE * teacher_BE).sum(-1)).mean()


def distil(model: CLIP, teacher: CLIP, heads: dict[str, Tensor], args: argparse.Namespace) -> int:
    """Train the tower in place until ``args.samples`` or ``args.minutes`` are spent; return the samples seen."""
    rng, started, paused = np.random.default_rng(args.seed), time.monotonic(), time.monotonic()
    tower, frozen = model.visual.train().requires_grad_(True), visual_parameters(teacher)
    opt = optimiser(tower, args.lr)
    pools = [load_split(spec.name, "train")[0] for spec in SEEN]
    heads_KE, scale = torch.cat([heads[spec.name] for spec in SEEN]), teacher.logit_scale.exp().item()
    seen = 0
    while (spent := share_spent(seen, started, args)) < 1:
        set_rate(opt, args.lr, min(1, (seen / args.batch + 1) / 200), spent)
        images = augment(np.concatenate([p[rng.integers(len(p), size=args.batch // len(pools))] for p in pools]), rng)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                teacher_BE = encode_image(frozen, images).float()
            student_BE = embed(tower, images)
        loss = distillation_loss(student_BE, teacher_BE, heads_KE, scale)
        descend(opt, loss, tower.parameters())
        seen += len(images)
        if time.monotonic() - paused > args.pause:
            report(f"{seen} samples, {time.monotonic() - started:.0f} s, loss {loss:.3f}", model, heads)
            save_base(model, args.work / "convnext.safetensors")
            paused = time.monotonic()
    return seen


def report(what: str, model: CLIP, heads: dict[str, Tensor]) -> None:
    """Log zero-shot accuracy on every task's validation split."""
    tower = model.visual.eval()
    scores = {name: round(accuracy(partial(embed, tower), name, "val", head), 1) for name, head in heads.items()}
    seen = sum(scores[spec.name] for spec in SEEN) / len(SEEN)
    _log.info("%s: mean of the seen %.1f, %s", what, seen, scores)
    tower.train()


def make_experts(args: argparse.Namespace, heads: dict[str, Tensor]) -> None:
    """Write ``convnext-<task>.safetensors``, each from the base's half-precision file."""
    for name, rate in EXPERTS.items():
        model = load_convnext(OUT / "convnext.safetensors")
        tower = model.visual.requires_grad_(True)
        torch.manual_seed(args.seed)
        rng, count = np.random.default_rng(args.seed), len(load_split(name, "train")[1])
        order = np.concatenate([rng.permutation(count) for _ in range(args.steps * 64 // count + 1)])[: args.steps * 64]
        batches = np.split(order, args.steps)
        how = ExpertTuning(name, heads[name], model.logit_scale.exp().item(), batches, rate)
        write_expert(OUT / f"convnext-{name}.safetensors", dict(tower.named_parameters()), partial(embed, tower), how)


def load_convnext(path: Path) -> CLIP:
    """Load the distilled model in float32, from its half-precision file."""
    model: CLIP = create(f"embedded/{NAME}", {}).model
    model.load_state_dict({n: t.float() for n, t in load_file(path).items()})
    return model.eval().requires_grad_(False)


def main() -> None:
    """Write the configuration, ``convnext.safetensors`` and one ``convnext-<task>.safetensors`` an expert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=0, help="budget in samples; 0 means by --minutes")
    parser.add_argument("--minutes", type=float, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--pause", type=float, default=180, help="seconds between snapshots")
    parser.add_argument("--steps", type=int, default=300, help="of each expert, 64 images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experts-only", action="store_true", help="from the existing convnext.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    teacher, tokenizer = load_base(OUT / "base.safetensors"), build_tokenizer()
    heads = {spec.name: class_embeddings(teacher, tokenizer, spec) for spec in TASKS}
    if not args.experts_only:
        write_config()
        model = student(teacher)
        seen = distil(model, teacher, heads, args)
        report(f"{seen} samples", model, heads)
        save_base(model, OUT / "convnext.safetensors")
    make_experts(args, heads)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
