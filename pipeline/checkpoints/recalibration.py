"""Measure the statistics of batch normalisation of a merged model again, on images without labels."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from tasks.batch_norm import batches_of, estimate, has_statistics, is_statistic
from tasks.tensors import first_names
from tasks.vision.file_tree import FileTree
from tasks.vision.folders import SUFFIXES
from tasks.vision.image_models import ImageModel, image_model
from tasks.vision.pixels import BROKEN, reason_of

#: Images that are used at most: REPAIR (Jordan et al., 2023) finds no gain beyond a few thousand.
MOST_IMAGES = 4096
#: Images of a batch; tests lower it.
BATCH = 128


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What measures statistics again.

    Attributes:
        model: the architecture, with random weights.
        files: of images, in the order of use.
    """

    model: ImageModel
    files: Sequence[Path]

    @classmethod
    def of(cls, folder: str, model: str | None) -> "Recalibration":
        """List the images at any depth of a folder, and build the architecture.

        At most `MOST_IMAGES` are used, in the order of the hashes of their paths, which mixes the folders.

        Raises:
            ValueError: if the folder has fewer than two images, or the architecture is unknown or has no batch
                normalisation.
        """
        if model is None:
            raise ValueError(
                "--recalibrate: needs --model with the architecture: timm/NAME, torchvision/NAME or one of open_clip, "
                "such as RN50"
            )
        files = _images(folder)
        try:
            found = image_model(model)
        except ValueError as error:
            raise ValueError(f"--model: {error}") from error
        if not has_statistics(found.module):
            raise ValueError(f"--model: {model} has no batch normalisation: leave --recalibrate out")
        return cls(found, files)

    def measure(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the statistics that `state` has, measured with its weights, under its names and in its types.

        Raises:
            ValueError: if `state` is not of the architecture, or an image cannot be read.
        """
        module = self.model.module
        prefix = _prefix(module, state)
        _load(module, prefix, state)
        estimate(module, self._batches())
        measured = {prefix + n: t for n, t in module.state_dict().items() if is_statistic(n)}
        if bad := [name for name, t in measured.items() if not bool(t.isfinite().all())]:
            raise ValueError(f"--recalibrate: {first_names(bad)} are NaN or infinite: the merge goes too far")
        return {name: t.to(state[name].dtype) for name, t in measured.items()}

    def _batches(self) -> Iterator[Tensor]:
        with ThreadPoolExecutor() as pool:
            for piece in batches_of(len(self.files), BATCH):
                yield torch.stack(list(pool.map(self._input, self.files[piece])))

    def _input(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as image:
                return self.model.input(image)
        except BROKEN as error:
            raise ValueError(f"--recalibrate: {path}: {reason_of(error)}") from error


def _images(folder: str) -> list[Path]:
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"--recalibrate: {folder}: no such folder; give one that holds images, at any depth")
    tree = FileTree(root)
    found = [path for path in tree.files(root) if path.suffix.lower() in SUFFIXES]
    tree.check()
    if len(found) < 2:
        raise ValueError(
            f"--recalibrate: {folder}: must hold two images or more ({', '.join(sorted(SUFFIXES))}), got {len(found)}"
        )
    return sorted(found, key=lambda path: _mixed(path.relative_to(root)))[:MOST_IMAGES]


def _mixed(path: Path) -> bytes:
    return blake2b(path.as_posix().encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _prefix(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Return what stands before the module's names in `state`, such as "visual."."""
    names = list(module.state_dict())
    last = f".{names[0]}"
    prefixes = {"", *(name.removesuffix(names[0]) for name in state if name.endswith(last))}
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + name in state for name in names))


def _load(module: nn.Module, prefix: str, state: Mapping[str, Tensor]) -> None:
    """Load the weights; the last layer, a head, may have another size or be missing, as nothing follows it."""
    head, last = [(name, m) for name, m in module.named_modules() if any(True for _ in m.parameters(recurse=False))][-1]
    skipped = f"{head}." if isinstance(last, nn.Linear) else ()
    own = {name: t for name, t in module.state_dict().items() if not name.startswith(skipped)}
    wrong = [n for n, t in own.items() if prefix + n not in state or state[prefix + n].shape != t.shape]
    if wrong := [name for name in wrong if not name.endswith("num_batches_tracked")]:
        names = first_names(wrong)
        raise ValueError(f"--model: is not the architecture of these weights: missing or mis-shaped are {names}")
    module.load_state_dict({name: state[prefix + name] for name in own if prefix + name in state}, strict=False)
