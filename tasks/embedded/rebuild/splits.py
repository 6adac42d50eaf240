"""Division of items by key, and removal of duplicates and near-duplicates across splits."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .records import Item, to_planar

SPLITS = ("pre", "train", "val", "test")
NEAR = 0.98
"""Two images are near-duplicates if the absolute correlation of their 16 x 16 grey versions is at least this."""


def assign_keys(items: Iterable[Item], shares: Sequence[float]) -> dict[str, str]:
    """Return the split of every key: in hash order, each goes to the split furthest below its share of the images.

    Keys with a single label are divided label by label, so that every split gets every class.
    """
    sizes: Counter[str] = Counter()
    labels: dict[str, set[str]] = defaultdict(set)
    for item in items:
        sizes[item.key] += 1
        labels[item.key].add(item.label)
    groups: dict[str, list[str]] = defaultdict(list)
    for key in sorted(sizes, key=lambda k: hashlib.sha256(k.encode()).digest()):
        groups[min(labels[key]) if len(labels[key]) == 1 else ""].append(key)
    split_of: dict[str, str] = {}
    for keys in groups.values():
        total = sum(sizes[key] for key in keys)
        filled = dict.fromkeys(SPLITS, 0)
        for key in keys:
            lack = {s: share * total - filled[s] for s, share in zip(SPLITS, shares, strict=True)}
            split = max(SPLITS, key=lambda s: lack[s])
            split_of[key] = split
            filled[split] += sizes[key]
    return split_of


def balanced(items: Sequence[Item], quota: int, rng: random.Random) -> list[Item]:
    """Return at most ``quota`` items, taken from the classes in turn, then shuffled."""
    stacks: dict[str, list[Item]] = defaultdict(list)
    for item in rng.sample(list(items), len(items)):
        stacks[item.label].append(item)
    chosen: list[Item] = []
    while len(chosen) < quota and any(stacks.values()):
        for label in sorted(stacks):
            if stacks[label] and len(chosen) < quota:
                chosen.append(stacks[label].pop())
    rng.shuffle(chosen)
    return chosen


def signatures(items: Sequence[Item]) -> NDArray[np.float32]:
    """Return unit vectors (n, 256): centred grey images at 16 x 16."""
    if not items:
        return np.zeros((0, 256), np.float32)
    grey = np.stack([item.pixels.mean(2) for item in items]).astype(np.float32)
    small = grey.reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(len(items), -1)
    small -= small.mean(1, keepdims=True)
    unit: NDArray[np.float32] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return unit


def without_near(items: Sequence[Item], kept: Sequence[Item], chunk: int = 2048) -> list[Item]:
    """Return the items that resemble none of ``kept``."""
    reference = signatures(kept)
    if not len(reference):
        return list(items)
    result: list[Item] = []
    for start in range(0, len(items), chunk):
        part = items[start : start + chunk]
        similarity = np.abs(signatures(part) @ reference.T).max(1)
        result += [item for item, score in zip(part, similarity, strict=True) if score < NEAR]
    return result


def without_exact(items: Iterable[Item], seen: set[bytes]) -> list[Item]:
    """Return the items whose pixels are not in ``seen``, and add these to it."""
    result = []
    for item in items:
        digest = hashlib.sha256(to_planar(item.pixels)).digest()
        if digest not in seen:
            seen.add(digest)
            result.append(item)
    return result
