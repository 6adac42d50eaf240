"""Models and photographs on disk, which all sides of `benchmarks.peers` read.

A CLIP with a ViT-T/32 at 224 pixels from random weights (5.5 M parameters of the image tower), and JPEG files of three
sizes in 10 classes, each with a mean colour in noise. The base's projection is the ridge regression from the tower's
features to the prompts of all tasks; an expert's to those of its own task, and its other weights have noise. So
accuracies are far from chance, and differ between candidates, without any training.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

#: Task -> width and height of its images, as EuroSAT, DTD and SUN397 have them.
SIZES = {"tiles": (64, 64), "textures": (448, 448), "scenes": (800, 600)}
COLOURS = ("amber", "black", "coral", "denim", "ebony", "fawn", "green", "hazel", "indigo", "jade")
TEMPLATE = "a photo of a {}."
CONFIG = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 192, "head_width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 1},
}
_PREPROCESS = {"mean": [0.481, 0.458, 0.408], "std": [0.269, 0.261, 0.276]}
_RIDGE, _NOISE, _FITTED = 1e-2, 0.02, 10


@dataclass(frozen=True)
class Workload:
    """Files of a comparison, all below `folder`.

    Attributes:
        folder: holds open_clip_config.json; base.safetensors; TASK.safetensors of each expert; data/TASK/SPLIT/CLASS/
            with JPEG files; and, for those who load pickles, base.pt, TASK.pt and head_TASK.pt.
        betas: the candidates: LiNeS on a sum, with alpha of equation 2, 1 / number of experts.
    """

    folder: Path
    betas: tuple[float, ...]

    def to_json(self) -> str:
        """Return the arguments of the other sides' scripts."""
        return json.dumps({"folder": str(self.folder), "betas": self.betas, "tasks": list(SIZES), "template": TEMPLATE})


def betas(candidates: int) -> tuple[float, ...]:
    """Return as many values of beta, from 0.05 to 1."""
    return tuple(round(float(beta), 6) for beta in np.linspace(0.05, 1.0, candidates))


def write(folder: Path, images: int) -> None:
    """Write models, heads, and `images` photographs of each task for val and for test."""
    for seed, (task, size) in enumerate(SIZES.items()):
        _write_images(folder / "data" / task, size, images // len(COLOURS), seed)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": _PREPROCESS}))
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    model.eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        model.token_embedding.weight.mul_(50)  # else all prompts have nearly the same embedding
        features, wanted = {}, {}
        prompts = model.encode_text(tokenize([TEMPLATE.format(name) for name in COLOURS]), normalize=True)
        proj, model.visual.proj = model.visual.proj, None
        for task in SIZES:
            features[task], labels = _features(model, preprocess, folder / "data" / task / "train")
            wanted[task] = (prompts - prompts.mean(0))[labels]
        model.visual.proj = proj
        _save(folder, "base", model, _projection(features, wanted, list(SIZES)))
        base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for seed, task in enumerate(SIZES):
            model.load_state_dict(base)
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.visual.transformer.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(_NOISE * parameter.std(correction=0) * noise)
            _save(folder, task, model, _projection(features, wanted, [task]))
            torch.save((model.logit_scale.exp() * prompts).clone(), folder / f"head_{task}.pt")


def _write_images(folder: Path, size: tuple[int, int], per_class: int, seed: int) -> None:
    """Write one JPEG after another: a class has a mean colour, on which lies noise, coarse and fine."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(60, 195, (len(COLOURS), 3))
    for split, count in {"train": _FITTED, "val": per_class, "test": per_class}.items():
        for name, mean in zip(COLOURS, means, strict=True):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                coarse = rng.normal(mean + rng.normal(0, 14, 3), 45, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                picture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
                picture = (picture + rng.normal(0, 8, picture.shape)).clip(0, 255)
                Image.fromarray(picture.astype(np.uint8)).save(folder / split / name / f"{i:04}.jpg", quality=90)


def _features(model: torch.nn.Module, preprocess: object, folder: Path) -> tuple[Tensor, Tensor]:
    """Return features (N, width) before the projection, and labels (N)."""
    paths = sorted(folder.glob("*/*.jpg"))
    pixels = torch.stack([preprocess(Image.open(path)) for path in paths])  # type: ignore[operator]
    labels = torch.tensor([COLOURS.index(path.parent.name) for path in paths])
    return model.encode_image(pixels), labels  # type: ignore[operator]


def _projection(features: dict[str, Tensor], wanted: dict[str, Tensor], tasks: list[str]) -> Tensor:
    """Return the ridge regression (width, embed_dim) from features to prompts, over the images of `tasks`."""
    x, y = (torch.cat([of[task] for task in tasks]).double() for of in (features, wanted))
    gram = x.T @ x
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(gram + ridge, x.T @ y).float()


def _save(folder: Path, name: str, model: torch.nn.Module, projection: Tensor) -> None:
    """Write the weights as .safetensors, whole, and as a pickle without the text transformer, as the authors do."""
    model.visual.proj.copy_(projection)  # type: ignore[operator,union-attr]
    state = {key: tensor.contiguous().clone() for key, tensor in model.state_dict().items()}
    save_file(state, folder / f"{name}.safetensors")
    torch.save({k: v for k, v in state.items() if not k.startswith("transformer.")}, folder / f"{name}.pt")
