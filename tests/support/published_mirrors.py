"""Tiny mirrors of published sets in the hub's layouts; each writer returns what readers must read."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from published_sets import Pixels, Splits, both


def parquet(root: Path, names: Sequence[str], order: Sequence[int], label: str = "label") -> Splits:
    """Write a mirror with labels in another order: its class i is our class order[i]; two files for train."""
    data = both(len(names), (10, 14, 3))
    feature = {"names": [names[i] for i in order], "_type": "ClassLabel"} if names[0] else {"dtype": "int64"}
    about = {"huggingface": json.dumps({"info": {"features": {label: feature}}})}
    (root / "data").mkdir(parents=True)
    for split, part in data.items():
        images = [{"bytes": encoded(pixels), "path": f"{i}.png"} for i, (pixels, _) in enumerate(part)]
        table = pa.table({"image": images, label: [list(order).index(n) for _, n in part]})
        table = table.replace_schema_metadata(about)
        for i, start in enumerate(range(0, len(part), 20)):
            pq.write_table(table.slice(start, 20), root / f"data/{split}-{i:05d}-of-00002.parquet", row_group_size=7)
    return data


def webdataset(root: Path, names: Sequence[str], order: Sequence[int]) -> Splits:
    """Write shards of ten with labels in another order, like `parquet`."""
    data = both(len(names), (10, 14, 3), 110)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classnames.txt").write_text("\n".join(names[i] for i in order) + "\n")
    for split, part in data.items():
        (root / split).mkdir()
        for shard in range(-(-len(part) // 10)):
            with tarfile.open(root / split / f"{shard}.tar", "w") as tar:
                for i, (pixels, label) in enumerate(part[10 * shard : 10 * shard + 10]):
                    for suffix, content in ((".png", encoded(pixels)), (".cls", b"%d" % list(order).index(label))):
                        member = tarfile.TarInfo(f"s{10 * shard + i:07d}{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return data


def encoded(pixels: Pixels) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "png")
    return sink.getvalue()


def rgb(picture: Any) -> np.ndarray:
    """Return the pixels (H, W, 3) of any form of an image."""
    found = picture() if callable(picture) else picture
    if isinstance(found, bytes):
        found = io.BytesIO(found)
    if not isinstance(found, Image.Image):
        found = Image.fromarray(found) if isinstance(found, np.ndarray) else Image.open(found)
    return np.asarray(found.convert("RGB"))
