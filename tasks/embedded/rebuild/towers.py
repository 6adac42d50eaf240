"""The tiny CLIP: configuration, tokenizer, class embeddings and a fast, open_clip-equal forward of the image tower."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from .catalogue import PackSpec

OUT = Path(__file__).parents[1] / "checkpoints"
WIDTH, HEADS, BLOCKS, PATCH, SIZE = 96, 3, 8, 8, 32
VOCABULARY, CONTEXT = 2048, 16
MEAN, STD = 0.5, 0.35
CONFIG: dict[str, Any] = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": SIZE, "layers": BLOCKS, "width": WIDTH, "head_width": 32, "patch_size": PATCH},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": HEADS, "layers": 2},
    "preprocess_cfg": {"mean": [MEAN] * 3, "std": [STD] * 3, "size": SIZE},
}


def write_config() -> None:
    """Write ``tiny-vit.json`` and ``bpe_2048.txt.gz``."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "tiny-vit.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    short = "\n".join(merges[: 1 + VOCABULARY - 514]).encode()
    (OUT / "bpe_2048.txt.gz").write_bytes(gzip.compress(short, mtime=0))


def build_tokenizer() -> SimpleTokenizer:
    """Return open_clip's tokenizer with the truncated merges."""
    tokenizer = SimpleTokenizer(bpe_path=str(OUT / "bpe_2048.txt.gz"), context_length=CONTEXT)
    assert tokenizer.vocab_size == VOCABULARY
    return tokenizer


def build_model() -> CLIP:
    """Return an untrained CLIP of this configuration."""
    parts = {k: v for k, v in CONFIG.items() if k != "preprocess_cfg"}
    return CLIP(**parts)


def normalise(images: NDArray[np.uint8]) -> Tensor:
    """Turn planar uint8 images (n, 3, 32, 32) into the tower's input."""
    return (torch.tensor(images).float() / 255 - MEAN) / STD


def jitter(images_BCHW: Tensor) -> Tensor:
    """Turn (by up to 8 degrees), scale (15 %) and move (2 pixels) every image, with edges repeated."""
    batch = images_BCHW.shape[0]
    angle, size_x, size_y, move_x, move_y = (torch.rand(5, batch) * 2 - 1).unbind()
    cos, sin = torch.cos(angle * 0.14), torch.sin(angle * 0.14)
    zoom_x, zoom_y = 1 + 0.15 * size_x, 1 + 0.15 * size_y
    step = 4 / SIZE
    rows = (
        torch.stack([cos * zoom_x, -sin * zoom_y, move_x * step]),
        torch.stack([sin * zoom_x, cos * zoom_y, move_y * step]),
    )
    theta_B23 = torch.stack(rows).permute(2, 0, 1)
    grid = F.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def encode_image(p: Mapping[str, Tensor], images_BCHW: Tensor) -> Tensor:
    """Return unit image embeddings (B, E), equal to ``CLIP.encode_image(normalize=True)``.

    The last block computes only the class token, the output. Attention is written out because the fused kernel is
    slower at 17 tokens. ``p`` holds the parameters of ``CLIP.visual``.
    """
    batch, grid = images_BCHW.shape[0], SIZE // PATCH
    patches = images_BCHW.reshape(batch, 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 1, 3, 5)
    x = patches.reshape(batch, grid * grid, 3 * PATCH * PATCH) @ p["conv1.weight"].reshape(WIDTH, -1).t()
    x = torch.cat([p["class_embedding"].expand(batch, 1, WIDTH).to(x.dtype), x], 1) + p["positional_embedding"]
    x = _norm(p, "ln_pre", x)
    for block in range(BLOCKS):
        x = _block(p, f"transformer.resblocks.{block}.", x, last=block == BLOCKS - 1)
    return F.normalize(_norm(p, "ln_post", x[:, 0]) @ p["proj"], dim=-1)


def _norm(p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), p[f"{name}.weight"], p[f"{name}.bias"])


def _block(p: Mapping[str, Tensor], prefix: str, x: Tensor, last: bool) -> Tensor:
    """Compute one residual block; with ``last``, queries and MLP of the class token only."""
    batch, tokens, _ = x.shape
    h = _norm(p, f"{prefix}ln_1", x)
    qkv = F.linear(h, p[f"{prefix}attn.in_proj_weight"], p[f"{prefix}attn.in_proj_bias"])
    q, k, v = qkv.view(batch, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
    if last:
        q, x = q[:, :, :1], x[:, :1]
    scores = (q * (WIDTH // HEADS) ** -0.5) @ k.transpose(-1, -2)
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, -1, WIDTH)
    x = x + F.linear(out, p[f"{prefix}attn.out_proj.weight"], p[f"{prefix}attn.out_proj.bias"])
    h = F.linear(_norm(p, f"{prefix}ln_2", x), p[f"{prefix}mlp.c_fc.weight"], p[f"{prefix}mlp.c_fc.bias"])
    return x + F.linear(F.gelu(h), p[f"{prefix}mlp.c_proj.weight"], p[f"{prefix}mlp.c_proj.bias"])


@torch.no_grad()
def class_embeddings(model: CLIP, tokenizer: SimpleTokenizer, spec: PackSpec) -> Tensor:
    """Return unit text embeddings (K, E): the mean over the task's templates."""
    rows = [
        model.encode_text(tokenizer([t.format(name) for t in spec.templates]), normalize=True).mean(0)
        for name in spec.classes
    ]
    return F.normalize(torch.stack(rows), dim=-1)


def visual_parameters(model: CLIP) -> dict[str, Tensor]:
    """Return the parameters of the image tower by their names within ``visual``."""
    return dict(model.visual.named_parameters())


def load_base(path: Path) -> CLIP:
    """Load the base model in float32, from its half-precision file."""
    model = build_model()
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    assert set(missing) <= {"attn_mask"} and not unexpected
    return model.eval()
