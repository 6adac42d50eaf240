"""Everything that only a GPU can show, in one table of at most 8 minutes.

Candidates a second and overhead over bare passes, a rebuild against a memcpy, the shared first block and torch.compile,
for a ViT-B/32 and a ViT-L/14 in float32 and bfloat16; shards that run out of memory; one and two workers on one GPU
through Ray. Rows for which no time is left are named. Run: python -m benchmarks.gpu (--tiny only tests it, on a CPU)
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch

from benchmarks.gpu.rows import memory_row, pool_row, title, tower_rows
from benchmarks.gpu.tower import Setting
from pipeline.cluster.session import local_ray

#: Images of a candidate, by model: some seconds of float32 on an H100.
_MODELS = {"ViT-B-32-quickgelu": 8192, "ViT-L-14-quickgelu": 1024}
_TINY = {"embedded/tiny-vit": 64}
_SHARD = 512


class Table:
    """Prints rows until the time is over."""

    def __init__(self, minutes: float) -> None:
        """Start the clock."""
        self._end = time.monotonic() + 60 * minutes

    def add(self, what: str, rows: Callable[[], Iterable[str]]) -> None:
        """Print rows, or that there is no time for them."""
        if time.monotonic() > self._end:
            print(f"{what}: left out, the time is over", flush=True)
            return
        for row in rows():
            print(row, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.5, help="after which no row is begun; one takes up to 1.5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, which only tests the script")
    parser.add_argument("--without", nargs="*", default=[], choices=["compile", "ray"], help="parts to leave out")
    options = parser.parse_args(arguments)
    models, device, gpus = (_TINY, "cpu", 0.0) if options.tiny else (_MODELS, "cuda", 1.0)
    shard = 16 if options.tiny else _SHARD
    print(torch.cuda.get_device_name() if gpus else "CPU: the figures mean nothing", f"torch {torch.__version__}")
    table = Table(options.minutes)
    settings = [
        Setting(model, dtype, device, images, min(256, shard))
        for model, images in models.items()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    for setting in settings:
        compiled = setting.dtype == torch.bfloat16 and "compile" not in options.without
        table.add(title(setting), lambda s=setting, c=compiled: tower_rows(s, options.rounds, c))  # type: ignore[misc]
    small = replace(settings[1], images=min(2048, settings[1].images))
    table.add("out of memory", lambda: [memory_row(small, shard)])
    ray = local_ray(num_cpus=2) if "ray" not in options.without else contextlib.nullcontext()
    with ray:
        for workers in (1, 2) if "ray" not in options.without else ():
            candidates = 4 if options.tiny else 20
            table.add(
                f"{workers} workers",
                lambda n=workers, c=candidates: [pool_row(settings[1], n, c, shard, gpus)],  # type: ignore[misc]
            )


if __name__ == "__main__":
    main()
