"""Divides the pools into packs (train, val, test, shifted sets) and the pre-training corpus, and writes them."""

import argparse
import json
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .catalogue import BY_NAME, SEEN, SHIFTED, UNSEEN, PackSpec
from .records import PACKS, SIZE, Item, load_items, save_items, to_planar
from .splits import SPLITS, assign_keys, balanced, without_exact, without_near

_log = logging.getLogger(__name__)
Divided = dict[str, list[Item]]


def divide(pool: Sequence[Item], spec: PackSpec) -> tuple[Divided, dict[str, str]]:
    """Return a task's items by split, and the split of every key. Unlabelled items are in ``pre`` only."""
    fixed = {item.key: "test" for item in pool if item.key.startswith("t10k")} if spec.name == "fashion" else {}
    split_of = assign_keys([i for i in pool if i.label and i.key not in fixed], spec.shares) | fixed
    parts: Divided = {split: [] for split in SPLITS}
    for item in pool:
        split = split_of.get(item.key, "pre")
        if item.label or split == "pre":
            parts[split].append(item)
    return parts, split_of


def shifted_items(pool: Sequence[Item], split_of: dict[str, str]) -> list[Item]:
    """Return the items of a shifted set whose key is in neither the corpus nor the base task's train split."""
    return [item for item in pool if item.label and split_of.get(item.key, "test") in ("val", "test")]


def write_pack(spec: PackSpec, splits: Divided) -> None:
    """Writes one pack with its metadata."""
    rows = [(split, item) for split in ("train", "val", "test") for item in splits.get(split, [])]
    sources = sorted({item.source for _, item in rows})
    metadata = {
        "name": spec.name,
        "domain": spec.domain,
        "classes": list(spec.classes),
        "templates": list(spec.templates),
        "size": SIZE,
        "role": "ood" if spec.shifted_from else "task",
        "shifted_from": spec.shifted_from,
        "license": spec.license,
        "sources": sources,
    }
    index = {name: k for k, name in enumerate(spec.classes)}
    columns = {
        "image": pa.array([to_planar(i.pixels) for _, i in rows], pa.binary(3 * SIZE * SIZE)),
        "label": pa.array([index[i.label] for _, i in rows], pa.int16()),
        "split": pa.array([split for split, _ in rows], pa.string()),
        "key": pa.array([i.key for _, i in rows], pa.string()),
        "source": pa.array([i.source for _, i in rows], pa.string()),
    }
    table = pa.table(columns).replace_schema_metadata({"lines_sweep": json.dumps(metadata)})
    PACKS.mkdir(parents=True, exist_ok=True)
    path = PACKS / f"{spec.name}.parquet"
    pq.write_table(table, path, compression="zstd", compression_level=19, use_dictionary=["split", "key", "source"])
    counts = {split: len(splits.get(split, [])) for split in ("train", "val", "test")}
    _log.info("%s: %s, %.2f MB", spec.name, counts, path.stat().st_size / 1e6)


def build(
    pools: dict[str, list[Item]], tasks: Sequence[PackSpec], shifted: Sequence[PackSpec], known: Sequence[Item]
) -> tuple[dict[str, Divided], list[Item]]:
    """Return all packs by name, and the corpus, without duplicates: test is filled first, then val, train and corpus.

    Held-out images that resemble one of ``known``, an earlier corpus, are left out.
    """
    packs: dict[str, Divided] = {spec.name: {} for spec in (*tasks, *shifted)}
    parts: dict[str, Divided] = {}
    keys: dict[str, dict[str, str]] = {}
    seen: set[bytes] = set()
    rng = random.Random(0)
    for spec in tasks:
        parts[spec.name], keys[spec.name] = divide(pools[spec.name], spec)
        fresh = without_near(without_exact(parts[spec.name]["test"], seen), known)
        packs[spec.name]["test"] = balanced(fresh, spec.quotas[2], rng)
    for spec in shifted:
        assert spec.shifted_from is not None
        fresh = shifted_items(pools[spec.name], keys[spec.shifted_from])
        packs[spec.name]["test"] = balanced(without_exact(fresh, seen), spec.quotas[2], rng)
    for spec in tasks:
        fresh = without_near(without_exact(parts[spec.name]["val"], seen), [*packs[spec.name]["test"], *known])
        packs[spec.name]["val"] = balanced(fresh, spec.quotas[1], rng)
    held = [item for pack in packs.values() for part in pack.values() for item in part]
    for spec in tasks:
        clean = without_near(without_exact(parts[spec.name]["train"], seen), held)
        packs[spec.name]["train"] = balanced(clean, spec.quotas[0], rng)
    corpus: list[Item] = []
    for spec in tasks:
        corpus += without_near(without_exact(parts[spec.name]["pre"], seen), held)
    allowed = {key for key, split in keys.get("letters", {}).items() if split in ("pre", "train")}
    printed = [item for item in pools["digits_printed"] if item.key in allowed]
    return packs, corpus + without_near(without_exact(printed, seen), held)


def main() -> None:
    """Write the packs into the package, and ``corpus.parquet`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    pools: dict[str, list[Item]] = defaultdict(list)
    for item in load_items(sorted((work / "pools").glob("*.parquet"))):
        pools[item.pool].append(item)
    packs, corpus = build(pools, SEEN, SHIFTED, ())
    late, _ = build(pools, UNSEEN, (), corpus)
    for name, splits in (packs | late).items():
        write_pack(BY_NAME[name], splits)
    save_items(work / "corpus.parquet", corpus)
    _log.info("corpus: %d images, %d of them with a class", len(corpus), sum(bool(i.label) for i in corpus))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
