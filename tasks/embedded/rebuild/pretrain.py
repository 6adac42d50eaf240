"""Trains the base CLIP on the corpus for a number of samples or minutes."""

import argparse
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tasks.files.atomic import whole_file

from .catalogue import BY_NAME, PRINTED_DIGIT, SEEN
from .records import SIZE, load_split
from .towers import (
    OUT,
    build_model,
    build_tokenizer,
    class_embeddings,
    encode_image,
    jitter,
    normalise,
    visual_parameters,
    write_config,
)
from .training import correct, descend, set_rate, share_spent

WEIGHTS = {
    "mnist": 0.08,
    "fashion": 0.11,
    "letters": 0.13,
    "digits_printed": 0.05,
    "kana": 0.13,
    "greek": 0.12,
    "emoji": 0.11,
    "icons": 0.18,
    "clipart": 0.09,
}
"""Share of each domain among the samples; within a domain, images with a class count twice."""

SINGLE_DOMAIN = 0.5
"""Share of each batch that comes from one domain, which makes its negatives hard."""

INVERTED = frozenset({"letters", "digits_printed", "kana", "greek", "icons"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The corpus in memory; ``images`` is (n, 3, 32, 32) uint8, ``members`` the rows of each domain."""

    images: NDArray[np.uint8]
    rows: list[dict[str, object]]
    members: dict[str, NDArray[np.int64]]
    chances: dict[str, NDArray[np.float64]]

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        """Read ``corpus.parquet``."""
        table = pq.read_table(path)
        raw = b"".join(table["image"].to_pylist())
        images = np.frombuffer(raw, np.uint8).reshape(-1, 3, SIZE, SIZE)
        rows = table.drop_columns(["image"]).to_pylist()
        members = {d: np.array([k for k, r in enumerate(rows) if r["pool"] == d]) for d in WEIGHTS}
        chances = {}
        for domain, index in members.items():
            weight = np.array([2.0 if rows[k]["label"] else 1.0 for k in index])
            chances[domain] = weight / weight.sum()
        return cls(images, rows, members, chances)

    def draw(self, batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the rows of one batch, half of them from a single domain."""
        domains, shares = list(WEIGHTS), np.array(list(WEIGHTS.values()))
        focus = rng.choice(len(domains), p=shares / shares.sum())
        counts = rng.multinomial(batch - int(batch * SINGLE_DOMAIN), shares / shares.sum())
        counts[focus] += int(batch * SINGLE_DOMAIN)
        parts = [rng.choice(self.members[d], n, p=self.chances[d]) for d, n in zip(domains, counts, strict=True) if n]
        return np.concatenate(parts)


def caption(row: Mapping[str, object], rng: random.Random) -> str:
    """Make a caption: mostly the class in one of the task's templates, so that the model learns the prompts."""
    pool, label, name = str(row["pool"]), str(row["label"]), str(row["name"])
    templates = PRINTED_DIGIT if pool == "digits_printed" else BY_NAME[pool].templates
    tags = row["tags"]
    assert isinstance(tags, list)
    template = rng.choice(templates)
    if label == name or (label and rng.random() < 0.7):
        text = template.format(label)
        return f"{text}, {rng.choice(tags)}" if tags and label == name and rng.random() < 0.15 else text
    text = template.format(name)
    if label and rng.random() < 0.5:
        return f"{text}, {label}"
    return f"{text}, {' '.join(rng.sample(tags, min(2, len(tags))))}" if tags and rng.random() < 0.3 else text


def captioned_batch(
    corpus: Corpus, batch: int, rng: np.random.Generator, words: random.Random
) -> tuple[NDArray[np.uint8], list[str], Tensor]:
    """Return images (B, 3, 32, 32), some inverted, the unique captions, and the index of each image's caption (B,)."""
    index = corpus.draw(batch, rng)
    unique: dict[str, int] = {}
    owner = torch.tensor([unique.setdefault(caption(corpus.rows[k], words), len(unique)) for k in index])
    pixels = corpus.images[index]
    flip = np.array([corpus.rows[k]["pool"] in INVERTED for k in index]) & (rng.random(len(index)) < 0.3)
    pixels[flip] = 255 - pixels[flip]
    return pixels, list(unique), owner


def contrastive_loss(images_BE: Tensor, texts_UE: Tensor, owner_B: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's symmetric loss over the unique captions of a batch; a caption may have several images."""
    logits_BU = scale * images_BE @ texts_UE.t()
    to_text = F.cross_entropy(logits_BU, owner_B)
    positive_UB = F.one_hot(owner_B, len(texts_UE)).t().float()
    positive_UB = positive_UB / positive_UB.sum(1, keepdim=True)
    to_image = -(positive_UB * F.log_softmax(logits_BU.t(), 1)).sum(1).mean()
    return (to_text + to_image) / 2


def load_validation() -> dict[str, tuple[Tensor, Tensor]]:
    """Load validation images and labels of the seen tasks."""
    parts = ((spec.name, load_split(spec.name, "val")) for spec in SEEN)
    return {name: (normalise(images), torch.from_numpy(labels)) for name, (images, labels) in parts}


def zero_shot(model: CLIP, tokenizer: SimpleTokenizer, data: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return zero-shot accuracy in percent of every task."""
    encode = partial(encode_image, visual_parameters(model))
    heads = {name: class_embeddings(model, tokenizer, BY_NAME[name]) for name in data}
    return {n: round(100 * correct(encode, x, y, heads[n]).float().mean().item(), 1) for n, (x, y) in data.items()}


def save_base(model: CLIP, path: Path) -> None:
    """Write the whole state in half precision, under open_clip's names."""
    tensors = {k: v.detach().half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})


def optimiser(model: CLIP, rate: float) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def train(model: CLIP, corpus: Corpus, args: argparse.Namespace, on_pause: Callable[[int, float], None]) -> int:
    """Train until ``args.samples`` or ``args.minutes`` are spent; return the number of samples seen."""
    tokenizer, opt = build_tokenizer(), optimiser(model, args.lr)
    rng, words = np.random.default_rng(args.seed), random.Random(args.seed)
    tower = encode_image if args.no_compile else torch.compile(encode_image, dynamic=False)
    params = visual_parameters(model)
    tokens: dict[str, Tensor] = {}
    seen, mean_loss, started, paused = 0, math.nan, time.monotonic(), time.monotonic()
    while (spent := share_spent(seen, started, args)) < 1:
        set_rate(opt, args.lr, min(1, (seen // args.batch + 1) / 100), spent, least=0.02)
        pixels, texts, owner = captioned_batch(corpus, args.batch, rng, words)
        for text in texts:
            if text not in tokens:
                tokens[text] = tokenizer([text])[0]
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.no_compile):
            images_BE = tower(params, jitter(normalise(pixels)))
        texts_UE = model.encode_text(torch.stack([tokens[text] for text in texts]), normalize=True)
        loss = contrastive_loss(images_BE.float(), texts_UE, owner, model.logit_scale.exp())
        descend(opt, loss, model.parameters())
        model.logit_scale.data.clamp_(0, math.log(100))
        seen += args.batch
        mean_loss = loss.item() if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss.item()
        if time.monotonic() - paused > args.pause:
            on_pause(seen, mean_loss)
            paused = time.monotonic()
    return seen


def main() -> None:
    """Write ``base.safetensors``, the configuration and the tokenizer into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=0, help="budget in samples; 0 means by --minutes")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pause", type=float, default=180, help="seconds between snapshots")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="plain float32, without a C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    write_config()
    model, tokenizer, data = build_model(), build_tokenizer(), load_validation()
    started = time.monotonic()

    def snapshot(seen: int, loss: float) -> None:
        scores = zero_shot(model, tokenizer, data)
        mean = sum(scores.values()) / len(scores)
        _log.info("%.0fs %d samples, loss %.3f, mean %.1f %s", time.monotonic() - started, seen, loss, mean, scores)
        save_base(model, args.work / "base.safetensors")

    seen = train(model, Corpus.load(args.work / "corpus.parquet"), args, snapshot)
    snapshot(seen, math.nan)
    save_base(model, OUT / "base.safetensors")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
