"""Fingerprints that were computed before: files that have not changed need no cryptographic hash again.

A fingerprint is taken from the cache only for numbers in memory that are those it was computed of, by a checksum of 128
bits of all of them (XXH3, 25 times faster than BLAKE2b), and for files with the same size, times, inode and device. The
checksum finds every flipped bit, also below unchanged stamps; the stamps keep a file that someone made to have the
checksum of another one from having its fingerprint too.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tasks.files.atomic import write_whole
from tasks.files.cache import cache_root, digest
from tasks.files.checksums import DamagedError, seal, unseal


class KnownFingerprints:
    """The known fingerprints of the content of some files, as these are when this is made: before they are read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Note the state of the files."""
        self._paths, self._stamps = paths, stamps(paths)
        self._folder, self._files = cache_root() / "fingerprints", digest(self._stamps)

    @property
    def is_new(self) -> bool:
        """Whether nothing is known of the files, so that the fingerprint will have to be computed."""
        return not any(self._folder.glob(f"{self._files}-*"))

    def get(self, checksum: str, compute: Callable[[], str]) -> str:
        """Return the fingerprint of what was read, computed if it is not known or its entry is damaged.

        Args:
            checksum: of what was read of the files.
            compute: returns its fingerprint.

        Example:
            >>> known = KnownFingerprints(files.weights)
            >>> state = read_state(files)
            >>> known.get(checksum(state), lambda: fingerprint(state))
            '2881d2c248ee15f1'
        """
        if not self._stamps:
            return compute()
        entry = self._folder / f"{self._files}-{checksum}"
        with suppress(OSError, DamagedError):
            return unseal(entry.read_bytes())[1].decode()
        found = compute()
        # Tensors may be mapped files: one that changed meanwhile may have changed between the two hashes.
        if stamps(self._paths) == self._stamps:
            with suppress(OSError):
                entry.parent.mkdir(parents=True, exist_ok=True)
                write_whole(entry, seal(found.encode()), durable=False)
        return found


def stamps(paths: Sequence[Path]) -> list[str]:
    """Return what changes when a file is written to or replaced, as no program can set its ctime; [] if one is gone."""
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return []
    return [f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino} {s.st_dev}" for s in found]
