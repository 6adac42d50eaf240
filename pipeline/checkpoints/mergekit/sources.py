"""The models that a recipe of mergekit names: where they are, and whether they have one vocabulary."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checkpoints.checkpoint import Checkpoint, checked
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lazy import Adapted, open_checkpoint
from pipeline.checkpoints.lora import read_adapter
from pipeline.checkpoints.mergekit.document import RecipeFile
from pipeline.checkpoints.pieces import outline
from tasks.lora import WeightPart
from tasks.tensors import first_names

#: OWNER/REPO of the hub, and @REVISION if need be.
_REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?")
#: Prefixes of sources that mergekit does not know.
_OURS = ("hf:", "embedded/", "s3://", "gs://")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model of a recipe, in this project's words.

    Attributes:
        model: the source of a whole model.
        adapter: the source of a LoRA adapter on it; "" for none.
    """

    model: str
    adapter: str = ""

    @property
    def label(self) -> str:
        """Both sources, for errors and cards."""
        return "+".join(filter(None, (self.model, self.adapter)))

    @property
    def public(self) -> str:
        """The model as mergekit writes it, without the place of folders on this machine."""
        parts = filter(None, (self.model, self.adapter))
        return "+".join(p.removeprefix("hf:") if p.startswith("hf:") else Path(p).name for p in parts)

    def open(self) -> Checkpoint:
        """Open the model; tensors of .safetensors files stay on the disk until they are used.

        Raises:
            ValueError: as `open_checkpoint` and `read_adapter`, or if the adapter changes what the model does not have.
        """
        whole = open_checkpoint(self.model)
        if not self.adapter:
            return whole
        adapter, shapes = read_adapter(locate(self.adapter)), {n: t.shape for n, t in outline(whole.state).items()}
        names = {module: f"{module}.weight" for module in adapter.factors}
        if missing := [name for name in names.values() if name not in shapes]:
            raise ValueError(f"{self.adapter}: changes {first_names(missing)}, which {self.model} does not have")
        change = adapter.task_vector({module: WeightPart(name) for module, name in names.items()}, shapes)
        return checked(self.label, Adapted(whole.state, change))


def sources_of(recipe: RecipeFile) -> dict[str, ModelSource]:
    """Return model of the recipe -> where it is.

    A folder is looked for from the working directory, as in mergekit, and then from the folder of the recipe; what is
    in neither is a repository of the Hugging Face hub.

    Raises:
        SpecError: if a model is in no such place.
    """
    return {model: _source(recipe, model) for model in recipe.models}


def _source(recipe: RecipeFile, model: str) -> ModelSource:
    parts = [_place(recipe, part) for part in (model, *model.split("+", 1))]
    if parts[0] is not None:
        return ModelSource(parts[0])
    if missing := [part for part, place in zip(model.split("+", 1), parts[1:], strict=True) if place is None]:
        raise recipe.error(_at(recipe, model), f"no such folder, and no OWNER/REPO of the hub, got {missing[0]!r}")
    return ModelSource(*filter(None, parts))


def _place(recipe: RecipeFile, text: str) -> str | None:
    for path in (Path(text).expanduser(), recipe.path.parent / text):
        if path.exists():
            return str(path)
    if text.startswith(_OURS):
        return text
    return f"hf:{text}" if _REPOSITORY.fullmatch(text) else None


def _at(recipe: RecipeFile, model: str) -> tuple[str | int, ...]:
    """Return the path of the first place that names a model."""
    for at, part in recipe.slices:
        for place, source in enumerate(part.sources):
            if source.model == model and (*recipe.source_path(at, place), "model") in recipe.lines:
                return (*recipe.source_path(at, place), "model")
    return ("base_model",)


def check_vocabularies(recipe: RecipeFile, sources: Mapping[str, ModelSource]) -> None:
    """Check that all models have one vocabulary if the recipe chooses a tokenizer: mergekit would move tokens else.

    Raises:
        SpecError: if they differ, or a model has no tokenizer.json.
    """
    if recipe.config.tokenizer_source is None:
        return
    known: dict[str, dict[str, int]] = {}
    for model, source in sources.items():
        files = locate(source.model)
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
