"""A model card's metadata, and the upload of an export to the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils._validators import validate_repo_id

_HUB = "hf:"
#: Family of models -> the hub's name of what they do.
_PIPELINES = {
    "open_clip": "zero-shot-image-classification",
    "causal": "text-generation",
    "seq2seq": "text2text-generation",
    "encoder": "feature-extraction",
    "vision": "image-feature-extraction",
}


def card_metadata(
    name: str, sources: Sequence[str], library: str, family: str, scores: Sequence[Mapping[str, Any]]
) -> str:
    """Return the YAML at the top of a model card: library, base models of the hub, pipeline tag, results on test.

    The licence is not in it: it follows from those of the base and the experts, and `push` takes it.

    Args:
        name: of the model.
        sources: of the base and the experts; only those of the hub are named.
        library: that loads the model.
        family: of the backbone.
        scores: rows of `pipeline.records.tables.SCORES` on test.
    """
    pipeline = _PIPELINES.get(family)
    results = [
        EvalResult(
            task_type=pipeline or "other",
            dataset_type=row["task"],
            dataset_name=row["task"],
            dataset_split="test",
            metric_type=row["metric"],
            metric_value=round(row["value"], 6),
        )
        for row in scores
    ]
    found = ModelCardData(
        model_name=name,
        library_name=library,
        tags=["model-merging", "lines"],
        base_model=[source.removeprefix(_HUB) for source in sources if source.startswith(_HUB)] or None,
        pipeline_tag=pipeline,
        metrics=sorted({row["metric"] for row in scores}) or None,
        eval_results=results or None,
    )
    return str(found.to_yaml())


def check_repository(repository: str) -> None:
    """Require a name OWNER/REPO.

    Raises:
        ValueError: if it is none.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"--push {repository}: {error}") from error
    if "/" not in repository:
        raise ValueError(f"--push {repository}: must be OWNER/REPO")


def uploads(folder: Path) -> list[tuple[str, int]]:
    """Return the files of a folder that `push` uploads, with their bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def push(folder: Path, repository: str, private: bool = True) -> str:
    """Upload an export to the hub, into a repository that is made if there is none.

    Args:
        folder: of the export.
        repository: OWNER/REPO.
        private: whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        ValueError: if the hub is out of reach, refuses, or there is no token.
    """
    check_repository(repository)
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Export of LiNeS Sweep")
    except OfflineModeIsEnabled as error:
        raise ValueError(f"--push {repository}: HF_HUB_OFFLINE is set: unset it, or upload {folder} later") from error
    except LocalTokenNotFoundError as error:
        raise ValueError(f"--push {repository}: no token: run `hf auth login`, or set HF_TOKEN") from error
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"--push {repository}: {error}; {folder} is complete, and can be uploaded again") from error
    return str(commit.commit_url)
