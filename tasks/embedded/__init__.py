"""Tasks and checkpoints that are part of the package, by name; they need no network."""

from pathlib import Path

from tasks.embedded.bases import BASES
from tasks.embedded.language import BUILT
from tasks.registry import near

_ROOT = Path(__file__).parent
#: Models and prompts that are built in the cache.
BUILT_HERE = tuple(sorted({*BASES, *BUILT}))


def task_names() -> list[str]:
    """Return the names of all embedded tasks, of images and of texts."""
    return [*pack_names(), *text_names()]


def pack_names() -> list[str]:
    """Return the names of the embedded task packs, sorted."""
    return sorted(p.stem for p in (_ROOT / "packs").glob("*.parquet"))


def pack_path(name: str) -> Path:
    """Return the file of the pack `name`.

    Raises:
        ValueError: if the name is unknown; near names are suggested.

    Example:
        >>> pack_path("mnist").name
        'mnist.parquet'
    """
    return _find("packs", name, ".parquet", "pack")


def text_names() -> list[str]:
    """Return the names of the embedded text tasks, sorted."""
    return sorted(p.name for p in (_ROOT / "texts").iterdir() if p.is_dir())


def text_path(name: str) -> Path:
    """Return the folder with train.parquet, val.parquet and test.parquet of the text task `name`.

    Raises:
        ValueError: if the name is unknown; near names are suggested.

    Example:
        >>> text_path("animals").name
        'animals'
    """
    if name not in text_names():
        raise ValueError(f"embedded/{name}: no such embedded text task; {near(name, text_names())}")
    return _ROOT / "texts" / name


def model_path(name: str) -> Path | None:
    """Return the folder of an embedded model of transformers, "tiny-t5"; None if there is none of this name."""
    return _folder_with("model.safetensors", name)


def adapter_path(name: str) -> Path | None:
    """Return the folder of an embedded LoRA adapter, "dinov2-small-letters"; None if there is none of this name."""
    return _folder_with("adapter_model.safetensors", name)


def checkpoint_names() -> list[str]:
    """Return the names of all embedded checkpoints, models and adapters, sorted."""
    root = _ROOT / "checkpoints"
    return sorted({p.stem if p.parent == root else p.parent.name for p in root.rglob("*.safetensors")})


def not_built(name: str) -> str:
    """Return the end of an error about one of `BUILT_HERE` that is not there yet: how to build it."""
    target, module = ("bases", "bases") if name in BASES else ("rewarded-soups", "language")
    return (
        f"not built yet: `make {target}` builds it, and `python -m tasks.embedded.{module}.build {name}` builds only it"
    )


def checkpoint_path(name: str) -> Path:
    """Return the file of a checkpoint: "base" or its expert "emoji", "convnext" or its expert "convnext-emoji", ...

    Raises:
        ValueError: if the name is unknown; near names are suggested.
    """
    return _find("checkpoints", name, ".safetensors", "checkpoint")


def model_config_path(name: str) -> Path:
    """Return the file of the open_clip model configuration `name`: "tiny-vit" or "tiny-convnext".

    Raises:
        ValueError: if the name is unknown; near names are suggested.
    """
    return _find("checkpoints", name, ".json", "model configuration")


def _folder_with(weights: str, name: str) -> Path | None:
    folder = _ROOT / "checkpoints" / name
    return folder if "/" not in name and (folder / weights).is_file() else None


def _find(folder: str, name: str, suffix: str, kind: str) -> Path:
    path = _ROOT / folder / (name + suffix)
    if "/" in name or not path.is_file():
        known = [p.name.removesuffix(suffix) for p in (_ROOT / folder).glob("*" + suffix)]
        raise ValueError(f"embedded/{name}: no such embedded {kind}; {near(name, known)}")
    return path
