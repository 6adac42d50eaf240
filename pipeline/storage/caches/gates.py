"""Gates of earlier inspections: a run of the same checkpoints and data finds its own."""

import hashlib
import json
import logging
from pathlib import Path

from pipeline.messages import Identity
from pipeline.records.gate import FILE_NAME, Gate
from tasks.files.atomic import write_whole
from tasks.files.json_files import read_object
from tasks.files.locks import locked

logger = logging.getLogger(__name__)


def keep_gate(root: Path, identity: Identity, gate: Gate) -> None:
    """Keep a gate in the cache, beside what earlier specs of the same checkpoints and data took apart.

    A gate that cannot be written is a warning: it is measured, and shown all the same.
    """
    path = _place(root, identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            earlier = find_gate(root, identity)
            write_whole(path, json.dumps((gate.with_earlier(earlier) if earlier else gate).to_json()))
    except (OSError, ValueError) as error:  # ValueError: the file system has no locks
        logger.warning("%s: the gate is not kept, and a later run will not find it: %s", path, error)


def find_gate(root: Path, identity: Identity) -> Gate | None:
    """Return the gate of a run's checkpoints and data; None if there is none that can be read."""
    path = _place(root, identity)
    try:
        return Gate.from_json(read_object(path, str(path))) if path.is_file() else None
    except (OSError, ValueError) as error:
        logger.warning("%s: ignored: %s", path, error)
        return None


def bring_gate(root: Path, identity: Identity, folder: Path) -> None:
    """Copy the gate of a run into its folder, unless one is there: it was predicted before the run ended."""
    place = folder / FILE_NAME
    if not place.exists() and (found := find_gate(root, identity)):
        write_whole(place, json.dumps({"gate": found.to_json()}, indent=2))


def _place(root: Path, identity: Identity) -> Path:
    tasks = sorted((name, fingerprint, val) for name, (fingerprint, val, _) in identity.tasks.items())
    text = json.dumps([identity.fingerprint, identity.numerics, tasks])
    return root / "gates" / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.json"
