"""Numbers that are checked when they are first read, which saves a pass over the files of a model."""

from torch import Tensor

from pipeline.checkpoints.checkpoint import check_finite
from pipeline.checkpoints.pieces import PieceReader, is_finite
from pipeline.merging.parameter_pieces import places_of
from tasks.tensors import is_buffer


class CheckedWhenRead(PieceReader):
    """Tensors of which each piece is checked to be finite when it is first read, and the rest by `finish`."""

    def __init__(self, source: str, state: PieceReader) -> None:
        """Take the tensors, and their source for errors."""
        super().__init__(state)
        self._source, self._state, self._answered = source, state, False
        weights = {n: t for n, t in state.outline().items() if t.is_floating_point() and not is_buffer(n, t)}
        self._left = {(name, at.start, at.stop) for name, t in weights.items() for at in places_of(t.numel())}

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, as `pieces.outline`."""
        return self._state.outline()

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            ValueError: as `checkpoint.check_finite`.
        """
        tensor = self._state[name]
        flat = tensor.reshape(-1)
        for place in places_of(flat.numel()):
            self._check(name, place, flat[place])
        return tensor

    def piece(self, name: str, place: slice) -> Tensor:
        """Read entries of one tensor.

        Raises:
            ValueError: as `checkpoint.check_finite`.
        """
        piece = self._state.piece(name, place)
        self._check(name, place, piece)
        return piece

    def unchecked(self, name: str, place: slice) -> Tensor:
        """Read entries of one tensor that the caller answers for, as `PieceReader.unchecked`."""
        self._left.discard((name, place.start, place.stop))
        self._answered = True
        return self._state.piece(name, place)

    def check_taken(self) -> None:
        """Check all, if the caller of `unchecked` cannot answer for what it read.

        Raises:
            ValueError: as `checkpoint.check_finite`.
        """
        if self._answered:
            check_finite(self._source, self._state)

    def finish(self) -> None:
        """Check what was not read.

        Raises:
            ValueError: as `checkpoint.check_finite`.
        """
        for name, start, stop in sorted(self._left):
            self.piece(name, slice(start, stop))

    def _check(self, name: str, place: slice, piece: Tensor) -> None:
        key = (name, place.start, place.stop)
        if key not in self._left:
            return
        if not is_finite(piece):
            check_finite(self._source, self._state)  # which finds all names
        self._left.discard(key)
