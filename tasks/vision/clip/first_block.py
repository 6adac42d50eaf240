"""An open_clip ViT that is run from its second block on, where candidates share all that comes before.

Shape legend: B images, T tokens of an image, D width of the tower.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor, nn

from tasks.kept_outputs import KeptOutputs
from tasks.vision.libraries import open_clip

#: Identities of weights that are remembered; neighbours in a search are far closer.
_REMEMBERED = 256


class FirstBlock:
    """Keeps what enters the second block of a tower: see `tasks.base.KeepsStart`.

    It is kept from the second candidate on with the same weights, as a search over alpha shares nothing. Towers other
    than open_clip's own ViTs are always run as a whole.

    Attributes:
        outputs: what is kept.
    """

    def __init__(self, tower: nn.Module, kept: float) -> None:
        """Take the tower, and the GiB to keep at most."""
        self._tower: Any = tower
        self.outputs = KeptOutputs(int(kept * 2**30) if _has_two_parts(tower) else 0)
        self._seen = deque[Hashable](maxlen=_REMEMBERED)

    def set_weights(self, weights: Hashable | None) -> None:
        """Take the identity of the weights before the second block; None if it is not known."""
        if not self.outputs.limit or weights is None:
            self.outputs.weights = None
            return
        self.outputs.weights = weights if weights in self._seen else None
        if self.outputs.weights is None:
            self._seen.append(weights)

    def most_bytes(self, images: int, candidates: int) -> int:
        """Return the most bytes that are kept for candidates that read so many images each."""
        if not self.outputs.limit:
            return 0
        position_TD = self._tower.positional_embedding
        return min(self.outputs.limit, images * (candidates - 1) * int(position_TD.nbytes))

    def features(self, pixels: Callable[[], Tensor], batch: Hashable) -> Tensor:
        """Return the tower's output, with the same bits as `tower(pixels())`.

        Args:
            pixels: makes the normalised images (B, C, H, W).
            batch: identity of the images and of their order.
        """
        if self.outputs.weights is None:
            features: Tensor = self._tower(pixels())
            return features
        return self._rest(self.outputs.of(batch, lambda: self._start(pixels())))

    def _start(self, pixels_BCHW: Tensor) -> Tensor:
        """Run the tower up to the second block, (B, T, D)."""
        tokens_BTD: Tensor = self._tower.transformer.resblocks[0](self._tower._embeds(pixels_BCHW))
        return tokens_BTD

    def _rest(self, tokens_BTD: Tensor) -> Tensor:
        """Run the tower from the second block on, as `VisionTransformer.forward` does."""
        for block in self._tower.transformer.resblocks[1:]:
            tokens_BTD = block(tokens_BTD)
        pooled, _ = self._tower._pool(tokens_BTD)
        features: Tensor = pooled if self._tower.proj is None else pooled @ self._tower.proj
        return features


class KeepsFirstBlock:
    """The part of a backbone that `tasks.base.KeepsStart` asks for.

    Attributes:
        first_block: of its tower.
    """

    first_block: FirstBlock

    def set_start(self, weights: Hashable | None) -> None:
        """Take the identity of the weights before the second block."""
        self.first_block.set_weights(weights)

    def kept_start(self, samples: int, candidates: int) -> int:
        """Return the most bytes that are kept."""
        return self.first_block.most_bytes(samples, candidates)


def _has_two_parts(tower: Any) -> bool:
    """Return whether `_start` and `_rest` are the forward pass of this class of towers, with two blocks or more."""
    kinds = open_clip.transformer
    return (
        type(tower) is kinds.VisionTransformer
        and type(tower.transformer) is kinds.Transformer
        and tower.transformer.batch_first
        and not tower.output_tokens
        and len(tower.transformer.resblocks) > 1
    )
