"""Measures the packs and checkpoints, and prints the tables of CARD.md in Markdown."""

import argparse
import json
import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from .catalogue import BY_NAME, SEEN, SHIFTED, TASKS
from .records import PACKS, load_split
from .towers import (
    BLOCKS,
    OUT,
    build_tokenizer,
    class_embeddings,
    encode_image,
    load_base,
    normalise,
    visual_parameters,
)
from .training import correct

GROUPS = ("embedding", *(f"blocks {b + 1}-{b + 2}" for b in range(0, BLOCKS, 2)), "top")
Hits = dict[str, Tensor]
"""Task -> bool tensor (n,), whether each test image is classified correctly."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A percentage and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        """Value and error to one decimal."""
        return f"{self.value:.1f} ± {self.error:.1f}"


def group_of(name: str) -> str:
    """Return the group of blocks of a parameter of ``visual``."""
    if name.startswith("transformer.resblocks."):
        first = int(name.split(".")[2]) // 2 * 2
        return f"blocks {first + 1}-{first + 2}"
    return "top" if name.startswith(("ln_post", "proj")) else "embedding"


def mean_of(parts: list[Tensor]) -> Mean:
    """Return the mean over tasks of per-image values in percent; for its error, images are independent, tasks fixed."""
    values = [100 * p.float() for p in parts]
    variance = sum(v.var().item() / len(v) for v in values)
    return Mean(sum(v.mean().item() for v in values) / len(values), math.sqrt(variance) / len(values))


def mean_over_experts(pairs: list[tuple[str, Tensor]]) -> Mean:
    """Return the mean over (test task, per-image values); experts of one task are averaged by image first."""
    by_task: dict[str, list[Tensor]] = {}
    for name, values in pairs:
        by_task.setdefault(name, []).append(values.float())
    return mean_of([torch.stack(values).mean(0) for values in by_task.values()])


class PackBench:
    """Test images and class embeddings of a list of packs; evaluates image towers on them."""

    def __init__(self, names: list[str], base: Path) -> None:
        """Load the packs' test splits, and encode their classes with the base's text tower."""
        model, tokenizer = load_base(base), build_tokenizer()
        self.base = {k: v.detach() for k, v in visual_parameters(model).items()}
        self.data = {n: (normalise(x), torch.from_numpy(y)) for n in names for x, y in [load_split(n, "test")]}
        self.heads = {name: class_embeddings(model, tokenizer, BY_NAME[name]) for name in names}

    def hits(self, params: dict[str, Tensor]) -> Hits:
        """Evaluate one image tower."""
        return {n: correct(partial(encode_image, params), x, y, self.heads[n]) for n, (x, y) in self.data.items()}

    def expert(self, name: str) -> dict[str, Tensor]:
        """Load the parameters of a fine-tuned image tower."""
        tensors = load_file(OUT / f"{name}.safetensors")
        return {k.removeprefix("visual."): v.float() for k, v in tensors.items()}


def count_table() -> str:
    """Make the table of images by split, with the number of keys."""
    lines = ["| pack | classes | train | val | test | keys (train, val, test) | MB |", "|---|---|---|---|---|---|---|"]
    for spec in TASKS + SHIFTED:
        path = PACKS / f"{spec.name}.parquet"
        table = pq.read_table(path, columns=["split", "key"]).to_pylist()
        of = {s: [r["key"] for r in table if r["split"] == s] for s in ("train", "val", "test")}
        keys = ", ".join(str(len(set(v))) for v in of.values())
        sizes = " | ".join(str(len(v)) for v in of.values())
        lines.append(f"| {spec.name} | {len(spec.classes)} | {sizes} | {keys} | {path.stat().st_size / 1e6:.2f} |")
    return "\n".join(lines)


def accuracy_table(bench: PackBench, zero: Hits, tuned: dict[str, Hits]) -> str:
    """Make the table of zero-shot and expert accuracy on the target, and on the mean of the other tasks."""
    lines = ["| task | zero-shot | expert | control, zero-shot | control, expert |", "|---|---|---|---|---|"]
    names = list(tuned)
    for name in names:
        others = [n for n in names if n != name]
        cells = (
            mean_of([zero[name]]),
            mean_of([tuned[name][name]]),
            mean_of([zero[n] for n in others]),
            mean_of([tuned[name][n] for n in others]),
        )
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    zero_mean, tuned_mean = mean_of([zero[n] for n in names]), mean_of([tuned[n][n] for n in names])
    control = mean_over_experts([(n, tuned[t][n]) for t in names for n in names if n != t])
    lines.append(f"| mean | {zero_mean} | {tuned_mean} | {zero_mean} | {control} |")
    return "\n".join(lines)


def shifted_table(base: Path, bench: PackBench) -> str:
    """Make the table of zero-shot and expert accuracy on the shifted sets."""
    shifted = PackBench([spec.name for spec in SHIFTED], base)
    zero = shifted.hits(shifted.base)
    lines = ["| shifted set | of | zero-shot | expert of the base task |", "|---|---|---|---|"]
    for spec in SHIFTED:
        assert spec.shifted_from is not None
        hits = shifted.hits(bench.expert(spec.shifted_from))
        lines.append(
            f"| {spec.name} | {spec.shifted_from} | {mean_of([zero[spec.name]])} | {mean_of([hits[spec.name]])} |"
        )
    return "\n".join(lines)


def gate_table(bench: PackBench, tuned: dict[str, Hits]) -> tuple[str, dict[str, dict[str, list[float]]]]:
    """Make the table of changes when a group of blocks is left out of the task vector, paired by image."""
    seen = {spec.name for spec in SEEN}
    lines = [
        "| left out of tau | norm share | target, seen | control, seen | target, unseen | control, unseen |",
        "|---|---|---|---|---|---|",
    ]
    detail: dict[str, dict[str, list[float]]] = {}
    for group in GROUPS:
        target: dict[bool, list[Tensor]] = {True: [], False: []}
        control: dict[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
        shares = []
        for task, full in tuned.items():
            expert = bench.expert(task)
            params = {k: bench.base[k] if group_of(k) == group else v for k, v in expert.items()}
            squares = {k: (v - bench.base[k]).square().sum().item() for k, v in expert.items()}
            shares.append(sum(s for k, s in squares.items() if group_of(k) == group) / sum(squares.values()))
            change = {n: h.float() - full[n].float() for n, h in bench.hits(params).items()}
            others = [(n, c) for n, c in change.items() if n != task]
            target[task in seen].append(change[task])
            control[task in seen] += others
            mean_control = 100 * sum(c.mean().item() for _, c in others) / len(others)
            detail.setdefault(group, {})[task] = [100 * change[task].mean().item(), mean_control]
        cells = [
            cell for known in target for cell in (str(mean_of(target[known])), str(mean_over_experts(control[known])))
        ]
        share = 100 * sum(shares) / len(shares)
        lines.append(f"| {group} | {share:.0f} % | " + " | ".join(cells) + " |")
    return "\n".join(lines), detail


def main() -> None:
    """Write ``measures.md`` and ``measures.json`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=OUT / "base.safetensors")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = PackBench([spec.name for spec in TASKS], args.base)
    started = time.process_time()
    zero = bench.hits(bench.base)
    speed = sum(len(h) for h in zero.values()) / (time.process_time() - started)
    tuned = {name: bench.hits(bench.expert(name)) for name in bench.data}
    gate, detail = gate_table(bench, tuned)
    tables = [count_table(), accuracy_table(bench, zero, tuned), shifted_table(args.base, bench), gate]
    tables.append(f"Evaluation: {speed:.0f} images per CPU second.")
    text = "\n\n".join(tables) + "\n"
    (args.work / "measures.md").write_text(text)
    (args.work / "measures.json").write_text(json.dumps({"gate, target and control by expert": detail}, indent=1))
    logging.getLogger(__name__).info(text)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
