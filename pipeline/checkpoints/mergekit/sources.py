"""The models that a recipe of mergekit names: where they are, and whether they have one vocabulary."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoints.files import locate
from pipeline.checkpoints.mergekit.document import RecipeFile

#: OWNER/REPO of the hub, and @REVISION if need be.
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
#: Prefixes of sources that mergekit does not know.
_OURS = ("hf:", "embedded/", "s3://", "gs://")


def sources_of(recipe: RecipeFile) -> dict[str, str]:
    """Return model of the recipe -> the source as this project writes it.

    A folder is looked for from the working directory, as in mergekit, and then from the folder of the recipe; what is
    in neither is a repository of the Hugging Face hub.

    Raises:
        SpecError: if a model is a LoRA adapter on another, or in no such place.
    """
    return {model: _source(recipe, model) for model in recipe.models}


def _source(recipe: RecipeFile, model: str) -> str:
    for path in (Path(model).expanduser(), recipe.path.parent / model):
        if path.exists():
            return str(path)
    if model.startswith(_OURS):
        return model
    if "+" in model:
        raise recipe.error(
            _at(recipe, model),
            f"a LoRA adapter on a model is not available here, got {model!r}: load it with peft, call "
            "merge_and_unload() and save_pretrained(FOLDER), and name that folder",
        )
    if not _REPOSITORY.fullmatch(model):
        raise recipe.error(_at(recipe, model), f"no such folder, and no OWNER/REPO of the hub, got {model!r}")
    return f"hf:{model}"


def _at(recipe: RecipeFile, model: str) -> tuple[str | int, ...]:
    """Return the path of the first place that names a model."""
    for at, part in recipe.slices:
        for place, source in enumerate(part.sources):
            if source.model == model and (*recipe.source_path(at, place), "model") in recipe.lines:
                return (*recipe.source_path(at, place), "model")
    return ("base_model",)


def check_vocabularies(recipe: RecipeFile, sources: Mapping[str, str]) -> None:
    """Check that all models have one vocabulary if the recipe chooses a tokenizer: mergekit would move tokens else.

    Raises:
        SpecError: if they differ, or a model has no tokenizer.json.
    """
    if recipe.config.tokenizer_source is None:
        return
    known: dict[str, dict[str, int]] = {}
    for model, source in sources.items():
        files = locate(source)
        path = (files.folder or files.weights[0].parent) / "tokenizer.json"
        if not path.is_file():
            raise recipe.error(("tokenizer_source",), f"{model} has no tokenizer.json to compare: remove this field")
        known[model] = _vocabulary(json.loads(path.read_text(encoding="utf-8")))
    first, *others = known
    for model in others:
        if known[model] != known[first]:
            raise recipe.error(
                ("tokenizer_source",),
                f"{model} has other tokens than {first} ({len(known[model])} and {len(known[first])}): vocabularies "
                "are not merged here; use models of one vocabulary",
            )


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return token -> number, of a tokenizer.json."""
    words = tokenizer["model"]["vocab"]
    pairs: Sequence[tuple[str, int]] = (
        list(words.items()) if isinstance(words, dict) else [(word, i) for i, (word, *_) in enumerate(words)]
    )
    return dict(pairs) | {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
