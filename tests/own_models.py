"""Models and image folders as a user might bring them: a small CLIP, drawn pictures, honest fine-tuning.

Nothing embedded is used. Three tasks over the same kind of picture, of which each asks something else: a picture of two
filled shapes has a colour, a shape and a size, so an expert of one task unlearns to look for the others.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (225, 205, 40)}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 7, "medium": 13, "large": 20}
TASKS: Mapping[str, tuple[str, ...]] = {"colours": tuple(COLOURS), "shapes": SHAPES, "sizes": tuple(SIZES)}
TEMPLATES = {"colours": "a {} shape", "shapes": "a {}", "sizes": "a {} thing"}
PIXELS = 64
CONFIG: dict[str, Any] = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": PIXELS, "layers": 4, "width": 64, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 1},
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


def draw(rng: np.random.Generator, kinds: Mapping[str, str]) -> Image.Image:
    """A noisy picture of one shape; what `kinds` does not say is drawn by lot."""
    colour, shape, size = (kinds.get(task, rng.choice(TASKS[task])) for task in ("colours", "shapes", "sizes"))
    noise = rng.normal(rng.integers(60, 180, 3), 25, (PIXELS, PIXELS, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise)
    pen, r = ImageDraw.Draw(image), SIZES[size] + int(rng.integers(-2, 3))
    x, y = rng.integers(r, PIXELS - r, 2).tolist()
    ink = tuple(int(c) for c in np.clip(rng.normal(COLOURS[colour], 25), 0, 255))
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=ink)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=ink)
    else:
        pen.rectangle((x - r, y - r // 3, x + r, y + r // 3), fill=ink)
        pen.rectangle((x - r // 3, y - r, x + r // 3, y + r), fill=ink)
    return image


def write_images(root: Path, task: str, per_class: int, seed: int, suffix: str = ".png") -> Path:
    """ROOT/CLASS/NUMBER.suffix."""
    rng = np.random.default_rng(seed)
    for name in TASKS[task]:
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            draw(rng, {task: name}).save(root / name / f"{i:03d}{suffix}")
    return root


class Trainer:
    """A small CLIP that learns by the cross-entropy of its zero-shot heads; its folder is open_clip's local-dir."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        folder.mkdir(parents=True)
        preprocess = CONFIG["preprocess_cfg"]
        model_cfg = {k: v for k, v in CONFIG.items() if k != "preprocess_cfg"}
        self.config = folder / "open_clip_config.json"
        self.config.write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
        torch.manual_seed(seed)
        self.model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._tokens = {t: tokenizer([TEMPLATES[t].format(c) for c in names]) for t, names in TASKS.items()}
        rng = np.random.default_rng(seed)
        self._data = {task: _labelled(rng, task, 40) for task in TASKS}

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def pretrain(self, steps: int) -> dict[str, Tensor]:
        """Both towers, on every task in turn, not to the end."""
        self._train(list(self.model.parameters()), list(TASKS), steps, 2e-3)
        return self.state()

    def finetune(self, base: Mapping[str, Tensor], task: str, steps: int) -> dict[str, Tensor]:
        """The image tower less its projection, from `base`, on one task: all that a CLIPVisionModel holds."""
        self.model.load_state_dict(base)
        parameters = [p for n, p in self.model.visual.named_parameters() if n != "proj"]
        self._train(parameters, [task], steps, 5e-4)
        return self.state()

    def _train(self, parameters: list[torch.nn.Parameter], tasks: list[str], steps: int, rate: float) -> None:
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.0)
        self.model.train()
        for step in range(steps):
            task = tasks[step % len(tasks)]
            pixels, labels = self._data[task]
            batch = torch.randint(len(labels), (48,))
            image, text, scale = self.model(pixels[batch], self._tokens[task])
            loss = F.cross_entropy(scale * image @ text.T, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.model.eval()


def _labelled(rng: np.random.Generator, task: str, per_class: int) -> tuple[Tensor, Tensor]:
    """Normalised pictures (N, 3, H, W) and labels (N)."""
    images = [np.asarray(draw(rng, {task: name})) for name in TASKS[task] for _ in range(per_class)]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - 0.5) / 0.25, torch.arange(len(TASKS[task])).repeat_interleave(per_class)


def visual(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower alone."""
    return {name: tensor for name, tensor in state.items() if name.startswith("visual.")}


def write_authors(path: Path, state: Mapping[str, Tensor]) -> str:
    """The layout of the authors' nonlinear_finetuned.pt: `model.` in front, without the text transformer."""
    torch.save({f"model.{k}": v for k, v in state.items() if not k.startswith("transformer.")}, path)
    return str(path)


def write_training(path: Path, state: Mapping[str, Tensor]) -> str:
    """What a training program saves in mid-run, under data parallelism."""
    model = {f"module.{k}": v for k, v in state.items()}
    torch.save({"epoch": 3, "model": model, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}, path)
    return str(path)


def write_hugging_face(folder: Path, state: Mapping[str, Tensor], hidden_act: str = "quick_gelu") -> str:
    """A folder of transformers' CLIPVisionModel: config.json and model.safetensors, without the projection."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", "hidden_act": hidden_act}))
    save_file(dict(_vision_names(visual(state))), folder / "model.safetensors")
    return str(folder)


_TOP = {"class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight"}
_TOP |= {"positional_embedding": "embeddings.position_embedding.weight"}
_NORMS = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_BLOCK |= {"attn.out_proj": "self_attn.out_proj"}


def _vision_names(tower: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for full, tensor in tower.items():
        name = full.removeprefix("visual.")
        stem, _, kind = name.rpartition(".")
        if name == "proj":
            continue
        if name in _TOP or stem in _NORMS:
            yield "vision_model." + (_TOP.get(name) or f"{_NORMS[stem]}.{kind}"), tensor
            continue
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        block = f"vision_model.encoder.layers.{number}"
        if rest.startswith("attn.in_proj_"):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{block}.self_attn.{letter}_proj.{rest.removeprefix('attn.in_proj_')}", part.clone()
        else:
            yield f"{block}.{_BLOCK[rest.rpartition('.')[0]]}.{kind}", tensor
