"""SHA-256 of every embedded task and checkpoint, in SHA256SUMS, which `sha256sum --check` reads too."""

import hashlib
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent
SUMS = _ROOT / "SHA256SUMS"
_SUMMED = ("packs/*.parquet", "texts/*/*.parquet", "checkpoints/*.safetensors", "checkpoints/*/*.safetensors")


@cache
def check(path: Path) -> None:
    """Compare an embedded file with its sum, once in a process; other files are not in the list.

    Raises:
        ValueError: if it is not the file of this version.
    """
    name = path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else ""
    expected = {file: digest for digest, _, file in (line.partition("  ") for line in SUMS.read_text().splitlines())}
    if name in expected and _digest(path) != expected[name]:
        raise ValueError(
            f"{path}: damaged: its SHA-256 is not the one in {SUMS.name}; install lines-sweep again, or in a checkout "
            f"run `git checkout {name}` in {_ROOT}"
        )


def write() -> None:
    """Write the list for the files that are there, after `make embedded` has made them."""
    files = sorted(path for pattern in _SUMMED for path in _ROOT.glob(pattern))
    SUMS.write_text("".join(f"{_digest(path)}  {path.relative_to(_ROOT).as_posix()}\n" for path in files))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
