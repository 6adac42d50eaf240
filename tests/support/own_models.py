"""Models and image folders like those that users bring: a small CLIP, fine-tuned on drawn pictures.

Nothing embedded is used. Pictures show a disc in a frame; the three tasks are the colours of the disc, the ground and
the frame. So an expert of one task forgets the other two.
"""

import json
import shutil
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

from tasks.vision.folders import DEFAULT_TEMPLATES

EXAMPLE = Path(__file__).parents[2] / "examples" / "your-own-models.yaml"
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (225, 205, 40)}
GROUNDS = {"black": 30, "grey": 125, "white": 225}
FRAMES = {"purple": (140, 30, 160), "orange": (240, 140, 20), "cyan": (30, 200, 210)}
TASKS: Mapping[str, tuple[str, ...]] = {"colours": tuple(COLOURS), "grounds": tuple(GROUNDS), "frames": tuple(FRAMES)}
PIXELS = 64
CONFIG: dict[str, Any] = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": PIXELS, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 1},
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


def draw(rng: np.random.Generator, kinds: Mapping[str, str]) -> Image.Image:
    """Draw a noisy picture of a disc in a frame; attributes that `kinds` lacks are random."""
    colour, ground, frame = (kinds.get(task) or str(rng.choice(names)) for task, names in TASKS.items())
    noise = rng.normal(GROUNDS[ground] + rng.normal(0, 20), 25, (PIXELS, PIXELS, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise)
    pen, (x, y), r = ImageDraw.Draw(image), rng.integers(22, 42, 2).tolist(), int(rng.integers(6, 14))
    pen.rectangle((0, 0, PIXELS - 1, PIXELS - 1), outline=_ink(rng, FRAMES[frame]), width=int(rng.integers(3, 7)))
    pen.ellipse((x - r, y - r, x + r, y + r), fill=_ink(rng, COLOURS[colour]))
    return image


def _ink(rng: np.random.Generator, colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(int(c) for c in rng.normal(colour, 35).clip(0, 255))


def write_images(root: Path, task: str, per_class: int, seed: int, suffix: str = ".png") -> Path:
    """Write images to ROOT/CLASS/NUMBER.suffix."""
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
        self.model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._tokens = {t: tokenizer([DEFAULT_TEMPLATES[0].format(c) for c in names]) for t, names in TASKS.items()}
        rng = np.random.default_rng(seed)
        self._data = {task: _labelled(rng, task, 40) for task in TASKS}

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the weights."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def pretrain(self, steps: int) -> dict[str, Tensor]:
        """Train the text tower until class names differ, then the image tower on the tasks in turn."""
        self._separate_names()
        self._train(list(self.model.visual.parameters()), list(TASKS), steps)
        return self.state()

    def _separate_names(self) -> None:
        tokens = torch.cat(list(self._tokens.values()))
        parameters = [p for n, p in self.model.named_parameters() if not n.startswith(("visual.", "logit_scale"))]
        optimizer = torch.optim.Adam(parameters, 2e-3)
        for _ in range(25):
            text = self.model.encode_text(tokens, normalize=True)
            loss = (text @ text.T - torch.eye(len(text))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def finetune(self, base: Mapping[str, Tensor], task: str, steps: int) -> dict[str, Tensor]:
        """Train the image tower from `base` on one task, without its projection, which a CLIPVisionModel lacks."""
        self.model.load_state_dict(base)
        parameters = [p for n, p in self.model.visual.named_parameters() if n != "proj"]
        self._train(parameters, [task], steps)
        return self.state()

    def _train(self, parameters: list[torch.nn.Parameter], tasks: list[str], steps: int) -> None:
        optimizer = torch.optim.Adam(parameters, 1e-3)
        with torch.no_grad():
            text = {task: self.model.encode_text(tokens, normalize=True) for task, tokens in self._tokens.items()}
            scale = self.model.logit_scale.exp()
        for step in range(steps):
            task = tasks[step % len(tasks)]
            pixels, labels = self._data[task]
            batch = torch.randint(len(labels), (48,))
            logits = scale * self.model.encode_image(pixels[batch], normalize=True) @ text[task].T
            loss = F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _labelled(rng: np.random.Generator, task: str, per_class: int) -> tuple[Tensor, Tensor]:
    """Return normalised pictures (N, 3, H, W) and labels (N)."""
    images = [np.asarray(draw(rng, {task: name})) for name in TASKS[task] for _ in range(per_class)]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - 0.5) / 0.25, torch.arange(len(TASKS[task])).repeat_interleave(per_class)


def visual(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the image tower."""
    return {name: tensor for name, tensor in state.items() if name.startswith("visual.")}


def write_authors(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write the layout of the authors' nonlinear_finetuned.pt: prefix `model.`, no text transformer."""
    torch.save({f"model.{k}": v for k, v in state.items() if not k.startswith("transformer.")}, path)
    return str(path)


def write_training(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write a checkpoint as a data-parallel training program saves it during training."""
    model = {f"module.{k}": v for k, v in state.items()}
    torch.save({"epoch": 3, "model": model, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}, path)
    return str(path)


def write_hugging_face(folder: Path, state: Mapping[str, Tensor], hidden_act: str = "quick_gelu") -> str:
    """Write a folder of transformers' CLIPVisionModel: config.json and model.safetensors, without the projection."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", "hidden_act": hidden_act}))
    save_file(dict(_vision_names(visual(state))), folder / "model.safetensors")
    return str(folder)


def bring(folder: Path) -> Path:
    """Write examples/your-own-models.yaml and all it names: models in four layouts, images in two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps are so small that more threads are slower
    models, data = folder / "models", folder / "data"
    trainer = Trainer(models)
    base = trainer.pretrain(50)
    save_file(base, models / "base.safetensors")
    write_authors(models / "colours.pt", trainer.finetune(base, "colours", 40))
    write_training(models / "grounds.pt", trainer.finetune(base, "grounds", 40))
    write_hugging_face(models / "frames", trainer.finetune(base, "frames", 40))
    torch.set_num_threads(threads)
    write_images(data / "colours", "colours", 40, seed=1)
    write_images(data / "frames", "frames", 40, seed=2, suffix=".webp")
    for seed, (split, count) in enumerate({"train": 2, "val": 15, "test": 30}.items()):
        write_images(data / "grounds" / split, "grounds", count, seed + 10, ".jpg")
    return Path(shutil.copy(EXAMPLE, folder))


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
