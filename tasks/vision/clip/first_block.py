"""An open_clip ViT that is run from its second block on, where candidates share all that comes before.

In float32 on a CPU, in batches of 16 images or more, the last block computes the MLP of the class token alone where the
others are not read, and an odd number of heads, for which torch has no fast path, attends without copies: 12 % of a
pass of a ViT-T/32. What a block has computed for itself alone is overwritten, since new memory costs more than the sums
that fill it.

Shape legend: B images, T tokens of an image, D width of the tower, H heads, E width of a head, F width of an MLP.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.kept_outputs import KeptOutputs
from tasks.vision.libraries import open_clip

_Block = open_clip.transformer.ResidualAttentionBlock
#: Identities of weights that are remembered; neighbours in a search are far closer.
_REMEMBERED = 256
#: MKL's float32 products of fewer images may round a row otherwise, depending on the number of rows and of threads.
_FEWEST_IMAGES = 16
#: Numbers that an activation takes at a time: 256 KB, which stay in a core's cache between its three passes.
_PIECE = 2**16


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
        self._has_two_parts = _has_two_parts(tower)
        self._reads_class_token = self._has_two_parts and _reads_class_token(tower)
        self.outputs = KeptOutputs(int(kept * 2**30) if self._has_two_parts else 0)
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

    @torch.inference_mode()
    def features(self, pixels: Callable[[], Tensor], batch: Hashable) -> Tensor:
        """Return the tower's output, with the same bits as `tower(pixels())` (on a CPU if torch multiplies by MKL).

        Args:
            pixels: makes the normalised images (B, C, H, W).
            batch: identity of the images and of their order.
        """
        if not self._has_two_parts:
            features: Tensor = self._tower(pixels())
            return features
        return self._rest(self.outputs.of(batch, lambda: self._start(pixels())))

    def _start(self, pixels_BCHW: Tensor) -> Tensor:
        """Run the tower up to the second block, (B, T, D)."""
        return self._block(self._tower.transformer.resblocks[0], self._tower._embeds(pixels_BCHW))

    def _rest(self, tokens_BTD: Tensor) -> Tensor:
        """Run the tower from the second block on, as `VisionTransformer.forward` does."""
        *blocks, last = self._tower.transformer.resblocks[1:]
        for block in blocks:
            tokens_BTD = self._block(block, tokens_BTD)
        read = 1 if self._reads_class_token and len(tokens_BTD) >= _FEWEST_IMAGES else None
        pooled, _ = self._tower._pool(self._block(last, tokens_BTD, read))
        features: Tensor = pooled if self._tower.proj is None else pooled @ self._tower.proj
        return features

    def _block(self, block: Any, tokens_BTD: Tensor, read: int | None = None) -> Tensor:
        """Run a block, as `ResidualAttentionBlock.forward` does; return the first `read` tokens, or all."""
        if type(block) is not _Block or tokens_BTD.device.type != "cpu" or tokens_BTD.dtype != torch.float32:
            whole: Tensor = block(tokens_BTD)
            return whole
        normed_BTD = block.ln_1(tokens_BTD)
        own = block.attn.num_heads % 2 and len(tokens_BTD) >= _FEWEST_IMAGES
        attended_BTD = _attention(block.attn, normed_BTD) if own else block.attention(normed_BTD)
        tokens_BTD = block.ls_1(attended_BTD).add_(tokens_BTD)[:, :read]
        hidden_BTF = _activate(block.mlp.gelu, block.mlp.c_fc(block.ln_2(tokens_BTD)))
        made: Tensor = block.ls_2(block.mlp.c_proj(hidden_BTF)).add_(tokens_BTD)
        return made


def _attention(attention: nn.MultiheadAttention, tokens_BTD: Tensor) -> Tensor:
    """Attend without a mask, as `nn.MultiheadAttention` does, but for its copies of queries, keys and values."""
    projected = (tokens_BTD @ attention.in_proj_weight.T).add_(attention.in_proj_bias)  # two roundings, as there
    q_BHTE, k_BHTE, v_BHTE = projected.view(*tokens_BTD.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    attended_BTHE = F.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE).transpose(1, 2)
    made: Tensor = attention.out_proj(attended_BTHE.flatten(2))
    return made


def _activate(activation: nn.Module, hidden_BTF: Tensor) -> Tensor:
    """Return `activation(hidden_BTF)`; QuickGELU overwrites `hidden_BTF`.

    Pieces have whole vectors, so that every number is computed by the same instructions; with several threads, torch
    divides the whole among them.
    """
    if type(activation) is not open_clip.transformer.QuickGELU or not hidden_BTF.is_contiguous():
        activated: Tensor = activation(hidden_BTF)
        return activated
    size = _PIECE if torch.get_num_threads() == 1 else hidden_BTF.numel()
    pieces = hidden_BTF.view(-1).split(size)  # type: ignore[no-untyped-call]
    gates = torch.empty_like(pieces[0])
    for piece in pieces:
        gate = torch.mul(piece, 1.702, out=gates[: len(piece)])
        piece.mul_(gate.sigmoid_())
    return hidden_BTF


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


def _reads_class_token(tower: Any) -> bool:
    """Return whether the output of a tower of two parts is made of its class token alone."""
    return tower.attn_pool is None and tower.pool_type == "tok"
