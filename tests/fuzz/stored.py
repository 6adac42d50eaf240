"""Damaged files of the program's own: journal, caches, decoded packs, text heads, statistics, baselines.

A read must end in an error that names the file, or give exactly the undamaged values. An entry of a cache may be
missing after a warning, as it is then made again.
"""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fuzz.mutations import flip, mutate_bytes
from fuzz.oracle import heard, refused
from fuzz.sandbox import Check, Fault, Limits

#: Name of a value -> digest of it; None if it must be computed again.
Values = Mapping[str, str | None]


class Artefact(Protocol):
    """A kind of file that this program writes and reads."""

    name: str
    lines: bool
    """Whether it consists of lines, which errors number; a torn last line is dropped."""
    required: bool
    """Whether it is the only copy, so that it must not be cut or deleted here: that is another run."""

    def write(self, shared: Path, place: Path) -> None:
        """Write the files into the folder `place`; what they are made from goes into `shared`."""

    def read(self, shared: Path, place: Path) -> Values:
        """Read the files of a copy of `place`, as a new process does."""


def digest_of(*parts: object) -> str:
    """Return a hash of the parts; equal parts give equal hashes."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


class Stored:
    """The cases of one artefact: mostly one flipped bit, in one of its files."""

    share, batch = 1_000, 20
    limits = Limits()

    def __init__(self, artefact: Artefact) -> None:
        """Take the artefact."""
        self._artefact, self.name = artefact, artefact.name

    def prepare(self, folder: Path) -> None:
        """Write the files and keep their values."""
        shared, place = folder / "shared", folder / "place"
        shared.mkdir()
        place.mkdir()
        os.environ["LINES_SWEEP_CACHE"] = str(place)
        self._artefact.write(shared, place)
        copies = [shutil.copytree(place, folder / name) for name in ("first", "second")]
        values, again = (self._artefact.read(shared, _used(copy)) for copy in copies)
        assert values == again and all(values.values()), "values differ without any damage"
        (folder / "values.json").write_text(json.dumps(values))

    def open(self, prepared: Path) -> Check:
        """Return the cases: one file of a copy is damaged, and the copy is read."""
        expected: Values = json.loads((prepared / "values.json").read_text())

        def check(seed: int, folder: Path) -> str:
            dice = random.Random(f"{self.name} {seed}")
            place = folder / "place"
            shutil.copytree(prepared / "place", place)
            path = dice.choice(sorted(p for p in place.rglob("*") if p.is_file() and p.stat().st_size))
            torn = _damage(path, dice, self._artefact)
            found: Values = {}
            with heard() as output:
                found = self._artefact.read(prepared / "shared", _used(place))
            if output.status:
                if self._artefact.lines and not re.search(r"line \d", output.output):
                    raise Fault("message", f"names no line: {output.output[:200]}")
                return refused(output.output, [path.name])
            warned = bool(output.warnings) or path.name in output.output
            return _compare(expected, found, warned, torn)

        return check


def _used(place: Path) -> Path:
    """Make `place` the cache of this process."""
    os.environ["LINES_SWEEP_CACHE"] = str(place)
    return place


def _damage(path: Path, dice: random.Random, artefact: Artefact) -> bool:
    """Change the file; return whether its last line is torn now, or it is gone or empty."""
    data, kind = path.read_bytes(), dice.random()
    if kind < 0.75:
        new = flip(data, dice)
    elif kind < 0.85 and artefact.lines:
        new = _other_digit(data, dice)
    elif kind < 0.93 or artefact.required:
        new = mutate_bytes(data, dice, 1) if not artefact.required else flip(flip(data, dice), dice)
    else:
        new = dice.choice((b"", None))
    if new is None:
        path.unlink()
        return True
    path.write_bytes(new)
    return not new or (artefact.lines and not new.endswith(b"\n"))


def _other_digit(data: bytes, dice: random.Random) -> bytes:
    """Change a digit, as an editor would: the line stays well formed."""
    at = dice.choice([match.start() for match in re.finditer(rb"\d", data)])
    return data[:at] + dice.choice(b"0123456789".replace(data[at : at + 1], b"")).to_bytes() + data[at + 1 :]


def _compare(expected: Values, found: Values, warned: bool, torn: bool) -> str:
    """Return the verdict.

    Raises:
        Fault: if a value is another one, or one is missing without a warning.
    """
    wrong = [name for name, value in found.items() if value is not None and value != expected.get(name)]
    if wrong and not (torn and wrong == ["provenance.json"]):
        raise Fault("wrong", f"{'after a warning' if warned else 'without a warning'}: {', '.join(wrong[:3])}")
    missing = [name for name in expected if found.get(name) is None]
    if missing and not warned and not torn:
        raise Fault("silent", f"missing without a warning: {len(missing)} of {len(expected)}")
    return "missing" if missing else "warned" if warned else "same"
