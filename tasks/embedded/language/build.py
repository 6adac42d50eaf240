"""Builds the embedded language models and prompts in the cache, in seconds; only the prompts need a network.

Existing parts are kept, and an interrupted build leaves no partial ones: rerun the same command to resume.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tasks.embedded.building import run_command, say
from tasks.embedded.language import BUILT
from tasks.embedded.language.indices import fetch, texts
from tasks.embedded.language.packages import Pair, descriptions, pairs, sources, split_of
from tasks.files.cache import cache_root, cached, is_cached
from tasks.files.manifest import manifest_path

#: Fewest pairs that make a meaningful front.
_LEAST = {"train": 5000, "val": 500, "test": 1000}


def build_packages(target: Path, lists: Path | None = None) -> None:
    """Write train.jsonl, val.jsonl and test.jsonl from the indices in `lists`, or else from apt-get.

    Raises:
        ValueError: if there are no indices, or too few usable descriptions in them.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = lists or fetch(Path(scratch))
        origins: dict[str, str] = {}
        for text in texts(folder, "Packages"):
            origins |= sources(text)
        found = [item for text in texts(folder, "Translation-en") for item in descriptions(text)]
    _write(target, pairs(found, origins))


def _write(target: Path, rows: Sequence[Pair]) -> None:
    counts = Counter(split_of(row.origin) for row in rows)
    for split, least in _LEAST.items():
        if counts[split] < least:
            raise ValueError(
                f"package descriptions: {counts[split]} usable for {split}, at least {least} are needed: the indices "
                "must be Packages and Translation-en of the whole main section of a Debian release"
            )
    target.mkdir()
    for split in _LEAST:
        lines = (json.dumps(row.row(), ensure_ascii=False) for row in rows if split_of(row.origin) == split)
        (target / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines))


def build(console: Console, names: Sequence[str] = BUILT, lists: Path | None = None) -> None:
    """Build the missing parts of `names`, and print each on `console`.

    Raises:
        ValueError: if a package is not installed, or the descriptions cannot be fetched.
    """
    from transformers.utils.logging import disable_progress_bar

    from tasks.embedded.language.models import build_encoder, build_policy

    disable_progress_bar()  # type: ignore[no-untyped-call]
    parts: dict[str, Callable[[Path], None]] = {
        "minilm": build_encoder,
        "packages": lambda target: build_packages(target, lists),
        "smollm2": build_policy,
    }
    for number, name in enumerate(names, start=1):
        path = cache_root() / "language" / name
        there = path.exists() and (is_cached(path) or not manifest_path(path).exists())  # older versions wrote none
        with console.status(f"{name} ({number} of {len(names)})"):
            if not there:
                cached(path, parts[name])
        state = "there already" if there else "built"
        say(console, f"embedded/{name}: {state}: {path}")


def main() -> None:
    """Build the three folders; exit with status 2 and a message if one fails."""
    run_command(__doc__, BUILT, ("--lists", "files Translation-en and Packages, instead of apt-get"), build)


if __name__ == "__main__":
    main()
