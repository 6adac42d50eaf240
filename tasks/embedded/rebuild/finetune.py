"""Fine-tunes the image tower on each task against the base's frozen class embeddings."""

import argparse
import logging
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .catalogue import BY_NAME, TASKS, PackSpec
from .records import load_split
from .towers import OUT, build_tokenizer, class_embeddings, encode_image, load_base, visual_parameters
from .training import ExpertTuning, write_expert


def epochs_of(spec: PackSpec, args: argparse.Namespace) -> list[NDArray[np.int64]]:
    """Rows of every batch: whole epochs, more of them if the training split is small."""
    rng = np.random.default_rng(args.seed)
    count = len(load_split(spec.name, "train")[1])
    steps = count // args.batch
    epochs = max(spec.epochs, math.ceil(args.min_steps / steps))
    orders = [rng.permutation(count)[: steps * args.batch] for _ in range(epochs)]
    return [rows for order in orders for rows in np.split(order, steps)]


def main() -> None:
    """Write ``<task>.safetensors`` for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=OUT / "base.safetensors")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--tasks", nargs="+", default=[spec.name for spec in TASKS])
    parser.add_argument("--min-steps", type=int, default=600, help="more epochs if the training split is small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    for name in args.tasks:
        model, spec = load_base(args.base), BY_NAME[name]
        torch.manual_seed(args.seed)
        tower, head_KE = visual_parameters(model), class_embeddings(model, tokenizer, spec)
        how = ExpertTuning(name, head_KE, model.logit_scale.exp().item(), epochs_of(spec, args), spec.rate)
        write_expert(args.out / f"{name}.safetensors", tower, partial(encode_image, tower), how)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
