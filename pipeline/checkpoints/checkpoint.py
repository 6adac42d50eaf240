"""Read checkpoints safely: from any source to a state dict of finite tensors with a fingerprint of its content."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from pipeline.checkpoints.files import CheckpointFiles, locate
from pipeline.checkpoints.known_fingerprints import KnownFingerprints
from pipeline.checkpoints.pieces import is_finite, outline, pieces_of
from pipeline.checkpoints.quantised import check_plain, numbers_of
from pipeline.checkpoints.readers import read_tensors
from tasks.tensors import first_names, is_buffer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's weights as they are in a file.

    Attributes:
        source: as the user wrote it.
        state: tensors by name, on the CPU, in the file's types; float8 as bfloat16.
        fingerprint: hash of names, types, shapes and values: 16 hexadecimal digits, the same in every file format; ""
            if the caller does not need it.
    """

    source: str
    state: Mapping[str, Tensor]
    fingerprint: str


def read_checkpoint(source: CheckpointFiles | str, hashed: bool = True) -> Checkpoint:
    """Read a whole model; no code of its files is ever run.

    Args:
        source: the located files, or the source as a user writes it (see `files.locate`).
        hashed: as in `checked`.

    Raises:
        ValueError: if it is not found, not readable, unsafe, an adapter, or not a state dict of finite tensors; the
            file and the first names are given.

    Example:
        >>> base = read_checkpoint("embedded/base")
        >>> base.state["visual.conv1.weight"].shape
        torch.Size([96, 3, 8, 8])
    """
    files = whole(source)
    known = KnownFingerprints(files.weights) if hashed else None
    checkpoint = checked(files.label, read_state(files), hashed=False)
    return checkpoint if known is None else replace(checkpoint, fingerprint=fingerprint(checkpoint.state, known))


def read_state(files: CheckpointFiles) -> dict[str, Tensor]:
    """Read the tensors of all files of a checkpoint or an adapter; float8 as bfloat16.

    Raises:
        ValueError: if a file is not readable, unsafe, or quantised.
    """
    state: dict[str, Tensor] = {}
    for file in files.weights:
        state |= read_tensors(file)
    return plain_numbers(files.label, state, files.weights[0].parent)


def plain_numbers(source: str, state: Mapping[str, Tensor], folder: Path | None = None) -> dict[str, Tensor]:
    """Return tensors that can be computed with: float8 as bfloat16.

    Args:
        source: their name in errors.
        state: tensors by name.
        folder: that may hold a config.json of the model.

    Raises:
        ValueError: if they are quantised (see `quantised.check_plain`).
    """
    check_plain(source, {name: str(tensor.dtype) for name, tensor in state.items()}, folder)
    return numbers_of(state)


def whole(source: CheckpointFiles | str) -> CheckpointFiles:
    """Locate the files of a whole model, unless that is done.

    Raises:
        ValueError: if they are not found, or are an adapter.
    """
    files = locate(source) if isinstance(source, str) else source
    files.check_whole()
    return files


def checked(
    source: str, state: Mapping[str, Tensor], hashed: bool = True, known: KnownFingerprints | None = None
) -> Checkpoint:
    """Make a checkpoint of tensors that are read.

    Args:
        source: as the user wrote it.
        state: tensors by name.
        hashed: whether it needs a fingerprint, which takes four times as long as the rest if it is not known.
        known: as of `fingerprint`.

    Raises:
        ValueError: if there are none, or they are not finite.
    """
    check_filled(source, state)
    if not hashed:
        _refuse(source, state, _infinite(state))
        return Checkpoint(source, state, "")
    digest = _Digest(known)
    _refuse(source, state, _infinite(state, digest))
    return Checkpoint(source, state, digest.fingerprint(state))


def check_filled(source: str, state: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint holds tensors; reads none.

    Raises:
        ValueError: if there are none, or most are empty.
    """
    if not state:
        raise ValueError(f"{source}: holds no tensors")
    empty = [name for name, like in outline(state).items() if not like.numel()]
    if 2 * len(empty) > len(state):
        raise ValueError(
            f"{source}: most tensors are empty ({first_names(empty)}), as in a part of a model of DeepSpeed ZeRO stage "
            "3; join its parts with zero_to_fp32.py, and give the result"
        )


def fingerprint(state: Mapping[str, Tensor], known: KnownFingerprints | None = None) -> str:
    """Hash names, types, shapes and bytes in the order of the names: blake2b, 16 hexadecimal digits.

    Args:
        state: tensors by name.
        known: of the files that they were read from; a known fingerprint takes a twentieth of the time.
    """
    digest = _Digest(known)
    for _ in _examined(state, digest):
        pass
    return digest.fingerprint(state)


def check_finite(source: str, state: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint holds finite numbers; masks and other buffers may be infinite.

    Raises:
        ValueError: if weights are NaN or infinite, or none, or most are empty; source and first names are given.
    """
    check_filled(source, state)
    _refuse(source, state, _infinite(state))


def _blake2b() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8)


class _Digest:
    """Hashes what is read: by BLAKE2b, by XXH3 if the fingerprint may be known, by both if it is not, in one pass."""

    def __init__(self, known: KnownFingerprints | None) -> None:
        self._known, self._checksum = known, xxhash.xxh3_128()
        self._whole = _blake2b() if known is None or known.is_new else None

    def update(self, data: bytes | memoryview) -> None:
        """Take bytes of the state."""
        if self._known:
            self._checksum.update(data)
        if self._whole:
            self._whole.update(data)

    def fingerprint(self, state: Mapping[str, Tensor]) -> str:
        """Return the fingerprint of the state, all of which was taken; it is read again if another one is known."""
        compute = self._whole.hexdigest if self._whole else lambda: fingerprint(state)
        return self._known.get(self._checksum.hexdigest(), compute) if self._known else compute()


def _infinite(state: Mapping[str, Tensor], digest: _Digest | None = None) -> set[str]:
    """Return the names of weights that are not finite; each piece is read once, and hashed too if asked for."""
    return {name for name, weights, piece in _examined(state, digest) if weights and not is_finite(piece)}


def _examined(state: Mapping[str, Tensor], digest: _Digest | None) -> Iterator[tuple[str, bool, Tensor]]:
    """Yield (name, whether it is a weight, piece) of all tensors in the order of their names."""
    outlines = outline(state)
    for name in sorted(state):
        like = outlines[name]
        if digest:
            digest.update(f"{name}\0{like.dtype}\0{tuple(like.shape)}\0".encode())
        weights = like.is_floating_point() and not is_buffer(name, like)
        for _, piece in pieces_of(state, name, like.numel()):
            if digest:
                digest.update(piece.contiguous().view(torch.uint8).numpy().data)
            yield name, weights, piece


def _refuse(source: str, state: Mapping[str, Tensor], infinite: Collection[str]) -> None:
    bad = [name for name in state if name in infinite]
    if bad:
        raise ValueError(f"{source}: NaN or infinite values in {first_names(bad)}: the training may have diverged")
