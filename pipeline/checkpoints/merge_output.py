"""Where a merge is written: one file, or a folder for transformers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.model_folder import Card, new_model_folder
from pipeline.checkpoints.writing import Sink, new_file

#: End of an output's name if it is one file; any other is a folder.
FILE = ".safetensors"


class _UnderNames:
    """Writes each tensor under the names that it has in the output."""

    def __init__(self, sink: Sink, names: Mapping[str, Sequence[str]]) -> None:
        self._sink, self._names = sink, names

    def write(self, name: str, start: int, piece: Tensor) -> None:
        for other in self._names[name]:
            self._sink.write(other, start, piece)


@contextmanager
def new_output(
    output: Path,
    base: CheckpointFiles,
    outlines: Mapping[str, Tensor],
    tied: Mapping[str, str],
    metadata: Mapping[str, str],
    card: Card,
) -> Iterator[Sink]:
    """Yield what takes the tensors of a merged model, in a file or a folder that is whole at the end or does not exist.

    Args:
        output: ends in .safetensors, or is a folder.
        base: gives the files that a folder has besides weights.
        outlines: of all tensors, each under one name.
        tied: further name -> name in `outlines`. In a file each has a copy; a folder has the first name in the order of
            the alphabet, and its metadata the others, as transformers writes them.
        metadata: of the weights.
        card: of a folder.

    Raises:
        ValueError: if it cannot be written.
    """
    names = {name: [name] for name in outlines}
    for other, name in tied.items():
        names[name].append(other)
    if output.suffix == FILE:
        every = {other: outlines[name] for name, others in names.items() for other in others}
        with new_file(output, every, metadata) as file:
            yield _UnderNames(file, names)
        return
    kept = {name: sorted(others) for name, others in names.items()}
    dropped = {other: first for first, *others in kept.values() for other in others}
    single = {kept[name][0]: tensor for name, tensor in outlines.items()}
    with new_model_folder(output, base, single, {**dropped, **metadata}, card) as shards:
        yield _UnderNames(shards, {name: others[:1] for name, others in kept.items()})
